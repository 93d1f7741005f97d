//! What goes into the machine, what comes out, and what it tells operators.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::wire::message::Message;
use crate::wire::vrrp::Advert;

/// A link: its position in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct LinkId(pub u8);

/// Something that happens to a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// The time that was asked for has come. Every other input does the same first.
    Tick,
    /// A heartbeat, decoded and authenticated.
    Heartbeat {
        /// Where it was heard.
        link: LinkId,
        /// Who sent it.
        message: Message,
    },
    /// A VRRP advert, decoded, that came with TTL or hop limit 255 and not from this node itself.
    Advert {
        /// Where it was heard.
        link: LinkId,
        /// The source address of the packet.
        from: IpAddr,
        /// What it says.
        advert: Advert,
    },
    /// This node's addresses on a VRRP link, that adverts are sent from. At start, and whenever they change.
    Addresses {
        /// The link.
        link: LinkId,
        /// IPv4.
        v4: Option<Ipv4Addr>,
        /// IPv6: link-local.
        v6: Option<Ipv6Addr>,
    },
    /// This node's fitness. A node is unfit until it is told otherwise.
    Fitness {
        /// All priorities are lowered by so much, but not below 1.
        lowers: u16,
        /// Why it cannot serve at all; none: it can.
        unfit: Option<String>,
    },
    /// Why this node cannot serve this group, though it may be fit for others. It can until it is told otherwise.
    Unable {
        /// The group.
        group: usize,
        /// Why; none: it can.
        why: Option<String>,
    },
    /// Why this node, which is primary of this group, does not serve all of it: not all addresses could be added, again and
    /// again. It goes on with what there is, but only until another node takes the group.
    Failing {
        /// The group.
        group: usize,
        /// Why; none: it serves all of it.
        why: Option<String>,
    },
    /// Whether this node has what it needs to take groups back from a node that serves them. It has until it is told otherwise.
    Filled(Filled),
    /// An operator's order.
    Operator {
        /// What.
        command: Command,
        /// For which groups.
        scope: Scope,
    },
    /// The fencing program of [`Action::Fence`] has ended.
    Fenced {
        /// The node.
        node: String,
        /// How.
        result: FenceResult,
    },
    /// The node is to stop in order. [`Action::Stopped`] says when that is done.
    Stop,
}

/// Orders of operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Give the groups to another node, and serve them again only if nobody else can.
    Standby,
    /// Serve the groups, whoever does now. They stay until that node fails or another order comes.
    Takeover,
    /// Undo both: be a node like the others again.
    Ready,
}

/// Which groups an order is for. Groups that move together follow each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// All.
    All,
    /// The one with this name.
    Group(String),
}

/// How a fencing program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FenceResult {
    /// The node is dead for sure.
    Done,
    /// It may live.
    Failed,
}

/// Another node that a run before this one knew to be silent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silent {
    /// Its name.
    pub node: String,
    /// It was fenced, or known to serve nothing when it fell silent: no fencing program need make sure of it.
    pub is_harmless: bool,
}

/// What a node is to do, in the order in which they stand in the list. `group` is a position in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this heartbeat on all links that carry them.
    Heartbeat(Message),
    /// Send a VRRP advert; the addresses in it say with which protocol.
    Advertise {
        /// On which link.
        link: LinkId,
        /// For which group: with a virtual MAC address it is the source.
        group: usize,
        /// What.
        advert: Advert,
    },
    /// Add the addresses of a group.
    Take(usize),
    /// Remove them.
    Release(usize),
    /// Tell the network where the addresses of a group are, as often as configured. After [`Action::Take`], and when another
    /// node may have told it differently.
    Announce(usize),
    /// Run the program of a group, if it has one for the role.
    Run(Run),
    /// Make sure that this node is dead, and say so with [`Input::Fenced`].
    Fence(String),
    /// This node may serve its groups until then. After that it must not, even if it is asked nothing more: the packet path
    /// and the addresses are bound to it.
    Lease(Duration),
    /// For the log and alerts.
    Note(Note),
    /// An ordered stop is done.
    Stopped,
}

/// A program of a group to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The group.
    pub group: usize,
    /// Primary or backup.
    pub role: Role,
}

/// How a node stands to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Hears what the others do, after its start or after it stood still, and claims nothing.
    Listening,
    /// Another one serves, or should.
    Backup,
    /// Serves.
    Primary,
    /// Cannot serve.
    Unfit,
    /// Stopped in order.
    Stopped,
}

/// Whether a node has what it needs to take groups back from one that serves them well: a director, the connections of the
/// others. Where nobody serves, it takes them all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "filled", content = "words")]
pub enum Filled {
    /// It needs nothing.
    #[default]
    Needless,
    /// Not yet, and what it waits for.
    Waiting(String),
    /// It has, and what.
    Done(String),
    /// Not yet, but it has waited for as long as it was to.
    GivenUp(String),
}

/// Why a group's role changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The node started.
    Started,
    /// All others were heard, or were silent for `initdead`.
    Heard,
    /// Nobody serves the group, and this node is the best of those that can.
    Best,
    /// Nobody serves the group, and the better node named here did not take it.
    BetterIdle(String),
    /// The primary named here is dead: silent on all links.
    PrimaryDead(String),
    /// The primary named here stopped, released the group or handed it over.
    PrimaryReleased(String),
    /// The primary named here started anew.
    PrimaryRestarted(String),
    /// The VRRP router at this address is silent.
    ForeignSilent(IpAddr),
    /// The VRRP router at this address gave up with priority 0.
    ForeignReleased(IpAddr),
    /// This node is preferred to the VRRP router at this address.
    ForeignPreempted(IpAddr),
    /// The owner of the addresses needs to ask nobody (VRRP priority 255).
    Owner,
    /// Handed over to this node, which is preferred or was ordered to take over.
    HandedOver(String),
    /// Handed over to this node, because this one could not serve all of it.
    Failing {
        /// Who has it.
        node: String,
        /// What was wrong.
        why: String,
    },
    /// This node is primary too and goes before.
    SplitBrain(String),
    /// This node is primary too and cannot hear this one, so that only this one can yield.
    Unheard(String),
    /// This VRRP router is primary too and goes before.
    Foreign(IpAddr),
    /// The node stood still for so long that others may have taken over.
    Thawed(Duration),
    /// The node is not fit, and why.
    Unfit(String),
    /// The node is fit again.
    Fit,
    /// An operator's order.
    Operator(Command),
    /// The node was stopped in order.
    Stopped,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Started => f.write_str("the node started"),
            Reason::Heard => f.write_str("the other nodes were heard, or were silent for initdead"),
            Reason::Best => f.write_str("nobody serves it, and this node comes first"),
            Reason::BetterIdle(node) => write!(
                f,
                "nobody serves it, and {node}, which comes first, did not take it"
            ),
            Reason::PrimaryDead(node) => {
                write!(f, "the primary {node} is dead: silent on all links")
            }
            Reason::PrimaryReleased(node) => write!(f, "the primary {node} released it"),
            Reason::PrimaryRestarted(node) => write!(f, "the primary {node} started anew"),
            Reason::ForeignSilent(address) => write!(f, "the VRRP router {address} is silent"),
            Reason::ForeignReleased(address) => write!(f, "the VRRP router {address} released it"),
            Reason::ForeignPreempted(address) => {
                write!(f, "this node goes before the VRRP router {address}")
            }
            Reason::Owner => f.write_str("this node owns the addresses (priority 255)"),
            Reason::HandedOver(node) => write!(f, "handed over to {node}"),
            Reason::Failing { node, why } => write!(
                f,
                "handed over to {node}, as this node could not serve all of it: {why}"
            ),
            Reason::SplitBrain(node) => write!(f, "{node} is primary too and goes before"),
            Reason::Unheard(node) => write!(f, "{node} is primary too and does not hear this node"),
            Reason::Foreign(address) => {
                write!(f, "the VRRP router {address} is primary and goes before")
            }
            Reason::Thawed(time) => write!(f, "the node stood still for {} ms", time.as_millis()),
            Reason::Unfit(why) => write!(f, "the node is not fit: {why}"),
            Reason::Fit => f.write_str("the node is fit"),
            Reason::Operator(Command::Standby) => f.write_str("an operator ordered standby"),
            Reason::Operator(Command::Takeover) => f.write_str("an operator ordered takeover"),
            Reason::Operator(Command::Ready) => f.write_str("an operator ordered ready"),
            Reason::Stopped => f.write_str("the node was stopped in order"),
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A change of a group's role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Transition {
    /// When, on the machine's clock.
    #[serde(serialize_with = "milliseconds")]
    pub at: Duration,
    /// The group's name.
    pub group: String,
    /// What it was.
    pub from: Role,
    /// What it is.
    pub to: Role,
    /// Why.
    pub reason: Reason,
}

/// Something for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A group's role changed.
    Transition(Transition),
    /// Something else.
    Alert(Alert),
}

/// Something besides transitions that operators want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Alert {
    /// A node was heard for the first time, or again.
    NodeAlive(String),
    /// A node is silent on all links for `warntime`.
    NodeLate(String),
    /// A node is silent on all links for `deadtime`.
    NodeDead(String),
    /// A node stopped in order.
    NodeLeft(String),
    /// A node started anew.
    NodeRestarted(String),
    /// A node is no longer heard on a link, but on others.
    LinkSilent {
        /// The node.
        node: String,
        /// The link's name.
        link: String,
    },
    /// A node is heard on a link again.
    LinkBack {
        /// The node.
        node: String,
        /// The link's name.
        link: String,
    },
    /// A node is heard but does not hear this one.
    OneWay(String),
    /// A node is heard, but nothing shows that its messages are no recorded ones from before this node's start.
    Unproven(String),
    /// A node has another keepalive or deadtime than this one.
    OtherTimes {
        /// The node.
        node: String,
        /// Its keepalive and deadtime.
        theirs: (Duration, Duration),
        /// This node's.
        own: (Duration, Duration),
    },
    /// Another one is primary of the same group at the same time.
    SplitBrain {
        /// The group.
        group: String,
        /// Name of the other node, or address of the VRRP router.
        other: String,
        /// This node stays primary.
        stays: bool,
    },
    /// Only one of the two is primary any more, as far as this node knows. Follows every [`Alert::SplitBrain`].
    SplitBrainOver {
        /// The group.
        group: String,
        /// Who the other one was.
        other: String,
    },
    /// A node's messages do not tell of a group that it should know: the configurations differ.
    GroupUnknown {
        /// The group.
        group: String,
        /// The node.
        node: String,
    },
    /// This node has what it needs to take its groups back, or does so without.
    MayFailBack(Filled),
    /// The machine stood still, or the run loop did.
    StoodStill(Duration),
    /// A fencing program failed.
    FenceFailed(String),
    /// This node is primary but does not serve all of a group.
    Failing {
        /// The group.
        group: String,
        /// Why.
        why: String,
    },
    /// An operator ordered takeover, but the node is not fit.
    TakeoverRefused {
        /// The group.
        group: String,
        /// Why it is not fit.
        why: String,
    },
    /// An operator ordered standby, but no other node can serve the group.
    NobodyElse(String),
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Alert::NodeAlive(node) => write!(f, "node {node} is alive"),
            Alert::NodeLate(node) => {
                write!(f, "node {node} is late: silent on all links for warntime")
            }
            Alert::NodeDead(node) => {
                write!(f, "node {node} is dead: silent on all links for deadtime")
            }
            Alert::NodeLeft(node) => write!(f, "node {node} stopped in order"),
            Alert::NodeRestarted(node) => write!(f, "node {node} started anew"),
            Alert::LinkSilent { node, link } => {
                write!(f, "node {node} is silent on the link {link}")
            }
            Alert::LinkBack { node, link } => write!(f, "node {node} is heard on the link {link}"),
            Alert::OneWay(node) => write!(f, "node {node} is heard, but does not hear this node"),
            Alert::Unproven(node) => write!(
                f,
                "node {node} is heard, but not believed: its messages may be recorded ones from before this node's start, as \
                 they do not show that it hears this node; does it (a firewall, a cable)?"
            ),
            Alert::OtherTimes { node, theirs, own } => write!(
                f,
                "node {node} has a keepalive of {} ms and a deadtime of {} ms, this node of {} ms and {} ms: give all nodes \
                 the same",
                theirs.0.as_millis(),
                theirs.1.as_millis(),
                own.0.as_millis(),
                own.1.as_millis()
            ),
            Alert::SplitBrain {
                group,
                other,
                stays,
            } => {
                let what = if *stays {
                    "this node stays primary"
                } else {
                    "this node releases it"
                };
                write!(
                    f,
                    "split brain: {other} is primary of the group {group} too; {what}"
                )
            }
            Alert::SplitBrainOver { group, other } => write!(
                f,
                "split brain is over: this node and {other} are not both primary of the group {group} any more"
            ),
            Alert::GroupUnknown { group, node } => {
                write!(
                    f,
                    "node {node} does not know the group {group}: are the configurations alike?"
                )
            }
            Alert::MayFailBack(Filled::Done(what)) => {
                write!(f, "this node may take its groups back: {what}")
            }
            Alert::MayFailBack(Filled::GivenUp(what)) => write!(
                f,
                "this node takes its groups back after failback_limit all the same: {what}"
            ),
            Alert::MayFailBack(Filled::Waiting(what)) => {
                write!(f, "this node does not take its groups back yet: {what}")
            }
            Alert::MayFailBack(Filled::Needless) => {
                f.write_str("this node may take its groups back")
            }
            Alert::StoodStill(time) => {
                write!(f, "this node stood still for {} ms", time.as_millis())
            }
            Alert::FenceFailed(node) => write!(f, "fencing of node {node} failed"),
            Alert::Failing { group, why } => write!(
                f,
                "this node does not serve all of the group {group}: {why}; another node takes it, if one can; mend this, then \
                 order ready"
            ),
            Alert::TakeoverRefused { group, why } => {
                write!(
                    f,
                    "the group {group} is not taken over: the node is not fit: {why}"
                )
            }
            Alert::NobodyElse(group) => {
                write!(
                    f,
                    "no other node can serve the group {group}; this node goes on until one can"
                )
            }
        }
    }
}

/// All that operators can ask for.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// This node's name.
    pub node: String,
    /// Its incarnation.
    pub incarnation: u64,
    /// Why it cannot serve; none: it can.
    pub unfit: Option<String>,
    /// Whether it has what it needs to take its groups back.
    pub may_fail_back: Filled,
    /// What all priorities are lowered by.
    pub lowered_by: u16,
    /// For how long it may serve if it did nothing more, in milliseconds.
    #[serde(rename = "lease_ms", serialize_with = "milliseconds")]
    pub lease: Duration,
    /// The other nodes.
    pub nodes: Vec<PeerStatus>,
    /// The groups.
    pub groups: Vec<GroupStatus>,
    /// The latest changes, the oldest first.
    pub history: Vec<Transition>,
    /// The machine's clock, for the times in the history.
    #[serde(rename = "now_ms", serialize_with = "milliseconds")]
    pub now: Duration,
}

/// How another node is.
#[derive(Clone, Debug, Serialize)]
pub struct PeerStatus {
    /// Its name.
    pub node: String,
    /// How it is.
    pub state: PeerState,
    /// Its incarnation; none: it was never heard of.
    pub incarnation: Option<u64>,
    /// It hears this node.
    pub hears_us: bool,
    /// It is heard of through other nodes only.
    pub is_relayed: bool,
    /// It is heard, but not believed: nothing shows that its messages are no recorded ones.
    pub is_unproven: bool,
    /// Its keepalive and deadtime in milliseconds, where this node has others.
    pub other_times_ms: Option<[u64; 2]>,
    /// Every link that it was ever heard on.
    pub links: Vec<LinkStatus>,
}

/// How another node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// It was not heard yet.
    Unknown,
    /// It is heard.
    Alive,
    /// Silent for `warntime`.
    Late,
    /// Silent for `deadtime`.
    Dead,
    /// Stopped in order.
    Left,
}

/// What is heard of a node on one link.
#[derive(Clone, Debug, Serialize)]
pub struct LinkStatus {
    /// The link's name.
    pub link: String,
    /// How it is.
    pub state: LinkState,
    /// How long ago it was last heard there, in milliseconds.
    #[serde(rename = "last_heard_ms", serialize_with = "milliseconds")]
    pub last_heard: Duration,
}

/// How a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// It is heard.
    Good,
    /// Silent for `warntime`.
    Late,
    /// Silent for `deadtime`.
    Silent,
}

/// How a group stands.
#[derive(Clone, Debug, Serialize)]
pub struct GroupStatus {
    /// Its name.
    pub group: String,
    /// This node's role.
    pub role: Role,
    /// Why.
    pub reason: Reason,
    /// Since when, in milliseconds before now.
    #[serde(rename = "since_ms", serialize_with = "milliseconds")]
    pub since: Duration,
    /// Priority as configured.
    pub priority: u8,
    /// What is left of it.
    pub effective_priority: u8,
    /// An operator ordered standby.
    pub is_standby: bool,
    /// An operator ordered takeover.
    pub is_forced: bool,
    /// Why this node serves it only if nobody else can: it could not add all addresses. None: nothing is known to be wrong.
    pub failing: Option<String>,
    /// The node that is primary, as far as is known.
    pub primary: Option<String>,
    /// The foreign VRRP router that is primary, as far as is known.
    pub foreign: Option<ForeignStatus>,
}

/// A foreign VRRP router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ForeignStatus {
    /// Its address.
    pub address: IpAddr,
    /// Its priority.
    pub priority: u8,
    /// The link's name.
    pub link: String,
    /// How long ago it was last heard, in milliseconds.
    #[serde(rename = "last_heard_ms", serialize_with = "milliseconds")]
    pub last_heard: Duration,
}

fn milliseconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
