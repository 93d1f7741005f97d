//! Own heartbeats: round trips, damage, keys, replays.

use std::net::IpAddr;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::auth::{Key, KeyError, Keyring, Receiver, Reject};
use super::message::{ADDRESSES, GROUPS, GroupState, LONGEST, Message, NODES, NameId, NodeState};
use crate::machine::LinkId;

fn key(id: u8) -> Key {
    Key::new(id, &[id; 32]).unwrap()
}

fn message(node: &str, incarnation: u64, sequence: u64) -> Message {
    let state = GroupState {
        priority: 150,
        is_primary: true,
        is_member: true,
        ..GroupState::default()
    };
    let told = |node: &str, incarnation, sequence| NodeState {
        node: NameId::of(node),
        incarnation,
        sequence,
        address: None,
        alive: 3,
        groups: vec![state, GroupState::default()],
    };
    Message {
        addresses: vec![[192, 0, 2, 1].into()],
        is_leaving: false,
        keepalive: Duration::from_millis(100),
        deadtime: Duration::from_millis(300),
        groups: vec![NameId::of("web"), NameId::of("mail")],
        sender: told(node, incarnation, sequence),
        others: vec![told("another", 7, 9)],
    }
}

#[test]
fn every_truncation_and_every_flipped_bit_is_detected() {
    for keyring in [Keyring::without_secret(), Keyring::new(key(1), []).unwrap()] {
        let bytes = keyring.seal(&message("lb1", 5, 1));
        assert!(keyring.open(&bytes).is_ok());
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

#[test]
fn keys_change_while_all_nodes_run() {
    // Each step is taken on one node after the other; between them every two neighbours must understand each other.
    let steps = [
        Keyring::new(key(1), []).unwrap(),
        Keyring::new(key(1), [key(2)]).unwrap(),
        Keyring::new(key(2), [key(1)]).unwrap(),
        Keyring::new(key(2), []).unwrap(),
    ];
    let sent = message("lb1", 5, 1);
    for (at, one) in steps.iter().enumerate() {
        for (of, other) in steps.iter().enumerate() {
            assert_eq!(one.is_same(other), at == of, "{at} {of}");
        }
    }
    let mut receiver = Receiver::new(steps[0].clone(), ("lb2", 9), ["lb1"], 1);
    let later = message("lb1", 5, 2);
    assert_eq!(
        receiver.receive(LinkId(0), &steps[0].seal(&sent)),
        Ok(sent.clone())
    );
    assert_eq!(
        receiver.receive(LinkId(0), &steps[3].seal(&later)),
        Err(Reject::Key)
    );
    receiver.follow(steps[2].clone());
    assert_eq!(
        receiver.receive(LinkId(0), &steps[3].seal(&later)),
        Ok(later.clone())
    );
    // New keys make nothing new that was heard under the old ones.
    assert_eq!(
        receiver.receive(LinkId(0), &steps[0].seal(&sent)),
        Err(Reject::Replayed)
    );
    for pair in steps.windows(2) {
        assert_eq!(pair[0].open(&pair[1].seal(&sent)), Ok(sent.clone()));
        assert_eq!(pair[1].open(&pair[0].seal(&sent)), Ok(sent.clone()));
    }
    assert_eq!(steps[0].open(&steps[3].seal(&sent)), Err(Reject::Key));
    let plain = Keyring::without_secret().seal(&sent);
    assert_eq!(steps[0].open(&plain), Err(Reject::Key));
    let other_secret = Keyring::new(Key::new(1, &[9; 32]).unwrap(), []).unwrap();
    assert_eq!(
        steps[0].open(&other_secret.seal(&sent)),
        Err(Reject::Signature)
    );
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
    const FRESH: Result<(), Reject> = Ok(());
    // Link, node, incarnation, sequence; and what becomes of it.
    let cases = [
        ((0, "lb2", 5, 1), FRESH),
        ((0, "lb2", 5, 1), Err(Reject::Replayed)),
        // The copy on another link, once.
        ((1, "lb2", 5, 1), FRESH),
        ((1, "lb2", 5, 1), Err(Reject::Replayed)),
        // Reordered.
        ((0, "lb2", 5, 4), FRESH),
        ((0, "lb2", 5, 2), FRESH),
        ((0, "lb2", 5, 3), FRESH),
        ((0, "lb2", 5, 2), Err(Reject::Replayed)),
        // Another node has its own window.
        ((0, "lb3", 1, 1), FRESH),
        // A window ahead.
        ((0, "lb2", 5, 131), FRESH),
        ((0, "lb2", 5, 3), Err(Reject::Old)),
        ((0, "lb2", 5, 4), Err(Reject::Replayed)),
        ((0, "lb2", 5, 5), FRESH),
        // What is too old is refused on the other link too, though it was not heard there.
        ((1, "lb2", 5, 3), Err(Reject::Old)),
        ((0, "lb2", 5, u64::MAX - 200), FRESH),
        // Started anew.
        ((0, "lb2", 6, 1), FRESH),
        ((1, "lb2", 5, 132), Err(Reject::Old)),
        ((1, "lb2", 6, 1), FRESH),
        // Sequences begin with 1.
        ((0, "lb2", 6, 0), Err(Reject::Old)),
        ((0, "stranger", 1, 1), Err(Reject::Node)),
        ((0, "lb1", 40, 1), Err(Reject::Own)),
        ((0, "lb1", 39, 1), Err(Reject::SameName)),
    ];
    let keyring = Keyring::without_secret();
    let mut receiver = Receiver::new(keyring.clone(), ("lb1", 40), ["lb1", "lb2", "lb3"], 2);
    for (number, ((link, node, incarnation, sequence), expected)) in cases.into_iter().enumerate() {
        let bytes = keyring.seal(&message(node, incarnation, sequence));
        let found = receiver.receive(LinkId(link), &bytes).map(|_| ());
        assert_eq!(found, expected, "case {number}");
    }
    assert_eq!(receiver.receive(LinkId(0), b"?"), Err(Reject::Short));
    let expected = vec![
        (Reject::Short, 1),
        (Reject::Node, 1),
        (Reject::Own, 1),
        (Reject::SameName, 1),
        (Reject::Replayed, 3),
        (Reject::Old, 2),
    ];
    assert_eq!(receiver.refused(LinkId(0)), expected);
    assert_eq!(
        receiver.refused(LinkId(1)),
        vec![(Reject::Replayed, 1), (Reject::Old, 2)]
    );
}

prop_compose! {
    fn group_states()(priority: u8, bits: [bool; 8]) -> GroupState {
        let [is_primary, wants, is_forced, is_degraded, is_standby, sees_foreign, is_member, is_starting] = bits;
        GroupState { priority, is_primary, wants, is_forced, is_degraded, is_standby, sees_foreign, is_member, is_starting }
    }
}

/// Addresses that machines have: not unspecified, and IPv4 as IPv4.
fn addresses() -> impl Strategy<Value = IpAddr> {
    any::<IpAddr>()
        .prop_filter("is nobody's", |address| !address.is_unspecified())
        .prop_map(|address| address.to_canonical())
}

fn node_states(groups: usize, nodes: usize) -> impl Strategy<Value = NodeState> {
    let numbers = (any::<u32>(), any::<u64>(), any::<u64>(), 0..1_u16 << nodes);
    (
        numbers,
        option::of(addresses()),
        vec(group_states(), groups),
    )
        .prop_map(
            |((node, incarnation, sequence, alive), address, groups)| NodeState {
                node: NameId(node),
                incarnation,
                sequence,
                address,
                alive,
                groups,
            },
        )
}

fn messages() -> impl Strategy<Value = Message> {
    (0..=GROUPS, 1..=NODES)
        .prop_flat_map(|(groups, nodes)| {
            let ids = vec(any::<u32>().prop_map(NameId), groups);
            (
                vec(addresses(), 0..=ADDRESSES),
                (any::<bool>(), any::<[u32; 2]>()),
                ids,
                vec(node_states(groups, nodes), nodes),
            )
        })
        .prop_map(
            |(addresses, (is_leaving, times), groups, mut nodes)| Message {
                addresses,
                is_leaving,
                keepalive: Duration::from_micros(times[0].into()),
                deadtime: Duration::from_micros(times[1].into()),
                groups,
                sender: nodes.remove(0),
                others: nodes,
            },
        )
}

proptest! {
    #[test]
    fn written_and_read_again(message in messages()) {
        let keyring = Keyring::new(key(3), []).unwrap();
        let bytes = keyring.seal(&message);
        prop_assert!(bytes.len() <= LONGEST);
        prop_assert_eq!(keyring.open(&bytes), Ok(message));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        // Signed right, so that the reader behind the signature sees them.
        let mut bytes = [b"DH\x02\x00".as_slice(), &bytes].concat();
        let _ = Message::decode(&bytes);
        bytes.resize(bytes.len().max(100), 0);
        let _ = Keyring::without_secret().open(&bytes);
    }
}
