//! Virtual services on addresses that no group of heartbeat moves: a slip of the pen that is seen at the first failover.

use std::collections::BTreeSet;

use crate::config::Config;

/// What is to be said of them, in a sentence each.
pub(crate) fn ungrouped(config: &Config) -> Vec<String> {
    let Some(heartbeat) = &config.heartbeat else {
        return Vec::new();
    };
    let moved: BTreeSet<_> = heartbeat
        .groups
        .iter()
        .flat_map(|group| &group.addresses)
        .map(ipnet::IpNet::addr)
        .collect();
    let mut seen = BTreeSet::new();
    let endpoints = config
        .services
        .iter()
        .flat_map(|service| &service.endpoints);
    endpoints
        .map(|endpoint| endpoint.address)
        .filter(|address| !moved.contains(address) && seen.insert(*address))
        .map(|address| {
            format!(
                "services have the address {address}, which is in no group of `heartbeat`: nothing takes it to another \
                 director, nor is it fenced here; add it to `addresses` of a group, unless it is brought here otherwise"
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn which_services_no_group_moves() {
        let heartbeat = "
heartbeat:
  node: a
  links: [{udp: {interface: eth0, peers: [10.9.9.9]}}]
  groups:
  - {name: web, interface: eth0, addresses: [192.0.2.1/24, 2001:db8::1/64], priority: {a: 100, b: 90}}
";
        // Whether there is a heartbeat, addresses of services, those that are warned of.
        let rows: [(bool, &[&str], &[&str]); 5] = [
            (true, &[], &[]),
            (true, &["192.0.2.1", "2001:db8::1"], &[]),
            (true, &["192.0.2.1", "192.0.2.2"], &["192.0.2.2"]),
            (
                true,
                &["2001:db8::2", "192.0.2.2", "2001:db8::2"],
                &["2001:db8::2", "192.0.2.2"],
            ),
            (false, &["192.0.2.2"], &[]),
        ];
        for (has_heartbeat, services, warned) in rows {
            let services: String = (80..)
                .zip(services)
                .map(|(port, it)| {
                    format!("- {{address: \"{it}\", port: {port}, method: dr, real_servers: []}}\n")
                })
                .collect();
            let heartbeat = if has_heartbeat { heartbeat } else { "" };
            let text = format!("interfaces: [eth0]\nservices:\n{services}{heartbeat}");
            let text = text.replace("services:\n\n", "\n");
            let config = config::parse("director.yaml", &text).unwrap();
            let said = ungrouped(&config);
            assert_eq!(said.len(), warned.len(), "{said:?}");
            for (said, address) in said.iter().zip(warned) {
                let expected = format!("services have the address {address}, ");
                assert!(said.starts_with(&expected), "{said}");
            }
        }
    }
}
