//! Adverts: the only message of VRRP.
//!
//! ```text
//!  version, type  VRID      priority  addresses        version, type  VRID      priority  addresses
//!  auth type      interval  checksum                   0, interval in 1/100 s   checksum
//!  IPv4 addresses                                      IPv4 or IPv6 addresses
//!  8 bytes of authentication             (version 2)                                        (version 3)
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use thiserror::Error;

use super::checksum;

/// The type of an advert, the only one.
const ADVERTISEMENT: u8 = 1;
/// Bytes before the addresses.
const HEADER: usize = 8;
/// Bytes of authentication at the end of version 2.
const AUTHENTICATION: usize = 8;
/// Authentication by a password in clear (RFC 2338 section 5.3.6.2; RFC 3768 took it out, but it is still used).
const SIMPLE_PASSWORD: u8 = 1;

/// Most addresses in one advert: as many IPv6 addresses as fit a packet of 1,500 bytes.
pub const ADDRESSES: usize = 90;

/// Versions of VRRP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// RFC 3768. IPv4 only, intervals in seconds.
    V2,
    /// RFC 9568 (and RFC 5798).
    V3,
}

/// The virtual addresses of an advert, which are all of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// IPv4.
    V4(Vec<Ipv4Addr>),
    /// IPv6. The first is link-local (RFC 9568 section 5.2.9).
    V6(Vec<Ipv6Addr>),
}

/// One advert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    /// The version.
    pub version: Version,
    /// Number of the virtual router, 1 to 255.
    pub vrid: u8,
    /// 1 to 255; 0: the sender no longer is primary.
    pub priority: u8,
    /// How often the sender advertises.
    pub interval: Duration,
    /// The virtual addresses.
    pub addresses: Addresses,
    /// Version 2: the password.
    pub password: Option<[u8; 8]>,
}

/// Where a packet came from or goes to: the checksum may cover it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Source address.
    pub from: IpAddr,
    /// Destination address.
    pub to: IpAddr,
}

/// What the checksum of version 3 over IPv4 covers. Over IPv6 it always covers the pseudo header, in version 2 never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumRule {
    /// The packet (RFC 9568 section 5.2.8).
    Packet,
    /// The packet and the pseudo header, as keepalived has it.
    PseudoHeader,
}

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum VrrpError {
    /// It is too short.
    #[error("the packet is cut short: {found} bytes of {expected}")]
    Short {
        /// So many are needed.
        expected: usize,
        /// So many are there.
        found: usize,
    },
    /// There is more than the addresses.
    #[error("{0} bytes stand behind the end of the packet")]
    Long(usize),
    /// Another version.
    #[error("version {0}, but only 2 and 3 are known")]
    Version(u8),
    /// Another type.
    #[error("type {0}, but only 1, advertisement, is known")]
    Type(u8),
    /// Version 2 is not for IPv6.
    #[error("version 2 over IPv6")]
    VersionOverIpv6,
    /// The checksum is wrong.
    #[error("the checksum is wrong")]
    Checksum,
    /// Virtual router 0 does not exist.
    #[error("the virtual router's number is 0")]
    VirtualRouter,
    /// Authentication that is not known.
    #[error("authentication type {0}, but only 0, none, and 1, simple password, are known")]
    Authentication(u8),
    /// No addresses, or too many of them.
    #[error("{0} addresses, but 1 to {ADDRESSES} are possible")]
    Addresses(u8),
    /// An interval of zero: one would never be late.
    #[error("the interval is 0")]
    Interval,
    /// Source and destination are of different families.
    #[error("addresses of different families")]
    Family,
}

impl Advert {
    /// Reads the packet behind the IP header.
    ///
    /// # Errors
    /// What is wrong with it: it must be dropped.
    pub fn decode(packet: &[u8], envelope: Envelope) -> Result<Self, VrrpError> {
        let short = |expected| VrrpError::Short {
            expected,
            found: packet.len(),
        };
        let Some((header, rest)) = packet.split_first_chunk::<HEADER>() else {
            return Err(short(HEADER));
        };
        let [first, vrid, priority, count, fifth, sixth, ..] = *header;
        let version = match first >> 4 {
            2 => Version::V2,
            3 => Version::V3,
            other => return Err(VrrpError::Version(other)),
        };
        if first & 0xf != ADVERTISEMENT {
            return Err(VrrpError::Type(first & 0xf));
        }
        let is_ipv6 = match (envelope.from, envelope.to) {
            (IpAddr::V4(_), IpAddr::V4(_)) => false,
            (IpAddr::V6(_), IpAddr::V6(_)) => true,
            _ => return Err(VrrpError::Family),
        };
        if version == Version::V2 && is_ipv6 {
            return Err(VrrpError::VersionOverIpv6);
        }
        if count == 0 || usize::from(count) > ADDRESSES {
            return Err(VrrpError::Addresses(count));
        }
        let trailer = if version == Version::V2 {
            AUTHENTICATION
        } else {
            0
        };
        let of_addresses = usize::from(count) * if is_ipv6 { 16 } else { 4 };
        let expected = HEADER + of_addresses + trailer;
        if packet.len() < expected {
            return Err(short(expected));
        }
        if packet.len() > expected {
            return Err(VrrpError::Long(packet.len() - expected));
        }
        if !checksum_is_right(packet, version, envelope) {
            return Err(VrrpError::Checksum);
        }
        if vrid == 0 {
            return Err(VrrpError::VirtualRouter);
        }
        let (addresses, trailer) = rest.split_at(of_addresses);
        let addresses = if is_ipv6 {
            let (chunks, _) = addresses.as_chunks::<16>();
            Addresses::V6(chunks.iter().map(|bytes| Ipv6Addr::from(*bytes)).collect())
        } else {
            let (chunks, _) = addresses.as_chunks::<4>();
            Addresses::V4(chunks.iter().map(|bytes| Ipv4Addr::from(*bytes)).collect())
        };
        let (interval, password) = match version {
            Version::V2 => {
                let password = match fifth {
                    0 => None,
                    SIMPLE_PASSWORD => trailer.first_chunk().copied(),
                    other => return Err(VrrpError::Authentication(other)),
                };
                (Duration::from_secs(u64::from(sixth)), password)
            }
            Version::V3 => {
                // The four bits before it are reserved, and to be ignored (RFC 9568 section 5.2.6).
                let centiseconds = u16::from_be_bytes([fifth & 0xf, sixth]);
                (Duration::from_millis(u64::from(centiseconds) * 10), None)
            }
        };
        if interval.is_zero() {
            return Err(VrrpError::Interval);
        }
        Ok(Self {
            version,
            vrid,
            priority,
            interval,
            addresses,
            password,
        })
    }

    /// The packet behind the IP header. An interval is rounded to what the version can tell: whole seconds up to 255 in version 2,
    /// hundredths up to 40.95 s in version 3. Of more addresses than [`ADDRESSES`] only the first are told.
    #[must_use]
    pub fn encode(&self, envelope: Envelope, rule: ChecksumRule) -> Vec<u8> {
        let count = match &self.addresses {
            Addresses::V4(list) => list.len(),
            Addresses::V6(list) => list.len(),
        }
        .min(ADDRESSES);
        let (version, interval) = match self.version {
            Version::V2 => {
                let seconds = self.interval.as_millis().div_ceil(1000).clamp(1, 255);
                let authentication = if self.password.is_some() {
                    SIMPLE_PASSWORD
                } else {
                    0
                };
                (2, [authentication, seconds as u8])
            }
            Version::V3 => {
                let centiseconds = (self.interval.as_millis() / 10).clamp(1, 0xfff);
                (3, (centiseconds as u16).to_be_bytes())
            }
        };
        let mut packet = vec![
            version << 4 | ADVERTISEMENT,
            self.vrid,
            self.priority,
            count as u8,
        ];
        packet.extend(interval);
        packet.extend([0, 0]);
        match &self.addresses {
            Addresses::V4(list) => {
                packet.extend(list.iter().take(count).flat_map(Ipv4Addr::octets))
            }
            Addresses::V6(list) => {
                packet.extend(list.iter().take(count).flat_map(Ipv6Addr::octets))
            }
        }
        if self.version == Version::V2 {
            packet.extend(self.password.unwrap_or_default());
        }
        let pseudo = match self.addresses {
            Addresses::V6(_) => true,
            Addresses::V4(_) => self.version == Version::V3 && rule == ChecksumRule::PseudoHeader,
        };
        let sum = if pseudo {
            checksum::with_pseudo_header(&packet, envelope.from, envelope.to)
        } else {
            checksum::plain(&packet)
        };
        packet[6..8].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    /// Whether the addresses are IPv6.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        matches!(self.addresses, Addresses::V6(_))
    }
}

/// Version 3 over IPv4 is accepted either way: RFC 5798 was read both ways, and RFC 9568 settled for the packet alone.
fn checksum_is_right(packet: &[u8], version: Version, envelope: Envelope) -> bool {
    let plain = || checksum::plain(packet) == 0;
    let pseudo = || checksum::with_pseudo_header(packet, envelope.from, envelope.to) == 0;
    match (version, envelope.from) {
        (Version::V2, _) => plain(),
        (Version::V3, IpAddr::V4(_)) => plain() || pseudo(),
        (Version::V3, IpAddr::V6(_)) => pseudo(),
    }
}
