//! Packet cases: every row natively, and once more in the kernel by `BPF_PROG_TEST_RUN` on the built object.

mod common;
mod decap;
mod dr;
mod fence;
mod fragments;
mod headers;
mod icmp;
mod lines;
mod malformed;
mod nat;
mod others;
mod scheduling;
mod services;
mod spread;
mod time;
mod truncation;
mod tunnel;
mod untracked;
mod vlan;

use director_tests::packet::kernel::Kernel;
use director_tests::packet::native::Native;
use director_tests::packet::{Case, check_all, fixture};
use director_tests::paths;

/// All rows.
fn cases() -> Vec<Case> {
    [
        nat::rows(),
        dr::rows(),
        tunnel::rows(),
        vlan::rows(),
        headers::rows(),
        malformed::rows(),
        others::rows(),
        icmp::rows(),
        fragments::rows(),
        scheduling::rows(),
        services::rows(),
        lines::rows(),
        fence::rows(),
        untracked::rows(),
    ]
    .concat()
}

/// The packet path in the kernel, on the thread that calls.
fn kernel() -> Kernel {
    let object = paths::bpf_object("director-xdp.o").expect("the object is built");
    Kernel::load(&object).expect("the kernel takes the object")
}

#[test]
fn every_row_natively() {
    let cases = cases();
    assert!(cases.len() >= 120, "only {} rows are left", cases.len());
    check_all(&mut Native::new(&fixture::site()), &cases);
}

#[test]
#[ignore = "needs root and the BPF object: cargo xtask test runs it"]
fn every_row_in_the_kernel() {
    check_all(&mut kernel(), &cases());
}

/// The kernel refuses a program of which its verifier looks at a million instructions.
#[test]
#[ignore = "needs root and the BPF object: cargo xtask test runs it"]
fn the_verifier_has_room_left() {
    let verified = kernel().verified().expect("the kernel tells");
    println!("{verified:?}");
    let crowded: Vec<_> = verified
        .iter()
        .filter(|(_, instructions)| *instructions > 850_000)
        .collect();
    assert!(crowded.is_empty(), "{crowded:?}");
}

#[test]
fn every_row_says_something_else() {
    let mut seen = std::collections::BTreeSet::new();
    for case in cases() {
        assert!(seen.insert(case.what.clone()), "twice: {}", case.what);
    }
}
