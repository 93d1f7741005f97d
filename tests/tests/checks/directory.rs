//! `ldap` against OpenLDAP.

use std::net::SocketAddr;
use std::process::Command;

use director::health::probe::FailureKind::{Certificate, TimedOut, Unexpected};
use director_tests::servers::{Directory, Server, alone};

use crate::certificates::Authority;
use crate::{V4, V6, check, check_broken};

/// The root's own password is enough of a login; its database is empty.
const CONFIGURATION: &str = "\
include /etc/ldap/schema/core.schema
pidfile DIRECTORY/pid
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCertificateFile DIRECTORY/good.crt
TLSCertificateKeyFile DIRECTORY/good.key
database mdb
maxsize 10485760
suffix dc=example,dc=org
rootdn cn=admin,dc=example,dc=org
rootpw secret
directory DIRECTORY/data
";

#[test]
#[ignore = "needs root and slapd: cargo xtask test runs it"]
fn openldap_answers_and_breaks() {
    alone(|| {
        let directory = Directory::new("slapd").unwrap();
        let authority = Authority::new("checks");
        authority.write(&directory, "ca");
        authority.certify(&directory, "good", &["127.0.0.1"], 30);
        directory.make("data").unwrap();
        let mut command = Command::new("slapd");
        command
            .args(["-d", "0", "-h", "ldap:/// ldaps:///", "-f"])
            .arg(directory.write("slapd.conf", CONFIGURATION).unwrap());
        let mut server = Server::start(command, &directory, SocketAddr::new(V4, 389)).unwrap();
        server.wait_for_ports(&[389, 636]).unwrap();
        let ca = directory.path().join("ca.pem");
        let login = "user: \"cn=admin,dc=example,dc=org\"";
        let rows = [
            (V4, 389, "ldap".to_owned(), Ok("bound")),
            (V6, 389, "ldap".to_owned(), Ok("bound")),
            (
                V4,
                389,
                format!("{{type: ldap, {login}, password: secret}}"),
                Ok("bound"),
            ),
            (
                V4,
                389,
                format!("{{type: ldap, {login}, password: wrong}}"),
                Err((Unexpected, "code 49")),
            ),
            (
                V4,
                389,
                "{type: ldap, user: nonsense, password: secret}".to_owned(),
                Err((Unexpected, "code 34 (RFC 4511 section 4.1.9): invalid DN")),
            ),
            // A name without a password: OpenLDAP refuses to take that for a login (RFC 4513 section 5.1.2).
            (
                V4,
                389,
                format!("{{type: ldap, {login}}}"),
                Err((Unexpected, "code 53")),
            ),
            (
                V4,
                636,
                format!("{{type: ldap, tls: true, ca: {}}}", ca.display()),
                Ok("bound"),
            ),
            (
                V4,
                636,
                "{type: ldap, tls: true}".to_owned(),
                Err((Certificate, "issuer")),
            ),
            (
                V4,
                636,
                "{type: ldap, tls: true, verify: false}".to_owned(),
                Ok("bound"),
            ),
            (V4, 389, "smtp".to_owned(), Err((TimedOut, ""))),
        ];
        for (address, port, row, expected) in rows {
            check(&row, SocketAddr::new(address, port), expected);
        }
        check_broken("ldap", &mut server);
    })
    .unwrap();
}
