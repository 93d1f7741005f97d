//! Operators: those who are slow, in a hurry, or have written something wrong.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::namespace::eventually;
use crate::node::site;
use crate::process::Process;

/// Changes a node's file while it does not run.
fn rewritten(process: &mut Process, from: &str, to: &str) {
    process.killed();
    let path = process.folder.join("config.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&path, text.replace(from, to)).unwrap();
    process.again();
}

/// Some who ask nothing, and one who asks a byte at a time, keep neither a signal nor others who ask waiting for long. A second
/// signal waits for no program.
#[test]
#[ignore = "needs root: network namespaces"]
fn slow_ones_and_one_in_a_hurry() {
    let (_switch, spaces, _client) = site();
    let link = "udp: { interface: eth0, peers: [192.0.2.2] }";
    let mut one = Process::with(&spaces[0], 1, "true", link, "    timeout: 1m\n");
    rewritten(
        &mut one,
        "on_backup: [/bin/sh, -c, 'echo",
        "on_backup: [/bin/sh, -c, 'sleep 50; echo",
    );
    eventually("it serves alone", || one.is_primary());
    let socket = one.folder.join("socket");
    let _silent = [0, 1].map(|_| UnixStream::connect(&socket).unwrap());
    let mut slow = UnixStream::connect(&socket).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Until it is told off.
            while !is_over.load(Ordering::Relaxed) && slow.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // After those before it: each has a second.
            eventually("others are answered", || {
                one.command(&["status"]).status.success()
            });
            let _silent = [0, 1].map(|_| UnixStream::connect(&socket).unwrap());
            one.signal(Signal::SIGTERM);
            eventually("it is stopping", || one.log().contains("stopping"));
            eventually("its address is gone", || {
                !spaces[0]
                    .ip("address show dev eth0")
                    .contains("192.0.2.100")
            });
        }));
        is_over.store(true, Ordering::Relaxed);
        asked.unwrap();
    });
    // The program runs, and is waited for.
    assert!(one.child.try_wait().unwrap().is_none());
    one.signal(Signal::SIGTERM);
    eventually("it waits no longer", || {
        one.child.try_wait().unwrap().is_some()
    });
    assert!(one.child.wait().unwrap().success());
    assert!(one.log().contains("a second time"), "{}", one.log());
}

/// An order that is not obeyed is an error, with the reason.
#[test]
#[ignore = "needs root: network namespaces"]
fn a_takeover_that_is_refused() {
    let (_switch, spaces, _client) = site();
    let one = Process::start(&spaces[0], 1, "true");
    eventually("it serves alone", || one.is_primary());
    for (what, undo, why) in [
        ("link set eth0 down", "link set eth0 up", "no carrier"),
        (
            "link set eth0 name eth9",
            "link set eth9 name eth0",
            "there is no interface eth0",
        ),
    ] {
        spaces[0].ip("link set eth0 down");
        spaces[0].ip(what);
        eventually("it is not fit", || {
            let refused = one.command(&["takeover"]);
            let words = String::from_utf8(refused.stderr).unwrap();
            refused.status.code() == Some(1)
                && words.contains("is not taken over: this node is not fit: ")
        });
        let shown = one.shown();
        assert!(!one.is_primary(), "{why}: {shown}");
        spaces[0].ip(undo);
        spaces[0].ip("link set eth0 up");
        eventually("it serves again", || one.is_primary());
    }
}

/// One that takes effect later says when, and why.
#[test]
#[ignore = "needs root: network namespaces"]
fn an_order_that_is_held() {
    let (_switch, spaces, _client) = site();
    let one = Process::start(&spaces[0], 1, "false");
    let other = Process::start(&spaces[1], 2, "false");
    eventually("they hear each other", || {
        one.shown().contains("lb2              alive")
    });
    // As often as makes it hold back for long enough that the order comes meanwhile.
    for _ in 0..4 {
        for node in [&other, &one] {
            assert!(node.command(&["takeover"]).status.success());
            eventually("it serves", || node.is_primary());
        }
    }
    let said = String::from_utf8(one.command(&["standby"]).stdout).unwrap();
    assert!(
        said.contains("\nnot at once: group web: lb2 lost it more than once within a minute"),
        "{said}"
    );
    eventually("the other serves", || other.is_primary());
}

/// Nodes that do not understand each other say why, and what to do.
#[test]
#[ignore = "needs root: network namespaces"]
fn what_differs_is_said() {
    let (_switch, spaces, _client) = site();
    let one = Process::start(&spaces[0], 1, "true");
    let mut other = Process::start(&spaces[1], 2, "true");
    eventually("they hear each other", || {
        other.shown().contains("lb1              alive")
    });
    rewritten(&mut other, "deadtime: 300ms", "deadtime: 500ms");
    for (process, words) in [
        (&one, "keepalive 100 ms, deadtime 500 ms"),
        (&other, "keepalive 100 ms, deadtime 300 ms"),
    ] {
        eventually("other times are shown", || {
            process
                .shown()
                .contains(&format!("has other times than this node: {words}"))
        });
        assert!(process.log().contains("give all nodes the same"));
    }
    std::fs::write(other.folder.join("key"), "another key, for tests only\n").unwrap();
    other.killed();
    other.again();
    eventually("another key is shown", || {
        one.shown().contains(
            "warning: heartbeats that say that they are from lb2 are not believed on the link udp eth0: the signature \
             is wrong; give all nodes the same key",
        )
    });
    std::fs::copy(one.folder.join("key"), other.folder.join("key")).unwrap();
    rewritten(&mut other, "node: lb2", "node: lb1");
    for process in [&one, &other] {
        eventually("a name given twice is shown", || {
            process.shown().contains("another one is called lb1 too")
        });
    }
}
