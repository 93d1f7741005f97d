//! `director explain`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};

use super::arguments::{ExplainArguments, Flag};
use super::output::show;
use crate::config;
use crate::datapath::View;
use crate::explain::{Explanation, Frame, explain, read_pcap};

/// Frames of a capture that are explained at most.
const FRAMES: usize = 1000;

/// Runs packets through the packet path over a copy of the live tables, and says what happened.
pub(super) fn explain_packets(options: &ExplainArguments) -> anyhow::Result<ExitCode> {
    let instance = match &options.instance {
        Some(instance) => instance.clone(),
        None => config::load_of_running(&options.config)
            .inspect_err(|_| {
                eprintln!(
                    "director: the instance's name is in the configuration; or say --instance NAME"
                );
            })?
            .instance,
    };
    let frames = frames(options)?;
    let view = View::open(&options.bpffs, &instance)?;
    let explanations = explain(&view, &frames, options.cpu)?;
    let mut text = String::new();
    for (number, explanation) in (1..).zip(&explanations) {
        if options.json {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", serde_json::to_string(explanation)?);
        } else {
            if explanations.len() > 1 {
                let _ = writeln!(text, "packet {number}");
            }
            render(&mut text, explanation);
        }
    }
    show(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn frames(options: &ExplainArguments) -> anyhow::Result<Vec<Frame>> {
    if let Some(file) = &options.pcap {
        let bytes =
            std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let frames = read_pcap(&bytes)
            .with_context(|| format!("{} is no capture that can be read", file.display()))?;
        ensure!(
            frames.len() <= FRAMES,
            "{} holds {} packets; at most {FRAMES} are explained at once",
            file.display(),
            frames.len()
        );
        return Ok(frames);
    }
    let (Some(from), Some(to)) = (options.from, options.to) else {
        bail!("which packet? say --from CLIENT:PORT --to VIRTUAL:PORT, or --pcap FILE");
    };
    same_family(from, to)?;
    let flags = match options.flag {
        _ if options.udp => None,
        Flag::Syn => Some(0x02),
        Flag::Ack => Some(0x10),
        Flag::Fin => Some(0x11),
        Flag::Rst => Some(0x04),
    };
    Ok(vec![Frame::between(from, to, flags)])
}

fn same_family(from: SocketAddr, to: SocketAddr) -> anyhow::Result<()> {
    ensure!(
        from.is_ipv4() == to.is_ipv4(),
        "{from} and {to} are of two address families"
    );
    Ok(())
}

fn render(text: &mut String, explanation: &Explanation) {
    for step in &explanation.steps {
        let _ = writeln!(text, "  {step}");
    }
    let _ = writeln!(text, "=> {}", explanation.verdict);
}
