//! The built object in the kernel, its maps filled from a fixture, frames run by `BPF_PROG_TEST_RUN`.
//!
//! A test run without a context says that frames came in by the loopback interface of the caller's network namespace,
//! index 1. So the caller goes into a new, empty namespace first, where the kernel knows no route to anybody.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail, ensure};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{
    Array, DevMap, HashMap, MapData, PerCpuArray, PerCpuValues, ProgramArray, RingBuf,
};
use aya::programs::xdp::XdpLinkId;
use aya::programs::{ProgramFd, TestRun, TestRunOptions, Xdp, XdpMode};
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader, Pod};
use director::datapath::Mapped;
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::unistd::Pid;
use xdp_ebpf::connection::{Bucket4, Bucket6, Value};
use xdp_ebpf::filter::{Place, words_of};
use xdp_ebpf::layout::{Counters, HeldFrame, Reason, Stage, limits, maps, own_mac, programs};
use xdp_ebpf::lines::{Entry, LineMut, ServerLine4, ServerLine6, ServiceLine4, ServiceLine6};
use xdp_ebpf::state::State;

use super::fixture::{Fixture, INGRESS};
use super::machine::{Action, Connection, Counts, Machine, Outcome, connections4, connections6};

/// Longest frame that a test run takes.
pub const LONGEST: usize = 3500;
/// Room for what comes out.
const OUT: usize = 4096;
/// Buckets in each connection table: two CPUs' worth.
const BUCKETS: u32 = 2 * limits::MIN_BUCKETS;

/// The packet path in the kernel.
pub struct Kernel {
    object: Ebpf,
    loaded: Fixture,
    /// In each connection table, of all CPUs together.
    buckets: u32,
    held: RingBuf<MapData>,
    // Tail calls end when their array has no user any more.
    _stages: ProgramArray<MapData>,
}

/// The bytes of plain data.
fn raw<T: Copy, const N: usize>(value: &T) -> [u8; N] {
    assert!(size_of::<T>() == N, "as many bytes as the type has");
    // SAFETY: as many bytes as the type has; the types of `layout` have no padding that is not named.
    unsafe { core::ptr::from_ref(value).cast::<[u8; N]>().read() }
}

/// Plain data of its bytes.
///
/// # Safety
/// Any bytes must be a value of `T`.
unsafe fn from_raw<T, const N: usize>(bytes: &[u8; N]) -> T {
    assert!(size_of::<T>() == N, "as many bytes as the type has");
    // SAFETY: as many bytes as the type has, and by the caller's word they are a value.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}

/// Goes into a new network namespace: this thread only, until it ends.
///
/// # Errors
/// Not root.
pub fn enter_empty_namespace() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("a new network namespace (is this root?)")
}

impl Kernel {
    /// Loads the object and connects its stages.
    ///
    /// # Errors
    /// Not root, or the kernel refuses the object.
    pub fn load(object: &Path) -> Result<Self> {
        Self::with_buckets(object, BUCKETS)
    }

    /// The same, with so many buckets in each connection table, of all CPUs together.
    ///
    /// # Errors
    /// Not root, or the kernel refuses the object.
    pub fn with_buckets(object: &Path, buckets: u32) -> Result<Self> {
        enter_empty_namespace()?;
        let mut loader = EbpfLoader::new();
        loader
            .map_max_entries(maps::CONNECTIONS4, buckets)
            .map_max_entries(maps::CONNECTIONS6, buckets);
        let mut object = loader
            .load_file(object)
            .with_context(|| format!("loading {}", object.display()))?;
        let mut fds: Vec<(u32, ProgramFd)> = Vec::new();
        for (stage, name) in Stage::ALL {
            let program = load_program(&mut object, name)?;
            fds.push((stage as u32, program.fd()?.try_clone()?));
        }
        load_program(&mut object, programs::DIRECTOR)?;
        let mut stages = ProgramArray::try_from(take(&mut object, maps::STAGES)?)?;
        for (index, fd) in &fds {
            stages.set(*index, fd, 0)?;
        }
        let held = RingBuf::try_from(take(&mut object, maps::HELD)?)?;
        Ok(Self {
            object,
            loaded: Fixture::empty(),
            buckets,
            held,
            _stages: stages,
        })
    }

    /// How many instructions the verifier looked at for each program, the entry and the stages.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn verified(&self) -> Result<Vec<(&'static str, u32)>> {
        let stages = Stage::ALL.iter().map(|(_, name)| *name);
        std::iter::once(programs::DIRECTOR)
            .chain(stages)
            .map(|name| {
                let program = self.object.program(name).context("it was loaded")?;
                let program: &Xdp = program.try_into()?;
                let count = program.info()?.verified_instruction_count();
                Ok((name, count.context("Linux from 5.16 on says so")?))
            })
            .collect()
    }

    /// The entry, to be run by another program.
    ///
    /// # Errors
    /// It cannot be handed out.
    pub fn director(&self) -> Result<ProgramFd> {
        let program: &Xdp = self
            .object
            .program(programs::DIRECTOR)
            .context("the entry was loaded")?
            .try_into()?;
        Ok(program.fd()?.try_clone()?)
    }

    /// Says which interface a slot of the devmap is, for frames that really leave.
    ///
    /// # Errors
    /// There is no such interface in the namespace.
    pub fn connect(&mut self, slot: u32, ifindex: u32) -> Result<()> {
        let mut interfaces = DevMap::try_from(self.map(maps::INTERFACES)?)?;
        Ok(interfaces.set(slot, ifindex, None, 0)?)
    }

    /// Attaches the entry to an interface of the namespace, natively.
    ///
    /// # Errors
    /// There is no such interface, or it takes no native program.
    pub fn attach(&mut self, interface: &str) -> Result<XdpLinkId> {
        let program: &mut Xdp = self
            .object
            .program_mut(programs::DIRECTOR)
            .context("the entry was loaded")?
            .try_into()?;
        program
            .attach(interface, XdpMode::Driver)
            .with_context(|| format!("attaching to {interface}"))
    }

    /// Undoes [`Self::attach`].
    ///
    /// # Errors
    /// The interface is gone.
    pub fn detach(&mut self, link: XdpLinkId) -> Result<()> {
        let program: &mut Xdp = self
            .object
            .program_mut(programs::DIRECTOR)
            .context("the entry was loaded")?
            .try_into()?;
        Ok(program.detach(link)?)
    }

    /// Has `rr` and `wrr` begin with the first real server again.
    ///
    /// # Errors
    /// The table cannot be written.
    pub fn rewind(&mut self) -> Result<()> {
        let cursors: Vec<(u32, u64)> = keys_of(&self.loaded.services)
            .into_iter()
            .map(|id| (id, 0))
            .collect();
        self.set_array(maps::CURSORS, &cursors)
    }

    /// Frees the entries of the narrow tables whose keys `free` says so of, as a director's upkeep does. How many.
    ///
    /// # Errors
    /// The table cannot be read or written.
    pub fn free4(&mut self, mut free: impl FnMut(u64) -> bool) -> Result<usize> {
        let buckets = self.buckets;
        let mut table = self.array::<[u8; 64]>(maps::CONNECTIONS4)?;
        let mut freed = 0;
        for index in 0..buckets {
            let mut bytes = table.get(&index, 0)?;
            let word = |bytes: &[u8; 64], at: usize| {
                let word: [u8; 8] = bytes[at..at + 8].try_into().expect("eight bytes");
                u64::from_ne_bytes(word)
            };
            let before = freed;
            for way in 0..4 {
                // Keys first, values after them (`Bucket4`).
                let (key, value) = (word(&bytes, way * 8), word(&bytes, 32 + way * 8));
                if key != 0 && value != 0 && free(key) {
                    bytes[32 + way * 8..40 + way * 8].fill(0);
                    freed += 1;
                }
            }
            if freed != before {
                table.set(index, bytes, 0)?;
            }
        }
        Ok(freed)
    }

    /// How many entries of the narrow tables are in a state.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn count4(&mut self, state: State) -> Result<usize> {
        let table = self.array::<[u8; 64]>(maps::CONNECTIONS4)?;
        let mut count = 0;
        for bytes in table.iter() {
            // SAFETY: numbers: any bytes are a value.
            let bucket: Bucket4 = unsafe { from_raw(&bytes?) };
            for (key, value) in bucket.keys.iter().zip(&bucket.values) {
                let value = Value(value.load(Ordering::Relaxed));
                let is_there = key.load(Ordering::Relaxed) != 0 && value.is_some();
                count += usize::from(is_there && State::from_u8(value.state()) == Some(state));
            }
        }
        Ok(count)
    }

    /// The connection tables of both families, as a director has them mapped.
    ///
    /// # Errors
    /// They cannot be mapped.
    pub fn mapped(&mut self) -> Result<(Mapped<Bucket4>, Mapped<Bucket6>)> {
        let buckets = self.buckets;
        let fd = |map: &aya::maps::Map| match map {
            aya::maps::Map::Array(map) => Ok(map.fd().as_fd().try_clone_to_owned()?),
            _ => bail!("the connection tables are array maps"),
        };
        let fds = [
            fd(self.map(maps::CONNECTIONS4)?)?,
            fd(self.map(maps::CONNECTIONS6)?)?,
        ];
        Ok((
            Mapped::new(fds[0].as_fd(), buckets)?,
            Mapped::new(fds[1].as_fd(), buckets)?,
        ))
    }

    fn array<V: Pod>(&mut self, name: &str) -> Result<Array<&mut MapData, V>> {
        Ok(Array::try_from(self.map(name)?)?)
    }

    fn map(&mut self, name: &str) -> Result<&mut aya::maps::Map> {
        self.object
            .map_mut(name)
            .with_context(|| format!("the object has no map {name}"))
    }

    fn set_array<V: Pod>(&mut self, name: &str, values: &[(u32, V)]) -> Result<()> {
        let mut array = self.array::<V>(name)?;
        for (index, value) in values {
            array
                .set(*index, *value, 0)
                .with_context(|| format!("{name} {index}"))?;
        }
        Ok(())
    }

    fn set_hash<K: Pod, V: Pod>(&mut self, name: &str, pairs: &[(K, V)]) -> Result<()> {
        let mut map = HashMap::<_, K, V>::try_from(self.map(name)?)?;
        let old = map.keys().collect::<Result<Vec<K>, _>>()?;
        for key in old {
            map.remove(&key)?;
        }
        for (key, value) in pairs {
            map.insert(key, value, 0).with_context(|| name.to_owned())?;
        }
        Ok(())
    }

    /// Weights and thresholds; counts stay what they are.
    fn set_loads(&mut self, fixture: &Fixture) -> Result<()> {
        let mut loads = self.array::<[u8; 48]>(maps::LOADS)?;
        for id in fixture.destinations.keys() {
            let mut bytes = loads.get(id, 0)?;
            let limits = fixture.weight(*id);
            for (at, number) in [(16, limits.weight), (24, limits.upper), (32, limits.lower)] {
                bytes[at..at + 8].copy_from_slice(&u64::from(number).to_ne_bytes());
            }
            loads.set(*id, bytes, 0)?;
        }
        Ok(())
    }

    fn set_prefixes<K: Pod, V: Pod>(&mut self, name: &str, routes: &[(u32, K, V)]) -> Result<()> {
        let mut map = LpmTrie::<_, K, V>::try_from(self.map(name)?)?;
        let old = map.keys().collect::<Result<Vec<Key<K>>, _>>()?;
        for key in old {
            map.remove(&key)?;
        }
        for (length, prefix, route) in routes {
            map.insert(&Key::new(*length, *prefix), route, 0)?;
        }
        Ok(())
    }

    fn fill(&mut self, fixture: &Fixture) -> Result<()> {
        self.set_array::<[u8; 64]>(maps::SETTINGS, &[(0, raw(&fixture.settings))])?;
        let gone = |old: Vec<u32>, new: &dyn Fn(u32) -> bool| -> Vec<u32> {
            old.into_iter().filter(|id| !new(*id)).collect()
        };
        // Destinations before the services that name them.
        let mut destinations: Vec<(u32, [u8; 64])> = fixture
            .destinations
            .iter()
            .map(|(id, destination)| (*id, raw(destination)))
            .collect();
        destinations.extend(
            gone(self.loaded.destinations.keys().copied().collect(), &|id| {
                fixture.destinations.contains_key(&id)
            })
            .into_iter()
            .map(|id| (id, [0; 64])),
        );
        self.set_array(maps::DESTINATIONS, &destinations)?;
        let slots: Vec<(u32, u32)> = (0..).zip(fixture.slots.iter().copied()).collect();
        self.set_array(maps::SLOTS, &slots)?;
        self.set_loads(fixture)?;
        let mut services: Vec<(u32, [u8; 32])> = fixture
            .services
            .iter()
            .map(|(id, service)| (u32::from(*id), raw(service)))
            .collect();
        services.extend(
            gone(keys_of(&self.loaded.services), &|id| {
                fixture.services.contains_key(&(id as u16))
            })
            .into_iter()
            .map(|id| (id, [0; 32])),
        );
        self.set_array(maps::SERVICES, &services)?;
        let mut endpoints: Vec<(u32, [u8; 24])> = fixture
            .endpoints
            .iter()
            .map(|(id, endpoint)| (u32::from(*id), raw(endpoint)))
            .collect();
        endpoints.extend(
            gone(keys_of(&self.loaded.endpoints), &|id| {
                fixture.endpoints.contains_key(&(id as u16))
            })
            .into_iter()
            .map(|id| (id, [0; 24])),
        );
        self.set_array(maps::ENDPOINTS, &endpoints)?;
        fn keys<K: Copy, V: Copy, const N: usize, const M: usize>(
            pairs: Vec<(K, V)>,
        ) -> Vec<([u8; N], [u8; M])> {
            pairs
                .iter()
                .map(|(key, value)| (raw(key), raw(value)))
                .collect()
        }
        self.set_hash::<[u8; 8], [u8; 4]>(maps::SERVICES4, &keys(fixture.services4()))?;
        self.set_hash::<[u8; 20], [u8; 4]>(maps::SERVICES6, &keys(fixture.services6()))?;
        self.set_hash::<[u8; 8], [u8; 32]>(maps::REAL_SERVERS4, &keys(fixture.real_servers4()))?;
        self.set_hash::<[u8; 20], [u8; 32]>(maps::REAL_SERVERS6, &keys(fixture.real_servers6()))?;
        let old = self.loaded.clone();
        self.set_lines::<ServiceLine4>(
            maps::SERVICE_LINES4,
            &old.services4(),
            &fixture.services4(),
        )?;
        self.set_lines::<ServiceLine6>(
            maps::SERVICE_LINES6,
            &old.services6(),
            &fixture.services6(),
        )?;
        self.set_lines::<ServerLine4>(
            maps::SERVER_LINES4,
            &old.real_servers4(),
            &fixture.real_servers4(),
        )?;
        self.set_lines::<ServerLine6>(
            maps::SERVER_LINES6,
            &old.real_servers6(),
            &fixture.real_servers6(),
        )?;
        let four = fixture.addresses4();
        let four = four.iter().map(|(address, _)| Place::of4(*address));
        let six = fixture.addresses6();
        let six = six.iter().map(|(address, _)| Place::of6(*address));
        let words: Vec<(u32, u64)> = (0..).zip(words_of(four.chain(six))).collect();
        self.set_array(maps::ADDRESS_FILTER, &words)?;
        self.set_hash::<[u8; 4], u32>(maps::ADDRESSES4, &fixture.addresses4())?;
        self.set_hash::<[u8; 16], u32>(maps::ADDRESSES6, &fixture.addresses6())?;
        self.set_hash::<[u8; 8], [u8; 24]>(maps::NEIGHBOURS4, &keys(fixture.neighbours4.clone()))?;
        self.set_hash::<[u8; 20], [u8; 24]>(maps::NEIGHBOURS6, &keys(fixture.neighbours6.clone()))?;
        let hops: Vec<(u32, [u8; 24])> = fixture
            .next_hops
            .iter()
            .map(|(id, hop)| (*id, raw(hop)))
            .collect();
        self.set_array(maps::NEXT_HOPS, &hops)?;
        let routes: Vec<_> = fixture
            .routes4
            .iter()
            .map(|(length, prefix, route)| (u32::from(*length), *prefix, raw::<_, 8>(route)))
            .collect();
        self.set_prefixes(maps::ROUTES4, &routes)?;
        let routes: Vec<_> = fixture
            .routes6
            .iter()
            .map(|(length, prefix, route)| (u32::from(*length), *prefix, raw::<_, 8>(route)))
            .collect();
        self.set_prefixes(maps::ROUTES6, &routes)?;
        let ranges: Vec<_> = fixture
            .ranges4()
            .iter()
            .map(|((bits, key), served)| (*bits, raw::<_, 8>(key), served.0))
            .collect();
        self.set_prefixes(maps::RANGES4, &ranges)?;
        let ranges: Vec<_> = fixture
            .ranges6()
            .iter()
            .map(|((bits, key), served)| (*bits, raw::<_, 20>(key), served.0))
            .collect();
        self.set_prefixes(maps::RANGES6, &ranges)?;
        self.set_array::<[u64; 3]>(maps::GLOBALS, &[(0, [fixture.lease_until, 0, 0])])?;
        let own_macs: Vec<(u32, u64)> = (0..own_mac::ENTRIES)
            .map(|last| {
                (
                    last,
                    fixture.own_macs.get(&last).copied().unwrap_or_default(),
                )
            })
            .collect();
        self.set_array(maps::OWN_MACS, &own_macs)?;
        let mut interfaces = DevMap::try_from(self.map(maps::INTERFACES)?)?;
        for slot in &fixture.interfaces {
            // The verdict is all that a test run makes of a redirect: any interface will do.
            interfaces.set(*slot, INGRESS, None, 0)?;
        }
        self.loaded = fixture.clone();
        Ok(())
    }

    /// Fills the lines before a hash map, of which the old ones are known.
    fn set_lines<L: LineMut + Default>(
        &mut self,
        name: &'static str,
        old: &[Entry<L>],
        new: &[Entry<L>],
    ) -> Result<()> {
        let mut lines: BTreeMap<u32, L> = BTreeMap::new();
        for (key, _) in old {
            lines.entry(L::index(key)).or_default();
        }
        for (key, value) in new {
            let line = lines.entry(L::index(key)).or_default();
            line.put(key, *value, || false);
        }
        let lines: Vec<(u32, [u8; 64])> = lines
            .iter()
            .map(|(index, line)| {
                assert!(size_of::<L>() == 64, "a line of the cache");
                // SAFETY: as many bytes as the type has, which are words.
                (*index, unsafe {
                    core::ptr::from_ref(line).cast::<[u8; 64]>().read()
                })
            })
            .collect();
        self.set_array(name, &lines)
    }

    /// Forgets connections, fragments, tokens and cursors.
    fn forget(&mut self) -> Result<()> {
        let buckets: Vec<(u32, [u8; 64])> =
            (0..self.buckets).map(|index| (index, [0; 64])).collect();
        self.set_array(maps::CONNECTIONS4, &buckets)?;
        let buckets: Vec<(u32, [u8; 128])> =
            (0..self.buckets).map(|index| (index, [0; 128])).collect();
        self.set_array(maps::CONNECTIONS6, &buckets)?;
        self.rewind()?;
        let loads: Vec<(u32, [u8; 48])> = self
            .loaded
            .destinations
            .keys()
            .map(|id| (*id, [0; 48]))
            .collect();
        self.set_array(maps::LOADS, &loads)?;
        self.set_hash::<[u8; 24], [u8; 8]>(maps::TEMPLATES, &[])?;
        self.set_hash::<[u8; 24], [u8; 144]>(maps::LOCALITIES, &[])?;
        self.set_hash::<[u8; 12], [u8; 40]>(maps::FRAGMENTS4, &[])?;
        self.set_hash::<[u8; 36], [u8; 40]>(maps::FRAGMENTS6, &[])?;
        let empty: Vec<[u8; 16]> = vec![[0; 16]; cpus()?];
        let mut limiter = PerCpuArray::<_, [u8; 16]>::try_from(self.map(maps::LIMITER)?)?;
        limiter.set(0, PerCpuValues::try_from(empty)?, 0)?;
        while self.held.next().is_some() {}
        Ok(())
    }
}

fn keys_of<V>(map: &std::collections::BTreeMap<u16, V>) -> Vec<u32> {
    map.keys().copied().map(u32::from).collect()
}

fn cpus() -> Result<usize> {
    nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))
}

fn take(object: &mut Ebpf, name: &str) -> Result<aya::maps::Map> {
    object
        .take_map(name)
        .with_context(|| format!("the object has no map {name}"))
}

/// Loads one of an object's programs.
fn load_program<'o>(object: &'o mut Ebpf, name: &str) -> Result<&'o mut Xdp> {
    let program: &mut Xdp = object
        .program_mut(name)
        .with_context(|| format!("the object has no program {name}"))?
        .try_into()?;
    program.load().with_context(|| format!("loading {name}"))?;
    Ok(program)
}

/// Runs a frame through a program.
///
/// # Errors
/// The kernel refuses (fewer than 14 bytes), or the verdict is none of [`Action`].
pub fn test_run(program: &Xdp, frame: &[u8]) -> Result<Outcome> {
    let mut out = vec![0; OUT];
    let result = program.test_run(TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ..TestRunOptions::new()
    })?;
    out.truncate(result.data_size_out as usize);
    let action = match result.return_value {
        1 => Action::Drop,
        2 => Action::Pass,
        3 => Action::Transmit,
        4 => Action::Redirect,
        other => bail!("the program returned {other}"),
    };
    Ok(Outcome { action, frame: out })
}

impl Machine for Kernel {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn load(&mut self, fixture: &Fixture) -> Result<()> {
        self.fill(fixture)?;
        self.forget()?;
        self.set_loads(fixture)?;
        self.cpu(0)
    }

    fn change(&mut self, fixture: &Fixture) -> Result<()> {
        self.fill(fixture)
    }

    fn cpu(&mut self, cpu: u32) -> Result<()> {
        let mut set = CpuSet::new();
        set.set(cpu as usize)?;
        sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("going to CPU {cpu}"))
    }

    fn run(&mut self, frame: &[u8]) -> Result<Outcome> {
        ensure!(frame.len() <= LONGEST, "too long for a test run");
        let program: &Xdp = self
            .object
            .program(programs::DIRECTOR)
            .context("the entry was loaded")?
            .try_into()?;
        test_run(program, frame)
    }

    fn counts(&mut self) -> Result<Counts> {
        let mut counts = Counts::default();
        let reasons = PerCpuArray::<_, u64>::try_from(self.map(maps::REASONS)?)?;
        for reason in Reason::ALL {
            let sum = reasons.get(&(*reason as u32), 0)?.iter().sum();
            counts.reasons.insert(*reason as u32, sum);
        }
        let ids: Vec<u32> = self.loaded.destinations.keys().copied().collect();
        let traffic = PerCpuArray::<_, [u8; 64]>::try_from(self.map(maps::COUNTERS)?)?;
        for id in ids {
            for bytes in traffic.get(&id, 0)?.iter() {
                // SAFETY: numbers: any bytes are a value.
                let counters: Counters = unsafe { from_raw(bytes) };
                counts.add(id, &counters);
            }
        }
        Ok(counts)
    }

    fn take_held(&mut self) -> Result<Vec<Vec<u8>>> {
        let mut frames = Vec::new();
        while let Some(item) = self.held.next() {
            let item = &*item;
            ensure!(item.len() == size_of::<HeldFrame>(), "a held frame's size");
            let length = u32::from_ne_bytes([item[4], item[5], item[6], item[7]]) as usize;
            frames.push(item[16..16 + length].to_vec());
        }
        Ok(frames)
    }

    fn load_of(&mut self, destination: u32) -> Result<(u64, u64)> {
        let bytes = self.array::<[u8; 48]>(maps::LOADS)?.get(&destination, 0)?;
        let word = |at: usize| {
            let word: [u8; 8] = bytes[at..at + 8].try_into().expect("eight bytes");
            u64::from_ne_bytes(word)
        };
        Ok((word(0), word(8)))
    }

    fn connections(&mut self) -> Result<Vec<Connection>> {
        let four = self.array::<[u8; 64]>(maps::CONNECTIONS4)?;
        let mut buckets4: Vec<Bucket4> = Vec::new();
        for bytes in four.iter() {
            // SAFETY: numbers: any bytes are a value.
            buckets4.push(unsafe { from_raw(&bytes?) });
        }
        let six = self.array::<[u8; 128]>(maps::CONNECTIONS6)?;
        let mut buckets6: Vec<Bucket6> = Vec::new();
        for bytes in six.iter() {
            // SAFETY: numbers: any bytes are a value.
            buckets6.push(unsafe { from_raw(&bytes?) });
        }
        let per_cpu = limits::MIN_BUCKETS as usize;
        let mut all = connections4(&buckets4, per_cpu);
        all.extend(connections6(&buckets6, per_cpu));
        all.sort();
        Ok(all)
    }
}
