//! Addresses, announcements and virtual MACs on real interfaces, seen from a neighbour.

use std::time::{Duration, Instant};

use heartbeat::takeover::{Announce, Kernel, MARK, Movable, Takeover};

use crate::namespace::{Namespace, cable, eventually};

fn movable(addresses: &[&str], virtual_mac: Option<u8>) -> Movable {
    Movable {
        name: "web".to_owned(),
        interface: "eth0".to_owned(),
        addresses: addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect(),
        virtual_mac,
        announce: Announce::default(),
    }
}

fn takeover(node: &Namespace, groups: Vec<Movable>) -> Takeover<Kernel> {
    node.run(|| Takeover::new(Kernel::open(MARK).unwrap(), groups))
}

fn neighbour(of: &Namespace, address: &str) -> String {
    of.ip(&format!("neighbour show to {address}"))
}

fn mac(of: &Namespace, interface: &str) -> String {
    let shown = of.ip(&format!("-o link show {interface}"));
    let mut words = shown.split_whitespace();
    words.find(|word| *word == "link/ether").unwrap();
    words.next().unwrap().to_owned()
}

const ADDRESSES: [&str; 2] = ["198.51.100.10/24", "2001:db8::10/64"];

#[test]
#[ignore = "needs root: network namespaces"]
fn neighbours_learn_where_the_address_is() {
    let (one, client) = (Namespace::new(), Namespace::new());
    cable(
        &one,
        &["198.51.100.1/24", "2001:db8::1/64"],
        &client,
        &["198.51.100.99/24", "2001:db8::99/64"],
    );
    // What the client knew when another node had the addresses.
    for address in ["198.51.100.10", "2001:db8::10"] {
        client.ip(&format!(
            "neighbour replace {address} lladdr 02:00:00:00:00:99 dev eth0 nud stale"
        ));
    }
    let mut takeover = takeover(&one, vec![movable(&ADDRESSES, None)]);
    let begun = Instant::now();
    one.run(|| takeover.take(0, Duration::ZERO)).unwrap();
    let took = begun.elapsed();
    println!("taken over in {took:?}");
    let own = mac(&one, "eth0");
    for address in ["198.51.100.10", "2001:db8::10"] {
        eventually("the neighbour's cache has the new MAC", || {
            neighbour(&client, address).contains(&own)
        });
        assert!(client.reaches(address), "{address}");
    }
    let shown = one.ip("address show dev eth0");
    assert!(
        shown.contains("198.51.100.10/24 brd 198.51.100.255 scope global secondary"),
        "{shown}"
    );
    assert!(
        shown.contains("2001:db8::10/64 scope global nodad deprecated"),
        "{shown}"
    );
    // Again is fine; given up; given up again is fine.
    one.run(|| takeover.take(0, Duration::ZERO)).unwrap();
    one.run(|| takeover.release(0, Duration::ZERO)).unwrap();
    one.run(|| takeover.release(0, Duration::ZERO)).unwrap();
    let shown = one.ip("address show dev eth0");
    assert!(
        !shown.contains("198.51.100.10/") && !shown.contains("2001:db8::10/"),
        "{shown}"
    );
    assert!(shown.contains("198.51.100.1/24"), "{shown}");
    assert_eq!(takeover.unsent(), 0);
}

/// What comes from a virtual address is taken for its own by whoever holds that too: a real server behind direct routing, or
/// another node.
#[test]
#[ignore = "needs root: network namespaces"]
fn what_a_node_sends_does_not_come_from_a_virtual_address() {
    let (one, client) = (Namespace::new(), Namespace::new());
    cable(
        &one,
        &["198.51.100.1/24", "2001:db8::1/64"],
        &client,
        &["198.51.100.99/24", "2001:db8::99/64"],
    );
    // The second of each pair stands in the network of the node itself, but is more like the client than its own one.
    for (virtual_mac, addresses) in [
        (None, ["198.51.100.10/24", "2001:db8::10/64"]),
        (None, ["198.51.100.98/32", "2001:db8::98/128"]),
        (Some(51), ["198.51.100.10/24", "2001:db8::10/64"]),
        (Some(51), ["198.51.100.98/32", "2001:db8::98/128"]),
    ] {
        let mut takeover = takeover(&one, vec![movable(&addresses, virtual_mac)]);
        one.run(|| takeover.take(0, Duration::ZERO)).unwrap();
        for (client_has, own, held) in [
            ("198.51.100.99", "198.51.100.1", addresses[0]),
            ("2001:db8::99", "2001:db8::1", addresses[1]),
        ] {
            let route = one.ip(&format!("route get {client_has}"));
            let source = format!("src {own} ");
            assert!(route.contains(&source), "{virtual_mac:?} {held}: {route}");
            // It is there for others all the same.
            let held = held.split_once('/').unwrap().0;
            assert!(client.reaches(held), "{virtual_mac:?} {held}");
        }
        one.run(|| takeover.release(0, Duration::ZERO)).unwrap();
        one.run(|| takeover.finish(Duration::ZERO));
    }
    // Where a node has no other one, it is what there is.
    one.ip("address delete 2001:db8::1/64 dev eth0");
    let mut takeover = takeover(&one, vec![movable(&ADDRESSES, None)]);
    one.run(|| takeover.take(0, Duration::ZERO)).unwrap();
    let route = one.ip("route get 2001:db8::99");
    assert!(route.contains("src 2001:db8::10 "), "{route}");
}

#[test]
#[ignore = "needs root: network namespaces"]
fn a_network_of_its_own_has_a_route() {
    let (one, client) = (Namespace::new(), Namespace::new());
    cable(&one, &[], &client, &["198.51.100.99/24"]);
    let mut takeover = takeover(
        &one,
        vec![
            movable(&["198.51.100.10/24"], None),
            movable(&["198.51.100.20/24"], None),
        ],
    );
    one.run(|| {
        takeover.take(0, Duration::ZERO).unwrap();
        takeover.take(1, Duration::ZERO).unwrap();
    });
    assert!(client.reaches("198.51.100.10") && client.reaches("198.51.100.20"));
    // The kernel would remove all others of the network with the first, the node's own, too, if that came later.
    assert_eq!(one.setting("ipv4/conf/eth0/promote_secondaries"), "1");
    one.ip("addr add 198.51.100.1/24 dev eth0");
    one.run(|| takeover.release(0, Duration::ZERO)).unwrap();
    assert!(client.reaches("198.51.100.20") && client.reaches("198.51.100.1"));
    one.run(|| takeover.release(1, Duration::ZERO)).unwrap();
    assert!(client.reaches("198.51.100.1"));
}

#[test]
#[ignore = "needs root: network namespaces"]
fn a_virtual_mac_answers_alone() {
    let (one, client) = (Namespace::new(), Namespace::new());
    cable(
        &one,
        &["198.51.100.1/24", "2001:db8::1/64"],
        &client,
        &["198.51.100.99/24", "2001:db8::99/64"],
    );
    // The strictest a distribution sets.
    one.set("ipv4/conf/all/rp_filter", "1");
    one.set("ipv4/conf/default/rp_filter", "1");
    let before = one.setting("ipv4/conf/eth0/arp_ignore");
    let mut takeover = takeover(&one, vec![movable(&ADDRESSES, Some(51))]);
    let begun = Instant::now();
    one.run(|| takeover.take(0, Duration::ZERO)).unwrap();
    println!("taken over with a virtual MAC in {:?}", begun.elapsed());
    for (address, mac) in [
        ("198.51.100.10", "00:00:5e:00:01:33"),
        ("2001:db8::10", "00:00:5e:00:02:33"),
    ] {
        for _ in 0..3 {
            client.ip("neighbour flush dev eth0");
            assert!(client.reaches(address), "{address}");
            let known = neighbour(&client, address);
            assert!(known.contains(mac), "{known}");
        }
    }
    // Nor does a request of the node's own tell the client otherwise.
    let node = mac(&one, "eth0");
    one.ip("neighbour flush dev eth0");
    assert!(one.reaches("198.51.100.99"));
    assert!(client.reaches("198.51.100.1"));
    let own = neighbour(&client, "198.51.100.1");
    assert!(own.contains(&node), "{own}");
    let known = neighbour(&client, "198.51.100.10");
    assert!(!known.contains(&node), "{known}");

    let begun = Instant::now();
    one.run(|| takeover.release(0, Duration::ZERO)).unwrap();
    println!("given up with a virtual MAC in {:?}", begun.elapsed());
    assert!(!client.reaches("198.51.100.10"));
    one.run(|| takeover.finish(Duration::ZERO));
    let links = one.ip("-o link show");
    assert!(!links.contains("hb4") && !links.contains("hb6"), "{links}");
    assert_eq!(one.setting("ipv4/conf/eth0/arp_ignore"), before);
}

#[test]
#[ignore = "needs root: network namespaces"]
fn what_a_killed_run_left_is_removed() {
    let (one, client) = (Namespace::new(), Namespace::new());
    cable(&one, &["198.51.100.1/24"], &client, &[]);
    let groups = || {
        vec![
            movable(&ADDRESSES, None),
            movable(&["198.51.100.20/24"], Some(7)),
        ]
    };
    let mut killed = takeover(&one, groups());
    one.run(|| {
        killed.take(0, Duration::ZERO).unwrap();
        killed.take(1, Duration::ZERO).unwrap();
    });
    drop(killed);
    // Another configuration: only the mark tells.
    let mut next = takeover(&one, vec![movable(&["203.0.113.5/24"], None)]);
    let words = one.run(|| next.clean()).unwrap();
    assert!(words.len() >= 3, "{words:?}");
    let shown = one.ip("address show");
    for gone in ["198.51.100.10/", "2001:db8::10/", "198.51.100.20/", "hb4."] {
        assert!(!shown.contains(gone), "{gone} is still there: {shown}");
    }
    assert!(shown.contains("198.51.100.1/24"), "{shown}");
    assert!(one.run(|| next.clean()).unwrap().is_empty());
}

#[test]
#[ignore = "needs root: network namespaces"]
fn an_interface_that_vanishes_and_comes_back() {
    let (one, client) = (Namespace::new(), Namespace::new());
    cable(&one, &[], &client, &["198.51.100.99/24"]);
    let mut takeover = takeover(&one, vec![movable(&["198.51.100.10/24"], None)]);
    one.run(|| takeover.take(0, Duration::ZERO)).unwrap();
    one.ip("link delete eth0");
    takeover.interface_up("eth0", Duration::from_secs(1));
    let outcomes = one.run(|| takeover.step(Duration::from_secs(1)));
    assert!(
        format!("{outcomes:?}").contains("NoInterface"),
        "{outcomes:?}"
    );
    cable(&one, &[], &client, &["198.51.100.99/24"]);
    let outcomes = one.run(|| takeover.step(Duration::from_secs(2)));
    assert!(format!("{outcomes:?}").contains("Taken"), "{outcomes:?}");
    assert!(client.reaches("198.51.100.10"));
}
