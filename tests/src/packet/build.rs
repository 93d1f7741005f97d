//! Packets as descriptions, turned into bytes by etherparse: every length and checksum is its work, not ours.

use std::net::IpAddr;

use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpFragOffset, IpNumber, Ipv4Header,
    Ipv4Options, Ipv6FlowLabel, Ipv6Header, TcpHeader, UdpHeader,
};

/// Numbers that packets are made of, as the packet path itself names them.
pub use xdp_ebpf::wire::{icmp, ipv6, protocol, tcp};

/// A MAC address.
pub type Mac = [u8; 6];

/// An Ethernet frame with an IP packet in it.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Destination MAC address.
    pub destination: Mac,
    /// Source MAC address.
    pub source: Mac,
    /// VLAN tags, the outer one first: protocol id and control information.
    pub tags: Vec<(u16, u16)>,
    /// What is inside.
    pub ip: Ip,
    /// Bytes behind the packet, as short frames have them.
    pub padding: usize,
}

impl Frame {
    /// A frame without tags.
    #[must_use]
    pub fn new(source: Mac, destination: Mac, ip: Ip) -> Self {
        Self {
            destination,
            source,
            tags: Vec::new(),
            ip,
            padding: 0,
        }
    }

    /// With one customer tag.
    #[must_use]
    pub fn tagged(mut self, tci: u16) -> Self {
        self.tags = vec![(0x8100, tci)];
        self
    }

    /// With a service tag and a customer tag.
    #[must_use]
    pub fn double_tagged(mut self, outer: u16, inner: u16) -> Self {
        self.tags = vec![(0x88a8, outer), (0x8100, inner)];
        self
    }

    /// With bytes behind the packet.
    #[must_use]
    pub fn padded(mut self, padding: usize) -> Self {
        self.padding = padding;
        self
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let ether_type: u16 = if self.ip.is_ipv6() { 0x86dd } else { 0x0800 };
        let mut bytes = Vec::new();
        bytes.extend(self.destination);
        bytes.extend(self.source);
        for (protocol, tci) in &self.tags {
            bytes.extend(protocol.to_be_bytes());
            bytes.extend(tci.to_be_bytes());
        }
        bytes.extend(ether_type.to_be_bytes());
        bytes.extend(self.ip.bytes());
        bytes.extend(std::iter::repeat_n(0, self.padding));
        bytes
    }
}

/// What an IP packet carries.
#[derive(Clone, Debug)]
pub enum Payload {
    /// A TCP segment.
    Tcp {
        /// Source port.
        source_port: u16,
        /// Destination port.
        destination_port: u16,
        /// Flags as in the header's 14th byte.
        flags: u8,
        /// Options, a multiple of 4 bytes.
        options: Vec<u8>,
        /// Payload.
        data: Vec<u8>,
    },
    /// A UDP datagram.
    Udp {
        /// Source port.
        source_port: u16,
        /// Destination port.
        destination_port: u16,
        /// Whether it has a checksum.
        checksum: bool,
        /// Payload.
        data: Vec<u8>,
    },
    /// An ICMP or ICMPv6 message, as the packet's family has it.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// The four bytes after the checksum.
        rest: u32,
        /// What follows.
        data: Vec<u8>,
    },
    /// Anything else: protocol number and bytes.
    Raw(u8, Vec<u8>),
}

/// An IP packet.
#[derive(Clone, Debug)]
pub struct Ip {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub tos: u8,
    /// IPv6 flow label.
    pub flow_label: u32,
    /// Identification, of the IPv4 header or of the IPv6 fragment header.
    pub id: u32,
    /// IPv4: must not be fragmented.
    pub dont_fragment: bool,
    /// IPv4 options, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers: type, and what follows the first two bytes (6 bytes, or 8 more and so on).
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// Fragment: offset in bytes, and whether more follow. In IPv6 its header comes after the other extensions.
    pub fragment: Option<(u16, bool)>,
    /// What it carries.
    pub payload: Payload,
}

impl Ip {
    /// A packet with common header fields.
    #[must_use]
    pub fn new(source: IpAddr, destination: IpAddr, payload: Payload) -> Self {
        assert!(source.is_ipv4() == destination.is_ipv4(), "one family");
        Self {
            source,
            destination,
            ttl: 60,
            tos: 0,
            flow_label: 0,
            id: 0x1234,
            dont_fragment: false,
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: None,
            payload,
        }
    }

    /// A TCP segment.
    #[must_use]
    pub fn tcp(from: (IpAddr, u16), to: (IpAddr, u16), flags: u8, data: &[u8]) -> Self {
        Self::new(
            from.0,
            to.0,
            Payload::Tcp {
                source_port: from.1,
                destination_port: to.1,
                flags,
                options: Vec::new(),
                data: data.to_vec(),
            },
        )
    }

    /// A UDP datagram with a checksum.
    #[must_use]
    pub fn udp(from: (IpAddr, u16), to: (IpAddr, u16), data: &[u8]) -> Self {
        Self::new(
            from.0,
            to.0,
            Payload::Udp {
                source_port: from.1,
                destination_port: to.1,
                checksum: true,
                data: data.to_vec(),
            },
        )
    }

    /// An ICMP message.
    #[must_use]
    pub fn icmp(
        source: IpAddr,
        destination: IpAddr,
        (kind, code): (u8, u8),
        rest: u32,
        data: &[u8],
    ) -> Self {
        Self::new(
            source,
            destination,
            Payload::Icmp {
                kind,
                code,
                rest,
                data: data.to_vec(),
            },
        )
    }

    /// Changed by `change`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// With another TTL.
    #[must_use]
    pub fn ttl(self, ttl: u8) -> Self {
        self.with(|ip| ip.ttl = ttl)
    }

    /// With a bit less to live, as after a router.
    #[must_use]
    pub fn hop(self) -> Self {
        self.with(|ip| ip.ttl -= 1)
    }

    /// Not to be fragmented.
    #[must_use]
    pub fn df(self) -> Self {
        self.with(|ip| ip.dont_fragment = true)
    }

    /// To another address and port.
    #[must_use]
    pub fn to(self, address: IpAddr, port: u16) -> Self {
        self.with(|ip| {
            ip.destination = address;
            if let Payload::Tcp {
                destination_port, ..
            }
            | Payload::Udp {
                destination_port, ..
            } = &mut ip.payload
            {
                *destination_port = port;
            }
        })
    }

    /// From another address and port.
    #[must_use]
    pub fn from(self, address: IpAddr, port: u16) -> Self {
        self.with(|ip| {
            ip.source = address;
            if let Payload::Tcp { source_port, .. } | Payload::Udp { source_port, .. } =
                &mut ip.payload
            {
                *source_port = port;
            }
        })
    }

    /// A UDP datagram without a checksum.
    #[must_use]
    pub fn without_checksum(self) -> Self {
        self.with(|ip| {
            if let Payload::Udp { checksum, .. } = &mut ip.payload {
                *checksum = false;
            }
        })
    }

    /// Whether it is an IPv6 packet.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.source.is_ipv6()
    }

    /// Its payload's protocol number.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        match &self.payload {
            Payload::Tcp { .. } => protocol::TCP,
            Payload::Udp { .. } => protocol::UDP,
            Payload::Icmp { .. } if self.is_ipv6() => protocol::ICMPV6,
            Payload::Icmp { .. } => protocol::ICMP,
            Payload::Raw(protocol, _) => *protocol,
        }
    }

    /// The bytes of what it carries, with the right checksum.
    #[must_use]
    pub fn payload_bytes(&self) -> Vec<u8> {
        match &self.payload {
            Payload::Raw(_, bytes) => bytes.clone(),
            Payload::Tcp {
                source_port,
                destination_port,
                flags,
                options,
                data,
            } => self.tcp_bytes((*source_port, *destination_port), *flags, options, data),
            Payload::Udp {
                source_port,
                destination_port,
                checksum,
                data,
            } => self.udp_bytes((*source_port, *destination_port), *checksum, data),
            Payload::Icmp {
                kind,
                code,
                rest,
                data,
            } => self.icmp_bytes(*kind, *code, *rest, data),
        }
    }

    fn tcp_bytes(&self, ports: (u16, u16), flags: u8, options: &[u8], data: &[u8]) -> Vec<u8> {
        let mut header = TcpHeader::new(ports.0, ports.1, 0x0102_0304, 8192);
        header.acknowledgment_number = 0x0506_0708;
        header.fin = flags & 0x01 != 0;
        header.syn = flags & 0x02 != 0;
        header.rst = flags & 0x04 != 0;
        header.psh = flags & 0x08 != 0;
        header.ack = flags & 0x10 != 0;
        header.urg = flags & 0x20 != 0;
        header.ece = flags & 0x40 != 0;
        header.cwr = flags & 0x80 != 0;
        header
            .set_options_raw(options)
            .expect("TCP options of at most 40 bytes");
        header.checksum = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                header.calc_checksum_ipv4_raw(source.octets(), destination.octets(), data)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                header.calc_checksum_ipv6_raw(source.octets(), destination.octets(), data)
            }
            _ => unreachable!("one family, checked when it was made"),
        }
        .expect("short enough for a checksum");
        [header.to_bytes().as_slice(), data].concat()
    }

    fn udp_bytes(&self, ports: (u16, u16), checksum: bool, data: &[u8]) -> Vec<u8> {
        let mut header = UdpHeader {
            source_port: ports.0,
            destination_port: ports.1,
            length: (UdpHeader::LEN + data.len()) as u16,
            checksum: 0,
        };
        if checksum {
            header.checksum = match (self.source, self.destination) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    header.calc_checksum_ipv4_raw(source.octets(), destination.octets(), data)
                }
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    header.calc_checksum_ipv6_raw(source.octets(), destination.octets(), data)
                }
                _ => unreachable!("one family, checked when it was made"),
            }
            .expect("short enough for a checksum");
        }
        [header.to_bytes().as_slice(), data].concat()
    }

    fn icmp_bytes(&self, kind: u8, code: u8, rest: u32, data: &[u8]) -> Vec<u8> {
        let bytes5to8 = rest.to_be_bytes();
        match (self.source, self.destination) {
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = Icmpv6Header::with_checksum(
                    Icmpv6Type::Unknown {
                        type_u8: kind,
                        code_u8: code,
                        bytes5to8,
                    },
                    source.octets(),
                    destination.octets(),
                    data,
                )
                .expect("short enough for a checksum");
                [header.to_bytes().as_slice(), data].concat()
            }
            _ => {
                let header = Icmpv4Header::with_checksum(
                    Icmpv4Type::Unknown {
                        type_u8: kind,
                        code_u8: code,
                        bytes5to8,
                    },
                    data,
                );
                [header.to_bytes().as_slice(), data].concat()
            }
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let payload = self.payload_bytes();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let (offset, more) = self.fragment.unwrap_or((0, false));
                let mut header = Ipv4Header {
                    dscp: (self.tos >> 2).try_into().expect("six bits"),
                    ecn: (self.tos & 3).try_into().expect("two bits"),
                    total_len: (20 + self.options.len() + payload.len()) as u16,
                    identification: self.id as u16,
                    dont_fragment: self.dont_fragment,
                    more_fragments: more,
                    fragment_offset: IpFragOffset::try_new(offset / 8).expect("13 bits"),
                    time_to_live: self.ttl,
                    protocol: IpNumber(self.protocol()),
                    header_checksum: 0,
                    source: source.octets(),
                    destination: destination.octets(),
                    options: Ipv4Options::try_from(self.options.as_slice())
                        .expect("options of at most 40 bytes, a multiple of 4"),
                };
                header.header_checksum = header.calc_header_checksum();
                [header.to_bytes().as_slice(), &payload].concat()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut headers: Vec<(u8, Vec<u8>)> = self.extensions.clone();
                if let Some((offset, more)) = self.fragment {
                    let field = offset | u16::from(more);
                    headers.push((
                        ipv6::FRAGMENT,
                        [field.to_be_bytes().as_slice(), &self.id.to_be_bytes()].concat(),
                    ));
                }
                let mut next = self.protocol();
                let mut behind = payload;
                for (kind, body) in headers.iter().rev() {
                    assert!(body.len() % 8 == 6, "an extension header in units of 8");
                    let second = if *kind == ipv6::FRAGMENT {
                        0
                    } else {
                        body.len() / 8
                    };
                    behind = [&[next, second as u8], body.as_slice(), &behind].concat();
                    next = *kind;
                }
                let header = Ipv6Header {
                    traffic_class: self.tos,
                    flow_label: Ipv6FlowLabel::try_new(self.flow_label).expect("20 bits"),
                    payload_length: behind.len() as u16,
                    next_header: IpNumber(next),
                    hop_limit: self.ttl,
                    source: source.octets(),
                    destination: destination.octets(),
                };
                [header.to_bytes().as_slice(), &behind].concat()
            }
            _ => unreachable!("one family, checked when it was made"),
        }
    }

    /// The packet cut into fragments of at most `size` payload bytes (a multiple of 8).
    #[must_use]
    pub fn fragments(&self, size: usize) -> Vec<Self> {
        assert!(
            size.is_multiple_of(8),
            "fragments are cut at multiples of 8"
        );
        let payload = self.payload_bytes();
        let count = payload.len().div_ceil(size);
        payload
            .chunks(size)
            .enumerate()
            .map(|(index, part)| {
                self.clone().with(|ip| {
                    ip.fragment = Some(((index * size) as u16, index + 1 < count));
                    ip.payload = Payload::Raw(self.protocol(), part.to_vec());
                })
            })
            .collect()
    }
}
