//! How endpoints are found and their connections named: by exact port, or by a range of ports.
//!
//! ```text
//!            endpoint found by          connection named by                         in the table of
//!  Exact     address, port, protocol    client, client port, endpoint               the family
//!  Ranged    longest prefix of these    client, client port, endpoint, and port     IPv6's wide entries
//! ```
//!
//! Nearly all services have one port, and theirs is the hot path: what is [`Ranged`] has programs of its own, which are
//! looked into only where such a service exists ([`crate::layout::settings::RANGES`]).

use crate::connection::{Bucket, Bucket4, Bucket6, Key6, Value, key4, key6};
use crate::family::{Family, V4, V6, endpoint4, endpoint6};
use crate::layout::{RangeKey4, RangeKey6, Served, Settings, SharedBy};
use crate::table::Put;
use crate::tables::Tables;

/// Which of the connection tables.
pub trait Shape {
    /// A bucket of it.
    type Bucket: Bucket;
    /// Which of the tables it is, by number.
    const NUMBER: usize;

    /// A bucket of the table.
    fn bucket<T: Tables>(tables: &T, index: u32) -> Option<&Self::Bucket>;
    /// Buckets of one CPU's table.
    fn buckets(settings: &Settings) -> u32;
    /// Puts a connection into this CPU's table: [`crate::table::insert`]. `is_new`: it has been looked into, and has none such.
    fn put<T: Tables>(tables: &T, key: Key<Self>, value: Value, is_new: bool) -> bool;
    /// Finds a connection in all tables but one: [`crate::table::find_elsewhere`].
    fn find_elsewhere<T: Tables>(tables: &T, key: Key<Self>, but: u32) -> Value;
}

/// Key type of a table.
pub type Key<S> = <<S as Shape>::Bucket as Bucket>::Key;

/// Eight bytes of key: IPv4 clients of exact ports.
#[derive(Clone, Copy)]
pub struct Narrow;

/// Twenty-four bytes of key: everything else.
#[derive(Clone, Copy)]
pub struct Wide;

impl Shape for Narrow {
    type Bucket = Bucket4;
    const NUMBER: usize = 0;

    #[inline(always)]
    fn bucket<T: Tables>(tables: &T, index: u32) -> Option<&Bucket4> {
        tables.bucket4(index)
    }

    #[inline(always)]
    fn buckets(settings: &Settings) -> u32 {
        settings.buckets4
    }

    #[inline(always)]
    fn put<T: Tables>(tables: &T, key: u64, value: Value, is_new: bool) -> bool {
        match tables.put4(key, value.0, is_new) {
            Put::Refused => false,
            Put::In => true,
            Put::Crowded(number) => tables.put_beyond4(key, value.0, number),
        }
    }

    #[inline(always)]
    fn find_elsewhere<T: Tables>(tables: &T, key: u64, but: u32) -> Value {
        Value(tables.elsewhere4(key, but))
    }
}

impl Shape for Wide {
    type Bucket = Bucket6;
    const NUMBER: usize = 1;

    #[inline(always)]
    fn bucket<T: Tables>(tables: &T, index: u32) -> Option<&Bucket6> {
        tables.bucket6(index)
    }

    #[inline(always)]
    fn buckets(settings: &Settings) -> u32 {
        settings.buckets6
    }

    #[inline(always)]
    fn put<T: Tables>(tables: &T, key: Key6, value: Value, is_new: bool) -> bool {
        match tables.put6(key, value.0, is_new) {
            Put::Refused => false,
            Put::In => true,
            Put::Crowded(number) => tables.put_beyond6(key, value.0, number),
        }
    }

    #[inline(always)]
    fn find_elsewhere<T: Tables>(tables: &T, key: Key6, but: u32) -> Value {
        Value(tables.elsewhere6(key, but))
    }
}

/// How endpoints of a family are found and their connections named.
pub trait Reach<F: Family> {
    /// The table of the connections.
    type Shape: Shape;
    /// Whether endpoints are ranges of ports.
    const RANGED: bool;

    /// Whose an address, port and protocol are.
    fn served<T: Tables>(
        tables: &T,
        address: F::Address,
        port: u16,
        protocol: u8,
    ) -> Option<Served>;
    /// Endpoints that a NAT real server answers.
    fn real_server<T: Tables>(
        tables: &T,
        address: F::Address,
        port: u16,
        protocol: u8,
    ) -> Option<&SharedBy>;
    /// Key of a connection of a client, its port, and the port it talks to.
    fn key(client: F::Address, port: u16, virtual_port: u16, endpoint: u16) -> Key<Self::Shape>;
}

/// By exact port.
#[derive(Clone, Copy)]
pub struct Exact;

/// By a range of ports.
#[derive(Clone, Copy)]
pub struct Ranged;

impl Reach<V4> for Exact {
    type Shape = Narrow;
    const RANGED: bool = false;

    #[inline(always)]
    fn served<T: Tables>(tables: &T, address: u32, port: u16, protocol: u8) -> Option<Served> {
        tables.served4(&endpoint4(address, port, protocol))
    }

    #[inline(always)]
    fn real_server<T: Tables>(
        tables: &T,
        address: u32,
        port: u16,
        protocol: u8,
    ) -> Option<&SharedBy> {
        tables.real_server4(&endpoint4(address, port, protocol))
    }

    #[inline(always)]
    fn key(client: u32, port: u16, _: u16, endpoint: u16) -> u64 {
        key4(client, port, endpoint)
    }
}

impl Reach<V6> for Exact {
    type Shape = Wide;
    const RANGED: bool = false;

    #[inline(always)]
    fn served<T: Tables>(tables: &T, address: [u32; 4], port: u16, protocol: u8) -> Option<Served> {
        tables.served6(&endpoint6(address, port, protocol))
    }

    #[inline(always)]
    fn real_server<T: Tables>(
        tables: &T,
        address: [u32; 4],
        port: u16,
        protocol: u8,
    ) -> Option<&SharedBy> {
        tables.real_server6(&endpoint6(address, port, protocol))
    }

    #[inline(always)]
    fn key(client: [u32; 4], port: u16, _: u16, endpoint: u16) -> Key6 {
        key6(client, port, 0, endpoint)
    }
}

impl Reach<V4> for Ranged {
    type Shape = Wide;
    const RANGED: bool = true;

    #[inline(always)]
    fn served<T: Tables>(tables: &T, address: u32, port: u16, protocol: u8) -> Option<Served> {
        tables.ranged4(&RangeKey4 {
            address: address.to_ne_bytes(),
            protocol,
            zero: 0,
            port: port.to_ne_bytes(),
        })
    }

    /// A real server keeps the port that the client used, so it stands in the map with none.
    #[inline(always)]
    fn real_server<T: Tables>(tables: &T, address: u32, _: u16, protocol: u8) -> Option<&SharedBy> {
        tables.real_server4(&endpoint4(address, 0, protocol))
    }

    #[inline(always)]
    fn key(client: u32, port: u16, virtual_port: u16, endpoint: u16) -> Key6 {
        key6([client, 0, 0, 0], port, virtual_port, endpoint)
    }
}

impl Reach<V6> for Ranged {
    type Shape = Wide;
    const RANGED: bool = true;

    #[inline(always)]
    fn served<T: Tables>(tables: &T, address: [u32; 4], port: u16, protocol: u8) -> Option<Served> {
        tables.ranged6(&RangeKey6 {
            address: crate::family::bytes6(address),
            protocol,
            zero: 0,
            port: port.to_ne_bytes(),
        })
    }

    /// As for IPv4.
    #[inline(always)]
    fn real_server<T: Tables>(
        tables: &T,
        address: [u32; 4],
        _: u16,
        protocol: u8,
    ) -> Option<&SharedBy> {
        tables.real_server6(&endpoint6(address, 0, protocol))
    }

    #[inline(always)]
    fn key(client: [u32; 4], port: u16, virtual_port: u16, endpoint: u16) -> Key6 {
        key6(client, port, virtual_port, endpoint)
    }
}
