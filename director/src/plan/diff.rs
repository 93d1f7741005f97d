//! The way from one state of the tables to another.

use std::collections::BTreeMap;

use xdp_ebpf::layout::{Destination, Served, Service, SharedBy, destination, service};

use super::derived::add;
use super::tables::{Share, Tables, Write};

/// The writes that make the desired state out of the current one.
///
/// After every single one of them each packet meets a consistent state: what is pointed to is written before what
/// points to it, and taken away after it. So new interfaces, next hops and routes come first, then real servers'
/// reverse entries, destinations, scheduling tables (in slots that nothing points to), the services' records (which
/// switch to them), and last the keys that packets are looked up by. Removals go the other way. A real server that gets
/// connections is told so before the switch, one that gets none any more after it. A key that says that connections are
/// tracked on change forgets that before its service's record does, whose slots then mean something else.
#[must_use]
pub fn diff(current: &Tables, desired: &Tables) -> Vec<Write> {
    let mut writes = Vec::new();
    build_up(current, desired, &mut writes);
    switch(current, desired, &mut writes);
    tear_down(current, desired, &mut writes);
    writes
}

/// Entries that are not there or differ.
fn changed<'a, K: Ord, V: PartialEq>(
    current: &'a BTreeMap<K, V>,
    desired: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    desired
        .iter()
        .filter(|(key, value)| current.get(key) != Some(*value))
}

/// Entries as they are of keys that stay, where they are of these.
fn kept<'a, K: Ord, V>(
    current: &'a BTreeMap<K, V>,
    desired: &'a BTreeMap<K, V>,
    are: impl Fn(&V) -> bool,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    current
        .iter()
        .filter(move |(key, value)| are(value) && desired.contains_key(key))
}

/// Keys that are too many.
fn removed<'a, K: Ord, V>(
    current: &'a BTreeMap<K, V>,
    desired: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    current.keys().filter(|key| !desired.contains_key(key))
}

fn build_up(current: &Tables, desired: &Tables, writes: &mut Vec<Write>) {
    if current.settings != desired.settings {
        writes.push(Write::Settings(desired.settings));
    }
    // Whose frames are taken. One word for all MAC addresses with the same last byte: there is no order to keep.
    writes.extend(
        changed(&current.own_macs, &desired.own_macs)
            .map(|(last_byte, word)| Write::OwnMac(*last_byte, Some(*word))),
    );
    writes.extend(
        removed(&current.own_macs, &desired.own_macs)
            .map(|last_byte| Write::OwnMac(*last_byte, None)),
    );
    // Where packets leave by.
    writes.extend(
        changed(&current.interfaces, &desired.interfaces)
            .map(|(key, value)| Write::Interface(*key, Some(*value))),
    );
    writes.extend(
        changed(&current.egress, &desired.egress)
            .map(|(key, value)| Write::Egress(*key, Some(*value))),
    );
    writes.extend(
        changed(&current.neighbours4, &desired.neighbours4)
            .map(|(key, value)| Write::Neighbour4(*key, Some(*value))),
    );
    writes.extend(
        changed(&current.neighbours6, &desired.neighbours6)
            .map(|(key, value)| Write::Neighbour6(*key, Some(*value))),
    );
    writes.extend(
        changed(&current.next_hops, &desired.next_hops)
            .map(|(key, value)| Write::NextHop(*key, Some(*value))),
    );
    writes.extend(
        changed(&current.routes4, &desired.routes4)
            .map(|(key, value)| Write::Route4(*key, Some(*value))),
    );
    writes.extend(
        changed(&current.routes6, &desired.routes6)
            .map(|(key, value)| Write::Route6(*key, Some(*value))),
    );

    for (key, flags) in &desired.addresses4 {
        let known = current.addresses4.get(key).copied().unwrap_or(0);
        if known | flags != known {
            writes.push(Write::Address4(*key, Some(known | flags)));
        }
    }
    for (key, flags) in &desired.addresses6 {
        let known = current.addresses6.get(key).copied().unwrap_or(0);
        if known | flags != known {
            writes.push(Write::Address6(*key, Some(known | flags)));
        }
    }
    // How replies are recognised: everything old and new, until the old is taken away.
    for (key, wanted) in changed(&current.real_servers4, &desired.real_servers4) {
        if let Some(both) = union(current.real_servers4.get(key), wanted) {
            writes.push(Write::RealServer4(*key, Some(both)));
        }
    }
    for (key, wanted) in changed(&current.real_servers6, &desired.real_servers6) {
        if let Some(both) = union(current.real_servers6.get(key), wanted) {
            writes.push(Write::RealServer6(*key, Some(both)));
        }
    }

    writes.extend(
        changed(&current.endpoints, &desired.endpoints)
            .map(|(id, record)| Write::Endpoint(*id, Some(*record))),
    );
    for id in desired.destinations.keys() {
        if !current.destinations.contains_key(id) {
            writes.push(Write::ResetCounters(*id));
        }
    }
    writes.extend(
        changed(&current.shares, &desired.shares)
            .filter(|(id, share)| !stops(current.shares.get(id), share))
            .map(|(id, share)| Write::Share(*id, Some(*share))),
    );
    for (id, record) in changed(&current.destinations, &desired.destinations) {
        let known = current.destinations.get(id);
        if !leaves(known, record) {
            writes.push(Write::Destination(*id, Some(*record)));
        }
    }
}

/// Whether a destination leaves service with this change: that must wait until it is out of the slots, and others that take
/// its place are in them. Else there would be nobody for a moment, and clients were refused.
fn leaves(known: Option<&Destination>, record: &Destination) -> bool {
    const LEFT: u8 = destination::RETIRED | destination::OUT;
    known.is_some_and(|known| record.flags & !known.flags & LEFT != 0)
}

/// The same by its weight.
fn stops(known: Option<&Share>, share: &Share) -> bool {
    share.weight == 0 && known.is_some_and(|known| known.weight > 0)
}

/// The wanted endpoints of a real server and as many of its present ones as fit. `None`: that is what stands there.
fn union(current: Option<&SharedBy>, wanted: &SharedBy) -> Option<SharedBy> {
    let Some(current) = current else {
        return Some(*wanted);
    };
    let mut both = *wanted;
    for endpoint in current.endpoints.into_iter().filter(|it| *it != 0) {
        add(&mut both, endpoint);
    }
    (both != *current).then_some(both)
}

fn switch(current: &Tables, desired: &Tables, writes: &mut Vec<Write>) {
    // Services that go: their keys first.
    writes.extend(
        removed(&current.services4, &desired.services4).map(|key| Write::ServiceKey4(*key, None)),
    );
    writes.extend(
        removed(&current.services6, &desired.services6).map(|key| Write::ServiceKey6(*key, None)),
    );
    writes.extend(removed(&current.ranges4, &desired.ranges4).map(|key| Write::Range4(*key, None)));
    writes.extend(removed(&current.ranges6, &desired.ranges6).map(|key| Write::Range6(*key, None)));

    // Keys of services that track all connections from now on.
    let forgets = |served: &Served| {
        let record = desired.services.get(&served.service());
        served.tracks_on_change()
            && record.is_some_and(|record| record.flags & service::ON_CHANGE == 0)
    };
    let plain = |served: &Served| Some(Served::new(served.endpoint(), served.service()));
    let stay4 = kept(&current.services4, &desired.services4, forgets);
    writes.extend(stay4.map(|(key, served)| Write::ServiceKey4(*key, plain(served))));
    let stay6 = kept(&current.services6, &desired.services6, forgets);
    writes.extend(stay6.map(|(key, served)| Write::ServiceKey6(*key, plain(served))));
    let stay4 = kept(&current.ranges4, &desired.ranges4, forgets);
    writes.extend(stay4.map(|(key, served)| Write::Range4(*key, plain(served))));
    let stay6 = kept(&current.ranges6, &desired.ranges6, forgets);
    writes.extend(stay6.map(|(key, served)| Write::Range6(*key, plain(served))));

    for (id, record) in &desired.services {
        let standing = current.services.get(id);
        if let Some(table) = table(desired, record).filter(|wanted| {
            // The same slots with the same content need not be written; others are free, or they would not be wanted.
            standing.and_then(|standing| table(current, standing)) != Some(*wanted)
                || standing.map(|standing| standing.first_slot) != Some(record.first_slot)
        }) {
            writes.push(Write::Slots(record.first_slot, table.clone()));
        }
        if standing != Some(record) {
            writes.push(Write::Service(*id, Some(*record)));
        }
    }
    let new_keys4 = changed(&current.services4, &desired.services4);
    writes.extend(new_keys4.map(|(key, id)| Write::ServiceKey4(*key, Some(*id))));
    let new_keys6 = changed(&current.services6, &desired.services6);
    writes.extend(new_keys6.map(|(key, id)| Write::ServiceKey6(*key, Some(*id))));
    writes.extend(
        changed(&current.ranges4, &desired.ranges4)
            .map(|(key, served)| Write::Range4(*key, Some(*served))),
    );
    writes.extend(
        changed(&current.ranges6, &desired.ranges6)
            .map(|(key, served)| Write::Range6(*key, Some(*served))),
    );
}

fn table<'a>(tables: &'a Tables, record: &Service) -> Option<&'a std::sync::Arc<[u32]>> {
    (record.slots > 0)
        .then(|| tables.slots.get(&record.first_slot))
        .flatten()
}

fn tear_down(current: &Tables, desired: &Tables, writes: &mut Vec<Write>) {
    // Records without a key and without destinations: empty slots first, then nothing.
    for id in removed(&current.services, &desired.services) {
        if let Some(record) = current.services.get(id).filter(|record| record.slots > 0) {
            writes.push(Write::Service(
                *id,
                Some(Service {
                    first_slot: 0,
                    slots: 0,
                    ..*record
                }),
            ));
        }
    }
    for (id, record) in changed(&current.destinations, &desired.destinations) {
        if leaves(current.destinations.get(id), record) {
            writes.push(Write::Destination(*id, Some(*record)));
        }
    }
    writes.extend(
        changed(&current.shares, &desired.shares)
            .filter(|(id, share)| stops(current.shares.get(id), share))
            .map(|(id, share)| Write::Share(*id, Some(*share))),
    );
    writes.extend(
        removed(&current.destinations, &desired.destinations)
            .map(|id| Write::Destination(*id, None)),
    );
    writes.extend(removed(&current.shares, &desired.shares).map(|id| Write::Share(*id, None)));
    writes
        .extend(removed(&current.services, &desired.services).map(|id| Write::Service(*id, None)));
    writes.extend(
        removed(&current.endpoints, &desired.endpoints).map(|id| Write::Endpoint(*id, None)),
    );

    // What was only more than wanted so far.
    for (key, wanted) in changed(&current.real_servers4, &desired.real_servers4) {
        if union(current.real_servers4.get(key), wanted).is_none_or(|both| both != *wanted) {
            writes.push(Write::RealServer4(*key, Some(*wanted)));
        }
    }
    for (key, wanted) in changed(&current.real_servers6, &desired.real_servers6) {
        if union(current.real_servers6.get(key), wanted).is_none_or(|both| both != *wanted) {
            writes.push(Write::RealServer6(*key, Some(*wanted)));
        }
    }
    writes.extend(
        removed(&current.real_servers4, &desired.real_servers4)
            .map(|key| Write::RealServer4(*key, None)),
    );
    writes.extend(
        removed(&current.real_servers6, &desired.real_servers6)
            .map(|key| Write::RealServer6(*key, None)),
    );
    for (key, known) in &current.addresses4 {
        match desired.addresses4.get(key) {
            Some(flags) if known | flags != *flags => {
                writes.push(Write::Address4(*key, Some(*flags)))
            }
            Some(_) => {}
            None => writes.push(Write::Address4(*key, None)),
        }
    }
    for (key, known) in &current.addresses6 {
        match desired.addresses6.get(key) {
            Some(flags) if known | flags != *flags => {
                writes.push(Write::Address6(*key, Some(*flags)))
            }
            Some(_) => {}
            None => writes.push(Write::Address6(*key, None)),
        }
    }

    writes.extend(removed(&current.routes4, &desired.routes4).map(|key| Write::Route4(*key, None)));
    writes.extend(removed(&current.routes6, &desired.routes6).map(|key| Write::Route6(*key, None)));
    writes.extend(
        removed(&current.next_hops, &desired.next_hops).map(|id| Write::NextHop(*id, None)),
    );
    writes.extend(
        removed(&current.neighbours4, &desired.neighbours4)
            .map(|key| Write::Neighbour4(*key, None)),
    );
    writes.extend(
        removed(&current.neighbours6, &desired.neighbours6)
            .map(|key| Write::Neighbour6(*key, None)),
    );
    writes.extend(
        removed(&current.egress, &desired.egress).map(|ifindex| Write::Egress(*ifindex, None)),
    );
    writes.extend(
        removed(&current.interfaces, &desired.interfaces).map(|slot| Write::Interface(*slot, None)),
    );
}
