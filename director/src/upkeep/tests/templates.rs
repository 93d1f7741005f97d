//! Templates: when their time has passed, and which have connections.

use std::collections::HashSet;

use xdp_ebpf::connection::{Bucket, Bucket4, Bucket6, Value, key4, key6};
use xdp_ebpf::layout::{Template, TemplateKey};
use xdp_ebpf::native::SharedTables;
use xdp_ebpf::state::State;
use xdp_ebpf::table::candidates;

use super::super::templates::{is_idle, is_locality_idle};
use super::super::{EndpointRule, Persistence};
use super::tables::{START_S, pass, settings, upkeep};

#[test]
fn idle_by_the_clock() {
    // (seen, now, timeout, idle)
    let cases = [
        (100, 400, 300, false),
        (100, 401, 300, true),
        (100, 100, 0, false),
        (100, 101, 0, true),
        // Used after the clock was read.
        (101, 100, 0, false),
        // The clock wrapped.
        (u32::MAX - 10, 300, 300, true),
        (u32::MAX - 10, 200, 300, false),
    ];
    for (seen_s, now_s, timeout_s, expected) in cases {
        let template = Template {
            destination: 1,
            seen_s,
        };
        assert_eq!(
            is_idle(&template, now_s, timeout_s),
            expected,
            "{seen_s} {now_s} {timeout_s}"
        );
    }
    let day_s = 24 * 60 * 60;
    assert!(!is_locality_idle(100, 100 + day_s));
    assert!(is_locality_idle(100, 101 + day_s));
}

/// A template of a client, given as the first bytes of its address.
fn template(client: &[u8], service: u16, endpoint: u16, port: u16) -> TemplateKey {
    let mut address = [0; 16];
    address[..client.len()].copy_from_slice(client);
    TemplateKey {
        client: address,
        service,
        endpoint,
        port: port.to_be_bytes(),
        zero: 0,
    }
}

#[test]
fn those_with_connections_are_told() {
    let mask = |bytes: usize| std::array::from_fn(|byte| if byte < bytes { 255 } else { 0 });
    let rule = |service, bytes, per_port, port: u16| EndpointRule {
        persistence: Some(Persistence {
            timeout_s: 300,
            service,
            mask: mask(bytes),
            per_port,
            port: port.to_be_bytes(),
        }),
        ..EndpointRule::default()
    };
    let rules = vec![
        EndpointRule::default(),
        // 1: whole IPv4 addresses; 2: /24; 3: of the same service as 1; 4: for each port; 5: a range, for each port;
        // 6: IPv6 /64; 7: not persistent.
        rule(50, 4, false, 80),
        rule(51, 3, false, 80),
        rule(50, 4, false, 443),
        rule(52, 4, true, 80),
        rule(53, 4, true, 8000),
        rule(54, 8, false, 80),
        EndpointRule::default(),
    ];
    let v4 = |address: [u8; 4], endpoint| (key4(u32::from_ne_bytes(address), 1, endpoint), 0);
    let wide = |client: [u8; 16], port: u16, endpoint| {
        let words = std::array::from_fn(|word| {
            u32::from_ne_bytes(std::array::from_fn(|byte| client[4 * word + byte]))
        });
        key6(words, 1, port.to_be(), endpoint)
    };
    let client6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9];
    let mut ranged = [0; 16];
    ranged[..4].copy_from_slice(&[10, 0, 0, 6]);
    let settings = settings(1, 64);
    let tables = SharedTables::new(settings, 1);
    // (client, idle seconds, by endpoint)
    let connections = [
        (v4([10, 0, 0, 1], 1), 0),
        (v4([10, 0, 0, 2], 2), 899),
        (v4([10, 0, 0, 3], 3), 1),
        (v4([10, 0, 0, 4], 1), 901),
        (v4([10, 0, 0, 5], 4), 0),
        (v4([10, 0, 0, 7], 7), 0),
    ];
    let value = |idle_s: u32| Value::new(1, (START_S - idle_s) as u16, State::Established, 0);
    for (way, ((key, _), idle_s)) in connections.into_iter().enumerate() {
        let (first, _) = candidates(Bucket4::hash(key, settings.seed), 64, 0);
        tables.buckets4()[first as usize].fill(way % 4, key, value(idle_s));
    }
    for (way, key) in [wide(ranged, 8010, 5), wide(client6, 0, 6)]
        .into_iter()
        .enumerate()
    {
        let (first, _) = candidates(Bucket6::hash(key, settings.seed), 64, 0);
        tables.buckets6()[first as usize].fill(way, key, value(0));
    }
    // (template, whether its client has a connection)
    let cases = [
        (template(&[10, 0, 0, 1], 50, 0, 0), true),
        (template(&[10, 0, 0, 1], 51, 0, 0), false),
        (template(&[10, 0, 0], 51, 0, 0), true),
        (template(&[10, 0, 0, 2], 51, 0, 0), false),
        (template(&[10, 0, 0, 3], 50, 0, 0), true),
        // Its connection has expired.
        (template(&[10, 0, 0, 4], 50, 0, 0), false),
        (template(&[10, 0, 0, 5], 52, 4, 80), true),
        (template(&[10, 0, 0, 5], 52, 4, 81), false),
        (template(&[10, 0, 0, 5], 52, 0, 0), false),
        (template(&[10, 0, 0, 6], 53, 5, 8010), true),
        (template(&[10, 0, 0, 6], 53, 5, 8000), false),
        (template(&client6[..8], 54, 0, 0), true),
        (template(&client6, 54, 0, 0), false),
        (template(&[10, 0, 0, 7], 50, 0, 0), false),
    ];
    let mut upkeep = upkeep(&settings);
    upkeep.set_rules(rules);
    // A pass that is half done does not count.
    assert!(
        upkeep
            .step(tables.buckets4(), tables.buckets6(), START_S, 70)
            .is_none()
    );
    upkeep.watch(cases.iter().map(|(key, _)| *key).collect());
    assert!(upkeep.is_at_start());
    let report = pass(&mut upkeep, &tables);
    for (key, expected) in cases {
        assert_eq!(report.live_templates.contains(&key), expected, "{key:?}");
    }
    // Asked for once.
    let report = pass(&mut upkeep, &tables);
    assert_eq!(report.live_templates, HashSet::new());
}
