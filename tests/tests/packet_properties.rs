//! Packets that nobody thought of: random ones, and damaged ones of every kind.

use std::cell::RefCell;
use std::net::IpAddr;

use director_tests::packet::build::{Frame, Ip, Payload, protocol, tcp};
use director_tests::packet::case::compare;
use director_tests::packet::fixture::{DIRECTOR, Family, Fixture, ROUTER, port, server_mac, site};
use director_tests::packet::kernel::{Kernel, LONGEST};
use director_tests::packet::native::Native;
use director_tests::packet::samples::samples;
use director_tests::packet::verify::verify;
use director_tests::packet::{Action, Machine, Place};
use director_tests::paths;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// One damage to a frame.
#[derive(Clone, Debug)]
enum Damage {
    /// A byte is another.
    Byte(prop::sample::Index, u8),
    /// A bit is flipped.
    Bit(prop::sample::Index, u8),
    /// It ends early.
    Cut(prop::sample::Index),
    /// It ends late.
    Grow(Vec<u8>),
    /// Bytes are missing in the middle.
    Remove(prop::sample::Index, usize),
    /// Bytes come in between.
    Insert(prop::sample::Index, Vec<u8>),
}

impl Damage {
    fn apply(&self, frame: &mut Vec<u8>) {
        match self {
            _ if frame.is_empty() => {}
            Self::Byte(at, byte) => *at.get_mut(frame) = *byte,
            Self::Bit(at, bit) => *at.get_mut(frame) ^= 1 << (bit % 8),
            Self::Cut(at) => frame.truncate(at.index(frame.len())),
            Self::Grow(more) => frame.extend(more),
            Self::Remove(at, count) => {
                let at = at.index(frame.len());
                let end = (at + count).min(frame.len());
                frame.drain(at..end);
            }
            Self::Insert(at, more) => {
                let at = at.index(frame.len());
                frame.splice(at..at, more.iter().copied());
            }
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<prop::sample::Index>;
    // Most of what counts stands at the beginning, and in a few bytes of it.
    let interesting = prop_oneof![
        any::<u8>(),
        Just(0),
        Just(0xff),
        Just(44),
        Just(43),
        Just(0x45),
        Just(0x60),
        Just(protocol::UDP),
        Just(protocol::ICMPV6),
    ];
    prop_oneof![
        4 => (index(), interesting).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        4 => (index(), any::<u8>()).prop_map(|(at, bit)| Damage::Bit(at, bit)),
        2 => index().prop_map(Damage::Cut),
        1 => prop::collection::vec(any::<u8>(), 1..40).prop_map(Damage::Grow),
        1 => (index(), 1_usize..12).prop_map(|(at, count)| Damage::Remove(at, count)),
        1 => (index(), prop::collection::vec(any::<u8>(), 1..12))
            .prop_map(|(at, more)| Damage::Insert(at, more)),
    ]
}

/// A frame of some kind, damaged or not, with what comes before it.
fn damaged() -> impl Strategy<Value = (usize, Vec<u8>)> {
    let frames: Vec<Vec<u8>> = samples().iter().map(|it| it.frame.bytes()).collect();
    (0..frames.len(), prop::collection::vec(damage(), 0..4)).prop_map(move |(index, damages)| {
        let mut frame = frames[index].clone();
        for damage in damages {
            damage.apply(&mut frame);
        }
        frame.truncate(LONGEST);
        (index, frame)
    })
}

/// Bytes behind a link header that makes them be looked at.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let headers = prop_oneof![
        Just(vec![0x08, 0x00, 0x45]),
        Just(vec![0x08, 0x00]),
        Just(vec![0x86, 0xdd, 0x60]),
        Just(vec![0x86, 0xdd]),
        Just(vec![0x81, 0x00, 0, 7, 0x08, 0x00, 0x46]),
        Just(vec![0x88, 0xa8, 0, 8, 0x81, 0x00, 0, 7, 0x86, 0xdd, 0x60]),
        prop::collection::vec(any::<u8>(), 0..3),
    ];
    (headers, prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(header, rest)| {
        let mut frame = [DIRECTOR, ROUTER].concat();
        frame.extend(header);
        frame.extend(rest);
        frame
    })
}

fn cases(count: u32) -> Config {
    Config {
        cases: count,
        // Nothing is written beside the sources.
        failure_persistence: None,
        ..Config::default()
    }
}

/// A director that never runs out of answers.
fn talkative() -> Fixture {
    site().with(|fixture| fixture.settings.icmp_per_second = 1_000_000_000)
}

/// A machine on which everything that samples need has come before.
fn prepared(machine: &mut dyn Machine) {
    machine.load(&talkative()).expect("the tables take it");
    for sample in samples() {
        for frame in sample.before {
            machine.run(&frame.bytes()).expect("a verdict");
        }
    }
    machine.take_held().expect("frames that wait");
}

/// Runs a frame and checks what holds for every frame: passed untouched, or counted exactly once.
fn run_counted(machine: &mut dyn Machine, frame: &[u8]) -> (Action, Vec<u8>, Vec<Place>) {
    let before = machine.counts().expect("counters");
    let outcome = machine.run(frame).expect("a verdict");
    let places = machine.counts().expect("counters").since(&before);
    let held = machine.take_held().expect("frames that wait");
    let is_held = places == [Place::Reason("fragment_held")];
    assert_eq!(held.len(), usize::from(is_held), "held and counted so");
    match outcome.action {
        Action::Pass if outcome.frame == frame && places.is_empty() => {}
        _ => assert_eq!(places.len(), 1, "{:?} in {places:?}", outcome.action),
    }
    (outcome.action, outcome.frame, places)
}

#[test]
fn no_noise_is_read_or_written_beyond_its_ends() {
    let machine = RefCell::new(Native::new(&talkative()));
    proptest!(cases(4000), |(frame in noise())| {
        run_counted(&mut *machine.borrow_mut(), &frame);
    });
}

#[test]
fn no_damaged_packet_is_read_or_written_beyond_its_ends() {
    let mut machine = Native::new(&talkative());
    prepared(&mut machine);
    let machine = RefCell::new(machine);
    proptest!(cases(8000), |((_, frame) in damaged())| {
        run_counted(&mut *machine.borrow_mut(), &frame);
    });
}

/// A client, a protocol and payloads for both ways.
#[derive(Clone, Debug)]
struct Talk {
    family: Family,
    is_tcp: bool,
    client: [u16; 8],
    client_port: u16,
    has_checksum: bool,
    ttl: u8,
    tos: u8,
    request: Vec<u8>,
    reply: Vec<u8>,
}

fn talk() -> impl Strategy<Value = Talk> {
    let data = || prop::collection::vec(any::<u8>(), 0..1200);
    (
        prop_oneof![Just(Family::V4), Just(Family::V6)],
        any::<(bool, [u16; 8], u16, bool, u8)>(),
        2_u8..,
        data(),
        data(),
    )
        .prop_map(
            |(family, (is_tcp, client, client_port, has_checksum, tos), ttl, request, reply)| {
                Talk {
                    family,
                    is_tcp,
                    client,
                    client_port,
                    has_checksum,
                    ttl,
                    tos,
                    request,
                    reply,
                }
            },
        )
}

impl Talk {
    fn client(&self) -> (IpAddr, u16) {
        let address = match self.family {
            // Never a group, the loopback network or the director's own.
            Family::V4 => {
                let [a, b] = self.client[0].to_be_bytes();
                let [c, d] = self.client[1].to_be_bytes();
                IpAddr::from([128 + a % 60, b, c, d])
            }
            Family::V6 => {
                let mut words = self.client;
                words[0] = 0x2a00 | words[0] & 0xff;
                IpAddr::from(words)
            }
        };
        (address, self.client_port)
    }

    fn packet(&self, from: (IpAddr, u16), to: (IpAddr, u16), flags: u8, data: &[u8]) -> Ip {
        let payload = if self.is_tcp {
            Payload::Tcp {
                source_port: from.1,
                destination_port: to.1,
                flags,
                options: Vec::new(),
                data: data.to_vec(),
            }
        } else {
            Payload::Udp {
                source_port: from.1,
                destination_port: to.1,
                checksum: self.has_checksum,
                data: data.to_vec(),
            }
        };
        Ip::new(from.0, to.0, payload).with(|ip| {
            ip.ttl = self.ttl;
            ip.tos = self.tos;
        })
    }
}

#[test]
fn nat_there_and_back_is_the_identity() {
    // Room for all of them: a table full of connections that stand takes no new ones.
    let roomy = site().with(|fixture| {
        fixture.settings.buckets4 = 4096;
        fixture.settings.buckets6 = 4096;
    });
    let machine = RefCell::new(Native::new(&roomy));
    proptest!(cases(2000), |(talk in talk())| {
        let family = talk.family;
        let (client, service) = (talk.client(), (family.virtual_address(), port::NAT));
        let real = (family.server(1), port::REAL);
        let mut machine = machine.borrow_mut();
        let sent = talk.packet(client, service, tcp::SYN, &talk.request);
        let there = machine.run(&Frame::new(ROUTER, DIRECTOR, sent.clone()).bytes()).expect("a verdict");
        let expected = Frame::new(DIRECTOR, server_mac(1), sent.to(real.0, real.1).hop()).bytes();
        prop_assert_eq!(there.action, Action::Transmit);
        prop_assert!(there.frame == expected, "there: {}", compare(&there.frame, &expected));
        prop_assert!(verify(&there.frame).is_ok(), "there: {:?}", verify(&there.frame));

        // The real server answers whom it saw; the client sees whom it asked.
        let answered = talk.packet(real, client, tcp::SYN | tcp::ACK, &talk.reply);
        let back = machine.run(&Frame::new(server_mac(1), DIRECTOR, answered).bytes()).expect("a verdict");
        let seen = talk.packet(service, client, tcp::SYN | tcp::ACK, &talk.reply).hop();
        let expected = Frame::new(DIRECTOR, ROUTER, seen).bytes();
        prop_assert_eq!(back.action, Action::Transmit);
        prop_assert!(back.frame == expected, "back: {}", compare(&back.frame, &expected));
        prop_assert!(verify(&back.frame).is_ok(), "back: {:?}", verify(&back.frame));
    });
}

/// Natively and in the kernel the same becomes of every packet of one long sequence, in which each leaves its mark.
#[test]
#[ignore = "needs root and the BPF object: cargo xtask test runs it"]
fn native_and_kernel_agree() {
    const FRAMES: u32 = 20_000;
    let seed: u64 = std::env::var("PACKET_SEED")
        .map(|seed| seed.parse().expect("PACKET_SEED is a number"))
        .unwrap_or(1);
    println!("PACKET_SEED={seed} repeats this sequence");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        TestRng::from_seed(RngAlgorithm::ChaCha, &bytes),
    );
    let object = paths::bpf_object("director-xdp.o").expect("the object is built");
    let mut kernel = Kernel::load(&object).expect("the kernel takes the object");
    let mut native = Native::new(&talkative());
    prepared(&mut kernel);
    prepared(&mut native);
    let frames = prop_oneof![
        1 => noise(),
        6 => damaged().prop_map(|(_, frame)| frame),
    ];
    let mut verdicts = std::collections::BTreeMap::new();
    for number in 0..FRAMES {
        let frame = frames.new_tree(&mut runner).expect("a frame").current();
        // What a test run takes.
        if frame.len() < 14 || frame.len() > LONGEST {
            continue;
        }
        let here = run_counted(&mut native, &frame);
        let there = run_counted(&mut kernel, &frame);
        let what = || format!("frame {number} of seed {seed}: {frame:02x?}");
        assert_eq!((here.0, &here.2), (there.0, &there.2), "{}", what());
        if here.0 != Action::Drop {
            assert!(
                here.1 == there.1,
                "{}: natively {}",
                what(),
                compare(&here.1, &there.1)
            );
        }
        if number % 1000 == 0 {
            let (here, there) = (native.connections(), kernel.connections());
            assert_eq!(
                here.expect("entries"),
                there.expect("entries"),
                "{}",
                what()
            );
        }
        *verdicts.entry(format!("{:?}", here.0)).or_insert(0) += 1;
    }
    println!("{verdicts:?}");
}
