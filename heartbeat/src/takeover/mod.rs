//! Moving the addresses of groups to this node, and giving them up.
//!
//! Taking over a group adds its addresses in one conversation with the kernel and announces them at once; announcements
//! are repeated as configured. No process is started, nothing is waited for. What fails (the interface is not there)
//! is tried again every second as long as it is wanted, and an address that somebody else removes is put back.
//!
//! Addresses and macvlans carry a mark ([`MARK`]), so that a new run finds what a killed one left behind; configured
//! addresses on their group's interface are removed at start even without it: a node that has just started is in
//! charge of nothing.

mod announce;
mod frames;
mod kernel;
mod network;
#[cfg(test)]
mod tests;
mod virtual_mac;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use nix::libc;

pub use announce::{Announce, Schedule};
pub use frames::{Mac, announcement};
pub(crate) use kernel::send_frame;
pub use kernel::{Kernel, MARK};
pub use network::{Change, Held, Interface, Network, TakeoverError};
pub use virtual_mac::mac as virtual_mac;

/// Time between two tries of what failed.
pub const RETRY: Duration = Duration::from_secs(1);
/// How long the macvlan of a virtual MAC stays when its addresses have been given up.
const LINGER: Duration = Duration::from_millis(250);
/// Shortest time between two tries, whatever happens to the interface.
const LEAST_RETRY: Duration = Duration::from_millis(50);

/// A group of addresses, as far as moving it is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movable {
    /// Its name, for messages.
    pub name: String,
    /// The interface that gets the addresses.
    pub interface: String,
    /// The addresses, with the lengths of their networks' prefixes.
    pub addresses: Vec<IpNet>,
    /// Number of the virtual router whose virtual MAC moves with the addresses.
    pub virtual_mac: Option<u8>,
    /// How they are announced.
    pub announce: Announce,
}

/// What came of something that went on by itself.
#[derive(Debug)]
pub enum Outcome {
    /// All addresses of the group are here now, where before not all were.
    Taken {
        /// Number of the group.
        group: usize,
    },
    /// All are gone, where before not all were.
    Released {
        /// Number of the group.
        group: usize,
    },
    /// It failed, and will be tried again.
    Failed {
        /// Number of the group.
        group: usize,
        /// Why.
        error: TakeoverError,
    },
}

/// Where some addresses of a group stand, or should.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stand {
    index: u32,
    name: String,
    mac: Mac,
    is_macvlan: bool,
    addresses: Vec<IpNet>,
}

#[derive(Debug)]
struct Group {
    movable: Movable,
    is_wanted: bool,
    /// The kernel has what is wanted.
    is_done: bool,
    stands: Vec<Stand>,
    /// Index of the interface, with which the settings below a macvlan are kept.
    below: Option<u32>,
    is_router: bool,
    schedule: Schedule,
    tried: Option<Duration>,
    retry: Option<Duration>,
}

/// Settings of an interface below macvlans as they were, and how many groups need them changed.
#[derive(Debug)]
struct Below {
    users: usize,
    before: Vec<(String, String)>,
}

/// The groups that this node may hold.
#[derive(Debug)]
pub struct Takeover<N> {
    network: N,
    groups: Vec<Group>,
    below: BTreeMap<u32, Below>,
    unsent: u64,
}

impl<N: Network> Takeover<N> {
    /// Holds nothing yet. Groups are numbered as they are given.
    pub fn new(network: N, groups: impl IntoIterator<Item = Movable>) -> Self {
        let groups = groups.into_iter().map(|movable| Group {
            schedule: Schedule::new(movable.announce),
            movable,
            is_wanted: false,
            is_done: true,
            stands: Vec::new(),
            below: None,
            is_router: false,
            tried: None,
            retry: None,
        });
        Self {
            network,
            groups: groups.collect(),
            below: BTreeMap::new(),
            unsent: 0,
        }
    }

    /// Removes what a run that was killed left behind, and says what. To be called before anything is taken over.
    ///
    /// # Errors
    /// The kernel does not say what there is, or keeps it.
    pub fn clean(&mut self) -> Result<Vec<String>, TakeoverError> {
        let failed = |source| TakeoverError::Leftovers { source };
        let interfaces = self.network.interfaces().map_err(failed)?;
        let held = self.network.addresses().map_err(failed)?;
        let name = |index| {
            let found = interfaces.iter().find(|interface| interface.index == index);
            found.map_or_else(|| format!("interface {index}"), |found| found.name.clone())
        };
        let (mut changes, mut words) = (Vec::new(), Vec::new());
        for address in held {
            let interface = name(address.index);
            let is_configured = self.groups.iter().any(|group| {
                let movable = &group.movable;
                movable.interface == interface
                    && movable
                        .addresses
                        .iter()
                        .any(|own| own.addr() == address.address.addr())
            });
            if address.is_marked || is_configured {
                words.push(format!("{} on {interface}", address.address));
                changes.push(Change::RemoveAddress {
                    index: address.index,
                    address: address.address,
                });
            }
        }
        for interface in interfaces.iter().filter(|interface| interface.is_marked) {
            words.push(format!("macvlan {}", interface.name));
            changes.push(Change::RemoveInterface {
                index: interface.index,
            });
        }
        for outcome in self.network.change(&changes).map_err(failed)? {
            outcome.or_else(gone).map_err(failed)?;
        }
        Ok(words)
    }

    /// Takes a group over and announces it. Doing so twice is fine, and announces it once more.
    ///
    /// # Errors
    /// Not all addresses are here. Those that are have been announced; the others are tried again.
    pub fn take(&mut self, group: usize, now: Duration) -> Result<(), TakeoverError> {
        if let Some(group) = self.groups.get_mut(group) {
            group.is_wanted = true;
            group.is_done = false;
        }
        self.attempt(group, now)
    }

    /// Gives a group up. Doing so twice is fine. The macvlan of a virtual MAC, without addresses now, is removed a
    /// little later: that takes the kernel some tens of milliseconds, and there is better to do in this moment.
    ///
    /// # Errors
    /// Not all addresses are gone; trying goes on.
    pub fn release(&mut self, group: usize, now: Duration) -> Result<(), TakeoverError> {
        let Some(left) = self.groups.get_mut(group) else {
            return Ok(());
        };
        left.is_wanted = false;
        left.is_done = false;
        left.schedule.end();
        let has_macvlans = left.stands.iter().any(|stand| stand.is_macvlan);
        if !has_macvlans {
            return self.attempt(group, now);
        }
        left.retry = Some(now + LINGER);
        self.remove(group, false)
    }

    /// Announces a group that is held, beginning anew with the repetitions.
    pub fn announce(&mut self, group: usize, now: Duration) {
        let Some(held) = self.groups.get_mut(group).filter(|group| group.is_wanted) else {
            return;
        };
        if held.stands.iter().all(|stand| stand.addresses.is_empty()) {
            held.schedule.end();
            return;
        }
        held.schedule.begin(now);
        if held.schedule.due(now) {
            self.send(group);
        }
    }

    /// Gives up what is held, and removes at once what would be removed later.
    pub fn finish(&mut self, now: Duration) -> Vec<Outcome> {
        for group in &mut self.groups {
            group.is_wanted = false;
            group.schedule.end();
            if !group.stands.is_empty() {
                group.retry = Some(now);
            }
        }
        self.step(now)
    }

    /// Does what is due: announcements, and tries of what failed.
    pub fn step(&mut self, now: Duration) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for number in 0..self.groups.len() {
            let group = &mut self.groups[number];
            if group.retry.is_some_and(|retry| retry <= now) {
                outcomes.push(match self.attempt(number, now) {
                    Ok(()) if self.groups[number].is_wanted => Outcome::Taken { group: number },
                    Ok(()) => Outcome::Released { group: number },
                    Err(error) => Outcome::Failed {
                        group: number,
                        error,
                    },
                });
            } else if group.schedule.due(now) {
                self.send(number);
            }
        }
        outcomes
    }

    /// When [`Takeover::step`] is to be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let deadlines = self.groups.iter();
        deadlines
            .flat_map(|group| [group.retry, group.schedule.deadline()])
            .flatten()
            .min()
    }

    /// An address was removed from an interface: it is put back if it is to be held.
    pub fn address_gone(&mut self, index: u32, address: IpAddr, now: Duration) {
        for group in &mut self.groups {
            let is_here = group.stands.iter().any(|stand| {
                stand.index == index && stand.addresses.iter().any(|own| own.addr() == address)
            });
            if group.is_wanted && is_here {
                group.try_soon(now);
            }
        }
    }

    /// An interface came up, or came back: what should be there may not be, and the switch may not know it.
    pub fn interface_up(&mut self, name: &str, now: Duration) {
        for group in &mut self.groups {
            if group.is_wanted && group.movable.interface == name {
                group.try_soon(now);
            }
        }
    }

    /// Whether all addresses of a group are here.
    #[must_use]
    pub fn is_held(&self, group: usize) -> bool {
        let group = self.groups.get(group);
        group.is_some_and(|group| group.is_wanted && group.is_done)
    }

    /// Whether a group is to be here.
    #[must_use]
    pub fn is_wanted(&self, group: usize) -> bool {
        self.groups.get(group).is_some_and(|group| group.is_wanted)
    }

    /// How many announcements the kernel did not send.
    #[must_use]
    pub fn unsent(&self) -> u64 {
        self.unsent
    }

    /// The network, for tests and status.
    pub fn network(&mut self) -> &mut N {
        &mut self.network
    }

    /// Brings the kernel to what is wanted of a group.
    fn attempt(&mut self, number: usize, now: Duration) -> Result<(), TakeoverError> {
        let Some(group) = self.groups.get_mut(number) else {
            return Ok(());
        };
        group.tried = Some(now);
        let outcome = if group.is_wanted {
            let outcome = self.add(number);
            // What is here is announced, even where something else is not.
            self.announce(number, now);
            outcome
        } else {
            self.remove(number, true)
        };
        let group = &mut self.groups[number];
        group.is_done = outcome.is_ok();
        group.retry = outcome.is_err().then(|| now + RETRY);
        outcome
    }

    fn add(&mut self, number: usize) -> Result<(), TakeoverError> {
        let movable = self.groups[number].movable.clone();
        let kernel = |source| TakeoverError::Kernel {
            group: movable.name.clone(),
            interface: movable.interface.clone(),
            source,
        };
        let found = self.network.interface(&movable.interface).map_err(kernel)?;
        let Some(interface) = found else {
            self.groups[number].stands.clear();
            return Err(TakeoverError::NoInterface {
                group: movable.name.clone(),
                interface: movable.interface.clone(),
            });
        };
        let stands = match movable.virtual_mac {
            None => vec![Stand {
                index: interface.index,
                name: interface.name,
                mac: interface.mac,
                is_macvlan: false,
                addresses: movable.addresses.clone(),
            }],
            Some(router) => self.macvlans(number, &movable, router, &interface)?,
        };
        let mut changes = Vec::new();
        for stand in &stands {
            if stand.is_macvlan {
                changes.push(Change::SwitchOn { index: stand.index });
            }
            changes.extend(stand.addresses.iter().map(|address| stand.add(address)));
        }
        // Else the kernel, with the first address of a network, removes all others of it: this node's own one, where that
        // came after the virtual one.
        for stand in &stands {
            let setting = format!("ipv4/conf/{}/promote_secondaries", stand.name);
            if !stand.is_macvlan
                && stand.addresses.iter().any(|it| it.addr().is_ipv4())
                && let Err(error) = self.network.set(&setting, "1")
            {
                tracing::warn!(setting, %error, "a setting cannot be made: with a virtual address others of its network may be removed");
            }
        }
        let outcomes = self.network.change(&changes).map_err(kernel)?;
        let is_router = self.network.is_router(&movable.interface);
        let group = &mut self.groups[number];
        group.stands = stands;
        group.is_router = is_router;
        let mut failed = Ok(());
        for (change, outcome) in changes.iter().zip(outcomes) {
            let outcome = outcome.or_else(|error| match error.raw_os_error() {
                Some(libc::EEXIST) => Ok(()),
                _ => Err(error),
            });
            if let Err(source) = outcome {
                if let Change::AddAddress { index, address, .. } = change {
                    group.forget(*index, address);
                }
                failed = failed.and(Err(refused(&movable, &group.stands, change, source)));
            }
        }
        failed
    }

    fn remove(&mut self, number: usize, with_macvlans: bool) -> Result<(), TakeoverError> {
        let movable = self.groups[number].movable.clone();
        let stands = self.groups[number].stands.clone();
        let mut changes = Vec::new();
        for stand in &stands {
            changes.extend(stand.addresses.iter().map(|address| Change::RemoveAddress {
                index: stand.index,
                address: *address,
            }));
        }
        let own = changes.len();
        // With the first address of a network the kernel may remove all others of it (`promote_secondaries`).
        for other in self.groups.iter().filter(|other| other.is_wanted) {
            for stand in &other.stands {
                if stands.iter().any(|left| left.index == stand.index) {
                    let ipv4 = stand.addresses.iter().filter(|own| own.addr().is_ipv4());
                    changes.extend(ipv4.map(|address| stand.add(address)));
                }
            }
        }
        let macvlans = stands
            .iter()
            .filter(|stand| stand.is_macvlan && with_macvlans);
        changes.extend(macvlans.map(|stand| Change::RemoveInterface { index: stand.index }));
        let outcomes = self
            .network
            .change(&changes)
            .map_err(|source| TakeoverError::Kernel {
                group: movable.name.clone(),
                interface: movable.interface.clone(),
                source,
            })?;
        let mut failed = Ok(());
        for (nth, (change, outcome)) in changes.iter().zip(outcomes).enumerate() {
            let is_ours = nth < own || matches!(change, Change::RemoveInterface { .. });
            if let Err(source) = outcome.or_else(gone)
                && is_ours
            {
                failed = failed.and(Err(refused(&movable, &stands, change, source)));
            }
        }
        failed?;
        if with_macvlans {
            self.groups[number].stands.clear();
            self.leave_below(number);
        }
        Ok(())
    }

    /// The macvlans of a group, one for each family that it has addresses of; made where they are not there yet.
    fn macvlans(
        &mut self,
        number: usize,
        movable: &Movable,
        router: u8,
        parent: &Interface,
    ) -> Result<Vec<Stand>, TakeoverError> {
        if parent.mac == [0; 6] {
            return Err(TakeoverError::NotEthernet {
                group: movable.name.clone(),
                interface: parent.name.clone(),
            });
        }
        self.enter_below(number, parent);
        let mut stands = Vec::new();
        for is_ipv6 in [false, true] {
            let addresses: Vec<IpNet> = movable
                .addresses
                .iter()
                .copied()
                .filter(|address| address.addr().is_ipv6() == is_ipv6)
                .collect();
            if addresses.is_empty() {
                continue;
            }
            let name = virtual_mac::name(router, is_ipv6, parent.index);
            let mac = virtual_mac::mac(router, is_ipv6);
            let macvlan = self.macvlan(&name, mac, parent.index).map_err(|source| {
                TakeoverError::Macvlan {
                    group: movable.name.clone(),
                    what: "make",
                    name: name.clone(),
                    interface: parent.name.clone(),
                    source,
                }
            })?;
            stands.push(Stand {
                index: macvlan.index,
                name,
                mac,
                is_macvlan: true,
                addresses,
            });
        }
        Ok(stands)
    }

    fn macvlan(&mut self, name: &str, mac: Mac, parent: u32) -> io::Result<Interface> {
        if let Some(there) = self.network.interface(name)? {
            if there.mac == mac && there.parent == Some(parent) {
                return Ok(there);
            }
            return Err(io::Error::other(
                "another interface has this name: remove or rename it",
            ));
        }
        let made = self.network.change(&[Change::AddMacvlan {
            parent,
            name: name.to_owned(),
            mac,
        }])?;
        made.into_iter().collect::<io::Result<()>>()?;
        for (setting, value) in virtual_mac::settings(name) {
            if let Err(error) = self.network.set(&setting, value) {
                tracing::warn!(setting, value, %error, "a setting of the macvlan with the virtual MAC cannot be made");
            }
        }
        self.network
            .interface(name)?
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Settings of the interface below, for as long as a group needs them.
    fn enter_below(&mut self, number: usize, parent: &Interface) {
        if self.groups[number].below == Some(parent.index) {
            return;
        }
        self.leave_below(number);
        self.groups[number].below = Some(parent.index);
        let below = self.below.entry(parent.index).or_insert_with(|| Below {
            users: 0,
            before: Vec::new(),
        });
        below.users += 1;
        if below.users > 1 {
            return;
        }
        for (setting, value) in virtual_mac::BELOW {
            let path = format!("ipv4/conf/{}/{setting}", parent.name);
            let before = self.network.setting(&path);
            match before.and_then(|before| self.network.set(&path, value).map(|()| before)) {
                Ok(before) => below.before.push((path, before)),
                Err(error) => {
                    tracing::warn!(setting = path, value, %error, "a setting that a virtual MAC needs cannot be made: the interface below may answer for its address");
                }
            }
        }
    }

    fn leave_below(&mut self, number: usize) {
        let Some(index) = self.groups[number].below.take() else {
            return;
        };
        let Some(below) = self.below.get_mut(&index) else {
            return;
        };
        below.users -= 1;
        if below.users > 0 {
            return;
        }
        for (path, before) in self
            .below
            .remove(&index)
            .into_iter()
            .flat_map(|below| below.before)
        {
            if let Err(error) = self.network.set(&path, &before) {
                // The interface may be gone, and its settings with it.
                tracing::debug!(setting = path, %error, "a setting cannot be set back");
            }
        }
    }

    fn send(&mut self, number: usize) {
        let group = &self.groups[number];
        for stand in &group.stands {
            for address in &stand.addresses {
                for frame in announcement(address.addr(), stand.mac, group.is_router) {
                    if let Err(error) = self.network.send(stand.index, &frame) {
                        self.unsent += 1;
                        tracing::debug!(group = group.movable.name, %address, interface = stand.name, %error, "not announced");
                    }
                }
            }
        }
    }
}

impl Group {
    fn try_soon(&mut self, now: Duration) {
        let soon = self
            .tried
            .map_or(now, |tried| (tried + LEAST_RETRY).max(now));
        self.retry = Some(self.retry.map_or(soon, |retry| retry.min(soon)));
    }

    /// An address that is not there is not announced.
    fn forget(&mut self, index: u32, address: &IpNet) {
        for stand in self.stands.iter_mut().filter(|stand| stand.index == index) {
            stand.addresses.retain(|own| own != address);
        }
    }
}

impl Stand {
    fn add(&self, address: &IpNet) -> Change {
        Change::AddAddress {
            index: self.index,
            address: *address,
            metric: self.is_macvlan.then_some(virtual_mac::METRIC),
        }
    }
}

/// What is to be removed may be gone already, alone or with its interface.
fn gone(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::EADDRNOTAVAIL | libc::ENODEV) => Ok(()),
        _ => Err(error),
    }
}

fn refused(
    movable: &Movable,
    stands: &[Stand],
    change: &Change,
    source: io::Error,
) -> TakeoverError {
    let group = movable.name.clone();
    let name = |index: u32| {
        let stand = stands.iter().find(|stand| stand.index == index);
        stand.map_or_else(|| movable.interface.clone(), |stand| stand.name.clone())
    };
    let macvlan = |what, name| TakeoverError::Macvlan {
        group: group.clone(),
        what,
        name,
        interface: movable.interface.clone(),
        source: io::Error::new(source.kind(), source.to_string()),
    };
    match change {
        Change::SwitchOn { index } => macvlan("switch on", name(*index)),
        Change::RemoveInterface { index } => macvlan("remove", name(*index)),
        Change::AddMacvlan { name, .. } => macvlan("make", name.clone()),
        Change::AddAddress { index, address, .. } | Change::RemoveAddress { index, address } => {
            let is_removal = matches!(change, Change::RemoveAddress { .. });
            TakeoverError::Address {
                group,
                what: if is_removal { "remove" } else { "add" },
                address: *address,
                interface: name(*index),
                source,
            }
        }
    }
}
