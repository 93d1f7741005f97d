//! Persistence: a client's connections go to the same destination (`ip_vs_sched_persist` of the kernel).
//!
//! What the kernel calls a template stands in a map that all CPUs share. It is used as long as it is there: upkeep takes it
//! away when its time has passed and none of its client's connections is left.

use super::{Candidate, choose as schedule};
use crate::atomic::load;
use crate::family::bytes6;
use crate::layout::{Template, TemplateKey, destination, service};
use crate::path::Ip;
use crate::tables::Tables;

/// Destination id, 0 if none is available.
#[inline(always)]
pub(super) fn choose<F: Ip, T: Tables>(tables: &T, candidate: &Candidate<'_, F>) -> u32 {
    let record = candidate.service;
    let per_port = record.flags & service::PERSISTENT_PER_PORT != 0;
    let key = TemplateKey {
        client: masked(F::to_table(candidate.source), record.persistence_mask),
        service: candidate.served.service(),
        endpoint: if per_port {
            candidate.served.endpoint()
        } else {
            0
        },
        port: if per_port {
            candidate.destination_port.to_ne_bytes()
        } else {
            [0; 2]
        },
        zero: 0,
    };
    let known = tables.template(&key);
    if let Some(known) = known
        && holds(tables, candidate, known.destination)
    {
        let used = Template {
            destination: known.destination,
            seen_s: candidate.now_s,
        };
        if used != known && candidate.begins {
            tables.put_template(&key, &used, false);
        }
        return known.destination;
    }
    let id = schedule(tables, candidate);
    if id == 0 || !candidate.begins {
        return id;
    }
    let new = Template {
        destination: id,
        seen_s: candidate.now_s,
    };
    if !tables.put_template(&key, &new, known.is_none())
        && let Some(other) = tables.template(&key)
        && holds(tables, candidate, other.destination)
    {
        // Another CPU was faster: its choice counts.
        return other.destination;
    }
    id
}

/// Whether a client may still be sent there (`ip_vs_check_template`): also at weight 0, unless the service says otherwise.
#[inline(always)]
fn holds<F: Ip, T: Tables>(tables: &T, candidate: &Candidate<'_, F>, id: u32) -> bool {
    let out = destination::RETIRED | destination::CLOSED | destination::GONE | destination::OUT;
    let stands = tables.destination(id).is_some_and(|record| {
        record.method != 0
            && record.service == candidate.served.service()
            && record.flags & out == 0
    });
    let is_quiescent = || {
        tables
            .load(id)
            .is_none_or(|destination| load(&destination.weight) == 0)
    };
    stands && !(candidate.service.flags & service::EXPIRE_QUIESCENT != 0 && is_quiescent())
}

/// An address under a mask.
#[inline(always)]
fn masked(address: [u8; 16], mask: [u8; 16]) -> [u8; 16] {
    let words = |bytes: [u8; 16]| -> [u32; 4] {
        // SAFETY: both are 16 bytes of plain data.
        unsafe { core::mem::transmute(bytes) }
    };
    let (address, mask) = (words(address), words(mask));
    bytes6([
        address[0] & mask[0],
        address[1] & mask[1],
        address[2] & mask[2],
        address[3] & mask[3],
    ])
}
