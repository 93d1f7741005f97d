//! `http`, `https`, `tls`, `exchange`, `connect` and `agent` against nginx.

use std::net::SocketAddr;
use std::process::Command;

use director::health::probe::FailureKind::{
    Certificate, Closed, Local, Oversized, Refused, TimedOut, Unexpected,
};
use director_tests::servers::{Directory, Server, alone};

use crate::certificates::Authority;
use crate::{V4, V6, check, check_broken};

/// Ports with certificates, each with the name of its files.
const TLS: [(u16, &str); 5] = [
    (443, "good"),
    (444, "expired"),
    (445, "other"),
    (446, "stranger"),
    (447, "namesake"),
];

fn nginx(directory: &Directory) -> Server {
    let tls: String = TLS
        .iter()
        .map(|(port, name)| {
            format!(
                "server {{ listen {port} ssl; listen [::]:{port} ssl ipv6only=on; ssl_certificate DIRECTORY/{name}.crt; \
                 ssl_certificate_key DIRECTORY/{name}.key; location / {{ return 200 \"secret\\n\"; }} }}\n"
            )
        })
        .collect();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path DIRECTORY/{kind};\n"))
        .concat();
    let text = format!(
        "daemon off; user root; worker_processes 1; pid DIRECTORY/pid; error_log DIRECTORY/error.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; default_type text/plain; {temporary} {tls}\n\
         server {{ listen 80; listen [::]:80 ipv6only=on; root DIRECTORY;\n\
         location = / {{ return 200 \"Hello World\\n\"; }}\n\
         location = /agent {{ return 200 \"75% up\\n\"; }}\n\
         location = /name {{ return 200 \"$host\\n\"; }}\n\
         location = /method {{ return 200 \"$request_method $http_x_check\\n\"; }}\n\
         location = /busy {{ return 503 \"busy\\n\"; }}\n\
         location = /moved {{ return 302 /; }}\n\
         location = /drip {{ alias DIRECTORY/large; limit_rate 1000; }}\n\
         location = /large {{ }}\n\
         location = /cut {{ return 444; }}\n\
         }} }}\n"
    );
    let configuration = directory.write("nginx.conf", &text).unwrap();
    directory.write("large", &"x".repeat(2 << 20)).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(configuration);
    command.arg("-e").arg(directory.path().join("error.log"));
    Server::start(command, directory, SocketAddr::new(V4, 80)).unwrap()
}

#[test]
#[ignore = "needs root and nginx: cargo xtask test runs it"]
fn nginx_answers_and_breaks() {
    alone(|| {
        let directory = Directory::new("nginx").unwrap();
        let authority = Authority::new("checks");
        authority.write(&directory, "ca");
        authority.certify(&directory, "good", &["www.example.org", "127.0.0.1", "::1"], 30);
        authority.certify(&directory, "expired", &["127.0.0.1"], -3);
        authority.certify(&directory, "other", &["other.example.org"], 30);
        Authority::new("strangers").certify(&directory, "stranger", &["127.0.0.1"], 30);
        Authority::new("checks").certify(&directory, "namesake", &["127.0.0.1"], 30);
        let mut server = nginx(&directory);
        server.wait_for_ports(&[80, 443, 444, 445, 446, 447]).unwrap();
        let ca = directory.path().join("ca.pem");
        let ca = ca.display();

        let plain = [
            ("connect", Ok("connected")),
            ("http", Ok("200")),
            ("{type: http, expect: Hello World}", Ok("200 OK, 12 bytes")),
            ("{type: http, expect_regex: \"^Hello [A-Z]\"}", Ok("200")),
            (
                "{type: http, expect: Goodbye}",
                Err((Unexpected, "expected \"Goodbye\" in the body, got \"Hello World\"")),
            ),
            // `printf 'Hello World\n' | md5sum`, and of sha256sum.
            ("{type: http, digest: \"md5:e59ff97941044f85df5297e1c302d260\"}", Ok("200")),
            (
                "{type: http, digest: \"sha256:d2a84f4b8b650937ec8f73cd8be2c74add5a911ba64df27458ed8229da804a26\"}",
                Ok("200"),
            ),
            (
                "{type: http, digest: \"md5:00000000000000000000000000000000\"}",
                Err((Unexpected, "got e59ff97941044f85df5297e1c302d260")),
            ),
            ("{type: http, path: /busy}", Err((Unexpected, "expected status 200-299, got 503"))),
            ("{type: http, path: /busy, status: [503]}", Ok("503")),
            ("{type: http, path: /moved}", Err((Unexpected, "got 302"))),
            ("{type: http, path: /absent}", Err((Unexpected, "got 404"))),
            ("{type: http, path: /name, host: www.example.org, expect_regex: \"^www.example.org$\"}", Ok("200")),
            (
                "{type: http, path: /method, method: POST, headers: {X-Check: yes-it-is}, expect: POST yes-it-is}",
                Ok("200"),
            ),
            ("{type: http, method: HEAD}", Ok("200")),
            ("{type: http, path: /drip, expect: y}", Err((TimedOut, "500 ms"))),
            ("{type: http, path: /large, expect: y}", Err((Oversized, "longer than 1048576"))),
            // It is not looked at, so not read.
            ("{type: http, path: /large}", Ok("200")),
            ("{type: http, path: /cut}", Err((Closed, ""))),
            (
                "{type: exchange, steps: [{send: \"GET /agent HTTP/1.0\\r\\n\\r\\n\"}, {expect: 200 OK}]}",
                Ok(""),
            ),
            (
                "{type: exchange, steps: [{send: \"GET / HTTP/1.0\\r\\n\\r\\n\"}, {expect: Goodbye}]}",
                Err((Unexpected, "Goodbye")),
            ),
            // Other kinds of checks, of a web server.
            ("smtp", Err((TimedOut, "500 ms"))),
            ("redis", Err((Unexpected, "HTTP/1.1 400 Bad Request"))),
            ("ldap", Err((Unexpected, "expected an LDAP message, got \"HT\""))),
            ("postgres", Err((Unexpected, "a PostgreSQL answer, got \"HTTP/\""))),
            ("mysql", Err((TimedOut, "500 ms"))),
            ("tls", Err((Unexpected, "TLS handshake"))),
            ("{type: agent, send: \"GET /agent HTTP/1.0\\r\\n\\r\\n\"}", Err((Unexpected, "HTTP/1.1 200 OK"))),
        ];
        for (row, expected) in plain {
            for address in [V4, V6] {
                check(row, SocketAddr::new(address, 80), expected);
            }
        }

        let encrypted = [
            (443, V4, format!("{{type: https, ca: {ca}, expect: secret}}"), Ok("200")),
            (443, V6, format!("{{type: https, ca: {ca}, expect: secret}}"), Ok("200")),
            (443, V4, format!("{{type: https, ca: {ca}, host: www.example.org}}"), Ok("200")),
            (443, V4, format!("{{type: https, ca: {ca}, host: \"www.example.org:443\"}}"), Ok("200")),
            (
                443,
                V4,
                format!("{{type: https, ca: {ca}, host: no.example.org}}"),
                Err((Certificate, "is not for no.example.org")),
            ),
            (
                443,
                V4,
                format!("{{type: https, ca: {ca}, host: no.example.org, server_name: www.example.org}}"),
                Ok("200"),
            ),
            (443, V4, "https".to_owned(), Err((Certificate, "issuer is not known"))),
            (446, V4, format!("{{type: https, ca: {ca}}}"), Err((Certificate, "issuer is not known"))),
            (
                447,
                V4,
                format!("{{type: https, ca: {ca}}}"),
                Err((Certificate, "its signature is not that of the authority of this name")),
            ),
            (444, V4, format!("{{type: https, ca: {ca}}}"), Err((Certificate, "expired"))),
            (445, V4, format!("{{type: https, ca: {ca}}}"), Err((Certificate, "is not for 127.0.0.1"))),
            (444, V4, "{type: https, verify: false}".to_owned(), Ok("200")),
            (445, V4, "{type: https, verify: false}".to_owned(), Ok("200")),
            (443, V4, format!("{{type: tls, ca: {ca}}}"), Ok("valid for 30 days")),
            (443, V6, format!("{{type: tls, ca: {ca}, server_name: www.example.org, days_left: 30}}"), Ok("30 days")),
            (
                443,
                V4,
                format!("{{type: tls, ca: {ca}, days_left: 31}}"),
                Err((Certificate, "expires in 30 days, and should be valid for 31")),
            ),
            (444, V4, format!("{{type: tls, ca: {ca}}}"), Err((Certificate, "expired"))),
            (444, V4, "{type: tls, verify: false}".to_owned(), Err((Certificate, "expired 3 days ago"))),
            (
                443,
                V4,
                "{type: tls, ca: /no/such/file.pem}".to_owned(),
                Err((Local, "/no/such/file.pem")),
            ),
            // Spoken to in the clear.
            (443, V4, "http".to_owned(), Err((Unexpected, "got 400"))),
        ];
        for (port, address, row, expected) in encrypted {
            check(&row, SocketAddr::new(address, port), expected);
        }

        // Frozen, the kernel still takes connections.
        server.freeze().unwrap();
        check("connect", server.address(), Ok("connected"));
        check("tls", SocketAddr::new(V4, 443), Err((TimedOut, "")));
        server.thaw().unwrap();
        check_broken("http", &mut server);
        check("connect", SocketAddr::new(V6, 80), Err((Refused, "")));
    })
    .unwrap();
}
