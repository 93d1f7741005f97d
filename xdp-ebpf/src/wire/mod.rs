//! Where things stand in the headers the packet path reads: offsets and numbers, with their sources.

/// Ethernet (IEEE 802.3) and VLAN tags (IEEE 802.1Q).
pub mod ethernet {
    /// Bytes of a header without tags.
    pub const LEN: usize = 14;
    /// Destination MAC address.
    pub const DESTINATION: usize = 0;
    /// Source MAC address.
    pub const SOURCE: usize = 6;
    /// Ether type, or the protocol id of a tag.
    pub const TYPE: usize = 12;
    /// Bytes of a tag: control information (TCI), then the next ether type.
    pub const TAG_LEN: usize = 4;

    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// Customer tag (802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// Service tag (802.1ad).
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// ARP for IPv4 over Ethernet (RFC 826).
pub mod arp {
    /// Bytes of a message.
    pub const LEN: usize = 28;
    /// What it is.
    pub const OPERATION: usize = 6;
    /// The IPv4 address that is asked for.
    pub const TARGET: usize = 24;
    /// The operation that asks.
    pub const REQUEST: u16 = 1;
}

/// IPv4 (RFC 791).
pub mod ipv4 {
    /// Bytes of a header without options.
    pub const LEN: usize = 20;
    /// Version and header length in 32-bit words.
    pub const VERSION_IHL: usize = 0;
    /// Type of service (DSCP and ECN).
    pub const TOS: usize = 1;
    /// Bytes of header and payload.
    pub const TOTAL_LENGTH: usize = 2;
    /// Identification.
    pub const ID: usize = 4;
    /// Flags and fragment offset.
    pub const FRAGMENT: usize = 6;
    /// Time to live.
    pub const TTL: usize = 8;
    /// Protocol of the payload.
    pub const PROTOCOL: usize = 9;
    /// Header checksum.
    pub const CHECKSUM: usize = 10;
    /// Source address.
    pub const SOURCE: usize = 12;
    /// Destination address.
    pub const DESTINATION: usize = 16;

    /// Flag in the fragment field: do not fragment.
    pub const DF: u16 = 0x4000;
    /// Flag in the fragment field: more fragments follow.
    pub const MF: u16 = 0x2000;
    /// Fragment offset, in units of 8 bytes.
    pub const OFFSET: u16 = 0x1fff;
}

/// IPv6 (RFC 8200).
pub mod ipv6 {
    /// Bytes of the fixed header.
    pub const LEN: usize = 40;
    /// Version, traffic class, flow label.
    pub const VERSION_CLASS_FLOW: usize = 0;
    /// Bytes behind the fixed header.
    pub const PAYLOAD_LENGTH: usize = 4;
    /// Type of the next header.
    pub const NEXT_HEADER: usize = 6;
    /// Hop limit.
    pub const HOP_LIMIT: usize = 7;
    /// Source address.
    pub const SOURCE: usize = 8;
    /// Destination address.
    pub const DESTINATION: usize = 24;

    /// Hop-by-hop options (RFC 8200 section 4.3).
    pub const HOP_BY_HOP: u8 = 0;
    /// Routing header (section 4.4).
    pub const ROUTING: u8 = 43;
    /// In a routing header: nodes still to be visited (RFC 8200 section 4.4).
    pub const SEGMENTS_LEFT: usize = 3;
    /// Fragment header (section 4.5): next header, reserved, offset and flag, identification.
    pub const FRAGMENT: u8 = 44;
    /// Destination options (section 4.6).
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// Bytes of a fragment header.
    pub const FRAGMENT_LEN: usize = 8;
    /// In a fragment header's offset field: more fragments follow.
    pub const FRAGMENT_MORE: u16 = 1;
    /// In a fragment header's offset field: the offset in bytes.
    pub const FRAGMENT_OFFSET: u16 = 0xfff8;
}

/// IP protocol numbers (IANA).
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP (RFC 2003).
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP (RFC 2473, RFC 4213).
    pub const IPV6: u8 = 41;
    /// GRE (RFC 2784).
    pub const GRE: u8 = 47;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
}

/// Ports: the first four bytes of TCP and UDP alike.
pub mod ports {
    /// Bytes of both.
    pub const LEN: usize = 4;
    /// Source port.
    pub const SOURCE: usize = 0;
    /// Destination port.
    pub const DESTINATION: usize = 2;
}

/// TCP (RFC 9293).
pub mod tcp {
    /// Bytes of a header without options.
    pub const LEN: usize = 20;
    /// Sequence number.
    pub const SEQUENCE: usize = 4;
    /// Acknowledgement number.
    pub const ACKNOWLEDGEMENT: usize = 8;
    /// Length of the header in 32-bit words, in the upper four bits.
    pub const OFFSET: usize = 12;
    /// Flags.
    pub const FLAGS: usize = 13;
    /// Checksum.
    pub const CHECKSUM: usize = 16;
    /// Urgent pointer.
    pub const URGENT: usize = 18;
    /// Flag: no more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Flag: synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Flag: reset.
    pub const RST: u8 = 0x04;
    /// Flag: the acknowledgement field counts.
    pub const ACK: u8 = 0x10;
}

/// UDP (RFC 768).
pub mod udp {
    /// Bytes of a header.
    pub const LEN: usize = 8;
    /// Bytes of header and payload.
    pub const LENGTH: usize = 4;
    /// Checksum; 0: none.
    pub const CHECKSUM: usize = 6;
}

/// ICMP (RFC 792) and ICMPv6 (RFC 4443): type, code, checksum, four more bytes; errors then quote the packet.
pub mod icmp {
    /// Bytes before the quoted packet.
    pub const LEN: usize = 8;
    /// Type.
    pub const TYPE: usize = 0;
    /// Code.
    pub const CODE: usize = 1;
    /// Checksum.
    pub const CHECKSUM: usize = 2;
    /// The four more bytes; in "fragmentation needed" (RFC 1191) the MTU in the last two, in "packet too big" in all.
    pub const REST: usize = 4;

    /// ICMP: destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Its code: port unreachable.
    pub const PORT_UNREACHABLE: u8 = 3;
    /// Its code: fragmentation needed and DF set.
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// ICMP: source quench (obsolete, RFC 6633; still an error about a packet).
    pub const SOURCE_QUENCH: u8 = 4;
    /// ICMP: redirect. An error by form, never forwarded (RFC 1812 section 5.2.7.2).
    pub const REDIRECT: u8 = 5;
    /// ICMP: time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// ICMP: parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;

    /// ICMPv6: destination unreachable.
    pub const V6_UNREACHABLE: u8 = 1;
    /// Its code: port unreachable.
    pub const V6_PORT_UNREACHABLE: u8 = 4;
    /// ICMPv6: packet too big.
    pub const V6_TOO_BIG: u8 = 2;
    /// ICMPv6: time exceeded.
    pub const V6_TIME_EXCEEDED: u8 = 3;
    /// ICMPv6: parameter problem.
    pub const V6_PARAMETER_PROBLEM: u8 = 4;
    /// ICMPv6: neighbour solicitation (RFC 4861 section 4.3). The address that it asks for stands behind the first
    /// [`LEN`] bytes.
    pub const V6_NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Bytes of one without options.
    pub const SOLICITATION_LEN: usize = LEN + 16;
    /// ICMPv6 types from here on are no errors (RFC 4443 section 2.1).
    pub const V6_FIRST_INFORMATIONAL: u8 = 128;
}

/// GUE version 0 (draft-ietf-intarea-gue): no flags, no private data.
pub mod gue {
    /// Bytes of a header: version, control and length; protocol of the payload; flags.
    pub const LEN: usize = 4;
    /// Protocol of the payload.
    pub const PROTOCOL: usize = 1;
}

/// GRE (RFC 2784) without checksum.
pub mod gre {
    /// Bytes of a header: flags and version; ether type of the payload.
    pub const LEN: usize = 4;
    /// Ether type of the payload.
    pub const TYPE: usize = 2;
}
