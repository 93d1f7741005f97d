//! The connections in the tables, one line each: what `director conns` shows.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use xdp_ebpf::connection::{Bucket, Bucket4, Bucket6, Value, split_key4, split_key6};
use xdp_ebpf::layout::Settings;
use xdp_ebpf::state::State;
use xdp_ebpf::table::candidates;

/// A connection. Copies in other CPUs' tables are not told apart from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The client.
    pub client: IpAddr,
    /// Its port.
    pub client_port: u16,
    /// The port it talks to, where its endpoint has several.
    pub virtual_port: Option<u16>,
    /// Endpoint id.
    pub endpoint: u16,
    /// Destination id.
    pub destination: u32,
    /// Its state, as the CPU knows it that is furthest on.
    pub state: State,
    /// Seconds since a packet of it was seen.
    pub idle_s: u16,
    /// The CPU whose table it stands in.
    pub cpu: u32,
}

/// All connections, in the order of the tables. The tables may change meanwhile: each line is true at its moment.
///
/// `is_ipv4` says of an endpoint's id whether its clients are IPv4 ones: those of ranges of ports stand among IPv6's.
pub fn connections<'a>(
    table4: &'a [Bucket4],
    table6: &'a [Bucket6],
    settings: &'a Settings,
    is_ipv4: impl Fn(u16) -> bool + 'a,
) -> impl Iterator<Item = Connection> + 'a {
    let four = entries(table4, settings.buckets4, settings).map(|(key, value, cpu)| {
        let (client, port, endpoint) = split_key4(key);
        let client = IpAddr::from(client.to_ne_bytes());
        line(client, (port, 0, endpoint), value, cpu, settings.now_s)
    });
    let six = entries(table6, settings.buckets6, settings).map(move |(key, value, cpu)| {
        let split = split_key6(key);
        let client = if is_ipv4(split.endpoint) {
            IpAddr::from(split.client[0].to_ne_bytes())
        } else {
            IpAddr::from(xdp_ebpf::family::bytes6(split.client))
        };
        let names = (split.port, split.virtual_port, split.endpoint);
        line(client, names, value, cpu, settings.now_s)
    });
    four.chain(six).flatten()
}

fn line(
    client: IpAddr,
    (port, virtual_port, endpoint): (u16, u16, u16),
    value: Value,
    cpu: u32,
    now_s: u32,
) -> Option<Connection> {
    Some(Connection {
        client,
        client_port: u16::from_be(port),
        virtual_port: (virtual_port != 0).then(|| u16::from_be(virtual_port)),
        endpoint,
        destination: value.destination(),
        state: State::from_u8(value.state())?,
        idle_s: value.idle_s(now_s),
        cpu,
    })
}

/// Keys of connections, each once, with the value that was used last, and the CPU.
fn entries<'a, B: Bucket>(
    table: &'a [B],
    buckets: u32,
    settings: &'a Settings,
) -> impl Iterator<Item = (B::Key, Value, u32)> + 'a {
    let own = move |index: usize| (index / buckets.max(1) as usize) as u32;
    table.iter().enumerate().flat_map(move |(index, bucket)| {
        let cpu = own(index);
        (0..B::WAYS).filter_map(move |way| {
            let value = Value(bucket.value(way).load(Ordering::Relaxed));
            if bucket.is_free(way) || !value.is_some() {
                return None;
            }
            let key = bucket.key(way);
            let mut latest = value;
            for other_cpu in (0..settings.cpus).filter(|other| *other != cpu) {
                let hash = B::hash(key, settings.seed);
                let (first, second) = candidates(hash, buckets, other_cpu * buckets);
                for other in [first, second].map(|at| table.get(at as usize)) {
                    let Some(other) = other else { continue };
                    for way in (0..B::WAYS).filter(|way| other.holds(*way, key)) {
                        let there = Value(other.value(way).load(Ordering::Relaxed));
                        if !there.is_some() || there.destination() != value.destination() {
                            continue;
                        }
                        // A copy is told where its original stands; of copies alone the first one counts.
                        let is_copy = |value: Value| value.flags() & Value::COPY != 0;
                        if is_copy(value) && (!is_copy(there) || other_cpu < cpu) {
                            return None;
                        }
                        let age =
                            |value: Value| (value.idle_s(settings.now_s), u8::MAX - value.state());
                        if age(there) < age(latest) {
                            latest = there;
                        }
                    }
                }
            }
            Some((key, latest, cpu))
        })
    })
}

#[cfg(test)]
mod tests {
    use xdp_ebpf::native::NativeTables;
    use xdp_ebpf::reach::{Narrow, Wide};
    use xdp_ebpf::{connection, table};

    use super::*;

    #[test]
    fn each_connection_once() {
        let settings = Settings {
            now_s: 1000,
            cpus: 3,
            buckets4: 64,
            buckets6: 64,
            seed: 7,
            ..Settings::default()
        };
        let tables = NativeTables::new(settings, 0);
        let value = |state, seen_s, flags| Value::new(5, seen_s, state, flags).0;
        let key = |client: [u8; 4]| connection::key4(u32::from_ne_bytes(client), 80_u16.to_be(), 2);
        let put4 = |cpu, client, value| {
            tables.cpu.set(cpu);
            assert!(table::insert::<Narrow, _>(&tables, &key(client), value));
        };
        put4(0, [10, 0, 0, 1], value(State::Established, 990, 0));
        // Its copy knows more, and it was used later.
        put4(1, [10, 0, 0, 1], value(State::FinWait, 995, Value::COPY));
        // Copies whose original was given up.
        put4(
            1,
            [10, 0, 0, 2],
            value(State::Established, 999, Value::COPY),
        );
        put4(
            2,
            [10, 0, 0, 2],
            value(State::Established, 1000, Value::COPY),
        );
        let wide = connection::key6(
            [u32::from_ne_bytes([10, 0, 0, 3]), 0, 0, 0],
            1,
            8000_u16.to_be(),
            9,
        );
        assert!(table::insert::<Wide, _>(
            &tables,
            &wide,
            value(State::UdpOne, 900, 0)
        ));
        let mut found: Vec<String> =
            connections(tables.buckets4(), tables.buckets6(), &settings, |id| {
                id == 9
            })
            .map(|it| {
                format!(
                    "{} {:?} {:?} {} cpu {}",
                    it.client, it.virtual_port, it.state, it.idle_s, it.cpu
                )
            })
            .collect();
        found.sort();
        assert_eq!(
            found,
            [
                "10.0.0.1 None FinWait 5 cpu 0",
                "10.0.0.2 None Established 0 cpu 1",
                "10.0.0.3 Some(8000) UdpOne 100 cpu 2",
            ]
        );
    }
}
