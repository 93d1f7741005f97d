//! The maps that the director writes, and one write.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::xdp::DevMap;
use aya::maps::{
    Array, HashMap, IterableMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, RingBuf,
};
use aya::util::nr_cpus;
use nix::libc;
use xdp_ebpf::filter::{self, Place};
use xdp_ebpf::layout::{
    Counters, Destination, Endpoint, Fragment, FragmentKey4, FragmentKey6, Lease, Load, Locality,
    LocalityKey, Neighbour4, Neighbour6, NextHop, RangeKey4, RangeKey6, Route, Served, Service,
    Settings, SharedBy, Template, TemplateKey, limits, maps, own_mac,
};
use xdp_ebpf::lines::{
    LineMut, SERVER_LINES, SERVICE_LINES, ServerLine4, ServerLine6, ServiceLine4, ServiceLine6,
};

use super::error::{DatapathError, os_error};
use super::found::Found;
use super::load::mapped;
use super::memory::{Mapped, Shared};
use super::plain::{Plain, PlainData};
use super::read::contents;
use super::sys;
use crate::plan::{Share, Write};

type Table<K, V> = HashMap<MapData, Plain<K>, V>;

/// A [`Locality`] as plain numbers: the members and two words.
pub(super) type LocalityWords = [u64; limits::LOCALITY_WORDS + 2];
const _: () = assert!(size_of::<LocalityWords>() == size_of::<Locality>());

/// A [`Lease`] as plain numbers.
pub(super) type LeaseWords = [u64; 3];
const _: () = assert!(size_of::<LeaseWords>() == size_of::<Lease>());

/// Every map that the director writes or reads, by its name in [`xdp_ebpf::layout::maps`].
pub struct Maps {
    pub(super) settings: Array<MapData, Plain<Settings>>,
    pub(super) services4: Found<ServiceLine4, u32>,
    pub(super) services6: Found<ServiceLine6, u32>,
    pub(super) ranges4: LpmTrie<MapData, Plain<RangeKey4>, u32>,
    pub(super) ranges6: LpmTrie<MapData, Plain<RangeKey6>, u32>,
    pub(super) endpoints: Array<MapData, Plain<Endpoint>>,
    pub(super) services: Array<MapData, Plain<Service>>,
    pub(super) cursors: Array<MapData, u64>,
    pub(super) slots: Array<MapData, u32>,
    pub(super) destinations: Array<MapData, Plain<Destination>>,
    /// What each destination has to do, mapped into memory.
    pub loads: Mapped<Load>,
    pub(super) templates: Table<TemplateKey, Plain<Template>>,
    pub(super) localities: Table<LocalityKey, LocalityWords>,
    pub(super) counters: PerCpuArray<MapData, Plain<Counters>>,
    pub(super) reasons: PerCpuArray<MapData, u64>,
    pub(super) real_servers4: Found<ServerLine4, Plain<SharedBy>>,
    pub(super) real_servers6: Found<ServerLine6, Plain<SharedBy>>,
    pub(super) addresses4: HashMap<MapData, [u8; 4], u32>,
    pub(super) addresses6: HashMap<MapData, [u8; 16], u32>,
    /// Before both, mapped into memory.
    address_filter: Mapped<AtomicU64>,
    pub(super) routes4: LpmTrie<MapData, [u8; 4], Plain<Route>>,
    pub(super) routes6: LpmTrie<MapData, [u8; 16], Plain<Route>>,
    pub(super) next_hops: Array<MapData, Plain<NextHop>>,
    pub(super) neighbours4: Table<Neighbour4, Plain<NextHop>>,
    pub(super) neighbours6: Table<Neighbour6, Plain<NextHop>>,
    pub(super) interfaces: DevMap<MapData>,
    interfaces_fd: MapData,
    pub(super) egress: HashMap<MapData, u32, u32>,
    pub(super) own_macs: Array<MapData, u64>,
    pub(super) fragments4: Table<FragmentKey4, Plain<Fragment>>,
    pub(super) fragments6: Table<FragmentKey6, Plain<Fragment>>,
    pub(super) held: RingBuf<MapData>,
    pub(super) lease: Array<MapData, LeaseWords>,
    cpus: usize,
}

/// Takes a map out of a loaded object.
pub(super) fn take(object: &mut Ebpf, name: &'static str) -> Result<Map, DatapathError> {
    object
        .take_map(maps::in_object(name))
        .ok_or_else(|| DatapathError::Object {
            kind: "map",
            name: name.to_owned(),
        })
}

/// Takes a map out of a loaded object, as the type it should have.
pub(super) fn take_as<T>(object: &mut Ebpf, name: &'static str) -> Result<T, DatapathError>
where
    T: TryFrom<Map, Error = MapError>,
{
    T::try_from(take(object, name)?).map_err(failed("use", name))
}

/// Opens a pinned map.
pub(super) fn open(path: &Path, name: &'static str) -> Result<Map, DatapathError> {
    MapData::from_pin(path)
        .and_then(Map::from_map_data)
        .map_err(failed("open", name))
}

pub(super) fn failed(
    action: &'static str,
    map: &'static str,
) -> impl Fn(MapError) -> DatapathError {
    move |source| DatapathError::Map {
        action,
        map,
        source: Box::new(source),
    }
}

impl Maps {
    /// Takes each from where `get` finds it. `interfaces` is a second descriptor of the devmap, for what the library lacks.
    pub(super) fn new(
        mut get: impl FnMut(&'static str) -> Result<Map, DatapathError>,
        interfaces: MapData,
    ) -> Result<Self, DatapathError> {
        fn of<T: TryFrom<Map, Error = MapError>>(
            get: &mut impl FnMut(&'static str) -> Result<Map, DatapathError>,
            name: &'static str,
        ) -> Result<T, DatapathError> {
            T::try_from(get(name)?).map_err(failed("use", name))
        }
        fn found<L: LineMut + Shared, V: aya::Pod>(
            get: &mut impl FnMut(&'static str) -> Result<Map, DatapathError>,
            name: &'static str,
            (lines, number): (&'static str, u32),
        ) -> Result<Found<L, V>, DatapathError>
        where
            L::Key: PlainData,
        {
            Found::new((get(name)?, name), (get(lines)?, lines, number))
        }
        let get = &mut get;
        Ok(Self {
            settings: of(get, maps::SETTINGS)?,
            services4: found(get, maps::SERVICES4, (maps::SERVICE_LINES4, SERVICE_LINES))?,
            services6: found(get, maps::SERVICES6, (maps::SERVICE_LINES6, SERVICE_LINES))?,
            ranges4: of(get, maps::RANGES4)?,
            ranges6: of(get, maps::RANGES6)?,
            endpoints: of(get, maps::ENDPOINTS)?,
            services: of(get, maps::SERVICES)?,
            cursors: of(get, maps::CURSORS)?,
            slots: of(get, maps::SLOTS)?,
            destinations: of(get, maps::DESTINATIONS)?,
            loads: mapped(get(maps::LOADS)?, maps::LOADS, limits::DESTINATIONS)?,
            templates: of(get, maps::TEMPLATES)?,
            localities: of(get, maps::LOCALITIES)?,
            counters: of(get, maps::COUNTERS)?,
            reasons: of(get, maps::REASONS)?,
            real_servers4: found(
                get,
                maps::REAL_SERVERS4,
                (maps::SERVER_LINES4, SERVER_LINES + limits::CPUS),
            )?,
            real_servers6: found(
                get,
                maps::REAL_SERVERS6,
                (maps::SERVER_LINES6, SERVER_LINES + limits::CPUS),
            )?,
            addresses4: of(get, maps::ADDRESSES4)?,
            addresses6: of(get, maps::ADDRESSES6)?,
            address_filter: mapped(
                get(maps::ADDRESS_FILTER)?,
                maps::ADDRESS_FILTER,
                filter::WORDS,
            )?,
            routes4: of(get, maps::ROUTES4)?,
            routes6: of(get, maps::ROUTES6)?,
            next_hops: of(get, maps::NEXT_HOPS)?,
            neighbours4: of(get, maps::NEIGHBOURS4)?,
            neighbours6: of(get, maps::NEIGHBOURS6)?,
            interfaces: of(get, maps::INTERFACES)?,
            interfaces_fd: interfaces,
            egress: of(get, maps::EGRESS)?,
            own_macs: of(get, maps::OWN_MACS)?,
            fragments4: of(get, maps::FRAGMENTS4)?,
            fragments6: of(get, maps::FRAGMENTS6)?,
            held: of(get, maps::HELD)?,
            lease: of(get, maps::LEASE)?,
            cpus: nr_cpus()
                .map_err(|(_, source)| failed("size", maps::COUNTERS)(MapError::IoError(source)))?,
        })
    }

    /// Has what packets look into first say what the hash maps hold. Only for whoever holds the directory's lock: packets and
    /// others who read go on meanwhile, but nobody else may write.
    pub(super) fn agree(&self) -> Result<(), DatapathError> {
        self.services4.agree(Served)?;
        self.services6.agree(Served)?;
        self.real_servers4.agree(|shared| shared.0)?;
        self.real_servers6.agree(|shared| shared.0)?;
        let four = contents(&self.addresses4, maps::ADDRESSES4, |key| key, |_| ())?;
        let six = contents(&self.addresses6, maps::ADDRESSES6, |key| key, |_| ())?;
        let four = four.into_keys().map(Place::of4);
        let words = filter::words_of(four.chain(six.into_keys().map(Place::of6)));
        for (word, bits) in self.address_filter.as_slice().iter().zip(words) {
            word.store(bits, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Possible CPUs: as many values has an element of a map that has one for each.
    pub(super) fn cpus(&self) -> usize {
        self.cpus
    }

    /// Writes what of a load is the director's, and leaves its counts.
    fn share(&self, id: u32, share: Share) {
        if let Some(load) = self.loads.as_slice().get(id as usize) {
            load.weight.store(share.weight.into(), Ordering::Relaxed);
            load.upper.store(share.upper.into(), Ordering::Relaxed);
            load.lower.store(share.lower.into(), Ordering::Relaxed);
        }
    }

    /// Makes one write.
    ///
    /// # Errors
    /// When the kernel refuses it: a full hash map, most likely.
    pub fn apply(&mut self, write: &Write) -> Result<(), DatapathError> {
        match write {
            Write::Settings(settings) => self
                .settings
                .set(0, Plain(*settings), 0)
                .map_err(failed("write", maps::SETTINGS)),
            Write::ServiceKey4(key, served) => self
                .services4
                .put(*key, served.map(|served| (served.0, served))),
            Write::ServiceKey6(key, served) => self
                .services6
                .put(*key, served.map(|served| (served.0, served))),
            Write::Range4((bits, key), served) => prefix(
                &mut self.ranges4,
                maps::RANGES4,
                Key::new(*bits, Plain(*key)),
                served.map(|served| served.0),
            ),
            Write::Range6((bits, key), served) => prefix(
                &mut self.ranges6,
                maps::RANGES6,
                Key::new(*bits, Plain(*key)),
                served.map(|served| served.0),
            ),
            Write::Endpoint(id, record) => self
                .endpoints
                .set(u32::from(*id), Plain(record.unwrap_or_default()), 0)
                .map_err(failed("write", maps::ENDPOINTS)),
            Write::Service(id, record) => self
                .services
                .set(u32::from(*id), Plain(record.unwrap_or_default()), 0)
                .map_err(failed("write", maps::SERVICES)),
            // One call of the kernel: a table has up to 65,521 slots, and nothing else goes on meanwhile.
            Write::Slots(first, table) => {
                let map = IterableMap::map(&self.slots).fd().as_fd();
                sys::write_batch(map, *first, table)
                    .map_err(|source| failed("write", maps::SLOTS)(MapError::IoError(source)))
            }
            Write::Destination(id, record) => self
                .destinations
                .set(*id, Plain(record.unwrap_or_default()), 0)
                .map_err(failed("write", maps::DESTINATIONS)),
            Write::Share(id, share) => {
                self.share(*id, share.unwrap_or_default());
                Ok(())
            }
            Write::ResetCounters(id) => {
                if let Some(load) = self.loads.as_slice().get(*id as usize) {
                    load.active.store(0, Ordering::Relaxed);
                    load.inactive.store(0, Ordering::Relaxed);
                    load.flags.store(0, Ordering::Relaxed);
                }
                let zeroes = PerCpuValues::try_from(vec![Plain(Counters::default()); self.cpus])
                    .map_err(|source| failed("clear", maps::COUNTERS)(MapError::IoError(source)))?;
                self.counters
                    .set(*id, zeroes, 0)
                    .map_err(failed("clear", maps::COUNTERS))
            }
            Write::RealServer4(key, shared) => self
                .real_servers4
                .put(*key, shared.map(|shared| (Plain(shared), shared))),
            Write::RealServer6(key, shared) => self
                .real_servers6
                .put(*key, shared.map(|shared| (Plain(shared), shared))),
            Write::Address4(key, flags) => {
                // Before the map: an address that is there is never missed.
                Place::of4(*key).enter(self.address_filter.as_slice());
                put(&mut self.addresses4, maps::ADDRESSES4, *key, *flags)
            }
            Write::Address6(key, flags) => {
                Place::of6(*key).enter(self.address_filter.as_slice());
                put(&mut self.addresses6, maps::ADDRESSES6, *key, *flags)
            }
            Write::Route4((length, address), route) => {
                route_to(&mut self.routes4, maps::ROUTES4, *length, *address, *route)
            }
            Write::Route6((length, address), route) => {
                route_to(&mut self.routes6, maps::ROUTES6, *length, *address, *route)
            }
            Write::NextHop(id, hop) => self
                .next_hops
                .set(*id, Plain(hop.unwrap_or_default()), 0)
                .map_err(failed("write", maps::NEXT_HOPS)),
            Write::Neighbour4(key, hop) => put(
                &mut self.neighbours4,
                maps::NEIGHBOURS4,
                Plain(*key),
                hop.map(Plain),
            ),
            Write::Neighbour6(key, hop) => put(
                &mut self.neighbours6,
                maps::NEIGHBOURS6,
                Plain(*key),
                hop.map(Plain),
            ),
            Write::Interface(slot, Some(ifindex)) => self
                .interfaces
                .set(*slot, *ifindex, None, 0)
                .map_err(|error| {
                    failed("write", maps::INTERFACES)(MapError::IoError(std::io::Error::other(
                        error,
                    )))
                }),
            Write::Interface(slot, None) => sys::delete(self.interfaces_fd.fd().as_fd(), *slot)
                .map_err(|source| failed("clear", maps::INTERFACES)(MapError::IoError(source))),
            Write::Egress(ifindex, slot) => put(&mut self.egress, maps::EGRESS, *ifindex, *slot),
            Write::OwnMac(last_byte, word) => self
                .own_macs
                .set(*last_byte, word.unwrap_or(own_mac::ANY), 0)
                .map_err(failed("write", maps::OWN_MACS)),
        }
    }
}

pub(super) fn put<K: aya::Pod, V: aya::Pod>(
    map: &mut HashMap<MapData, K, V>,
    name: &'static str,
    key: K,
    value: Option<V>,
) -> Result<(), DatapathError> {
    match value {
        Some(value) => map.insert(key, value, 0).map_err(failed("write", name)),
        None => absent_is_fine(map.remove(&key)).map_err(failed("remove from", name)),
    }
}

fn route_to<K: aya::Pod>(
    map: &mut LpmTrie<MapData, K, Plain<Route>>,
    name: &'static str,
    length: u8,
    address: K,
    route: Option<Route>,
) -> Result<(), DatapathError> {
    let key = Key::new(u32::from(length), address);
    prefix(map, name, key, route.map(Plain))
}

fn prefix<K: aya::Pod, V: aya::Pod>(
    map: &mut LpmTrie<MapData, K, V>,
    name: &'static str,
    key: Key<K>,
    value: Option<V>,
) -> Result<(), DatapathError> {
    match value {
        Some(value) => map.insert(&key, value, 0).map_err(failed("write", name)),
        None => absent_is_fine(map.remove(&key)).map_err(failed("remove from", name)),
    }
}

fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(error) if os_error(&error) == Some(libc::ENOENT) => Ok(()),
        Err(MapError::KeyNotFound) => Ok(()),
        other => other,
    }
}
