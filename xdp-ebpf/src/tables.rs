//! The tables as the packet path sees them: BPF maps in the kernel, ordinary memory natively.

use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;

use crate::connection::{Bucket4, Bucket6};
use crate::layout::{
    Counters, Destination, Endpoint4, Endpoint6, Fragment, FragmentKey4, FragmentKey6, Neighbour4,
    Neighbour6, NextHop, Reason, Route, Scratch, Service, Settings, SharedBy, TokenBucket,
};
use crate::packet::Packet;

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

    /// `SETTINGS`.
    fn settings(&self) -> Option<&Settings>;
    /// `SERVICES4`.
    fn service4(&self, endpoint: &Endpoint4) -> Option<u32>;
    /// `SERVICES6`.
    fn service6(&self, endpoint: &Endpoint6) -> Option<u32>;
    /// `SERVICES`.
    fn service(&self, id: u32) -> Option<&Service>;
    /// `CURSORS`.
    fn cursor(&self, service: u32) -> Option<&AtomicU64>;
    /// `SLOTS`.
    fn slot(&self, slot: u32) -> Option<u32>;
    /// `DESTINATIONS`.
    fn destination(&self, id: u32) -> Option<&Destination>;
    /// `COUNTERS`, this CPU's.
    fn counters(&self, destination: u32) -> Option<NonNull<Counters>>;
    /// `REASONS`: one packet more.
    fn count(&self, reason: Reason);
    /// `REAL_SERVERS4`.
    fn real_server4(&self, endpoint: &Endpoint4) -> Option<&SharedBy>;
    /// `REAL_SERVERS6`.
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
}
