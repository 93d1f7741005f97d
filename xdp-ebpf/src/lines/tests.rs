//! Lines beside an ordinary map: whatever keys come and go, both say the same.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

/// So few keys, all of one line or two, that there is never room for all of them.
fn keys4(same_line: fn(&Endpoint4) -> u32) -> Vec<Endpoint4> {
    let key = |number: u32| Endpoint4 {
        address: [10, (number >> 16) as u8, (number >> 8) as u8, number as u8],
        port: 80_u16.to_be_bytes(),
        protocol: 6,
        zero: 0,
    };
    let line = same_line(&key(0));
    (0..)
        .map(key)
        .filter(|key| same_line(key) == line)
        .take(8)
        .collect()
}

fn keys6(same_line: fn(&Endpoint6) -> u32) -> Vec<Endpoint6> {
    let key = |number: u32| {
        let mut address = [0; 16];
        address[..2].copy_from_slice(&[0x20, 0x01]);
        address[12..].copy_from_slice(&number.to_be_bytes());
        Endpoint6 {
            address,
            port: 443_u16.to_be_bytes(),
            protocol: 17,
            zero: 0,
        }
    };
    let line = same_line(&key(0));
    (0..)
        .map(key)
        .filter(|key| same_line(key) == line)
        .take(8)
        .collect()
}

// Searched for once: a million keys are looked at.
static SERVICE_KEYS4: LazyLock<Vec<Endpoint4>> = LazyLock::new(|| keys4(ServiceLine4::index));
static SERVICE_KEYS6: LazyLock<Vec<Endpoint6>> = LazyLock::new(|| keys6(ServiceLine6::index));
static SERVER_KEYS4: LazyLock<Vec<Endpoint4>> = LazyLock::new(|| keys4(ServerLine4::index));
static SERVER_KEYS6: LazyLock<Vec<Endpoint6>> = LazyLock::new(|| keys6(ServerLine6::index));

/// What happens to a key: it is written, removed, or the director is killed between the hash map and the line.
#[derive(Clone, Copy, Debug)]
enum Step {
    Put(usize, u8),
    Remove(usize),
    PutInMapOnly(usize, u8),
    Adopt,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..8_usize, any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        6 => (0..8_usize).prop_map(Step::Remove),
        1 => (0..8_usize, any::<u8>()).prop_map(|(key, value)| Step::PutInMapOnly(key, value)),
        2 => Just(Step::Adopt),
    ];
    prop::collection::vec(step, 1..60)
}

/// Takes steps, and asks for every key after each.
fn check<L>(
    keys: &[L::Key],
    steps: &[Step],
    written: impl Fn(u8) -> L::Written,
    is_same: impl Fn(&L::Value<'_>, u8) -> bool,
) where
    L: LineMut + Default,
    L::Key: core::fmt::Debug,
{
    let lines = [L::default()];
    let line = &lines[0];
    let mut map: BTreeMap<usize, u8> = BTreeMap::new();
    // After a killed director the line may be wrong until the next one has adopted.
    let mut is_killed = false;
    for step in steps {
        match *step {
            Step::Put(key, value) if !is_killed => {
                let was_known = map.insert(key, value).is_some();
                line.put(&keys[key], written(value), || was_known);
            }
            Step::Remove(key) if !is_killed => {
                let was_known = map.remove(&key).is_some();
                line.remove(&keys[key], || was_known);
            }
            Step::PutInMapOnly(key, value) if !is_killed => {
                map.insert(key, value);
                is_killed = true;
            }
            Step::Adopt => {
                let all: Vec<_> = map
                    .iter()
                    .map(|(key, value)| (keys[*key], written(*value)))
                    .collect();
                // All keys are of one line: the first one here.
                adopt(&lines, &all);
                is_killed = false;
            }
            _ => {}
        }
        if is_killed {
            continue;
        }
        let mut in_line = 0;
        for (number, key) in keys.iter().enumerate() {
            match (line.find(key), map.get(&number)) {
                (Said::Is(value), Some(expected)) => {
                    assert!(is_same(&value, *expected), "{key:?} after {step:?}");
                    in_line += 1;
                }
                (Said::Nowhere, None) | (Said::Ask, _) => {}
                (Said::Is(_), None) => panic!("{key:?} is gone, after {step:?}"),
                (Said::Nowhere, Some(_)) => panic!("{key:?} is lost, after {step:?}"),
            }
        }
        let elsewhere = load(line.elsewhere());
        assert_eq!(in_line + elsewhere as usize, map.len(), "after {step:?}");
    }
}

/// [`set_all`] for keys of one line, which stands first here.
fn adopt<L: LineMut>(lines: &[L; 1], all: &[Entry<L>]) {
    let index = all.first().map_or(0, |(key, _)| L::index(key));
    write::set_from(index, lines, all);
}

proptest! {
    #[test]
    fn services4(steps in steps()) {
        check::<ServiceLine4>(
            &SERVICE_KEYS4,
            &steps,
            |value| Served(0xff00_0000 | u32::from(value)),
            |found, value| found.0 == 0xff00_0000 | u32::from(value),
        );
    }

    #[test]
    fn services6(steps in steps()) {
        check::<ServiceLine6>(
            &SERVICE_KEYS6,
            &steps,
            |value| Served(0xff00_0000 | u32::from(value)),
            |found, value| found.0 == 0xff00_0000 | u32::from(value),
        );
    }

    #[test]
    fn servers4(steps in steps()) {
        check::<ServerLine4>(&SERVER_KEYS4, &steps, some_endpoints, |found, value| {
            **found == some_endpoints(value)
        });
    }

    #[test]
    fn servers6(steps in steps()) {
        check::<ServerLine6>(&SERVER_KEYS6, &steps, some_endpoints, |found, value| {
            **found == some_endpoints(value)
        });
    }
}

fn some_endpoints(value: u8) -> SharedBy {
    let mut shared = SharedBy::default();
    for (number, endpoint) in (0..).zip(&mut shared.endpoints[..5]) {
        *endpoint = u16::from(value) << 8 | (number + 1);
    }
    shared
}

/// Services of one address, one prefix, one port: their lines are spread, so that hardly any key has no room.
#[test]
fn keys_that_resemble_one_another_are_spread() {
    let mut worst = 0;
    for layout in 0..4_u32 {
        let mut found: BTreeMap<(bool, u32), usize> = BTreeMap::new();
        for number in 0..2000_u32 {
            let [_, _, high, low] = number.to_be_bytes();
            let (address, port) = match layout {
                0 => ([192, 0, 2, 1], number as u16 + 1),
                1 => ([10, 0, high, low], 80),
                2 => ([10, high, 0, low], 443),
                _ => ([10, 0, 0, low], u16::from(high) + 8000),
            };
            let key = Endpoint4 {
                address,
                port: port.to_be_bytes(),
                protocol: 6,
                zero: 0,
            };
            *found.entry((false, ServiceLine4::index(&key))).or_default() += 1;
            let mut address6 = [0; 16];
            address6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
            address6[12..].copy_from_slice(&address);
            let key = Endpoint6 {
                address: address6,
                port: port.to_be_bytes(),
                protocol: 6,
                zero: 0,
            };
            *found.entry((true, ServiceLine6::index(&key))).or_default() += 1;
        }
        let without_room: usize = found
            .iter()
            .map(|((is_ipv6, _), keys)| keys.saturating_sub(if *is_ipv6 { 2 } else { 3 }))
            .sum();
        worst = worst.max(without_room);
    }
    // Of 4,000; as if by chance it would be 1 or 2.
    assert!(worst <= 40, "{worst} keys have no room");
}

/// One key after the other in the same place.
#[test]
fn what_a_line_says_of_keys() {
    let keys = &SERVICE_KEYS4;
    let line = ServiceLine4::default();
    line.put(&keys[0], Served(1), || false);
    assert_eq!(line.find(&keys[0]), Said::Is(Served(1)));
    line.remove(&keys[0], || true);
    line.put(&keys[1], Served(2), || false);
    assert_eq!(line.find(&keys[0]), Said::Nowhere);
    assert_eq!(line.find(&keys[1]), Said::Is(Served(2)));
    store(line.elsewhere(), 1);
    assert_eq!(line.find(&keys[0]), Said::Ask);
}
