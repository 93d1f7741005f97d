//! `director decap`.

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

use super::arguments::DecapArguments;
use crate::config::Interface;
use crate::datapath::{Decap, DecapOptions};

/// Takes tunnels off until a signal comes.
pub(super) fn decap(arguments: &DecapArguments) -> anyhow::Result<()> {
    let mode = arguments.mode.into();
    let interfaces = arguments
        .interface
        .iter()
        .map(|name| Interface {
            name: name.clone(),
            mode,
        })
        .collect();
    let options = DecapOptions {
        interfaces,
        addresses: arguments.address.clone(),
        gue_port: arguments.gue_port,
    }
    .with_default_addresses()?;
    if options.addresses.is_empty() {
        bail!(
            "{} has no address at which a tunnel could end: give it one, or say --address",
            arguments.interface.join(", ")
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        // Before attaching, so that a signal in between does not end the process at once.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let _attached = Decap::start(&options)?;
        let addresses: Vec<String> = options.addresses.iter().map(ToString::to_string).collect();
        tracing::info!(
            addresses = addresses.join(" "),
            gue_port = options.gue_port,
            "ready"
        );
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("detaching");
        Ok(())
    })
}
