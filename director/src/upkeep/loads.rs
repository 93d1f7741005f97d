//! What destinations have to do: correcting the packet path's live counts, and their thresholds.
//!
//! The packet path raises and lowers a count when a connection begins, changes its kind or gives way. It does not see
//! connections expire, and two CPUs with entries of the same connection can disagree: little by little a live count L
//! comes to differ from what the tables hold, C. A pass over the tables counts exactly, but takes a while, during which
//! both go on. So the live count is read when the pass begins (S) and when it ends (V), and E - (S + V) / 2 is added,
//! where E is what the pass found. Why:
//!
//! * At rest S = V = L and E = C, so C - L is added, and the count is exact.
//! * A connection that begins (or changes, or ends) in the middle of a pass is in V and not in S: half of it counts. In E it
//!   is if the walk came by its bucket afterwards. So it adds an error of a half, up or down. The walk goes through all
//!   tables evenly, and buckets are in the order of a hash that has nothing to do with time: up and down come equally often,
//!   and the error of n changes during a pass is n / 2 at the worst, and in general about half the square root of n.
//! * What expires is not in E from the moment it is freed, and was in S and V alike: it is taken off whole.
//! * The next pass takes this error for what it finds wrong and corrects it whole: errors do not add up.
//! * The addition is atomic, so what packets add meanwhile is kept. Halves are cut off, not rounded away from 0, lest a
//!   count swing about its right value.
//!
//! An entry that is moved to its other bucket during a pass may be found twice or not at all: an error of one, corrected the
//! same way.

use std::sync::atomic::Ordering;

use xdp_ebpf::layout::{Load, load};

use super::report::Report;

/// Live counts at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot(Vec<(u32, Live)>);

/// Live counts of a destination; below 0 for moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Live {
    active: i64,
    inactive: i64,
}

impl Live {
    fn of(load: &Load) -> Self {
        Self {
            active: load.active.load(Ordering::Relaxed).cast_signed(),
            inactive: load.inactive.load(Ordering::Relaxed).cast_signed(),
        }
    }
}

/// Reads the counts of these destinations.
pub fn snapshot(loads: &[Load], destinations: impl Iterator<Item = u32>) -> Snapshot {
    let known = destinations.filter_map(|id| Some((id, Live::of(loads.get(id as usize)?))));
    Snapshot(known.collect())
}

/// Corrects the counts of the destinations of a snapshot, taken when the pass of the report began.
pub fn correct(loads: &[Load], begun: &Snapshot, report: &Report) {
    for (id, then) in &begun.0 {
        let Some(load) = loads.get(*id as usize) else {
            continue;
        };
        let now = Live::of(load);
        let found = report.destination(*id);
        let missing = |found: u64, then: i64, now: i64| (2 * found.cast_signed() - then - now) / 2;
        let active = missing(found.active, then.active, now.active);
        let inactive = missing(found.inactive, then.inactive, now.inactive);
        for (count, missing) in [(&load.active, active), (&load.inactive, inactive)] {
            if missing != 0 {
                count.fetch_add(missing.cast_unsigned(), Ordering::Relaxed);
            }
        }
        check_thresholds(load);
    }
}

/// Marks a destination that reached its upper threshold, and clears the mark when it has room again.
///
/// `ip_vs_bind_dest` and `ip_vs_unbind_dest` (`net/netfilter/ipvs/ip_vs_conn.c`):
///
/// ```c
/// if (dest->u_threshold != 0 &&
///     ip_vs_dest_totalconns(dest) >= dest->u_threshold)
///         dest->flags |= IP_VS_DEST_F_OVERLOAD;
/// …
/// if (dest->l_threshold != 0) {
///         if (ip_vs_dest_totalconns(dest) < dest->l_threshold)
///                 dest->flags &= ~IP_VS_DEST_F_OVERLOAD;
/// } else if (dest->u_threshold != 0) {
///         if (ip_vs_dest_totalconns(dest) * 4 < dest->u_threshold * 3)
///                 dest->flags &= ~IP_VS_DEST_F_OVERLOAD;
/// } else {
///         if (dest->flags & IP_VS_DEST_F_OVERLOAD)
///                 dest->flags &= ~IP_VS_DEST_F_OVERLOAD;
/// }
/// ```
///
/// The kernel's newer `ip_vs_dest_update_overload` says the same in one place, and clears the mark of a destination
/// without an upper threshold whatever the lower one is; so does this.
fn check_thresholds(load: &Load) {
    let live = Live::of(load);
    let connections = live.active.max(0).cast_unsigned() + live.inactive.max(0).cast_unsigned();
    let upper = load.upper.load(Ordering::Relaxed);
    let lower = load.lower.load(Ordering::Relaxed);
    let is_overloaded = load.flags.load(Ordering::Relaxed) & load::OVERLOADED != 0;
    let has_room = match (upper, lower) {
        (0, _) => true,
        (upper, 0) => connections * 4 < upper * 3,
        (_, lower) => connections < lower,
    };
    if is_overloaded && has_room {
        load.flags.store(0, Ordering::Relaxed);
    } else if !is_overloaded && upper != 0 && connections >= upper {
        load.flags.store(load::OVERLOADED, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(active: i64, inactive: i64) -> Load {
        Load {
            active: active.cast_unsigned().into(),
            inactive: inactive.cast_unsigned().into(),
            ..Load::default()
        }
    }

    #[test]
    fn at_rest_counts_become_what_was_found() {
        for (active, inactive) in [(0, 0), (7, 3), (-2, 900), (i64::from(u32::MAX), -1)] {
            let loads = [Load::default(), load(active, inactive)];
            let begun = snapshot(&loads, [1].into_iter());
            correct(&loads, &begun, &Report::default());
            assert_eq!(Live::of(&loads[1]), Live::default(), "{active} {inactive}");
        }
    }

    #[test]
    fn what_begins_during_a_pass_is_not_taken_for_an_error() {
        let loads = [load(100, 0)];
        let begun = snapshot(&loads, [0].into_iter());
        // Fifty begin; the pass, which found nothing at all, sees half of them on average.
        loads[0].active.fetch_add(50, Ordering::Relaxed);
        correct(&loads, &begun, &Report::default());
        assert_eq!(Live::of(&loads[0]).active, 150 - 125);
    }

    #[test]
    fn thresholds_have_two_ends() {
        // (upper, lower, connections, overloaded before, overloaded after)
        let cases = [
            (0, 0, 1_000_000, true, false),
            (10, 0, 9, false, false),
            (10, 0, 10, false, true),
            (10, 0, 8, true, true),
            (10, 0, 7, true, false),
            (10, 3, 7, true, true),
            (10, 3, 3, true, true),
            (10, 3, 2, true, false),
            (10, 3, 11, true, true),
        ];
        for (upper, lower, connections, before, after) in cases {
            let load = load(connections / 2, connections - connections / 2);
            load.upper.store(upper, Ordering::Relaxed);
            load.lower.store(lower, Ordering::Relaxed);
            load.flags
                .store(if before { load::OVERLOADED } else { 0 }, Ordering::Relaxed);
            check_thresholds(&load);
            let flags = load.flags.load(Ordering::Relaxed);
            assert_eq!(
                flags & load::OVERLOADED != 0,
                after,
                "{connections} of {lower} to {upper}"
            );
        }
    }
}
