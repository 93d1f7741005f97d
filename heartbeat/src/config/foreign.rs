//! Words of other programs' configurations, and what is meant by them here: the director's configuration asks this, too.
//!
//! keepalived's words are those of its `keepalived.conf(5)`, ldirectord's of `ldirectord(8)`, heartbeat's of Linux-HA's
//! `ha.cf(5)`, mon's of `mon(8)`.

/// Which part of the director's configuration a key of ours is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The director's alone: services, alerts, sync.
    Director,
    /// Its section `heartbeat`, or the whole file of `heartbeat run`.
    Heartbeat,
}
use Part::{Director, Heartbeat};

const KEEPALIVED: &str = "keepalived";
const LDIRECTORD: &str = "ldirectord";
const HA: &str = "Linux-HA's heartbeat";
const MON: &str = "mon";

/// Whose word, the word, what it is here, in which part.
#[rustfmt::skip]
const WORDS: &[(&str, &str, &str, Part)] = &[
    (KEEPALIVED, "virtual_server", "an entry of `services`, with `address` and `port`", Director),
    (KEEPALIVED, "virtual_server_group", "`endpoints` of a service", Director),
    (KEEPALIVED, "real_server", "an entry of `real_servers` in a service", Director),
    (KEEPALIVED, "lb_algo", "`scheduler` of a service", Director),
    (KEEPALIVED, "lvs_sched", "`scheduler` of a service", Director),
    (KEEPALIVED, "lb_kind", "`method` of a service: nat, dr or tun", Director),
    (KEEPALIVED, "lvs_method", "`method` of a service: nat, dr or tun", Director),
    (KEEPALIVED, "persistence_timeout", "`persistence` of a service, with its unit: 5m", Director),
    (KEEPALIVED, "persistence_granularity", "`persistence: {timeout: 5m, granularity: 24}` of a service", Director),
    (KEEPALIVED, "delay_loop", "`interval` of a check", Director),
    (KEEPALIVED, "sorry_server", "`fallback_servers` of a service", Director),
    (KEEPALIVED, "inhibit_on_failure", "`on_down: quiesce` of a service", Director),
    (KEEPALIVED, "alpha", "`until_checked: out` of a service, which is the default", Director),
    (KEEPALIVED, "ops", "`one_packet: true` of a service", Director),
    (KEEPALIVED, "uthreshold", "`upper_threshold`", Director),
    (KEEPALIVED, "lthreshold", "`lower_threshold`", Director),
    (KEEPALIVED, "TCP_CHECK", "`check: connect`", Director),
    (KEEPALIVED, "HTTP_GET", "`check: {type: http, path: /}`", Director),
    (KEEPALIVED, "SSL_GET", "`check: {type: https, path: /}`", Director),
    (KEEPALIVED, "SMTP_CHECK", "`check: smtp`", Director),
    (KEEPALIVED, "DNS_CHECK", "`check: {type: dns, name: example.org}`", Director),
    (KEEPALIVED, "UDP_CHECK", "`check: udp`", Director),
    (KEEPALIVED, "PING_CHECK", "`check: ping`", Director),
    (KEEPALIVED, "MISC_CHECK", "`check: {type: external, command: [/path]}`", Director),
    (KEEPALIVED, "misc_path", "`command` of a check of the type external", Director),
    (KEEPALIVED, "misc_timeout", "`timeout` of a check", Director),
    (KEEPALIVED, "connect_timeout", "`timeout` of a check", Director),
    (KEEPALIVED, "connect_port", "`port` of a check", Director),
    (KEEPALIVED, "connect_ip", "`address` of a check", Director),
    (KEEPALIVED, "retry", "`fall` of a check: failures in a row", Director),
    (KEEPALIVED, "nb_get_retry", "`fall` of a check: failures in a row", Director),
    (KEEPALIVED, "delay_before_retry", "`retry_delay` of a check", Director),
    (KEEPALIVED, "status_code", "`status` of a check of the type http", Director),
    (KEEPALIVED, "notify_up", "a `program` in `alerts`, with `on: [up]`", Director),
    (KEEPALIVED, "notify_down", "a `program` in `alerts`, with `on: [down]`", Director),
    (KEEPALIVED, "quorum_up", "a `program` in `alerts`, with `on: [quorum]`", Director),
    (KEEPALIVED, "quorum_down", "a `program` in `alerts`, with `on: [quorum]`", Director),
    (KEEPALIVED, "notification_email", "`mail: {to: [ops@example.org]}` in `alerts`", Director),
    (KEEPALIVED, "notification_email_from", "`mail: {from: director@example.org}` in `alerts`", Director),
    (KEEPALIVED, "smtp_server", "`mail: {server: mail.example.org}` in `alerts`", Director),
    (KEEPALIVED, "smtp_alert", "a `mail` in `alerts`", Director),
    (KEEPALIVED, "lvs_sync_daemon", "the section `sync`, with `protocol: ipvs` beside a kernel's IPVS", Director),
    (KEEPALIVED, "vrrp_instance", "an entry of `groups`, and a link `vrrp`", Heartbeat),
    (KEEPALIVED, "vrrp_sync_group", "`together`", Heartbeat),
    (KEEPALIVED, "virtual_ipaddress", "`addresses` of a group", Heartbeat),
    (KEEPALIVED, "virtual_ipaddress_excluded", "`addresses` of a group", Heartbeat),
    (KEEPALIVED, "virtual_router_id", "`vrid` of a group", Heartbeat),
    (KEEPALIVED, "advert_int", "`interval` of a link `vrrp`", Heartbeat),
    (KEEPALIVED, "vrrp_version", "`version` of a link `vrrp`", Heartbeat),
    (KEEPALIVED, "unicast_peer", "`peers` of a link", Heartbeat),
    (KEEPALIVED, "use_vmac", "`virtual_mac: true` of a group", Heartbeat),
    (KEEPALIVED, "nopreempt", "`auto_failback: false`", Heartbeat),
    (KEEPALIVED, "preempt_delay", "`auto_failback` with a time: 30s", Heartbeat),
    (KEEPALIVED, "track_interface", "`fitness: {interfaces: [eth0]}`", Heartbeat),
    (KEEPALIVED, "track_script", "`fitness: {programs: [{command: [/path]}]}`", Heartbeat),
    (KEEPALIVED, "vrrp_script", "`fitness: {programs: [{command: [/path]}]}`", Heartbeat),
    (KEEPALIVED, "notify_master", "`on_primary` of a group", Heartbeat),
    (KEEPALIVED, "notify_backup", "`on_backup` of a group", Heartbeat),
    (KEEPALIVED, "garp_master_repeat", "`announce: {count: 5}` of a group", Heartbeat),
    (KEEPALIVED, "garp_master_refresh", "`announce: {refresh: 1m}` of a group", Heartbeat),
    (KEEPALIVED, "state", "decided by `priority` of a group", Heartbeat),
    (KEEPALIVED, "authentication", "`key: {id: 1, file: /etc/director/heartbeat.key}`", Heartbeat),
    (KEEPALIVED, "auth_pass", "`key: {id: 1, file: /etc/director/heartbeat.key}`", Heartbeat),
    (KEEPALIVED, "router_id", "`node`", Heartbeat),
    (LDIRECTORD, "virtual", "an entry of `services`, with `address` and `port`", Director),
    (LDIRECTORD, "virtual6", "an entry of `services`, with `address` and `port`", Director),
    (LDIRECTORD, "real", "an entry of `real_servers` in a service", Director),
    (LDIRECTORD, "real6", "an entry of `real_servers` in a service", Director),
    (LDIRECTORD, "gate", "`method: dr`", Director),
    (LDIRECTORD, "masq", "`method: nat`", Director),
    (LDIRECTORD, "checktype", "`type` of a check", Director),
    (LDIRECTORD, "checkinterval", "`interval` of a check", Director),
    (LDIRECTORD, "checktimeout", "`timeout` of a check", Director),
    (LDIRECTORD, "negotiatetimeout", "`timeout` of a check", Director),
    (LDIRECTORD, "checkcount", "`fall` of a check: failures in a row", Director),
    (LDIRECTORD, "failurecount", "`fall` of a check: failures in a row", Director),
    (LDIRECTORD, "checkport", "`port` of a check", Director),
    (LDIRECTORD, "checkcommand", "`check: {type: external, command: [/path]}`", Director),
    (LDIRECTORD, "request", "`path` of a check of the type http, `name` of the type dns", Director),
    (LDIRECTORD, "receive", "`expect` of a check", Director),
    (LDIRECTORD, "httpmethod", "`method` of a check of the type http", Director),
    (LDIRECTORD, "virtualhost", "`host` of a check of the type http", Director),
    (LDIRECTORD, "login", "`user` of a check", Director),
    (LDIRECTORD, "passwd", "`password` of a check", Director),
    (LDIRECTORD, "quiescent", "`on_down: quiesce` of a service", Director),
    (LDIRECTORD, "persistent", "`persistence` of a service, with its unit: 5m", Director),
    (LDIRECTORD, "netmask", "`persistence: {timeout: 5m, granularity: 24}` of a service", Director),
    (LDIRECTORD, "autoreload", "`watch: true`", Director),
    (LDIRECTORD, "emailalert", "`mail: {to: [ops@example.org]}` in `alerts`", Director),
    (LDIRECTORD, "emailalertfrom", "`mail: {from: director@example.org}` in `alerts`", Director),
    (LDIRECTORD, "emailalertfreq", "`every` of an entry of `alerts`, with its unit: 1h", Director),
    (HA, "ucast", "a link: `udp: {interface: eth0, peers: [192.0.2.2]}`", Heartbeat),
    (HA, "mcast", "a link: `udp: {interface: eth0, multicast: 239.255.6.94}`", Heartbeat),
    (HA, "bcast", "a link: `udp: {interface: eth0, broadcast: true}`", Heartbeat),
    (HA, "udpport", "`port` of a link `udp`", Heartbeat),
    (HA, "ping_group", "`fitness: {ping: [192.0.2.254]}`", Heartbeat),
    (HA, "stonith", "`fence`", Heartbeat),
    (HA, "stonith_host", "`fence`", Heartbeat),
    (HA, "authkeys", "`key: {id: 1, file: /etc/director/heartbeat.key}`", Heartbeat),
    (HA, "haresources", "`groups`", Heartbeat),
    (MON, "depend", "`depends_on` of a service", Director),
    (MON, "alertafter", "`after` or `after_failures` of an entry of `alerts`", Director),
    (MON, "alertevery", "`every` of an entry of `alerts`", Director),
    (MON, "upalert", "an entry of `alerts`, with `on: [up]`", Director),
];

/// What is meant by a word of another program in the director's configuration, in a sentence.
#[must_use]
pub fn foreign(word: &str) -> Option<String> {
    let (whose, word, ours, part) = known(word)?;
    let place = match part {
        Director => "",
        Heartbeat => ", in the section `heartbeat`",
    };
    Some(format!(
        "{word} is {}: here it is {ours}{place}",
        theirs(whose)
    ))
}

/// As [`foreign`], in the configuration of heartbeat alone, which balances nothing.
pub(super) fn foreign_alone(word: &str) -> Option<String> {
    let (whose, word, ours, part) = known(word)?;
    let theirs = theirs(whose);
    Some(match part {
        Director => format!(
            "{word} is {theirs}, and heartbeat alone does not do that; in the director's file it is {ours}"
        ),
        Heartbeat => format!("{word} is {theirs}: here it is {ours}"),
    })
}

fn theirs(whose: &str) -> String {
    match whose {
        HA => format!("of {HA}"),
        whose => format!("{whose}'s word"),
    }
}

fn known(word: &str) -> Option<(&'static str, &'static str, &'static str, Part)> {
    // keepalived's own reader tells cases apart; who writes from memory does not.
    let mut words = WORDS.iter().copied();
    words.find(|(_, known, _, _)| known.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others() {
        let rows = [
            (
                "lb_algo",
                Some("lb_algo is keepalived's word: here it is `scheduler` of a service"),
                Some(
                    "lb_algo is keepalived's word, and heartbeat alone does not do that; in the director's file it is `scheduler` of a service",
                ),
            ),
            (
                "virtual_ipaddress",
                Some(
                    "virtual_ipaddress is keepalived's word: here it is `addresses` of a group, in the section `heartbeat`",
                ),
                Some("virtual_ipaddress is keepalived's word: here it is `addresses` of a group"),
            ),
            (
                "CheckTimeout",
                Some("checktimeout is ldirectord's word: here it is `timeout` of a check"),
                Some(
                    "checktimeout is ldirectord's word, and heartbeat alone does not do that; in the director's file it is `timeout` of a check",
                ),
            ),
            (
                "stonith_host",
                Some(
                    "stonith_host is of Linux-HA's heartbeat: here it is `fence`, in the section `heartbeat`",
                ),
                Some("stonith_host is of Linux-HA's heartbeat: here it is `fence`"),
            ),
            ("schedular", None, None),
            ("", None, None),
        ];
        for (word, inside, alone) in rows {
            assert_eq!(foreign(word).as_deref(), inside, "{word}");
            assert_eq!(foreign_alone(word).as_deref(), alone, "{word}");
        }
    }

    #[test]
    fn every_word_once() {
        for (at, (_, word, _, _)) in WORDS.iter().enumerate() {
            let is_again = WORDS[..at].iter().any(|it| it.1.eq_ignore_ascii_case(word));
            assert!(!is_again, "{word} stands there twice");
        }
    }
}
