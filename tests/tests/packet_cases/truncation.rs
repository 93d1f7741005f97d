//! Every header cut off at every length: nothing is read beyond the end, nothing incomplete is forwarded.

use director_tests::packet::Action;
use director_tests::packet::build::Frame;
use director_tests::packet::fixture::site;
use director_tests::packet::machine::{Counts, Machine, Outcome, Place};
use director_tests::packet::native::Native;
use director_tests::packet::samples::{Sample, samples};

/// The shortest frame that a test run in the kernel takes.
const SHORTEST: usize = 14;

fn prepare(machine: &mut dyn Machine, before: &[Frame]) {
    machine.load(&site()).expect("the tables take the fixture");
    for frame in before {
        machine.run(&frame.bytes()).expect("a frame before");
    }
    machine.take_held().expect("nothing waits");
}

fn run(machine: &mut dyn Machine, frame: &[u8]) -> (Outcome, Vec<Place>) {
    let before: Counts = machine.counts().expect("counters");
    let outcome = machine.run(frame).expect("a verdict");
    let after = machine.counts().expect("counters");
    machine.take_held().expect("frames that wait");
    (outcome, after.since(&before))
}

/// Runs all beginnings of all samples.
fn check(machines: &mut [&mut dyn Machine], shortest: usize) {
    let mut frames = 0;
    for Sample {
        name,
        before,
        frame,
    } in samples()
    {
        let whole = frame.bytes();
        for machine in machines.iter_mut() {
            prepare(*machine, &before);
        }
        for length in shortest..whole.len() {
            frames += 1;
            let cut = &whole[..length];
            let mut first = None;
            for machine in machines.iter_mut() {
                let (outcome, places) = run(*machine, cut);
                let what = format!(
                    "{name}, the first {length} of {} bytes, {}",
                    whole.len(),
                    machine.name()
                );
                match outcome.action {
                    Action::Pass => {
                        assert_eq!(outcome.frame, cut, "{what}: passed, but changed");
                        assert_eq!(places, [], "{what}: passed, but counted");
                    }
                    Action::Drop => assert!(
                        matches!(places[..], [Place::Reason(_)]),
                        "{what}: dropped, counted in {places:?}"
                    ),
                    sent => panic!("{what}: {sent:?}, counted in {places:?}"),
                }
                let this = (outcome.action, places);
                match &first {
                    None => first = Some(this),
                    Some(first) => assert_eq!(*first, this, "{what}: not as the one before"),
                }
            }
        }
    }
    assert!(frames > 5000, "only {frames} frames");
    println!("{frames} beginnings of frames");
}

#[test]
fn every_beginning_of_every_frame_natively() {
    check(&mut [&mut Native::new(&site())], 0);
}

#[test]
#[ignore = "needs root and the BPF object: cargo xtask test runs it"]
fn every_beginning_of_every_frame_in_the_kernel() {
    check(
        &mut [&mut Native::new(&site()), &mut crate::kernel()],
        SHORTEST,
    );
}

/// Makes a frame's IP header agree with its end. False: there is no header.
fn agree(frame: &mut [u8]) -> bool {
    let (l3, length) = (14, frame.len() - 14);
    if frame[12..14] == [0x08, 0x00] && length >= 20 {
        frame[l3 + 2..l3 + 4].copy_from_slice(&(length as u16).to_be_bytes());
        let Ok(header) = etherparse::Ipv4HeaderSlice::from_slice(&frame[l3..]) else {
            return true;
        };
        let sum = header.to_header().calc_header_checksum();
        frame[l3 + 10..l3 + 12].copy_from_slice(&sum.to_be_bytes());
        return true;
    }
    if frame[12..14] == [0x86, 0xdd] && length >= 40 {
        frame[l3 + 4..l3 + 6].copy_from_slice(&(length as u16 - 40).to_be_bytes());
        return true;
    }
    false
}

/// Bytes up to the end of what must be there of a frame's headers.
fn needed(frame: &Frame) -> usize {
    use director_tests::packet::build::Payload;
    let bytes = frame.bytes().len();
    let payload = frame.ip.payload_bytes().len();
    let transport = match &frame.ip.payload {
        Payload::Tcp { .. } => 20,
        Payload::Udp { .. } => 8,
        _ => 0,
    };
    bytes - payload + transport
}

fn check_short(machine: &mut dyn Machine) {
    for Sample {
        name,
        before,
        frame,
    } in samples()
    {
        let is_whole = matches!(frame.ip.protocol(), 6 | 17) && frame.ip.fragment.is_none();
        if !frame.tags.is_empty() || !is_whole {
            continue;
        }
        let whole = frame.bytes();
        let needed = needed(&frame);
        prepare(machine, &before);
        for length in 54.min(needed)..needed {
            let mut cut = whole[..length].to_vec();
            if !agree(&mut cut) {
                continue;
            }
            let (outcome, places) = run(machine, &cut);
            assert!(
                matches!(outcome.action, Action::Pass | Action::Drop),
                "{name}, {length} bytes that say so themselves, {}: {:?}, counted in {places:?}",
                machine.name(),
                outcome.action,
            );
        }
    }
}

#[test]
fn headers_that_are_short_and_say_so_natively() {
    check_short(&mut Native::new(&site()));
}

#[test]
#[ignore = "needs root and the BPF object: cargo xtask test runs it"]
fn headers_that_are_short_and_say_so_in_the_kernel() {
    check_short(&mut crate::kernel());
}
