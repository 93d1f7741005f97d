//! Texts with mistakes: where they are found and what is said.

use super::*;

mod combinations;
mod values;

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
        (
            "interfaces: eth0\n",
            (1, 13),
            &["found \"eth0\"", "expected a list, like [eth0], or lines"],
        ),
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
            &["found a mapping", "a list: each entry begins with \"- \""],
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

/// Words of keepalived, ldirectord and the like, wherever they stand.
#[test]
fn keys_of_others() {
    for (text, place, words) in [
        (
            "interfaces: [eth0]\nvrrp_instance: web\n",
            (2, 1),
            &[
                "keepalived's word: here it is an entry of `groups`, and a link `vrrp`, in the section `heartbeat`",
            ][..],
        ),
        (
            "interfaces: [eth0]\nservices:\n- {address: 192.0.2.1, lb_algo: rr}\n",
            (3, 24),
            &[
                "unknown key \"lb_algo\"",
                "lb_algo is keepalived's word: here it is `scheduler` of a service",
            ],
        ),
        (
            "interfaces: [eth0]\nservices:\n- {address: 192.0.2.1, check: {type: http, checktimeout: 3}}\n",
            (3, 44),
            &["ldirectord's word: here it is `timeout` of a check"],
        ),
        (
            "interfaces: [eth0]\nheartbeat:\n  groups:\n  - {virtual_ipaddress: [192.0.2.1]}\n",
            (4, 6),
            &["here it is `addresses` of a group"],
        ),
        (
            "interfaces: [eth0]\nservicse: []\n",
            (2, 1),
            &["did you mean \"services\"?"],
        ),
    ] {
        check(text, place, words);
    }
}

/// What follows from a mistake is none of its own.
#[test]
fn one_mistake_is_told_once() {
    let heartbeat = "interfaces: [eth0]
heartbeat:
  node: lb1
  links: [{udp: {interface: eth0, peers: [192.0.2.2]}}]
  groups: [{name: web, interface: eth0, addresses: [198.51.100.10/24], priority: {lb1: 150, lb2: 100}}]
";
    let links = "  links: [{udp: {interface: eth0, peers: [192.0.2.2]}}]\n";
    let service = "interfaces: [eth0]
services:
- {name: a, address: 192.0.2.1, port: 80, method: dr, scheduler: mh, track: on-change, real_servers: [10.0.0.1]}
- {name: b, address: 192.0.2.2, port: 80, depends_on: [a], real_servers: [10.0.0.2]}
";
    let sync = "interfaces: [eth0]\nsync: {interface: eth1, protocol: ipvs, syncid: 7}\n";
    // What is changed, what is marked then, and what is said of it.
    for (good_text, from, to, marked, words) in [
        (
            service,
            "192.0.2.1",
            "192.0.2.x",
            "192.0.2.x",
            "the IPv4 or IPv6 address",
        ),
        (service, "mh", "hm", "hm", "one of rr, wrr"),
        (service, "dr,", "dsr,", "dsr", "one of nat, dr, tun"),
        (sync, "ipvs", "ipsv", "ipsv", "did you mean \"ipvs\"?"),
        (
            heartbeat,
            "node: lb1",
            "node: lb3",
            "lb3",
            "heartbeat.node: this node, lb3, stands in no group's",
        ),
        (
            heartbeat,
            "198.51.100.10/24",
            "198.51.100.10",
            "198.51.100.10",
            "with its prefix length",
        ),
        (
            heartbeat,
            links,
            "",
            "node: lb1",
            "heartbeat.links: there are none",
        ),
    ] {
        good(from, good_text);
        let text = good_text.replacen(from, to, 1);
        assert_ne!(text, good_text, "{from}");
        let (before, _) = text.split_once(marked).unwrap();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().len() + 1;
        let error = parse("director.yaml", &text).expect_err(to);
        let mistakes = error.mistakes();
        assert_eq!(mistakes.len(), 1, "{to}:\n{error}");
        assert_eq!(mistakes[0].place, Place { line, column }, "{to}:\n{error}");
        assert!(error.to_string().contains(words), "{to}:\n{error}");
    }
}

/// A key that cannot be used is told where it is named, in its own section.
#[test]
fn keys_that_are_not_there() {
    let file = std::env::temp_dir().join(format!("director-keys-{}.yaml", std::process::id()));
    let text = "interfaces: [lo]
heartbeat:
  node: lb1
  key: {id: 1, file: /nowhere/key}
  links: [{udp: {interface: eth0, peers: [192.0.2.2]}}]
  groups: [{name: web, interface: eth0, addresses: [198.51.100.10/24], priority: {lb1: 150, lb2: 100}}]
sync:
  interface: eth1
  key: {id: 1, file: /nowhere/key}
";
    std::fs::write(&file, text).unwrap();
    let errors = [
        load(&file).unwrap_err(),
        Reader::default().load(&file).unwrap_err(),
    ];
    std::fs::remove_file(&file).unwrap();
    for error in errors {
        let found: Vec<_> = error
            .mistakes()
            .iter()
            .map(|it| (it.place.line, it.place.column))
            .collect();
        assert_eq!(found, [(4, 22), (9, 22)], "{error}");
        let shown = error.to_string();
        for words in [
            "heartbeat.key: cannot read /nowhere/key: No such file",
            "sync.key: cannot read /nowhere/key: No such file",
            "expected a file with 16 to 1024 bytes",
        ] {
            assert!(shown.contains(words), "no {words:?} in:\n{shown}");
        }
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

/// One mistake is told once, and nothing that follows from it alone.
#[test]
fn one_mistake_is_one() {
    let cases: [(&str, &str, usize, &str); 12] = [
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
        (
            "",
            "- {address: 192.0.2.1, port: 80, lower_threshold: 6, real_servers: [10.0.0.1, 10.0.0.2]}",
            51,
            "the lower threshold 6 is of no upper one",
        ),
        (
            "",
            "- {address: 192.0.2.1, port: 80, upper_threshold: 0, lower_threshold: 6, real_servers: [10.0.0.1]}",
            71,
            "the lower threshold 6 is of no upper one",
        ),
        (
            "defaults: {lower_threshold: 6}\n",
            "- {address: 192.0.2.1, port: 80, real_servers: [10.0.0.1, {address: 10.0.0.2}]}",
            29,
            "the lower threshold 6 is of no upper one",
        ),
        (
            "defaults: {scheduler: ovf}\n",
            "- {address: 192.0.2.1, port: 53, protocol: both, real_servers: [10.0.0.1]}",
            3,
            "ovf in a service that takes UDP",
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

#[test]
fn alerts() {
    let mail = "mail: {to: [a@b.example], server: mail}";
    // (an alert, the text at which the mistake is, words)
    for (alert, at, words) in [
        (
            "{program: [/bin/page]}".to_owned(),
            "{program",
            &["the key \"name\" is missing"][..],
        ),
        (
            "{name: it}".to_owned(),
            "{name",
            &["goes nowhere", "mail, program, webhook"],
        ),
        (
            format!("{{name: it, program: [/bin/page], {mail}}}"),
            "{name",
            &["several ways", "an alert each"],
        ),
        (
            "{name: it, program: []}".to_owned(),
            "[]",
            &["an empty list"],
        ),
        (
            "{name: it, program: [page]}".to_owned(),
            "[page]",
            &["\"page\"", "not the absolute path", "/usr/local/bin/page"],
        ),
        (
            "{name: it, mail: {server: mail}}".to_owned(),
            "{server",
            &["the key \"to\" is missing", "a mail address"],
        ),
        (
            "{name: it, mail: {to: [a@b.example]}}".to_owned(),
            "{to",
            &["the key \"server\" is missing", "a host"],
        ),
        (
            "{name: it, mail: {to: [ops], server: mail}}".to_owned(),
            "ops",
            &["\"ops\"", "ops@example.org"],
        ),
        (
            "{name: it, mail: {to: [a@b.example], server: mail, user: me}}".to_owned(),
            "{to",
            &["half a login"],
        ),
        (
            "{name: it, mail: {to: [a@b.example], server: mail, tls: startls}}".to_owned(),
            "startls",
            &["did you mean \"starttls\"?"],
        ),
        (
            "{name: it, webhook: {headers: {}}}".to_owned(),
            "{headers",
            &["the key \"url\" is missing", "https://"],
        ),
        (
            "{name: it, webhook: {url: \"ftp://chat/\"}}".to_owned(),
            "\"ftp",
            &["neither http nor https"],
        ),
        (
            "{name: it, webhook: {url: \"http://me@chat/\"}}".to_owned(),
            "\"http",
            &["a user in it", "headers"],
        ),
        (
            "{name: it, webhook: {url: \"http://chat/\", ca: /ca.pem}}".to_owned(),
            "/ca.pem",
            &["not https"],
        ),
        (
            "{name: it, webhook: {url: \"http://chat/\", headers: {a b: c}}}".to_owned(),
            "c}",
            &["the header \"a b\""],
        ),
        (
            format!("{{name: it, {mail}, on: [dwon]}}"),
            "dwon",
            &[
                "\"dwon\"",
                "down, up, fallback, quorum, service",
                "did you mean \"down\"?",
            ],
        ),
        (
            format!("{{name: it, {mail}, periods: [mon-fry 08:00-18:00]}}"),
            "mon-fry",
            &[
                "a day that there is not",
                "did you mean",
                "mon-fri 08:00-18:00",
            ],
        ),
        (
            format!("{{name: it, {mail}, periods: [mon 8-18]}}"),
            "mon 8",
            &["\"mon 8-18\"", "mon-fri 08:00-18:00"],
        ),
        (
            format!("{{name: it, {mail}, every: 8d}}"),
            "8d",
            &["\"8d\"", "from 0s to 7d"],
        ),
        (
            format!("{{name: it, {mail}, after_failures: 0}}"),
            "0}",
            &["\"0\"", "a whole number from 1 to 10000"],
        ),
        (
            format!("{{name: it, {mail}, after_failures: 10001}}"),
            "10001}",
            &["\"10001\"", "a whole number from 1 to 10000"],
        ),
        (
            format!("{{name: it, {mail}, on: [role, service], after_failures: 5}}"),
            "5}",
            &[
                "found after_failures, but no check stands behind anything under \"on\"",
                "down or up under \"on\", or no after_failures",
            ],
        ),
        (
            format!("{{name: it, {mail}, grop: 1s}}"),
            "grop",
            &["\"grop\"", "did you mean \"group\"?"],
        ),
    ] {
        let line = format!("  - {alert}");
        let column = line.find(at).unwrap() + 1;
        check(
            &format!("interfaces: [eth0]\nalerts:\n{line}\n"),
            (3, column),
            words,
        );
    }
    check(
        &format!(
            "interfaces: [eth0]\nalerts:\n  - {{name: it, {mail}}}\n  - {{name: it, {mail}}}\n"
        ),
        (4, 5),
        &["the alert it stands already in line 3", "every name once"],
    );
    let many = "  - {name: it, program: [/bin/page]}\n".repeat(17);
    check(
        &format!("interfaces: [eth0]\nalerts:\n{many}"),
        (3, 3),
        &["too many: 17 alerts", "at most 16"],
    );
}
