//! Whether this node is fit, from results of checks. Without I/O.

use serde::Serialize;

use crate::config::{Lowers, Rhythm};

/// One thing that is looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What it is, for operators: `carrier of eth0`.
    pub name: String,
    /// What its failure does.
    pub lowers: Lowers,
    /// Whether it is good; none: nobody knows yet.
    pub is_good: Option<bool>,
    /// Why it failed when it did last.
    pub why: Option<String>,
    #[serde(skip)]
    rise: u8,
    #[serde(skip)]
    fall: u8,
    /// Results in a row that speak against the state.
    #[serde(skip)]
    against: u8,
}

impl Check {
    /// A check whose single results count: interfaces.
    #[must_use]
    pub fn at_once(name: String, lowers: Lowers) -> Self {
        Self {
            name,
            lowers,
            is_good: None,
            why: None,
            rise: 1,
            fall: 1,
            against: 0,
        }
    }

    /// A check that is done again and again.
    #[must_use]
    pub fn repeated(name: String, lowers: Lowers, rhythm: Rhythm) -> Self {
        Self {
            rise: rhythm.rise,
            fall: rhythm.fall,
            ..Self::at_once(name, lowers)
        }
    }

    /// Takes in a result; whether the state has changed. The first one counts by itself, whatever `rise` and `fall` are.
    pub fn take(&mut self, result: Result<(), String>) -> bool {
        let is_good = result.is_ok();
        if self.is_good == Some(is_good) {
            self.against = 0;
            self.why = result.err();
            return false;
        }
        self.against = self.against.saturating_add(1);
        let needed = match self.is_good {
            None => 1,
            Some(true) => self.fall,
            Some(false) => self.rise,
        };
        if self.against < needed {
            return false;
        }
        self.against = 0;
        self.is_good = Some(is_good);
        self.why = result.err();
        true
    }
}

/// Whether a node is fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// All priorities are lowered by so much.
    pub lowers: u16,
    /// Why it cannot serve at all; none: it can.
    pub unfit: Option<String>,
}

/// What all checks together say. What nobody has looked at yet counts as failed: a node that has just started has time.
#[must_use]
pub fn verdict(checks: &[Check]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut reasons = Vec::new();
    for check in checks.iter().filter(|check| check.is_good != Some(true)) {
        match check.lowers {
            Some(lowers) => verdict.lowers += u16::from(lowers),
            None => {
                let why = match (&check.why, check.is_good) {
                    (Some(why), _) => why.as_str(),
                    (None, Some(_)) => "failed",
                    (None, None) => "not looked at yet",
                };
                reasons.push(format!("{}: {why}", check.name));
            }
        }
    }
    if !reasons.is_empty() {
        verdict.unfit = Some(reasons.join("; "));
    }
    verdict
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn check(rise: u8, fall: u8, lowers: Lowers) -> Check {
        let rhythm = Rhythm {
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            fall,
            rise,
        };
        Check::repeated("ping".to_owned(), lowers, rhythm)
    }

    #[test]
    fn rise_and_fall() {
        // (rise, fall, results, state after each)
        let rows = [
            (2, 3, "++-", "+++"),
            (2, 3, "+---", "+++-"),
            (2, 3, "+--+--", "++++++"),
            (2, 3, "+--+---", "++++++-"),
            (2, 3, "-+-++", "----+"),
            (3, 1, "+-+++-", "+---+-"),
            (1, 1, "-+-+", "-+-+"),
        ];
        for (rise, fall, results, expected) in rows {
            let mut check = check(rise, fall, None);
            let mut states = String::new();
            for result in results.chars() {
                let before = check.is_good;
                let changed = check.take(if result == '+' {
                    Ok(())
                } else {
                    Err("silent".to_owned())
                });
                assert_eq!(changed, before != check.is_good);
                states.push(if check.is_good == Some(true) {
                    '+'
                } else {
                    '-'
                });
            }
            assert_eq!(states, expected, "{rise} {fall} {results}");
        }
    }

    #[test]
    fn verdicts() {
        // Of each check: what its failure does, and its result, if there is one.
        type Row<'a> = (&'a [(Lowers, Option<bool>)], u16, Option<&'a str>);
        let rows: [Row<'_>; 7] = [
            (&[], 0, None),
            (&[(None, Some(true)), (Some(60), Some(true))], 0, None),
            (&[(Some(60), Some(false)), (Some(50), None)], 110, None),
            (&[(Some(255), Some(false)); 3], 765, None),
            (&[(None, Some(false))], 0, Some("ping: silent")),
            (&[(None, None)], 0, Some("ping: not looked at yet")),
            (
                &[
                    (None, Some(false)),
                    (Some(9), Some(false)),
                    (None, Some(false)),
                ],
                9,
                Some("ping: silent; ping: silent"),
            ),
        ];
        for (checks, lowers, unfit) in rows {
            let checks: Vec<Check> = checks
                .iter()
                .map(|(lowers, result)| {
                    let mut check = check(2, 2, *lowers);
                    if let Some(is_good) = result {
                        check.take(if *is_good {
                            Ok(())
                        } else {
                            Err("silent".to_owned())
                        });
                    }
                    check
                })
                .collect();
            let expected = Verdict {
                lowers,
                unfit: unfit.map(str::to_owned),
            };
            assert_eq!(verdict(&checks), expected);
        }
    }
}
