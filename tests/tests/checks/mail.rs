//! `smtp` against Postfix, `pop3` and `imap` against Dovecot.

use std::net::SocketAddr;
use std::process::Command;

use director::health::probe::FailureKind::{Certificate, TimedOut, Unexpected};
use director_tests::servers::{Directory, Server, alone, output};

use crate::certificates::Authority;
use crate::{V4, V6, check, check_broken};

const POSTFIX: &str = "\
compatibility_level = 3.6
queue_directory = DIRECTORY/queue
data_directory = DIRECTORY/data
maillog_file = DIRECTORY/mail.log
maillog_file_prefixes = DIRECTORY
inet_interfaces = loopback-only
inet_protocols = all
myhostname = mail.example.org
mydestination =
alias_maps =
alias_database =
smtpd_tls_chain_files = DIRECTORY/good.key, DIRECTORY/good.crt
";

/// Nothing in a jail, and only what an SMTP server needs to greet; port 26 turns everybody away.
const POSTFIX_SERVICES: &str = "\
25  inet n - n - - smtpd
26  inet n - n - - smtpd -o smtpd_helo_required=yes -o smtpd_delay_reject=no -o smtpd_client_restrictions=reject
465 inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
";

#[test]
#[ignore = "needs root and postfix: cargo xtask test runs it"]
fn postfix_answers_and_breaks() {
    alone(|| {
        let directory = Directory::new("postfix").unwrap();
        let authority = Authority::new("checks");
        authority.write(&directory, "ca");
        authority.certify(&directory, "good", &["127.0.0.1", "mail.example.org"], 30);
        for part in ["queue/pid", "queue/private", "queue/public", "data"] {
            directory.make(part).unwrap();
        }
        for part in ["queue/private", "queue/public", "data"] {
            let path = directory.path().join(part);
            output(Command::new("chown").arg("postfix:").arg(path)).unwrap();
        }
        directory.write("main.cf", POSTFIX).unwrap();
        directory.write("master.cf", POSTFIX_SERVICES).unwrap();
        let mut command = Command::new("/usr/lib/postfix/sbin/master");
        command.arg("-d").arg("-c").arg(directory.path());
        command.env("MAIL_CONFIG", directory.path());
        let mut server = Server::start(command, &directory, SocketAddr::new(V4, 25)).unwrap();
        server.wait_for_ports(&[25, 26, 465]).unwrap();
        let ca = directory.path().join("ca.pem");
        let ca = ca.display();
        let rows = [
            (
                25,
                V4,
                "smtp".to_owned(),
                Ok("220 mail.example.org ESMTP Postfix"),
            ),
            (25, V6, "smtp".to_owned(), Ok("220 mail.example.org")),
            (
                25,
                V4,
                "{type: smtp, hello: lb1.example.org}".to_owned(),
                Ok("220"),
            ),
            (26, V4, "smtp".to_owned(), Err((Unexpected, "554 5.7.1"))),
            (
                465,
                V4,
                format!("{{type: smtp, tls: true, ca: {ca}}}"),
                Ok("220 mail.example.org"),
            ),
            (
                465,
                V4,
                format!("{{type: smtp, tls: true, ca: {ca}, server_name: mail.example.org}}"),
                Ok("220"),
            ),
            (
                465,
                V4,
                format!("{{type: smtp, tls: true, ca: {ca}, server_name: www.example.org}}"),
                Err((Certificate, "is not for www.example.org")),
            ),
            (
                465,
                V4,
                "{type: smtp, tls: true}".to_owned(),
                Err((Certificate, "issuer")),
            ),
            // TLS to a port without it, and the other way round.
            (
                25,
                V4,
                "{type: smtp, tls: true}".to_owned(),
                Err((Unexpected, "TLS handshake")),
            ),
            (465, V4, "smtp".to_owned(), Err((TimedOut, ""))),
            (25, V4, "ftp".to_owned(), Ok("220")),
            (
                25,
                V4,
                "pop3".to_owned(),
                Err((Unexpected, "the POP3 greeting to begin with +OK, got \"220")),
            ),
            (25, V4, "http".to_owned(), Err((Unexpected, ""))),
        ];
        for (port, address, row, expected) in rows {
            check(&row, SocketAddr::new(address, port), expected);
        }
        check_broken("smtp", &mut server);
    })
    .unwrap();
}

/// Users stand in a file of its own; its helpers run as the users that its package made.
const DOVECOT: &str = "\
base_dir = DIRECTORY/run
state_dir = DIRECTORY/state
log_path = DIRECTORY/dovecot.log
protocols = imap pop3
listen = *, ::
ssl = yes
ssl_cert = <DIRECTORY/good.crt
ssl_key = <DIRECTORY/good.key
disable_plaintext_auth = no
auth_failure_delay = 0
first_valid_uid = 1
mail_location = maildir:DIRECTORY/mail/%u
login_greeting = mail of example.org
# Nor does a wrong password make the next login from the same address wait.
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
passdb {
  driver = passwd-file
  args = scheme=PLAIN DIRECTORY/users
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=DIRECTORY/mail/%u
}
";

#[test]
#[ignore = "needs root, dovecot-imapd and dovecot-pop3d: cargo xtask test runs it"]
fn dovecot_answers_and_breaks() {
    alone(|| {
        let directory = Directory::new("dovecot").unwrap();
        let authority = Authority::new("checks");
        authority.write(&directory, "ca");
        authority.certify(&directory, "good", &["127.0.0.1"], 30);
        let mail = directory.make("mail").unwrap();
        output(Command::new("chown").arg("nobody:").arg(mail)).unwrap();
        directory
            .write("users", "check:{PLAIN}\"quoted\\ secret\n")
            .unwrap();
        let mut command = Command::new("dovecot");
        command
            .args(["-F", "-c"])
            .arg(directory.write("dovecot.conf", DOVECOT).unwrap());
        let mut server = Server::start(command, &directory, SocketAddr::new(V4, 143)).unwrap();
        server.wait_for_ports(&[143, 993, 110, 995]).unwrap();
        let ca = directory.path().join("ca.pem");
        let ca = ca.display();
        // As YAML has it between single quotes.
        let login = "user: check, password: '\"quoted\\ secret'";
        let tls = format!("tls: true, ca: {ca}");
        let rows = [
            (143, V4, "imap".to_owned(), Ok("mail of example.org")),
            (143, V6, "imap".to_owned(), Ok("mail of example.org")),
            (143, V4, format!("{{type: imap, {login}}}"), Ok("")),
            (
                143,
                V4,
                "{type: imap, user: check, password: wrong}".to_owned(),
                Err((Unexpected, "AUTHENTICATIONFAILED")),
            ),
            (
                143,
                V4,
                "{type: imap, user: nobody, password: x}".to_owned(),
                Err((Unexpected, "d1 NO")),
            ),
            (993, V4, format!("{{type: imap, {tls}, {login}}}"), Ok("")),
            (
                993,
                V4,
                "{type: imap, tls: true}".to_owned(),
                Err((Certificate, "issuer")),
            ),
            (110, V4, "pop3".to_owned(), Ok("+OK mail of example.org")),
            (110, V6, "pop3".to_owned(), Ok("+OK mail of example.org")),
            (110, V4, format!("{{type: pop3, {login}}}"), Ok("+OK")),
            (
                110,
                V4,
                "{type: pop3, user: check, password: wrong}".to_owned(),
                Err((Unexpected, "-ERR [AUTH]")),
            ),
            (
                995,
                V4,
                format!("{{type: pop3, {tls}, {login}}}"),
                Ok("+OK"),
            ),
            (995, V4, "pop3".to_owned(), Err((TimedOut, ""))),
            (
                110,
                V4,
                "imap".to_owned(),
                Err((Unexpected, "IMAP greeting to begin with * OK, got \"+OK")),
            ),
            (
                143,
                V4,
                "nntp".to_owned(),
                Err((Unexpected, "the NNTP greeting")),
            ),
        ];
        for (port, address, row, expected) in rows {
            check(&row, SocketAddr::new(address, port), expected);
        }
        check_broken("imap", &mut server);
    })
    .unwrap();
}
