//! Heartbeats that anybody can send: what `check` warns of.

use super::model::{Config, LinkKind};

/// What is to be said of them, in a sentence.
#[must_use]
pub fn unsigned(config: &Config) -> Option<String> {
    let is_udp = |kind: &LinkKind| matches!(kind, LinkKind::Udp(_));
    // VRRP has no keys, and who is at a serial line is in the room.
    let has_udp = config.links.iter().any(|link| is_udp(&link.kind));
    (has_udp && config.keys.is_none()).then(|| {
        "heartbeats are not signed: whoever can send to a `udp` link can speak for any node, and take the addresses away; \
         give all nodes the same `key`, or have these networks to yourself"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn whose_heartbeats_are_not_signed() {
        let key = "key: {id: 1, file: /k}";
        let rows = [
            ("udp: {interface: eth0, peers: [192.0.2.2]}", "", true),
            ("udp: {interface: eth0, peers: [192.0.2.2]}", key, false),
            ("serial: {device: /dev/ttyS0}", "", false),
            ("vrrp: {interface: eth0}", "", false),
        ];
        for (link, key, is_warned_of) in rows {
            let vrid = if link.starts_with("vrrp") {
                "vrid: 51, "
            } else {
                ""
            };
            let text = format!(
                "node: lb1\n{key}\nlinks: [{{{link}}}]\ngroups:\n- {{name: web, interface: eth0, {vrid}addresses: \
                 [198.51.100.10/24], priority: {{lb1: 150, lb2: 100}}}}\n"
            );
            let config = parse("heartbeat.yaml", &text, "host").unwrap_or_else(|it| panic!("{it}"));
            assert_eq!(unsigned(&config).is_some(), is_warned_of, "{link} {key}");
        }
    }
}
