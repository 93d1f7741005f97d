//! Groups of virtual addresses on interfaces that the packet path of this director is not attached to: nothing fences it there.

use std::fs;

use crate::config::Config;

/// Links that stand one above the other: more than any machine has.
const DEEPEST: u8 = 8;

/// What is to be said of them, in a sentence each.
pub(crate) fn unfenced(config: &Config) -> Vec<String> {
    find(config, &below)
}

fn find(config: &Config, below: &dyn Fn(&str) -> Vec<String>) -> Vec<String> {
    let groups = config.heartbeat.iter().flat_map(|it| &it.groups);
    let outside = groups.filter(|group| !passes(config, &group.interface, below, DEEPEST));
    let said = outside.map(|group| {
        format!(
            "the interface {0} of the group {1} is not among `interfaces`, nor, as far as this machine shows, above one of \
             them: killed or frozen, this director goes on answering for the group's addresses there, beside the one that \
             takes over; add {0} to `interfaces`",
            group.interface, group.name
        )
    });
    said.collect()
}

/// Whether whatever comes by an interface passes the packet path, on it or on all those below it.
fn passes(
    config: &Config,
    interface: &str,
    below: &dyn Fn(&str) -> Vec<String>,
    deepest: u8,
) -> bool {
    if config.interfaces.iter().any(|it| it.name == interface) {
        return true;
    }
    let lower = below(interface);
    deepest > 0
        && !lower.is_empty()
        && lower
            .iter()
            .all(|lower| passes(config, lower, below, deepest - 1))
}

/// The links that a VLAN, a macvlan, a bond or a bridge stands above. None where that cannot be told.
fn below(interface: &str) -> Vec<String> {
    let entries = fs::read_dir(format!("/sys/class/net/{interface}"));
    let names = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter_map(|name| name.strip_prefix("lower_").map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn what_no_packet_path_fences() {
        let below = |name: &str| {
            let lower: &[&str] = match name {
                "vlan7" => &["eth0"],
                "outer" => &["vlan7"],
                "bond0" => &["eth0", "eth1"],
                "bond1" => &["eth1", "eth2"],
                "vlan9" => &["eth2"],
                // As no kernel has it.
                "loop" => &["loop"],
                _ => &[],
            };
            lower.iter().map(|&it| it.to_owned()).collect()
        };
        for (interface, is_fenced) in [
            ("eth0", true),
            ("eth1", true),
            ("vlan7", true),
            ("outer", true),
            ("bond0", true),
            ("eth2", false),
            ("vlan9", false),
            ("bond1", false),
            ("loop", false),
            ("nowhere", false),
        ] {
            let text = format!(
                "
interfaces: [eth0, eth1]
heartbeat:
  node: a
  links: [{{udp: {{interface: eth0, peers: [10.9.9.9]}}}}]
  groups:
  - {{name: fine, interface: eth0, addresses: [192.0.2.1/32], priority: {{a: 100, b: 90}}}}
  - {{name: web, interface: {interface}, addresses: [192.0.2.2/32], priority: {{a: 100, b: 90}}}}
"
            );
            let config = config::parse("director.yaml", &text).unwrap();
            let found = find(&config, &below);
            if is_fenced {
                assert!(found.is_empty(), "{interface}: {found:?}");
                continue;
            }
            let [said] = found.as_slice() else {
                panic!("{interface}: {found:?}");
            };
            let expected =
                format!("the interface {interface} of the group web is not among `interfaces`");
            assert!(said.starts_with(&expected), "{said}");
        }
        let config = config::parse("director.yaml", "interfaces: [eth0]").unwrap();
        assert!(find(&config, &below).is_empty());
    }
}
