//! The virtual MAC of a group (RFC 9568 section 7.3), on a macvlan of its own.
//!
//! With it a takeover changes nothing in the neighbours' caches: the address moves with the MAC, and the switch learns
//! its new port from the first frame. The macvlan is in bridge mode: in private mode (keepalived's) the kernel hands
//! a multicast frame that comes from the same MAC to the macvlan alone (`macvlan_handle_frame` in
//! drivers/net/macvlan.c), and the interface below would not hear the adverts of another node that is primary too.
//!
//! What else is needed, as in keepalived's `NOTE_vrrp_vmac.txt`:
//!
//! | setting | interface | value | why |
//! |---|---|---|---|
//! | `arp_ignore` | the one below | 1 | it would answer ARP requests for the virtual address, with its own MAC |
//! | `arp_announce` | the one below | 2 | its own ARP requests would tell neighbours the virtual address with its own MAC |
//! | `arp_ignore` | macvlan | 1 | it would answer for the addresses of the one below |
//! | `rp_filter` | macvlan | 2 | replies leave by the one below, so its packets come by the "wrong" way |
//! | `accept_ra`, `addr_gen_mode` | macvlan | 0, 1 | no link-local address from the virtual MAC: two nodes would have the same |
//!
//! The settings below are those of the kernel as long as a group with a virtual MAC is held there, and afterwards what
//! they were. Where `conf/all` has a higher value it counts already.

use super::frames::Mac;

/// Metric of the route to the network of an address on a macvlan: worse than any of the interface below, whose own
/// way to that network is to be taken.
pub(super) const METRIC: u32 = 1 << 20;

/// Where the kernel keeps settings, and the values of them that an interface below a macvlan needs.
pub(super) const BELOW: [(&str, &str); 2] = [("arp_ignore", "1"), ("arp_announce", "2")];

/// The virtual MAC of a virtual router (RFC 9568 section 7.3).
#[must_use]
pub const fn mac(router: u8, is_ipv6: bool) -> Mac {
    [0, 0, 0x5e, 0, if is_ipv6 { 2 } else { 1 }, router]
}

/// The macvlan's name. The index keeps virtual routers of the same number on different interfaces apart; at most 15
/// bytes, the kernel's limit, whatever the number of a real machine's interface.
pub(super) fn name(router: u8, is_ipv6: bool, parent: u32) -> String {
    let family = if is_ipv6 { 6 } else { 4 };
    format!("hb{family}.{router}.{parent:x}")
}

/// Settings of the macvlan itself, under `/proc/sys/net`.
pub(super) fn settings(name: &str) -> [(String, &'static str); 6] {
    let v4 = |setting| format!("ipv4/conf/{name}/{setting}");
    let v6 = |setting| format!("ipv6/conf/{name}/{setting}");
    [
        (v4("arp_ignore"), "1"),
        (v4("arp_announce"), "2"),
        (v4("rp_filter"), "2"),
        (v6("accept_ra"), "0"),
        (v6("addr_gen_mode"), "1"),
        (v6("dad_transmits"), "0"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit() {
        for (router, is_ipv6, parent) in [
            (1, false, 1),
            (51, true, 2),
            (255, false, 0xff_ffff),
            (255, true, 0xff_ffff),
        ] {
            let name = name(router, is_ipv6, parent);
            assert!(name.len() <= 15, "{name}");
        }
    }

    #[test]
    fn macs_of_rfc_9568() {
        assert_eq!(mac(51, false), [0, 0, 0x5e, 0, 1, 51]);
        assert_eq!(mac(51, true), [0, 0, 0x5e, 0, 2, 51]);
    }
}
