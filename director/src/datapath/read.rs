//! What the maps hold: for adopting them, and for telling an operator.

use std::collections::BTreeMap;
use std::mem::offset_of;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{HashMap, IterableMap, MapData, MapError};
use xdp_ebpf::layout::{
    Counters, Fragment, FragmentKey4, FragmentKey6, Locality, LocalityKey, NextHop, Reason, Route,
    Served, Template, TemplateKey, limits, maps, own_mac,
};

use super::error::DatapathError;
use super::maps::{LocalityWords, Maps, failed};
use super::plain::Plain;
use super::sys;
use crate::plan::{Share, Tables};

/// Destinations whose counters are read by one call of the kernel.
const COUNTERS_AT_ONCE: usize = 1024;

/// Some elements of a map, and what the next ones come after; `None`: there are no others.
type Batch<T> = (Vec<T>, Option<u32>);

impl Maps {
    /// Reads everything back that the director writes.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn read(&self) -> Result<Tables, DatapathError> {
        let mut tables = Tables {
            settings: self
                .settings
                .get(&0, 0)
                .map_err(failed("read", maps::SETTINGS))?
                .0,
            services4: contents(&self.services4.map, maps::SERVICES4, |key| key.0, Served)?,
            services6: contents(&self.services6.map, maps::SERVICES6, |key| key.0, Served)?,
            ranges4: ranges(&self.ranges4, maps::RANGES4)?,
            ranges6: ranges(&self.ranges6, maps::RANGES6)?,
            real_servers4: contents(
                &self.real_servers4.map,
                maps::REAL_SERVERS4,
                |key| key.0,
                |shared| shared.0,
            )?,
            real_servers6: contents(
                &self.real_servers6.map,
                maps::REAL_SERVERS6,
                |key| key.0,
                |shared| shared.0,
            )?,
            addresses4: contents(&self.addresses4, maps::ADDRESSES4, |key| key, |flags| flags)?,
            addresses6: contents(&self.addresses6, maps::ADDRESSES6, |key| key, |flags| flags)?,
            routes4: routes(&self.routes4, maps::ROUTES4)?,
            routes6: routes(&self.routes6, maps::ROUTES6)?,
            neighbours4: contents(
                &self.neighbours4,
                maps::NEIGHBOURS4,
                |key| key.0,
                |hop| hop.0,
            )?,
            neighbours6: contents(
                &self.neighbours6,
                maps::NEIGHBOURS6,
                |key| key.0,
                |hop| hop.0,
            )?,
            egress: contents(&self.egress, maps::EGRESS, |ifindex| ifindex, |slot| slot)?,
            ..Tables::default()
        };
        for slot in 0..limits::INTERFACES {
            match self.interfaces.get(slot, 0) {
                Ok(interface) => drop(tables.interfaces.insert(slot, interface.if_index)),
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(failed("read", maps::INTERFACES)(error)),
            }
        }
        for last_byte in 0..own_mac::ENTRIES {
            let word = self.own_macs.get(&last_byte, 0);
            let word = word.map_err(failed("read", maps::OWN_MACS))?;
            if word != own_mac::ANY {
                tables.own_macs.insert(last_byte, word);
            }
        }
        for id in 0..limits::NEXT_HOPS {
            let hop = self
                .next_hops
                .get(&id, 0)
                .map_err(failed("read", maps::NEXT_HOPS))?
                .0;
            if hop != NextHop::default() {
                tables.next_hops.insert(id, hop);
            }
        }
        for id in 1..limits::DESTINATIONS {
            let record = self
                .destinations
                .get(&id, 0)
                .map_err(failed("read", maps::DESTINATIONS))?
                .0;
            if record.method != 0 {
                tables.destinations.insert(id, record);
                tables.shares.insert(id, self.share_of(id));
            }
        }
        // Ids are below their limits, which 16 bits hold.
        for id in 1..limits::ENDPOINTS as u16 {
            let record = self
                .endpoints
                .get(&u32::from(id), 0)
                .map_err(failed("read", maps::ENDPOINTS))?
                .0;
            if record.service != 0 {
                tables.endpoints.insert(id, record);
            }
        }
        for id in 1..limits::SERVICES as u16 {
            let record = self
                .services
                .get(&u32::from(id), 0)
                .map_err(failed("read", maps::SERVICES))?
                .0;
            if record.family == 0 {
                continue;
            }
            if record.slots > 0 {
                let slots = record.first_slot..record.first_slot.saturating_add(record.slots);
                let table = slots
                    .map(|slot| self.slots.get(&slot, 0))
                    .collect::<Result<Vec<u32>, _>>()
                    .map_err(failed("read", maps::SLOTS))?;
                tables.slots.insert(record.first_slot, table.into());
            }
            tables.services.insert(id, record);
        }
        Ok(tables)
    }

    fn share_of(&self, id: u32) -> Share {
        let Some(load) = self.loads.as_slice().get(id as usize) else {
            return Share::default();
        };
        // Written from 32 bits.
        let number = |word: &AtomicU64| word.load(Ordering::Relaxed) as u32;
        Share {
            weight: number(&load.weight),
            upper: number(&load.upper),
            lower: number(&load.lower),
        }
    }

    /// How far `rr` and `wrr` are in a service's table.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn cursor(&self, service: u16) -> Result<u64, DatapathError> {
        self.cursors
            .get(&u32::from(service), 0)
            .map_err(failed("read", maps::CURSORS))
    }

    /// What `lblc` and `lblcr` remember. Packets change it meanwhile, and where they take away what was just read the
    /// kernel begins anew: so only so much is read as fits twice.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn localities(&self) -> Result<Vec<(LocalityKey, Locality)>, DatapathError> {
        self.localities
            .iter()
            .take(2 * limits::LOCALITIES as usize)
            .map(|entry| entry.map(|(key, words)| (key.0, locality(words))))
            .collect::<Result<_, _>>()
            .map_err(failed("read", maps::LOCALITIES))
    }

    /// Clients that persistence remembers; as much of them as [`Self::localities`] reads.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn templates(&self) -> Result<Vec<(TemplateKey, Template)>, DatapathError> {
        self.templates
            .iter()
            .take(2 * limits::TEMPLATES as usize)
            .map(|entry| entry.map(|(key, template)| (key.0, template.0)))
            .collect::<Result<_, _>>()
            .map_err(failed("read", maps::TEMPLATES))
    }

    /// As [`Self::templates`], a few of them at a time: those after `after`, which is what the call before gave; `None`: the
    /// first. Gives `None` with the last ones.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn some_templates(
        &self,
        after: Option<u32>,
        most: usize,
    ) -> Result<Batch<(TemplateKey, Template)>, DatapathError> {
        let (some, next) = batch(&self.templates, maps::TEMPLATES, after, most)?;
        let some = some.map(|(key, template)| (key.0, template.0));
        Ok((some.collect(), next))
    }

    /// What persistence remembers of a client.
    #[must_use]
    pub fn template(&self, key: &TemplateKey) -> Option<Template> {
        self.templates.get(&Plain(*key), 0).ok().map(|it| it.0)
    }

    /// Replaces or takes away what persistence remembers of a client.
    ///
    /// # Errors
    /// When the kernel refuses a write.
    pub fn put_template(
        &mut self,
        key: TemplateKey,
        template: Option<Template>,
    ) -> Result<(), DatapathError> {
        super::maps::put(
            &mut self.templates,
            maps::TEMPLATES,
            Plain(key),
            template.map(Plain),
        )
    }

    /// Addresses that `lblc` and `lblcr` remember, and when each was last used by the table clock: a few at a time, as
    /// [`Self::some_templates`].
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn some_localities(
        &self,
        after: Option<u32>,
        most: usize,
    ) -> Result<Batch<(LocalityKey, u32)>, DatapathError> {
        let (some, next) = batch(&self.localities, maps::LOCALITIES, after, most)?;
        // Written from 32 bits.
        let seen_s = |words: LocalityWords| words[offset_of!(Locality, seen_s) / 8] as u32;
        let some = some.map(|(key, words)| (key.0, seen_s(words)));
        Ok((some.collect(), next))
    }

    /// Has `lblc` and `lblcr` forget an address.
    ///
    /// # Errors
    /// When the kernel refuses a write.
    pub fn remove_locality(&mut self, key: LocalityKey) -> Result<(), DatapathError> {
        super::maps::put(&mut self.localities, maps::LOCALITIES, Plain(key), None)
    }

    /// Traffic of a destination, over all CPUs.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn counters(&self, destination: u32) -> Result<Counters, DatapathError> {
        let values = self
            .counters
            .get(&destination, 0)
            .map_err(failed("read", maps::COUNTERS))?;
        Ok(sum(values.iter().map(|it| it.0)))
    }

    /// Traffic of all destinations below `end`, over all CPUs, by their ids. A few calls of the kernel: one for each of
    /// thousands would hold up what else the main loop does.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn all_counters(&self, end: u32) -> Result<Vec<Counters>, DatapathError> {
        let cpus = self.cpus();
        let mut values = vec![Plain(Counters::default()); COUNTERS_AT_ONCE * cpus];
        let mut all = Vec::with_capacity(end as usize);
        while all.len() < end as usize {
            let first = all.len() as u32;
            let read = sys::read_batch(
                IterableMap::map(&self.counters).fd().as_fd(),
                first,
                cpus,
                &mut values,
            )
            .map_err(|source| failed("read", maps::COUNTERS)(MapError::IoError(source)))?;
            if read == 0 {
                break;
            }
            all.extend(
                values
                    .chunks(cpus)
                    .take(read)
                    .map(|each| sum(each.iter().map(|it| it.0))),
            );
        }
        Ok(all)
    }

    /// Packets counted under each reason, over all CPUs.
    ///
    /// # Errors
    /// When the kernel refuses a read.
    pub fn reasons(&self) -> Result<Vec<(Reason, u64)>, DatapathError> {
        Reason::ALL
            .iter()
            .map(|reason| {
                let values = self
                    .reasons
                    .get(&(*reason as u32), 0)
                    .map_err(failed("read", maps::REASONS))?;
                Ok((*reason, values.iter().sum()))
            })
            .collect()
    }

    /// Whether the first fragment of a datagram has been seen, and what it decided still holds.
    #[must_use]
    pub fn knows_fragment4(&self, key: &FragmentKey4, now_ns: u64) -> bool {
        let known = self.fragments4.get(&Plain(*key), 0);
        known.is_ok_and(|known| holds(&known.0, now_ns))
    }

    /// As [`Self::knows_fragment4`].
    #[must_use]
    pub fn knows_fragment6(&self, key: &FragmentKey6, now_ns: u64) -> bool {
        let known = self.fragments6.get(&Plain(*key), 0);
        known.is_ok_and(|known| holds(&known.0, now_ns))
    }
}

fn sum(each: impl Iterator<Item = Counters>) -> Counters {
    each.fold(Counters::default(), |sum, value| Counters {
        connections: sum.connections + value.connections,
        in_packets: sum.in_packets + value.in_packets,
        in_bytes: sum.in_bytes + value.in_bytes,
        out_packets: sum.out_packets + value.out_packets,
        out_bytes: sum.out_bytes + value.out_bytes,
        ..sum
    })
}

/// Whether the packet path still follows this. One that is over stands in the map until its room is needed; a fragment
/// handed in because of it would come straight back, round and round.
const fn holds(known: &Fragment, now_ns: u64) -> bool {
    now_ns < known.expires_ns
}

/// From the words as they stand in the map.
fn locality(words: LocalityWords) -> Locality {
    let [members @ .., word, seen_s] = words;
    Locality {
        members: members.map(AtomicU64::new),
        word: AtomicU64::new(word),
        seen_s: AtomicU64::new(seen_s),
    }
}

pub(super) fn contents<K: aya::Pod, V: aya::Pod, Key: Ord, Value>(
    map: &HashMap<MapData, K, V>,
    name: &'static str,
    key: impl Fn(K) -> Key,
    value: impl Fn(V) -> Value,
) -> Result<BTreeMap<Key, Value>, DatapathError> {
    map.iter()
        .map(|entry| entry.map(|(k, v)| (key(k), value(v))))
        .collect::<Result<_, _>>()
        .map_err(failed("read", name))
}

/// Some elements of a hash map by one call of the kernel: one for each of thousands would hold up what else the thread does.
pub(super) fn batch<K: aya::Pod + Default, V: aya::Pod + Default>(
    map: &HashMap<MapData, K, V>,
    name: &'static str,
    after: Option<u32>,
    most: usize,
) -> Result<(impl Iterator<Item = (K, V)>, Option<u32>), DatapathError> {
    let (mut keys, mut values) = (vec![K::default(); most], vec![V::default(); most]);
    let (read, next) = sys::read_hash_batch(
        IterableMap::map(map).fd().as_fd(),
        after,
        &mut keys,
        &mut values,
    )
    .map_err(|source| failed("read", name)(MapError::IoError(source)))?;
    Ok((keys.into_iter().zip(values).take(read), next))
}

fn ranges<K: super::plain::PlainData + Ord>(
    map: &LpmTrie<MapData, Plain<K>, u32>,
    name: &'static str,
) -> Result<BTreeMap<(u32, K), Served>, DatapathError> {
    map.iter()
        .map(|entry| entry.map(|(key, served)| ((key.prefix_len(), key.data().0), Served(served))))
        .collect::<Result<_, _>>()
        .map_err(failed("read", name))
}

fn routes<const N: usize>(
    map: &LpmTrie<MapData, [u8; N], Plain<Route>>,
    name: &'static str,
) -> Result<BTreeMap<(u8, [u8; N]), Route>, DatapathError> {
    map.iter()
        .map(|entry| entry.map(|(key, route)| ((key.prefix_len() as u8, key.data()), route.0)))
        .collect::<Result<_, _>>()
        .map_err(failed("read", name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locality_is_read_as_the_path_writes_it() {
        let written = Locality {
            members: std::array::from_fn(|index| AtomicU64::new(index as u64)),
            word: AtomicU64::new(100),
            seen_s: AtomicU64::new(200),
        };
        // SAFETY: both are as large (asserted beside the type), `repr(C)`, and of words only.
        let words = unsafe { std::mem::transmute_copy::<Locality, LocalityWords>(&written) };
        assert_eq!(format!("{:?}", locality(words)), format!("{written:?}"));
    }

    #[test]
    fn what_a_first_fragment_decided_holds_until_it_expires() {
        let known = Fragment {
            expires_ns: 1000,
            ..Fragment::default()
        };
        for (now_ns, expected) in [(0, true), (999, true), (1000, false), (u64::MAX, false)] {
            assert_eq!(holds(&known, now_ns), expected, "at {now_ns}");
        }
    }
}
