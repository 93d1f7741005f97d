//! `ftp` against vsftpd.

use std::net::SocketAddr;
use std::process::Command;

use director::health::probe::FailureKind::Unexpected;
use director_tests::servers::{Directory, Server, alone};

use crate::{V4, V6, check, check_broken};

const CONFIGURATION: &str = "\
listen=NO
listen_ipv6=YES
background=NO
anonymous_enable=YES
local_enable=NO
anon_root=DIRECTORY/root
secure_chroot_dir=DIRECTORY/root
seccomp_sandbox=NO
ftpd_banner=files of example.org
";

#[test]
#[ignore = "needs root and vsftpd: cargo xtask test runs it"]
fn vsftpd_answers_and_breaks() {
    alone(|| {
        let directory = Directory::new("vsftpd").unwrap();
        directory.make("root").unwrap();
        let mut command = Command::new("vsftpd");
        command.arg(directory.write("vsftpd.conf", CONFIGURATION).unwrap());
        // Listening on both families by one socket of IPv6.
        let mut server = Server::start(command, &directory, SocketAddr::new(V4, 21)).unwrap();
        server.wait_for_ports(&[21]).unwrap();
        let rows = [
            ("ftp", Ok("220 files of example.org")),
            (
                "{type: ftp, user: anonymous, password: director@example.org}",
                Ok("220"),
            ),
            // Only the anonymous may.
            (
                "{type: ftp, user: root, password: secret}",
                Err((Unexpected, "530")),
            ),
            ("smtp", Err((Unexpected, "EHLO to be 250, got \"530"))),
            (
                "nntp",
                Err((
                    Unexpected,
                    "the NNTP greeting to be 200 or 201, got \"220 files",
                )),
            ),
        ];
        for (row, expected) in rows {
            for address in [V4, V6] {
                check(row, SocketAddr::new(address, 21), expected);
            }
        }
        check_broken("ftp", &mut server);
    })
    .unwrap();
}
