//! One row of the table, and how it is checked.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail, ensure};
use xdp_ebpf::layout::Reason;
use xdp_ebpf::state::State;

use super::build::Frame;
use super::fixture::Fixture;
use super::machine::{Action, Machine, Place};
use super::verify::verify;

/// What happens before a case's packet comes.
#[derive(Clone, Debug)]
pub enum Step {
    /// A packet, whatever becomes of it.
    Send(Vec<u8>),
    /// From now on packets arrive on this CPU.
    Cpu(u32),
    /// The tables are changed, connections stay.
    Change(Box<Fixture>),
    /// Userspace takes the held fragments.
    TakeHeld,
}

/// A row: what is set up, what comes in, what must come out and where it must be counted.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it shows.
    pub what: String,
    /// The tables.
    pub fixture: Fixture,
    /// What happened before.
    pub before: Vec<Step>,
    /// The packet.
    pub input: Vec<u8>,
    /// What must become of it.
    pub action: Action,
    /// The frame then; of no meaning if it is dropped.
    pub output: Vec<u8>,
    /// Where it must be counted. A packet that is only passed: nowhere.
    pub counted: Option<Place>,
    /// Connections that must be there afterwards: CPU, destination, state. `None`: not looked at.
    pub connections: Option<Vec<(u32, u32, State)>>,
    /// Frames that must wait afterwards.
    pub held: Vec<Vec<u8>>,
    /// The packet is wrong in something that is not the director's business, and so it is when it leaves.
    pub is_damaged: bool,
}

impl Case {
    /// A case whose packet is passed untouched and counted nowhere, until it says otherwise.
    #[must_use]
    pub fn new(what: impl Into<String>, fixture: Fixture, input: Vec<u8>) -> Self {
        Self {
            what: what.into(),
            fixture,
            before: Vec::new(),
            output: input.clone(),
            input,
            action: Action::Pass,
            counted: None,
            connections: None,
            held: Vec::new(),
            is_damaged: false,
        }
    }

    /// With another packet.
    #[must_use]
    pub fn with_input(mut self, frame: &Frame) -> Self {
        self.input = frame.bytes();
        self.output.clone_from(&self.input);
        self
    }

    /// With other tables.
    #[must_use]
    pub fn with_fixture(mut self, fixture: Fixture) -> Self {
        self.fixture = fixture;
        self
    }

    /// After a packet.
    #[must_use]
    pub fn after(self, frame: &Frame) -> Self {
        self.after_step(Step::Send(frame.bytes()))
    }

    /// After a step.
    #[must_use]
    pub fn after_step(mut self, step: Step) -> Self {
        self.before.push(step);
        self
    }

    fn becomes(mut self, action: Action, output: &Frame, counted: Place) -> Self {
        self.action = action;
        self.output = output.bytes();
        self.counted = Some(counted);
        self
    }

    /// It is sent out by the interface it came in by.
    #[must_use]
    pub fn transmits(self, output: &Frame, counted: Place) -> Self {
        self.becomes(Action::Transmit, output, counted)
    }

    /// It is sent out by the other interface.
    #[must_use]
    pub fn redirects(self, output: &Frame, counted: Place) -> Self {
        self.becomes(Action::Redirect, output, counted)
    }

    /// It is changed and handed to the kernel.
    #[must_use]
    pub fn passes_as(self, output: &Frame, counted: Place) -> Self {
        self.becomes(Action::Pass, output, counted)
    }

    /// Its sender is answered.
    #[must_use]
    pub fn answers(self, output: &Frame, reason: Reason) -> Self {
        self.becomes(Action::Transmit, output, Place::Reason(reason.name()))
    }

    /// It is dropped.
    #[must_use]
    pub fn drops(mut self, reason: Reason) -> Self {
        self.action = Action::Drop;
        self.counted = Some(Place::Reason(reason.name()));
        self
    }

    /// It is held until its datagram's first fragment comes.
    #[must_use]
    pub fn is_held(mut self) -> Self {
        self.held = vec![self.input.clone()];
        self.drops(Reason::FragmentHeld)
    }

    /// These connections are there afterwards: CPU, destination, state.
    #[must_use]
    pub fn leaves(mut self, connections: &[(u32, u32, State)]) -> Self {
        self.connections = Some(connections.to_vec());
        self
    }
}

/// Runs a case on a machine.
///
/// # Errors
/// What came out otherwise.
pub fn check(machine: &mut dyn Machine, case: &Case) -> Result<()> {
    machine.load(&case.fixture)?;
    for step in &case.before {
        match step {
            Step::Send(frame) => {
                machine.run(frame).context("a packet before")?;
            }
            Step::Cpu(cpu) => machine.cpu(*cpu)?,
            Step::Change(fixture) => machine.change(fixture)?,
            Step::TakeHeld => {
                machine.take_held()?;
            }
        }
    }
    let before = machine.counts()?;
    let outcome = machine.run(&case.input)?;
    let after = machine.counts()?;
    let counted = after.since(&before);
    ensure!(
        outcome.action == case.action,
        "{:?} instead of {:?} (counted: {counted:?})",
        outcome.action,
        case.action
    );
    if outcome.action != Action::Drop {
        if outcome.frame != case.output {
            bail!(
                "another frame came out\n{}",
                compare(&outcome.frame, &case.output)
            );
        }
        if outcome.frame != case.input && !case.is_damaged {
            verify(&outcome.frame)?;
        }
    }
    let expected: Vec<Place> = case.counted.into_iter().collect();
    ensure!(
        counted == expected,
        "counted in {counted:?} instead of {expected:?}"
    );
    if let Some(Place::In(_) | Place::Out(_)) = case.counted {
        let bytes = after.bytes_since(&before);
        ensure!(
            bytes == case.input.len() as u64,
            "{bytes} bytes counted instead of {}",
            case.input.len()
        );
    }
    if let Some(expected) = &case.connections {
        let mut expected: Vec<_> = expected
            .iter()
            .map(|(cpu, destination, state)| (*cpu, *destination, Some(*state)))
            .collect();
        let mut found: Vec<_> = machine
            .connections()?
            .into_iter()
            .map(|connection| (connection.cpu, connection.destination, connection.state))
            .collect();
        expected.sort();
        found.sort();
        ensure!(
            found == expected,
            "connections (CPU, destination, state) {found:?} instead of {expected:?}"
        );
    }
    let held = machine.take_held()?;
    ensure!(
        held == case.held,
        "{} frames held instead of {}, or others",
        held.len(),
        case.held.len()
    );
    Ok(())
}

/// Runs all cases on a machine.
///
/// # Panics
/// With all that failed, one after another.
pub fn check_all(machine: &mut dyn Machine, cases: &[Case]) {
    let mut report = String::new();
    let mut failed = 0;
    for case in cases {
        if let Err(error) = check(machine, case) {
            failed += 1;
            let _ = writeln!(report, "- {}: {error:#}", case.what);
        }
    }
    println!("{}: {} cases, {failed} failed", machine.name(), cases.len());
    assert!(
        failed == 0,
        "{failed} of {} cases failed ({}):\n{report}",
        cases.len(),
        machine.name()
    );
}

/// Two frames as lines of 16 bytes, those that differ marked.
#[must_use]
pub fn compare(found: &[u8], expected: &[u8]) -> String {
    let mut text = format!("{} bytes instead of {}\n", found.len(), expected.len());
    let lines = found.len().max(expected.len()).div_ceil(16);
    let line = |bytes: &[u8], index: usize| -> String {
        let from = (index * 16).min(bytes.len());
        let to = (from + 16).min(bytes.len());
        bytes[from..to]
            .iter()
            .map(|byte| format!("{byte:02x} "))
            .collect()
    };
    for index in 0..lines {
        let (found, expected) = (line(found, index), line(expected, index));
        if found != expected {
            let _ = writeln!(
                text,
                "  {:04x} is {found}\n       not {expected}",
                index * 16
            );
        }
    }
    text
}
