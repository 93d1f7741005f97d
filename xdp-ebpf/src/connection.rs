//! One connection in the table: what stands in an entry.
//!
//! Who writes what (architecture: the table is memory that the packet path and userspace both see):
//!
//! * A **key** is written only by the CPU that owns the table, and only into a place that is free.
//! * A **value** is one aligned 8-byte word. The owning CPU stores it plainly. Anybody else (upkeep) may only
//!   compare-and-swap what it saw to 0, which frees the place; it never touches a key. Where connections have been carried
//!   over from other tables, it may once compare-and-swap a state that they came to there. Whoever tells peers of it
//!   compare-and-swaps [`Value::SENT`] into it.
//! * Tables that no program uses yet are whoever fills them's.
//! * A place is free when its key or its value is 0. To fill it: value 0, then the key, then the value, so that a
//!   reader on another CPU finds either nothing or the right pair.
//! * A plain store of the owning CPU can undo a freeing that happened between its load and its store. That revives a
//!   connection which was just used: what one wants. It can undo [`Value::SENT`] too, and the peers are told twice. It
//!   cannot bring it about: every store of another state or destination leaves it out ([`Value::in_place_of`]).

use core::sync::atomic::AtomicU64;

use crate::atomic::{load, store};
use crate::state::State;

/// Value of an entry: destination, when it was last seen, state and flags in 8 bytes. 0 is no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value(pub u64);

impl Value {
    /// No entry.
    pub const NONE: Self = Self(0);
    /// Flag: this is a copy of an entry in another CPU's table, made for replies; upkeep counts only the original.
    pub const COPY: u8 = 1;
    /// Flag: peers have been told of this state and destination. Without it they have yet to be. (A flag for what was sent,
    /// not for what was not: so entries begin without it, and whoever stores a new value need not think of it.)
    pub const SENT: u8 = 2;
    /// Flag: a peer's connection, of which no packet has come here yet.
    pub const LEARNED: u8 = 4;

    /// A value. `seen_s` is the low 16 bits of the table clock.
    #[inline(always)]
    #[must_use]
    pub const fn new(destination: u32, seen_s: u16, state: State, flags: u8) -> Self {
        Self(
            destination as u64
                | (seen_s as u64) << 32
                | (state as u64) << 48
                | (flags as u64) << 56,
        )
    }

    /// Destination id.
    #[inline(always)]
    #[must_use]
    pub const fn destination(self) -> u32 {
        self.0 as u32
    }

    /// Low 16 bits of the table clock when it was last seen.
    #[inline(always)]
    #[must_use]
    pub const fn seen_s(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// Number of its state; see [`State::from_u8`].
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> u8 {
        (self.0 >> 48) as u8
    }

    /// Flags.
    #[inline(always)]
    #[must_use]
    pub const fn flags(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// This value, made with the flags of `old`, as the packet path stores it in the place of `old`: from now on the
    /// connection is this node's, and if it has changed peers are to be told.
    #[inline(always)]
    #[must_use]
    pub const fn in_place_of(self, old: Self) -> Self {
        const SENT: u64 = (Value::SENT as u64) << 56;
        const LEARNED: u64 = (Value::LEARNED as u64) << 56;
        // State and destination.
        const TOLD: u64 = 0x00ff_0000_ffff_ffff;
        if (self.0 ^ old.0) & TOLD == 0 {
            Self(self.0 & !LEARNED)
        } else {
            Self(self.0 & !(LEARNED | SENT))
        }
    }

    /// This value with more flags.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, flags: u8) -> Self {
        Self(self.0 | (flags as u64) << 56)
    }

    /// Whether there is an entry.
    #[inline(always)]
    #[must_use]
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }

    /// Seconds since it was last seen. The 16-bit clock wraps in 18 hours, far beyond any timeout.
    #[inline(always)]
    #[must_use]
    pub const fn idle_s(self, now_s: u32) -> u16 {
        (now_s as u16).wrapping_sub(self.seen_s())
    }

    /// Whether another CPU may know this connection's addresses better: it is over, and no packet of it was here for a while.
    ///
    /// A SYN asks no other CPU's table. So where the NIC moves a flow and its client has used the port again meanwhile, what
    /// was left of the connection before stands here yet, and a packet that comes here once more would go to the real server
    /// of that one.
    #[inline(always)]
    #[must_use]
    pub const fn may_be_left_over(self, now_s: u32) -> bool {
        matches!(State::from_u8(self.state()), Some(state) if state.is_closing())
            && self.idle_s(now_s) >= LEFT_OVER_S
    }

    /// Whether another CPU does, by what stands there: it was used later, and at another real server. (At the same one this
    /// entry stays: it may have seen the end of the very connection.)
    #[inline(always)]
    #[must_use]
    pub const fn is_left_over_by(self, elsewhere: Self, now_s: u32) -> bool {
        elsewhere.is_some()
            && elsewhere.destination() != self.destination()
            && elsewhere.idle_s(now_s) < self.idle_s(now_s)
    }

    /// How readily it is given up for another connection: a closing one, a half-open one of the same endpoint (so that a
    /// flood displaces itself), of another, one that stands; among these the longest idle. Expired ones do not count
    /// apart: upkeep has freed them before long, and without upkeep the clock stands still. `same_endpoint`: 1 or 0.
    #[inline(always)]
    #[must_use]
    pub const fn expendability(self, now_s: u32, same_endpoint: u64) -> u32 {
        let class = CLASSES.of(self) + (self.is_half_open() & same_endpoint);
        (class as u32) << 16 | self.idle_s(now_s) as u32
    }

    /// 1 if it is half-open, or else 0.
    #[inline(always)]
    #[must_use]
    pub const fn is_half_open(self) -> u64 {
        HALF_OPEN.of(self)
    }
}

/// Something of each state, by its number: four bits each. Looked up without a branch, of which eight places in a row at
/// random would be guessed wrong every other time.
#[derive(Clone, Copy)]
struct ByState(u64);

impl ByState {
    #[inline(always)]
    const fn of(self, value: Value) -> u64 {
        self.0 >> (4 * (value.state() as u64 & 15)) & 15
    }
}

/// How readily a state gives way, to another endpoint.
const CLASSES: ByState = {
    let (mut word, mut number) = (0, 0);
    while number < 16 {
        let class = match State::from_u8(number) {
            None => 4,
            Some(state) if state.is_closing() => 3,
            Some(state) if state.is_half_open() => 1,
            Some(_) => 0,
        };
        word |= class << (4 * number);
        number += 1;
    }
    ByState(word)
};
/// Which states are half-open.
const HALF_OPEN: ByState = {
    let (mut word, mut number) = (0, 0);
    while number < 16 {
        if let Some(state) = State::from_u8(number)
            && state.is_half_open()
        {
            word |= 1 << (4 * number);
        }
        number += 1;
    }
    ByState(word)
};
const _: () = assert!(crate::state::STATES <= 16);

/// See [`Value::may_be_left_over`]. By a clock of seconds: more than one. No client uses a port again as soon as that, and what
/// follows a connection's end at once is not looked up twice.
const LEFT_OVER_S: u16 = 2;

/// From this [`Value::expendability`] on an entry may give way to a half-open connection too.
pub const EXPENDABLE: u32 = 1 << 16;
/// From this [`Value::expendability`] on it is nothing that another endpoint still waits for: it is closing, or a half-open
/// one of the newcomer's own endpoint.
pub const OWN: u32 = 2 << 16;
/// From this [`Value::expendability`] on it is nothing that anybody waits for.
pub const CLOSING: u32 = 3 << 16;

/// Key of an IPv4 connection: client address, client port, endpoint id. Exact, and never 0, since no endpoint id is.
#[inline(always)]
#[must_use]
pub const fn key4(client: u32, port: u16, endpoint: u16) -> u64 {
    client as u64 | (port as u64) << 32 | (endpoint as u64) << 48
}

/// Client address (as in the packet), port (as in the packet) and endpoint id of a [`key4`].
#[must_use]
pub const fn split_key4(key: u64) -> (u32, u16, u16) {
    (key as u32, (key >> 32) as u16, (key >> 48) as u16)
}

/// Key of an IPv6 connection, or of one to a range of ports: client address in two words (an IPv4 one in the first half
/// of the first), then client port, virtual port if the endpoint has several, and endpoint id. The last word is never 0.
pub type Key6 = [u64; 3];

/// Builds a [`Key6`].
#[inline(always)]
#[must_use]
pub const fn key6(client: [u32; 4], port: u16, virtual_port: u16, endpoint: u16) -> Key6 {
    [
        client[0] as u64 | (client[1] as u64) << 32,
        client[2] as u64 | (client[3] as u64) << 32,
        port as u64 | (virtual_port as u64) << 16 | (endpoint as u64) << 48,
    ]
}

/// What a [`Key6`] is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split6 {
    /// Client address, as in the packet.
    pub client: [u32; 4],
    /// Client port, as in the packet.
    pub port: u16,
    /// Virtual port, as in the packet; 0 where the endpoint has one only.
    pub virtual_port: u16,
    /// Endpoint id.
    pub endpoint: u16,
}

/// Takes a [`Key6`] apart.
#[must_use]
pub const fn split_key6(key: Key6) -> Split6 {
    Split6 {
        client: [
            key[0] as u32,
            (key[0] >> 32) as u32,
            key[1] as u32,
            (key[1] >> 32) as u32,
        ],
        port: key[2] as u16,
        virtual_port: (key[2] >> 16) as u16,
        endpoint: (key[2] >> 48) as u16,
    }
}

/// A cache line of four IPv4 connections.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Bucket4 {
    /// See [`key4`]; 0 is free.
    pub keys: [AtomicU64; 4],
    /// See [`Value`]; 0 is free.
    pub values: [AtomicU64; 4],
}

/// A cache line of two IPv6 connections.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Line6 {
    /// See [`key6`]; a last word of 0 is free.
    pub keys: [[AtomicU64; 3]; 2],
    /// See [`Value`]; 0 is free.
    pub values: [AtomicU64; 2],
}

/// Two cache lines of two IPv6 connections each: with four places in a bucket a table can be filled as far as IPv4's.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Bucket6 {
    /// The lines, which neighbour each other: the second one is prefetched with the first.
    pub lines: [Line6; 2],
}

const _: () = {
    assert!(size_of::<Bucket4>() == 64);
    assert!(size_of::<Bucket6>() == 128);
};

/// What the table's rules need of a bucket, whatever its key.
pub trait Bucket {
    /// Its keys.
    type Key: Copy;
    /// How many connections it holds.
    const WAYS: usize;
    /// The key in a place, free or not.
    fn key(&self, way: usize) -> Self::Key;
    /// The value in a place. The verifier wants the mask, the compiler removes it.
    fn value(&self, way: usize) -> &AtomicU64;
    /// Stores a key. Only for the CPU that owns the table.
    fn set_key(&self, way: usize, key: Self::Key);
    /// Whether the key in a place is this one.
    fn holds(&self, way: usize, key: Self::Key) -> bool;
    /// Whether the key in a place is none.
    fn is_free(&self, way: usize) -> bool;
    /// Hash of a key; its halves name the two candidate buckets.
    fn hash(key: Self::Key, seed: u64) -> u64;
    /// Endpoint id in a key.
    fn endpoint(key: Self::Key) -> u16;

    /// Fills a place in the order that the module's documentation demands.
    #[inline(always)]
    fn fill(&self, way: usize, key: Self::Key, value: Value) {
        store(self.value(way), 0);
        self.set_key(way, key);
        store(self.value(way), value.0);
    }
}

/// Finalizer of a multiply-xorshift hash. The seed is secret, so nobody outside can aim at a bucket.
#[inline(always)]
const fn mix(word: u64) -> u64 {
    let word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ word >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    word ^ word >> 32
}

impl Bucket for Bucket4 {
    type Key = u64;
    const WAYS: usize = 4;

    #[inline(always)]
    fn key(&self, way: usize) -> u64 {
        load(&self.keys[way & 3])
    }

    #[inline(always)]
    fn value(&self, way: usize) -> &AtomicU64 {
        &self.values[way & 3]
    }

    #[inline(always)]
    fn set_key(&self, way: usize, key: u64) {
        store(&self.keys[way & 3], key);
    }

    #[inline(always)]
    fn holds(&self, way: usize, key: u64) -> bool {
        self.key(way) == key
    }

    #[inline(always)]
    fn is_free(&self, way: usize) -> bool {
        self.key(way) == 0
    }

    #[inline(always)]
    fn hash(key: u64, seed: u64) -> u64 {
        mix(key ^ seed)
    }

    #[inline(always)]
    fn endpoint(key: u64) -> u16 {
        (key >> 48) as u16
    }
}

impl Bucket for Bucket6 {
    type Key = Key6;
    const WAYS: usize = 4;

    #[inline(always)]
    fn key(&self, way: usize) -> Key6 {
        let key = &self.lines[way >> 1 & 1].keys[way & 1];
        [load(&key[0]), load(&key[1]), load(&key[2])]
    }

    #[inline(always)]
    fn value(&self, way: usize) -> &AtomicU64 {
        &self.lines[way >> 1 & 1].values[way & 1]
    }

    #[inline(always)]
    fn set_key(&self, way: usize, key: Key6) {
        let place = &self.lines[way >> 1 & 1].keys[way & 1];
        store(&place[0], key[0]);
        store(&place[1], key[1]);
        store(&place[2], key[2]);
    }

    #[inline(always)]
    fn holds(&self, way: usize, key: Key6) -> bool {
        // Not the arrays' comparison: for BPF that becomes a call that compares byte by byte, each byte a branch.
        let place = &self.lines[way >> 1 & 1].keys[way & 1];
        (load(&place[0]) ^ key[0]) | (load(&place[1]) ^ key[1]) | (load(&place[2]) ^ key[2]) == 0
    }

    #[inline(always)]
    fn is_free(&self, way: usize) -> bool {
        load(&self.lines[way >> 1 & 1].keys[way & 1][2]) == 0
    }

    #[inline(always)]
    fn hash(key: Key6, seed: u64) -> u64 {
        mix(key[2] ^ mix(key[1] ^ mix(key[0] ^ seed)))
    }

    #[inline(always)]
    fn endpoint(key: Key6) -> u16 {
        (key[2] >> 48) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_gives_back_what_was_put_in() {
        let value = Value::new(0xdead_beef, 0xabcd, State::FinWait, Value::COPY);
        assert_eq!(value.destination(), 0xdead_beef);
        assert_eq!(value.seen_s(), 0xabcd);
        assert_eq!(State::from_u8(value.state()), Some(State::FinWait));
        assert_eq!(value.flags(), Value::COPY);
    }

    #[test]
    fn who_changes_an_entry_leaves_out_that_peers_know_it() {
        const ALL: u8 = Value::COPY | Value::SENT | Value::LEARNED;
        let old = Value::new(7, 100, State::Established, ALL);
        // (new value, with the old one's flags; flags that it is stored with)
        for (new, flags) in [
            (
                Value::new(7, 101, State::Established, ALL),
                Value::COPY | Value::SENT,
            ),
            (Value::new(7, 100, State::FinWait, ALL), Value::COPY),
            (Value::new(8, 100, State::Established, ALL), Value::COPY),
            (Value::new(7, 101, State::FinWait, ALL), Value::COPY),
        ] {
            let stored = new.in_place_of(old);
            assert_eq!(stored.flags(), flags, "{new:?}");
            assert_eq!(stored.with(ALL), new, "nothing but the flags changes");
        }
    }

    #[test]
    fn keys_give_back_what_was_put_in() {
        assert_eq!(split_key4(key4(0x0102_0304, 80, 7)), (0x0102_0304, 80, 7));
        assert_eq!(Bucket4::endpoint(key4(u32::MAX, u16::MAX, 7)), 7);
        let split = Split6 {
            client: [1, 2, 3, 4],
            port: 80,
            virtual_port: 0xabcd,
            endpoint: 7,
        };
        let key = key6(split.client, split.port, split.virtual_port, split.endpoint);
        assert_eq!(split_key6(key), split);
        assert_eq!(Bucket6::endpoint(key), 7);
    }

    #[test]
    fn what_is_given_up_first() {
        let now = 100_000;
        let seen = |idle: u32| (now - idle) as u16;
        // From the least to the most expendable, and whether it is of the newcomer's endpoint.
        let order = [
            (Value::new(1, seen(0), State::Established, 0), true),
            (Value::new(1, seen(5), State::Udp, 0), true),
            (Value::new(1, seen(800), State::Established, 0), true),
            (Value::new(1, seen(50), State::SynReceived, 0), false),
            (Value::new(1, seen(0), State::SynReceived, 0), true),
            (Value::new(1, seen(5), State::UdpOne, 0), true),
            (Value::new(1, seen(0), State::CloseWait, 0), false),
            (Value::new(1, seen(9), State::Close, 0), false),
            (Value(9), false),
        ];
        let expendability =
            |(value, same): (Value, bool)| value.expendability(now, u64::from(same));
        for pair in order.windows(2) {
            assert!(expendability(pair[0]) < expendability(pair[1]), "{pair:?}");
        }
        let stands = |entry: &&(Value, bool)| expendability(**entry) < EXPENDABLE;
        assert_eq!(order.iter().filter(stands).count(), 3);
    }
}
