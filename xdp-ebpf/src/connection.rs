//! One connection in the table: what stands in an entry, its states and their timeouts.
//!
//! Who writes what (architecture: the table is memory that the packet path and userspace both see):
//!
//! * A **key** is written only by the CPU that owns the table, and only into a place that is free.
//! * A **value** is one aligned 8-byte word. The owning CPU stores it plainly. Anybody else (upkeep) may only
//!   compare-and-swap what it saw to 0, which frees the place; it never touches a key.
//! * A place is free when its key or its value is 0. To fill it: value 0, then the key, then the value, so that a
//!   reader on another CPU finds either nothing or the right pair.
//! * A plain store of the owning CPU can undo a freeing that happened between its load and its store. That revives a
//!   connection which was just used: what one wants.

use core::sync::atomic::AtomicU64;

use crate::atomic::{load, store};
use crate::wire::tcp;

/// State of a connection, IPVS's names (`net/netfilter/ipvs/ip_vs_proto_tcp.c`).
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// A SYN was seen, nothing else.
    SynReceived = 1,
    /// Both directions, or the client's second packet, were seen.
    Established = 2,
    /// A FIN was seen.
    FinWait = 3,
    /// A RST was seen.
    Close = 4,
    /// UDP has no states.
    Udp = 5,
}

impl State {
    /// The state with this number.
    #[inline(always)]
    #[must_use]
    pub const fn from_u8(state: u8) -> Option<Self> {
        match state {
            1 => Some(Self::SynReceived),
            2 => Some(Self::Established),
            3 => Some(Self::FinWait),
            4 => Some(Self::Close),
            5 => Some(Self::Udp),
            _ => None,
        }
    }

    /// Idle seconds after which a connection in this state is given up. IPVS's defaults.
    #[inline(always)]
    #[must_use]
    pub const fn timeout_s(self) -> u16 {
        match self {
            Self::SynReceived => 60,
            Self::Established => 900,
            Self::FinWait => 120,
            Self::Close => 10,
            Self::Udp => 300,
        }
    }

    /// Whether IPVS would count it as active rather than inactive.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::SynReceived | Self::Established)
    }

    /// The state after a TCP segment with these flags, from either end.
    ///
    /// A closing connection stays closing until a SYN schedules it anew (the caller's business): the last
    /// acknowledgements after a FIN do not make it established again.
    #[inline(always)]
    #[must_use]
    pub const fn after_segment(self, flags: u8, from_client: bool) -> Self {
        if flags & tcp::RST != 0 {
            return Self::Close;
        }
        if flags & tcp::FIN != 0 {
            return match self {
                Self::Close => Self::Close,
                _ => Self::FinWait,
            };
        }
        match self {
            // A SYN-ACK alone does not establish: the client's acknowledgement does.
            Self::SynReceived if from_client && flags & tcp::SYN == 0 => Self::Established,
            other => other,
        }
    }
}

/// Value of an entry: destination, when it was last seen, state and flags in 8 bytes. 0 is no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value(pub u64);

impl Value {
    /// No entry.
    pub const NONE: Self = Self(0);
    /// Flag: this is a copy of an entry in another CPU's table, made for replies; upkeep counts only the original.
    pub const COPY: u8 = 1;

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

    /// Whether it has been idle longer than its state allows. A value of unknown state is expired.
    #[inline(always)]
    #[must_use]
    pub const fn is_expired(self, now_s: u32) -> bool {
        match State::from_u8(self.state()) {
            Some(state) => self.idle_s(now_s) > state.timeout_s(),
            None => true,
        }
    }

    /// How readily it is given up when there is no room: expired, closing, half-open, then the longest idle.
    #[inline(always)]
    #[must_use]
    pub const fn expendability(self, now_s: u32) -> u32 {
        let class: u32 = if self.is_expired(now_s) {
            3
        } else {
            match State::from_u8(self.state()) {
                Some(State::Close | State::FinWait) => 2,
                Some(State::SynReceived) => 1,
                _ => 0,
            }
        };
        class << 16 | self.idle_s(now_s) as u32
    }
}

/// Key of an IPv4 connection: client address, client port, service id. Exact, and never 0, since no service id is.
#[inline(always)]
#[must_use]
pub const fn key4(client: u32, port: u16, service: u16) -> u64 {
    client as u64 | (port as u64) << 32 | (service as u64) << 48
}

/// Client address (as in the packet), port (as in the packet) and service id of a [`key4`].
#[must_use]
pub const fn split_key4(key: u64) -> (u32, u16, u16) {
    (key as u32, (key >> 32) as u16, (key >> 48) as u16)
}

/// Key of an IPv6 connection: client address in two words, then port and service id. The last word is never 0.
pub type Key6 = [u64; 3];

/// Builds a [`Key6`].
#[inline(always)]
#[must_use]
pub const fn key6(client: [u32; 4], port: u16, service: u16) -> Key6 {
    [
        client[0] as u64 | (client[1] as u64) << 32,
        client[2] as u64 | (client[3] as u64) << 32,
        port as u64 | (service as u64) << 48,
    ]
}

/// Client address and port (as in the packet) and service id of a [`Key6`].
#[must_use]
pub const fn split_key6(key: Key6) -> ([u32; 4], u16, u16) {
    (
        [
            key[0] as u32,
            (key[0] >> 32) as u32,
            key[1] as u32,
            (key[1] >> 32) as u32,
        ],
        key[2] as u16,
        (key[2] >> 48) as u16,
    )
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
pub struct Bucket6 {
    /// See [`key6`]; a last word of 0 is free.
    pub keys: [[AtomicU64; 3]; 2],
    /// See [`Value`]; 0 is free.
    pub values: [AtomicU64; 2],
}

const _: () = {
    assert!(size_of::<Bucket4>() == 64);
    assert!(size_of::<Bucket6>() == 64);
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
}

impl Bucket for Bucket6 {
    type Key = Key6;
    const WAYS: usize = 2;

    #[inline(always)]
    fn key(&self, way: usize) -> Key6 {
        let key = &self.keys[way & 1];
        [load(&key[0]), load(&key[1]), load(&key[2])]
    }

    #[inline(always)]
    fn value(&self, way: usize) -> &AtomicU64 {
        &self.values[way & 1]
    }

    #[inline(always)]
    fn set_key(&self, way: usize, key: Key6) {
        let place = &self.keys[way & 1];
        store(&place[0], key[0]);
        store(&place[1], key[1]);
        store(&place[2], key[2]);
    }

    #[inline(always)]
    fn holds(&self, way: usize, key: Key6) -> bool {
        // Not the arrays' comparison: for BPF that becomes a call that compares byte by byte, each byte a branch.
        let place = &self.keys[way & 1];
        (load(&place[0]) ^ key[0]) | (load(&place[1]) ^ key[1]) | (load(&place[2]) ^ key[2]) == 0
    }

    #[inline(always)]
    fn is_free(&self, way: usize) -> bool {
        load(&self.keys[way & 1][2]) == 0
    }

    #[inline(always)]
    fn hash(key: Key6, seed: u64) -> u64 {
        mix(key[2] ^ mix(key[1] ^ mix(key[0] ^ seed)))
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
    fn keys_give_back_what_was_put_in() {
        assert_eq!(split_key4(key4(0x0102_0304, 80, 7)), (0x0102_0304, 80, 7));
        let client = [1, 2, 3, 4];
        assert_eq!(split_key6(key6(client, 80, 7)), (client, 80, 7));
    }

    #[test]
    fn segments_move_a_connection_on() {
        use State::*;
        let cases = [
            (SynReceived, tcp::SYN, true, SynReceived, "a repeated SYN"),
            (
                SynReceived,
                tcp::SYN | tcp::ACK,
                false,
                SynReceived,
                "the SYN-ACK",
            ),
            (
                SynReceived,
                tcp::ACK,
                true,
                Established,
                "the client's acknowledgement",
            ),
            (
                SynReceived,
                tcp::ACK,
                false,
                SynReceived,
                "an acknowledgement of the server alone",
            ),
            (Established, tcp::ACK, true, Established, "data"),
            (
                Established,
                tcp::FIN | tcp::ACK,
                true,
                FinWait,
                "the client's FIN",
            ),
            (
                Established,
                tcp::FIN | tcp::ACK,
                false,
                FinWait,
                "the server's FIN",
            ),
            (FinWait, tcp::ACK, true, FinWait, "the last acknowledgement"),
            (Established, tcp::RST, false, Close, "a reset"),
            (FinWait, tcp::RST, true, Close, "a reset after FIN"),
            (
                Close,
                tcp::FIN | tcp::ACK,
                true,
                Close,
                "a FIN after a reset",
            ),
        ];
        for (state, flags, from_client, expected, what) in cases {
            assert_eq!(state.after_segment(flags, from_client), expected, "{what}");
        }
    }

    #[test]
    fn what_is_given_up_first() {
        let now = 100_000;
        let seen = |idle: u32| (now - idle) as u16;
        // From the least to the most expendable.
        let order = [
            Value::new(1, seen(0), State::Established, 0),
            Value::new(1, seen(5), State::Udp, 0),
            Value::new(1, seen(800), State::Established, 0),
            Value::new(1, seen(0), State::SynReceived, 0),
            Value::new(1, seen(9), State::Close, 0),
            Value::new(1, seen(61), State::SynReceived, 0),
            Value::new(1, seen(901), State::Established, 0),
        ];
        for pair in order.windows(2) {
            assert!(
                pair[0].expendability(now) < pair[1].expendability(now),
                "{pair:?}"
            );
        }
    }
}
