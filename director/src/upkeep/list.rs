//! The connections in the tables, one line each: what `director conns` shows.

use std::net::IpAddr;

use xdp_ebpf::connection::{Bucket4, Bucket6};
use xdp_ebpf::layout::Settings;
use xdp_ebpf::state::State;
use xdp_ebpf::walk::{Named, Place, Walk, age, idle_s};

/// A connection. What copies in other CPUs' tables know of it is told in its line.
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
    /// Whether what stands there is a copy, and the original lost.
    pub is_copy: bool,
}

/// All connections, in the order of the tables. The tables may change meanwhile: each line is true at its moment, and a
/// connection that is moved to its other bucket just then may be there twice or not at all.
///
/// `is_ipv4` says of an endpoint's id whether its clients are IPv4 ones: those of ranges of ports stand among IPv6's.
pub fn connections<'a>(
    table4: &'a [Bucket4],
    table6: &'a [Bucket6],
    settings: &'a Settings,
    is_ipv4: impl Fn(u16) -> bool + 'a,
) -> impl Iterator<Item = Connection> + 'a {
    let four = lines(table4, settings.buckets4, settings, |_| true);
    four.chain(lines(table6, settings.buckets6, settings, is_ipv4))
}

/// The connections of one family's tables, each once, with the value that was used last.
fn lines<'a, B: Named>(
    table: &'a [B],
    buckets: u32,
    settings: &'a Settings,
    is_ipv4: impl Fn(u16) -> bool + 'a,
) -> impl Iterator<Item = Connection> + 'a {
    let walk = Walk {
        table,
        cpus: settings.cpus,
        buckets,
        seed: settings.seed,
        now_s: settings.now_s,
    };
    (0..table.len()).flat_map(move |index| {
        let lines: [Option<Connection>; 4] = {
            let mut entries = walk.entries(index);
            std::array::from_fn(|_| line(&walk, &entries.next()?, &is_ipv4))
        };
        lines.into_iter().flatten()
    })
}

/// The line of an entry. `None`: another entry has it.
fn line<B: Named>(
    walk: &Walk<'_, B>,
    place: &Place<'_, B>,
    is_ipv4: impl Fn(u16) -> bool,
) -> Option<Connection> {
    let mut latest = place.value;
    let mut is_told_elsewhere = false;
    walk.others(place, |other| {
        // A copy is told where its original stands; of copies alone the first one counts.
        is_told_elsewhere |= place.is_copy() && (!other.is_copy() || other.index < place.index);
        if age(other.value, walk.now_s) < age(latest, walk.now_s) {
            latest = other.value;
        }
    });
    if is_told_elsewhere {
        return None;
    }
    let name = B::name(place.key);
    let endpoint = B::endpoint(place.key);
    let client = if is_ipv4(endpoint) {
        let [a, b, c, d, ..] = name.client;
        IpAddr::from([a, b, c, d])
    } else {
        IpAddr::from(name.client)
    };
    Some(Connection {
        client,
        client_port: u16::from_be(name.port),
        virtual_port: (name.virtual_port != 0).then(|| u16::from_be(name.virtual_port)),
        endpoint,
        destination: latest.destination(),
        state: State::from_u8(latest.state())?,
        idle_s: idle_s(latest, walk.now_s),
        cpu: walk.cpu(place.index),
        is_copy: place.is_copy(),
    })
}

#[cfg(test)]
mod tests {
    use xdp_ebpf::connection::Value;
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

    #[test]
    fn used_since_the_list_was_begun_is_not_idle() {
        let settings = Settings {
            now_s: 1000,
            cpus: 1,
            buckets4: 64,
            buckets6: 64,
            ..Settings::default()
        };
        let tables = NativeTables::new(settings, 0);
        // (seen, idle)
        for (seen_s, idle_s) in [(1000, 0), (1001, 0), (1500, 0), (999, 1), (0, 1000)] {
            let value = Value::new(5, seen_s, State::Udp, 0);
            let key = connection::key4(1, 2, 3);
            assert!(table::insert::<Narrow, _>(&tables, &key, value.0));
            let four = tables.buckets4();
            let found: Vec<u16> = connections(four, tables.buckets6(), &settings, |_| true)
                .map(|it| it.idle_s)
                .collect();
            assert_eq!(found, [idle_s], "seen at {seen_s}");
        }
    }
}
