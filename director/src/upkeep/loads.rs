//! What destinations have to do: correcting the packet path's live counts, and their thresholds.
//!
//! The packet path raises and lowers a count when a connection begins, changes its kind or gives way. It does not see
//! connections expire, and two CPUs with entries of the same connection can disagree: little by little a live count L
//! comes to differ from what the tables hold, C. A pass over the tables counts exactly, but takes a while, during which
//! both go on. So the live count is read before and after each slice of the pass, and E - M is added, where E is what the
//! pass found and M the live count's mean over the slices, each as much as it has buckets. Why:
//!
//! * At rest M = L and E = C, so C - L is added, and the count is exact.
//! * A connection that begins (or changes, or ends) when a share f of the buckets is done counts 1 - f in M. In E it counts
//!   1 if the walk has yet to come by its bucket, and buckets are in the order of a hash that has nothing to do with time:
//!   that is so in 1 - f of all cases. So errors go up and down, whenever in the pass its connections begin, all
//!   at once or one by one; and the error of n changes during a pass is in general at most half the square root of n.
//!   (The mean of the first and the last reading would not do: of n that begin at the end of a pass, n / 2 were taken for
//!   an error, and a real server got as many more than its share, or its threshold, allows.)
//! * What expires is not in E from the moment it is freed, and stays in M: it is taken off whole.
//! * The next pass takes this error for what it finds wrong and corrects it whole: errors do not add up.
//! * The addition is atomic, so what packets add meanwhile is kept. Halves are cut off, not rounded away from 0, lest a
//!   count swing about its right value.
//!
//! An entry that is moved to its other bucket during a pass may be found twice or not at all: an error of one, corrected the
//! same way.

use std::sync::atomic::Ordering;

use xdp_ebpf::layout::{Load, load};

use super::report::Report;

/// Live counts during a pass.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    destinations: Vec<(u32, Course)>,
    /// Walked so far.
    buckets: usize,
}

/// The live counts of a destination during a pass.
#[derive(Clone, Copy, Debug, Default)]
struct Course {
    /// When they were last read.
    live: Live,
    /// The sum of both readings of a slice for each of its buckets.
    active: i128,
    inactive: i128,
}

impl Course {
    fn slice_ends(&mut self, now: Live, buckets: usize) {
        let sum = |then: i64, now: i64| (i128::from(then) + i128::from(now)) * buckets as i128;
        self.active += sum(self.live.active, now.active);
        self.inactive += sum(self.live.inactive, now.inactive);
        self.live = now;
    }
}

impl Snapshot {
    /// A slice of the pass is about to be walked.
    pub fn slice_begins(&mut self, loads: &[Load]) {
        self.read(loads, |course, now| course.live = now);
    }

    /// A slice of so many buckets was walked.
    pub fn slice_ends(&mut self, loads: &[Load], buckets: usize) {
        self.read(loads, |course, now| course.slice_ends(now, buckets));
        self.buckets += buckets;
    }

    fn read(&mut self, loads: &[Load], then: impl Fn(&mut Course, Live)) {
        for (id, course) in &mut self.destinations {
            if let Some(load) = loads.get(*id as usize) {
                then(course, Live::of(load));
            }
        }
    }
}

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

/// Reads the counts of these destinations: a pass begins.
pub fn snapshot(loads: &[Load], destinations: impl Iterator<Item = u32>) -> Snapshot {
    let course = |load| Course {
        live: Live::of(load),
        ..Course::default()
    };
    let known = destinations.filter_map(|id| Some((id, course(loads.get(id as usize)?))));
    Snapshot {
        destinations: known.collect(),
        buckets: 0,
    }
}

/// Corrects the counts of the destinations of a snapshot, taken when the pass of the report began. One that was told of
/// no slices is of a pass in one.
pub fn correct(loads: &[Load], meanwhile: &Snapshot, report: &Report) {
    for (id, course) in &meanwhile.destinations {
        let Some(load) = loads.get(*id as usize) else {
            continue;
        };
        let (mut course, mut buckets) = (*course, meanwhile.buckets);
        if buckets == 0 {
            course.slice_ends(Live::of(load), 1);
            buckets = 1;
        }
        let found = report.destination(*id);
        let twice = 2 * buckets as i128;
        // What is left fits: both are numbers of connections.
        let missing = |found: u64, sum: i128| ((i128::from(found) * twice - sum) / twice) as i64;
        let active = missing(found.active, course.active);
        let inactive = missing(found.inactive, course.inactive);
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
