//! `dns` and `udp` against unbound, which answers from data of its own.

use std::fmt::Write;
use std::net::SocketAddr;
use std::process::Command;

use director::health::probe::FailureKind::{Refused, TimedOut, Unexpected};
use director_tests::servers::{Directory, Server, alone};

use crate::{SHORT, V4, V6, ask, check, check_broken};

fn configuration() -> String {
    let mut text = "\
server:
  directory: DIRECTORY
  chroot: \"\"
  username: \"\"
  pidfile: DIRECTORY/pid
  use-syslog: no
  do-daemonize: no
  interface: 127.0.0.1
  interface: ::1
  access-control: 127.0.0.0/8 allow
  access-control: ::1 allow
  module-config: iterator
  rrset-roundrobin: no
  local-zone: example.org. static
  local-data: \"example.org. SOA ns.example.org. root.example.org. 1 3600 1200 604800 10800\"
  local-data: \"example.org. NS ns.example.org.\"
  local-data: \"example.org. MX 10 mail.example.org.\"
  local-data: \"www.example.org. A 192.0.2.80\"
  local-data: \"www.example.org. A 192.0.2.81\"
  local-data: \"www.example.org. AAAA 2001:db8::80\"
  local-data: 'text.example.org. TXT \"hello world\"'
  local-data: \"_sip._udp.example.org. SRV 0 5 5060 sip.example.org.\"
  local-zone: refused.example. refuse
"
    .to_owned();
    // More than fits into a datagram.
    for number in 0..100 {
        let _ = writeln!(
            text,
            "  local-data: \"many.example.org. A 198.51.100.{number}\""
        );
    }
    text + "remote-control:\n  control-enable: no\n"
}

#[test]
#[ignore = "needs root and unbound: cargo xtask test runs it"]
fn unbound_answers_and_breaks() {
    alone(|| {
        let directory = Directory::new("unbound").unwrap();
        let mut command = Command::new("unbound");
        command
            .args(["-d", "-c"])
            .arg(directory.write("unbound.conf", &configuration()).unwrap());
        let mut server = Server::start(command, &directory, SocketAddr::new(V4, 53)).unwrap();
        server.wait_for_ports(&[53]).unwrap();
        let rows = [
            ("{type: dns, name: www.example.org}", Ok("2 records")),
            ("{type: dns, name: WWW.example.org., answer: 192.0.2.81}", Ok("is 192.0.2.81")),
            (
                "{type: dns, name: www.example.org, answer: 192.0.2.82}",
                Err((Unexpected, "expected www.example.org to be 192.0.2.82, got 192.0.2.80, 192.0.2.81")),
            ),
            ("{type: dns, name: www.example.org, record: AAAA, answer: \"2001:db8::80\"}", Ok("")),
            ("{type: dns, name: example.org, record: MX, answer: 10 mail.example.org}", Ok("")),
            ("{type: dns, name: example.org, record: NS, answer: ns.example.org}", Ok("")),
            ("{type: dns, name: example.org, record: SOA}", Ok("1 records")),
            ("{type: dns, name: text.example.org, record: TXT, answer: hello world}", Ok("")),
            ("{type: dns, name: _sip._udp.example.org, record: SRV, answer: 0 5 5060 sip.example.org}", Ok("")),
            // Too long for a datagram: asked again over TCP.
            ("{type: dns, name: many.example.org, answer: 198.51.100.99}", Ok("")),
            ("{type: dns, name: many.example.org}", Ok("100 records")),
            // The name is there, a record of this type is not.
            (
                "{type: dns, name: www.example.org, record: TXT, answer: x}",
                Err((Unexpected, "got no TXT record")),
            ),
            ("{type: dns, name: absent.example.org}", Err((Unexpected, "Non-Existent Domain"))),
            ("{type: dns, name: refused.example}", Err((Unexpected, "Query Refused"))),
            // A question in hexadecimal: www.example.org A, number 1234; what must come has that number and the answer bit.
            (
                "{type: udp, send_hex: 123401000001000000000000 03777777076578616d706c65036f7267 0000010001, expect_regex: \"(?s-u)^\\\\x12\\\\x34\\\\x85\"}",
                Ok("bytes"),
            ),
            // It drops what is no question.
            ("{type: udp, send: x, expect: y}", Err((TimedOut, ""))),
        ];
        for (row, expected) in rows {
            for address in [V4, V6] {
                check(row, SocketAddr::new(address, 53), expected);
            }
        }
        // Silence is an answer too, once the time is over.
        let silent = ask("{type: udp, send: x}", server.address(), SHORT).unwrap();
        assert!(silent.words.contains("not refused"), "{silent:?}");
        check_broken("{type: dns, name: www.example.org}", &mut server);
        check("{type: udp, send: x}", server.address(), Err((Refused, "refused")));
    })
    .unwrap();
}
