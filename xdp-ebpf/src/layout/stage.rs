//! The programs, and the order in which they stand in `STAGES`.

/// Programs besides the entry: IPv6 and the rare cases, each with a stack and a verification of its own.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// IPv6.
    Ipv6 = 0,
    /// ICMP errors about a balanced connection.
    Icmp = 1,
    /// ICMPv6 errors about a balanced connection.
    Icmp6 = 2,
    /// The first fragment of an IPv4 datagram.
    First = 3,
    /// The first fragment of an IPv6 datagram.
    First6 = 4,
    /// Another fragment of an IPv4 datagram.
    Later = 5,
    /// Another fragment of an IPv6 datagram.
    Later6 = 6,
    /// ICMP and ICMPv6 messages of the packet path's own.
    Answer = 7,
}

impl Stage {
    /// All stages and the names of their programs, in the order of their numbers: what `STAGES` is filled with.
    pub const ALL: [(Self, &'static str); STAGES as usize] = [
        (Self::Ipv6, "ipv6"),
        (Self::Icmp, "icmp"),
        (Self::Icmp6, "icmp6"),
        (Self::First, "first_fragment"),
        (Self::First6, "first_fragment6"),
        (Self::Later, "later_fragment"),
        (Self::Later6, "later_fragment6"),
        (Self::Answer, "answer"),
    ];
}

/// Number of [`Stage`]s.
pub const STAGES: u32 = 8;

/// Names of the programs in the objects.
pub mod programs {
    /// The entry: attached to every interface. The others of its object are in [`super::Stage::ALL`].
    pub const DIRECTOR: &str = "director";
    /// In the second object: takes tunnels off on a real server.
    pub const DECAP: &str = "decap";
    /// In the second object: passes everything; a veth peer needs some program to receive redirected frames.
    pub const PASS: &str = "pass";
}
