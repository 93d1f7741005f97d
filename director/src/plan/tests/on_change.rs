//! Services that track connections on change: their slots in the tables.

use std::time::Instant;

use xdp_ebpf::layout::{service as service_flags, slot};
use xdp_ebpf::path::schedule::table_based::client_hash;

use super::*;
use crate::health::machine::State;
use crate::health::standing::{Circumstances, Found, Memory, judge};
use crate::scheduler::{Member, ON_CHANGE_SLOTS, table_on_change};

const MH: Scheduler = Scheduler::Mh {
    port: true,
    fallback: true,
};

fn with(track: Track, servers: &[&str]) -> Config {
    let real_servers = servers
        .iter()
        .map(|address| server(address, 80, 1, Method::Dr))
        .collect();
    config(vec![VirtualService {
        track,
        ..service("192.0.2.10", 80, MH, real_servers)
    }])
}

const ON_CHANGE: Track = Track::OnChange { hold_s: 900 };

fn words(tables: &Tables) -> Vec<u32> {
    let record = tables.services[&1];
    let table = tables.slots.get(&record.first_slot);
    table.map_or(Vec::new(), |words| words.to_vec())
}

/// As if passes had settled all slots.
fn settled(tables: &Tables) -> Tables {
    let owners = words(tables)
        .iter()
        .map(|word| slot::owner(*word))
        .collect();
    let writes = rewrite(tables, BTreeMap::from([(1, ("web", owners))])).unwrap();
    let mut after = tables.clone();
    for write in writes {
        after.apply(&write);
        consistent(&after).unwrap();
    }
    after
}

#[test]
fn slots_say_who_had_them() {
    let view = view(&[]);
    let first = plan(
        &Tables::default(),
        &with(ON_CHANGE, &["10.0.0.1", "10.0.0.2"]),
        &view,
    );
    assert!(
        first
            .services4
            .values()
            .all(|served| served.tracks_on_change()),
        "its key says so"
    );
    assert!(
        words(&first)
            .iter()
            .all(|word| slot::owner(*word) == slot::previous(*word)),
        "nothing is known of before"
    );
    let stable = settled(&first);
    let again = plan(&stable, &with(ON_CHANGE, &["10.0.0.1", "10.0.0.2"]), &view);
    assert_eq!(again, stable, "the same configuration changes nothing");

    let more = plan(
        &stable,
        &with(ON_CHANGE, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
        &view,
    );
    assert_eq!(
        words(&more).len(),
        words(&stable).len(),
        "the table has one size"
    );
    let mut moved = 0;
    for (before, after) in words(&stable).into_iter().zip(words(&more)) {
        if slot::owner(after) == before {
            assert_eq!(after, before, "a slot that stays is not marked");
        } else {
            assert_eq!(slot::previous(after), before);
            moved += 1;
        }
    }
    let third = words(&more).len() / 3;
    assert!(
        (third..third * 5 / 4).contains(&moved),
        "{moved} slots of {third} moved"
    );
}

#[test]
fn a_removed_real_server_keeps_its_id_while_slots_name_it() {
    let view = view(&[]);
    let both = plan(
        &Tables::default(),
        &with(ON_CHANGE, &["10.0.0.1", "10.0.0.2"]),
        &view,
    );
    let one = plan(&settled(&both), &with(ON_CHANGE, &["10.0.0.2"]), &view);
    let unused = BTreeSet::from([1]);
    assert_eq!(
        release(&one, &unused, &BTreeSet::new()),
        one,
        "its connections have no entries"
    );
    let released = walk(&one, &release(&settled(&one), &unused, &BTreeSet::new()));
    assert!(!released.destinations.contains_key(&1));
}

#[test]
fn without_any_real_server_slots_still_say_who_had_them() {
    let view = view(&[]);
    let one = settled(&plan(
        &Tables::default(),
        &with(ON_CHANGE, &["10.0.0.1"]),
        &view,
    ));
    let none = plan(&one, &with(ON_CHANGE, &[]), &view);
    assert!(words(&none).iter().all(|word| *word == slot::new(0, 1)));
    let over = vec![];
    let mut after = none.clone();
    for write in rewrite(&none, BTreeMap::from([(1, ("web", over))])).unwrap() {
        after.apply(&write);
        consistent(&after).unwrap();
    }
    assert_eq!((after.services[&1].slots, after.slots.len()), (0, 0));
    let back = plan(&after, &with(ON_CHANGE, &["10.0.0.1"]), &view);
    let is_new = |word: &u32| *word == slot::new(slot::owner(*word), owners::NOBODY);
    assert!(words(&back).iter().all(is_new));
    // The second one's connections were not the first one's either.
    let both = plan(&back, &with(ON_CHANGE, &["10.0.0.1", "10.0.0.2"]), &view);
    assert!(words(&both).iter().all(is_new));
}

/// One that is only remembered has no slots, but its clients are not told that its connections have ended.
#[test]
fn a_service_that_was_removed_for_a_while() {
    let view = view(&[]);
    let servers = with(ON_CHANGE, &["10.0.0.1", "10.0.0.2"]);
    let stable = settled(&plan(&Tables::default(), &servers, &view));
    let removed = plan(&stable, &config(Vec::new()), &view);
    assert_eq!(removed.services[&1].slots, 0, "it is remembered");
    let back = plan(&removed, &servers, &view);
    let had: Vec<u32> = words(&back)
        .iter()
        .map(|word| slot::previous(*word))
        .collect();
    assert_eq!(had, words(&stable));
}

/// Of a service with these real servers, of which those at these places are out.
fn standings(config: &Config, out: &[usize]) -> Standings {
    let servers = config.services[0].all_servers().count();
    let effective = (0..servers).map(|place| Effective {
        weight: u32::from(!out.contains(&place)),
        is_out: out.contains(&place),
        ..Effective::default()
    });
    Standings(vec![ServiceStanding {
        servers: effective.collect(),
        ..ServiceStanding::default()
    }])
}

/// Whom packets of some clients go to that are of no known connection.
fn clients(tables: &Tables) -> Vec<u32> {
    let words = words(tables);
    let owner = |client| slot::owner(words[client_hash(client, 1) as usize % words.len()]);
    (0..10_000).map(owner).collect()
}

/// Connections that have entries already count until passes have shown that all are where the table has them. The way back
/// sends those that have none where they are, whoever is out meanwhile.
#[test]
fn tracking_is_changed_by_a_reload() {
    let view = view(&[]);
    let servers = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
    for out in [&[][..], &[1]] {
        let reload = |tables: &Tables, track| {
            let config = with(track, &servers);
            let standings = standings(&config, out);
            let inputs = Inputs {
                standings: &standings,
                ..inputs(&config, &view)
            };
            walk(tables, &desired(tables, &inputs).unwrap())
        };
        let all = reload(&Tables::default(), Track::All);
        assert!(
            !all.services4
                .values()
                .any(|served| served.tracks_on_change())
        );
        let on_change = reload(&all, ON_CHANGE);
        assert!(
            words(&on_change)
                .iter()
                .all(|word| owners::is_marked(*word))
        );
        let stable = settled(&on_change);
        let back = reload(&stable, Track::All);
        assert_eq!(back.services4, all.services4);
        assert_eq!(clients(&back), clients(&stable), "{out:?} are out");
        assert_eq!(reload(&back, Track::All), back, "and it stays so");
        let again = reload(&back, ON_CHANGE);
        assert_eq!(words(&again), words(&on_change), "{out:?} are out");
    }
}

/// What makes clients fall into other slots.
#[test]
fn services_that_would_hash_otherwise() {
    let mh = |port| Scheduler::Mh {
        port,
        fallback: true,
    };
    // (the service as it is, as it is to be, whether it would)
    let cases = [
        ((mh(true), ON_CHANGE), (mh(true), ON_CHANGE), false),
        ((mh(true), ON_CHANGE), (mh(true), Track::All), false),
        ((mh(true), ON_CHANGE), (mh(false), ON_CHANGE), true),
        ((mh(false), ON_CHANGE), (mh(true), Track::All), true),
        ((mh(true), ON_CHANGE), (Scheduler::Wlc, Track::All), true),
        ((mh(true), Track::All), (mh(false), ON_CHANGE), false),
        ((Scheduler::Wlc, Track::All), (mh(false), ON_CHANGE), false),
    ];
    let config = |(scheduler, track)| {
        let mut config = with(track, &["10.0.0.1", "10.0.0.2"]);
        config.services[0].scheduler = scheduler;
        config
    };
    for (is, is_to_be, would) in cases {
        let tables = plan(&Tables::default(), &config(is), &view(&[]));
        let config = config(is_to_be);
        let found = owners::rehashed(&tables, &config);
        assert_eq!(found.len(), usize::from(would), "{is:?} to {is_to_be:?}");
    }
}

/// Real servers that come up one after the other: nobody has had the slots of another one because he was the first.
#[test]
fn a_young_service_expects_those_that_are_not_checked_yet() {
    let view = view(&[]);
    let config = with(ON_CHANGE, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    let service = &config.services[0];
    let mut memory = Memory::default();
    // U: up, D: down, ?: not checked yet.
    let mut standing = |states: &str| {
        let found: Vec<Found> = states
            .chars()
            .map(|state| Found {
                state: match state {
                    'U' => State::Up,
                    'D' => State::Down,
                    _ => State::Unchecked,
                },
                ..Found::default()
            })
            .collect();
        let circumstances = Circumstances {
            overrides: &Overrides::default(),
            found: &found,
            stayed: &[],
            are_dependencies_up: true,
            now_s: 0,
            now: Instant::now(),
        };
        Standings(vec![judge(service, &mut memory, &circumstances).0])
    };
    let owners = |ids: &[u32]| -> Vec<u32> {
        let members = ids.iter().map(|id| Member {
            destination: *id,
            weight: 1,
            identity: (ip(&format!("10.0.0.{id}")), 80),
        });
        let owners = table_on_change(&members.collect::<Vec<_>>());
        if owners.is_empty() {
            vec![0; ON_CHANGE_SLOTS]
        } else {
            owners
        }
    };
    // (what is found, who has slots, who is expected to have had them, whether that may still change)
    let steps: [(&str, &[u32], &[u32], bool); 5] = [
        ("???", &[], &[1, 2, 3], true),
        ("U??", &[1], &[1, 2, 3], true),
        ("UU?", &[1, 2], &[1, 2, 3], true),
        ("UUD", &[1, 2], &[1, 2], false),
        // As any other change.
        ("UUU", &[1, 2, 3], &[1, 2], false),
    ];
    let mut tables = Tables::default();
    for (states, have, had, is_young) in steps {
        let standings = standing(states);
        let inputs = Inputs {
            standings: &standings,
            ..inputs(&config, &view)
        };
        let next = walk(&tables, &desired(&tables, &inputs).unwrap());
        if tables != Tables::default() {
            let judged = BTreeMap::from([(1, (service, &standings.0[0]))]);
            let mut short = tables.clone();
            for write in reweigh(&tables, &judged).unwrap() {
                short.apply(&write);
            }
            assert_eq!(short, next, "{states}: the short way");
        }
        let both = owners(have).into_iter().zip(owners(had));
        let expected: Vec<u32> = both.map(|(owner, had)| slot::new(owner, had)).collect();
        assert_eq!(words(&next), expected, "{states}");
        let flags = next.services[&1].flags;
        assert_eq!(flags & service_flags::YOUNG != 0, is_young, "{states}");
        tables = next;
    }
}

/// One that is out of service has no slots: nobody asks for its weight where the table alone decides.
#[test]
fn who_is_out_of_service_has_no_slots() {
    let view = view(&[]);
    let config = with(ON_CHANGE, &["10.0.0.1", "10.0.0.2"]);
    let stable = settled(&plan(&Tables::default(), &config, &view));
    let standings = standings(&config, &[0]);
    let inputs = Inputs {
        standings: &standings,
        ..inputs(&config, &view)
    };
    let quiesced = walk(&stable, &desired(&stable, &inputs).unwrap());
    for (before, after) in words(&stable).into_iter().zip(words(&quiesced)) {
        let expected = if before == 1 { slot::new(2, 1) } else { before };
        assert_eq!(after, expected);
    }
}
