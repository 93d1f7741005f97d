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
    /// An IPv4 packet of a service that belongs to no connection of this CPU's table.
    Schedule = 8,
    /// An IPv6 packet of a service that belongs to no connection of this CPU's table.
    Schedule6 = 9,
    /// An IPv4 packet for which `Schedule` found a destination.
    Deliver = 10,
    /// An IPv6 packet for which `Schedule6` found a destination.
    Deliver6 = 11,
    /// An IPv4 packet that is nobody's by its exact ports, where there are services on ranges of ports.
    Ranged = 12,
    /// An IPv6 packet that is nobody's by its exact ports.
    Ranged6 = 13,
    /// As `Icmp`, for services on ranges of ports.
    IcmpRanged = 14,
    /// As `Icmp6`, for services on ranges of ports.
    Icmp6Ranged = 15,
    /// As `Schedule`, for services on ranges of ports.
    ScheduleRanged = 16,
    /// As `Schedule6`, for services on ranges of ports.
    Schedule6Ranged = 17,
    /// As `First`, for services on ranges of ports.
    FirstRanged = 18,
    /// As `First6`, for services on ranges of ports.
    First6Ranged = 19,
    /// Any packet while this node's lease has run out.
    Fence = 20,
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
        (Self::Schedule, "schedule"),
        (Self::Schedule6, "schedule6"),
        (Self::Deliver, "deliver"),
        (Self::Deliver6, "deliver6"),
        (Self::Ranged, "ranged"),
        (Self::Ranged6, "ranged6"),
        (Self::IcmpRanged, "icmp_ranged"),
        (Self::Icmp6Ranged, "icmp6_ranged"),
        (Self::ScheduleRanged, "schedule_ranged"),
        (Self::Schedule6Ranged, "schedule6_ranged"),
        (Self::FirstRanged, "first_ranged"),
        (Self::First6Ranged, "first6_ranged"),
        (Self::Fence, "fence"),
    ];
}

/// Number of [`Stage`]s.
pub const STAGES: u32 = 21;

/// Names of the programs in the objects.
pub mod programs {
    /// The entry: attached to every interface. The others of its object are in [`super::Stage::ALL`].
    pub const DIRECTOR: &str = "director";
    /// Renews this node's lease ([`super::super::LeaseOrder`]). Attached nowhere: userspace runs it, because only a program
    /// can read the kernel's ticks.
    pub const LEASE: &str = "lease";
    /// Enters peers' connections ([`super::super::Learn`]) into the table of the CPU that it is run on. Attached nowhere.
    pub const LEARN: &str = "learn";
    /// In the second object: takes tunnels off on a real server.
    pub const DECAP: &str = "decap";
    /// In the second object: passes everything; a veth peer needs some program to receive redirected frames.
    pub const PASS: &str = "pass";
}
