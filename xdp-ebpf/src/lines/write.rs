//! The director's side: keys come into their lines and go.

use core::sync::atomic::AtomicU64;
use std::collections::BTreeMap;

use super::{
    Line, ServerLine4, ServerLine6, ServiceLine4, ServiceLine6, set_shared, word4, words6,
};
use crate::atomic::{load, store};
use crate::layout::{Served, SharedBy};

/// A line that can be written. Packets read it meanwhile: a key is written after all else of its entry, and taken away
/// before.
pub trait LineMut: Line {
    /// What the hash map has for a key.
    type Written: Copy;

    /// Entries that there is room for.
    const ENTRIES: usize;

    /// The key of an entry.
    fn key(&self, place: usize) -> Option<Self::Key>;
    /// Writes an entry.
    fn write(&self, place: usize, key: &Self::Key, value: Self::Written);
    /// Takes an entry away.
    fn clear(&self, place: usize);
    /// Keys of this line that have no room in it.
    fn elsewhere(&self) -> &AtomicU64;

    /// Where in the line a key stands.
    fn place_of(&self, key: &Self::Key) -> Option<usize> {
        (0..Self::ENTRIES).find(|place| self.key(*place) == Some(*key))
    }

    /// A key's value is new. `was_known`: whether the hash map had the key before; asked only if the line does not know.
    fn put(&self, key: &Self::Key, value: Self::Written, was_known: impl FnOnce() -> bool) {
        if let Some(place) = self.place_of(key) {
            self.write(place, key, value);
            return;
        }
        if load(self.elsewhere()) > 0 && was_known() {
            return;
        }
        let free = (0..Self::ENTRIES).find(|place| self.key(*place).is_none());
        match free {
            Some(place) => {
                self.write(place, key, value);
            }
            None => {
                store(self.elsewhere(), load(self.elsewhere()) + 1);
            }
        }
    }

    /// A key is gone. `was_known`: as in [`Self::put`].
    fn remove(&self, key: &Self::Key, was_known: impl FnOnce() -> bool) {
        match self.place_of(key) {
            Some(place) => self.clear(place),
            None => {
                let elsewhere = load(self.elsewhere());
                if elsewhere > 0 && was_known() {
                    store(self.elsewhere(), elsewhere - 1);
                }
            }
        }
    }
}

/// A key and its value in the hash map.
pub type Entry<L> = (<L as Line>::Key, <L as LineMut>::Written);

/// Makes lines say what the hash map holds, whatever they said before: a director before this one may have been killed
/// between the two. Packets find every key of the map meanwhile that they found before.
pub fn set_all<L: LineMut>(lines: &[L], map: &[Entry<L>]) {
    set_from(0, lines, map);
}

/// [`set_all`] for lines of which the first has a number.
pub(super) fn set_from<L: LineMut>(first: u32, lines: &[L], map: &[Entry<L>]) {
    let mut by_line: BTreeMap<u32, Vec<&Entry<L>>> = BTreeMap::new();
    for entry in map {
        by_line.entry(L::index(&entry.0)).or_default().push(entry);
    }
    for (index, line) in (first..).zip(lines) {
        let wanted = by_line.get(&index).map(Vec::as_slice).unwrap_or_default();
        for place in 0..L::ENTRIES {
            let standing = line.key(place);
            let is_wanted = |key: &L::Key| wanted.iter().any(|(wanted, _)| wanted == key);
            if standing.is_some_and(|key| !is_wanted(&key)) {
                line.clear(place);
            }
        }
        let mut elsewhere = 0;
        for (key, value) in wanted {
            let free = || (0..L::ENTRIES).find(|place| line.key(*place).is_none());
            match line.place_of(key).or_else(free) {
                Some(place) => line.write(place, key, *value),
                None => elsewhere += 1,
            }
        }
        if load(line.elsewhere()) != elsewhere {
            store(line.elsewhere(), elsewhere);
        }
    }
}

/// The other way round than [`word4`].
const fn key4(word: u64) -> crate::layout::Endpoint4 {
    let [a, b, c, d, high, low, protocol, zero] = word.to_ne_bytes();
    crate::layout::Endpoint4 {
        address: [a, b, c, d],
        port: [high, low],
        protocol,
        zero,
    }
}

/// The other way round than [`words6`].
const fn key6(high: u64, low: u64, rest: u32) -> crate::layout::Endpoint6 {
    let [first, last, protocol, zero] = rest.to_ne_bytes();
    crate::layout::Endpoint6 {
        // SAFETY: both are 16 bytes of plain data.
        address: unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>([high, low]) },
        port: [first, last],
        protocol,
        zero,
    }
}

impl LineMut for ServiceLine4 {
    type Written = Served;
    const ENTRIES: usize = 3;

    fn key(&self, place: usize) -> Option<Self::Key> {
        Some(load(self.keys.get(place)?))
            .filter(|word| *word != 0)
            .map(key4)
    }

    fn write(&self, place: usize, key: &Self::Key, value: Served) {
        store(&self.served[place], u64::from(value.0));
        store(&self.keys[place], word4(key));
    }

    fn clear(&self, place: usize) {
        store(&self.keys[place], 0);
    }

    fn elsewhere(&self) -> &AtomicU64 {
        &self.elsewhere
    }
}

impl LineMut for ServiceLine6 {
    type Written = Served;
    const ENTRIES: usize = 2;

    fn key(&self, place: usize) -> Option<Self::Key> {
        let [high, low, last] = self.entries.get(place)?.each_ref().map(load);
        // The lower half is the key's.
        (last != 0).then(|| key6(high, low, last as u32))
    }

    fn write(&self, place: usize, key: &Self::Key, value: Served) {
        let (high, low, rest) = words6(key);
        let [one, other, last] = &self.entries[place];
        store(one, high);
        store(other, low);
        store(last, u64::from(value.0) << 32 | u64::from(rest));
    }

    fn clear(&self, place: usize) {
        store(&self.entries[place][2], 0);
    }

    fn elsewhere(&self) -> &AtomicU64 {
        &self.elsewhere
    }
}

impl LineMut for ServerLine4 {
    type Written = SharedBy;
    const ENTRIES: usize = 1;

    fn key(&self, _: usize) -> Option<Self::Key> {
        Some(load(&self.key)).filter(|word| *word != 0).map(key4)
    }

    fn write(&self, _: usize, key: &Self::Key, value: SharedBy) {
        set_shared(&self.shared, &value);
        store(&self.key, word4(key));
    }

    fn clear(&self, _: usize) {
        store(&self.key, 0);
    }

    fn elsewhere(&self) -> &AtomicU64 {
        &self.elsewhere
    }
}

impl LineMut for ServerLine6 {
    type Written = SharedBy;
    const ENTRIES: usize = 1;

    fn key(&self, _: usize) -> Option<Self::Key> {
        let [high, low, last] = self.key.each_ref().map(load);
        // Written from 32 bits.
        (last != 0).then(|| key6(high, low, last as u32))
    }

    fn write(&self, _: usize, key: &Self::Key, value: SharedBy) {
        let (high, low, rest) = words6(key);
        let [one, other, last] = &self.key;
        set_shared(&self.shared, &value);
        store(one, high);
        store(other, low);
        store(last, u64::from(rest));
    }

    fn clear(&self, _: usize) {
        store(&self.key[2], 0);
    }

    fn elsewhere(&self) -> &AtomicU64 {
        &self.elsewhere
    }
}
