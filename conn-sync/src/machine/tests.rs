//! The machine's rules, case by case. What they come to together, the simulator shows.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use xdp_ebpf::state::State;

use super::limits::{HISTORY, LIVE_NAMES, PEERS, STATUS_EVERY};
use super::sender::Sender;
use super::stream::{Fate, Stream};
use super::walk::Bulk;
use super::{Action, Class, Config, Found, Machine, PeerState, Readiness, SessionId, To};
use crate::entry::{Entry, How, NodeName, Record};
use crate::wire::bulk::Event;
use crate::wire::message::{Heard, HeardUpTo, Message, Range, Status, Update};
use crate::wire::{Header, Keyring, Reject};

mod second_hand;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn record(client: u16) -> Record {
    Record::Entry(Entry {
        protocol: 6,
        client: (Ipv4Addr::new(192, 0, 2, 1), client).into(),
        virtual_service: (Ipv4Addr::new(192, 0, 2, 2), 80).into(),
        server: (Ipv4Addr::new(192, 0, 2, 3), 80).into(),
        state: State::Established,
        idle_s: 0,
    })
}

fn records(clients: impl IntoIterator<Item = u16>) -> Vec<(u16, Record)> {
    let clients = clients.into_iter();
    clients.map(|client| (client, record(client))).collect()
}

fn config() -> Config {
    Config {
        node: name("lb1"),
        incarnation: 5,
        datagram_bytes: 1452,
        listed: vec![],
        records_per_second: 4000,
        bulk_port: 8849,
        alone_after: ms(5000),
        ready_after: Some(ms(60_000)),
        aside_records: 10,
        aside_for: ms(60_000),
    }
}

fn update(number: u64, repairs: &[(u64, u64)]) -> Update {
    Update {
        number,
        repairs: repairs.to_vec(),
        ..Update::default()
    }
}

#[test]
fn updates_are_applied_in_the_order_of_their_numbers() {
    use Fate::{Applied, Known, Overtaken};
    let cases = [
        // Number, what it repairs; its fate, how many are missing, the last one before the first missing.
        (1, &[][..], Applied, 0, 1),
        (1, &[], Known, 0, 1),
        (4, &[], Applied, 2, 1),
        (2, &[], Overtaken, 2, 1),
        (2, &[], Overtaken, 2, 1),
        (5, &[(3, 3)], Applied, 1, 1),
        (3, &[], Known, 1, 1),
        // What comes too late repairs nothing.
        (8, &[], Applied, 3, 1),
        (6, &[(2, 2)], Overtaken, 3, 1),
        (9, &[(2, 2), (6, 7)], Applied, 0, 9),
        (7, &[], Known, 0, 9),
        // Repairs for others.
        (10, &[(1, 8)], Applied, 0, 10),
    ];
    let mut stream = Stream::default();
    for (number, repairs, fate, missing, applied) in cases {
        assert_eq!(
            stream.on_update(&update(number, repairs), ms(0)),
            fate,
            "{number}"
        );
        assert_eq!(stream.gaps.count(), missing, "{number}");
        assert_eq!(stream.applied(), applied, "{number}");
        assert_eq!(stream.is_whole(), missing == 0, "{number}");
    }
}

#[test]
fn the_last_updates_are_missed_too() {
    let mut stream = Stream::default();
    stream.on_update(&update(1, &[]), ms(0));
    // The status has overtaken them.
    stream.on_told(3, ms(10));
    assert!(!stream.is_whole());
    assert_eq!(stream.on_update(&update(2, &[]), ms(20)), Fate::Applied);
    assert_eq!(stream.ask(ms(20)), None);
    stream.check_told(ms(59));
    assert_eq!(stream.gaps.count(), 0);
    assert_eq!(stream.deadline(), Some(ms(60)));
    stream.check_told(ms(60));
    assert_eq!(stream.ask(ms(65)), Some(vec![(3, 3)]));
    assert_eq!(stream.on_update(&update(3, &[]), ms(66)), Fate::Overtaken);
    assert_eq!(
        stream.on_update(&update(4, &[(3, 3)]), ms(67)),
        Fate::Applied
    );
    assert!(stream.is_whole());
}

#[test]
fn urgent_classes_have_room_when_others_have_none() {
    let mut sender = Sender::<u16>::new(&config(), ms(0));
    let budgets = |sender: &mut Sender<u16>, now| {
        [Class::New, Class::Change, Class::Refresh].map(|class| sender.budget(class, now))
    };
    assert_eq!(budgets(&mut sender, ms(0)), [875, 750, 500]);
    sender.send(Class::Refresh, records(0..500), ms(0));
    assert_eq!(budgets(&mut sender, ms(0)), [500, 250, 0]);
    sender.send(Class::New, records(0..500), ms(0));
    assert_eq!(budgets(&mut sender, ms(0)), [0, 0, 0]);
    assert_eq!(budgets(&mut sender, ms(100)), [350, 150, 50]);
    assert_eq!(budgets(&mut sender, ms(10_000)), [875, 750, 500]);
}

/// Whoever is in use would be forgotten by peers while others begin and end without a pause.
#[test]
fn refreshes_have_their_share_whatever_else_is_told() {
    let per_second = u64::from(config().records_per_second);
    for classes in [
        &[Class::New][..],
        &[Class::Change],
        &[Class::New, Class::Change],
    ] {
        let mut sender = Sender::<u16>::new(&config(), ms(0));
        let (mut all, mut refreshes) = (0, 0);
        for pass in 1..=250 {
            let now = ms(pass * 40);
            for class in classes.iter().copied().chain([Class::Refresh]) {
                let room = sender.budget(class, now);
                sender.send(class, records(0..room as u16), now);
                all += room as u64;
                refreshes += if class == Class::Refresh {
                    room as u64
                } else {
                    0
                };
            }
        }
        // Of ten seconds, and what the bucket held.
        assert!(
            all <= per_second * 10 + per_second / 4,
            "{classes:?}: {all}"
        );
        assert!(all >= per_second * 9, "{classes:?}: {all}");
        assert!(refreshes >= per_second * 9 / 8, "{classes:?}: {refreshes}");
    }
}

/// Numbers and counts of records of updates, and what they repair.
fn told(updates: &[Update]) -> Vec<(u64, usize, Vec<Range>)> {
    let updates = updates.iter();
    let told = updates.map(|update| (update.number, update.records.len(), update.repairs.clone()));
    told.collect()
}

#[test]
fn a_repair_is_what_the_table_holds_now_once() {
    let mut sender = Sender::<u16>::new(&config(), ms(0));
    // 63 records to a datagram.
    let sent = sender.send(Class::New, records(0..150), ms(0));
    assert_eq!(
        told(&sent),
        [(1, 63, vec![]), (2, 63, vec![]), (3, 24, vec![])]
    );
    // The first ten change.
    let sent = sender.send(Class::Change, records(0..10), ms(1));
    assert_eq!(told(&sent), [(4, 10, vec![])]);
    sender.ask(&[(1, 2), (4, 900)], ms(10));
    sender.ask(&[(1, 1)], ms(11));
    let actions = sender.repair(ms(12));
    let [Action::LookUp { token, handles }] = &actions[..] else {
        panic!("one look-up, not {actions:?}");
    };
    // Those in update 4 go with that one.
    let expected: Vec<u16> = (10..126).chain(0..10).collect();
    assert_eq!(handles, &expected);
    assert_eq!(sender.repair(ms(12)), []);
    // Asked for by another one, meanwhile.
    sender.ask(&[(1, 4)], ms(13));
    let only_third = sender.repair(ms(13));
    let [Action::LookUp { handles: third, .. }] = &only_third[..] else {
        panic!("one look-up, not {only_third:?}");
    };
    assert_eq!(third, &(126..150).collect::<Vec<_>>());
    // Two are gone.
    let found = handles.iter().filter(|handle| **handle > 11);
    let found = found.map(|handle| Found {
        handle: *handle,
        record: record(*handle),
        is_learned: false,
    });
    let sent = sender.looked_up(*token, found.collect(), &[], ms(14));
    let [first, second] = &sent[..] else {
        panic!("two updates, not {:?}", told(&sent));
    };
    // An update is named where its last record is, and after it.
    assert_eq!((first.number, first.repairs.clone()), (5, vec![(1, 1)]));
    assert_eq!(
        (second.number, second.repairs.clone()),
        (6, vec![(2, 2), (4, 4)])
    );
    assert_eq!(first.records.len() + second.records.len(), 114);
    // An answer that comes twice, or too late, is none.
    assert_eq!(sender.looked_up(*token, vec![], &[], ms(15)), []);
    assert_eq!(sender.repair(ms(2000)), []);
}

#[test]
fn what_is_forgotten_is_told() {
    let mut sender = Sender::<u16>::new(&config(), ms(0));
    assert_eq!(sender.oldest(), 1);
    for number in 0..HISTORY + 10 {
        sender.send(Class::New, records([number as u16]), ms(0));
    }
    assert_eq!(sender.oldest(), 11);
    sender.ask(&[(1, 10)], ms(0));
    assert_eq!(sender.repair(ms(0)), []);
    sender.ask(&[(1, 11)], ms(0));
    assert_eq!(sender.repair(ms(0)).len(), 1);
    assert_eq!(sender.records_after(sender.number() - 3), 3);
}

#[test]
fn live_news_win_over_a_walk_that_began_before_them() {
    let mut bulk = Bulk::due(ms(0));
    let brought = |bulk: &mut Bulk, number, client| {
        assert!(bulk.on_live(number, [record(client)].iter()));
    };
    // Before the connection is asked for, nothing is remembered: a walk begins later.
    brought(&mut bulk, 1, 1);
    bulk.start(SessionId(1), ms(0));
    brought(&mut bulk, 2, 2);
    brought(&mut bulk, 3, 3);
    // The walk began after update 2.
    assert!(bulk.welcome(2, 0, 5));
    brought(&mut bulk, 4, 4);
    let all: Vec<_> = (1..=5).map(|client| (record(client), false)).collect();
    let expected: Vec<_> = [1, 2, 5].map(|client| (record(client), false)).into();
    assert_eq!(bulk.records(2, 9, all.clone()), expected);
    // It goes on: what live updates brought in between counts too.
    bulk.lost(ms(1));
    brought(&mut bulk, 5, 5);
    assert_eq!(bulk.cursor(), Some(9));
    bulk.start(SessionId(2), ms(2));
    assert!(!bulk.welcome(5, 9, 5));
    let expected: Vec<_> = [1, 2].map(|client| (record(client), false)).into();
    assert_eq!(bulk.records(2, 10, all.clone()), expected);
    // What was read after an update was sent is as new as that.
    let expected: Vec<_> = [1, 2, 3, 4].map(|client| (record(client), false)).into();
    assert_eq!(bulk.records(4, 11, all.clone()), expected);
    // The peer does not know the place any more.
    bulk.lost(ms(3));
    bulk.start(SessionId(3), ms(4));
    assert!(bulk.welcome(5, 0, 5));
    assert_eq!(bulk.records(5, 10, all.clone()), all);
    bulk.end(ms(5));
    assert!(bulk.is_done());
}

#[test]
fn more_live_news_than_can_be_remembered_end_a_walk() {
    let mut bulk = Bulk::due(ms(0));
    bulk.start(SessionId(1), ms(0));
    bulk.welcome(0, 0, 0);
    let name = |number: usize| {
        let Record::Entry(mut entry) = record(number as u16) else {
            unreachable!("a connection");
        };
        entry
            .client
            .set_ip(Ipv4Addr::from((number >> 16) as u32).into());
        Record::Entry(entry)
    };
    let all: Vec<_> = (0..LIVE_NAMES).map(name).collect();
    assert!(bulk.on_live(1, all.iter()));
    assert!(bulk.on_live(2, all.iter()));
    assert!(!bulk.on_live(3, [name(LIVE_NAMES)].iter()));
    // A walk that keeps up with them goes on, however many there are.
    let mut bulk = Bulk::due(ms(0));
    bulk.start(SessionId(1), ms(0));
    bulk.welcome(0, 0, 0);
    for round in 1..=10 {
        let names: Vec<_> = (0..LIVE_NAMES / 4)
            .map(|number| name(round * LIVE_NAMES + number))
            .collect();
        assert!(bulk.on_live(round as u64, names.iter()), "{round}");
        bulk.records(round as u64, round as u64, vec![]);
    }
}

/// A peer of the machine under test.
struct Peer {
    name: &'static str,
    incarnation: u64,
    sequence: u64,
}

const OWN: (&str, u64) = ("lb1", 5);

impl Peer {
    fn new(name: &'static str, incarnation: u64) -> Self {
        Self {
            name,
            incarnation,
            sequence: 0,
        }
    }

    fn address() -> SocketAddr {
        (Ipv4Addr::new(192, 0, 2, 9), 8848).into()
    }

    fn bytes(&mut self, message: Message) -> Vec<u8> {
        self.sequence += 1;
        let header = Header {
            node: name(self.name),
            incarnation: self.incarnation,
            sequence: self.sequence,
        };
        Keyring::without_secret().seal(&header, &message)
    }

    /// A status; it hears this start of a node.
    fn status(&mut self, sent: u64, hears: Option<(&str, u64)>) -> Vec<u8> {
        let heard = hears.map(|(node, incarnation)| Heard {
            node: name(node),
            incarnation,
            applied: 0,
            missing: 0,
            is_synced: false,
        });
        self.bytes(Message::Status(Status {
            sent,
            oldest: 1,
            bulk_port: 8849,
            peers: heard.into_iter().collect(),
            ..Status::default()
        }))
    }

    fn update(&mut self, number: u64, clients: &[u16]) -> Vec<u8> {
        let clients = clients.iter();
        self.bytes(Message::Update(Update {
            number,
            records: clients.map(|client| (record(*client), false)).collect(),
            ..Update::default()
        }))
    }
}

fn machine() -> Machine<u16> {
    Machine::new(config(), Keyring::without_secret(), ms(0))
}

/// What is applied, and in which bulk sessions something is asked for.
fn seen(actions: &[Action<u16>]) -> (Vec<(How, usize)>, Vec<SessionId>) {
    let (mut applied, mut sessions) = (Vec::new(), Vec::new());
    for action in actions {
        match action {
            Action::Apply { how, entries, .. } => applied.push((*how, entries.len())),
            Action::StartBulk { session, .. } => sessions.push(*session),
            Action::Send { .. }
            | Action::LookUp { .. }
            | Action::StopBulk { .. }
            | Action::Warn(_) => {}
        }
    }
    (applied, sessions)
}

#[test]
fn a_peer_is_believed_once_it_hears_this_start_of_this_node() {
    let mut machine = machine();
    let mut peer = Peer::new("lb2", 7);
    let hear = |machine: &mut Machine<u16>, bytes: Vec<u8>| {
        seen(&machine.on_datagram(Peer::address(), &bytes, ms(1)))
    };
    let nothing = (vec![], vec![]);
    assert_eq!(hear(&mut machine, peer.update(1, &[1])), nothing);
    for hears in [None, Some(("lb1", 4)), Some(("lb3", 5))] {
        assert_eq!(hear(&mut machine, peer.status(1, hears)), nothing);
        assert_eq!(hear(&mut machine, peer.update(2, &[1])), nothing);
    }
    let state = |machine: &Machine<u16>| machine.report(ms(2)).peers[0].state;
    assert_eq!(state(&machine), PeerState::OneWay);
    let believed = hear(&mut machine, peer.status(2, Some(OWN)));
    assert_eq!(believed, (vec![], vec![SessionId(1)]));
    assert_eq!(state(&machine), PeerState::Waiting);
    let applied = hear(&mut machine, peer.update(3, &[1, 2]));
    assert_eq!(applied, (vec![(How::Live, 2)], vec![]));
    assert_eq!(machine.report(ms(2)).early, 4);
    // It was started anew, and an earlier start of it comes too late.
    let old = peer.update(4, &[1]);
    let mut again = Peer::new("lb2", 8);
    assert_eq!(hear(&mut machine, again.update(1, &[1])), nothing);
    assert_eq!(hear(&mut machine, old), nothing);
    assert_eq!(state(&machine), PeerState::OneWay);
    let refused = machine.report(ms(2)).refused;
    assert_eq!(
        (refused.len(), refused[0].reason, refused[0].datagrams),
        (1, Reject::Old, 1)
    );
}

#[test]
fn datagrams_that_are_refused() {
    let mut machine = machine();
    let mut peer = Peer::new("lb2", 7);
    let first = peer.status(0, Some(OWN));
    let mut check = |bytes: &[u8], reason: Option<Reject>| {
        let counts = |machine: &Machine<u16>| {
            let refused = machine.report(ms(1)).refused;
            let count = |reason| {
                let of = refused.iter().find(|it| it.reason == reason);
                of.map_or(0, |it| it.datagrams)
            };
            Reject::ALL.map(count)
        };
        let before = counts(&machine);
        machine.on_datagram(Peer::address(), bytes, ms(1));
        let counts = Reject::ALL.into_iter().zip(before).zip(counts(&machine));
        let counted = counts.filter(|((_, before), after)| before != after);
        let counted: Vec<_> = counted.map(|((reason, _), _)| reason).collect();
        assert_eq!(counted, reason.into_iter().collect::<Vec<_>>());
    };
    check(&first, None);
    check(&first, Some(Reject::Replayed));
    check(b"?", Some(Reject::Short));
    check(&Peer::new("lb1", 5).status(0, None), Some(Reject::Own));
    check(&Peer::new("lb1", 6).status(0, None), Some(Reject::SameName));
    check(&Peer::new("lb2", 6).status(0, None), Some(Reject::Old));
    let names = [
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o",
    ];
    for name in names {
        check(&Peer::new(name, 1).status(0, Some(OWN)), None);
    }
    assert_eq!(names.len() + 1, PEERS);
    check(&Peer::new("p", 1).status(0, None), Some(Reject::Peers));
}

/// Made-up names, or recorded ones, keep nobody out who lives; and nobody who lives gives way to them.
#[test]
fn forged_names_lock_nobody_out() {
    const NAMES: [&str; 20] = [
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r",
        "s", "t",
    ];
    let mut machine = machine();
    let mut first = Peer::new("lb2", 7);
    let mut second = Peer::new("lb3", 7);
    machine.on_datagram(Peer::address(), &first.status(0, Some(OWN)), ms(0));
    machine.on_bulk(SessionId(1), Event::End, ms(0));
    for (round, name) in (1..).zip(NAMES.iter().cycle().take(200)) {
        let mut forged = Peer::new(name, round);
        machine.on_datagram(Peer::address(), &forged.status(0, None), ms(round));
        if round == 100 {
            let hears =
                machine.on_datagram(Peer::address(), &second.status(0, Some(OWN)), ms(round));
            assert_eq!(seen(&hears).1.len(), 1, "its full sync begins");
        }
    }
    let report = machine.report(ms(200));
    assert_eq!(report.peers.len(), PEERS);
    let known = |name: &str| report.peers.iter().any(|it| it.node.as_str() == name);
    assert!(known("lb2") && known("lb3"), "{report:?}");
    assert!(report.refused.is_empty(), "{:?}", report.refused);
    let applied = machine.on_datagram(Peer::address(), &second.update(1, &[1]), ms(201));
    assert_eq!(seen(&applied).0, [(How::Live, 1)]);
}

/// Where peers are listed, nobody else is believed, whatever he knows.
#[test]
fn only_listed_peers_are_heard() {
    let unlisted: SocketAddr = "192.0.2.8:8849".parse().unwrap();
    let mapped = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 9).to_ipv6_mapped().into(), 8849);
    // (listed, from, heard)
    let cases = [
        (vec![], unlisted, true),
        (vec!["192.0.2.9"], unlisted, false),
        (vec!["192.0.2.9"], Peer::address(), true),
        (vec!["192.0.2.9"], mapped, true),
        (vec!["fe80::9", "192.0.2.7"], Peer::address(), false),
        (vec!["fe80::9"], "[fe80::9%3]:8849".parse().unwrap(), true),
    ];
    for (listed, from, expected) in cases {
        let config = Config {
            listed: listed.iter().map(|it| it.parse().unwrap()).collect(),
            ..config()
        };
        let mut machine: Machine<u16> = Machine::new(config, Keyring::without_secret(), ms(0));
        let status = Peer::new("lb2", 7).status(0, Some(OWN));
        let actions = machine.on_datagram(from, &status, ms(1));
        assert_eq!(
            seen(&actions).1.len(),
            usize::from(expected),
            "{listed:?} {from}"
        );
        let refused = machine.report(ms(1)).refused;
        let reasons: Vec<_> = refused.iter().map(|it| (it.reason, it.last_from)).collect();
        let expected_reasons = (!expected).then_some((Reject::Unlisted, from));
        assert_eq!(reasons, expected_reasons.into_iter().collect::<Vec<_>>());
        let is_told = actions.iter().any(|it| matches!(it, Action::Warn(_)));
        assert_eq!(is_told, !expected, "{listed:?} {from}");
    }
}

/// A recording of a peer, however long, keeps a node waiting for ten seconds.
#[test]
fn who_never_says_that_he_hears_this_node_is_not_waited_for_for_ever() {
    let mut machine = machine();
    let mut at = |now_s: u64, bytes: &[u8]| {
        machine.on_datagram(Peer::address(), bytes, ms(now_s * 1000));
        machine.readiness(ms(now_s * 1000))
    };
    for now_s in 0..30 {
        // Starts of it one after the other, too.
        let mut recorded = Peer::new("lb2", 7 + now_s / 5);
        recorded.sequence = now_s;
        let expected = if now_s < 10 {
            Readiness::Waiting
        } else {
            Readiness::Limit
        };
        assert_eq!(
            at(now_s, &recorded.status(9, Some(("lb1", 4)))),
            expected,
            "{now_s} s"
        );
    }
    // One that lives comes too, and is waited for.
    let mut living = Peer::new("lb3", 1);
    assert_eq!(at(30, &living.status(0, Some(OWN))), Readiness::Waiting);
    // And the recorded one turns up itself.
    let mut itself = Peer::new("lb2", 50);
    assert_eq!(at(31, &itself.status(0, None)), Readiness::Waiting);
    assert_eq!(at(31, &itself.status(0, Some(OWN))), Readiness::Waiting);
}

#[test]
fn synced_alone_or_at_the_limit() {
    // Without anybody.
    let mut machine = machine();
    assert_eq!(machine.readiness(ms(4999)), Readiness::Waiting);
    assert_eq!(machine.readiness(ms(5000)), Readiness::Alone);
    // With a peer that does not get on.
    let mut peer = Peer::new("lb2", 7);
    machine.on_datagram(Peer::address(), &peer.status(0, None), ms(58_000));
    assert_eq!(machine.readiness(ms(59_999)), Readiness::Waiting);
    assert_eq!(machine.readiness(ms(60_000)), Readiness::Limit);
    // Filled.
    let now = ms(60_500);
    machine.on_datagram(Peer::address(), &peer.status(4, Some(OWN)), now);
    let session = SessionId(1);
    let welcome = Event::Welcome {
        number: 4,
        cursor: 0,
        about: 2,
    };
    let part = Event::Records {
        number: 6,
        cursor: 1,
        records: vec![(record(1), false), (record(2), true)],
    };
    assert_eq!(machine.on_bulk(session, welcome.clone(), now), []);
    let state = |machine: &Machine<u16>| machine.report(now).peers[0].state;
    let (received, about) = (0, 2);
    assert_eq!(state(&machine), PeerState::Syncing { received, about });
    let actions = machine.on_bulk(session, part, now);
    assert_eq!(seen(&actions).0, [(How::Bulk, 1), (How::SecondHand, 1)]);
    machine.on_bulk(session, Event::End, now);
    // Updates 5 and 6 were overtaken by what the walk read.
    assert_eq!(state(&machine), PeerState::Repairing { missing: 2 });
    assert_eq!(machine.readiness(now), Readiness::Limit);
    let repair = peer.bytes(Message::Update(update(7, &[(5, 6)])));
    machine.on_datagram(Peer::address(), &repair, now);
    assert_eq!(state(&machine), PeerState::Synced);
    assert_eq!(machine.readiness(now), Readiness::Synced);
    // It falls silent: what it has by now nobody knows, and after a while nothing more is to be had.
    machine.config.ready_after = None;
    for (after_ms, expected) in [
        (2999, Readiness::Synced),
        (3000, Readiness::Waiting),
        (4999, Readiness::Waiting),
        (5000, Readiness::Alone),
        (9500, Readiness::Alone),
    ] {
        let is = machine.readiness(now + ms(after_ms));
        assert_eq!(is, expected, "{after_ms} ms");
    }
    // It is heard again, and has told two updates meanwhile.
    let back = ms(70_000);
    machine.on_datagram(Peer::address(), &peer.status(9, Some(OWN)), back);
    assert_eq!(machine.readiness(back), Readiness::Waiting);
    // A session that is over.
    let stop = vec![Action::StopBulk { session }];
    assert_eq!(machine.on_bulk(session, welcome, now), stop);
}

#[test]
fn a_lost_bulk_resync_is_begun_again_and_a_silent_one_given_up() {
    let mut machine = machine();
    let mut peer = Peer::new("lb2", 7);
    let mut now = ms(0);
    let mut started =
        seen(&machine.on_datagram(Peer::address(), &peer.status(0, Some(OWN)), now)).1;
    let mut waits = Vec::new();
    for _ in 0..8 {
        assert_eq!(started.len(), 1);
        machine.on_bulk_lost(started[0], now);
        let lost = now;
        started.clear();
        while started.is_empty() {
            now += ms(10);
            let status = peer.status(0, Some(OWN));
            let actions = machine.on_datagram(Peer::address(), &status, now);
            started.extend(seen(&actions).1);
            started.extend(seen(&machine.tick(now).0).1);
        }
        waits.push(now - lost);
    }
    assert!(waits.is_sorted(), "{waits:?}");
    assert!(waits[0] >= ms(200) && waits[7] <= ms(10_010), "{waits:?}");
    let stopped = machine.tick(now + ms(10_000)).0;
    let session = started[0];
    assert!(stopped.contains(&Action::StopBulk { session }));
}

/// What a peer has from another one may be newer than what that one's walk has read and is on its way: the owner's would undo it.
#[test]
fn one_table_comes_at_a_time() {
    let mut machine = machine();
    let mut peers = [Peer::new("lb2", 7), Peer::new("lb3", 7)];
    let (first, second, again) = (SessionId(1), SessionId(2), SessionId(3));
    // Whose status comes after how long; how the session that is under way ends, if it does; what begins.
    let cases = [
        (0, 0, None, vec![first]),
        (1, 1, None, vec![]),
        (1, 500, None, vec![]),
        (0, 600, Some((first, false)), vec![second]),
        // The first one is due again, and waits for the second.
        (0, 2_000, None, vec![]),
        (1, 2_100, Some((second, true)), vec![again]),
        (1, 2_200, Some((again, true)), vec![]),
    ];
    for (whose, at_ms, ends, expected) in cases {
        let now = ms(at_ms);
        match ends {
            Some((session, true)) => drop(machine.on_bulk(session, Event::End, now)),
            Some((session, false)) => machine.on_bulk_lost(session, now),
            None => {}
        }
        let status = peers[whose].status(0, Some(OWN));
        let mut begun = seen(&machine.on_datagram(Peer::address(), &status, now)).1;
        let (actions, next) = machine.tick(now);
        begun.extend(seen(&actions).1);
        assert_eq!(begun, expected, "{at_ms} ms");
        assert!(next > now, "{at_ms} ms: it would be called without end");
    }
    assert!(
        machine
            .report(ms(2_200))
            .peers
            .iter()
            .all(|it| it.bulks == 1)
    );
}

#[test]
fn how_far_others_were_heard_goes_with_what_is_theirs() {
    let heard = vec![HeardUpTo {
        node: name("lb3"),
        incarnation: 8,
        number: 3,
    }];
    for is_learned in [false, true] {
        let mut sender = Sender::<u16>::new(&config(), ms(0));
        sender.send(Class::New, records(0..100), ms(0));
        sender.ask(&[(1, 2)], ms(10));
        let actions = sender.repair(ms(10));
        let [Action::LookUp { token, handles }] = &actions[..] else {
            panic!("one look-up, not {actions:?}");
        };
        let found = handles.iter().map(|handle| Found {
            handle: *handle,
            record: record(*handle),
            is_learned: is_learned && *handle > 70,
        });
        let sent = sender.looked_up(*token, found.collect(), &heard, ms(11));
        let sent: Vec<_> = sent.into_iter().map(|it| it.heard).collect();
        let of_last = if is_learned { heard.clone() } else { vec![] };
        assert_eq!(sent, [vec![], of_last]);
    }
}

#[test]
fn a_status_comes_regularly_and_at_once_for_a_new_peer() {
    let mut machine = machine();
    let statuses = |machine: &mut Machine<u16>, now| {
        let (actions, next) = machine.tick(now);
        let to = actions.iter().map(|action| match action {
            Action::Send { to, .. } => *to,
            other => panic!("nothing else, not {other:?}"),
        });
        (to.collect::<Vec<_>>(), next)
    };
    let one = vec![To::Everyone];
    let first = statuses(&mut machine, ms(0));
    assert_eq!(first, (one.clone(), STATUS_EVERY));
    assert_eq!(statuses(&mut machine, ms(199)), (vec![], STATUS_EVERY));
    assert_eq!(statuses(&mut machine, ms(200)), (one.clone(), ms(400)));
    let hello = Peer::new("lb2", 7).status(0, None);
    machine.on_datagram(Peer::address(), &hello, ms(205));
    assert_eq!(machine.deadline(ms(205)), ms(220));
    assert_eq!(statuses(&mut machine, ms(220)), (one, ms(420)));
}

#[test]
fn what_is_kept_aside_comes_when_the_directory_changes() {
    let mut machine = machine();
    machine.on_unknown(&name("lb2"), [record(1), record(2)], ms(0));
    machine.on_unknown(&name("lb3"), [record(3)], ms(0));
    assert_eq!(machine.report(ms(1)).aside, 3);
    let actions = machine.on_directory_changed(ms(10));
    assert_eq!(seen(&actions).0, [(How::Aside, 2), (How::Aside, 1)]);
    assert_eq!(machine.on_directory_changed(ms(20)), []);
}

#[test]
fn who_is_heard_gets_a_bulk_resync() {
    let mut machine = machine();
    let mut peer = Peer::new("lb2", 7);
    let v6: SocketAddr = "[fe80::2]:8849".parse().unwrap();
    let v4 = Peer::address();
    let mapped = Ipv4Addr::new(192, 0, 2, 9);
    let cases = [v4.ip(), mapped.to_ipv6_mapped().into(), v6.ip()];
    let heard = |machine: &Machine<u16>, now| cases.map(|it| machine.hears(it, now));
    assert_eq!(heard(&machine, ms(0)), [false; 3]);
    let status = peer.status(0, None);
    machine.on_datagram(v4, &status, ms(1));
    assert_eq!(heard(&machine, ms(2)), [true, true, false]);
    // Listed under an address of either family: both are its own.
    let status = peer.status(0, None);
    machine.on_datagram(v6, &status, ms(3));
    assert_eq!(heard(&machine, ms(4)), [true; 3]);
    // What cannot be believed makes nobody a node.
    machine.on_datagram("192.0.2.99:8849".parse().unwrap(), b"no datagram", ms(5));
    assert!(!machine.hears("192.0.2.99".parse().unwrap(), ms(6)));
    assert_eq!(heard(&machine, ms(3_100)), [false; 3]);
}
