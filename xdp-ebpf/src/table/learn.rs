//! Connections that a peer forwards, so that they go on here should it fail.
//!
//! They stand in the same tables as this node's own: upkeep, counts and listings need not know of them, and a packet finds
//! them where it finds all others. But only the CPU that owns a table writes it; so whoever hears of them has that CPU run
//! a program ([`crate::layout::programs::LEARN`]), which does for each what stands here.

use super::{find, recount, update};
use crate::connection::Value;
use crate::layout::learned;
use crate::reach::{Key, Shape};
use crate::tables::Tables;

/// Puts a peer's connection into this CPU's table; gives one of [`learned`].
///
/// `value` has [`Value::LEARNED`] and [`Value::SENT`]: nobody is told of what a peer told. What a packet here has used last
/// is this node's and stays, even if that was in the same second: who forwards a connection knows best where it goes. Which of
/// two peers is right has been decided before.
#[inline(always)]
pub fn learn<S: Shape, T: Tables>(tables: &T, key: &Key<S>, value: u64) -> u64 {
    let Some(settings) = tables.settings() else {
        return learned::REFUSED;
    };
    let value = Value(value);
    let known = find::<S, T>(tables, settings, tables.cpu(), *key);
    if !known.is_some() {
        return if S::put(tables, *key, value, true) {
            learned::TAKEN
        } else {
            learned::REFUSED
        };
    }
    let is_own = known.value.flags() & Value::LEARNED == 0;
    let is_older = value.idle_s(settings.now_s) >= known.value.idle_s(settings.now_s);
    if is_own && is_older {
        return learned::KNOWN_BETTER;
    }
    // A copy stays one: its original stands in another CPU's table.
    let value = value.with(known.value.flags() & Value::COPY);
    update::<S, T>(tables, &known, value);
    recount(tables, known.value, value);
    learned::TAKEN
}
