//! `mysql`, `postgres` and `redis` against MariaDB, PostgreSQL and Redis.

use std::fs::Permissions;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use director::health::probe::FailureKind::{Certificate, TimedOut, Unexpected};
use director_tests::servers::{Directory, Server, alone, output, output_fed};

use crate::certificates::Authority;
use crate::{V4, V6, check, check_broken, check_soon};

#[test]
#[ignore = "needs root and redis-server: cargo xtask test runs it"]
fn redis_answers_and_breaks() {
    alone(|| {
        let start = |name: &str, port: u16, options: &[&str]| {
            let directory = Directory::new(name).unwrap();
            let mut command = Command::new("redis-server");
            command
                .args([
                    "--bind",
                    "127.0.0.1",
                    "::1",
                    "--save",
                    "",
                    "--port",
                    &port.to_string(),
                ])
                .arg("--dir")
                .arg(directory.path())
                .args(options);
            let server = Server::start(command, &directory, SocketAddr::new(V4, port)).unwrap();
            server.wait_for_ports(&[port]).unwrap();
            (server, directory)
        };
        let (mut open, _directory) = start("redis", 6379, &[]);
        let (mut guarded, _directory) =
            start("redis-guarded", 6380, &["--requirepass", "it's secret"]);
        let rows = [
            (6379, "redis", Ok("+PONG")),
            (6380, "redis", Err((Unexpected, "NOAUTH"))),
            (
                6380,
                "{type: redis, password: \"it's secret\"}",
                Ok("+PONG"),
            ),
            (
                6380,
                "{type: redis, user: default, password: \"it's secret\"}",
                Ok("+PONG"),
            ),
            (
                6380,
                "{type: redis, password: wrong}",
                Err((Unexpected, "WRONGPASS")),
            ),
            (
                6380,
                "{type: redis, user: nobody, password: \"it's secret\"}",
                Err((Unexpected, "WRONGPASS")),
            ),
            // Nobody asked for one.
            (
                6379,
                "{type: redis, password: wrong}",
                Err((Unexpected, "without any password configured")),
            ),
            // Redis waits for the end of what it takes for a command.
            (6379, "ldap", Err((TimedOut, ""))),
        ];
        for (port, row, expected) in rows {
            for address in [V4, V6] {
                check(row, SocketAddr::new(address, port), expected);
            }
        }
        check_broken("redis", &mut open);
        check_broken("{type: redis, password: \"it's secret\"}", &mut guarded);
    })
    .unwrap();
}

/// PostgreSQL's programs stand in a directory of their version, out of `PATH`. The newest, if there are several.
fn postgres_programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").unwrap();
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    versions
        .map(|entry| entry.unwrap().path())
        .max_by_key(version)
        .unwrap()
        .join("bin")
}

#[test]
#[ignore = "needs root and postgresql: cargo xtask test runs it"]
fn postgresql_answers_and_breaks() {
    alone(|| {
        let directory = Directory::new("postgres").unwrap();
        let data = directory.path().join("data");
        let programs = postgres_programs();
        // It does not run as root.
        directory.give_to("postgres").unwrap();
        let as_postgres = |program: &str| {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid=postgres", "--regid=postgres", "--init-groups"])
                .arg(programs.join(program))
                .current_dir(directory.path());
            command
        };
        output(
            as_postgres("initdb")
                .args(["--no-sync", "--username=postgres", "--pgdata"])
                .arg(&data),
        )
        .unwrap();
        // Who may do what: none at all from the last address.
        let rules = "host all open,postgres 127.0.0.1/32 trust\nhost all plain all password\nhost all old all md5\n\
                     host all all 127.0.0.1/32 scram-sha-256\nhost all all ::1/128 scram-sha-256\n";
        directory.write("data/pg_hba.conf", rules).unwrap();
        let roles = "CREATE ROLE scram LOGIN PASSWORD 'sécret';\nCREATE ROLE plain LOGIN PASSWORD 'secret';\n\
                     SET password_encryption = 'md5';\nCREATE ROLE old LOGIN PASSWORD 'secret';\n";
        let roles = directory.write("roles.sql", roles).unwrap();
        let roles = std::fs::File::open(roles).unwrap();
        let mut command = as_postgres("postgres");
        command.args(["--single", "-j", "postgres", "-D"]).arg(&data);
        output_fed(&mut command, roles).unwrap();
        let authority = Authority::new("Databases");
        authority.write(&directory, "ca");
        authority.certify(&directory, "data/server", &["127.0.0.1"], 30);
        let ca = directory.path().join("ca.pem");
        let ca = ca.display();
        let key = directory.path().join("data/server.key");
        std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        let secret = directory.write("secret", "sécret\n").unwrap();
        std::fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
        let secret = secret.display();
        directory.give_to("postgres").unwrap();
        let mut command = as_postgres("postgres");
        command.arg("-D").arg(&data).arg("-k").arg(directory.path());
        command.args(["-h", "*", "-p", "5432", "-F", "-N", "20"]);
        command.args(["-c", "superuser_reserved_connections=1", "-c", "max_wal_senders=0", "-c", "ssl=on"]);
        let mut server = Server::start(command, &directory, SocketAddr::new(V4, 5432)).unwrap();
        server.wait_for_ports(&[5432]).unwrap();
        output(Command::new("ip").args(["address", "add", "10.0.0.1/32", "dev", "lo"])).unwrap();
        let elsewhere: IpAddr = "10.0.0.1".parse().unwrap();
        let rows = [
            (V4, "postgres", Ok("asks for authentication")),
            (V6, "postgres", Ok("asks for authentication")),
            (V4, "{type: postgres, user: who, database: nothing}", Ok("asks for authentication")),
            // It is up, and says that it does not want this host.
            (elsewhere, "postgres", Ok("no pg_hba.conf entry")),
            // Let in by the rules, before it finds that there is no such user.
            (V4, "{type: postgres, user: open}", Ok("role \"open\" does not exist")),
            (V4, "{type: postgres, user: postgres}", Ok("lets in")),
            (
                V4,
                "{type: postgres, user: postgres, database: nothing}",
                Err((Unexpected, "database \"nothing\" does not exist (3D000)")),
            ),
        ];
        check_soon("postgres", server.address());
        for (address, row, expected) in rows {
            check(row, SocketAddr::new(address, 5432), expected);
        }
        // (who logs in, what comes of it)
        let by_tls = format!("tls: true, ca: {ca}");
        let logins = [
            ("user: scram, password: sécret, database: postgres".to_owned(), Ok("lets in")),
            (format!("user: scram, password_file: {secret}, database: postgres"), Ok("lets in")),
            (format!("user: scram, password: sécret, database: postgres, {by_tls}"), Ok("lets in")),
            (
                "user: scram, password: wrong, database: postgres".to_owned(),
                Err((Unexpected, "password authentication failed for user \"scram\" (28P01)")),
            ),
            ("user: nobody, password: secret".to_owned(), Err((Unexpected, "authentication failed"))),
            ("user: old, password: secret, database: postgres".to_owned(), Ok("lets in")),
            ("user: old, password: wrong, database: postgres".to_owned(), Err((Unexpected, "28P01"))),
            ("user: plain, password: secret, database: postgres".to_owned(), Err((Unexpected, "tls: true"))),
            (format!("user: plain, password: secret, database: postgres, {by_tls}"), Ok("lets in")),
            // Logged in, and the database is nobody's wish.
            ("user: scram, password: sécret".to_owned(), Ok("database \"scram\" does not exist")),
            ("user: scram, password: sécret, tls: true".to_owned(), Err((Certificate, "issuer"))),
        ];
        for (login, expected) in &logins {
            check(&format!("{{type: postgres, {login}}}"), server.address(), *expected);
        }
        // Strangers that come every other second must not fill its log with complaints of broken connections.
        let log = server.log();
        assert!(!log.contains("reset by peer"), "{log}");
        // One of another kind does, as it can only wait and go.
        check("mysql", server.address(), Err((TimedOut, "")));
        check_broken("postgres", &mut server);
    })
    .unwrap();
}

#[test]
#[ignore = "needs root and mariadb-server-core: cargo xtask test runs it"]
fn mariadb_answers_and_breaks() {
    alone(|| {
        let directory = Directory::new("mariadb").unwrap();
        let data = directory.make("data").unwrap();
        let data = format!("--datadir={}", data.display());
        output(Command::new("mariadb-install-db").args([
            "--no-defaults",
            "--user=root",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            &data,
        ]))
        .unwrap();
        let script = "CREATE USER ready@'%';\nCREATE USER secret@'%' IDENTIFIED BY 'secret';\n\
                      CREATE USER guarded@'%' IDENTIFIED BY 'secret' REQUIRE SSL;\n\
                      DELETE FROM mysql.global_priv WHERE User = '';\nFLUSH PRIVILEGES;\n";
        let script = directory.write("init.sql", script).unwrap();
        let mut command = Command::new("mariadbd");
        command
            .args(["--no-defaults", "--user=root", &data])
            .arg(format!("--socket={}/socket", directory.path().display()))
            .arg(format!("--pid-file={}/pid", directory.path().display()))
            .arg(format!("--init-file={}", script.display()))
            .args([
                "--bind-address=*",
                "--port=3306",
                "--innodb-buffer-pool-size=8M",
            ])
            .arg("--innodb-flush-log-at-trx-commit=0");
        let authority = Authority::new("Databases");
        authority.write(&directory, "ca");
        authority.certify(&directory, "server", &["127.0.0.1"], 30);
        let file = |name: &str| directory.path().join(name).display().to_string();
        command
            .arg(format!("--ssl-cert={}", file("server.crt")))
            .arg(format!("--ssl-key={}", file("server.key")));
        let secret_file = directory.write("secret", "secret\n").unwrap();
        std::fs::set_permissions(&secret_file, Permissions::from_mode(0o600)).unwrap();
        let mut server = Server::start(command, &directory, SocketAddr::new(V4, 3306)).unwrap();
        server.wait_for_ports(&[3306]).unwrap();
        output(Command::new("ip").args(["address", "add", "10.0.0.1/32", "dev", "lo"])).unwrap();
        let elsewhere: IpAddr = "10.0.0.1".parse().unwrap();
        let rows = [
            (
                V4,
                "mysql",
                Ok("answers: Access denied for user 'director'"),
            ),
            (
                V6,
                "mysql",
                Ok("answers: Access denied for user 'director'"),
            ),
            (V4, "{type: mysql, user: ready}", Ok("lets in")),
            (V6, "{type: mysql, user: ready}", Ok("lets in")),
            (
                V4,
                "{type: mysql, user: secret}",
                Ok("answers: Access denied"),
            ),
            (V4, "postgres", Err((Unexpected, "a PostgreSQL answer"))),
            (V4, "redis", Err((Unexpected, ""))),
        ];
        for (address, row, expected) in rows {
            check(row, SocketAddr::new(address, 3306), expected);
        }
        // (who logs in, what comes of it)
        let by_tls = format!("tls: true, ca: {}", file("ca.pem"));
        let denied = Err((Unexpected, "the server refuses: Access denied"));
        let logins = [
            ("user: secret, password: secret".to_owned(), Ok("lets in")),
            (
                format!("user: secret, password_file: {}", secret_file.display()),
                Ok("lets in"),
            ),
            ("user: secret, password: wrong".to_owned(), denied),
            ("user: nobody, password: secret".to_owned(), denied),
            // There is none.
            ("user: ready, password: secret".to_owned(), denied),
            ("user: guarded, password: secret".to_owned(), denied),
            (
                format!("user: guarded, password: secret, {by_tls}"),
                Ok("lets in"),
            ),
            (format!("user: guarded, password: wrong, {by_tls}"), denied),
            (by_tls.clone(), Ok("answers: Access denied")),
            ("tls: true".to_owned(), Err((Certificate, "issuer"))),
        ];
        for (login, expected) in &logins {
            check(
                &format!("{{type: mysql, {login}}}"),
                server.address(),
                *expected,
            );
        }
        for row in [
            "mysql",
            "{type: mysql, user: ready}",
            "{type: mysql, user: secret}",
            "{type: mysql, user: secret, password: secret}",
        ] {
            for _ in 0..10 {
                check(row, SocketAddr::new(elsewhere, 3306), Ok("version"));
            }
        }
        // It did not take those for clients that broke off, which it counts and at last blocks (`max_connect_errors`).
        let log = server.log();
        let broken = |line: &&str| line.contains("10.0.0.1") && line.contains("Aborted");
        assert_eq!(log.lines().find(broken), None);
        check_broken("{type: mysql, user: secret, password: secret}", &mut server);
    })
    .unwrap();
}
