//! Packets of keepalived, round trips, and everything that can be wrong with a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use proptest::prelude::*;

use super::{Addresses, Advert, ChecksumRule, Envelope, Version, VrrpError, checksum};

const V4: Envelope = Envelope {
    from: IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)),
    to: IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18)),
};
const V6: Envelope = Envelope {
    from: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
    to: IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12)),
};

fn captured() -> Vec<(Envelope, Vec<u8>)> {
    let lines = include_str!("keepalived.hex").lines();
    lines
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap();
            let envelope = Envelope {
                from: word().parse().unwrap(),
                to: word().parse().unwrap(),
            };
            let digits = word().as_bytes().chunks(2);
            let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            (envelope, digits.map(byte).collect())
        })
        .collect()
}

#[test]
fn keepalived_is_read_and_written_byte_for_byte() {
    let expected = [
        (51, 150, 250),
        (61, 150, 1000),
        (51, 0, 250),
        (61, 0, 1000),
        (51, 100, 250),
        (61, 100, 1000),
        (51, 0, 250),
        (61, 0, 1000),
    ];
    let v4 = Addresses::V4(vec![
        Ipv4Addr::new(10, 77, 0, 100),
        Ipv4Addr::new(10, 77, 0, 101),
    ]);
    let v6 = Addresses::V6(vec![
        "fe80::77:1".parse().unwrap(),
        "fd77::100".parse().unwrap(),
    ]);
    let captured = captured();
    assert_eq!(captured.len(), expected.len());
    for ((envelope, packet), (vrid, priority, interval_ms)) in captured.iter().zip(expected) {
        let addresses = if envelope.from.is_ipv6() { &v6 } else { &v4 };
        let advert = Advert {
            version: Version::V3,
            vrid,
            priority,
            interval: Duration::from_millis(interval_ms),
            addresses: addresses.clone(),
            password: None,
        };
        assert_eq!(Advert::decode(packet, *envelope), Ok(advert.clone()));
        assert_eq!(
            advert.encode(*envelope, ChecksumRule::PseudoHeader),
            *packet
        );
    }
}

#[test]
fn every_truncation_is_refused() {
    for (envelope, packet) in samples() {
        for length in 0..packet.len() {
            let found = Advert::decode(&packet[..length], envelope);
            assert!(
                matches!(found, Err(VrrpError::Short { found, .. }) if found == length),
                "{length} bytes of {packet:02x?}: {found:?}"
            );
        }
        let longer = [packet.as_slice(), &[0]].concat();
        assert_eq!(Advert::decode(&longer, envelope), Err(VrrpError::Long(1)));
    }
}

#[test]
fn every_flipped_bit_is_detected() {
    for (envelope, packet) in samples() {
        for bit in 0..packet.len() * 8 {
            let mut damaged = packet.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let found = Advert::decode(&damaged, envelope);
            assert!(found.is_err(), "bit {bit} of {packet:02x?}: {found:?}");
        }
    }
}

/// The captured packets, and version 2 with and without a password, and version 3 without pseudo header.
fn samples() -> Vec<(Envelope, Vec<u8>)> {
    let v2 = Advert {
        version: Version::V2,
        vrid: 7,
        priority: 100,
        interval: Duration::from_secs(1),
        addresses: Addresses::V4(vec![Ipv4Addr::new(192, 0, 2, 10)]),
        password: None,
    };
    let with_password = Advert {
        password: Some(*b"heslo\0\0\0"),
        ..v2.clone()
    };
    let v3 = Advert {
        version: Version::V3,
        ..v2.clone()
    };
    let ours = [v2, with_password, v3];
    let ours = ours.map(|advert| (V4, advert.encode(V4, ChecksumRule::Packet)));
    captured().into_iter().chain(ours).collect()
}

#[test]
fn what_is_wrong_is_said() {
    // Changes to a good packet of version 3 after which the checksum is made right again.
    type Change = fn(&mut Vec<u8>);
    let cases: [(Change, VrrpError); 7] = [
        (|p| p[0] = 0x41, VrrpError::Version(4)),
        (|p| p[0] = 0x32, VrrpError::Type(2)),
        (|p| p[1] = 0, VrrpError::VirtualRouter),
        (|p| p[3] = 0, VrrpError::Addresses(0)),
        (|p| p[3] = 91, VrrpError::Addresses(91)),
        (|p| p[5] = 0, VrrpError::Interval),
        (|p| p[7] ^= 1, VrrpError::Checksum),
    ];
    let (_, good) = samples().pop().unwrap();
    for (change, expected) in cases {
        let mut packet = good.clone();
        change(&mut packet);
        if expected != VrrpError::Checksum {
            packet[6..8].fill(0);
            let sum = checksum::plain(&packet);
            packet[6..8].copy_from_slice(&sum.to_be_bytes());
        }
        assert_eq!(Advert::decode(&packet, V4), Err(expected));
    }
    let mut mixed = V4;
    mixed.to = V6.to;
    assert_eq!(Advert::decode(&good, mixed), Err(VrrpError::Family));
    let (_, v2) = samples().into_iter().rev().nth(2).unwrap();
    assert_eq!(Advert::decode(&v2, V6), Err(VrrpError::VersionOverIpv6));
}

#[test]
fn reserved_bits_beside_the_interval_are_ignored() {
    // RFC 9568 section 5.2.6.
    let (_, mut packet) = samples().pop().unwrap();
    let good = Advert::decode(&packet, V4).unwrap();
    packet[4] |= 0xf0;
    packet[6..8].fill(0);
    let sum = checksum::plain(&packet);
    packet[6..8].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(Advert::decode(&packet, V4), Ok(good));
}

prop_compose! {
    fn adverts()(
        shape in 0..3,
        vrid in 1..=u8::MAX,
        priority: u8,
        interval in 1_u64..=255,
        first: [u8; 16],
        count in 1..=super::ADDRESSES as u8,
        password: Option<[u8; 8]>,
    ) -> Advert {
        let v4 = |i| Ipv4Addr::from([first[0], first[1], first[2], i]);
        let v6 = |i| Ipv6Addr::from({ let mut bytes = first; bytes[15] = i; bytes });
        Advert {
            version: if shape == 0 { Version::V2 } else { Version::V3 },
            vrid,
            priority,
            interval: Duration::from_millis(interval * if shape == 0 { 1000 } else { 160 }),
            addresses: match shape {
                2 => Addresses::V6((0..count).map(v6).collect()),
                _ => Addresses::V4((0..count).map(v4).collect()),
            },
            password: password.filter(|_| shape == 0),
        }
    }
}

proptest! {
    #[test]
    fn written_and_read_again(advert in adverts(), pseudo: bool) {
        let rule = if pseudo { ChecksumRule::PseudoHeader } else { ChecksumRule::Packet };
        let envelope = if advert.is_ipv6() { V6 } else { V4 };
        prop_assert_eq!(Advert::decode(&advert.encode(envelope, rule), envelope), Ok(advert));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, v6: bool) {
        let _ = Advert::decode(&bytes, if v6 { V6 } else { V4 });
    }
}
