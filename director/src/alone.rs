//! Tests that want a whole process: because they count what it has, or change what is a process's and not a thread's.

use std::process::Command;

/// What tells a process that it is the one.
const ALONE: &str = "DIRECTOR_TEST_ALONE";

/// Whether this process runs this test alone. If not, one is started that does, with this environment, and must succeed.
pub(crate) fn alone(test: &str, environment: &[(&str, &str)]) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
    let said = said.concat();
    assert!(output.status.success(), "{said}");
    // A name that is wrong runs none, and succeeds.
    assert!(said.contains("1 passed"), "{test}: {said}");
    false
}
