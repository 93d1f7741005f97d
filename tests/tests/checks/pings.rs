//! `ping`: the kernel answers.

use std::net::SocketAddr;

use director::health::probe::FailureKind::{TimedOut, Unreachable};
use director_tests::servers::{alone, output};

use crate::{V4, V6, check};

#[test]
#[ignore = "needs root and ip: cargo xtask test runs it"]
fn hosts_answer_and_do_not() {
    alone(|| {
        for arguments in [
            // Nobody is at the other end, and one address leads nowhere at all.
            "link add there type veth peer name nowhere",
            "address add 10.0.0.1/24 dev there",
            "address add fd00::1/64 dev there nodad",
            "link set there up",
            "link set nowhere up",
            "route add unreachable 10.1.0.0/16",
            "route add unreachable fd01::/16",
        ] {
            output(std::process::Command::new("ip").args(arguments.split(' '))).unwrap();
        }
        let rows = [
            (V4, Ok("echo reply")),
            (V6, Ok("echo reply")),
            ("10.0.0.1".parse().unwrap(), Ok("echo reply")),
            ("10.0.0.2".parse().unwrap(), Err((TimedOut, "500 ms"))),
            ("fd00::2".parse().unwrap(), Err((TimedOut, "500 ms"))),
            ("10.1.0.1".parse().unwrap(), Err((Unreachable, "10.1.0.1"))),
            ("fd01::1".parse().unwrap(), Err((Unreachable, "fd01::1"))),
            (
                "192.0.2.1".parse().unwrap(),
                Err((Unreachable, "192.0.2.1")),
            ),
        ];
        for (address, expected) in rows {
            check("ping", SocketAddr::new(address, 0), expected);
        }
    })
    .unwrap();
}
