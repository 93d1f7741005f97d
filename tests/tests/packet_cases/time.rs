//! What depends on the clock or on the kernel's own routes, which only native runs can turn.

use director_tests::packet::build::Ip;
use director_tests::packet::fixture::{
    BOTH, Family, INGRESS, OTHER, OTHER_SLOT, hop, port, server_mac, site,
};
use director_tests::packet::native::Native;
use director_tests::packet::{Action, Machine};
use xdp_ebpf::layout::{NextHop, Reason};
use xdp_ebpf::native::Frame;
use xdp_ebpf::path::{self, Verdict};

use crate::common::{Kind, client, from_client, from_server, real_end, virtual_end};

#[test]
fn what_a_first_fragment_decided_is_forgotten_in_time() {
    for family in BOTH {
        let mut machine = Native::new(&site());
        let timeout_ns = u64::from(site().settings.fragment_timeout_ms) * 1_000_000;
        let whole = Ip::udp(client(family), virtual_end(family, port::DR), &[1; 4000]);
        let parts = whole.fragments(1000);
        let mut send = |part: usize, later_ns: u64| {
            let tables = machine.tables();
            tables.now_ns.set(1_000_000_000 + later_ns);
            let frame = from_client(&parts[part]).bytes();
            machine.run(&frame).expect("a verdict").action
        };
        assert_eq!(send(0, 0), Action::Transmit);
        assert_eq!(send(1, timeout_ns - 1), Action::Transmit, "in time");
        assert_eq!(send(2, timeout_ns), Action::Drop, "too late");
        assert_eq!(machine.take_held().expect("frames").len(), 1);
    }
}

#[test]
fn answers_come_back_with_time() {
    let frame = from_client(&Kind::Udp.request(Family::V4, port::NONE)).bytes();
    for (rate, first, half_a_second, second) in
        [(4, 4, 2, 4), (1, 1, 0, 1), (1000, 1000, 500, 1000)]
    {
        let fixture = site().with(|fixture| fixture.settings.icmp_per_second = rate);
        let mut machine = Native::new(&fixture);
        let mut answers = |now_ns: u64| {
            machine.tables().now_ns.set(now_ns);
            let before = machine.tables().reason(Reason::NoRealServer);
            for _ in 0..1100 {
                machine.run(&frame).expect("a verdict");
            }
            machine.tables().reason(Reason::NoRealServer) - before
        };
        const SECOND: u64 = 1_000_000_000;
        assert_eq!(answers(5 * SECOND), first, "{rate} a second: a burst");
        assert_eq!(
            answers(5 * SECOND + SECOND / 2),
            half_a_second,
            "{rate} a second: half of it again"
        );
        assert_eq!(
            answers(1000 * SECOND),
            second,
            "{rate} a second: never more than a burst"
        );
    }
}

/// Many packets, each earning less than a token: none of the time is lost.
#[test]
fn answers_at_a_slow_rate_come_back_too() {
    let frame = from_client(&Kind::Udp.request(Family::V4, port::NONE)).bytes();
    let fixture = site().with(|fixture| fixture.settings.icmp_per_second = 2);
    let mut machine = Native::new(&fixture);
    for tenth in 0..100_u64 {
        machine
            .tables()
            .now_ns
            .set(1_000_000_000 + tenth * 100_000_000);
        machine.run(&frame).expect("a verdict");
    }
    // Two to begin with, and two in each of the ten seconds.
    let answers = machine.tables().reason(Reason::NoRealServer);
    assert!((20..=22).contains(&answers), "{answers} answers");
}

#[test]
fn a_reply_goes_where_the_kernel_says_when_nobody_else_knows() {
    for family in BOTH {
        let to = (family.far_client(), 4000);
        let request = from_client(&Kind::Tcp.first(to, virtual_end(family, port::NAT)));
        let reply = from_server(&Kind::Tcp.data(real_end(family), to, b"x"));
        let other = NextHop {
            ifindex: OTHER,
            ..hop(server_mac(9))
        };
        for (known, kernel, expected, what) in [
            (
                true,
                other,
                Verdict::Redirect(u32::from(OTHER_SLOT)),
                "another interface",
            ),
            (
                true,
                hop(server_mac(9)),
                Verdict::Pass,
                "an interface without a slot",
            ),
            (false, other, Verdict::Pass, "no interface of ours"),
        ] {
            let mut machine = Native::new(&site());
            if known {
                machine.tables().egress.insert(OTHER, u32::from(OTHER_SLOT));
            }
            machine.run(&request.bytes()).expect("a verdict");
            let mut frame = Frame::new(&reply.bytes(), INGRESS);
            frame.kernel_next_hop = kernel;
            let verdict = path::run(&mut frame, machine.tables());
            assert_eq!(verdict, expected, "{family:?}: {what}");
            if let Verdict::Redirect(_) = verdict {
                assert_eq!(frame.bytes()[..6], server_mac(9), "{family:?}: {what}");
            }
        }
    }
}
