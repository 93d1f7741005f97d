//! Services that track connections on change: their slots in the tables.

use xdp_ebpf::layout::slot;

use super::*;

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
    assert!(words(&back).iter().all(|word| *word == slot::new(1, 1)));
}

/// Connections that have entries already count until passes have shown that all are where the table has them.
#[test]
fn tracking_is_changed_by_a_reload() {
    let view = view(&[]);
    let servers = ["10.0.0.1", "10.0.0.2"];
    let all = plan(&Tables::default(), &with(Track::All, &servers), &view);
    assert!(
        !all.services4
            .values()
            .any(|served| served.tracks_on_change())
    );
    let on_change = plan(&all, &with(ON_CHANGE, &servers), &view);
    assert!(
        words(&on_change)
            .iter()
            .all(|word| owners::is_marked(*word))
    );
    let back = plan(&on_change, &with(Track::All, &servers), &view);
    assert_eq!(words(&back), words(&all));
    assert_eq!(back.services4, all.services4);
}

/// One that is out of service has no slots: nobody asks for its weight where the table alone decides.
#[test]
fn who_is_out_of_service_has_no_slots() {
    let view = view(&[]);
    let config = with(ON_CHANGE, &["10.0.0.1", "10.0.0.2"]);
    let stable = settled(&plan(&Tables::default(), &config, &view));
    let weight = |weight| Effective {
        weight,
        ..Effective::default()
    };
    let standings = Standings(vec![ServiceStanding {
        servers: vec![weight(0), weight(1)],
        ..ServiceStanding::default()
    }]);
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
