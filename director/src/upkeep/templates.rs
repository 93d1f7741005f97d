//! What the packet path remembers besides connections, and when it is forgotten: persistence templates, and the addresses
//! of `lblc` and `lblcr`.
//!
//! A template stays while its client has a connection, however old it is. The kernel (`ip_vs_conn_expire` in
//! `net/netfilter/ipvs/ip_vs_conn.c`):
//!
//! ```c
//! /* do I control anybody? */
//! if (atomic_read(&cp->n_control))
//!         goto expire_later;
//! ```
//!
//! Here nobody counts what a template controls; the names of those whose time has passed are looked for in a pass over
//! the connection tables ([`super::Upkeep::watch`]).

use xdp_ebpf::layout::{Template, TemplateKey};
use xdp_ebpf::walk::Name;

use super::rules::Persistence;

/// Seconds after which an unused address of `lblc` and `lblcr` is forgotten (`DEFAULT_EXPIRATION` in `ip_vs_lblc.c` and
/// `ip_vs_lblcr.c`).
const LOCALITY_TIMEOUT_S: u32 = 24 * 60 * 60;

/// Whether a template's time has passed, so that it goes unless its client has a connection. `timeout_s` is its
/// service's persistence timeout.
#[must_use]
pub fn is_idle(template: &Template, now_s: u32, timeout_s: u32) -> bool {
    has_passed(template.seen_s, now_s, timeout_s)
}

/// Whether an address in the cache of `lblc` and `lblcr`, last used then, is forgotten.
#[must_use]
pub fn is_locality_idle(seen_s: u32, now_s: u32) -> bool {
    has_passed(seen_s, now_s, LOCALITY_TIMEOUT_S)
}

/// The clock has 32 bits here: what was used after `now_s` was read is ahead by less than half of them.
fn has_passed(seen_s: u32, now_s: u32, timeout_s: u32) -> bool {
    let idle_s = now_s.wrapping_sub(seen_s);
    idle_s > timeout_s && idle_s <= u32::MAX / 2
}

/// The template that a connection of an endpoint belongs to, as the packet path names it
/// (`xdp_ebpf::path::schedule::persistence`).
pub(super) fn key(persistence: &Persistence, endpoint: u16, name: &Name) -> TemplateKey {
    let masked = u128::from_ne_bytes(name.client) & u128::from_ne_bytes(persistence.mask);
    let port = if name.virtual_port == 0 {
        persistence.port
    } else {
        name.virtual_port.to_ne_bytes()
    };
    let (endpoint, port) = if persistence.per_port {
        (endpoint, port)
    } else {
        (0, [0; 2])
    };
    TemplateKey {
        client: masked.to_ne_bytes(),
        service: persistence.service,
        endpoint,
        port,
        zero: 0,
    }
}
