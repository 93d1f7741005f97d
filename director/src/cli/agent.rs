//! `director agent`.

use super::arguments::AgentArguments;
use crate::agent::{AgentOptions, run};

/// Reports this machine's load until a signal comes.
pub(super) fn agent(arguments: &AgentArguments) -> anyhow::Result<()> {
    // One sample a second; clap has seen to the bounds.
    let samples = usize::try_from(arguments.average.as_secs()).unwrap_or(usize::MAX);
    run(&AgentOptions {
        listen: arguments.listen,
        samples,
        minimum: arguments.minimum,
        state_file: arguments.state_file.clone(),
    })
}
