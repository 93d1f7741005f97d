//! A report as text: a table for a terminal, the same in Markdown, and what changed.

use std::fmt::Write as _;

use super::plot;
use super::report::{Change, Report, Row};
use super::statistics::Summary;
use super::verdict::Verdict;

/// Columns of the table.
const HEAD: [&str; 7] = [
    "what", "measured", "spread", "ratio", "goal", "verdict", "counted",
];

/// A row's cells.
fn cells(row: &Row) -> [String; HEAD.len()] {
    let none = || "-".to_owned();
    let number = |summary: &Summary| match summary.median.abs() {
        large if large >= 1000.0 => format!("{:.0}", summary.median),
        _ => format!("{:.1}", summary.median),
    };
    let judged = row.judged();
    [
        row.what.clone(),
        row.value
            .as_ref()
            .map_or_else(none, |value| format!("{} {}", number(value), row.unit)),
        judged.map_or_else(none, |judged| format!("{:.0} %", judged.spread() * 100.0)),
        match (&row.ratio, &row.against) {
            (Some(ratio), Some(against)) => format!("{:.2} × {against}", ratio.median),
            _ => none(),
        },
        row.goal.map_or_else(none, |goal| goal.to_string()),
        row.verdict.map_or_else(none, |verdict| verdict.to_string()),
        format!(
            "{}/{}",
            judged.map_or(0, |judged| judged.samples),
            row.rounds
        ),
    ]
}

/// A row in one line, while the suite goes on.
#[must_use]
pub fn line(row: &Row) -> String {
    cells(row).join("  ")
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// For a terminal.
#[must_use]
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    for suite in &report.suites {
        let rows: Vec<_> = suite.rows.iter().map(cells).collect();
        let mut widths = HEAD.map(width);
        for row in &rows {
            for (widest, cell) in widths.iter_mut().zip(row) {
                *widest = (*widest).max(width(cell));
            }
        }
        let line = |cells: &[String]| {
            let mut line = String::new();
            for (index, (cell, wanted)) in cells.iter().zip(widths).enumerate() {
                let gap = " ".repeat(wanted - width(cell));
                // Words to the left, numbers to the right.
                match index {
                    0 | 3 | 5 => _ = write!(line, "{cell}{gap}  "),
                    _ => _ = write!(line, "{gap}{cell}  "),
                }
            }
            line.trim_end().to_owned()
        };
        let _ = writeln!(text, "{}", suite.name);
        if !rows.is_empty() {
            let _ = writeln!(text, "  {}", line(&HEAD.map(str::to_owned)));
        }
        for row in &rows {
            let _ = writeln!(text, "  {}", line(row));
        }
        for note in &suite.notes {
            let _ = writeln!(text, "  {note}");
        }
        if let Some(why) = &suite.failure {
            let _ = writeln!(text, "  FAILED: {why}");
        }
        text.push('\n');
    }
    text + &conclusion(report)
}

/// How many goals are met, and which are not.
fn conclusion(report: &Report) -> String {
    let mut text = format!(
        "Goals: {} met, {} missed, {} undecided.\n",
        report.count(Verdict::Met),
        report.count(Verdict::Missed),
        report.count(Verdict::Undecided)
    );
    for (suite, why) in report.failures() {
        let _ = writeln!(
            text,
            "  not measured, and none of its goals: {suite}: {why}"
        );
    }
    let rounds: usize = report.rows().map(|(_, row)| row.rounds).sum();
    let counted = report.rows().filter_map(|(_, row)| row.judged());
    let discarded = rounds.saturating_sub(counted.map(|judged| judged.samples).sum());
    let _ = writeln!(
        text,
        "Rounds of all rows: {rounds}, of which {discarded} were discarded: the machine was slow."
    );
    for (suite, row) in report.rows() {
        let (Some(Verdict::Missed | Verdict::Undecided), Some(verdict), Some(goal)) =
            (row.verdict, row.verdict, row.goal)
        else {
            continue;
        };
        let _ = match row.judged() {
            Some(measured) => writeln!(
                text,
                "  {verdict}: {suite}/{}: {:.2}{} (of half of the rounds {:.2} to {:.2}), goal {goal}",
                row.name,
                measured.median,
                // A ratio has none.
                match row.against {
                    Some(_) => String::new(),
                    None => format!(" {}", row.unit),
                },
                measured.low,
                measured.high
            ),
            None => writeln!(
                text,
                "  {verdict}: {suite}/{}: in no round the machine was quiet enough; goal {goal}",
                row.name
            ),
        };
    }
    text
}

/// In Markdown, with the plot that stands beside it, if there is one: its title and file.
#[must_use]
pub fn markdown(report: &Report, plot: Option<(&str, &str)>) -> String {
    let mut text = "# Benchmark\n\n".to_owned();
    for (what, value) in &report.circumstances {
        let _ = writeln!(text, "* {what}: {value}");
    }
    for suite in &report.suites {
        let _ = writeln!(text, "\n## {}\n", suite.name);
        let _ = writeln!(text, "| {} |", HEAD.join(" | "));
        let _ = writeln!(text, "|{}", "---|".repeat(HEAD.len()));
        for row in &suite.rows {
            let _ = writeln!(text, "| {} |", cells(row).join(" | "));
        }
        for note in &suite.notes {
            let _ = writeln!(text, "\n{note}");
        }
    }
    if let Some((title, file)) = plot {
        let _ = writeln!(text, "\n## {title}\n\n![{title}]({file})");
    }
    let _ = writeln!(text, "\n## Verdict\n\n```text\n{}```", conclusion(report));
    text
}

/// What changed since another run.
#[must_use]
pub fn changes(changes: &[(String, Change)]) -> String {
    let mut text = String::new();
    let mut same = 0;
    for (name, change) in changes {
        let _ = match change {
            Change::Same => {
                same += 1;
                continue;
            }
            Change::New => writeln!(text, "  {name}: new"),
            Change::Gone => writeln!(text, "  {name}: not measured any more"),
            Change::Unknown => writeln!(text, "  {name}: measured in one of both runs only"),
            Change::From(before, after) => writeln!(
                text,
                "  {name}: {before:.2} → {after:.2} ({:+.0} %)",
                (after / before - 1.0) * 100.0
            ),
        };
    }
    let _ = writeln!(text, "  the same: {same} of {}", changes.len());
    text
}

/// Lines of all suites for a plot: name of the series, and its points by the number of flows.
#[must_use]
pub fn series(report: &Report) -> Vec<plot::Line> {
    let mut all: Vec<plot::Line> = Vec::new();
    for (_, row) in report.rows() {
        let (Some(point), Some(value)) = (&row.point, &row.value) else {
            continue;
        };
        let at = (f64::from(point.flows), value.median);
        match all.iter_mut().find(|(name, _)| *name == point.series) {
            Some((_, points)) => points.push(at),
            None => all.push((point.series.clone(), vec![at])),
        }
    }
    for (_, points) in &mut all {
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::{Point, Suite};
    use crate::bench::verdict::Goal;

    fn report() -> Report {
        let measured = Row {
            value: Some(Summary {
                median: 40.0,
                low: 39.0,
                high: 41.0,
                samples: 9,
            }),
            against: Some("LRU 16".to_owned()),
            ratio: Some(Summary {
                median: 3.2,
                low: 3.1,
                high: 3.3,
                samples: 9,
            }),
            goal: Some(Goal::AtMost(2.5)),
            verdict: Some(Verdict::Missed),
            rounds: 12,
            point: Some(Point {
                series: "TUN".to_owned(),
                flows: 16_000,
            }),
            ..Row::exact("tun", "IPv4 TCP, TUN", "ns", 0.0, None)
        };
        Report {
            circumstances: vec![("kernel".to_owned(), "6.18".to_owned())],
            suites: vec![Suite {
                name: "packet".to_owned(),
                rows: vec![
                    measured,
                    Row {
                        value: None,
                        verdict: Some(Verdict::Undecided),
                        ..Row::exact("u", "nothing", "ns", 0.0, Some(Goal::AtMost(1.0)))
                    },
                    Row::exact("m", "memory", "bytes", 23.9, Some(Goal::AtMost(24.0))),
                    Row::exact("t", "time", "ms", 61.0, Some(Goal::AtMost(50.0))),
                ],
                notes: vec!["a note".to_owned()],
                failure: None,
            }],
        }
    }

    #[test]
    fn a_table() {
        let expected = "\
packet
  what             measured  spread  ratio           goal  verdict    counted
  IPv4 TCP, TUN     40.0 ns     6 %  3.20 × LRU 16  ≤ 2.5  MISSED        9/12
  nothing                 -       -  -                ≤ 1  undecided      0/1
  memory         23.9 bytes     0 %  -               ≤ 24  met            1/1
  time              61.0 ms     0 %  -               ≤ 50  MISSED         1/1
  a note

Goals: 1 met, 2 missed, 1 undecided.
Rounds of all rows: 15, of which 4 were discarded: the machine was slow.
  MISSED: packet/tun: 3.20 (of half of the rounds 3.10 to 3.30), goal ≤ 2.5
  undecided: packet/u: in no round the machine was quiet enough; goal ≤ 1
  MISSED: packet/t: 61.00 ms (of half of the rounds 61.00 to 61.00), goal ≤ 50
";
        assert_eq!(table(&report()), expected);
    }

    #[test]
    fn what_failed_is_in_the_verdict() {
        let mut report = report();
        report.suites.push(Suite {
            name: "live".to_owned(),
            failure: Some("frames are lost".to_owned()),
            ..Suite::default()
        });
        let expected = "\
Goals: 1 met, 2 missed, 1 undecided.
  not measured, and none of its goals: live: frames are lost
";
        assert!(conclusion(&report).starts_with(expected));
        assert!(table(&report).contains("\nlive\n  FAILED: frames are lost\n"));
    }

    #[test]
    fn markdown_has_every_row_and_the_plot() {
        let text = markdown(&report(), Some(("By flows", "flows.svg")));
        for expected in [
            "* kernel: 6.18\n",
            "| IPv4 TCP, TUN | 40.0 ns | 6 % | 3.20 × LRU 16 | ≤ 2.5 | MISSED | 9/12 |\n",
            "\n## By flows\n\n![By flows](flows.svg)\n",
            "Goals: 1 met, 2 missed, 1 undecided.\n",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }

    #[test]
    fn changes_are_told() {
        let told = changes(&[
            ("p/a".to_owned(), Change::Same),
            ("p/b".to_owned(), Change::From(2.0, 1.0)),
            ("p/c".to_owned(), Change::Gone),
        ]);
        let expected =
            "  p/b: 2.00 → 1.00 (-50 %)\n  p/c: not measured any more\n  the same: 1 of 3\n";
        assert_eq!(told, expected);
    }

    #[test]
    fn points_become_lines() {
        let mut report = report();
        let mut more = report.suites[0].rows[0].clone();
        more.point = Some(Point {
            series: "TUN".to_owned(),
            flows: 1,
        });
        report.suites.push(Suite {
            name: "another one, of the same line".to_owned(),
            rows: vec![more],
            ..Suite::default()
        });
        let expected = vec![("TUN".to_owned(), vec![(1.0, 40.0), (16_000.0, 40.0)])];
        assert_eq!(series(&report), expected);
    }
}
