//! How many tests passed, and which there are, from what `cargo test` prints.

use std::fmt;

/// Tests counted over several test programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Ran and were right.
    pub(crate) passed: u64,
    /// Ran and were wrong.
    pub(crate) failed: u64,
    /// Did not run.
    pub(crate) ignored: u64,
    /// Began and found that this machine lacks what they need: name and reason. Their programs count them among the passed.
    pub(crate) left_out: Vec<String>,
}

/// How a test says so, at the beginning of a line (`director_tests::left_out`).
const LEFT_OUT: &str = "LEFT OUT ";

impl Counts {
    /// Ran, were right, and had what they need.
    pub(crate) fn really_passed(&self) -> u64 {
        self.passed.saturating_sub(self.left_out.len() as u64)
    }

    /// Adds what a line says, if it is a test program's last one:
    /// `test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.05s`, or a test's that is
    /// left out.
    pub(crate) fn add_line(&mut self, line: &str) {
        if let Some(test) = line.strip_prefix(LEFT_OUT) {
            self.left_out.push(test.to_owned());
            return;
        }
        let Some((_, numbers)) = line
            .strip_prefix("test result: ")
            .and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in numbers.split("; ") {
            let Some((number, what)) = part.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.really_passed(), self.failed)?;
        let skipped = self.ignored + self.left_out.len() as u64;
        if skipped > 0 {
            write!(f, ", {skipped} skipped")?;
        }
        Ok(())
    }
}

/// The tests in what `cargo test -- --list` prints: `upkeep::tests::races: test` for each, and a count for each program.
pub(crate) fn listed(output: &str) -> Vec<String> {
    let name = |line: &str| line.strip_suffix(": test").map(str::to_owned);
    output.lines().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(output: &str, expected: &str) {
        let mut counts = Counts::default();
        output.lines().for_each(|line| counts.add_line(line));
        assert_eq!(counts.to_string(), expected, "{output}");
    }

    #[test]
    fn counts_are_summed_over_test_programs() {
        const OK: &str = "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.05s";
        const BAD: &str = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 4 filtered out; finished in 1.00s";
        check("", "0 passed, 0 failed");
        check("running 12 tests\ntest a ... ok", "0 passed, 0 failed");
        check(OK, "12 passed, 0 failed, 3 skipped");
        check(BAD, "1 passed, 2 failed");
        check(
            &format!("{OK}\n\n{BAD}\n{OK}"),
            "25 passed, 2 failed, 6 skipped",
        );
        check(
            &format!("test a ... \nLEFT OUT a: no VLAN devices\nok\n{OK}"),
            "11 passed, 0 failed, 4 skipped",
        );
        check("test result: strange", "0 passed, 0 failed");
        check(
            "test result: ok. many passed; few failed",
            "0 passed, 0 failed",
        );
    }

    #[test]
    fn tests_are_listed_by_name() {
        let cases: [(&str, &[&str]); 3] = [
            ("", &[]),
            ("0 tests, 0 benchmarks\n", &[]),
            (
                "a::slow::b: test\n\n1 test, 0 benchmarks\nslow::c: test\nd: benchmark\n",
                &["a::slow::b", "slow::c"],
            ),
        ];
        for (output, expected) in cases {
            assert_eq!(listed(output), expected, "{output:?}");
        }
    }
}
