//! A hash map of the kernel and the lines before it, written as one: by the director that runs, which holds the lock of its
//! directory. Whoever else opens them ([`super::View`]) only reads.

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
    /// Of two maps. Writes nothing.
    pub(super) fn new(
        (map, name): (Map, &'static str),
        (lines, lines_name, number): (Map, &'static str, u32),
    ) -> Result<Self, DatapathError> {
        let map = HashMap::try_from(map).map_err(failed("use", name))?;
        let lines = mapped(lines, lines_name, number)?;
        Ok(Self { map, lines, name })
    }

    /// Has the lines say what the hash map holds: a director before this one may have been killed between the two.
    /// `written`: what lines have for a value of the hash map.
    pub(super) fn agree(&self, written: impl Fn(V) -> L::Written) -> Result<(), DatapathError> {
        let entries: Vec<Entry<L>> = self
            .map
            .iter()
            .map(|entry| entry.map(|(key, value)| (key.0, written(value))))
            .collect::<Result<_, MapError>>()
            .map_err(failed("read", self.name))?;
        set_all(self.lines.as_slice(), &entries);
        Ok(())
    }

    /// Writes or removes a key: in the map first, so that a line never counts what the map refused.
    pub(super) fn put(
        &mut self,
        key: L::Key,
        value: Option<(V, L::Written)>,
    ) -> Result<(), DatapathError> {
        let line = self.lines.as_slice().get(L::index(&key) as usize);
        // Whoever stands in the line is known; of others the map is asked before it changes.
        let is_in_line = line.is_some_and(|line| line.place_of(&key).is_some());
        let was_known = !is_in_line && self.map.get(&Plain(key), 0).is_ok();
        let (value, written) = value.unzip();
        put(&mut self.map, self.name, Plain(key), value)?;
        match (line, written) {
            (Some(line), Some(written)) => line.put(&key, written, || was_known),
            (Some(line), None) => line.remove(&key, || was_known),
            // There are as many lines as there are numbers of them.
            (None, _) => {}
        }
        Ok(())
    }
}
