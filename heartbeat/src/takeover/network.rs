//! What taking over asks of the network of its node, so that the rules can be tried without one.

use std::io;

use ipnet::IpNet;
use nix::libc;

use super::frames::Mac;

/// An interface of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Interface index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address; all zero where it has none.
    pub mac: Mac,
    /// Of a macvlan: the interface below.
    pub parent: Option<u32>,
    /// It carries heartbeat's mark: a run of it has made it.
    pub is_marked: bool,
}

/// An address that this node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The interface that has it.
    pub index: u32,
    /// The address, with the length of its network's prefix.
    pub address: IpNet,
    /// It carries heartbeat's mark: a run of it has added it.
    pub is_marked: bool,
}

/// One change of the node's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Add an address, marked as heartbeat's; IPv6 without duplicate address detection, and deprecated.
    AddAddress {
        /// Interface that gets it.
        index: u32,
        /// The address.
        address: IpNet,
        /// Metric of the route to its network, where not the kernel's own choice.
        metric: Option<u32>,
    },
    /// Remove an address.
    RemoveAddress {
        /// Interface that has it.
        index: u32,
        /// The address.
        address: IpNet,
    },
    /// Make a macvlan, switched off.
    AddMacvlan {
        /// Interface below.
        parent: u32,
        /// Its name.
        name: String,
        /// Its Ethernet address.
        mac: Mac,
    },
    /// Mark an interface as heartbeat's, and switch it on.
    SwitchOn {
        /// Interface index.
        index: u32,
    },
    /// Remove an interface.
    RemoveInterface {
        /// Interface index.
        index: u32,
    },
}

/// The network of this node. Nothing here waits for anything but the kernel.
pub trait Network {
    /// The interface of this name; none: there is no such.
    ///
    /// # Errors
    /// The kernel does not say.
    fn interface(&mut self, name: &str) -> io::Result<Option<Interface>>;

    /// All interfaces.
    ///
    /// # Errors
    /// The kernel does not say.
    fn interfaces(&mut self) -> io::Result<Vec<Interface>>;

    /// All addresses.
    ///
    /// # Errors
    /// The kernel does not say.
    fn addresses(&mut self) -> io::Result<Vec<Held>>;

    /// Makes all changes in their order, whichever fail, and gives each one's outcome.
    ///
    /// # Errors
    /// The conversation as a whole failed.
    fn change(&mut self, changes: &[Change]) -> io::Result<Vec<io::Result<()>>>;

    /// Whether this interface forwards IPv6 packets.
    fn is_router(&mut self, interface: &str) -> bool;

    /// What a setting of the interface under `/proc/sys/net` is.
    ///
    /// # Errors
    /// There is no such.
    fn setting(&mut self, path: &str) -> io::Result<String>;

    /// Gives a setting under `/proc/sys/net` a value.
    ///
    /// # Errors
    /// There is no such, or it may not be changed.
    fn set(&mut self, path: &str, value: &str) -> io::Result<()>;

    /// Sends a frame.
    ///
    /// # Errors
    /// It was not sent.
    fn send(&mut self, index: u32, frame: &[u8]) -> io::Result<()>;
}

/// Why addresses were not taken over or given up. Trying again may help.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// The interface is not there.
    #[error(
        "there is no interface {interface} to take the addresses of group {group} over on; it is taken as soon as there is one"
    )]
    NoInterface {
        /// Group's name.
        group: String,
        /// Interface's name.
        interface: String,
    },
    /// A virtual MAC needs an Ethernet interface.
    #[error(
        "interface {interface} has no Ethernet address, so group {group} cannot have a virtual MAC there: take `virtual_mac` off, or name another interface"
    )]
    NotEthernet {
        /// Group's name.
        group: String,
        /// Interface's name.
        interface: String,
    },
    /// The kernel refused an address.
    #[error("group {group}: cannot {what} {address} on {interface}: {source}{}", hint(.source))]
    Address {
        /// Group's name.
        group: String,
        /// `add` or `remove`.
        what: &'static str,
        /// The address.
        address: IpNet,
        /// Interface's name.
        interface: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused the macvlan with the virtual MAC.
    #[error("group {group}: cannot {what} the macvlan {name} with the virtual MAC on {interface}: {source}{}", hint(.source))]
    Macvlan {
        /// Group's name.
        group: String,
        /// `make`, `switch on` or `remove`.
        what: &'static str,
        /// The macvlan's name.
        name: String,
        /// Interface below it.
        interface: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel could not be asked.
    #[error("group {group}: cannot ask the kernel about {interface}: {source}{}", hint(.source))]
    Kernel {
        /// Group's name.
        group: String,
        /// Interface's name.
        interface: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Leftovers of a killed run could not be found.
    #[error("cannot look for addresses that an earlier run left behind: {source}{}", hint(.source))]
    Leftovers {
        /// The kernel's answer.
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => " (heartbeat needs CAP_NET_ADMIN and CAP_NET_RAW)",
        // addrconf.c: what it says where disable_ipv6 is set.
        Some(libc::EACCES) => " (is IPv6 switched off there? net.ipv6.conf.*.disable_ipv6)",
        _ => "",
    }
}
