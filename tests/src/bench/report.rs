//! What a run of the benchmark found: the form in which it is kept, and what changed since another one.

use serde::{Deserialize, Serialize};

use super::statistics::{Sifted, Summary};
use super::verdict::{Goal, Verdict};

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where and when.
    pub circumstances: Vec<(String, String)>,
    /// One for each suite.
    pub suites: Vec<Suite>,
}

/// What one suite found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Suite {
    /// Its name.
    pub name: String,
    /// What was measured.
    pub rows: Vec<Row>,
    /// What one should know when reading them.
    pub notes: Vec<String>,
    /// Why it was not measured.
    #[serde(default)]
    pub failure: Option<String>,
}

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The same in every run: by it runs are compared.
    pub name: String,
    /// For people.
    pub what: String,
    /// Unit of the value.
    pub unit: String,
    /// What was measured, floors taken off.
    pub value: Option<Summary>,
    /// What it is compared with; nothing stands for itself.
    pub against: Option<String>,
    /// How many times that it takes.
    pub ratio: Option<Summary>,
    /// What is asked for: of the ratio if there is one to be, else of the value.
    pub goal: Option<Goal>,
    /// Whether that is so; none without a goal.
    pub verdict: Option<Verdict>,
    /// Rounds in which it was measured, those in which the machine was slow among them.
    pub rounds: usize,
    /// Its place in a plot.
    pub point: Option<Point>,
}

/// A point of a plot; the row's value is the other coordinate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The line that it belongs to.
    pub series: String,
    /// How many flows.
    pub flows: u32,
}

/// How a row is to be made of rounds.
#[derive(Clone, Debug)]
pub struct Question {
    /// [`Row::name`].
    pub name: String,
    /// [`Row::what`].
    pub what: String,
    /// [`Row::unit`].
    pub unit: &'static str,
    /// The contender.
    pub contender: usize,
    /// The yardstick, by number and name.
    pub against: Option<(usize, String)>,
    /// [`Row::goal`].
    pub goal: Option<Goal>,
    /// [`Row::point`].
    pub point: Option<Point>,
}

impl Default for Question {
    fn default() -> Self {
        Self {
            name: String::new(),
            what: String::new(),
            unit: "ns",
            contender: 0,
            against: None,
            goal: None,
            point: None,
        }
    }
}

impl Row {
    /// What rounds answer.
    #[must_use]
    pub fn answer(question: &Question, sifted: &Sifted<'_>) -> Self {
        let ratio = question
            .against
            .as_ref()
            .and_then(|(yardstick, _)| Summary::of(&sifted.ratios(question.contender, *yardstick)));
        let value = Summary::of(&sifted.costs(question.contender));
        let verdict = question.goal.map(|goal| match &question.against {
            Some(_) => goal.judge(ratio.as_ref()),
            None => goal.judge_value(value.as_ref()),
        });
        Self {
            name: question.name.clone(),
            what: question.what.clone(),
            unit: question.unit.to_owned(),
            value,
            against: question.against.as_ref().map(|(_, name)| name.clone()),
            verdict,
            ratio,
            goal: question.goal,
            rounds: sifted.rounds(),
            point: question.point.clone(),
        }
    }

    /// Something that is counted rather than measured, and what is asked of it.
    #[must_use]
    pub fn exact(name: &str, what: &str, unit: &str, value: f64, goal: Option<Goal>) -> Self {
        Self {
            name: name.to_owned(),
            what: what.to_owned(),
            unit: unit.to_owned(),
            value: Some(Summary::exact(value)),
            against: None,
            ratio: None,
            verdict: goal.map(|goal| goal.judge_exact(value)),
            goal,
            rounds: 1,
            point: None,
        }
    }

    /// What is judged and compared between runs: the ratio, which a slow machine leaves alone, or of what is compared with
    /// nothing the value.
    #[must_use]
    pub fn judged(&self) -> Option<&Summary> {
        match self.against {
            Some(_) => self.ratio.as_ref(),
            None => self.value.as_ref(),
        }
    }
}

impl Report {
    /// What is said of the run.
    #[must_use]
    pub fn circumstance(&self, what: &str) -> Option<&str> {
        let mut said = self.circumstances.iter();
        said.find(|(name, _)| name == what)
            .map(|(_, value)| value.as_str())
    }

    /// What was not measured, and why.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &str)> {
        let suites = self.suites.iter();
        suites.filter_map(|suite| Some((suite.name.as_str(), suite.failure.as_deref()?)))
    }

    /// All rows, with the names of their suites.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &Row)> {
        self.suites
            .iter()
            .flat_map(|suite| suite.rows.iter().map(|row| (suite.name.as_str(), row)))
    }

    /// How many rows have this verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        let rows = self.rows();
        rows.filter(|(_, row)| row.verdict == Some(verdict)).count()
    }
}

/// What became of a row since another run.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It was not there.
    New,
    /// It is not there any more.
    Gone,
    /// It was measured in one of both runs only.
    Unknown,
    /// The middle halves of both runs touch.
    Same,
    /// It has changed: before, and now.
    From(f64, f64),
}

/// What changed between two runs, row by row. Suites that one of them left out are left out.
#[must_use]
pub fn compare(base: &Report, now: &Report) -> Vec<(String, Change)> {
    let named = |report: &Report| -> Vec<(String, Row)> {
        report
            .rows()
            .map(|(suite, row)| (format!("{suite}/{}", row.name), row.clone()))
            .collect()
    };
    let has = |report: &Report, name: &str| report.suites.iter().any(|suite| suite.name == name);
    let suite_of = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
    let (old, new) = (named(base), named(now));
    let mut changes = Vec::new();
    for (name, row) in &new {
        if !has(base, &suite_of(name)) {
            continue;
        }
        let change = match old.iter().find(|(other, _)| other == name) {
            None => Change::New,
            Some((_, before)) => match (before.judged(), row.judged()) {
                (Some(before), Some(after)) if before.touches(after) => Change::Same,
                (Some(before), Some(after)) => Change::From(before.median, after.median),
                _ => Change::Unknown,
            },
        };
        changes.push((name.clone(), change));
    }
    for (name, _) in old {
        if has(now, &suite_of(&name)) && !new.iter().any(|(other, _)| *other == name) {
            changes.push((name, Change::Gone));
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::statistics::{Cell, Round};

    fn row(name: &str, ratio: Option<(f64, f64)>) -> Row {
        Row {
            against: Some("the yardstick".to_owned()),
            ratio: ratio.map(|(low, high)| Summary {
                median: f64::midpoint(low, high),
                low,
                high,
                samples: 9,
            }),
            value: None,
            ..Row::exact(name, "", "ns", 0.0, None)
        }
    }

    fn report(suite: &str, rows: Vec<Row>) -> Report {
        Report {
            circumstances: vec![],
            suites: vec![Suite {
                name: suite.to_owned(),
                rows,
                ..Suite::default()
            }],
        }
    }

    #[test]
    fn a_row_is_what_rounds_answer() {
        let cell = |cost| Cell {
            before: 10.0,
            cost,
            after: 10.0,
        };
        let rounds: Vec<Round> = vec![vec![cell(20.0), cell(40.0)]; 6];
        let question = Question {
            name: "tun".to_owned(),
            contender: 1,
            against: Some((0, "LRU".to_owned())),
            goal: Some(Goal::AtMost(2.5)),
            ..Question::default()
        };
        let row = Row::answer(&question, &Sifted::new(&rounds));
        assert_eq!(row.value.map(|value| value.median), Some(30.0));
        assert_eq!(row.ratio.map(|ratio| ratio.median), Some(3.0));
        assert_eq!(row.verdict, Some(Verdict::Missed));
        assert_eq!(row.rounds, 6);
        // What is compared with nothing is judged by itself.
        let alone = Question {
            against: None,
            goal: Some(Goal::AtMost(45.0)),
            unit: "ms",
            ..question.clone()
        };
        let row = Row::answer(&alone, &Sifted::new(&rounds));
        assert_eq!(row.verdict, Some(Verdict::Met));
        assert_eq!(row.unit, "ms");
        let nothing = Row::answer(&question, &Sifted::new(&[]));
        assert_eq!(nothing.verdict, Some(Verdict::Undecided));
        let exact = Row::exact("m", "", "bytes", 23.9, Some(Goal::AtMost(24.0)));
        assert_eq!(exact.verdict, Some(Verdict::Met));
    }

    /// A row of a time that is compared with nothing.
    fn time(name: &str, range: Option<(f64, f64)>) -> Row {
        let row = row(name, range);
        Row {
            against: None,
            value: row.ratio,
            ratio: None,
            ..row
        }
    }

    #[test]
    fn times_are_compared_as_ratios_are() {
        // (before, now, what became of it)
        for (before, now, expected) in [
            (Some((90.0, 110.0)), Some((105.0, 130.0)), Change::Same),
            (
                Some((90.0, 110.0)),
                Some((40.0, 60.0)),
                Change::From(100.0, 50.0),
            ),
            (Some((90.0, 110.0)), None, Change::Unknown),
        ] {
            let base = report("failover", vec![time("killed", before)]);
            let after = report("failover", vec![time("killed", now)]);
            let changes = compare(&base, &after);
            assert_eq!(changes, [("failover/killed".to_owned(), expected)]);
        }
        // A suite that failed has no rows, and that is said of each.
        let base = report("failover", vec![time("killed", Some((90.0, 110.0)))]);
        let failed = compare(&base, &report("failover", vec![]));
        assert_eq!(failed, [("failover/killed".to_owned(), Change::Gone)]);
    }

    #[test]
    fn what_changed() {
        let base = report(
            "packet",
            vec![
                row("same", Some((2.0, 2.2))),
                row("faster", Some((2.0, 2.2))),
                row("unmeasured", None),
                row("gone", Some((2.0, 2.2))),
            ],
        );
        let mut now = report(
            "packet",
            vec![
                row("same", Some((2.1, 2.4))),
                row("faster", Some((1.0, 1.2))),
                row("unmeasured", Some((1.0, 1.2))),
                row("new", Some((1.0, 1.2))),
            ],
        );
        let mut other = report("flows", vec![row("only now", None)]);
        now.suites.append(&mut other.suites);
        let changes = compare(&base, &now);
        let expected = [
            ("packet/same", Change::Same),
            ("packet/faster", Change::From(2.1, 1.1)),
            ("packet/unmeasured", Change::Unknown),
            ("packet/new", Change::New),
            ("packet/gone", Change::Gone),
        ];
        let expected = expected.map(|(name, change)| (name.to_owned(), change));
        assert_eq!(changes, expected);
    }

    #[test]
    fn reports_survive_being_written_and_read() {
        let report = report(
            "packet",
            vec![row("a", Some((1.0, 2.0))), {
                Row::exact("b", "b", "bytes", 23.0, Some(Goal::AtMost(24.0)))
            }],
        );
        let text = serde_json::to_string(&report).expect("plain data");
        let read: Report = serde_json::from_str(&text).expect("what was written");
        assert_eq!(read, report);
    }
}
