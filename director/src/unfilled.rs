//! Directors that take their groups back without the connections of who serves meanwhile: what `director check` warns of.

use heartbeat::config::AutoFailback;

use crate::config::Config;

/// What is to be said of that, in a sentence.
pub(crate) fn unfilled(config: &Config) -> Option<String> {
    let heartbeat = config.heartbeat.as_ref()?;
    let speaks_the_kernels = config.sync.as_ref()?.kernel.is_some();
    (speaks_the_kernels && heartbeat.auto_failback == AutoFailback::On).then(|| {
        "`auto_failback` is true, and with `protocol: ipvs` nobody knows when this director has the other's connections: that \
         protocol has no full sync. Started anew, it takes the addresses back at once, and connections that it was not told of \
         yet are lost; say `auto_failback: false`, or a time in which each connection is told again"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn who_takes_back_too_soon() {
        // auto_failback, sync, whether it is warned of.
        let rows = [
            ("", "sync: {interface: eth1, protocol: ipvs}", true),
            (
                "auto_failback: true",
                "sync: {interface: eth1, protocol: ipvs}",
                true,
            ),
            (
                "auto_failback: false",
                "sync: {interface: eth1, protocol: ipvs}",
                false,
            ),
            (
                "auto_failback: 5m",
                "sync: {interface: eth1, protocol: ipvs}",
                false,
            ),
            ("auto_failback: true", "sync: {interface: eth1}", false),
            ("auto_failback: true", "", false),
        ];
        for (auto_failback, sync, is_warned_of) in rows {
            let text = format!(
                "interfaces: [eth0]\n{sync}\nheartbeat:\n  node: a\n  {auto_failback}\n  links: [{{vrrp: {{interface: eth0}}}}]\n  \
                 groups:\n  - {{name: web, interface: eth0, addresses: [192.0.2.1/24], priority: 100, vrid: 51}}\n"
            );
            let config = config::parse("director.yaml", &text).unwrap_or_else(|it| panic!("{it}"));
            assert_eq!(unfilled(&config).is_some(), is_warned_of, "{text}");
        }
    }
}
