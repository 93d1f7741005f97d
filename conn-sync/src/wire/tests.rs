//! Round trips, damage, keys, replays; of datagrams and of the bulk resync.

use std::net::{IpAddr, SocketAddr};

use proptest::collection::vec;
use proptest::prelude::*;
use xdp_ebpf::state::State;

use super::auth::{LONGEST, Window};
use super::bulk::{Client, Error, Event, NONCE, Output, Resume, Server};
use super::message::{Ask, Heard, HeardUpTo, Message, Range, Status, Update};
use super::{Header, Key, KeyError, Keyring, LONGEST_RECORD, Reject, entry, fuzz};
use crate::entry::{Entry, NodeName, Record, Template};
use crate::machine::limits::{PEERS, RANGES_PER_DATAGRAM, RECORDS_PER_FRAME};

fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn key(id: u8) -> Key {
    Key::new(id, &[id; 32]).unwrap()
}

fn header() -> Header {
    Header {
        node: name("lb1"),
        incarnation: 5,
        sequence: 1,
    }
}

fn entries() -> Vec<Record> {
    let endpoint = |text: &str| text.parse::<SocketAddr>().unwrap();
    let entry = |client, virtual_service, server| {
        Record::Entry(Entry {
            protocol: 6,
            client: endpoint(client),
            virtual_service: endpoint(virtual_service),
            server: endpoint(server),
            state: State::FinWait,
            idle_s: 77,
        })
    };
    let template = |virtual_service, client: &str, server, per_port| {
        Record::Template(Template {
            protocol: 17,
            virtual_service: endpoint(virtual_service),
            per_port,
            client: client.parse().unwrap(),
            server: endpoint(server),
            idle_s: 100_000,
        })
    };
    vec![
        entry("192.0.2.1:4711", "192.0.2.80:80", "198.51.100.1:8080"),
        entry("192.0.2.1:4711", "192.0.2.80:80", "[2001:db8::1]:0"),
        entry("[2001:db8::9]:1", "[2001:db8::80]:443", "198.51.100.1:8080"),
        entry("[2001:db8::9]:1", "[2001:db8::80]:443", "[2001:db8::1]:0"),
        template("192.0.2.80:80", "192.0.2.0", "198.51.100.1:0", true),
        template("[2001:db8::80]:80", "2001:db8::", "198.51.100.1:0", false),
    ]
}

fn heard_up_to() -> Vec<HeardUpTo> {
    let heard = |node, incarnation, number| HeardUpTo {
        node: name(node),
        incarnation,
        number,
    };
    vec![heard("lb2", 7, 0), heard("lb3", 9, u64::MAX)]
}

fn messages_by_hand() -> Vec<Message> {
    vec![
        Message::Update(Update {
            number: 9,
            heard: vec![],
            repairs: vec![(1, 3), (8, 8)],
            records: entries().into_iter().map(|it| (it, false)).collect(),
        }),
        Message::Update(Update {
            number: 10,
            heard: heard_up_to(),
            repairs: vec![(9, 9)],
            records: entries()
                .into_iter()
                .zip([false, true].into_iter().cycle())
                .collect(),
        }),
        Message::Status(Status {
            sent: 9,
            oldest: 1,
            backlog: 70_000,
            bulk_port: 8848,
            wants_bulk: true,
            peers: vec![Heard {
                node: name("lb2"),
                incarnation: 7,
                applied: 1000,
                missing: 3,
                is_synced: true,
            }],
        }),
        Message::Ask(Ask {
            node: name("lb2"),
            incarnation: 7,
            ranges: vec![(1, 1), (5, u64::MAX)],
        }),
    ]
}

#[test]
fn every_truncation_and_every_flipped_bit_is_detected() {
    for keyring in [Keyring::without_secret(), Keyring::new(key(1), []).unwrap()] {
        for message in messages_by_hand() {
            let bytes = keyring.seal(&header(), &message);
            assert_eq!(keyring.open(&bytes), Ok((header(), message)));
            for length in 0..bytes.len() {
                assert!(keyring.open(&bytes[..length]).is_err(), "{length} bytes");
            }
            for bit in 0..bytes.len() * 8 {
                let mut damaged = bytes.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(keyring.open(&damaged).is_err(), "bit {bit}");
            }
            let longer = [bytes.as_slice(), &[0; LONGEST]].concat();
            assert_eq!(keyring.open(&longer), Err(Reject::Long));
        }
    }
}

#[test]
fn every_truncation_behind_the_signature_is_detected() {
    for message in messages_by_hand() {
        let bytes = Keyring::without_secret().seal(&header(), &message);
        let signed = &bytes[..bytes.len() - 16];
        assert_eq!(super::auth::read(signed), Ok((header(), message)));
        for length in 0..signed.len() {
            let found = super::auth::read(&signed[..length]);
            assert_eq!(found, Err(Reject::Malformed), "{length} bytes");
        }
        let longer = [signed, &[0]].concat();
        assert_eq!(super::auth::read(&longer), Err(Reject::Malformed));
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let update = |number, repairs: &[Range]| {
        Message::Update(Update {
            number,
            repairs: repairs.to_vec(),
            ..Update::default()
        })
    };
    let ask = |range| {
        Message::Ask(Ask {
            node: name("lb2"),
            incarnation: 1,
            ranges: vec![range],
        })
    };
    let status = |sent, oldest| {
        Message::Status(Status {
            sent,
            oldest,
            ..Status::default()
        })
    };
    let cases = [
        (update(1, &[]), true),
        (update(0, &[]), false),
        (update(5, &[(4, 4)]), true),
        (update(5, &[(4, 5)]), false),
        (update(5, &[(0, 1)]), false),
        (update(u64::MAX, &[(u64::MAX, u64::MAX)]), false),
        (ask((1, 1)), true),
        (ask((0, 1)), false),
        (ask((2, 1)), false),
        (status(0, 1), true),
        (status(0, 2), false),
        (status(u64::MAX, u64::MAX), true),
    ];
    let keyring = Keyring::without_secret();
    for (message, is_possible) in cases {
        let found = keyring.open(&keyring.seal(&header(), &message));
        let expected = if is_possible {
            Ok((header(), message.clone()))
        } else {
            Err(Reject::Malformed)
        };
        assert_eq!(found, expected, "{message:?}");
    }
}

#[test]
fn an_ipv4_connection_is_small() {
    let mut longest = 0;
    for (number, record) in entries().iter().enumerate() {
        let mut bytes = Vec::new();
        entry::put(&mut bytes, record, false);
        assert_eq!(bytes.len(), entry::length(record), "{number}");
        longest = longest.max(bytes.len());
        assert!(number > 0 || bytes.len() <= 24);
    }
    assert_eq!(longest, LONGEST_RECORD);
}

#[test]
fn the_largest_status_and_question_fit_a_datagram() {
    let long = || name(&"x".repeat(32));
    let header = Header {
        node: long(),
        ..header()
    };
    let heard = Heard {
        node: long(),
        incarnation: 1,
        applied: 1,
        missing: 1,
        is_synced: true,
    };
    let status = Message::Status(Status {
        peers: vec![heard; PEERS],
        ..Status::default()
    });
    let ask = Message::Ask(Ask {
        node: long(),
        incarnation: 1,
        ranges: vec![(1, 2); RANGES_PER_DATAGRAM],
    });
    let shortest = *crate::machine::limits::DATAGRAM_BYTES.start();
    for message in [status, ask] {
        let bytes = Keyring::without_secret().seal(&header, &message);
        assert!(bytes.len() <= shortest, "{} bytes", bytes.len());
    }
}

#[test]
fn keys_change_while_all_nodes_run() {
    // Each step is taken on one node after the other; between them every two neighbours must understand each other.
    let steps = [
        Keyring::new(key(1), []).unwrap(),
        Keyring::new(key(1), [key(2)]).unwrap(),
        Keyring::new(key(2), [key(1)]).unwrap(),
        Keyring::new(key(2), []).unwrap(),
    ];
    let sent = (header(), messages_by_hand().remove(1));
    let seal = |keyring: &Keyring| keyring.seal(&sent.0, &sent.1);
    for pair in steps.windows(2) {
        assert_eq!(pair[0].open(&seal(&pair[1])), Ok(sent.clone()));
        assert_eq!(pair[1].open(&seal(&pair[0])), Ok(sent.clone()));
        for (one, other) in [(0, 1), (1, 0)] {
            assert!(converse(&pair[one], &pair[other]).is_ok());
        }
    }
    assert_eq!(steps[0].open(&seal(&steps[3])), Err(Reject::Key));
    assert_eq!(converse(&steps[0], &steps[3]), Err(Error::Key));
    for (at, one) in steps.iter().enumerate() {
        for (of, other) in steps.iter().enumerate() {
            assert_eq!(one.is_same(other), at == of, "{at} {of}");
        }
    }
    let other_secret = Key::new(1, &[77; 32]).unwrap();
    assert!(!steps[0].is_same(&Keyring::new(other_secret, []).unwrap()));
    let plain = Keyring::without_secret();
    assert_eq!(steps[0].open(&seal(&plain)), Err(Reject::Key));
    assert_eq!(converse(&steps[0], &plain), Err(Error::Key));
    let other_secret = Keyring::new(Key::new(1, &[9; 32]).unwrap(), []).unwrap();
    assert_eq!(steps[0].open(&seal(&other_secret)), Err(Reject::Signature));
    assert_eq!(converse(&steps[0], &other_secret), Err(Error::Signature));
}

/// A server with one keyring and a client with another: as far as they get.
fn converse(server: &Keyring, client: &Keyring) -> Result<Output, Error> {
    let (lb1, lb2) = ((name("lb1"), 5), (name("lb2"), 7));
    let (mut server, greeting) = Server::new(server, lb1.clone(), [1; NONCE]);
    let mut client = Client::new(client, lb2, lb1, None, [2; NONCE]);
    let hello = client.push(&greeting)?.send;
    server.push(&hello)?;
    client.push(&server.welcome(3, 0))
}

#[test]
fn bad_keys_are_refused() {
    assert_eq!(Key::new(0, &[1; 32]).unwrap_err(), KeyError::Id);
    assert_eq!(
        Key::new(1, &[1; 15]).unwrap_err(),
        KeyError::Length { found: 15 }
    );
    assert_eq!(
        Keyring::new(key(1), [key(1)]).unwrap_err(),
        KeyError::Twice(1)
    );
    let many = (2..=9).map(key);
    assert_eq!(
        Keyring::new(key(1), many).unwrap_err(),
        KeyError::TooMany(9)
    );
    assert!(!format!("{:?}", key(65)).contains("AAAA"));
}

#[test]
fn what_is_heard_twice_or_late_is_refused() {
    let cases = [
        (0, Err(Reject::Late)),
        (1, Ok(())),
        (1, Err(Reject::Replayed)),
        (4, Ok(())),
        (2, Ok(())),
        (3, Ok(())),
        (2, Err(Reject::Replayed)),
        (4, Err(Reject::Replayed)),
        (131, Ok(())),
        (3, Err(Reject::Late)),
        (4, Err(Reject::Replayed)),
        (5, Ok(())),
        (u64::MAX, Ok(())),
        (131, Err(Reject::Late)),
        (u64::MAX, Err(Reject::Replayed)),
    ];
    let mut window = Window::default();
    for (sequence, expected) in cases {
        assert_eq!(window.note(sequence), expected, "{sequence}");
    }
}

/// A whole conversation: what the server says after its greeting.
fn conversation(resume: Option<Resume>) -> (Client, Vec<Vec<u8>>, Vec<Event>) {
    let keyring = Keyring::new(key(1), []).unwrap();
    let (lb1, lb2) = ((name("lb1"), 5), (name("lb2"), 7));
    let (mut server, greeting) = Server::new(&keyring, lb1.clone(), [1; NONCE]);
    let mut client = Client::new(&keyring, lb2, lb1, resume, [2; NONCE]);
    let hello = client.push(&greeting).unwrap().send;
    let accepted = server.push(&hello).unwrap().unwrap();
    assert_eq!((accepted.node, accepted.incarnation), (name("lb2"), 7));
    let learned: Vec<_> = entries()
        .into_iter()
        .map(|record| (record, record.name() == entries()[0].name()))
        .collect();
    let frames = vec![
        server.welcome(3, 6),
        server.heard(&heard_up_to()),
        server.records(4, 17, &learned[..2]),
        server.records(5, 29, &learned[2..]),
        server.records(5, 30, &[]),
        server.end(),
    ];
    let records = |number, cursor, records: &[_]| Event::Records {
        number,
        cursor,
        records: records.to_vec(),
    };
    let events = vec![
        Event::Welcome {
            number: 3,
            cursor: accepted.cursor,
            about: 6,
        },
        Event::Heard(heard_up_to()),
        records(4, 17, &learned[..2]),
        records(5, 29, &learned[2..]),
        records(5, 30, &[]),
        Event::End,
    ];
    (client, frames, events)
}

#[test]
fn a_bulk_resync_in_pieces_of_every_size() {
    for size in 1..500 {
        let (mut client, frames, expected) = conversation(None);
        let mut events = Vec::new();
        for piece in frames.concat().chunks(size) {
            events.extend(client.push(piece).unwrap().events);
        }
        assert_eq!(events, expected, "in pieces of {size}");
    }
}

#[test]
fn a_bulk_resync_goes_on_where_it_was_in_the_same_start_only() {
    let cases = [(None, 0), (Some((5, 17)), 17), (Some((4, 17)), 0)];
    for (resume, expected) in cases {
        let resume = resume.map(|(incarnation, cursor)| Resume {
            incarnation,
            cursor,
        });
        let (mut client, frames, _) = conversation(resume);
        let events = client.push(&frames[0]).unwrap().events;
        let expected = Event::Welcome {
            number: 3,
            cursor: expected,
            about: 6,
        };
        assert_eq!(events, [expected]);
    }
}

#[test]
fn damage_to_a_bulk_resync_is_detected() {
    let (_, frames, events) = conversation(None);
    let whole = frames.concat();
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let (mut client, ..) = conversation(None);
        // A length that became longer waits for more, which never comes.
        let found = client.push(&damaged).map(|output| output.events);
        assert_ne!(found, Ok(events.clone()), "bit {bit}");
    }
    for length in 0..whole.len() {
        let (mut client, ..) = conversation(None);
        let found = client.push(&whole[..length]).unwrap().events;
        assert!(events.starts_with(&found) && found.len() < events.len());
    }
    // Frames of the same conversation: lost, twice, in another order, of another conversation.
    let order = |found, expected| Err(Error::Order { found, expected });
    let check = |frames: &[&Vec<u8>], expected: Result<(), Error>| {
        let (mut client, ..) = conversation(None);
        let mut found = Ok(());
        for frame in frames {
            found = found.and_then(|()| client.push(frame).map(|_| ()));
        }
        assert_eq!(found, expected);
    };
    let [welcome, heard, first, second, none, end] = &frames[..] else {
        panic!("six frames");
    };
    check(&[welcome, heard, first, second, none, end], Ok(()));
    check(&[welcome, first], order(2, 1));
    check(&[welcome, heard, heard], order(1, 2));
    check(&[heard, welcome], order(1, 0));
    check(
        &[welcome, heard, first, second, none, end, end],
        Err(Error::Turn),
    );
    let (lb1, lb2) = ((name("lb1"), 5), (name("lb2"), 7));
    let keyring = Keyring::new(key(1), []).unwrap();
    let mut client = Client::new(&keyring, lb2.clone(), lb1.clone(), None, [3; NONCE]);
    let (_, greeting) = Server::new(&keyring, lb1.clone(), [1; NONCE]);
    client.push(&greeting).unwrap();
    assert_eq!(client.push(welcome), Err(Error::Signature));
    // The server was started anew.
    let mut client = Client::new(&keyring, lb2, (lb1.0, 6), None, [2; NONCE]);
    client.push(&greeting).unwrap();
    assert_eq!(client.push(welcome), Err(Error::Peer));
}

#[test]
fn a_recorded_hello_is_refused() {
    let keyring = Keyring::new(key(1), []).unwrap();
    let (lb1, lb2) = ((name("lb1"), 5), (name("lb2"), 7));
    let (mut server, greeting) = Server::new(&keyring, lb1.clone(), [1; NONCE]);
    let mut client = Client::new(&keyring, lb2, lb1.clone(), None, [2; NONCE]);
    let hello = client.push(&greeting).unwrap().send;
    for length in 0..hello.len() {
        let (mut server, _) = Server::new(&keyring, lb1.clone(), [1; NONCE]);
        assert_eq!(server.push(&hello[..length]), Ok(None), "{length} bytes");
        assert!(server.push(&hello[length..]).unwrap().is_some());
    }
    for bit in 0..hello.len() * 8 {
        let mut damaged = hello.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let (mut server, _) = Server::new(&keyring, lb1.clone(), [1; NONCE]);
        assert!(!matches!(server.push(&damaged), Ok(Some(_))), "bit {bit}");
    }
    assert!(server.push(&hello).unwrap().is_some());
    assert_eq!(server.push(&hello), Err(Error::Turn));
    let (mut other, _) = Server::new(&keyring, lb1, [9; NONCE]);
    assert_eq!(other.push(&hello), Err(Error::Signature));
    // Without a hello nothing is sent.
    assert_eq!(other.welcome(1, 1), Vec::<u8>::new());
}

#[test]
fn records_that_did_not_all_come_are_noticed() {
    let keyring = Keyring::without_secret();
    let (lb1, lb2) = ((name("lb1"), 5), (name("lb2"), 7));
    let (mut server, greeting) = Server::new(&keyring, lb1.clone(), [1; NONCE]);
    let mut client = Client::new(&keyring, lb2, lb1, None, [2; NONCE]);
    server.push(&client.push(&greeting).unwrap().send).unwrap();
    client.push(&server.welcome(3, 0)).unwrap();
    let body = [3_u64.to_be_bytes(), 1_u64.to_be_bytes()].concat();
    let expected = Error::Total {
        found: 0,
        expected: 1,
    };
    assert_eq!(client.push(&server.seal(3, &body)), Err(expected));
    // No frame can be so long that it fills the memory.
    let long = Error::Long(u32::MAX);
    assert_eq!(client.push(&[0xff; 4]), Err(long));
}

fn endpoints(is_ipv4: bool) -> impl Strategy<Value = SocketAddr> {
    (addresses(is_ipv4), any::<u16>()).prop_map(SocketAddr::from)
}

fn addresses(is_ipv4: bool) -> impl Strategy<Value = IpAddr> {
    any::<[u8; 16]>().prop_map(move |bytes| {
        if is_ipv4 {
            IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]])
        } else {
            IpAddr::from(bytes)
        }
    })
}

fn records() -> impl Strategy<Value = Record> {
    (any::<bool>(), any::<bool>()).prop_flat_map(|(client, server)| {
        let about = (any::<u8>(), any::<bool>(), any::<bool>(), 1_u8..9);
        let idle = (any::<u16>(), any::<u32>());
        let endpoints = (endpoints(client), endpoints(client), endpoints(server));
        (about, idle, endpoints).prop_map(
            |((protocol, is_entry, per_port, state), idle, (client, virtual_service, server))| {
                if is_entry {
                    Record::Entry(Entry {
                        protocol,
                        client,
                        virtual_service,
                        server,
                        state: State::from_u8(state).unwrap(),
                        idle_s: idle.0,
                    })
                } else {
                    Record::Template(Template {
                        protocol,
                        virtual_service,
                        per_port,
                        client: client.ip(),
                        server,
                        idle_s: idle.1,
                    })
                }
            },
        )
    })
}

fn ranges(below: u64) -> impl Strategy<Value = Vec<Range>> {
    let range = (1..below, 0..=u64::from(u16::MAX));
    let range = range.prop_map(move |(first, further)| (first, (first + further).min(below - 1)));
    vec(range, 0..=RANGES_PER_DATAGRAM)
}

fn headers() -> impl Strategy<Value = Header> {
    ("[a-zä]{1,16}", any::<u64>(), any::<u64>()).prop_map(|(node, incarnation, sequence)| Header {
        node: name(&node),
        incarnation,
        sequence,
    })
}

fn messages() -> impl Strategy<Value = Message> {
    let update = (2..u64::MAX / 2).prop_flat_map(|number| {
        let up_to = ("[a-z]{1,32}", any::<(u64, u64)>());
        let up_to = up_to.prop_map(|(node, (incarnation, number))| HeardUpTo {
            node: name(&node),
            incarnation,
            number,
        });
        let records = vec((records(), any::<bool>()), 0..40);
        (vec(up_to, 0..=PEERS), ranges(number), records).prop_map(
            move |(heard, repairs, records)| {
                Message::Update(Update {
                    number,
                    heard,
                    repairs,
                    records,
                })
            },
        )
    });
    let heard = ("[a-z]{1,32}", any::<(u64, u64, u32, bool)>());
    let heard = heard.prop_map(|(node, (incarnation, applied, missing, is_synced))| Heard {
        node: name(&node),
        incarnation,
        applied,
        missing,
        is_synced,
    });
    let numbers = any::<(u64, u64, u32, u16, bool)>();
    let status = (numbers, vec(heard, 0..=PEERS)).prop_map(
        |((one, other, backlog, bulk_port, wants_bulk), peers)| {
            Message::Status(Status {
                sent: one.max(other),
                oldest: one.min(other),
                backlog,
                bulk_port,
                wants_bulk,
                peers,
            })
        },
    );
    let ask =
        ("[a-z]{1,32}", any::<u64>(), ranges(u64::MAX)).prop_map(|(node, incarnation, ranges)| {
            Message::Ask(Ask {
                node: name(&node),
                incarnation,
                ranges,
            })
        });
    prop_oneof![update, status, ask]
}

proptest! {
    #[test]
    fn written_and_read_again(header in headers(), message in messages()) {
        let keyring = Keyring::new(key(3), []).unwrap();
        let bytes = keyring.seal(&header, &message);
        prop_assert_eq!(keyring.open(&bytes), Ok((header, message)));
    }

    #[test]
    fn a_bulk_resync_of_anything(walk in vec((any::<u64>(), vec((records(), any::<bool>()), 0..50)), 0..8)) {
        let keyring = Keyring::without_secret();
        let (lb1, lb2) = ((name("lb1"), 5), (name("lb2"), 7));
        let (mut server, greeting) = Server::new(&keyring, lb1.clone(), [1; NONCE]);
        let mut client = Client::new(&keyring, lb2, lb1, None, [2; NONCE]);
        server.push(&client.push(&greeting).unwrap().send).unwrap();
        client.push(&server.welcome(3, 0)).unwrap();
        for (number, records) in walk {
            let events = client.push(&server.records(number, number / 2, &records)).unwrap().events;
            let expected = Event::Records { number, cursor: number / 2, records };
            prop_assert_eq!(events, vec![expected]);
        }
        prop_assert_eq!(client.push(&server.end()).unwrap().events, vec![Event::End]);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, kind in 0_u8..5, cut in 0_usize..100) {
        fuzz::datagram(&bytes);
        // As far as the body.
        let start = [&b"DS\x01"[..], &[kind, 0, 1, b'x'], &[0; 15], &[1]].concat();
        fuzz::datagram(&[&start, bytes.as_slice()].concat());
        fuzz::bulk(&bytes, cut);
        fuzz::bulk(&[b"DSB\x02", bytes.as_slice()].concat(), cut);
    }

    #[test]
    fn damaged_messages_are_read_as_the_encoder_would_write_them(
        message in messages(), at: prop::sample::Index, byte: u8
    ) {
        let mut bytes = Keyring::without_secret().seal(&header(), &message);
        bytes.truncate(bytes.len() - 16);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        fuzz::datagram(&bytes);
    }
}

#[test]
fn a_frame_holds_as_many_records_as_allowed() {
    let keyring = Keyring::without_secret();
    let (lb1, lb2) = ((name("lb1"), 5), (name("lb2"), 7));
    let (mut server, greeting) = Server::new(&keyring, lb1.clone(), [1; NONCE]);
    let mut client = Client::new(&keyring, lb2, lb1, None, [2; NONCE]);
    server.push(&client.push(&greeting).unwrap().send).unwrap();
    client.push(&server.welcome(3, 0)).unwrap();
    // All in IPv6; and one more, which is left out.
    let records = vec![(entries()[3], false); RECORDS_PER_FRAME + 1];
    let events = client.push(&server.records(3, 1, &records)).unwrap().events;
    let [Event::Records { records, .. }] = &events[..] else {
        panic!("one frame of records, not {events:?}");
    };
    assert_eq!(records.len(), RECORDS_PER_FRAME);
}
