//! The kinds of single values in the YAML, besides addresses.

use std::path::PathBuf;

use serde_json::json;

use super::limits;
use super::model::{NoServer, OnDown, Ports, Protocol, RemovedServers, UntilChecked, XdpMode};
use super::value::{Kind, Refusal, nearest};

/// A whole number in a range.
#[derive(Debug)]
pub(super) struct Number<const MINIMUM: u64, const MAXIMUM: u64>;

impl<const MINIMUM: u64, const MAXIMUM: u64> Kind for Number<MINIMUM, MAXIMUM> {
    type Parsed = u32;

    fn expected() -> String {
        format!("a whole number from {MINIMUM} to {MAXIMUM}")
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "integer", "minimum": MINIMUM, "maximum": MAXIMUM })
    }

    fn parse(text: &str) -> Result<u32, Refusal> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text
            .parse()
            .ok()
            .filter(|number| digits && (MINIMUM..=MAXIMUM).contains(number));
        number
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(Refusal::default)
    }
}

/// A port; 0 means none in every table.
#[derive(Debug)]
pub(super) struct Port;

impl Kind for Port {
    type Parsed = u16;

    fn expected() -> String {
        "a port from 1 to 65535".to_owned()
    }

    fn schema() -> serde_json::Value {
        Number::<1, 65535>::schema()
    }

    fn parse(text: &str) -> Result<u16, Refusal> {
        Number::<1, 65535>::parse(text)
            .and_then(|port| u16::try_from(port).map_err(|_| Refusal::default()))
    }
}

/// A weight.
pub(super) type Weight = Number<0, { limits::WEIGHT }>;

/// One of a few words.
#[derive(Debug)]
pub(super) struct Word<T>(std::marker::PhantomData<T>);

/// A type whose values have words in the YAML.
pub(super) trait Words: Copy + 'static {
    /// The words and their meanings.
    const WORDS: &'static [(&'static str, Self)];
}

impl<T: Words> Kind for Word<T> {
    type Parsed = T;

    fn expected() -> String {
        let words: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
        if let [word] = words[..] {
            word.to_owned()
        } else {
            format!("one of {}", words.join(", "))
        }
    }

    fn schema() -> serde_json::Value {
        let words: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
        json!({ "type": "string", "enum": words })
    }

    fn parse(text: &str) -> Result<T, Refusal> {
        let known = T::WORDS.iter().find(|(word, _)| *word == text);
        known.map(|(_, meaning)| *meaning).ok_or_else(|| Refusal {
            why: None,
            help: nearest(text, T::WORDS.iter().map(|(word, _)| *word))
                .map(|word| format!("did you mean \"{word}\"?")),
        })
    }
}

/// The word for a protocol, or for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProtocolWord {
    Tcp,
    Udp,
    Both,
}

impl ProtocolWord {
    /// The protocols that it stands for.
    pub(super) const fn protocols(self) -> &'static [Protocol] {
        match self {
            Self::Tcp => &[Protocol::Tcp],
            Self::Udp => &[Protocol::Udp],
            Self::Both => &[Protocol::Tcp, Protocol::Udp],
        }
    }
}

/// The word for which connections are tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrackWord {
    All,
    OnChange,
}

impl Words for TrackWord {
    const WORDS: &'static [(&'static str, Self)] =
        &[("all", TrackWord::All), ("on-change", TrackWord::OnChange)];
}

impl Words for ProtocolWord {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("tcp", ProtocolWord::Tcp),
        ("udp", ProtocolWord::Udp),
        ("both", ProtocolWord::Both),
    ];
}

impl Words for NoServer {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("icmp", NoServer::Icmp),
        ("reset", NoServer::Reset),
        ("silent", NoServer::Silent),
    ];
}

impl Words for RemovedServers {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("keep", RemovedServers::Keep),
        ("reschedule", RemovedServers::Reschedule),
        ("drop", RemovedServers::Drop),
    ];
}

impl Words for OnDown {
    const WORDS: &'static [(&'static str, Self)] =
        &[("remove", OnDown::Remove), ("quiesce", OnDown::Quiesce)];
}

impl Words for UntilChecked {
    const WORDS: &'static [(&'static str, Self)] =
        &[("out", UntilChecked::Out), ("in", UntilChecked::In)];
}

/// Yes or no.
#[derive(Debug)]
pub(super) struct Switch;

impl Kind for Switch {
    type Parsed = bool;

    fn expected() -> String {
        "true or false".to_owned()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "boolean" })
    }

    fn parse(text: &str) -> Result<bool, Refusal> {
        text.parse().map_err(|_| Refusal::default())
    }
}

/// A port, a range of ports, or all of them.
#[derive(Debug)]
pub(super) struct PortRange;

impl Kind for PortRange {
    type Parsed = Ports;

    fn expected() -> String {
        "a port from 1 to 65535, a range like 8000-8999, or \"any\"".to_owned()
    }

    fn schema() -> serde_json::Value {
        json!({ "anyOf": [Port::schema(), { "type": "string", "pattern": "^(any|[0-9]+(-[0-9]+)?)$" }] })
    }

    fn parse(text: &str) -> Result<Ports, Refusal> {
        if text == "any" {
            return Ok(Ports::ANY);
        }
        let Some((first, last)) = text.split_once('-') else {
            return Port::parse(text).map(Ports::one);
        };
        let (first, last) = (Port::parse(first.trim())?, Port::parse(last.trim())?);
        if first > last {
            return Err(Refusal::because("it ends before it begins"));
        }
        Ok(Ports { first, last })
    }
}

/// A time in whole seconds.
#[derive(Debug)]
pub(super) struct Seconds;

impl Kind for Seconds {
    type Parsed = u16;

    fn expected() -> String {
        "a time with its unit from 1s to 12h, like 90s or 15m".to_owned()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^[0-9]" })
    }

    fn parse(text: &str) -> Result<u16, Refusal> {
        let time = humantime::parse_duration(text).map_err(|_| Refusal::default())?;
        if time.subsec_nanos() != 0 {
            return Err(Refusal::because("whole seconds are counted"));
        }
        u16::try_from(time.as_secs())
            .ok()
            .filter(|seconds| limits::TIMEOUT_S.contains(seconds))
            .ok_or_else(Refusal::default)
    }
}

/// How long a slow start takes, in seconds.
#[derive(Debug)]
pub(super) struct SlowStart;

impl Kind for SlowStart {
    type Parsed = u16;

    fn expected() -> String {
        "a time with its unit from 0s to 1h, in whole seconds, like 30s".to_owned()
    }

    fn schema() -> serde_json::Value {
        Seconds::schema()
    }

    fn parse(text: &str) -> Result<u16, Refusal> {
        let time = humantime::parse_duration(text).map_err(|_| Refusal::default())?;
        u16::try_from(time.as_secs())
            .ok()
            .filter(|seconds| *seconds <= limits::SLOW_START_S && time.subsec_nanos() == 0)
            .ok_or_else(Refusal::default)
    }
}

/// Persistence in one word: its timeout, or none.
#[derive(Debug)]
pub(super) struct PersistenceWord;

impl Kind for PersistenceWord {
    type Parsed = Option<u16>;

    fn expected() -> String {
        format!("{}, \"off\", or a mapping", Seconds::expected())
    }

    fn schema() -> serde_json::Value {
        json!({ "type": ["string", "boolean"] })
    }

    fn parse(text: &str) -> Result<Option<u16>, Refusal> {
        match text {
            // YAML takes the word for a truth value.
            "off" | "false" => Ok(None),
            text => Seconds::parse(text).map(Some),
        }
    }
}

impl Words for XdpMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("native", XdpMode::Native), ("generic", XdpMode::Generic)];
}

/// The word for a scheduler, without its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SchedulerWord {
    Rr,
    Wrr,
    Lc,
    Wlc,
    Lblc,
    Lblcr,
    Dh,
    Sh,
    Mh,
    Sed,
    Nq,
    Fo,
    Ovf,
    Twos,
}

impl Words for SchedulerWord {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("rr", SchedulerWord::Rr),
        ("wrr", SchedulerWord::Wrr),
        ("lc", SchedulerWord::Lc),
        ("wlc", SchedulerWord::Wlc),
        ("lblc", SchedulerWord::Lblc),
        ("lblcr", SchedulerWord::Lblcr),
        ("dh", SchedulerWord::Dh),
        ("sh", SchedulerWord::Sh),
        ("mh", SchedulerWord::Mh),
        ("sed", SchedulerWord::Sed),
        ("nq", SchedulerWord::Nq),
        ("fo", SchedulerWord::Fo),
        ("ovf", SchedulerWord::Ovf),
        ("twos", SchedulerWord::Twos),
    ];
}

/// The word for a flag of a scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlagWord {
    ShPort,
    MhPort,
}

impl Words for FlagWord {
    const WORDS: &'static [(&'static str, Self)] =
        &[("sh-port", FlagWord::ShPort), ("mh-port", FlagWord::MhPort)];
}

/// The word for a method, without its tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MethodWord {
    Nat,
    Dr,
    Tun,
}

impl Words for MethodWord {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("nat", MethodWord::Nat),
        ("dr", MethodWord::Dr),
        ("tun", MethodWord::Tun),
    ];
}

/// The word for a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TunnelWord {
    Ipip,
    Gue,
    Gre,
}

impl Words for TunnelWord {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("ipip", TunnelWord::Ipip),
        ("gue", TunnelWord::Gue),
        ("gre", TunnelWord::Gre),
    ];
}

/// How long fragments are followed, in milliseconds.
#[derive(Debug)]
pub(super) struct FragmentTimeout;

impl Kind for FragmentTimeout {
    type Parsed = u32;

    fn expected() -> String {
        "a time with its unit from 10ms to 60s, like 500ms or 2s".to_owned()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^[0-9]" })
    }

    fn parse(text: &str) -> Result<u32, Refusal> {
        let time = humantime::parse_duration(text).map_err(|_| Refusal::default())?;
        let milliseconds = u64::try_from(time.as_millis()).ok();
        milliseconds
            .filter(|time| limits::FRAGMENT_TIMEOUT_MS.contains(time))
            .and_then(|time| u32::try_from(time).ok())
            .ok_or_else(Refusal::default)
    }
}

/// Name of an instance. It becomes a directory in the BPF file system, which takes no dots.
#[derive(Debug)]
pub(super) struct InstanceName;

impl Kind for InstanceName {
    type Parsed = String;

    fn expected() -> String {
        format!(
            "a name of 1 to {} letters, digits, \"-\" and \"_\"",
            limits::NAME_BYTES
        )
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": format!("^[A-Za-z0-9_-]{{1,{}}}$", limits::NAME_BYTES) })
    }

    fn parse(text: &str) -> Result<String, Refusal> {
        let allowed = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        name(text, allowed, limits::NAME_BYTES)
    }
}

/// Name of a service: for people, but on one line.
#[derive(Debug)]
pub(super) struct ServiceName;

impl Kind for ServiceName {
    type Parsed = String;

    fn expected() -> String {
        format!(
            "a name of at most {} bytes without spaces or control characters",
            limits::NAME_BYTES
        )
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1, "maxLength": limits::NAME_BYTES })
    }

    fn parse(text: &str) -> Result<String, Refusal> {
        let allowed = !text.chars().any(|c| c.is_control() || c.is_whitespace());
        name(text, allowed, limits::NAME_BYTES)
    }
}

/// Name of a network interface (`dev_valid_name` in the kernel's `net/core/dev.c`).
#[derive(Debug)]
pub(super) struct InterfaceName;

impl Kind for InterfaceName {
    type Parsed = String;

    fn expected() -> String {
        format!(
            "the name of a network interface, at most {} bytes, as in \"ip link\"",
            limits::INTERFACE_NAME_BYTES
        )
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1, "maxLength": limits::INTERFACE_NAME_BYTES })
    }

    fn parse(text: &str) -> Result<String, Refusal> {
        let allowed = text != "."
            && text != ".."
            && !text
                .chars()
                .any(|c| c.is_whitespace() || c.is_control() || "/:".contains(c));
        name(text, allowed, limits::INTERFACE_NAME_BYTES)
    }
}

fn name(text: &str, allowed: bool, bytes: usize) -> Result<String, Refusal> {
    let fits = (1..=bytes).contains(&text.len());
    (allowed && fits)
        .then(|| text.to_owned())
        .ok_or_else(Refusal::default)
}

/// Path of a Unix socket.
#[derive(Debug)]
pub(super) struct SocketPath;

impl Kind for SocketPath {
    type Parsed = PathBuf;

    fn expected() -> String {
        format!(
            "an absolute path of at most {} bytes",
            limits::SOCKET_PATH_BYTES
        )
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^/.*[^/]$", "maxLength": limits::SOCKET_PATH_BYTES })
    }

    fn parse(text: &str) -> Result<PathBuf, Refusal> {
        let valid = text.starts_with('/')
            && !text.ends_with('/')
            && text.len() <= limits::SOCKET_PATH_BYTES
            && !text.contains('\0');
        valid
            .then(|| PathBuf::from(text))
            .ok_or_else(Refusal::default)
    }
}
