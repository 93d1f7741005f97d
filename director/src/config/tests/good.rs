//! Texts without mistakes, and what they mean.

use std::time::Duration;

use super::*;

const HEAD: &str = "interfaces: [eth0]\nservices:\n";

/// Checks what one service (with a head before it) means.
fn check(sentence: &str, service: &str, expected: impl Fn(&VirtualService) -> bool) {
    let config = good(sentence, &format!("{HEAD}{service}"));
    let found = &config.services[0];
    assert!(expected(found), "{sentence}: {found:#?}");
}

fn method(service: &VirtualService, real_server: usize) -> Method {
    service.real_servers[real_server].method
}

#[test]
fn defaults_of_last_resort() {
    let config = good(
        "a bare one",
        &format!("{HEAD}- {{address: 192.0.2.10, port: 80, real_servers: [10.0.0.1]}}"),
    );
    let expected = Config {
        instance: "default".to_owned(),
        interfaces: vec![Interface {
            name: "eth0".to_owned(),
            mode: XdpMode::Native,
        }],
        services: vec![VirtualService {
            name: "tcp/192.0.2.10:80".to_owned(),
            endpoints: vec![Endpoint {
                address: "192.0.2.10".parse().unwrap(),
                ports: Ports::one(80),
                protocol: Protocol::Tcp,
            }],
            scheduler: Scheduler::Wlc,
            one_packet: false,
            track: Track::All,
            sloppy: false,
            timeouts: Timeouts {
                established_s: 900,
                syn_received_s: 60,
                fin_wait_s: 120,
                time_wait_s: 120,
                close_s: 10,
                close_wait_s: 60,
                udp_s: 300,
            },
            persistence: None,
            no_server: NoServer::Icmp,
            removed_servers: RemovedServers::Keep,
            real_servers: vec![RealServer {
                address: "10.0.0.1".parse().unwrap(),
                port: Some(80),
                weight: 1,
                upper_threshold: 0,
                lower_threshold: 0,
                method: Method::Nat,
                checks: [].into(),
            }],
            fallback_servers: Vec::new(),
            health: Health {
                on_down: OnDown::Remove,
                until_checked: UntilChecked::Out,
                quorum: 1,
                hysteresis: 0,
                slow_start_s: 0,
                depends_on: Vec::new(),
            },
        }],
        alerts: Vec::new(),
        tunnel: TunnelSettings {
            source_ipv4: "198.18.0.0/16".parse().unwrap(),
            source_ipv6: "100::/64".parse().unwrap(),
        },
        connections: ConnectionLimits {
            ipv4: 1_000_000,
            ipv6: 250_000,
        },
        icmp_per_second: 100,
        fragment_timeout_ms: 1000,
        control_socket: PathBuf::from("/run/director/default.sock"),
        watch: false,
        heartbeat: None,
        sync: None,
    };
    assert_eq!(config, expected);
}

#[test]
fn services_and_real_servers() {
    check(
        "IPv6 plain",
        "- {address: '2001:db8::1', port: 80}",
        |service| service.name == "tcp/[2001:db8::1]:80" && service.real_servers.is_empty(),
    );
    check(
        "IPv6 in brackets",
        "- {address: '[2001:db8::1]', port: 80}",
        |service| service.endpoints[0].address.to_string() == "2001:db8::1",
    );
    check(
        "no real servers under their key",
        "- address: 192.0.2.1\n  port: 80\n  real_servers:\n",
        |service| service.real_servers.is_empty(),
    );
    check(
        "a quoted number",
        "- {address: 192.0.2.1, port: '80'}",
        |service| service.endpoints[0].ports == Ports::one(80),
    );
    check(
        "real servers in one word",
        "- address: 2001:db8::1\n  port: 80\n  real_servers: ['2001:db8::2', '[2001:db8::2]:81', '[2001:db8::3]']",
        |service| {
            let found: Vec<String> = service.real_servers.iter().map(RealServer::shown).collect();
            found == ["[2001:db8::2]:80", "[2001:db8::2]:81", "[2001:db8::3]:80"]
        },
    );
    check(
        "the real server's own weight, the service's weight, quiesced",
        "- address: 192.0.2.1\n  port: 80\n  weight: 5\n  real_servers: [10.0.0.1, {address: 10.0.0.2, weight: 0}]",
        |service| {
            service
                .real_servers
                .iter()
                .map(|server| server.weight)
                .eq([5, 0])
        },
    );
    check(
        "one real server at two ports",
        "- {address: 192.0.2.1, port: 80, real_servers: ['10.0.0.1:1', '10.0.0.1:2']}",
        |service| service.real_servers.len() == 2,
    );
    check(
        "the same port, said twice, under DR",
        "- {address: 192.0.2.1, port: 80, method: dr, real_servers: ['10.0.0.1:80']}",
        |service| method(service, 0) == Method::Dr,
    );
    check(
        "a flag of mh",
        "- {address: 192.0.2.1, port: 80, scheduler: mh, flags: [mh-port]}",
        |service| {
            service.scheduler
                == Scheduler::Mh {
                    port: true,
                    fallback: true,
                }
        },
    );
    check(
        "no flag of mh",
        "- {address: 192.0.2.1, port: 80, scheduler: mh}",
        |service| {
            service.scheduler
                == Scheduler::Mh {
                    port: false,
                    fallback: true,
                }
        },
    );
}

#[test]
fn tunnels() {
    check(
        "each kind, and mixed families",
        "- address: 192.0.2.1
  port: 80
  method: tun
  tunnel: gre
  real_servers:
    - 10.0.0.1
    - {address: '2001:db8::1', tunnel: ipip}
    - {address: 10.0.0.2, tunnel: gue}
    - {address: 10.0.0.3, tunnel: {type: gue, port: 5555}}
    - {address: 10.0.0.4, method: dr}",
        |service| {
            let methods: Vec<Method> = service
                .real_servers
                .iter()
                .map(|server| server.method)
                .collect();
            methods
                == [
                    Method::Tun(Tunnel::Gre),
                    Method::Tun(Tunnel::Ipip),
                    Method::Tun(Tunnel::Gue { port: 6080 }),
                    Method::Tun(Tunnel::Gue { port: 5555 }),
                    Method::Dr,
                ]
        },
    );
    check(
        "a service's tunnel for the one real server that has the method",
        "- {address: 192.0.2.1, port: 80, tunnel: gre, real_servers: [{address: 10.0.0.1, method: tun}]}",
        |service| method(service, 0) == Method::Tun(Tunnel::Gre),
    );
    let own = good(
        "outer sources of one's own",
        "interfaces: [eth0]\ntunnel: {source_ipv4: 10.0.0.9, source_ipv6: 2001:db8::/96}",
    );
    assert_eq!(own.tunnel.source_ipv4.to_string(), "10.0.0.9/32");
    assert_eq!(own.tunnel.source_ipv6.to_string(), "2001:db8::/96");
}

#[test]
fn defaults_are_written_once_and_overridden() {
    let text = "
interfaces: [eth0]
defaults: {port: 443, protocol: udp, scheduler: mh, flags: [mh-port], method: tun, tunnel: gue, weight: 7}
services:
  - {address: 192.0.2.1, real_servers: [10.0.0.1]}
  - {address: 192.0.2.2, port: 1, protocol: tcp, scheduler: rr, method: nat, weight: 2, real_servers: [10.0.0.1]}
  - {address: 192.0.2.3, flags: [], tunnel: gre, real_servers: [{address: 10.0.0.1, method: dr, weight: 3}, 10.0.0.2]}
";
    let services = good("defaults", text).services;
    let found: Vec<String> = services
        .iter()
        .map(|service| {
            let servers: Vec<String> = service
                .real_servers
                .iter()
                .map(|s| format!("{} {} {}", s.shown(), s.method, s.weight))
                .collect();
            format!(
                "{} {}: {}",
                service.name,
                service.scheduler,
                servers.join(", ")
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            "udp/192.0.2.1:443 mh (mh-port): 10.0.0.1:443 tun (gue) 7",
            "tcp/192.0.2.2:1 rr: 10.0.0.1:1 nat 2",
            "udp/192.0.2.3:443 mh: 10.0.0.1:443 dr 3, 10.0.0.2:443 tun (gre) 7",
        ]
    );
}

#[test]
fn anchors_and_empty_sections() {
    let mut text = "interfaces: [eth0]\ndefaults:\ntunnel:\nconnections:\nservices:\n".to_owned();
    text.push_str("- {address: 192.0.2.1, port: 1, real_servers: &pool [10.0.0.1, 10.0.0.2]}\n");
    for port in 2..=500 {
        text.push_str(&format!(
            "- {{address: 192.0.2.1, port: {port}, real_servers: *pool}}\n"
        ));
    }
    let services = good("one list of real servers for many services", &text).services;
    assert_eq!(services.len(), 500);
    assert!(
        services
            .iter()
            .all(|service| service.real_servers.len() == 2)
    );

    let merged = "interfaces: [eth0]\nservices:\n- &web {address: 192.0.2.1, port: 80}\n- {<<: *web, port: 81}\n";
    assert_eq!(
        good("a merged mapping", merged).services[1].name,
        "tcp/192.0.2.1:81"
    );
}

#[test]
fn schedulers() {
    for (name, expected) in [
        ("rr", Scheduler::Rr),
        ("wrr", Scheduler::Wrr),
        ("lc", Scheduler::Lc),
        ("wlc", Scheduler::Wlc),
        ("lblc", Scheduler::Lblc),
        ("lblcr", Scheduler::Lblcr),
        ("dh", Scheduler::Dh { fallback: true }),
        (
            "sh",
            Scheduler::Sh {
                port: false,
                fallback: true,
            },
        ),
        ("sed", Scheduler::Sed),
        ("nq", Scheduler::Nq),
        ("fo", Scheduler::Fo),
        ("ovf", Scheduler::Ovf),
        ("twos", Scheduler::Twos),
    ] {
        let service = format!("- {{address: 192.0.2.1, port: 80, scheduler: {name}}}");
        check(name, &service, |it| {
            it.scheduler == expected && it.scheduler.name() == name
        });
    }
    check(
        "as the kernel's sh",
        "- {address: 192.0.2.1, port: 80, scheduler: sh, flags: [sh-port], fallback: false}",
        |it| {
            it.scheduler
                == Scheduler::Sh {
                    port: true,
                    fallback: false,
                }
        },
    );
}

/// Endpoints as operators read them.
fn endpoints(service: &VirtualService) -> Vec<String> {
    service.endpoints.iter().map(ToString::to_string).collect()
}

#[test]
fn ports_protocols_and_groups() {
    for (text, expected) in [
        ("address: 192.0.2.1, port: any", &["tcp/192.0.2.1:any"][..]),
        (
            "address: 192.0.2.1, port: 8000-8999",
            &["tcp/192.0.2.1:8000-8999"],
        ),
        (
            "address: 192.0.2.53, port: 53, protocol: both",
            &["tcp/192.0.2.53:53", "udp/192.0.2.53:53"],
        ),
        (
            "endpoints: ['192.0.2.1:80', {address: 192.0.2.2, port: 443}, {address: 192.0.2.2, port: 20-21, protocol: both}]",
            &[
                "tcp/192.0.2.1:80",
                "tcp/192.0.2.2:443",
                "tcp/192.0.2.2:20-21",
                "udp/192.0.2.2:20-21",
            ],
        ),
        (
            "endpoints: ['2001:db8::1', '[2001:db8::2]:81'], port: 80, protocol: udp",
            &["udp/[2001:db8::1]:80", "udp/[2001:db8::2]:81"],
        ),
    ] {
        check(text, &format!("- {{{text}}}"), |it| {
            endpoints(it) == expected && it.name == expected[0]
        });
    }
    check(
        "real servers of several ports get the one that the client used",
        "- {endpoints: ['192.0.2.1:80', '192.0.2.1:443'], real_servers: [10.0.0.1, '10.0.0.2:8080']}",
        |it| {
            let ports = it.real_servers.iter().map(|server| server.port);
            ports.eq([None, Some(8080)])
        },
    );
    check(
        "one port of many addresses is the real servers'",
        "- {endpoints: ['192.0.2.1:80', '192.0.2.2:80'], real_servers: [10.0.0.1]}",
        |it| it.real_servers[0].port == Some(80),
    );
    good(
        "a port beside a range that has it, of another service",
        &format!(
            "{HEAD}- {{address: 192.0.2.1, port: any}}\n- {{address: 192.0.2.1, port: 80}}\n- {{address: 192.0.2.1, port: any, protocol: udp}}"
        ),
    );
}

#[test]
fn which_connections_are_tracked() {
    let on_change = |hold_s| Track::OnChange { hold_s };
    for (rest, expected) in [
        ("", Track::All),
        ("scheduler: mh, track: all", Track::All),
        ("scheduler: mh, track: on-change", on_change(900)),
        (
            "scheduler: mh, track: on-change, protocol: udp",
            on_change(300),
        ),
        (
            "scheduler: mh, track: on-change, protocol: both",
            on_change(900),
        ),
        (
            "scheduler: mh, track: on-change, protocol: both, timeouts: {udp: 1h}",
            on_change(900),
        ),
        (
            "scheduler: mh, track: on-change, timeouts: {established: 1h}",
            on_change(3600),
        ),
        (
            "scheduler: mh, track: on-change, hold_time: 5m",
            on_change(300),
        ),
    ] {
        check(
            rest,
            &format!(
                "- {{address: 192.0.2.1, port: 80, method: tun, real_servers: [10.0.0.1], {rest}}}"
            ),
            |it| it.track == expected,
        );
    }
}

#[test]
fn what_services_do() {
    let text = "
interfaces: [eth0]
defaults: {timeouts: {established: 1h, udp: 30s}, persistence: 10m, no_server: silent, one_packet: true, upper_threshold: 9}
services:
  - {address: 192.0.2.1, port: 80, timeouts: {udp: 5s}, real_servers: [10.0.0.1]}
  - address: 192.0.2.2
    port: 53
    protocol: udp
    persistence: off
    no_server: reset
    sloppy: true
    removed_servers: drop
    upper_threshold: 100
    real_servers: [10.0.0.1, {address: 10.0.0.2, upper_threshold: 7, lower_threshold: 3}]
  - address: 2001:db8::1
    port: 80
    persistence: {granularity: 64, across_ports: false, expire_quiescent: true}
";
    let services = good("all of them", text).services;
    assert_eq!(
        (
            services[0].timeouts.established_s,
            services[0].timeouts.udp_s,
            services[0].timeouts.close_s
        ),
        (3600, 5, 10)
    );
    let persistence = |service: &VirtualService| {
        service.persistence.map(|it| {
            (
                it.timeout_s,
                it.prefix,
                it.across_ports,
                it.expire_quiescent,
            )
        })
    };
    assert_eq!(persistence(&services[0]), Some((600, 32, true, false)));
    assert_eq!(persistence(&services[1]), None);
    assert_eq!(persistence(&services[2]), Some((600, 64, false, true)));
    assert!(!services[0].one_packet, "it takes TCP");
    assert!(services[1].one_packet && services[1].sloppy);
    assert_eq!(services[0].no_server, NoServer::Silent);
    assert_eq!(services[1].no_server, NoServer::Reset);
    assert_eq!(services[1].removed_servers, RemovedServers::Drop);
    let thresholds = |service: &VirtualService| -> Vec<(u32, u32)> {
        let servers = service.real_servers.iter();
        servers
            .map(|it| (it.upper_threshold, it.lower_threshold))
            .collect()
    };
    assert_eq!(thresholds(&services[0]), [(9, 0)]);
    assert_eq!(thresholds(&services[1]), [(100, 0), (7, 3)]);
}

/// A lower threshold may stand outside of the upper ones that it is for. Where there are none it is of no effect.
#[test]
fn a_lower_threshold_for_several_upper_ones() {
    let server = |upper: u32, lower: u32| (upper, lower);
    // (defaults, keys of the service, its real servers, upper and lower thresholds of all)
    let cases = [
        (
            "{lower_threshold: 6}",
            "",
            "[10.0.0.1, {address: 10.0.0.2, upper_threshold: 9}]",
            [server(0, 6), server(9, 6)],
        ),
        (
            "{lower_threshold: 6}",
            "upper_threshold: 8, ",
            "[10.0.0.1, {address: 10.0.0.2, upper_threshold: 0}]",
            [server(8, 6), server(0, 6)],
        ),
        (
            "{upper_threshold: 8}",
            "lower_threshold: 5, ",
            "[10.0.0.1, {address: 10.0.0.2, lower_threshold: 0}]",
            [server(8, 5), server(8, 0)],
        ),
        (
            "{}",
            "lower_threshold: 5, ",
            "[{address: 10.0.0.1, upper_threshold: 7}, {address: 10.0.0.2, lower_threshold: 0}]",
            [server(7, 5), server(0, 0)],
        ),
    ];
    for (defaults, keys, servers, expected) in cases {
        let text = format!(
            "interfaces: [eth0]\ndefaults: {defaults}\nservices:\n  - {{address: 192.0.2.1, port: 80, {keys}\
             real_servers: {servers}}}\n"
        );
        let servers = good(&text, &text).services.remove(0).real_servers;
        let found: Vec<_> = servers
            .iter()
            .map(|it| (it.upper_threshold, it.lower_threshold))
            .collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn alerts() {
    let text = "
interfaces: [eth0]
alerts:
  - {name: short, program: [/bin/page]}
  - name: long
    mail: {to: [Ops <ops@example.org>], server: mail.example.org, tls: tls, user: me, password: secret}
    on: [service, down, down]
    periods: [mon-fri 08:00-18:00]
    every: 1h
    after: 1500ms
    after_failures: 5
    group: 0s
  - {name: chat, webhook: {url: \"https://[2001:db8::1]:8443/hook\", headers: {Authorization: secret}}}
";
    let config = good("all of them", text);
    let [short, long, chat] = &config.alerts[..] else {
        panic!("{:?}", config.alerts)
    };
    assert_eq!(
        short.on,
        [
            AlertKind::Down,
            AlertKind::Up,
            AlertKind::Fallback,
            AlertKind::Quorum,
            AlertKind::Service,
            AlertKind::Role,
            AlertKind::Split,
            AlertKind::Node,
            AlertKind::Late,
            AlertKind::Link,
        ]
    );
    assert_eq!(
        (short.every_ms, short.after_ms, short.group_ms),
        (0, 0, 5000)
    );
    assert!(short.periods.is_empty());
    assert_eq!(long.on, [AlertKind::Down, AlertKind::Service]);
    assert_eq!(
        (long.every_ms, long.after_ms, long.group_ms),
        (3_600_000, 1500, 0)
    );
    assert_eq!((short.after_failures, long.after_failures), (1, 5));
    let AlertWay::Mail(mail) = &long.way else {
        panic!("{long:?}")
    };
    assert_eq!((mail.port, mail.tls), (465, MailTls::Tls));
    assert_eq!(mail.to, ["Ops <ops@example.org>"]);
    let AlertWay::Webhook(webhook) = &chat.way else {
        panic!("{chat:?}")
    };
    assert_eq!(
        (webhook.host.as_str(), webhook.port, webhook.path.0.as_str()),
        ("2001:db8::1", 8443, "/hook")
    );
    assert!(webhook.tls.is_some());
    // Whatever shows a configuration shows no passwords.
    let shown = format!("{config:?}") + &serde_json::to_string(&config).unwrap();
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn sync() {
    let sync = |section: &str| {
        let config = good(section, &format!("interfaces: [eth0]\nsync: {section}\n"));
        config.sync.unwrap().as_ref().clone()
    };
    let bare = sync("{interface: eth1, node: lb1}");
    let expected = Sync {
        interface: "eth1".to_owned(),
        node: "lb1".to_owned(),
        kernel: None,
        peers: vec![],
        group: "224.0.0.81".parse().unwrap(),
        ttl: 1,
        port: 8849,
        keys: None,
        records_per_second: 200_000,
        datagram_bytes: 1472,
        alone_after: Duration::from_secs(5),
    };
    assert_eq!(bare, expected);
    let rows = [
        (
            "{interface: eth1, node: lb1, peers: [10.0.0.2, \"2001:db8::2\"], port: 9000, rate: 5, datagram: 1400}",
            Sync {
                peers: vec!["10.0.0.2".parse().unwrap(), "2001:db8::2".parse().unwrap()],
                port: 9000,
                records_per_second: 5,
                datagram_bytes: 1400,
                ..expected.clone()
            },
        ),
        (
            "{interface: eth1, node: lb1, key: {id: 2, file: /k, accept: [{id: 1, file: /l}]}, alone_after: 500ms}",
            Sync {
                keys: Some(SyncKeys {
                    active: KeyFile {
                        id: 2,
                        file: "/k".into(),
                    },
                    accept: vec![KeyFile {
                        id: 1,
                        file: "/l".into(),
                    }],
                }),
                alone_after: Duration::from_millis(500),
                ..expected.clone()
            },
        ),
        (
            "{interface: eth1, node: lb1, protocol: ipvs, syncid: 7, sync_refresh_period: 30s, sync_retries: 2}",
            Sync {
                kernel: Some(KernelSync {
                    syncid: 7,
                    sync_maxlen: 1472,
                    sync_refresh_period_s: 30,
                    sync_retries: 2,
                }),
                port: 8848,
                ..expected.clone()
            },
        ),
    ];
    for (section, expected) in rows {
        assert_eq!(sync(section), expected, "{section}");
    }
}
