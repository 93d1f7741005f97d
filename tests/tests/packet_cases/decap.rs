//! What takes tunnels off on a real server: the program `decap`, natively and in the kernel.

use std::net::IpAddr;

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{Array, HashMap};
use aya::programs::Xdp;
use director_tests::packet::Action;
use director_tests::packet::build::{Frame, Ip, Payload, ipv6, protocol};
use director_tests::packet::case::compare;
use director_tests::packet::fixture::{BOTH, DIRECTOR, Family, INGRESS, server_mac};
use director_tests::packet::kernel::{enter_empty_namespace, test_run};
use director_tests::packet::verify::{GUE_PORT, verify};
use director_tests::paths;
use xdp_ebpf::decap::{Endpoint, decapsulate};
use xdp_ebpf::layout::{method, programs};
use xdp_ebpf::native;

use crate::common::{KINDS, Kind, client, virtual_end, wrapped};
use crate::tunnel::TUNNELS;

/// A frame and what the kernel's network stack gets of it. `None`: the frame as it came.
struct Row {
    what: String,
    input: Vec<u8>,
    output: Option<Vec<u8>>,
}

/// As it comes from the director.
fn arriving(ip: &Ip) -> Frame {
    Frame::new(DIRECTOR, server_mac(1), ip.clone())
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for family in BOTH {
        for (port, tunnel, outer, name) in TUNNELS {
            for kind in KINDS {
                let data = vec![4; 333];
                let inner = kind.data(client(family), virtual_end(family, port), &data);
                let packet = wrapped(&inner, port, tunnel, outer);
                encapsulated(
                    &mut rows,
                    &format!("{name}, {family:?} {kind:?}"),
                    &inner,
                    &packet,
                );
            }
        }
        strange(&mut rows, family);
    }
    rows.push(Row {
        what: "ARP".to_owned(),
        input: [&[0xff; 6][..], &DIRECTOR, &[8, 6], &[0; 28]].concat(),
        output: None,
    });
    rows
}

fn encapsulated(rows: &mut Vec<Row>, name: &str, inner: &Ip, packet: &Ip) {
    let mut row = |what: &str, input: Frame, output: Option<Frame>| {
        rows.push(Row {
            what: format!("{name}: {what}"),
            input: input.bytes(),
            output: output.map(|frame| frame.bytes()),
        });
    };
    row(
        "the packet inside goes on",
        arriving(packet),
        Some(arriving(inner)),
    );
    row(
        "padding stays behind it",
        arriving(packet).padded(6),
        Some(arriving(inner).padded(6)),
    );
    let more = packet.clone().with(|ip| {
        if ip.is_ipv6() {
            // Tunnel encapsulation limit (RFC 2473 section 4.1.1).
            ip.extensions = vec![(ipv6::DESTINATION_OPTIONS, vec![4, 1, 4, 1, 1, 0])];
        } else {
            ip.options = vec![1; 4];
        }
    });
    row(
        "options of the outer header go with it",
        arriving(&more),
        Some(arriving(inner)),
    );
    row(
        "a tunnel to another host stays",
        arriving(&packet.clone().with(|ip| {
            ip.destination = if ip.is_ipv6() { Family::V6 } else { Family::V4 }.server(2);
        })),
        None,
    );
    row(
        "with a VLAN tag it is the kernel's, which takes that off first",
        arriving(packet).tagged(5),
        None,
    );
    for (index, part) in packet.fragments(200).iter().enumerate() {
        row(
            &format!(
                "fragment {index} of the outer packet is the kernel's, which puts them together"
            ),
            arriving(part),
            None,
        );
    }
    row(
        "the packet inside alone is left alone",
        arriving(inner),
        None,
    );
}

fn strange(rows: &mut Vec<Row>, outer: Family) {
    let inner = Kind::Tcp.request(Family::V4, 80);
    let bytes = inner.bytes();
    let end = |family: Family| -> (IpAddr, IpAddr) { (family.outer_source(), family.server(1)) };
    let raw = |number: u8, head: &[u8]| {
        let (source, destination) = end(outer);
        let body = [head, bytes.as_slice()].concat();
        Ip::new(source, destination, Payload::Raw(number, body))
    };
    let gue = |port: u16, head: &[u8]| {
        let (source, destination) = end(outer);
        let body = [head, bytes.as_slice()].concat();
        Ip::udp((source, 50_000), (destination, port), &body)
    };
    let mut row = |what: &str, packet: &Ip, is_taken: bool| {
        rows.push(Row {
            what: format!("over {outer:?}: {what}"),
            input: arriving(packet).bytes(),
            output: is_taken.then(|| arriving(&inner).bytes()),
        });
    };
    row("IPv4 under IPv6's number", &raw(protocol::IPV6, &[]), false);
    row("IPv4 under TCP's number", &raw(protocol::TCP, &[]), false);
    row(
        "GRE with a key",
        &raw(protocol::GRE, &[0x20, 0, 8, 0, 0, 0, 0, 9]),
        false,
    );
    row(
        "GRE with a checksum",
        &raw(protocol::GRE, &[0x80, 0, 8, 0, 0, 0, 0, 0]),
        false,
    );
    row(
        "GRE of version 1",
        &raw(protocol::GRE, &[0, 1, 8, 0]),
        false,
    );
    row(
        "GRE with Ethernet inside",
        &raw(protocol::GRE, &[0, 0, 0x65, 0x58]),
        false,
    );
    row("GUE", &gue(GUE_PORT, &[0, 4, 0, 0]), true);
    row(
        "GUE with two words of options",
        &gue(GUE_PORT, &[2, 4, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
        true,
    );
    row(
        "GUE with more options than there are bytes",
        &gue(GUE_PORT, &[0x1f, 4, 0, 0]),
        false,
    );
    row(
        "a GUE control message",
        &gue(GUE_PORT, &[0x20, 4, 0, 0]),
        false,
    );
    row("GUE of version 1", &gue(GUE_PORT, &[0x40, 4, 0, 0]), false);
    row(
        "GUE with neither IPv4 nor IPv6 inside",
        &gue(GUE_PORT, &[0, 6, 0, 0]),
        false,
    );
    row(
        "GUE on another port",
        &gue(GUE_PORT + 1, &[0, 4, 0, 0]),
        false,
    );
    // Of tunnels in tunnels the outer one alone is ours.
    let twice = wrapped(&inner, 80, method::IPIP, outer);
    let (source, destination) = end(outer);
    let number = match outer {
        Family::V4 => protocol::IPIP,
        Family::V6 => protocol::IPV6,
    };
    let packet = Ip::new(source, destination, Payload::Raw(number, twice.bytes()));
    rows.push(Row {
        what: format!("over {outer:?}: of a tunnel in a tunnel one is taken off"),
        input: arriving(&packet).bytes(),
        output: Some(arriving(&twice).bytes()),
    });
}

/// Tunnels end at the first real server's addresses.
struct Ends;

impl Endpoint for Ends {
    fn ends_here4(&self, address: u32) -> bool {
        IpAddr::from(address.to_ne_bytes()) == Family::V4.server(1)
    }

    fn ends_here6(&self, address: [u32; 4]) -> bool {
        IpAddr::from(xdp_ebpf::family::bytes6(address)) == Family::V6.server(1)
    }

    fn gue_port(&self) -> u16 {
        GUE_PORT
    }
}

/// Runs a frame: what comes out of it, `None` if it was dropped.
type Run<'r> = &'r mut dyn FnMut(&[u8]) -> Option<Vec<u8>>;

fn natively(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut frame = native::Frame::new(bytes, INGRESS);
    let taken = decapsulate(&mut frame, &Ends)?;
    let out = frame.bytes();
    assert_eq!(taken, out != bytes, "what it says and what it did");
    Some(out)
}

fn load() -> Result<Ebpf> {
    enter_empty_namespace()?;
    let mut object = Ebpf::load_file(paths::bpf_object("decap-xdp.o")?)?;
    let program: &mut Xdp = object
        .program_mut(programs::DECAP)
        .context("the program")?
        .try_into()?;
    program.load()?;
    for family in BOTH {
        match family.server(1) {
            IpAddr::V4(address) => {
                let map = object.map_mut("DECAP_ADDRESSES4").context("the map")?;
                HashMap::<_, [u8; 4], u32>::try_from(map)?.insert(address.octets(), 1, 0)?;
            }
            IpAddr::V6(address) => {
                let map = object.map_mut("DECAP_ADDRESSES6").context("the map")?;
                HashMap::<_, [u8; 16], u32>::try_from(map)?.insert(address.octets(), 1, 0)?;
            }
        }
    }
    let map = object.map_mut("DECAP_SETTINGS").context("the map")?;
    Array::<_, u32>::try_from(map)?.set(0, u32::from(GUE_PORT), 0)?;
    Ok(object)
}

/// Runs frames through the program in the kernel.
fn in_the_kernel(check: impl FnOnce(Run<'_>)) {
    let object = load().expect("the object loads");
    let program: &Xdp = object
        .program(programs::DECAP)
        .expect("the program")
        .try_into()
        .expect("an XDP program");
    check(&mut |frame| {
        let outcome = test_run(program, frame).expect("a verdict");
        match outcome.action {
            Action::Pass => Some(outcome.frame),
            Action::Drop => None,
            other => panic!("decap says {other:?}"),
        }
    });
}

fn check_rows(run: Run<'_>) {
    let rows = rows();
    for row in &rows {
        let Some(out) = run(&row.input) else {
            panic!("{}: dropped", row.what);
        };
        let expected = row.output.as_ref().unwrap_or(&row.input);
        assert!(
            out == *expected,
            "{}: {}",
            row.what,
            compare(&out, expected)
        );
        if row.output.is_some() {
            verify(&out).unwrap_or_else(|error| panic!("{}: {error:#}", row.what));
        }
    }
    println!("{} rows", rows.len());
}

/// Cut off anywhere, a frame is left alone or loses its outer header and nothing else.
fn check_beginnings(run: Run<'_>, shortest: usize) {
    for row in rows() {
        for length in shortest..row.input.len() {
            let cut = &row.input[..length];
            let what = format!("{}, the first {length} bytes", row.what);
            let Some(out) = run(cut) else {
                panic!("{what}: dropped");
            };
            if out == cut {
                continue;
            }
            let Some(whole) = &row.output else {
                panic!("{what}: taken off");
            };
            let inside = &out[14..];
            assert!(
                whole.starts_with(&out) && cut.ends_with(inside),
                "{what}: {}",
                compare(&out, whole)
            );
        }
    }
}

#[test]
fn tunnels_are_taken_off_natively() {
    check_rows(&mut natively);
}

#[test]
#[ignore = "needs root and the BPF object: cargo xtask test runs it"]
fn tunnels_are_taken_off_in_the_kernel() {
    in_the_kernel(check_rows);
}

#[test]
fn tunnels_that_are_cut_off_natively() {
    check_beginnings(&mut natively, 0);
}

#[test]
#[ignore = "needs root and the BPF object: cargo xtask test runs it"]
fn tunnels_that_are_cut_off_in_the_kernel() {
    in_the_kernel(|run| check_beginnings(run, 14));
}
