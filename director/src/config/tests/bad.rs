//! Texts with mistakes: where they are found and what is said.

use super::*;

/// Checks that the first mistake of a text is at line and column, and that every word stands in what an operator reads.
fn check(text: &str, (line, column): (usize, usize), words: &[&str]) {
    let Err(error) = parse("director.yaml", text) else {
        panic!("loaded without a mistake:\n{text}")
    };
    let shown = error.to_string();
    let found = error.mistakes().first().map(|mistake| mistake.place);
    assert_eq!(found, Some(Place { line, column }), "{text}\n{shown}");
    assert!(
        shown.contains(&format!("director.yaml:{line}:{column}")),
        "no place:\n{shown}"
    );
    for word in words {
        assert!(
            shown.contains(word),
            "no \"{word}\" in:\n{shown}\n\nfor:\n{text}"
        );
    }
}

/// A service beside a good head: lines count from 1 at the service.
fn check_service(service: &str, (line, column): (usize, usize), words: &[&str]) {
    check(
        &format!("interfaces: [eth0]\nservices:\n{service}"),
        (line + 2, column),
        words,
    );
}

#[test]
fn not_yaml() {
    for (text, place, words) in [
        ("interfaces: [eth0\nfoo: bar\n", (2, 4), &["YAML"][..]),
        (
            "interfaces: [eth0]\n\tinstance: a\n",
            (2, 2),
            &["YAML", "tab"],
        ),
        ("interfaces: \"eth0\n", (1, 13), &["YAML"]),
        (
            "interfaces: [eth0]\ninterfaces: [eth1]\n",
            (2, 1),
            &["\"interfaces\"", "second time", "once"],
        ),
        (
            "interfaces: [eth0]\n---\ninstance: b\n",
            (3, 1),
            &["second YAML document", "one document"],
        ),
        ("interfaces: [eth0]\nservices: *web\n", (2, 11), &["alias"]),
        (
            "interfaces: [[[[[[[[[[[[[[[[[[eth0]]]]]]]]]]]]]]]]]]\n",
            (1, 29),
            &["recursion limit"],
        ),
    ] {
        check(text, place, words);
    }
}

#[test]
fn shapes() {
    for (text, place, words) in [
        (
            "hello\n",
            (1, 1),
            &["found \"hello\"", "a mapping of keys and values"][..],
        ),
        (
            "- eth0\n",
            (1, 1),
            &["found a list", "a mapping of keys and values"],
        ),
        ("interfaces: eth0\n", (1, 13), &["found \"eth0\"", "a list"]),
        (
            "interfaces: {eth0: native}\n",
            (1, 13),
            &["found a mapping", "a list"],
        ),
        (
            "interfaces: [[eth0]]\n",
            (1, 14),
            &["found a list", "a single value or a mapping"],
        ),
        (
            "interfaces: [eth0]\ninstance: [a]\n",
            (2, 11),
            &["found a list", "a single value"],
        ),
        (
            "interfaces: [eth0]\nconnections: 5\n",
            (2, 14),
            &["found \"5\"", "a mapping"],
        ),
        (
            "interfaces: [eth0]\nservices:\n  web: {}\n",
            (3, 3),
            &["found a mapping", "a list"],
        ),
        (
            "interfaces: [eth0]\nservices: [192.0.2.1]\n",
            (2, 12),
            &["found \"192.0.2.1\"", "a mapping"],
        ),
        (
            "interfaces: [eth0]\nservices:\n- address: [2001:db8::1]\n",
            (3, 12),
            &["found a list", "quoted", "\"[2001:db8::10]\""],
        ),
        (
            "interfaces: [eth0]\nservices:\n- address:\n    ip: 192.0.2.1\n",
            (4, 5),
            &["found a mapping", "a single value"],
        ),
    ] {
        check(text, place, words);
    }
}

#[test]
fn keys() {
    for (text, place, words) in [
        (
            "interfaces: [eth0]\nservces: []\n",
            (2, 1),
            &[
                "unknown key \"servces\"",
                "services",
                "did you mean \"services\"?",
            ][..],
        ),
        (
            "interfaces: [eth0]\nxyz: 1\n",
            (2, 1),
            &[
                "unknown key \"xyz\"",
                "one of the keys instance, interfaces",
            ],
        ),
        (
            "interfaces: [{name: eth0, mod: native}]\n",
            (1, 27),
            &["\"mod\"", "did you mean \"mode\"?"],
        ),
        (
            "interfaces: [eth0]\ndefaults: {wieght: 1}\n",
            (2, 12),
            &["\"wieght\"", "did you mean \"weight\"?"],
        ),
        (
            "interfaces: [eth0]\ntunnel: {source: 10.0.0.1}\n",
            (2, 10),
            &["\"source\"", "did you mean \"source_ipv"],
        ),
        (
            "interfaces: [eth0]\nconnections: {IPv4: 1}\n",
            (2, 15),
            &["\"IPv4\"", "did you mean \"ipv4\"?"],
        ),
    ] {
        check(text, place, words);
    }
    for (service, place, words) in [
        (
            "- {adress: 192.0.2.1, port: 80}",
            (1, 4),
            &["\"adress\"", "did you mean \"address\"?"][..],
        ),
        (
            "- port: 80\n  address: 192.0.2.1\n  realservers: []",
            (3, 3),
            &["did you mean \"real_servers\"?"],
        ),
        (
            "- address: 192.0.2.1\n  port: 80\n  real_servers:\n  - address: 10.0.0.1\n    wight: 1",
            (5, 5),
            &[
                "\"wight\"",
                "one of the keys address, port, weight, upper_threshold, lower_threshold, method, tunnel",
                "did you mean \"weight\"?",
            ],
        ),
        (
            "- {address: 192.0.2.1, port: 80, method: tun, tunnel: {kind: gue}}",
            (1, 56),
            &["\"kind\"", "one of the keys type, port"],
        ),
        (
            "- port: 80",
            (1, 3),
            &["the key \"address\" is missing", "IPv4 or IPv6 address"],
        ),
        (
            "- address: 192.0.2.1",
            (1, 3),
            &["the key \"port\" is missing", "from 1 to 65535"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, real_servers: [{port: 8080}]}",
            (1, 49),
            &["the key \"address\" is missing"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, method: tun, tunnel: {port: 6081}}",
            (1, 55),
            &["the key \"type\" is missing", "ipip, gue, gre"],
        ),
    ] {
        check_service(service, place, words);
    }
}

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
fn values_that_do_not_go_together() {
    for (service, place, words) in [
        (
            "- {address: 192.0.2.1, port: 80, method: dr, real_servers: ['10.0.0.1:8080']}",
            (1, 61),
            &[
                "port 8080",
                "dr cannot change ports",
                "the service's port 80",
            ][..],
        ),
        (
            "- {address: 192.0.2.1, port: 80, real_servers: [{address: 10.0.0.1, port: 81, method: tun}]}",
            (1, 75),
            &["port 81", "tun cannot change ports"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, real_servers: ['2001:db8::1']}",
            (1, 49),
            &[
                "IPv6 real server 2001:db8::1 in an IPv4 service",
                "nat",
                "the method tun",
            ],
        ),
        (
            "- {address: '2001:db8::1', port: 80, method: dr, real_servers: [10.0.0.1]}",
            (1, 65),
            &["IPv4 real server 10.0.0.1 in an IPv6 service", "dr"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, real_servers: [{address: 10.0.0.1, tunnel: gre}]}",
            (1, 77),
            &["a tunnel, but the method here is nat", "\"method: tun\""],
        ),
        (
            "- {address: 192.0.2.1, port: 80, tunnel: gre, method: dr}",
            (1, 42),
            &["the method here is dr"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, flags: [mh-port]}",
            (1, 41),
            &["mh-port", "not mh", "scheduler: mh"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, method: tun, tunnel: {type: ipip, port: 6080}}",
            (1, 74),
            &["only gue"],
        ),
        (
            "- address: 192.0.2.1\n  port: 80\n- address: 192.0.2.1\n  port: 80",
            (3, 3),
            &["tcp/192.0.2.1:80 is served already by line 3", "once"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, name: a}\n- {address: 192.0.2.1, port: 81, name: a}",
            (2, 3),
            &["the name \"a\"", "line 3"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, real_servers: [10.0.0.1, {address: 10.0.0.1, port: 80}]}",
            (1, 59),
            &[
                "10.0.0.1:80 of this service stands already",
                "line 3",
                "once",
            ],
        ),
        (
            "- {address: 192.0.2.1, port: 80, real_servers: [192.0.2.2]}\n- {address: 192.0.2.2, port: 80}",
            (1, 49),
            &["192.0.2.2 is the virtual address", "line 4", "own address"],
        ),
    ] {
        check_service(service, place, words);
    }
}

#[test]
fn too_many() {
    let services = |count: usize, rest: &str| -> String {
        (0..count)
            .map(|n| {
                format!(
                    "- {{address: 10.1.{}.{}, port: 80{rest}}}\n",
                    n / 250,
                    n % 250 + 1
                )
            })
            .collect()
    };
    let real_servers = |count: usize| -> String {
        let list: Vec<String> = (0..count)
            .map(|n| format!("10.2.{}.{}", n / 250, n % 250 + 1))
            .collect();
        format!("real_servers: [{}]", list.join(", "))
    };
    let interfaces: Vec<String> = (0..65).map(|n| format!("eth{n}")).collect();
    check(
        &format!("interfaces: [{}]", interfaces.join(", ")),
        (1, 13),
        &["65 interfaces", "at most 64"],
    );
    check_service(
        &services(4096, ""),
        (4096, 3),
        &["4096 services", "at most 4095"],
    );
    check_service(
        &services(17, ", real_servers: [10.0.0.1]"),
        (17, 49),
        &[
            "17 services and endpoints with this real server under nat",
            "at most 16",
        ],
    );
    check_service(
        &format!(
            "- {{address: 192.0.2.1, port: 80, scheduler: rr, {}}}\n",
            real_servers(4097)
        ),
        (1, 3),
        &["4097 real servers in one service", "at most 4096"],
    );
    check_service(
        &format!(
            "- {{address: 192.0.2.1, port: 80, scheduler: lc, {}}}\n",
            real_servers(1025)
        ),
        (1, 3),
        &["1025 real servers", "compares connections", "at most 1024"],
    );
    let endpoints: Vec<String> = (1..=65).map(|n| format!("192.0.2.{n}")).collect();
    check_service(
        &format!("- {{port: 80, endpoints: [{}]}}\n", endpoints.join(", ")),
        (1, 25),
        &["65 endpoints in one service", "at most 64"],
    );
    check_service(
        &services(
            17,
            &format!(", method: dr, scheduler: rr, {}", real_servers(4000)),
        ),
        (17, 3),
        &["68000 real servers in all services", "at most 65535"],
    );
    // 512 tables of 4093 slots fit into half of 2^22, the next does not.
    check_service(
        &services(513, ", method: dr, scheduler: mh, real_servers: [10.0.0.1]"),
        (513, 3),
        &["2099709 scheduling-table slots", "at most 2097152"],
    );
}

/// What the keys of services say that does not go together, or is none of what may stand there.
#[test]
fn services_that_make_no_sense() {
    let cases: &[(&str, usize, &[&str])] = &[
        (
            "- {address: 192.0.2.1, port: 9000-8000}",
            30,
            &["found \"9000-8000\"", "ends before it begins"],
        ),
        (
            "- {address: 192.0.2.1, port: all}",
            30,
            &["found \"all\"", "a range like 8000-8999", "\"any\""],
        ),
        (
            "- {address: 192.0.2.1, port: 80, protocol: sctp}",
            44,
            &["one of tcp, udp, both"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, endpoints: [192.0.2.2]}",
            13,
            &["an address beside endpoints", "either"],
        ),
        (
            "- {port: 80, endpoints: []}",
            25,
            &["there are no endpoints"],
        ),
        ("- {endpoints: [192.0.2.1]}", 16, &["\"port\" is missing"]),
        (
            "- {port: 80, endpoints: [192.0.2.1, '2001:db8::1']}",
            37,
            &["2001:db8::1", "first address is 192.0.2.1", "one family"],
        ),
        (
            "- {endpoints: ['192.0.2.1:80', '192.0.2.1:80']}",
            3,
            &["tcp/192.0.2.1:80 is served already by line 3"],
        ),
        (
            "- {endpoints: [{address: 192.0.2.1, port: 1-9}, {address: 192.0.2.1, port: 9-20}]}",
            3,
            &["tcp/192.0.2.1:9-20 is served already"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, timeouts: {established: 13h}}",
            58,
            &["\"13h\"", "from 1s to 12h"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, timeouts: {udp: 1500ms}}",
            50,
            &["whole seconds"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, timeouts: {etablished: 1h}}",
            45,
            &[
                "unknown key \"etablished\"",
                "did you mean \"established\"?",
            ],
        ),
        (
            "- {address: 192.0.2.1, port: 80, persistence: maybe}",
            47,
            &["\"maybe\"", "\"off\", or a mapping"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, persistence: {granularity: 0}}",
            61,
            &["from 1 to 128"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, persistence: {granularity: 33}}",
            61,
            &["\"33\", longer than an IPv4 address", "from 1 to 32"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, one_packet: true}",
            46,
            &["one_packet in a service that takes TCP", "protocol: udp"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, no_server: refuse}",
            45,
            &["one of icmp, reset, silent"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, removed_servers: forget}",
            51,
            &["one of keep, reschedule, drop"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, sloppy: perhaps}",
            42,
            &["true or false"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, scheduler: wrr, fallback: false}",
            60,
            &["fallback", "sh, dh, mh"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, scheduler: mh, flags: [sh-port]}",
            56,
            &["the flag sh-port", "is not sh"],
        ),
        (
            "- {address: 192.0.2.1, port: 80, real_servers: [{address: 10.0.0.1, upper_threshold: 5, lower_threshold: 6}]}",
            106,
            &["lower threshold 6 is above the upper one 5"],
        ),
        (
            "- {address: 192.0.2.1, port: 1-9, real_servers: ['10.0.0.1:80']}",
            50,
            &[
                "found port 80",
                "a range of ports",
                "the one that the client used",
            ],
        ),
        (
            "- {endpoints: ['192.0.2.1:80', '192.0.2.1:81'], method: dr, real_servers: ['10.0.0.1:80']}",
            76,
            &["the method dr cannot change ports"],
        ),
    ];
    for (service, column, words) in cases {
        check_service(service, (1, *column), words);
    }
}

/// One mistake is told once, and nothing that follows from it alone.
#[test]
fn one_mistake_is_one() {
    let cases: [(&str, &str, usize, &str); 8] = [
        (
            "",
            "- {endpoints: ['192.0.2.1:x'], method: dr, real_servers: ['10.0.0.1:80', '10.0.0.2:80']}",
            16,
            "192.0.2.1:x",
        ),
        (
            "",
            "- {endpoints: ['192.0.2.1:80', '192.0.2:80'], method: tun, real_servers: ['10.0.0.1:81']}",
            32,
            "192.0.2:80",
        ),
        (
            "",
            "- {address: 192.0.2.1, port: 0, method: dr, real_servers: ['10.0.0.1:80']}",
            30,
            "found \"0\"",
        ),
        (
            "",
            "- {address: 192.0.2.1, port: 80, upper_threshold: 5, lower_threshold: 6, real_servers: [10.0.0.1, 10.0.0.2]}",
            71,
            "the lower threshold 6 is above the upper one 5",
        ),
        (
            "",
            "- {address: 192.0.2.1, port: 80, upper_threshold: 5, lower_threshold: 6, real_servers: [{address: 10.0.0.1, upper_threshold: 4}]}",
            71,
            "the lower threshold 6 is above the upper one 5",
        ),
        (
            "defaults: {upper_threshold: 5, lower_threshold: 6}\n",
            "- {address: 192.0.2.1, port: 80, real_servers: [10.0.0.1, 10.0.0.2]}",
            49,
            "the lower threshold 6 is above the upper one 5",
        ),
        (
            "defaults: {upper_threshold: 5, lower_threshold: 4}\n",
            "- {address: 192.0.2.1, port: 80, upper_threshold: 3, real_servers: [10.0.0.1, 10.0.0.2]}",
            51,
            "the lower threshold 4 is above the upper one 3",
        ),
        (
            "",
            "- {address: 192.0.2.1, port: 80, upper_threshold: many, lower_threshold: 6, real_servers: [10.0.0.1]}",
            51,
            "found \"many\"",
        ),
    ];
    for (head, service, column, words) in cases {
        let text = format!("interfaces: [eth0]\n{head}services:\n{service}\n");
        let error = parse("director.yaml", &text).unwrap_err();
        let shown = error.to_string();
        assert_eq!(error.mistakes().len(), 1, "{shown}");
        assert_eq!(error.mistakes()[0].place.column, column, "{shown}");
        assert!(shown.contains(words), "no {words:?} in {shown}");
    }
}

/// A few lines that stand for more than anybody means are refused before they are unfolded. With fewer events than a
/// configuration may have, so that it does not take long; that the rest is as much is [`limits::YAML_EVENTS`]'s business.
#[test]
fn alias_bombs() {
    const EVENTS: usize = 20_000;
    let times = |count: usize, what: &str| vec![what; count].join(", ");
    let service = "address: 192.0.2.1, port: 80";
    let pool = times(100, "10.0.0.1");
    let list = format!("- {{{service}, real_servers: &pool [{pool}]}}\n");
    let nested = [
        times(9, "x"),
        times(9, "*a"),
        times(9, "*b"),
        times(9, "*c"),
    ];
    let nested: String = "abcd"
        .chars()
        .zip(&nested)
        .map(|(name, list)| format!("- &{name} [{list}]\n"))
        .collect();
    for (what, services, words) in [
        ("a list in one service", list.clone(), None),
        (
            "a list in too many services",
            list.clone() + &format!("- {{{service}, real_servers: *pool}}\n").repeat(300),
            Some("too much"),
        ),
        (
            "a service too many times",
            list.replacen("- ", "- &service ", 1) + &"- *service\n".repeat(300),
            Some("too much"),
        ),
        ("lists of lists of lists", nested, Some("found a list")),
    ] {
        let text = format!("interfaces: [eth0]\nservices:\n{services}");
        let found = yaml::read_within(&text, EVENTS).map(drop);
        match (found, words) {
            (Ok(()), None) => {}
            (Err(mistake), Some(words)) => {
                assert!(mistake.message.contains(words), "{what}: {mistake:?}");
            }
            (found, _) => panic!("{what}: {found:?}"),
        }
    }
}

/// A wrong value behind an anchor is told once, where it stands.
#[test]
fn mistakes_behind_an_anchor() {
    let text = "interfaces: [eth0]\nservices:\n- {address: 192.0.2.1, port: 1, real_servers: &pool [10.0.0.300]}\n- {address: 192.0.2.1, port: 2, real_servers: *pool}\n";
    check(text, (3, 54), &["\"10.0.0.300\""]);
    assert_eq!(
        parse("director.yaml", text).unwrap_err().mistakes().len(),
        1
    );
}

#[test]
fn many_mistakes_at_once() {
    let text = "
instance: a/b
interfaces: [eth0, eth0]
defaults: {weight: -1}
services:
  - {address: 192.0.2.1, port: 0}
  - {address: 192.0.2.2, port: 80, scheduler: wr, real_servers: [10.0.0.1, 10.0.0.1, 10.0.0]}
";
    let error = parse("director.yaml", text).unwrap_err();
    let places: Vec<(usize, usize)> = error
        .mistakes()
        .iter()
        .map(|mistake| (mistake.place.line, mistake.place.column))
        .collect();
    assert_eq!(
        places,
        [
            (2, 11),
            (3, 20),
            (4, 20),
            (6, 32),
            (7, 47),
            (7, 76),
            (7, 86)
        ],
        "{error}"
    );
}
