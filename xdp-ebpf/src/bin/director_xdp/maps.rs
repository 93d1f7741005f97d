//! The maps, named and sized as `layout` says, and the packet path's view of them.
//!
//! The sizes of the connection tables are placeholders: the loader sets them from the configuration.

use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;

use aya_ebpf::helpers::generated::{
    bpf_get_prandom_u32, bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_ns,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, DevMap, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf};
use aya_ebpf::programs::XdpContext;
use xdp_ebpf::atomic::{load, store};
use xdp_ebpf::connection::{Bucket4, Bucket6, Key6};
use xdp_ebpf::filter::{self, Place};
use xdp_ebpf::layout::{
    Counters, Destination, Endpoint, Endpoint4, Endpoint6, Fragment, FragmentKey4, FragmentKey6,
    HeldFrame, Lease, LeaseOrder, Load, Locality, LocalityKey, Neighbour4, Neighbour6, NextHop,
    REASONS as REASON_COUNT, RangeKey4, RangeKey6, Reason, Route, STAGES as STAGE_COUNT, Scratch,
    Served, Service, Settings, SharedBy, Template, TemplateKey, TokenBucket, Work, lease_order,
    limits, own_mac,
};
use xdp_ebpf::lines::{
    Line, SERVER_LINES, SERVICE_LINES, Said, ServerLine4, ServerLine6, ServiceLine4, ServiceLine6,
};
use xdp_ebpf::packet::Packet;
use xdp_ebpf::table::Put;
use xdp_ebpf::tables::Tables;
use xdp_ebpf::verifier::opaque;

use super::functions;

/// `BPF_F_MMAPABLE`: userspace maps the memory.
const MMAPABLE: u32 = 1 << 10;

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
static SERVICES4: HashMap<Endpoint4, u32> = HashMap::with_max_entries(limits::ENDPOINTS, 0);
#[map]
static SERVICES6: HashMap<Endpoint6, u32> = HashMap::with_max_entries(limits::ENDPOINTS, 0);
#[map]
static SERVICE_LINES4: Array<ServiceLine4> = Array::with_max_entries(SERVICE_LINES, MMAPABLE);
#[map]
static SERVICE_LINES6: Array<ServiceLine6> = Array::with_max_entries(SERVICE_LINES, MMAPABLE);
#[map]
static RANGES4: LpmTrie<RangeKey4, u32> = LpmTrie::with_max_entries(limits::RANGES, 0);
#[map]
static RANGES6: LpmTrie<RangeKey6, u32> = LpmTrie::with_max_entries(limits::RANGES, 0);
#[map]
static ENDPOINTS: Array<Endpoint> = Array::with_max_entries(limits::ENDPOINTS, 0);
#[map]
static SERVICES: Array<Service> = Array::with_max_entries(limits::SERVICES, 0);
#[map]
static CURSORS: Array<u64> = Array::with_max_entries(limits::SERVICES, 0);
#[map]
static SLOTS: Array<u32> = Array::with_max_entries(limits::SLOTS, 0);
#[map]
static DESTINATIONS: Array<Destination> = Array::with_max_entries(limits::DESTINATIONS, 0);
#[map]
static LOADS: Array<Load> = Array::with_max_entries(limits::DESTINATIONS, MMAPABLE);
#[map]
static TEMPLATES: LruHashMap<TemplateKey, Template> =
    LruHashMap::with_max_entries(limits::TEMPLATES, 0);
#[map]
static LOCALITIES: LruHashMap<LocalityKey, Locality> =
    LruHashMap::with_max_entries(limits::LOCALITIES, 0);
/// What a new locality is copied from: too large for the stack. Holds nothing, so it is neither pinned nor adopted.
#[map]
static EMPTY_LOCALITY: Array<Locality> = Array::with_max_entries(1, 0);
#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(limits::DESTINATIONS, 0);
#[map]
static REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(REASON_COUNT, 0);
#[map]
static REAL_SERVERS4: HashMap<Endpoint4, SharedBy> =
    HashMap::with_max_entries(limits::DESTINATIONS, 0);
#[map]
static REAL_SERVERS6: HashMap<Endpoint6, SharedBy> =
    HashMap::with_max_entries(limits::DESTINATIONS, 0);
#[map]
static SERVER_LINES4: Array<ServerLine4> =
    Array::with_max_entries(SERVER_LINES + limits::CPUS, MMAPABLE);
#[map]
static SERVER_LINES6: Array<ServerLine6> =
    Array::with_max_entries(SERVER_LINES + limits::CPUS, MMAPABLE);
#[map]
static ADDRESSES4: HashMap<[u8; 4], u32> = HashMap::with_max_entries(limits::ADDRESSES, 0);
#[map]
static ADDRESSES6: HashMap<[u8; 16], u32> = HashMap::with_max_entries(limits::ADDRESSES, 0);
#[map]
static ADDRESS_FILTER: Array<AtomicU64> = Array::with_max_entries(filter::WORDS, MMAPABLE);
#[map]
static ROUTES4: LpmTrie<[u8; 4], Route> = LpmTrie::with_max_entries(limits::ROUTES, 0);
#[map]
static ROUTES6: LpmTrie<[u8; 16], Route> = LpmTrie::with_max_entries(limits::ROUTES, 0);
#[map]
static NEXT_HOPS: Array<NextHop> = Array::with_max_entries(limits::NEXT_HOPS, 0);
#[map]
static NEIGHBOURS4: HashMap<Neighbour4, NextHop> = HashMap::with_max_entries(limits::NEIGHBOURS, 0);
#[map]
static NEIGHBOURS6: HashMap<Neighbour6, NextHop> = HashMap::with_max_entries(limits::NEIGHBOURS, 0);
#[map]
static INTERFACES: DevMap = DevMap::with_max_entries(limits::INTERFACES, 0);
#[map]
static EGRESS: HashMap<u32, u32> = HashMap::with_max_entries(limits::INTERFACES, 0);
#[map]
static OWN_MACS: Array<u64> = Array::with_max_entries(own_mac::ENTRIES, 0);
#[map]
static CONNECTIONS4: Array<Bucket4> = Array::with_max_entries(limits::MIN_BUCKETS, MMAPABLE);
#[map]
static CONNECTIONS6: Array<Bucket6> = Array::with_max_entries(limits::MIN_BUCKETS, MMAPABLE);
#[map]
static FRAGMENTS4: LruHashMap<FragmentKey4, Fragment> =
    LruHashMap::with_max_entries(limits::FRAGMENTS, 0);
#[map]
static FRAGMENTS6: LruHashMap<FragmentKey6, Fragment> =
    LruHashMap::with_max_entries(limits::FRAGMENTS, 0);
#[map]
static HELD: RingBuf = RingBuf::with_byte_size(limits::HELD_BYTES, 0);
#[map]
static LIMITER: PerCpuArray<TokenBucket> = PerCpuArray::with_max_entries(1, 0);
/// A global, the only one: a map without a lookup. Every packet asks it, and that costs 1 to 2 of some 80 ns where an
/// array costs 3 (`BPF_PROG_TEST_RUN`, a packet that passes, best of 121 interleaved rounds).
///
/// By its name, so that the loader can give it the value that it has already.
#[unsafe(no_mangle)]
static LEASE: Lease = Lease {
    until: AtomicU64::new(0),
    renewed_ns: AtomicU64::new(0),
    length_ns: AtomicU64::new(0),
};
#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);
#[map]
static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);
#[map]
static STAGES: ProgramArray = ProgramArray::with_max_entries(STAGE_COUNT, 0);

/// Sends a frame out by another interface.
#[inline(always)]
pub(crate) fn redirect(slot: u32) -> u32 {
    match INTERFACES.redirect(slot, 0) {
        Ok(action) | Err(action) => action,
    }
}

/// Goes to another stage; comes back only if it is not there.
///
/// The number is in the instruction before the call, where the kernel makes a plain jump of it. Handed over in a variable it is
/// looked up and jumped to through a retpoline: a packet of IPv6 took 50 ns for 39, and a new connection goes through two
/// stages (`cargo xtask bench packet`).
#[inline(always)]
pub(crate) fn tail_call<const STAGE: u32>(context: &XdpContext) {
    // SAFETY: `bpf_tail_call` (12) with what it takes: the program's context, an array of programs, by its first program's type
    // XDP ones only, and a number. As any call it may change these registers and no others.
    unsafe {
        core::arch::asm!(
            "r3 = {stage}",
            "call 12",
            stage = const STAGE,
            inout("r1") context.ctx => _,
            inout("r2") &raw const STAGES => _,
            lateout("r0") _,
            lateout("r3") _,
            lateout("r4") _,
            lateout("r5") _,
        );
    }
}

/// Carries out an order about the lease.
#[inline(always)]
pub(crate) fn lease(order: &mut LeaseOrder) {
    order.now_ticks = Maps.ticks();
    order.now_ns = Maps.now_ns();
    match order.order {
        lease_order::RENEW => {
            store(&LEASE.length_ns, order.length_ns);
            store(&LEASE.renewed_ns, order.now_ns);
            store(&LEASE.until, order.now_ticks.wrapping_add(order.ticks));
        }
        lease_order::END => store(&LEASE.until, 0),
        _ => {}
    }
}

/// False: an address with this place is in neither map.
#[inline(always)]
fn may_be_there(place: Place) -> bool {
    ADDRESS_FILTER
        .get(place.word)
        .is_some_and(|word| place.may_be_in(word))
}

/// What the line of a key says of it.
#[inline(always)]
fn said<L: Line>(lines: &'static Array<L>, key: &L::Key) -> Said<L::Value<'static>> {
    match lines.get(L::index(key)) {
        Some(line) => line.find(key),
        None => Said::Nowhere,
    }
}

/// This CPU's line behind those of keys: for what was found in a hash map. From there on the verifier sees a pointer into the
/// same map as from a key's line; one into another map it follows on its own, through twice as many instructions.
#[inline(always)]
fn own_line() -> u32 {
    SERVER_LINES + Maps.cpu() % limits::CPUS
}

/// The packet path's view of the maps.
pub(crate) struct Maps;

// SAFETY: elements of arrays and per-CPU arrays are never moved or freed while a program runs; those of hash maps are
// not freed before the program ends (RCU). Per-CPU elements are this CPU's: XDP programs are not preempted by another
// on their CPU.
unsafe impl Tables for Maps {
    #[inline(always)]
    fn cpu(&self) -> u32 {
        // SAFETY: has no preconditions.
        unsafe { bpf_get_smp_processor_id() }
    }

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: has no preconditions.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn ticks(&self) -> u64 {
        // SAFETY: has no preconditions.
        unsafe { bpf_jiffies64() }
    }

    #[inline(always)]
    fn lease_until(&self) -> u64 {
        load(&LEASE.until)
    }

    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        SETTINGS.get(0)
    }

    #[inline(always)]
    fn served4(&self, endpoint: &Endpoint4) -> Option<Served> {
        match said(&SERVICE_LINES4, endpoint) {
            Said::Is(served) => Some(served),
            Said::Nowhere => None,
            // SAFETY: read at once; a value replaced meanwhile is either the old or the new 4 bytes.
            Said::Ask => unsafe { SERVICES4.get(endpoint) }.map(|served| Served(*served)),
        }
    }

    #[inline(always)]
    fn served6(&self, endpoint: &Endpoint6) -> Option<Served> {
        match said(&SERVICE_LINES6, endpoint) {
            Said::Is(served) => Some(served),
            Said::Nowhere => None,
            // SAFETY: as for IPv4.
            Said::Ask => unsafe { SERVICES6.get(endpoint) }.map(|served| Served(*served)),
        }
    }

    #[inline(always)]
    fn ranged4(&self, key: &RangeKey4) -> Option<Served> {
        let key = Key::new(8 * size_of::<RangeKey4>() as u32, *key);
        RANGES4.get(key).map(|served| Served(*served))
    }

    #[inline(always)]
    fn ranged6(&self, key: &RangeKey6) -> Option<Served> {
        let key = Key::new(8 * size_of::<RangeKey6>() as u32, *key);
        RANGES6.get(key).map(|served| Served(*served))
    }

    #[inline(always)]
    fn endpoint(&self, id: u16) -> Option<&Endpoint> {
        ENDPOINTS.get(u32::from(id))
    }

    #[inline(always)]
    fn service(&self, id: u16) -> Option<&Service> {
        SERVICES.get(u32::from(id))
    }

    #[inline(always)]
    fn load(&self, destination: u32) -> Option<&Load> {
        LOADS.get(destination)
    }

    #[inline(always)]
    fn template(&self, key: &TemplateKey) -> Option<Template> {
        // SAFETY: read at once; one aligned word.
        unsafe { TEMPLATES.get(key) }.copied()
    }

    #[inline(always)]
    fn put_template(&self, key: &TemplateKey, template: &Template, only_new: bool) -> bool {
        /// `BPF_NOEXIST`.
        const ONLY_NEW: u64 = 1;
        let flags = if only_new { ONLY_NEW } else { 0 };
        TEMPLATES.insert(key, template, flags).is_ok()
    }

    #[inline(always)]
    fn locality(&self, key: &LocalityKey) -> Option<&Locality> {
        // SAFETY: the map's elements outlive the program's run, and are touched by whole words only.
        unsafe { LOCALITIES.get(key) }
    }

    #[inline(always)]
    fn add_locality(&self, key: &LocalityKey) -> bool {
        /// `BPF_NOEXIST`.
        const ONLY_NEW: u64 = 1;
        EMPTY_LOCALITY
            .get(0)
            .is_some_and(|empty| LOCALITIES.insert(key, empty, ONLY_NEW).is_ok())
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: has no preconditions.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn cursor(&self, service: u16) -> Option<&AtomicU64> {
        let cursor = CURSORS.get_ptr_mut(u32::from(service))?;
        // SAFETY: an aligned word of an array's element, only ever touched atomically.
        Some(unsafe { AtomicU64::from_ptr(cursor) })
    }

    #[inline(always)]
    fn slot(&self, slot: u32) -> Option<u32> {
        SLOTS.get(slot).copied()
    }

    #[inline(always)]
    fn destination(&self, id: u32) -> Option<&Destination> {
        DESTINATIONS.get(id)
    }

    #[inline(always)]
    fn counters(&self, destination: u32) -> Option<NonNull<Counters>> {
        COUNTERS.get_ptr_mut(destination).and_then(NonNull::new)
    }

    #[inline(always)]
    fn count(&self, reason: Reason) {
        if let Some(counter) = REASONS.get_ptr_mut(reason as u32) {
            // SAFETY: this CPU's own element.
            unsafe { *counter += 1 };
        }
    }

    #[inline(always)]
    fn real_server4(&self, endpoint: &Endpoint4) -> Option<&SharedBy> {
        match said(&SERVER_LINES4, endpoint) {
            Said::Is(shared) => Some(shared),
            Said::Nowhere => None,
            // SAFETY: the map's elements outlive the program's run.
            Said::Ask => unsafe { REAL_SERVERS4.get(endpoint) }
                .zip(SERVER_LINES4.get(own_line()))
                .map(|(shared, line)| line.keep(shared)),
        }
    }

    #[inline(always)]
    fn real_server6(&self, endpoint: &Endpoint6) -> Option<&SharedBy> {
        match said(&SERVER_LINES6, endpoint) {
            Said::Is(shared) => Some(shared),
            Said::Nowhere => None,
            // SAFETY: as for IPv4.
            Said::Ask => unsafe { REAL_SERVERS6.get(endpoint) }
                .zip(SERVER_LINES6.get(own_line()))
                .map(|(shared, line)| line.keep(shared)),
        }
    }

    #[inline(always)]
    fn address4(&self, address: [u8; 4]) -> u32 {
        if !may_be_there(Place::of4(address)) {
            return 0;
        }
        // SAFETY: read at once.
        unsafe { ADDRESSES4.get(address) }.copied().unwrap_or(0)
    }

    #[inline(always)]
    fn address6(&self, address: [u8; 16]) -> u32 {
        if !may_be_there(Place::of6(address)) {
            return 0;
        }
        // SAFETY: read at once.
        unsafe { ADDRESSES6.get(address) }.copied().unwrap_or(0)
    }

    #[inline(always)]
    fn route4(&self, address: [u8; 4]) -> Option<Route> {
        ROUTES4.get(Key::new(32, address)).copied()
    }

    #[inline(always)]
    fn route6(&self, address: [u8; 16]) -> Option<Route> {
        ROUTES6.get(Key::new(128, address)).copied()
    }

    #[inline(always)]
    fn next_hop(&self, id: u32) -> Option<&NextHop> {
        NEXT_HOPS.get(id)
    }

    #[inline(always)]
    fn neighbour4(&self, neighbour: &Neighbour4) -> Option<&NextHop> {
        // SAFETY: the map's elements outlive the program's run.
        unsafe { NEIGHBOURS4.get(neighbour) }
    }

    #[inline(always)]
    fn neighbour6(&self, neighbour: &Neighbour6) -> Option<&NextHop> {
        // SAFETY: as for IPv4.
        unsafe { NEIGHBOURS6.get(neighbour) }
    }

    #[inline(always)]
    fn egress(&self, ifindex: u32) -> Option<u32> {
        // SAFETY: read at once.
        unsafe { EGRESS.get(ifindex) }.copied()
    }

    #[inline(always)]
    fn own_mac(&self, last_byte: u32) -> u64 {
        OWN_MACS.get(last_byte).copied().unwrap_or(own_mac::ANY)
    }

    #[inline(always)]
    fn bucket4(&self, index: u32) -> Option<&Bucket4> {
        CONNECTIONS4.get(index)
    }

    #[inline(always)]
    fn bucket6(&self, index: u32) -> Option<&Bucket6> {
        CONNECTIONS6.get(index)
    }

    #[inline(always)]
    fn fragment4(&self, key: &FragmentKey4) -> Option<NonNull<Fragment>> {
        FRAGMENTS4.get_ptr_mut(key).and_then(NonNull::new)
    }

    #[inline(always)]
    fn fragment6(&self, key: &FragmentKey6) -> Option<NonNull<Fragment>> {
        FRAGMENTS6.get_ptr_mut(key).and_then(NonNull::new)
    }

    #[inline(always)]
    fn put_fragment4(&self, key: &FragmentKey4, fragment: &Fragment) -> bool {
        FRAGMENTS4.insert(key, fragment, 0).is_ok()
    }

    #[inline(always)]
    fn put_fragment6(&self, key: &FragmentKey6, fragment: &Fragment) -> bool {
        FRAGMENTS6.insert(key, fragment, 0).is_ok()
    }

    #[inline(always)]
    fn remove_fragment4(&self, key: &FragmentKey4) {
        // Gone already is as good.
        let _ = FRAGMENTS4.remove(key);
    }

    #[inline(always)]
    fn remove_fragment6(&self, key: &FragmentKey6) {
        // Gone already is as good.
        let _ = FRAGMENTS6.remove(key);
    }

    #[inline(always)]
    fn hold<P: Packet>(&self, packet: &P, now_ns: u64) -> bool {
        // Opaque, so that the compiler leaves the comparison as it stands: the verifier must see that the length lies
        // between 1 and the limit.
        let less_one = opaque(opaque(packet.end() - packet.data()).wrapping_sub(1));
        if less_one >= limits::HELD_FRAME_BYTES {
            return false;
        }
        let length = less_one + 1;
        let Some(mut entry) = HELD.reserve::<HeldFrame>(0) else {
            return false;
        };
        let held = entry.as_mut_ptr();
        // SAFETY: reserved for us and as large as a `HeldFrame`; no reference to uninitialised fields is made but to
        // the bytes of the frame, which are plain.
        let copied = unsafe {
            (*held).ifindex = packet.ingress_ifindex();
            (*held).length = length as u32;
            (*held).at_ns = now_ns;
            let frame = &mut (*held).frame;
            match frame.get_mut(..length) {
                Some(frame) => packet.copy_to(frame),
                None => false,
            }
        };
        if copied {
            entry.submit(0);
        } else {
            entry.discard(0);
        }
        copied
    }

    #[inline(always)]
    fn limiter(&self) -> Option<NonNull<TokenBucket>> {
        LIMITER.get_ptr_mut(0).and_then(NonNull::new)
    }

    #[inline(always)]
    fn scratch(&self) -> Option<NonNull<Scratch>> {
        SCRATCH.get_ptr_mut(0).and_then(NonNull::new)
    }

    #[inline(always)]
    fn work(&self) -> Option<NonNull<Work>> {
        WORK.get_ptr_mut(0).and_then(NonNull::new)
    }

    #[inline(always)]
    fn put4(&self, key: u64, value: u64, is_new: bool) -> Put {
        Put::from_number(functions::put4(key, value, u64::from(is_new)))
    }

    #[inline(always)]
    fn put_beyond4(&self, key: u64, value: u64, number: u64) -> bool {
        functions::put_beyond4(key, value, number) != 0
    }

    #[inline(always)]
    fn put6(&self, key: Key6, value: u64, is_new: bool) -> Put {
        let is_new = u64::from(is_new);
        Put::from_number(functions::put6(key[0], key[1], key[2], value, is_new))
    }

    #[inline(always)]
    fn put_beyond6(&self, key: Key6, value: u64, number: u64) -> bool {
        functions::put_beyond6(key[0], key[1], key[2], value, number) != 0
    }

    #[inline(always)]
    fn elsewhere4(&self, key: u64, but: u32) -> u64 {
        functions::elsewhere4(key, u64::from(but))
    }

    #[inline(always)]
    fn elsewhere6(&self, key: Key6, but: u32) -> u64 {
        functions::elsewhere6(key[0], key[1], key[2], u64::from(but))
    }

    #[inline(always)]
    fn choose_by_table(&self, service: u16, hash: u32) -> u32 {
        functions::choose_by_table(u64::from(service), u64::from(hash)) as u32
    }

    #[inline(always)]
    fn choose_by_count(&self, service: u16) -> u32 {
        functions::choose_by_count(u64::from(service)) as u32
    }

    #[inline(always)]
    fn choose_by_locality(&self, service: u16, address: [u64; 2], now_s: u32) -> u32 {
        let [high, low] = address;
        functions::choose_by_locality(u64::from(service), high, low, u64::from(now_s)) as u32
    }
}
