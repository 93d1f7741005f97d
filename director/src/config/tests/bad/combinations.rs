//! Values that do not go together, and too many of them.

use super::*;

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
        &["68000 real servers in all services", "at most 65534"],
    );
    check_service(
        &format!(
            "- {{address: 192.0.2.1, port: 80, scheduler: mh, track: on-change, method: dr, {}}}\n",
            real_servers(1025)
        ),
        (1, 3),
        &[
            "1025 real servers",
            "tracks connections on change",
            "at most 1024",
        ],
    );
    // 512 tables of 4093 slots fit into half of 2^22, the next does not.
    check_service(
        &services(513, ", method: dr, scheduler: mh, real_servers: [10.0.0.1]"),
        (513, 3),
        &["2099709 scheduling-table slots", "at most 2097152"],
    );
}

/// What tracking on change cannot do.
#[test]
fn what_is_not_tracked_cannot_be_counted_or_translated() {
    let services = [
        (
            "scheduler: rr",
            &["with the scheduler rr", "\"scheduler: mh\""][..],
        ),
        (
            "scheduler: mh, persistence: 5m",
            &["with persistence", "persistence: off"],
        ),
        (
            "scheduler: mh, protocol: udp, one_packet: true",
            &["with one_packet"],
        ),
        (
            "scheduler: mh, fallback: false",
            &["with \"fallback: false\""],
        ),
        (
            "scheduler: mh, upper_threshold: 9",
            &["with an upper threshold"],
        ),
        (
            "scheduler: mh, method: nat",
            &["the method nat, for 10.0.0.1", "the method dr or tun"],
        ),
    ];
    for (rest, words) in services {
        check_service(
            &format!(
                "- {{address: 192.0.2.1, port: 80, track: on-change, {}{rest}, real_servers: [10.0.0.1]}}",
                if rest.contains("nat") {
                    ""
                } else {
                    "method: dr, "
                }
            ),
            (1, 41),
            words,
        );
    }
    check_service(
        "- {address: 192.0.2.1, port: 80, scheduler: mh, hold_time: 5m}",
        (1, 60),
        &[
            "hold_time",
            "tracks all connections",
            "\"track: on-change\"",
        ],
    );
    // (protocol and times, where, words)
    let too_long: [(&str, usize, &str); 3] = [
        ("hold_time: 16m", 78, "timeouts.established, 900 s"),
        (
            "protocol: both, hold_time: 1h, timeouts: {udp: 1h}",
            94,
            "timeouts.established, 900 s",
        ),
        ("protocol: udp, hold_time: 301s", 93, "timeouts.udp, 300 s"),
    ];
    for (keys, column, words) in too_long {
        check_service(
            &format!("- {{address: 192.0.2.1, port: 80, scheduler: mh, track: on-change, {keys}}}"),
            (1, column),
            &["\"hold_time\"", words, "at most"],
        );
    }
    check_service(
        "- {address: 192.0.2.1, port: 80, scheduler: mh, track: onchange}",
        (1, 56),
        &["one of all, on-change", "did you mean \"on-change\"?"],
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
            "- {address: 192.0.2.1, port: 80, real_servers: [{address: 10.0.0.1, lower_threshold: 6}]}",
            86,
            &[
                "lower threshold 6 is of no upper one",
                "the key \"upper_threshold\" too",
            ],
        ),
        (
            "- {address: 192.0.2.1, port: 53, protocol: udp, scheduler: ovf, real_servers: [10.0.0.1]}",
            60,
            &["ovf in a service that takes UDP", "scheduler: fo"],
        ),
        (
            "- {endpoints: [192.0.2.1:53, {address: 192.0.2.1, port: 53, protocol: udp}], scheduler: ovf, real_servers: [10.0.0.1]}",
            89,
            &["ovf in a service that takes UDP"],
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

/// Checks that could never succeed, or say less than whoever wrote them thinks.
#[test]
fn checks_that_make_no_sense() {
    let cases = [
        (
            "{type: http, method: HEAD, expect: Hello}",
            &["\"expect\"", "HEAD", "no body"][..],
        ),
        (
            "{type: http, method: HEAD, digest: 'md5:d41d8cd98f00b204e9800998ecf8427e'}",
            &["\"digest\"", "HEAD"],
        ),
        (
            "{type: http, host: 'www example.org'}",
            &["the host \"www example.org\"", "with a port"],
        ),
        (
            "{type: https, host: 'https://www.example.org/'}",
            &["the host"],
        ),
        (
            "{type: https, server_name: 'a b'}",
            &["\"a b\"", "a host's name"],
        ),
        (
            "{type: dns, name: 'a..b'}",
            &["\"a..b\" is no name in the DNS"],
        ),
        (
            "{type: dns, name: a, answer: www.example.org}",
            &["nothing that such a record can hold", "an IPv4 address"],
        ),
        (
            "{type: dns, name: a, record: AAAA, answer: 10.0.0.1}",
            &["an IPv6 address, or another record"],
        ),
        (
            "{type: agent, port: 3333, minimum: 60, maximum: 40}",
            &["the minimum 60 is above the maximum 40"],
        ),
        ("[none, http]", &["\"none\" beside others"]),
        ("[http, {type: http}]", &["the same check http twice"]),
        (
            "{type: http, expect_regex: '(\\w{50}){50}'}",
            &["cannot be compiled"],
        ),
    ];
    for (written, words) in cases {
        let text = format!(
            "interfaces: [eth0]\nservices:\n- {{address: 192.0.2.1, port: 80, real_servers: [10.0.0.1], check: {written}}}\n"
        );
        let error = parse("director.yaml", &text)
            .expect_err(written)
            .to_string();
        for word in words {
            assert!(error.contains(word), "no {word:?} for {written}:\n{error}");
        }
    }
}
