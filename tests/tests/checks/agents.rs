//! `agent` against `director agent`.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::ensure;
use director_tests::paths::program;
use director_tests::servers::{Directory, Server, alone};
use director_tests::{PATIENCE, wait_until};

use crate::{TIME, V4, V6, ask, check, check_broken};

#[test]
#[ignore = "needs root and the built program: cargo xtask test runs it"]
fn our_agent_answers_and_breaks() {
    alone(|| {
        let directory = Directory::new("agent").unwrap();
        let mut command = Command::new(program("director").unwrap());
        command
            .args([
                "agent",
                "--average",
                "1s",
                "--minimum",
                "30",
                "--state-file",
            ])
            .arg(directory.path().join("state"));
        let mut server = Server::start(command, &directory, SocketAddr::new(V4, 7777)).unwrap();
        server.wait_for_ports(&[7777]).unwrap();
        for address in [V4, V6] {
            let address = SocketAddr::new(address, 7777);
            check("agent", address, Ok("ready up "));
            check(
                "{type: agent, send: \"hello\\n\"}",
                address,
                Ok("ready up "),
            );
        }
        let said = ask("agent", server.address(), TIME).unwrap().said.unwrap();
        assert!((30..=100).contains(&said.percent.unwrap()), "{said:?}");
        for (content, expected) in [
            ("drain", "drain up "),
            ("maint for a new disk", "maint "),
            ("down", "down "),
            ("ready", "ready up "),
        ] {
            directory.write("state", content).unwrap();
            wait_until("the agent says what its state file says", PATIENCE, || {
                let found = ask("agent", server.address(), TIME);
                let words = found
                    .map_err(|failure| anyhow::Error::msg(failure.words))
                    .map(|good| good.words)?;
                ensure!(words.starts_with(expected), "{words}");
                Ok(())
            })
            .unwrap();
        }
        check_broken("agent", &mut server);
    })
    .unwrap();
}
