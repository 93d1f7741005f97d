//! Finding what is missing and installing it, saying what and why first.
//!
//! [`plan`] decides from plain facts, [`detect`] gathers those facts, [`install`](mod@install) carries steps out.

mod detect;
mod install;
mod plan;

use anyhow::{Result, bail};

use crate::process::heading;
use crate::workspace::Workspace;

pub(crate) use detect::Tools;
pub(crate) use plan::{LLVM_MAJOR, Purpose};

/// What a person is told where something is missing and set-up was not asked for.
pub(crate) const ADVICE: &str = "run: cargo xtask setup";

/// Installs what is missing for `purpose`. Silent but for one line where nothing is.
pub(crate) fn install(workspace: &Workspace, purpose: Purpose) -> Result<()> {
    let steps = plan::plan(&detect::facts(workspace), purpose);
    if steps.is_empty() {
        heading("Set-up: everything needed is here");
        return Ok(());
    }
    heading("Set-up: some things are missing");
    describe(&steps);
    for step in &steps {
        if step.ways.is_empty() {
            bail!("cannot install {} here.\n{}", step.what, step.by_hand);
        }
    }
    install::carry_out(workspace, &steps, |step| {
        plan::plan(&detect::facts(workspace), purpose)
            .iter()
            .any(|left| left.what == step.what)
    })?;
    heading("Set-up: done");
    Ok(())
}

/// Says what [`install`] would do; an error if it could not.
pub(crate) fn show(workspace: &Workspace, purpose: Purpose) -> Result<()> {
    let steps = plan::plan(&detect::facts(workspace), purpose);
    if steps.is_empty() {
        println!("Everything needed is here.");
    }
    describe(&steps);
    match steps.iter().find(|step| step.ways.is_empty()) {
        Some(step) => bail!("cannot install {} here.\n{}", step.what, step.by_hand),
        None => Ok(()),
    }
}

fn describe(steps: &[plan::Step]) {
    for step in steps {
        println!("  {}", step.what);
        println!("      why  {}", step.why);
        for (nth, way) in step.ways.iter().enumerate() {
            let word = if nth == 0 { "how " } else { "else" };
            println!("      {word} {way}");
        }
        if step.ways.is_empty() {
            println!("      how  not possible here: {}", step.by_hand);
        }
    }
}
