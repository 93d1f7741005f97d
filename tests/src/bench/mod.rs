//! The benchmark: what a packet costs, beside floors and yardsticks in the same run.
//!
//! ```text
//!  suites ── contenders, questions ─┐
//!  site, flows ── tables, packets ──┼─► rounds ─► rig (the kernel: `BPF_PROG_TEST_RUN`)
//!                                   │     │ nanoseconds, floors around each
//!                                   └─► statistics ─► verdict ─► report ─► render, plot
//! ```
//!
//! Only `rig`, `live`, `wire`, `machine` and `suites` touch the kernel; the rest are rules. What `failover`, `sync` and `config`
//! measure is done by what the tests of the same things do it with ([`crate::pair`], [`crate::sharing`], [`crate::large`]).

pub mod beside;
pub mod flows;
pub mod live;
pub mod machine;
pub mod passes;
pub mod plot;
pub mod render;
pub mod report;
pub mod rig;
pub mod rounds;
pub mod site;
pub mod statistics;
pub mod suites;
pub mod verdict;
pub mod wire;

/// How a run is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Short, with fewer rounds and flows: says what is grossly wrong, and not much more.
    pub quick: bool,
    /// Up to 4 M flows.
    pub many: bool,
}
