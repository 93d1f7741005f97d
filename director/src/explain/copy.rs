//! The live tables in ordinary memory.

use std::sync::atomic::{AtomicU64, Ordering};

use xdp_ebpf::connection::{Bucket, Bucket4, Bucket6};
use xdp_ebpf::layout::Load;
use xdp_ebpf::native::NativeTables;

use crate::datapath::{DatapathError, View};

/// Copies everything that the packet path looks up.
pub(super) fn copy(view: &View) -> Result<NativeTables, DatapathError> {
    let live = view.maps.read()?;
    let highest = live.destinations.keys().max().copied().unwrap_or(0);
    let mut tables = NativeTables::new(live.settings, highest + 1);
    copy_buckets::<Bucket4>(view.connections4.as_slice(), tables.buckets4());
    copy_buckets::<Bucket6>(view.connections6.as_slice(), tables.buckets6());
    for (id, live) in (0..=highest).zip(view.maps.loads.as_slice()) {
        let number = |word: &AtomicU64| AtomicU64::new(word.load(Ordering::Relaxed));
        let load = Load {
            active: number(&live.active),
            inactive: number(&live.inactive),
            weight: number(&live.weight),
            upper: number(&live.upper),
            lower: number(&live.lower),
            flags: number(&live.flags),
        };
        tables.loads.insert(id, load);
    }
    if view.maps.lease()?.is_some_and(|lease| lease.has_run_out()) {
        // Any tick that is past.
        tables.lease_until.set(1);
    }
    tables.set_templates(view.maps.templates()?);
    tables.set_localities(view.maps.localities()?);
    for service in live.services.keys() {
        tables.set_cursor(*service, view.maps.cursor(*service)?);
    }
    tables.services4 = live.services4.into_iter().collect();
    tables.services6 = live.services6.into_iter().collect();
    tables.ranges4 = live.ranges4;
    tables.ranges6 = live.ranges6;
    tables.endpoints = live.endpoints.into_iter().collect();
    tables.services = live.services.into_iter().collect();
    for (first, table) in &live.slots {
        let first = *first as usize;
        if tables.slots.len() < first + table.len() {
            tables.slots.resize(first + table.len(), 0);
        }
        tables.slots[first..first + table.len()].copy_from_slice(table);
    }
    tables.destinations = live.destinations.into_iter().collect();
    tables.real_servers4 = live.real_servers4.into_iter().collect();
    tables.real_servers6 = live.real_servers6.into_iter().collect();
    tables.addresses4 = live.addresses4.into_iter().collect();
    tables.addresses6 = live.addresses6.into_iter().collect();
    tables.routes4 = live.routes4;
    tables.routes6 = live.routes6;
    tables.next_hops = live.next_hops.into_iter().collect();
    tables.neighbours4 = live.neighbours4.into_iter().collect();
    tables.neighbours6 = live.neighbours6.into_iter().collect();
    tables.egress = live.egress.into_iter().collect();
    Ok(tables)
}

fn copy_buckets<B: Bucket>(from: &[B], to: &[B]) {
    for (from, to) in from.iter().zip(to) {
        for way in 0..B::WAYS {
            to.set_key(way, from.key(way));
            let value = from.value(way).load(Ordering::Relaxed);
            to.value(way).store(value, Ordering::Relaxed);
        }
    }
}
