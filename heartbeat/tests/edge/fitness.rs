//! Hosts that must answer, in namespaces.

use std::time::{Duration, Instant};

use heartbeat::config::{self, PingTracked, Rhythm};
use heartbeat::fitness::Fitness;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::namespace::{Namespace, cable};

/// Goes on until the verdict is `expected`, which it must become soon.
fn until(node: &Namespace, fitness: &mut Fitness, begun: Instant, expected: u16) {
    let limit = Instant::now() + Duration::from_secs(20);
    node.run(|| {
        while fitness.verdict().lowers != expected {
            assert!(Instant::now() < limit, "{:?}", fitness.checks());
            fitness.step(begun.elapsed(), |_, _| ());
            let mut waits: Vec<_> = fitness
                .fds()
                .into_iter()
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
            poll(&mut waits, PollTimeout::from(10_u16)).unwrap();
        }
    });
}

#[test]
#[ignore = "needs root: network namespaces"]
fn hosts_that_answer_and_fall_silent() {
    let (one, gateway) = (Namespace::new(), Namespace::new());
    cable(
        &one,
        &["192.0.2.1/24", "2001:db8::1/64"],
        &gateway,
        &["192.0.2.254/24", "2001:db8::fe/64"],
    );
    // Unprivileged sockets, where the system lets root's group have them, and raw ones.
    for range in ["1 0", "0 10"] {
        one.set("ipv4/ping_group_range", range);
        let ping = |address: &str, lowers| PingTracked {
            address: address.parse().unwrap(),
            rhythm: Rhythm {
                interval: Duration::from_millis(50),
                timeout: Duration::from_millis(200),
                fall: 2,
                rise: 2,
            },
            lowers: Some(lowers),
        };
        let mut fitness = Fitness::new(&config::Fitness {
            ping: vec![
                ping("192.0.2.254", 1),
                ping("2001:db8::fe", 2),
                // Nobody is there, and there is no way.
                ping("192.0.2.77", 4),
                ping("203.0.113.1", 8),
            ],
            ..config::Fitness::default()
        });
        assert_eq!(fitness.verdict().lowers, 15, "nobody was asked yet");
        let begun = Instant::now();
        until(&one, &mut fitness, begun, 12);
        gateway.ip("address del 2001:db8::fe/64 dev eth0");
        until(&one, &mut fitness, begun, 14);
        gateway.ip("link set eth0 down");
        until(&one, &mut fitness, begun, 15);
        gateway.ip("link set eth0 up");
        gateway.ip("address add 2001:db8::fe/64 dev eth0 nodad");
        until(&one, &mut fitness, begun, 12);
    }
}
