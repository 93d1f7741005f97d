//! What other directors say that anybody could say: what `director check` warns of.

use crate::config::Config;

/// What is to be said of it, in a sentence each.
pub(crate) fn unsigned(config: &Config) -> Vec<String> {
    let heartbeat = config.heartbeat.as_deref();
    let mut said: Vec<String> = heartbeat
        .and_then(heartbeat::config::unsigned)
        .into_iter()
        .collect();
    // The kernel's protocol has no signatures: there is nothing to do about it.
    if let Some(sync) = &config.sync
        && sync.kernel.is_none()
        && sync.keys.is_none()
    {
        let who = if sync.peers.is_empty() {
            "whoever can send"
        } else {
            "whoever can send under the peers' addresses"
        };
        said.push(format!(
            "sync is not signed: {who} on {} can enter connections; give all directors the same `key` in `sync`, or have that \
             network to yourself",
            sync.interface
        ));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn what_is_not_signed() {
        let key = "key: {id: 1, file: /k}";
        // heartbeat's key, sync, what is warned of.
        let rows: [(Option<&str>, &str, &[&str]); 7] = [
            (None, "", &[]),
            (Some(""), "", &["heartbeats are not signed"]),
            (Some(key), "", &[]),
            (
                None,
                "interface: eth1",
                &["sync is not signed: whoever can send on eth1"],
            ),
            (
                Some(""),
                "interface: eth1, peers: [10.0.0.2]",
                &[
                    "heartbeats are not signed",
                    "sync is not signed: whoever can send under the peers' addresses on eth1",
                ],
            ),
            (None, "interface: eth1, key: {id: 1, file: /k}", &[]),
            (None, "interface: eth1, protocol: ipvs", &[]),
        ];
        for (heartbeat, sync, warned) in rows {
            let mut text = "interfaces: [eth0]\n".to_owned();
            if let Some(key) = heartbeat {
                text += &format!(
                    "heartbeat:\n  node: a\n  {key}\n  links: [{{udp: {{interface: eth0, peers: [10.9.9.9]}}}}]\n  groups:\n  - \
                     {{name: web, interface: eth0, addresses: [192.0.2.1/24], priority: {{a: 100, b: 90}}}}\n"
                );
            }
            if !sync.is_empty() {
                text += &format!("sync: {{node: a, {sync}}}\n");
            }
            let config = config::parse("director.yaml", &text).unwrap_or_else(|it| panic!("{it}"));
            let said = unsigned(&config);
            assert_eq!(said.len(), warned.len(), "{text}: {said:?}");
            for (said, expected) in said.iter().zip(warned) {
                assert!(said.starts_with(expected), "{said}");
            }
        }
    }
}
