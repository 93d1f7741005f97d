//! What the packet path would do with a packet, step by step: the very path, run natively over a copy of the live tables.
//!
//! ```text
//!  pinned maps ──copy──► NativeTables ──► Traced ──► the packet path ──► verdict
//!                                           └─ what it asks, and what it is told ──► steps
//! ```
//!
//! Nothing live is changed: connections that a packet would make are made in the copy.

mod copy;
mod frame;
mod traced;

use serde::Serialize;
use xdp_ebpf::native;
use xdp_ebpf::path::{self, Verdict};

pub use frame::{Frame, PcapError, read_pcap};

use crate::datapath::{DatapathError, View};
use copy::copy;
use traced::Traced;

/// What became of a packet, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What the packet path asked and was told, in order.
    pub steps: Vec<String>,
    /// What it made of the packet.
    pub verdict: String,
}

/// Runs packets one after the other over a copy of the tables that stand, as if they arrived on this CPU.
///
/// # Errors
/// When the tables cannot be read.
pub fn explain(view: &View, frames: &[Frame], cpu: u32) -> Result<Vec<Explanation>, DatapathError> {
    let tables = copy(view)?;
    tables.cpu.set(cpu);
    Ok(frames.iter().map(|frame| one(&tables, frame)).collect())
}

fn one(tables: &native::NativeTables, frame: &Frame) -> Explanation {
    let ingress = tables.egress.keys().copied().min().unwrap_or(1);
    let mut packet = native::Frame::new(&frame.bytes, ingress);
    let traced = Traced::new(tables);
    let verdict = path::run(&mut packet, &traced);
    let after = packet.bytes();
    let changed = if after == frame.bytes {
        "unchanged".to_owned()
    } else {
        format!("now {}", frame::describe(&after))
    };
    let verdict = match verdict {
        Verdict::Pass => format!("on to the kernel's network stack, {changed}"),
        Verdict::Drop(reason) => format!("dropped, counted as {}", reason.name()),
        Verdict::Transmit => format!("sent back out of the interface it came in by, {changed}"),
        Verdict::Redirect(slot) => format!("sent out of the interface in slot {slot}, {changed}"),
        Verdict::Continue(stage) => format!("stopped before stage {stage:?}"),
    };
    let mut steps = vec![frame::describe(&frame.bytes)];
    steps.extend(traced.into_steps());
    Explanation { steps, verdict }
}
