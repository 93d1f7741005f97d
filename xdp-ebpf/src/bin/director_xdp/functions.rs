//! Global functions: the kernel verifies each once, with any arguments, and not again where it is called.
//!
//! That they are global is told by their BTF, which the linker writes for functions that are exported. Arguments and
//! results are 64-bit numbers, the width of a register.

use xdp_ebpf::path::schedule;
use xdp_ebpf::reach::{Narrow, Wide};
use xdp_ebpf::table;

use super::maps::Maps;

/// Puts a connection into the narrow table, or says why not: the number of a [`table::Put`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn put4(key: u64, value: u64, is_new: u64) -> u64 {
    table::put::<Narrow, _>(&Maps, &key, value, is_new != 0).to_number()
}

/// Puts a connection into the wide table, or says why not: the number of a [`table::Put`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn put6(first: u64, second: u64, third: u64, value: u64, is_new: u64) -> u64 {
    table::put::<Wide, _>(&Maps, &[first, second, third], value, is_new != 0).to_number()
}

/// Puts a connection into the crowded narrow table: 1 if there was room.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn put_beyond4(key: u64, value: u64, number: u64) -> u64 {
    u64::from(table::put_beyond::<Narrow, _>(&Maps, &key, value, number))
}

/// Puts a connection into the crowded wide table: 1 if there was room.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn put_beyond6(first: u64, second: u64, third: u64, value: u64, number: u64) -> u64 {
    let key = [first, second, third];
    u64::from(table::put_beyond::<Wide, _>(&Maps, &key, value, number))
}

/// Enters a peer's connection into the narrow table.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn learn4(key: u64, value: u64) -> u64 {
    table::learn::learn::<Narrow, _>(&Maps, &key, value)
}

/// Enters a peer's connection into the wide table.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn learn6(first: u64, second: u64, third: u64, value: u64) -> u64 {
    table::learn::learn::<Wide, _>(&Maps, &[first, second, third], value)
}

/// Finds a connection in the narrow tables of all CPUs but one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn elsewhere4(key: u64, but: u64) -> u64 {
    table::find_elsewhere::<Narrow, _>(&Maps, &key, but as u32)
}

/// Finds a connection in the wide tables of all CPUs but one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn elsewhere6(first: u64, second: u64, third: u64, but: u64) -> u64 {
    table::find_elsewhere::<Wide, _>(&Maps, &[first, second, third], but as u32)
}

/// Chooses by a table that the director built.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn choose_by_table(service: u64, hash: u64) -> u64 {
    u64::from(schedule::table_based::choose(
        &Maps,
        service as u16,
        hash as u32,
    ))
}

/// Chooses by live counts.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn choose_by_count(service: u64) -> u64 {
    u64::from(schedule::counting::choose(&Maps, service as u16))
}

/// Chooses by address and live counts.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn choose_by_locality(service: u64, high: u64, low: u64, now_s: u64) -> u64 {
    u64::from(schedule::locality::choose(
        &Maps,
        service as u16,
        [high, low],
        now_s as u32,
    ))
}
