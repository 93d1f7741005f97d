//! Single values that are none of what may stand there.

use super::*;

#[test]
fn values() {
    for (text, place, words) in [
        (
            "instance: a\n",
            (1, 1),
            &["no interfaces", "\"interfaces\""][..],
        ),
        ("", (1, 1), &["no interfaces"]),
        ("interfaces: []\n", (1, 13), &["no interfaces"]),
        ("interfaces:\n", (1, 11), &["found nothing", "a list"]),
        (
            "interfaces: [eth0, eth1, eth0]\n",
            (1, 26),
            &["interface eth0", "line 1", "once"],
        ),
        (
            "interfaces: [a-name-far-too-long]\n",
            (1, 14),
            &["a-name-far-too-long", "15 bytes"],
        ),
        (
            "interfaces: [eth0/1]\n",
            (1, 14),
            &["\"eth0/1\"", "network interface"],
        ),
        (
            "interfaces: [{name: eth0, mode: skb}]\n",
            (1, 33),
            &["\"skb\"", "one of native, generic"],
        ),
        (
            "interfaces: [{name: eth0, mode: genric}]\n",
            (1, 33),
            &["did you mean \"generic\"?"],
        ),
        (
            "interfaces: [{mode: native}]\n",
            (1, 14),
            &["the key \"name\" is missing"],
        ),
        (
            "interfaces: [eth0]\ninstance: ../other\n",
            (2, 11),
            &["\"../other\"", "letters, digits"],
        ),
        (
            "interfaces: [eth0]\ninstance: a.b\n",
            (2, 11),
            &["\"a.b\"", "letters, digits"],
        ),
        (
            "interfaces: [eth0]\ninstance:\n",
            (2, 9),
            &["no value", "letters, digits"],
        ),
        (
            "interfaces: [eth0]\nicmp_per_second: -1\n",
            (2, 18),
            &["\"-1\"", "a whole number from 0 to 1000000"],
        ),
        (
            "interfaces: [eth0]\nicmp_per_second: 1.5\n",
            (2, 18),
            &["\"1.5\"", "a whole number"],
        ),
        (
            "interfaces: [eth0]\nconnections: {ipv4: 0}\n",
            (2, 21),
            &["\"0\"", "from 1 to 100000000"],
        ),
        (
            "interfaces: [eth0]\nconnections: {ipv6: 1_000}\n",
            (2, 21),
            &["\"1_000\"", "a whole number"],
        ),
        (
            "interfaces: [eth0]\nfragment_timeout: 5\n",
            (2, 19),
            &["\"5\"", "with its unit"],
        ),
        (
            "interfaces: [eth0]\nfragment_timeout: 2min\n",
            (2, 19),
            &["\"2min\"", "10ms to 60s"],
        ),
        (
            "interfaces: [eth0]\ncontrol: director.sock\n",
            (2, 10),
            &["\"director.sock\"", "absolute path"],
        ),
        (
            "interfaces: [eth0]\ntunnel: {source_ipv4: 198.18.0.1/16}\n",
            (2, 23),
            &["bits", "did you mean \"198.18.0.0/16\"?"],
        ),
        (
            "interfaces: [eth0]\ntunnel: {source_ipv4: 100::/64}\n",
            (2, 23),
            &["\"100::/64\"", "IPv4 prefix"],
        ),
        (
            "interfaces: [eth0]\ntunnel: {source_ipv4: 16.0.0.0/4}\n",
            (2, 23),
            &["too much", "/8"],
        ),
        (
            "interfaces: [eth0]\ntunnel: {source_ipv6: ff00::/32}\n",
            (2, 23),
            &["multicast", "IPv6 prefix"],
        ),
        (
            "interfaces: [eth0]\ntunnel: {source_ipv6: '2001:db8::1/128'}\n",
            (2, 23),
            &["last 32 bits", "to /96"],
        ),
        (
            "interfaces: [eth0]\ntunnel: {source_ipv6: '2001:db8::1/64'}\n",
            (2, 23),
            &["did you mean \"2001:db8::/64\"?"],
        ),
        (
            "interfaces: [eth0]\ntunnel: {source_ipv6: '2001:db8::1'}\n",
            (2, 23),
            &["IPv6 prefix"],
        ),
        (
            "interfaces: [eth0]\ndefaults: {scheduler: wlcc}\n",
            (2, 23),
            &["\"wlcc\"", "one of rr, wrr, lc, wlc, lblc"],
        ),
        (
            "interfaces: [eth0]\ndefaults: {flags: [mh-prot]}\n",
            (2, 20),
            &["\"mh-prot\"", "did you mean \"mh-port\"?"],
        ),
        (
            "interfaces: [eth0]\ndefaults: {tunnel: {type: gre, port: 1}}\n",
            (2, 38),
            &["only gue"],
        ),
    ] {
        check(text, place, words);
    }
}

#[test]
fn values_of_services() {
    for (service, place, words) in [
        (
            "- {address: 192.0.2.256, port: 80}",
            (1, 13),
            &["\"192.0.2.256\"", "IPv4 or IPv6 address"][..],
        ),
        (
            "- {address: www.example.org, port: 80}",
            (1, 13),
            &["\"www.example.org\"", "IPv4 or IPv6 address"],
        ),
        (
            "- {address: '192.0.2.1:80', port: 80}",
            (1, 13),
            &["under its own key, \"port\""],
        ),
        ("- {address: 224.0.0.1, port: 80}", (1, 13), &["multicast"]),
        ("- {address: 0.0.0.0, port: 80}", (1, 13), &["unspecified"]),
        ("- {address: '::', port: 80}", (1, 13), &["unspecified"]),
        ("- {address: 0.1.2.3, port: 80}", (1, 13), &["0.0.0.0/8"]),
        (
            "- {address: 255.255.255.255, port: 80}",
            (1, 13),
            &["broadcast"],
        ),
        ("- {address: 127.0.0.1, port: 80}", (1, 13), &["loopback"]),
        ("- {address: 'fe80::1', port: 80}", (1, 13), &["link-local"]),
        (
            "- {address: '::ffff:192.0.2.1', port: 80}",
            (1, 13),
            &["IPv4 address in IPv6"],
        ),
        (
            "- {address: '[192.0.2.1]', port: 80}",
            (1, 13),
            &["\"[192.0.2.1]\""],
        ),
        (
            "- {address: 192.0.2.1, port: 0}",
            (1, 30),
            &["\"0\"", "from 1 to 65535"],
        ),
        (
            "- {address: 192.0.2.1, port: 65536}",
            (1, 30),
            &["\"65536\"", "from 1 to 65535"],
        ),
        (
            "- {address: 192.0.2.1, port: http}",
            (1, 30),
            &["\"http\"", "from 1 to 65535"],
        ),
        (
            "- address: 192.0.2.1\n  port:\n",
            (2, 7),
            &["no value", "from 1 to 65535"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, protocol: upd}",
            (1, 44),
            &["\"upd\"", "did you mean \"udp\"?"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, protocol: TCP}",
            (1, 44),
            &["\"TCP\"", "did you mean \"tcp\"?"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, method: masq}",
            (1, 42),
            &["\"masq\"", "one of nat, dr, tun"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, method: tunn}",
            (1, 42),
            &["did you mean \"tun\"?"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, method: tun, tunnel: gree}",
            (1, 55),
            &["did you mean \"gre\"?"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, method: tun, tunnel: {type: gue, port: 0}}",
            (1, 73),
            &["a port"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, name: 'a b'}",
            (1, 40),
            &["\"a b\"", "without spaces"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, weight: 2147483648}",
            (1, 42),
            &["from 0 to 2147483647"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, real_servers: [5]}",
            (1, 49),
            &["\"5\"", "10.0.0.1:8080"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, real_servers: [10.0.0.1:http]}",
            (1, 49),
            &["\"10.0.0.1:http\""],
        ),
        (
            "- {address: 192.0.2.1, port: 80, real_servers: ['10.0.0.1:0']}",
            (1, 49),
            &["port 0"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, real_servers: ['224.0.0.1:80']}",
            (1, 49),
            &["multicast"],
        ),
    ] {
        check_service(service, place, words);
    }
}

#[test]
fn sync() {
    for (section, column, words) in [
        ("{peers: [10.0.0.2]}", 7, &["\"interface\" is missing"][..]),
        (
            "{interface: eth1, peers: []}",
            32,
            &["no peers", "those of the group"],
        ),
        (
            "{interface: eth1, peers: [10.0.0.2, 10.0.0.2]}",
            43,
            &["peer 10.0.0.2", "once"],
        ),
        (
            "{interface: eth1, peers: [10.0.0.2, 224.0.0.81]}",
            43,
            &["224.0.0.81", "a multicast address"],
        ),
        (
            "{interface: eth1, peers: [127.0.0.2]}",
            33,
            &["127.0.0.2", "never leave a host"],
        ),
        (
            "{interface: eth1, peers: ['::']}",
            33,
            &["the unspecified address"],
        ),
        (
            "{interface: eth1, group: 10.0.0.2}",
            32,
            &["multicast", "224.0.0.81"],
        ),
        (
            "{interface: eth1, peers: [10.0.0.2], ttl: 2}",
            49,
            &["\"ttl\" and \"peers\""],
        ),
        ("{interface: eth1, port: 0}", 31, &["a port from 1"]),
        ("{interface: eth1, rate: 0}", 31, &["from 1 to"]),
        ("{interface: eth1, node: \"a b\"}", 31, &["without spaces"]),
        ("{interface: eth1, alone_after: 5}", 38, &["with its unit"]),
        (
            "{interface: eth1, key: {file: /k}}",
            30,
            &["\"id\" is missing"],
        ),
        (
            "{interface: eth1, key: {id: 1, file: k}}",
            44,
            &["absolute path"],
        ),
        (
            "{interface: eth1, key: {id: 1, file: /k, accept: [{id: 1, file: /l}]}}",
            57,
            &["a key with the id 1", "of its own"],
        ),
        (
            "{interface: eth1, protocol: kernel}",
            35,
            &["one of director, ipvs"],
        ),
        (
            "{interface: eth1, syncid: 7}",
            33,
            &["only the protocol ipvs has"],
        ),
        (
            "{interface: eth1, protocol: ipvs, peers: [10.0.0.2]}",
            48,
            &["\"peers\"", "only the protocol director has"],
        ),
        (
            "{interface: eth1, protocol: ipvs, syncid: 256}",
            49,
            &["from 0 to 255"],
        ),
        (
            "{interface: eth1, protocol: ipvs, sync_maxlen: 1000}",
            54,
            &["from 1024"],
        ),
        (
            "{interface: eth1, protocol: ipvs, sync_retries: 4}",
            55,
            &["from 0 to 3"],
        ),
        (
            "{interface: eth1, sync_retries: 1}",
            39,
            &["only the protocol ipvs has"],
        ),
    ] {
        check(
            &format!("interfaces: [eth0]\nsync: {section}\n"),
            (2, column),
            words,
        );
    }
    // One port of one interface has one owner.
    let heartbeat = "\
heartbeat:
  node: lb1
  links: [{udp: {interface: eth1, multicast: 239.255.6.94, port: 8849}}]
  groups: [{name: web, interface: eth0, addresses: [192.0.2.10/32], priority: {lb1: 150, lb2: 100}}]
";
    for (section, column) in [
        ("{interface: eth1}", 7),
        ("{interface: eth1, port: 8849}", 31),
    ] {
        check(
            &format!("interfaces: [eth0]\nsync: {section}\n{heartbeat}"),
            (2, column),
            &[
                "port 8849 on eth1",
                "link \"udp eth1\"",
                "a port of its own",
            ],
        );
    }
}
