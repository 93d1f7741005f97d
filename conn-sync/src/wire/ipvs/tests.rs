//! Messages of a real kernel, those of the specification, and all that is wrong with them.

use std::net::SocketAddr;

use proptest::prelude::*;
use xdp_ebpf::state::State;

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).expect("a hexadecimal digit") as u8;
    let pairs = hex.as_bytes().chunks_exact(2);
    pairs
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address of this test")
}

fn entry(
    protocol: u8,
    entry_flags: u32,
    state: u16,
    addresses: [&str; 3],
    timeout_s: u32,
) -> KernelEntry {
    let [client, virtual_service, server] = addresses.map(at);
    KernelEntry {
        protocol,
        flags: entry_flags,
        state,
        client,
        virtual_service,
        server,
        mark: 0,
        timeout_s: Some(timeout_s),
        sequences: None,
        engine: None,
    }
}

const DIRECT: &str =
    "0033002c01010000000600240000008300019c40005000500000000000000384c000020ac63364010a000002";
const MARKED6: &str = "00000050010100000111004800000100000014e9003514b4000000070000012c20010db800000000000000000000001020010db800010000000000000000000120010db8000200000000000000000002";
const SEQUENCES: &str = "0001006c020100000006003e0000060000010401001500150000000000000384c000020bc63364010a0000030118000003e8fffffffe00000000000007d000000005000000030000000600240000108300010000005000500000000000000168c0000200c63364010a000002";
const ENGINE: &str = "00020046010100000011003e000010000001000013c413c4000000000000012cc000020cc63364090a0000040213613834623463373665363637313040706333330303736970";

/// The specification's messages: sync id, entries.
fn vectors() -> Vec<(&'static str, u8, Vec<KernelEntry>)> {
    let web = ["192.0.2.10:40000", "198.51.100.1:80", "10.0.0.2:80"];
    let names = [
        "[2001:db8::10]:5353",
        "[2001:db8:1::1]:53",
        "[2001:db8:2::2]:5300",
    ];
    let files = ["192.0.2.11:1025", "198.51.100.1:21", "10.0.0.3:21"];
    let template = ["192.0.2.0:0", "198.51.100.1:80", "10.0.0.2:80"];
    let calls = ["192.0.2.12:0", "198.51.100.9:5060", "10.0.0.4:5060"];
    let forwarded = flags::DIRECT | flags::NO_OUTPUT;
    vec![
        (DIRECT, 51, vec![entry(6, forwarded, 1, web, 900)]),
        (
            MARKED6,
            0,
            vec![KernelEntry {
                mark: 7,
                ..entry(17, flags::INACTIVE, 0, names, 300)
            }],
        ),
        (
            SEQUENCES,
            1,
            vec![
                KernelEntry {
                    sequences: Some([1000, -2_i32 as u32, 0, 2000, 5, 3]),
                    ..entry(6, flags::SEQUENCE, 1, files, 900)
                },
                entry(6, flags::TEMPLATE | forwarded, 1, template, 360),
            ],
        ),
        (
            ENGINE,
            2,
            vec![KernelEntry {
                engine: Some((b"sip".to_vec(), b"a84b4c76e66710@pc33".to_vec())),
                ..entry(17, flags::TEMPLATE, 1, calls, 300)
            }],
        ),
    ]
}

#[test]
fn the_specifications_messages_both_ways() {
    for (hex, sync_id, entries) in vectors() {
        let message = bytes(hex);
        for filter in [0, sync_id] {
            let outcome = decode(&message, filter);
            assert_eq!(
                (outcome.version, &outcome.refusals[..]),
                (1, &[][..]),
                "{hex}"
            );
            assert_eq!(outcome.entries, entries, "{hex}");
        }
        let other = decode(&message, sync_id.wrapping_add(1).max(1));
        assert_eq!(
            (other.entries, other.refusals),
            (vec![], vec![Refusal::SyncId]),
            "{hex}"
        );
        let mut encoder = Encoder::new(sync_id, 1472);
        for entry in &entries {
            assert_eq!(encoder.push(entry), None);
        }
        assert_eq!(encoder.finish(), Some(message), "{hex}");
        assert_eq!(encoder.finish(), None);
    }
}

/// Messages in a capture: each frame's UDP payload.
fn messages(capture: &[u8]) -> Vec<&[u8]> {
    const FILE_HEADER: usize = 24;
    const FRAME_HEADER: usize = 16;
    // Ethernet, IPv4 without options, UDP.
    const HEADERS: usize = 14 + 20 + 8;
    let mut messages = Vec::new();
    let mut rest = &capture[FILE_HEADER..];
    while let Some((header, others)) = rest.split_at_checked(FRAME_HEADER) {
        let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
        messages.push(&others[HEADERS..length]);
        rest = &others[length..];
    }
    messages
}

/// What the kernel said of the same connections when these were captured (`ipvsadm -Lnc`, `/proc/net/ip_vs_conn_sync`):
/// version, and each kind of entry once: protocol, flags, state, client, virtual service, real server, timeout.
fn captures() -> Vec<(&'static str, &'static [u8], u8, Vec<&'static str>)> {
    vec![
        (
            "sync-tcp-nat",
            include_bytes!("../../../tests/captures/sync-tcp-nat.pcap"),
            1,
            vec![
                "6 0x0 1 10.1.0.10:40002 10.1.0.1:80 10.2.0.11:8080 900",
                "6 0x100 7 10.1.0.10:40002 10.1.0.1:80 10.2.0.11:8080 60",
                "6 0x100 5 10.1.0.10:40002 10.1.0.1:80 10.2.0.11:8080 120",
            ],
        ),
        (
            "sync-tcp-dr",
            include_bytes!("../../../tests/captures/sync-tcp-dr.pcap"),
            1,
            vec![
                "6 0x83 1 10.1.0.10:40010 10.1.0.1:81 10.1.0.11:81 900",
                "6 0x183 4 10.1.0.10:40010 10.1.0.1:81 10.1.0.11:81 120",
            ],
        ),
        (
            "sync-tcp-tun-ipip",
            include_bytes!("../../../tests/captures/sync-tcp-tun-ipip.pcap"),
            1,
            vec![
                "6 0x82 1 10.1.0.10:40020 10.1.0.1:82 10.1.0.3:82 900",
                "6 0x182 4 10.1.0.10:40020 10.1.0.1:82 10.1.0.3:82 120",
            ],
        ),
        (
            "sync-tcp-persist",
            include_bytes!("../../../tests/captures/sync-tcp-persist.pcap"),
            1,
            vec![
                "6 0x1100 1 10.1.0.10:0 10.1.0.1:443 10.2.0.12:8080 300",
                "6 0x0 1 10.1.0.10:40030 10.1.0.1:443 10.2.0.12:8080 900",
                "6 0x100 7 10.1.0.10:40030 10.1.0.1:443 10.2.0.12:8080 60",
                "6 0x100 5 10.1.0.10:40030 10.1.0.1:443 10.2.0.12:8080 120",
                "6 0x0 1 10.1.0.10:40031 10.1.0.1:443 10.2.0.12:8080 900",
                "6 0x100 7 10.1.0.10:40031 10.1.0.1:443 10.2.0.12:8080 60",
                "6 0x100 5 10.1.0.10:40031 10.1.0.1:443 10.2.0.12:8080 120",
            ],
        ),
        (
            "sync-tcp6-nat",
            include_bytes!("../../../tests/captures/sync-tcp6-nat.pcap"),
            1,
            vec![
                "6 0x0 1 [fd00:1::10]:40050 [fd00:1::1]:80 [fd00:2::11]:8080 900",
                "6 0x100 7 [fd00:1::10]:40050 [fd00:1::1]:80 [fd00:2::11]:8080 60",
                "6 0x100 5 [fd00:1::10]:40050 [fd00:1::1]:80 [fd00:2::11]:8080 120",
            ],
        ),
        (
            "sync-udp-nat",
            include_bytes!("../../../tests/captures/sync-udp-nat.pcap"),
            1,
            vec!["17 0x100 0 10.1.0.10:41001 10.1.0.1:5353 10.2.0.11:5353 300"],
        ),
        (
            "sync-v0-tcp-udp-persist",
            include_bytes!("../../../tests/captures/sync-v0-tcp-udp-persist.pcap"),
            0,
            vec![
                "6 0x0 1 10.1.0.10:40090 10.1.0.1:80 10.2.0.11:8080 none",
                "6 0x100 7 10.1.0.10:40090 10.1.0.1:80 10.2.0.11:8080 none",
                "6 0x100 5 10.1.0.10:40090 10.1.0.1:80 10.2.0.11:8080 none",
                "6 0x0 1 10.1.0.10:40091 10.1.0.1:443 10.2.0.12:8080 none",
                "6 0x1100 1 10.1.0.10:0 10.1.0.1:443 10.2.0.12:8080 none",
                "6 0x100 7 10.1.0.10:40091 10.1.0.1:443 10.2.0.12:8080 none",
                "6 0x100 5 10.1.0.10:40091 10.1.0.1:443 10.2.0.12:8080 none",
                "6 0x83 1 10.1.0.10:40092 10.1.0.1:81 10.1.0.11:81 none",
                "6 0x183 4 10.1.0.10:40092 10.1.0.1:81 10.1.0.11:81 none",
                "17 0x100 0 10.1.0.10:41090 10.1.0.1:5353 10.2.0.12:5353 none",
                "6 0x82 1 10.1.0.10:40093 10.1.0.1:82 10.1.0.3:82 none",
                "6 0x182 4 10.1.0.10:40093 10.1.0.1:82 10.1.0.3:82 none",
            ],
        ),
    ]
}

#[test]
fn a_real_kernels_messages() {
    for (name, capture, version, expected) in captures() {
        let mut found: Vec<String> = Vec::new();
        for message in messages(capture) {
            let outcome = decode(message, 0);
            assert_eq!(
                (outcome.version, &outcome.refusals[..]),
                (version, &[][..]),
                "{name}"
            );
            if version == 1 {
                // What is written again is the same, byte for byte.
                let mut encoder = Encoder::new(message[1], 1472);
                for entry in &outcome.entries {
                    assert_eq!(encoder.push(entry), None, "{name}");
                }
                assert_eq!(encoder.finish().as_deref(), Some(message), "{name}");
            }
            for it in outcome.entries {
                let timeout = it
                    .timeout_s
                    .map_or("none".to_owned(), |timeout| timeout.to_string());
                let line = format!(
                    "{} {:#x} {} {} {} {} {timeout}",
                    it.protocol, it.flags, it.state, it.client, it.virtual_service, it.server
                );
                assert_eq!(
                    (it.mark, it.sequences, it.engine),
                    (0, None, None),
                    "{name}"
                );
                if !found.contains(&line) {
                    found.push(line);
                }
            }
        }
        assert_eq!(found, expected, "{name}");
    }
}

fn all_messages() -> Vec<Vec<u8>> {
    let captured = captures().into_iter().flat_map(|(_, capture, ..)| {
        let messages = messages(capture);
        messages.into_iter().map(<[u8]>::to_vec).collect::<Vec<_>>()
    });
    let specified = vectors().into_iter().map(|(hex, ..)| bytes(hex));
    captured.chain(specified).collect()
}

/// Cut off anywhere a message is refused as a whole, as the kernel does.
#[test]
fn every_truncation() {
    for message in all_messages() {
        for length in 0..message.len() {
            let outcome = decode(&message[..length], 0);
            let why = if length < 4 {
                Refusal::Short
            } else {
                Refusal::Length
            };
            assert_eq!(
                (outcome.entries, outcome.refusals),
                (vec![], vec![why]),
                "{length}"
            );
        }
        // One byte too many.
        let longer = [&message[..], &[0]].concat();
        assert_eq!(decode(&longer, 0).refusals, [Refusal::Length]);
    }
}

/// Whatever byte is another one, nothing worse comes of it than that something is refused.
#[test]
fn every_byte_another_one() {
    for message in all_messages() {
        for at in 0..message.len() {
            for value in [0, 1, 2, 0x3f, 0x7f, 0x80, 0xff] {
                let mut corrupt = message.clone();
                corrupt[at] = value;
                crate::wire::fuzz::kernel(&corrupt);
            }
        }
    }
}

/// A message of one IPv4 entry with these options, and one after it without.
fn with_options(options: &[u8]) -> Vec<u8> {
    let mut message = bytes(DIRECT);
    let second = message[HEADER..].to_vec();
    message[4] = 2;
    let size = (ENTRY4 + options.len()) as u16;
    message[HEADER + 2..HEADER + 4].copy_from_slice(&size.to_be_bytes());
    message.extend(options);
    message.resize(message.len().next_multiple_of(4), 0);
    message.extend(second);
    let length = message.len() as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
    message
}

/// What is changed, how many of two entries are taken, and why the others are not.
#[test]
fn what_is_wrong_costs_as_much_as_in_the_kernel() {
    const SEQUENCE: [u8; 26] = {
        let mut option = [0; 26];
        option[0] = 1;
        option[1] = 24;
        option
    };
    let twice = [SEQUENCE, SEQUENCE].concat();
    let options: [(&str, &[u8], usize, &[Refusal]); 12] = [
        ("none", &[], 2, &[]),
        ("unknown, optional", &[0x45, 1, 9], 2, &[]),
        ("unknown, not optional", &[5, 1, 9], 1, &[Refusal::Unknown]),
        ("sequences", &SEQUENCE, 2, &[]),
        ("sequences twice", &twice, 0, &[Refusal::Option]),
        ("sequences too short", &[1, 2, 0, 0], 0, &[Refusal::Option]),
        ("one byte", &[1], 0, &[Refusal::Option]),
        ("no length", &[2, 0], 0, &[Refusal::Option]),
        ("longer than the entry", &[2, 9, 0], 0, &[Refusal::Option]),
        ("key without a name", &[2, 1, 9], 1, &[Refusal::Engine]),
        ("name without a key", &[3, 1, 9], 2, &[]),
        (
            "name too long",
            &[3, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            0,
            &[Refusal::Option],
        ),
    ];
    for (what, options, taken, refusals) in options {
        let outcome = decode(&with_options(options), 0);
        assert_eq!(
            (outcome.entries.len(), &outcome.refusals[..]),
            (taken, refusals),
            "{what}"
        );
    }
    // Byte of the first entry, its value.
    let changes: [(&str, usize, u8, usize, &[Refusal]); 8] = [
        ("kind 2", 0, 2, 0, &[Refusal::Malformed]),
        ("kind 1 of so few bytes", 0, 1, 0, &[Refusal::Malformed]),
        (
            "entry of another version",
            2,
            0x10,
            0,
            &[Refusal::Malformed],
        ),
        ("entry too small", 3, 35, 0, &[Refusal::Malformed]),
        (
            "entry larger than the message",
            2,
            15,
            0,
            &[Refusal::Malformed],
        ),
        (
            "a state that TCP does not have",
            9,
            11,
            1,
            &[Refusal::State],
        ),
        ("the last state that it has", 9, 10, 2, &[]),
        (
            "a protocol that nobody balances",
            1,
            47,
            1,
            &[Refusal::Protocol],
        ),
    ];
    for (what, at, value, taken, refusals) in changes {
        let mut message = with_options(&[]);
        message[HEADER + at] = value;
        let outcome = decode(&message, 0);
        assert_eq!(
            (outcome.entries.len(), &outcome.refusals[..]),
            (taken, refusals),
            "{what}"
        );
    }
    // Not of version 1, so of version 0, which it is not: as many entries of 24 bytes as there are.
    let mut message = bytes(DIRECT);
    message[6] = 1;
    assert_eq!(decode(&message, 0).version, 0);
}

#[test]
fn messages_have_a_limit_of_bytes_and_of_entries() {
    let [small, large] = [
        entry(
            6,
            0,
            1,
            ["192.0.2.10:1", "198.51.100.1:80", "10.0.0.2:80"],
            900,
        ),
        entry(
            6,
            0,
            1,
            ["[2001:db8::1]:1", "[2001:db8::2]:80", "[2001:db8::3]:80"],
            900,
        ),
    ];
    // Longest message, entry, entries in each.
    for (longest, entry, each) in [
        (1472, &small, 40),
        (1452, &large, 20),
        (65_535, &small, 255),
        (44, &small, 1),
        (10, &small, 1),
    ] {
        let mut encoder = Encoder::new(3, longest);
        let mut messages: Vec<Vec<u8>> = (0..600).filter_map(|_| encoder.push(entry)).collect();
        messages.extend(encoder.finish());
        let counts: Vec<usize> = messages
            .iter()
            .map(|it| decode(it, 3).entries.len())
            .collect();
        assert_eq!(counts.iter().sum::<usize>(), 600);
        assert!(
            counts[..counts.len() - 1]
                .iter()
                .all(|count| *count == each),
            "{longest}: {counts:?}"
        );
        assert!(
            each == 1 || messages.iter().all(|it| it.len() <= longest),
            "{longest}"
        );
    }
    let mixed = entry(
        6,
        0,
        1,
        ["192.0.2.10:1", "198.51.100.1:80", "[2001:db8::3]:80"],
        900,
    );
    let mut encoder = Encoder::new(3, 1472);
    assert_eq!((encoder.push(&mixed), encoder.finish()), (None, None));
}

#[test]
fn states_have_a_counterpart() {
    for known in State::ALL.into_iter().filter(|it| it.is_told()) {
        let protocol = if known == State::Udp { 17 } else { 6 };
        assert_eq!(to_state(protocol, state(known)), Some(known));
    }
    for (protocol, number) in [
        (6, 0),
        (6, 2),
        (6, 3),
        (6, 9),
        (6, 10),
        (6, 11),
        (17, 1),
        (132, 1),
        (50, 0),
    ] {
        assert_eq!(to_state(protocol, number), None, "{protocol} {number}");
    }
}

proptest! {
    #[test]
    fn nothing_worse_than_a_refusal(message in proptest::collection::vec(any::<u8>(), 0..300)) {
        crate::wire::fuzz::kernel(&message);
    }

    /// With a header that is right.
    #[test]
    fn nor_behind_a_right_header(entries in proptest::collection::vec(any::<u8>(), 0..300), count: u8) {
        let length = ((HEADER + entries.len()) as u16).to_be_bytes();
        let header = [0, 0, length[0], length[1], count, 1, 0, 0];
        crate::wire::fuzz::kernel(&[&header[..], &entries].concat());
    }
}
