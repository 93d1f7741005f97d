//! The tables as the packet path sees them: BPF maps in the kernel, ordinary memory natively.

use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;

use crate::connection::{Bucket4, Bucket6, Key6};
use crate::layout::{
    Counters, Destination, Endpoint, Endpoint4, Endpoint6, Fragment, FragmentKey4, FragmentKey6,
    Load, Locality, LocalityKey, Neighbour4, Neighbour6, NextHop, RangeKey4, RangeKey6, Reason,
    Route, Scratch, Served, Service, Settings, SharedBy, Template, TemplateKey, TokenBucket, Work,
};
use crate::packet::Packet;
use crate::path::schedule;
use crate::reach::{Narrow, Wide};
use crate::table::{self, Put};

/// Everything the packet path may look up or write besides the packet. One method for each map of
/// [`crate::layout::maps`], named after it; `None` is always "not there".
///
/// # Safety
/// A pointer handed out must be valid, aligned and not written by anybody else (per-CPU memory) until the packet is
/// done; references must stay valid equally long. A [`Fragment`] may be written by other CPUs too: it is touched
/// through its atomic fields and by whole-value insertion only.
pub unsafe trait Tables {
    /// The CPU this runs on.
    fn cpu(&self) -> u32;
    /// Monotonic clock in nanoseconds. Costs 31 ns: only for the rare cases.
    fn now_ns(&self) -> u64;

    /// The kernel's ticks (`jiffies`).
    fn ticks(&self) -> u64;
    /// `LEASE`: the tick after which it has run out; 0 without one.
    fn lease_until(&self) -> u64;

    /// `SETTINGS`.
    fn settings(&self) -> Option<&Settings>;
    /// `SERVICE_LINES4`, `SERVICES4`.
    fn served4(&self, endpoint: &Endpoint4) -> Option<Served>;
    /// `SERVICE_LINES6`, `SERVICES6`.
    fn served6(&self, endpoint: &Endpoint6) -> Option<Served>;
    /// `RANGES4`: the longest prefix.
    fn ranged4(&self, key: &RangeKey4) -> Option<Served>;
    /// `RANGES6`: the longest prefix.
    fn ranged6(&self, key: &RangeKey6) -> Option<Served>;
    /// `ENDPOINTS`.
    fn endpoint(&self, id: u16) -> Option<&Endpoint>;
    /// `SERVICES`.
    fn service(&self, id: u16) -> Option<&Service>;
    /// `CURSORS`.
    fn cursor(&self, service: u16) -> Option<&AtomicU64>;
    /// `SLOTS`.
    fn slot(&self, slot: u32) -> Option<u32>;
    /// `DESTINATIONS`.
    fn destination(&self, id: u32) -> Option<&Destination>;
    /// `LOADS`.
    fn load(&self, destination: u32) -> Option<&Load>;
    /// `TEMPLATES`.
    fn template(&self, key: &TemplateKey) -> Option<Template>;
    /// `TEMPLATES`: replaces, or with `only_new` gives way to what is there. False: refused.
    fn put_template(&self, key: &TemplateKey, template: &Template, only_new: bool) -> bool;
    /// `LOCALITIES`.
    fn locality(&self, key: &LocalityKey) -> Option<&Locality>;
    /// `LOCALITIES`: an empty one, unless one is there. False: refused.
    fn add_locality(&self, key: &LocalityKey) -> bool;
    /// A random number.
    fn random(&self) -> u32;
    /// `COUNTERS`, this CPU's.
    fn counters(&self, destination: u32) -> Option<NonNull<Counters>>;
    /// `REASONS`: one packet more.
    fn count(&self, reason: Reason);
    /// `SERVER_LINES4`, `REAL_SERVERS4`.
    fn real_server4(&self, endpoint: &Endpoint4) -> Option<&SharedBy>;
    /// `SERVER_LINES6`, `REAL_SERVERS6`.
    fn real_server6(&self, endpoint: &Endpoint6) -> Option<&SharedBy>;
    /// `ADDRESSES4`: flags, 0 if unknown.
    fn address4(&self, address: [u8; 4]) -> u32;
    /// `ADDRESSES6`: flags, 0 if unknown.
    fn address6(&self, address: [u8; 16]) -> u32;
    /// `ROUTES4`: the longest prefix.
    fn route4(&self, address: [u8; 4]) -> Option<Route>;
    /// `ROUTES6`: the longest prefix.
    fn route6(&self, address: [u8; 16]) -> Option<Route>;
    /// `NEXT_HOPS`.
    fn next_hop(&self, id: u32) -> Option<&NextHop>;
    /// `NEIGHBOURS4`.
    fn neighbour4(&self, neighbour: &Neighbour4) -> Option<&NextHop>;
    /// `NEIGHBOURS6`.
    fn neighbour6(&self, neighbour: &Neighbour6) -> Option<&NextHop>;
    /// `EGRESS`.
    fn egress(&self, ifindex: u32) -> Option<u32>;
    /// `OWN_MACS`.
    fn own_mac(&self, last_byte: u32) -> u64;
    /// `CONNECTIONS4`.
    fn bucket4(&self, index: u32) -> Option<&Bucket4>;
    /// `CONNECTIONS6`.
    fn bucket6(&self, index: u32) -> Option<&Bucket6>;
    /// `FRAGMENTS4`.
    fn fragment4(&self, key: &FragmentKey4) -> Option<NonNull<Fragment>>;
    /// `FRAGMENTS6`.
    fn fragment6(&self, key: &FragmentKey6) -> Option<NonNull<Fragment>>;
    /// `FRAGMENTS4`: replaces. False: refused.
    fn put_fragment4(&self, key: &FragmentKey4, fragment: &Fragment) -> bool;
    /// `FRAGMENTS6`: replaces. False: refused.
    fn put_fragment6(&self, key: &FragmentKey6, fragment: &Fragment) -> bool;
    /// `FRAGMENTS4`.
    fn remove_fragment4(&self, key: &FragmentKey4);
    /// `FRAGMENTS6`.
    fn remove_fragment6(&self, key: &FragmentKey6);
    /// `HELD`: hands a frame to userspace, to come back when its datagram's first fragment has been seen. False: no room.
    fn hold<P: Packet>(&self, packet: &P, now_ns: u64) -> bool;
    /// `LIMITER`, this CPU's.
    fn limiter(&self) -> Option<NonNull<TokenBucket>>;
    /// `SCRATCH`, this CPU's.
    fn scratch(&self) -> Option<NonNull<Scratch>>;
    /// `WORK`, this CPU's. Use [`work`].
    fn work(&self) -> Option<NonNull<Work>>;

    // What the kernel verifies once and not anew at each place it is called from: its global functions, which take and
    // return numbers only. Here is what they do; the kernel's side has one for each. All of it is for new connections and
    // other rare packets. (Without them the programs that need two are more than the verifier takes.)

    /// [`table::put`], narrow table.
    fn put4(&self, key: u64, value: u64, is_new: bool) -> Put
    where
        Self: Sized,
    {
        table::put::<Narrow, Self>(self, &key, value, is_new)
    }
    /// [`table::put_beyond`], narrow table.
    fn put_beyond4(&self, key: u64, value: u64, number: u64) -> bool
    where
        Self: Sized,
    {
        table::put_beyond::<Narrow, Self>(self, &key, value, number)
    }
    /// [`table::put`], wide table.
    fn put6(&self, key: Key6, value: u64, is_new: bool) -> Put
    where
        Self: Sized,
    {
        table::put::<Wide, Self>(self, &key, value, is_new)
    }
    /// [`table::put_beyond`], wide table.
    fn put_beyond6(&self, key: Key6, value: u64, number: u64) -> bool
    where
        Self: Sized,
    {
        table::put_beyond::<Wide, Self>(self, &key, value, number)
    }
    /// [`table::find_elsewhere`], narrow tables.
    fn elsewhere4(&self, key: u64, but: u32) -> u64
    where
        Self: Sized,
    {
        table::find_elsewhere::<Narrow, Self>(self, &key, but)
    }
    /// [`table::find_elsewhere`], wide tables.
    fn elsewhere6(&self, key: Key6, but: u32) -> u64
    where
        Self: Sized,
    {
        table::find_elsewhere::<Wide, Self>(self, &key, but)
    }
    /// [`schedule::table_based::choose`].
    fn choose_by_table(&self, service: u16, hash: u32) -> u32
    where
        Self: Sized,
    {
        schedule::table_based::choose(self, service, hash)
    }
    /// [`schedule::counting::choose`].
    fn choose_by_count(&self, service: u16) -> u32
    where
        Self: Sized,
    {
        schedule::counting::choose(self, service)
    }
    /// [`schedule::locality::choose`].
    fn choose_by_locality(&self, service: u16, address: [u64; 2], now_s: u32) -> u32
    where
        Self: Sized,
    {
        schedule::locality::choose(self, service, address, now_s)
    }
}

/// This CPU's memory for the numbers of a loop; what is in there is of the loop before. For one loop at a time.
///
/// Numbers that live on the stack the kernel's verifier follows from turn to turn, and takes every combination of them for
/// something new; what stands in a map it does not follow.
#[inline(always)]
pub fn work<W: Copy, T: Tables>(tables: &T) -> Option<NonNull<W>> {
    const {
        assert!(size_of::<W>() <= offset_of!(Work, futile) && align_of::<W>() <= align_of::<Work>())
    };
    tables.work().map(NonNull::cast)
}
