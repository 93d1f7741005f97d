//! How userspace reads the connection tables while the packet path writes them: one entry after the other, and the other
//! CPUs' entries of the same connection.
//!
//! Who may write what stands at the head of [`crate::connection`].

use std::sync::atomic::Ordering;

use crate::atomic::load;
use crate::connection::{Bucket, Bucket4, Bucket6, Key6, Value, split_key4, split_key6};
use crate::table::candidates;

/// So far an entry's clock may be ahead of the one that it is held against: entries are used while whoever walks them
/// still goes by the time when he began.
const AHEAD_S: u16 = 60 * 60;

/// Seconds since an entry was last seen; none if it was seen after `now_s` was read.
#[inline]
#[must_use]
pub fn idle_s(value: Value, now_s: u32) -> u16 {
    let idle_s = value.idle_s(now_s);
    if idle_s > u16::MAX - AHEAD_S {
        0
    } else {
        idle_s
    }
}

/// How often a place that changes under one's eyes is read.
const READS: usize = 4;

/// A connection's name taken apart.
#[derive(Clone, Copy)]
pub struct Name {
    /// The client's address as tables hold it.
    pub client: [u8; 16],
    /// Its port, as in the packet.
    pub port: u16,
    /// The virtual port if the key has it, as in the packet; else 0.
    pub virtual_port: u16,
}

/// Buckets whose keys name a client.
pub trait Named: Bucket {
    /// The client that a key names.
    fn name(key: Self::Key) -> Name;
}

impl Named for Bucket4 {
    fn name(key: u64) -> Name {
        let (address, port, _) = split_key4(key);
        let mut client = [0; 16];
        client[..4].copy_from_slice(&address.to_ne_bytes());
        Name {
            client,
            port,
            virtual_port: 0,
        }
    }
}

impl Named for Bucket6 {
    fn name(key: Key6) -> Name {
        let split = split_key6(key);
        Name {
            client: crate::family::bytes6(split.client),
            port: split.port,
            virtual_port: split.virtual_port,
        }
    }
}

/// Key and value that stood in a place together. `None`: it is free, or changes all the time.
///
/// Its owner may fill a place anew at any moment, but writes a value of 0 first, then the key, then the value
/// ([`Bucket::fill`]): a value that is the same before and after the key was read was this key's.
#[inline]
pub fn read<B: Bucket>(bucket: &B, way: usize) -> Option<(B::Key, Value)> {
    let mut value = load(bucket.value(way));
    for _ in 0..READS {
        if value == 0 || bucket.is_free(way) {
            return None;
        }
        let key = bucket.key(way);
        let again = load(bucket.value(way));
        if again == value {
            return Some((key, Value(value)));
        }
        value = again;
    }
    None
}

/// The tables of one family.
pub struct Walk<'a, B> {
    /// Their memory, CPU after CPU.
    pub table: &'a [B],
    /// CPUs that have one.
    pub cpus: u32,
    /// Of one CPU's table.
    pub buckets: u32,
    /// Secret of the hash.
    pub seed: u64,
    /// Table clock.
    pub now_s: u32,
}

/// A place of a connection and what was read there.
pub struct Place<'a, B: Bucket> {
    /// Its bucket.
    pub index: usize,
    bucket: &'a B,
    /// Which of the bucket's.
    pub way: usize,
    /// Whose it is.
    pub key: B::Key,
    /// What stood there.
    pub value: Value,
}

impl<B: Bucket> Place<'_, B> {
    /// Whether its original stands in another CPU's table, or stood there.
    #[must_use]
    pub fn is_copy(&self) -> bool {
        self.value.flags() & Value::COPY != 0
    }

    /// Frees the place, unless the packet path has used it meanwhile. A plain store of the packet path that comes after
    /// undoes it: the connection was just used.
    ///
    /// Nor does this hit another connection that has come to stand here whose time has not passed: with the same value it
    /// is of the same destination, so of the same service and its timeouts, and of the same state and second.
    #[must_use]
    pub fn free(&self) -> bool {
        let place = self.bucket.value(self.way);
        place
            .compare_exchange(self.value.0, 0, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Marks it as one that peers have been told of, unless it has changed meanwhile: then they are to be told again.
    #[must_use]
    pub fn mark_sent(&self) -> bool {
        let place = self.bucket.value(self.way);
        let sent = self.value.with(Value::SENT);
        place
            .compare_exchange(self.value.0, sent.0, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Of two used in the same second the one further on is right about the state.
    #[must_use]
    pub fn age(&self, now_s: u32) -> (u16, u8) {
        age(self.value, now_s)
    }
}

/// Orders entries of a connection: the one that is right about its state first.
#[must_use]
pub fn age(value: Value, now_s: u32) -> (u16, u8) {
    (idle_s(value, now_s), u8::MAX - value.state())
}

impl<'a, B: Bucket> Walk<'a, B> {
    /// Entries of a bucket.
    pub fn entries(&self, index: usize) -> impl Iterator<Item = Place<'a, B>> + use<'a, B> {
        let bucket = self.table.get(index);
        let places = bucket.into_iter();
        places.flat_map(move |bucket| (0..B::WAYS).filter_map(move |way| place(index, bucket, way)))
    }

    /// The CPU whose table a bucket is of.
    #[must_use]
    pub fn cpu(&self, index: usize) -> u32 {
        (index / self.buckets.max(1) as usize) as u32
    }

    /// The entries of the same connection in the other CPUs' tables. One that names another real server is of another
    /// connection, before or after this one.
    #[inline]
    pub fn others(&self, of: &Place<'_, B>, mut look: impl FnMut(Place<'a, B>)) {
        let own = self.cpu(of.index);
        let (first, second) = self.both(of.key);
        for cpu in (0..self.cpus).filter(|cpu| *cpu != own) {
            for bucket in [first, second] {
                self.same_in(cpu, bucket, of, &mut look);
            }
        }
    }

    /// The buckets that a key may stand in, counted from the beginning of a CPU's table: the same in all of them.
    pub fn both(&self, key: B::Key) -> (usize, usize) {
        let (first, second) = candidates(B::hash(key, self.seed), self.buckets, 0);
        (first as usize, second as usize)
    }

    /// The entries of the same connection in one bucket of a CPU's table.
    #[inline(always)]
    pub fn same_in(
        &self,
        cpu: u32,
        bucket: usize,
        of: &Place<'_, B>,
        mut look: impl FnMut(Place<'a, B>),
    ) {
        let index = cpu as usize * self.buckets as usize + bucket;
        let Some(bucket) = self.table.get(index) else {
            return;
        };
        // All ways first, without a branch for each: which of them it is cannot be predicted. Of a pass with copies 2 ms
        // of 38.
        let mut ways = 0_u32;
        for way in 0..B::WAYS {
            ways |= u32::from(bucket.holds(way, of.key)) << way;
        }
        while ways != 0 {
            let way = ways.trailing_zeros() as usize;
            ways &= ways - 1;
            if let Some(other) = place(index, bucket, way)
                // By now it may have been filled anew.
                && bucket.holds(way, of.key)
                && other.value.destination() == of.value.destination()
            {
                look(other);
            }
        }
    }

    /// The bucket in which an entry's name may stand too.
    pub fn other_bucket(&self, of: &Place<'_, B>) -> usize {
        let (first, second) = self.both(of.key);
        if of.index % self.buckets.max(1) as usize == first {
            second
        } else {
            first
        }
    }

    /// Whether an original of the same connection stands in this bucket of another CPU's table.
    #[inline]
    pub fn has_original_in(&self, bucket: usize, of: &Place<'_, B>) -> bool {
        let own = self.cpu(of.index);
        for cpu in 0..self.cpus {
            let mut found = false;
            if cpu != own {
                self.same_in(cpu, bucket, of, |other| found |= !other.is_copy());
            }
            if found {
                return true;
            }
        }
        false
    }
}

/// What stands in a place.
#[inline]
pub fn place<B: Bucket>(index: usize, bucket: &B, way: usize) -> Option<Place<'_, B>> {
    let (key, value) = read(bucket, way)?;
    Some(Place {
        index,
        bucket,
        way,
        key,
        value,
    })
}
