//! Whose an address and port are, in one cache line: before the kernel's hash maps of virtual services and of NAT real servers
//! stand arrays of lines, which a lookup turns to first.
//!
//! ```text
//!  key ──hash──► line: found               ──► that is it
//!                      not there           ──► it is nobody's
//!                      not there, but      ──► the hash map knows
//!                      others stand elsewhere
//! ```
//!
//! The maps have everything; a line has what found room in it, and how many of its keys did not. Every packet asks at least
//! once, one that is not ours and a NAT real server's twice. A lookup in a hash map is a call, a hash of eight to twenty bytes,
//! the bucket and the element: 30 ns net; an array's is inlined. Measured in yardsticks (`cargo xtask bench packet`), one of which
//! takes 34 ns: a hit by TUN costs 1.6 and was 2.4, on the same quiet machine; a reply by NAT 1.3 for 3.2, what passes 0.3 for
//! 1.5, where those before were measured on a busy one.
//!
//! Only the director writes, one line at a time, while packets read. A packet that meets a key just being replaced asks the
//! hash map, which gives the old or the new answer. On CPUs that keep stores less strictly in order than x86 it may, for that
//! moment, pair a new key with what was served before in its place (see [`crate::atomic`]).

use core::sync::atomic::AtomicU64;

use crate::atomic::{load, store};
use crate::layout::{Endpoint4, Endpoint6, Served, SharedBy};

/// Lines of each family's virtual services (1 MiB): as many as there can be endpoints, so that few have no room in theirs.
pub const SERVICE_LINES: u32 = 1 << 14;
/// Lines of each family's NAT real servers (4 MiB): of 20,000 one in seven is asked for in the hash map. Behind them stands one
/// for each CPU.
pub const SERVER_LINES: u32 = 1 << 16;

/// Odd, its bits as good as random: 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a line says of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said<V> {
    /// It is there.
    Is(V),
    /// It is nowhere.
    Nowhere,
    /// The hash map knows.
    Ask,
}

/// A line of an array that stands before a hash map.
pub trait Line {
    /// Key of the map.
    type Key: Copy + PartialEq;
    /// What stands in the line for it.
    type Value<'l>
    where
        Self: 'l;

    /// The line of a key.
    fn index(key: &Self::Key) -> u32;
    /// What it says of a key.
    fn find(&self, key: &Self::Key) -> Said<Self::Value<'_>>;
}

/// Address, port and protocol in one word.
#[inline(always)]
const fn word4(key: &Endpoint4) -> u64 {
    let [a, b, c, d] = key.address;
    let [high, low] = key.port;
    u64::from_ne_bytes([a, b, c, d, high, low, key.protocol, key.zero])
}

/// Address in two words, port and protocol in half of one.
#[inline(always)]
const fn words6(key: &Endpoint6) -> (u64, u64, u32) {
    // SAFETY: both are 16 bytes of plain data.
    let [high, low]: [u64; 2] = unsafe { core::mem::transmute(key.address) };
    let [first, last] = key.port;
    let rest = u32::from_ne_bytes([first, last, key.protocol, key.zero]);
    (high, low, rest)
}

/// The upper bits of the product: each depends on all of the word's. `lines`: a power of two.
#[inline(always)]
const fn spread(word: u64, lines: u32) -> u32 {
    (word.wrapping_mul(GOLDEN) >> (64 - lines.trailing_zeros())) as u32
}

#[inline(always)]
const fn fold6(key: &Endpoint6) -> u64 {
    let (high, low, rest) = words6(key);
    // Hosts of one prefix differ in the lower half, services of one host in the rest.
    (high.wrapping_mul(GOLDEN) ^ low).rotate_left(29) ^ rest as u64
}

/// Virtual services, IPv4.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct ServiceLine4 {
    /// [`Endpoint4`] as one word; 0: none.
    keys: [AtomicU64; 3],
    /// [`Served`] of each.
    served: [AtomicU64; 3],
    /// Keys of this line that have no room in it.
    elsewhere: AtomicU64,
    zero: AtomicU64,
}

/// Virtual services, IPv6.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct ServiceLine6 {
    /// Address in two words; then port and protocol, and above them [`Served`]. The last is 0 where there is none.
    entries: [[AtomicU64; 3]; 2],
    /// As in [`ServiceLine4`].
    elsewhere: AtomicU64,
    zero: AtomicU64,
}

/// A NAT real server, IPv4.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct ServerLine4 {
    /// As in [`ServiceLine4`].
    key: AtomicU64,
    /// A [`SharedBy`].
    shared: [AtomicU64; 4],
    /// As in [`ServiceLine4`].
    elsewhere: AtomicU64,
    zero: [AtomicU64; 2],
}

/// A NAT real server, IPv6.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct ServerLine6 {
    /// Address in two words, then port and protocol: 0 where there is none.
    key: [AtomicU64; 3],
    /// A [`SharedBy`].
    shared: [AtomicU64; 4],
    /// As in [`ServiceLine4`].
    elsewhere: AtomicU64,
}

const _: () = assert!(
    size_of::<ServiceLine4>() == 64
        && size_of::<ServiceLine6>() == 64
        && size_of::<ServerLine4>() == 64
        && size_of::<ServerLine6>() == 64
        && size_of::<SharedBy>() == 32
        && align_of::<SharedBy>() <= 8
);

/// What is said of a key that is not in a line.
#[inline(always)]
fn otherwise<V>(elsewhere: &AtomicU64) -> Said<V> {
    if load(elsewhere) == 0 {
        Said::Nowhere
    } else {
        Said::Ask
    }
}

/// The endpoints of a real server as they stand in a line.
#[inline(always)]
fn shared(words: &[AtomicU64; 4]) -> &SharedBy {
    // SAFETY: as large, of plain numbers of any value, and not less aligned (asserted above). The director may write them
    // meanwhile, as it may an array's element: what a reader makes of some old and some new endpoints is checked against
    // the connection's destination.
    unsafe { &*words.as_ptr().cast::<SharedBy>() }
}

/// Writes the endpoints of a real server.
#[inline(always)]
fn set_shared<'l>(words: &'l [AtomicU64; 4], new: &SharedBy) -> &'l SharedBy {
    // SAFETY: as large, of plain numbers, and not less aligned (asserted above).
    let new = unsafe { core::ptr::from_ref(new).cast::<[u64; 4]>().read_unaligned() };
    store(&words[0], new[0]);
    store(&words[1], new[1]);
    store(&words[2], new[2]);
    store(&words[3], new[3]);
    shared(words)
}

impl ServerLine4 {
    /// For a line that is no key's but this CPU's.
    #[inline(always)]
    pub fn keep(&self, endpoints: &SharedBy) -> &SharedBy {
        set_shared(&self.shared, endpoints)
    }
}

impl ServerLine6 {
    /// For a line that is no key's but this CPU's.
    #[inline(always)]
    pub fn keep(&self, endpoints: &SharedBy) -> &SharedBy {
        set_shared(&self.shared, endpoints)
    }
}

impl Line for ServiceLine4 {
    type Key = Endpoint4;
    type Value<'l> = Served;

    #[inline(always)]
    fn index(key: &Endpoint4) -> u32 {
        spread(word4(key), SERVICE_LINES)
    }

    #[inline(always)]
    fn find(&self, key: &Endpoint4) -> Said<Served> {
        let key = word4(key);
        let mut place = 0;
        while place < self.keys.len() {
            if load(&self.keys[place]) == key {
                let served = load(&self.served[place]);
                // Another's by now?
                return if load(&self.keys[place]) == key {
                    // Written from 32 bits.
                    Said::Is(Served(served as u32))
                } else {
                    Said::Ask
                };
            }
            place += 1;
        }
        otherwise(&self.elsewhere)
    }
}

impl Line for ServiceLine6 {
    type Key = Endpoint6;
    type Value<'l> = Served;

    #[inline(always)]
    fn index(key: &Endpoint6) -> u32 {
        spread(fold6(key), SERVICE_LINES)
    }

    #[inline(always)]
    fn find(&self, key: &Endpoint6) -> Said<Served> {
        let (high, low, rest) = words6(key);
        let mut place = 0;
        while place < self.entries.len() {
            let [one, other, last] = &self.entries[place];
            let word = load(last);
            // The lower half is the key's, the upper one what is served. One branch: the verifier follows each.
            let differs = (load(one) ^ high) | (load(other) ^ low) | u64::from(word as u32 ^ rest);
            if differs == 0 {
                return if load(last) == word {
                    Said::Is(Served((word >> 32) as u32))
                } else {
                    Said::Ask
                };
            }
            place += 1;
        }
        otherwise(&self.elsewhere)
    }
}

impl Line for ServerLine4 {
    type Key = Endpoint4;
    type Value<'l> = &'l SharedBy;

    #[inline(always)]
    fn index(key: &Endpoint4) -> u32 {
        spread(word4(key), SERVER_LINES)
    }

    #[inline(always)]
    fn find(&self, key: &Endpoint4) -> Said<&SharedBy> {
        if load(&self.key) == word4(key) {
            return Said::Is(shared(&self.shared));
        }
        otherwise(&self.elsewhere)
    }
}

impl Line for ServerLine6 {
    type Key = Endpoint6;
    type Value<'l> = &'l SharedBy;

    #[inline(always)]
    fn index(key: &Endpoint6) -> u32 {
        spread(fold6(key), SERVER_LINES)
    }

    #[inline(always)]
    fn find(&self, key: &Endpoint6) -> Said<&SharedBy> {
        let (high, low, rest) = words6(key);
        let [one, other, last] = &self.key;
        let differs = (load(one) ^ high) | (load(other) ^ low) | (load(last) ^ u64::from(rest));
        if differs == 0 {
            return Said::Is(shared(&self.shared));
        }
        otherwise(&self.elsewhere)
    }
}

#[cfg(any(test, feature = "native"))]
mod write;
#[cfg(any(test, feature = "native"))]
pub use write::{Entry, LineMut, set_all};

#[cfg(all(test, feature = "native"))]
mod tests;
