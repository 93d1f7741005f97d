//! The failover rules: who serves a group of virtual addresses. No I/O: inputs and the time in, actions out.
//!
//! The time is what has passed since some fixed point before the node's start, from a clock that goes on while the machine sleeps.

mod bounds;
mod decide;
mod delay;
mod failing;
mod fence;
mod losses;
mod node;
mod peers;
mod report;
mod roles;
mod routers;
mod seldom;
mod send;
mod split;
mod types;
mod unit;

pub(crate) use seldom::Seldom;

pub use node::{HISTORY, Machine};
pub use types::{
    Action, Alert, Command, FenceResult, Filled, ForeignStatus, GroupStatus, Input, LinkId,
    LinkState, LinkStatus, Note, PeerState, PeerStatus, Reason, Role, Run, Scope, Silent, Status,
    Transition,
};

#[cfg(test)]
mod tests;
