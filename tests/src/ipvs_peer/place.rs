//! The place of a guest: what its namespace does, what it boots with, which addresses it has.

use std::fmt::Write;

use anyhow::Result;

use crate::lab::{Gateway, Host, Namespace, Topology, plan};

/// The script that a guest boots into: whatever it needs of a system, then one script after the other whose number it
/// reads from the console. `/bin/sh` and not busybox's, which would run its own `mount` and `modprobe` by way of
/// `/proc/self/exe`: before `/proc` is mounted that is the outer machine's, and names the guest's kernel.
pub(super) fn init(shared: &str) -> String {
    format!(
        r#"#!/bin/sh
set -e
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t tmpfs none /tmp
mount -t hostfs -o {shared} none /mnt
mkdir -p /tmp/lib/modules
ln -s "/usr/lib/uml/modules/$(uname -r)" /tmp/lib/modules/
# Schedulers and the like, which the kernel asks for itself.
printf '#!/bin/sh\nexec /sbin/modprobe -d /tmp "$@"\n' >/tmp/modprobe
chmod 755 /tmp/modprobe
echo /tmp/modprobe >/proc/sys/kernel/modprobe
modprobe -d /tmp ip_vs
ip link set lo up
: >/mnt/ready
while read -r number && [ "$number" != halt ]; do
  if sh "/mnt/$number.sh" >"/mnt/$number.out" 2>&1 </dev/null; then status=0; else status=$?; fi
  # Whoever waits for it finds it whole.
  echo "$status" >"/mnt/$number.part"
  mv "/mnt/$number.part" "/mnt/$number.status"
done
echo halting
exec /bin/busybox halt -f
"#
    )
}

/// The script that gives a guest the names of interfaces, the addresses, routes and settings of the host in whose place
/// it stands.
pub(super) fn addresses(topology: Topology, host: Host) -> String {
    let plan = plan::plan(topology, 1, Gateway::Director);
    let mut script: String = plan::settings(host)
        .into_iter()
        .map(|(name, value)| setting(name, value))
        .collect();
    for (nth, end) in ends(&plan, host).into_iter().enumerate() {
        let interface = &end.interface;
        let _ = writeln!(script, "ip link set vec{nth} name {interface}");
        for address in &end.addresses {
            let _ = writeln!(
                script,
                "ip address add {address} dev {interface}{}",
                nodad(address)
            );
        }
        let _ = writeln!(script, "ip link set {interface} up");
    }
    for route in plan.routes.iter().filter(|route| route.host == host) {
        let _ = writeln!(script, "ip route add {} {}", route.to, route.via);
    }
    if plan.virtual_on.contains(&host) {
        let virtual4 = plan::VIRTUAL4.map(|address| format!("{address}/32"));
        let virtual6 = plan::VIRTUAL6.map(|address| format!("{address}/128"));
        for address in virtual4.into_iter().chain(virtual6) {
            let _ = writeln!(script, "ip address add {address} dev lo{}", nodad(&address));
        }
    }
    script
}

/// A line of a script that sets a setting under `/proc/sys/net`.
pub(super) fn setting(name: &str, value: &str) -> String {
    format!("echo '{value}' >/proc/sys/net/{name}\n")
}

/// Names of the host's interfaces.
pub(super) fn interfaces(topology: Topology, host: Host) -> Vec<String> {
    let plan = plan::plan(topology, 1, Gateway::Director);
    let ends = ends(&plan, host);
    ends.into_iter().map(|end| end.interface.clone()).collect()
}

/// What the guest's kernel is told of its interfaces. Their MAC addresses differ from place to place.
pub(super) fn vectors(host: Host, interfaces: &[String]) -> Vec<String> {
    let place = match host {
        Host::Director => 1,
        Host::Backup => 2,
        _ => 3,
    };
    let vector = |(nth, interface): (usize, &String)| {
        format!(
            "vec{nth}:transport=tap,ifname=tap-{interface},mac=02:00:00:00:{place:02x}:{nth:02x}"
        )
    };
    interfaces.iter().enumerate().map(vector).collect()
}

/// Has a namespace give up its addresses, and carry frames between its interfaces and taps.
pub(super) fn make(namespace: &Namespace, interfaces: &[String]) -> Result<()> {
    // Bridges are not to have addresses of their own either.
    namespace.apply(&[
        ("ipv6/conf/all/disable_ipv6", "1"),
        ("ipv6/conf/default/disable_ipv6", "1"),
    ])?;
    let mut lines = "address flush dev lo scope global\n".to_owned();
    for interface in interfaces {
        let _ = write!(
            lines,
            "address flush dev {interface}\n\
             link add br-{interface} type bridge stp_state 0 mcast_snooping 0\n\
             tuntap add dev tap-{interface} mode tap\n\
             link set tap-{interface} master br-{interface} up\n\
             link set {interface} master br-{interface}\n\
             link set br-{interface} up\n"
        );
    }
    namespace.ip_batch(&lines)
}

/// Takes taps and bridges away. The namespace stays without addresses: the place is free for another guest.
pub(super) fn clear(namespace: &Namespace, interfaces: &[String]) -> Result<()> {
    let mut lines = String::new();
    for interface in interfaces {
        let _ = write!(lines, "link del tap-{interface}\nlink del br-{interface}\n");
    }
    namespace.ip_batch(&lines)
}

fn ends(plan: &plan::Plan, host: Host) -> Vec<&plan::End> {
    let ends = plan.cables.iter().flat_map(|cable| [&cable.0, &cable.1]);
    let mut ends: Vec<&plan::End> = ends.filter(|end| end.host == host).collect();
    ends.sort_by(|a, b| a.interface.cmp(&b.interface));
    ends
}

fn nodad(address: &str) -> &'static str {
    if address.contains(':') { " nodad" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_has_what_its_host_has() {
        let script = addresses(Topology::TwoDirectors, Host::Backup);
        for line in [
            "ip link set vec0 name eth0",
            "ip address add 10.0.0.2/24 dev eth0",
            "ip address add 2001:db8:e::2/64 dev eth0 nodad",
            "ip address add 10.0.1.2/24 dev eth1",
            "ip route add default via 10.0.0.254",
            "echo '1' >/proc/sys/net/ipv4/ip_forward",
        ] {
            assert!(script.lines().any(|it| it == line), "{line}\n{script}");
        }
        // Nobody has the virtual addresses of two directors at first; one alone has them.
        assert!(!script.contains("192.0.2.10/32"));
        let script = addresses(Topology::OneInterface, Host::Director);
        assert!(script.contains("ip address add 192.0.2.10/32 dev lo\n"));
        assert_eq!(
            interfaces(Topology::TwoDirectors, Host::Director),
            ["eth0", "eth1"]
        );
    }

    #[test]
    fn no_two_interfaces_have_the_same_mac_address() {
        let interfaces = ["eth0", "eth1"].map(str::to_owned);
        let mut all = Vec::new();
        for host in [Host::Director, Host::Backup] {
            for vector in vectors(host, &interfaces) {
                all.push(vector.split("mac=").nth(1).unwrap().to_owned());
            }
        }
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 4);
    }
}
