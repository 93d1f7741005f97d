//! A hash map of the kernel and the lines before it, written as one.

use aya::maps::{HashMap, Map, MapData, MapError};
use xdp_ebpf::lines::{Entry, LineMut, set_all};

use super::error::DatapathError;
use super::load::mapped;
use super::maps::{failed, put};
use super::memory::{Mapped, Shared};
use super::plain::{Plain, PlainData};

/// A hash map whose packets' lookups turn to an array of lines first.
pub(super) struct Found<L: LineMut, V: aya::Pod>
where
    L::Key: PlainData,
{
    /// Everything.
    pub(super) map: HashMap<MapData, Plain<L::Key>, V>,
    lines: Mapped<L>,
    name: &'static str,
}

impl<L: LineMut + Shared, V: aya::Pod> Found<L, V>
where
    L::Key: PlainData,
{
    /// Of two maps, which it makes agree. `written`: what lines have for a value of the hash map.
    pub(super) fn new(
        (map, name): (Map, &'static str),
        (lines, lines_name, number): (Map, &'static str, u32),
        written: impl Fn(V) -> L::Written,
    ) -> Result<Self, DatapathError> {
        let map: HashMap<MapData, Plain<L::Key>, V> =
            HashMap::try_from(map).map_err(failed("use", name))?;
        let lines = mapped(lines, lines_name, number)?;
        let entries: Vec<Entry<L>> = map
            .iter()
            .map(|entry| entry.map(|(key, value)| (key.0, written(value))))
            .collect::<Result<_, MapError>>()
            .map_err(failed("read", name))?;
        set_all(lines.as_slice(), &entries);
        Ok(Self { map, lines, name })
    }

    /// Writes or removes a key.
    pub(super) fn put(
        &mut self,
        key: L::Key,
        value: Option<(V, L::Written)>,
    ) -> Result<(), DatapathError> {
        let Some(line) = self.lines.as_slice().get(L::index(&key) as usize) else {
            // There are as many as there are numbers of lines.
            return Ok(());
        };
        let was_known = || self.map.get(&Plain(key), 0).is_ok();
        match value {
            Some((value, written)) => {
                // A key that is new to a full line is looked for in the map once the line says so: it must be there first.
                let was_known = line.place_of(&key).is_none() && was_known();
                put(&mut self.map, self.name, Plain(key), Some(value))?;
                line.put(&key, written, || was_known);
                Ok(())
            }
            None => {
                line.remove(&key, was_known);
                put(&mut self.map, self.name, Plain(key), None)
            }
        }
    }
}
