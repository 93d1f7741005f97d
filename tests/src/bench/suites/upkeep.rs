//! How long a pass over the connection tables takes.

use std::time::Duration;

use anyhow::Result;

use super::{answers, named};
use crate::bench::Options;
use crate::bench::machine::{gross, speed};
use crate::bench::passes::Passes;
use crate::bench::report::{Question, Suite};
use crate::bench::rounds::{self, Extent, Turn};
use crate::bench::verdict::Goal;

/// Of so many connections a pass may take so many milliseconds.
const GOAL: (u32, f64) = (1_000_000, 50.0);
/// Connections whose other half comes to another CPU have a copy there: of so many of 100 here.
const COPIES: u32 = 33;

/// Runs it.
///
/// # Errors
/// Only those of the clocks.
pub fn run(options: &Options) -> Result<Suite> {
    let extent = Extent {
        quiet: if options.quick { 5 } else { 25 },
        rounds: if options.quick { 10 } else { 100 },
        time: Duration::from_secs(if options.quick { 2 } else { 20 }),
    };
    let counts: &[u32] = match (options.quick, options.many) {
        (true, _) => &[100_000],
        (false, false) => &[100_000, 1_000_000],
        (false, true) => &[100_000, 1_000_000, 4_000_000],
    };
    let mut rows = Vec::new();
    for &count in counts {
        for copies in [0, COPIES] {
            let mut passes = Passes::new(count, 0, copies);
            let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
            let rounds = rounds::run(2, extent, |turn| match turn {
                Turn::Floor => speed(),
                Turn::Contender(0) => Ok(milliseconds(passes.plain_sum())),
                Turn::Contender(_) => Ok(milliseconds(passes.pass().took)),
            })?;
            rows.append(&mut answers(&questions(count, copies), &gross(&rounds)));
        }
    }
    Ok(Suite {
        name: "upkeep".to_owned(),
        rows,
        notes: vec![
            "A running director does a pass in ten slices, about a second altogether. Tables of two CPUs, all connections in use.".to_owned(),
        ],
        ..Suite::default()
    })
}

/// How long, for which there is a goal, and beside reading the memory once.
fn questions(count: u32, copies: u32) -> [Question; 2] {
    let suffix = if copies == 0 { "" } else { "-copies" };
    let words = if copies == 0 {
        String::new()
    } else {
        format!(", {copies} of 100 entries with a copy on another CPU")
    };
    let shown = named(count);
    let pass = Question {
        name: format!("pass-{shown}{suffix}"),
        what: format!("a pass over {shown} entries{words}"),
        unit: "ms",
        contender: 1,
        goal: (count == GOAL.0).then_some(Goal::AtMost(GOAL.1)),
        ..Question::default()
    };
    let beside = Question {
        name: format!("pass-{shown}{suffix}-memory"),
        what: "the same, beside reading the memory once".to_owned(),
        against: Some((0, "reading it".to_owned())),
        goal: None,
        ..pass.clone()
    };
    [pass, beside]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_has_a_goal_with_and_without_copies() {
        for (count, copies, name, has_goal) in [
            (100_000, 0, "pass-100k", false),
            (1_000_000, 0, "pass-1M", true),
            (1_000_000, COPIES, "pass-1M-copies", true),
            (4_000_000, 0, "pass-4M", false),
        ] {
            let [pass, beside] = questions(count, copies);
            assert_eq!((pass.name.as_str(), pass.goal.is_some()), (name, has_goal));
            assert_eq!(beside.goal, None, "{name}");
        }
    }
}
