//! What peers tell of each other's connections.

use super::super::limits::SECOND_HAND;
use super::*;
use crate::wire::bulk::Resume;

/// A peer may bring what another one has told since: what that one told before, and is late, would undo it.
#[test]
fn what_a_peer_has_from_another_one_is_followed_by_nothing_older() {
    for in_a_walk in [true, false] {
        second_hand(in_a_walk);
    }
}

/// In the full sync of the one that has it, or in a repair by it.
fn second_hand(in_a_walk: bool) {
    let mut machine = machine();
    let (mut filler, mut owner) = (Peer::new("lb2", 7), Peer::new("lb3", 8));
    let hear = |machine: &mut Machine<u16>, bytes: Vec<u8>| {
        seen(&machine.on_datagram(Peer::address(), &bytes, ms(1))).0
    };
    hear(&mut machine, owner.status(0, Some(OWN)));
    machine.on_bulk(SessionId(1), Event::End, ms(1));
    hear(&mut machine, filler.status(0, Some(OWN)));
    if !in_a_walk {
        machine.on_bulk(SessionId(2), Event::End, ms(1));
    }
    let live = vec![(How::Live, 1)];
    assert_eq!(hear(&mut machine, owner.update(1, &[1])), live);
    let late = [owner.update(2, &[1]), owner.update(3, &[1])];
    let missing = |machine: &Machine<u16>| {
        let peers = machine.report(ms(1)).peers;
        let owner = peers.into_iter().find(|it| it.node == name("lb3"));
        owner.map(|it| it.state)
    };
    // Of whom the filling one heard, of which start of him, up to where; how many of his are then asked for anew.
    let cases = [
        ("lb4", 8, 3, PeerState::Synced),
        ("lb3", 7, 3, PeerState::Synced),
        ("lb3", 8, 1, PeerState::Synced),
        ("lb3", 8, 3, PeerState::Repairing { missing: 2 }),
    ];
    for (nth, (node, incarnation, number, expected)) in (1..).zip(cases) {
        let heard = vec![HeardUpTo {
            node: name(node),
            incarnation,
            number,
        }];
        if in_a_walk {
            let actions = machine.on_bulk(SessionId(2), Event::Heard(heard), ms(1));
            assert_eq!(actions, []);
        } else {
            let repair = filler.bytes(Message::Update(Update {
                heard,
                records: vec![(record(1), true)],
                ..update(nth, &[])
            }));
            let second_hand = vec![(How::SecondHand, 1)];
            assert_eq!(hear(&mut machine, repair), second_hand);
        }
        assert_eq!(missing(&machine), Some(expected), "{node} {incarnation}");
    }
    for update in late {
        assert_eq!(hear(&mut machine, update), []);
    }
    let repair = owner.bytes(Message::Update(Update {
        records: vec![(record(1), false)],
        ..update(4, &[(2, 3)])
    }));
    assert_eq!(hear(&mut machine, repair), live);
    assert_eq!(missing(&machine), Some(PeerState::Synced));
    // What it tells others.
    let heard: Vec<_> = machine
        .heard()
        .into_iter()
        .map(|it| (it.node, it.number))
        .collect();
    let of_filler = if in_a_walk { 0 } else { 4 };
    assert_eq!(heard, [(name("lb3"), 4), (name("lb2"), of_filler)]);
}

/// A repair by a peer, of one connection of its own and some of others'.
fn repair(peer: &mut Peer, number: u64, own: u16, of_others: impl Iterator<Item = u16>) -> Vec<u8> {
    let mut records = vec![(record(own), false)];
    records.extend(of_others.map(|client| (record(client), true)));
    peer.bytes(Message::Update(Update {
        records,
        ..update(number, &[])
    }))
}

/// How records were applied, and for how long they have been idle.
fn applied(actions: &[Action<u16>]) -> Vec<(How, Vec<u16>)> {
    let applied = actions.iter().filter_map(|action| match action {
        Action::Apply { how, entries, .. } => {
            Some((*how, entries.iter().map(|entry| entry.idle_s).collect()))
        }
        _ => None,
    });
    applied.collect()
}

/// A machine that is filled by one peer, and has all of another one.
fn while_being_filled() -> (Machine<u16>, Peer, Peer) {
    let mut machine = machine();
    let (mut owner, mut other) = (Peer::new("lb3", 8), Peer::new("lb2", 7));
    for (peer, ends) in [(&mut other, true), (&mut owner, false)] {
        let status = peer.status(0, Some(OWN));
        let begun = seen(&machine.on_datagram(Peer::address(), &status, ms(1))).1;
        assert_eq!(begun.len(), 1);
        if ends {
            machine.on_bulk(begun[0], Event::End, ms(1));
        }
    }
    let welcome = Event::Welcome {
        number: 0,
        cursor: 0,
        about: 2,
    };
    machine.on_bulk(SessionId(2), welcome, ms(1));
    (machine, owner, other)
}

fn state(machine: &Machine<u16>, node: &str, now: Duration) -> PeerState {
    let peers = machine.report(now).peers;
    let peer = peers.into_iter().find(|it| it.node == name(node));
    peer.expect("a peer").state
}

/// Of a connection of the very peer whose walk is under way it may be newer than what that walk has read already.
#[test]
fn what_a_peer_has_from_another_one_waits_for_a_full_sync_to_end() {
    type Ends = fn(&mut Machine<u16>, &mut Peer, Duration) -> Vec<Action<u16>>;
    let session = SessionId(2);
    // How it ends, after how long; how old is then what waited.
    let cases: [(&str, Ends, u64, u16); 6] = [
        (
            "its end",
            |machine, _, now| machine.on_bulk(SessionId(2), Event::End, now),
            1_500,
            2,
        ),
        (
            "lost",
            |machine, _, now| {
                machine.on_bulk_lost(SessionId(2), now);
                assert!(machine.deadline(now) <= now);
                machine.tick(now).0
            },
            2_000,
            2,
        ),
        // Another one begins only after that.
        (
            "lost, and a status comes first",
            |machine, owner, now| {
                machine.on_bulk_lost(SessionId(2), now - ms(300));
                let status = owner.status(0, Some(OWN));
                machine.on_datagram(Peer::address(), &status, now)
            },
            2_000,
            2,
        ),
        (
            "silent",
            |machine, _, now| {
                let (mut actions, next) = machine.tick(now);
                assert!(next <= now);
                actions.extend(machine.tick(now).0);
                actions
            },
            11_000,
            11,
        ),
        (
            "the peer is started anew",
            |machine, _, now| {
                let status = Peer::new("lb3", 9).status(0, None);
                let mut actions = machine.on_datagram(Peer::address(), &status, now);
                actions.extend(machine.tick(now).0);
                actions
            },
            100,
            1,
        ),
        (
            "all is to be filled anew",
            |machine, _, now| {
                let mut actions = machine.resync(now);
                actions.extend(machine.tick(now).0);
                actions
            },
            100,
            1,
        ),
    ];
    for (what, ends, after_ms, idle_s) in cases {
        let (mut machine, mut owner, mut other) = while_being_filled();
        let bytes = repair(&mut other, 1, 1, 2..4);
        let actions = machine.on_datagram(Peer::address(), &bytes, ms(100));
        assert_eq!(applied(&actions), [(How::Live, vec![0])], "{what}");
        let part = Event::Records {
            number: 0,
            cursor: 1,
            records: vec![(record(2), false), (record(9), true)],
        };
        let actions = machine.on_bulk(session, part, ms(100));
        let walked = [(How::Bulk, vec![0]), (How::SecondHand, vec![0])];
        assert_eq!(applied(&actions), walked, "{what}");
        assert_eq!(applied(&machine.tick(ms(100)).0), [], "{what}");
        // It does not have all of what the other one told.
        let waits = PeerState::Repairing { missing: 0 };
        assert_eq!(state(&machine, "lb2", ms(100)), waits, "{what}");
        let now = ms(100 + after_ms);
        let actions = ends(&mut machine, &mut owner, now);
        let released = [(How::SecondHand, vec![idle_s; 2])];
        assert_eq!(applied(&actions), released, "{what}");
        let position = |is: fn(&Action<u16>) -> bool| actions.iter().position(is);
        let began = position(|it| matches!(it, Action::StartBulk { .. }));
        let applied_at = position(|it| matches!(it, Action::Apply { .. }));
        assert!(began.is_none_or(|at| Some(at) > applied_at), "{what}");
        assert_eq!(applied(&machine.tick(now).0), [], "{what}");
    }
}

/// News of a peer that was started anew meanwhile are news still.
#[test]
fn what_waits_outlives_the_start_of_who_told_it() {
    let (mut machine, _, mut other) = while_being_filled();
    let bytes = repair(&mut other, 1, 1, 2..3);
    machine.on_datagram(Peer::address(), &bytes, ms(100));
    let again = Peer::new("lb2", 8).status(0, None);
    machine.on_datagram(Peer::address(), &again, ms(200));
    let actions = machine.on_bulk(SessionId(2), Event::End, ms(300));
    assert_eq!(applied(&actions), [(How::SecondHand, vec![1])]);
}

#[test]
fn a_full_sync_pauses_for_more_than_can_wait() {
    let (mut machine, mut owner, mut other) = while_being_filled();
    let part = Event::Records {
        number: 0,
        cursor: 77,
        records: vec![(record(2), false)],
    };
    machine.on_bulk(SessionId(2), part, ms(1));
    let mut number = 0;
    let mut hear = |machine: &mut Machine<u16>, count: usize| {
        number += 1;
        let bytes = repair(
            &mut other,
            number,
            1,
            (0..count).map(|client| client as u16),
        );
        machine.on_datagram(Peer::address(), &bytes, ms(100))
    };
    for _ in 0..SECOND_HAND / 256 {
        assert_eq!(applied(&hear(&mut machine, 256)), [(How::Live, vec![0])]);
    }
    let actions = hear(&mut machine, 1);
    let session = SessionId(2);
    assert_eq!(actions[0], Action::StopBulk { session });
    let counts: Vec<_> = applied(&actions)
        .into_iter()
        .map(|(how, idle)| (how, idle.len()))
        .collect();
    assert_eq!(counts, [(How::SecondHand, SECOND_HAND + 1), (How::Live, 1)]);
    assert_eq!(state(&machine, "lb2", ms(100)), PeerState::Synced);
    // From where it was.
    let status = owner.status(0, Some(OWN));
    let actions = machine.on_datagram(Peer::address(), &status, ms(400));
    let resumed = actions.iter().find_map(|action| match action {
        Action::StartBulk { resume, .. } => *resume,
        _ => None,
    });
    let expected = Resume {
        incarnation: 8,
        cursor: 77,
    };
    assert_eq!(resumed, Some(expected));
}
