//! Connections that can never go on: upkeep takes their entries away with the next pass, whatever their age.

use xdp_ebpf::layout::{destination, removed};

use crate::plan::Tables;
use crate::upkeep::Dead;

/// What is gone, by the tables as they are.
///
/// * Removed real servers whose connections are to be scheduled anew ([`destination::GONE`]): to the packet path such an
///   entry is none already. IPVS with `expire_nodest_conn` 1 does the same in its background
///   (`ip_vs_expire_nodest_conn_flush`). Not where they are to be dropped: there the entry is what the packet path knows
///   them by, until its time has passed.
/// * Endpoints that are not configured any more: no packet of a client is looked for under their ids.
pub(super) fn gone(tables: &Tables) -> Dead {
    let is_gone = |flags: u8, service: u16| {
        let record = tables.services.get(&service);
        flags & destination::GONE != 0
            && record.is_none_or(|record| record.removed != removed::DROP)
    };
    let destinations = tables.destinations.iter();
    Dead::new(
        destinations
            .filter(|(_, record)| is_gone(record.flags, record.service))
            .map(|(id, _)| *id),
        tables
            .endpoints
            .keys()
            .copied()
            .filter(|id| !tables.is_served(*id)),
    )
}

#[cfg(test)]
mod tests {
    use xdp_ebpf::layout::{Destination, Endpoint, Endpoint4, Served, Service};

    use super::*;

    fn tables(flags: u8, removed: u8) -> Tables {
        let mut tables = Tables::default();
        let endpoint = |port: u16| Endpoint {
            service: 3,
            port: port.to_be_bytes(),
            last_port: port.to_be_bytes(),
            ..Endpoint::default()
        };
        tables.endpoints.insert(7, endpoint(80));
        tables.endpoints.insert(8, endpoint(81));
        let service = Service {
            removed,
            ..Service::default()
        };
        tables.services.insert(3, service);
        let destination = |flags| Destination {
            service: 3,
            flags,
            ..Destination::default()
        };
        tables.destinations.insert(5, destination(0));
        tables.destinations.insert(6, destination(flags));
        tables
    }

    #[test]
    fn what_is_gone() {
        const GONE: u8 = destination::RETIRED | destination::GONE;
        // (flags, what becomes of removed ones, whether it is gone)
        let cases = [
            (0, removed::RESCHEDULE, false),
            (destination::RETIRED, removed::RESCHEDULE, false),
            (destination::CLOSED, removed::RESCHEDULE, false),
            (GONE, removed::RESCHEDULE, true),
            (GONE, removed::DROP, false),
        ];
        for (flags, removed, is_gone) in cases {
            let mut tables = tables(flags, removed);
            let destinations: &[u32] = if is_gone { &[6] } else { &[] };
            let expected = |endpoints: &[u16]| {
                Dead::new(destinations.iter().copied(), endpoints.iter().copied())
            };
            let what = format!("flags {flags}, {removed}");
            assert_eq!(gone(&tables), expected(&[7, 8]), "{what}: none served");
            let key = Endpoint4 {
                port: 80_u16.to_be_bytes(),
                ..Endpoint4::default()
            };
            tables.services4.insert(key, Served::new(7, 3));
            assert_eq!(gone(&tables), expected(&[8]), "{what}: one served");
        }
    }
}
