//! The benchmark by command: what `cargo xtask bench` hands over to.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, thread};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use director_tests::bench::report::{Report, Suite, compare};
use director_tests::bench::suites::{self, Named};
use director_tests::bench::{Options, plot, render};

#[derive(Parser)]
#[command(
    name = "cargo xtask bench",
    bin_name = "cargo xtask bench",
    about = "What packets cost, and all else that takes time, beside others in the same run, against the goals",
    after_help = after_help()
)]
struct Cli {
    /// Which suites; all without any
    #[arg(value_name = "SUITE", value_parser = suite_names(), hide_possible_values = true)]
    suites: Vec<String>,
    /// Fewer rounds and flows: what is grossly wrong shows
    #[arg(long)]
    quick: bool,
    /// Up to 4 M flows: 2 GB of memory and minutes more
    #[arg(long)]
    many: bool,
    /// Print the report as JSON and nothing else
    #[arg(long)]
    json: bool,
    /// Say what changed since a report of an earlier run
    #[arg(long, value_name = "BASE.json")]
    compare: Option<PathBuf>,
    /// Where report.json, report.md and plots go
    #[arg(long, value_name = "DIRECTORY", default_value = "target/bench")]
    out: PathBuf,
}

/// With the suites, which stand nowhere else in the help.
fn after_help() -> String {
    let suites: String = suites::ALL
        .iter()
        .map(|suite| format!("  {:<12}  {}\n", suite.name, suite.about))
        .collect();
    format!("Suites:\n{suites}{AFTER_SUITES}")
}

const AFTER_SUITES: &str = "
Examples:
  cargo xtask bench                              everything: a table, a report, a plot
  cargo xtask bench packet --quick               one suite, seconds
  cargo xtask bench --compare before.json        also what changed since that report
  cargo xtask bench packet --json > after.json   the report on standard output

Contenders run interleaved, a floor between any two. What was measured while the machine was slow \
does not count, and where too little is left, or lies too far apart, there is no verdict.

Exit codes: 0 done, whatever the verdict; 1 something failed; 2 wrong usage.";

fn suite_names() -> clap::builder::PossibleValuesParser {
    suites::ALL
        .iter()
        .map(|suite| suite.name)
        .collect::<Vec<_>>()
        .into()
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    // Read first: a wrong name should not cost minutes.
    let base = cli.compare.as_deref().map(read).transpose()?;
    let options = Options {
        quick: cli.quick,
        many: cli.many,
    };
    let mut report = Report {
        circumstances: circumstances(options),
        suites: Vec::new(),
    };
    if let (Some(base), Some(file)) = (&base, &cli.compare) {
        let (then, now) = (base.circumstance(EXTENT), report.circumstance(EXTENT));
        ensure!(
            then == now,
            "{} is of a run that was {}, and this one is {}: they measure other numbers of flows. Compare with one of the same extent",
            file.display(),
            then.unwrap_or("of unknown extent"),
            now.unwrap_or("of unknown extent")
        );
    }
    for suite in wanted(&cli.suites) {
        eprintln!("==> {}: {}", suite.name, suite.about);
        let done = measured(suite, options).unwrap_or_else(|error| {
            eprintln!("error: suite {}: {error:#}", suite.name);
            Suite {
                name: suite.name.to_owned(),
                failure: Some(format!("{error:#}")),
                ..Suite::default()
            }
        });
        report.suites.push(done);
        // After each: what was found is not lost if this is interrupted.
        write(&cli.out, &report)?;
    }
    if cli.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", render::table(&report));
        println!("Written: {}/report.json, report.md", cli.out.display());
    }
    if let Some(base) = base {
        let changes = render::changes(&compare(&base, &report));
        // Where the report itself goes to standard output, nothing else may.
        eprint!(
            "Since {}:\n{changes}",
            cli.compare.as_deref().unwrap_or(Path::new("")).display()
        );
    }
    let failed: Vec<_> = report.failures().map(|(suite, _)| suite).collect();
    ensure!(
        failed.is_empty(),
        "not measured: {}; the others were",
        failed.join(", ")
    );
    Ok(())
}

/// Runs a suite, on a thread of its own: some go into a namespace of their own, and to one CPU.
fn measured(suite: &Named, options: Options) -> Result<Suite> {
    let done = thread::scope(|scope| scope.spawn(|| (suite.run)(&options)).join());
    done.map_err(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
        anyhow!(said.unwrap_or_else(|| "it panicked".to_owned()))
    })?
}

fn wanted(names: &[String]) -> impl Iterator<Item = &'static Named> {
    suites::ALL
        .iter()
        .filter(move |suite| names.is_empty() || names.iter().any(|name| name == suite.name))
}

fn read(file: &Path) -> Result<Report> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| {
        format!(
            "{} is no report of this benchmark (a report.json that it wrote is expected)",
            file.display()
        )
    })
}

/// The plot, where a suite has points.
const PLOT: (&str, &str) = ("Cost of a packet by number of flows", "flows.svg");

/// Writes the report in both forms, and the plot.
fn write(directory: &Path, report: &Report) -> Result<()> {
    let put = |name: &str, text: &str| {
        let file = directory.join(name);
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
    };
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    let (title, file) = PLOT;
    let drawn = plot::svg(title, &render::series(report));
    if let Some(svg) = &drawn {
        put(file, svg)?;
    }
    put(
        "report.json",
        &(serde_json::to_string_pretty(report)? + "\n"),
    )?;
    put(
        "report.md",
        &render::markdown(report, drawn.is_some().then_some(PLOT)),
    )
}

/// Which circumstance tells quick runs from full ones.
const EXTENT: &str = "extent";

/// What one needs to know to read the figures.
fn circumstances(options: Options) -> Vec<(String, String)> {
    let line = |file: &str, prefix: &str| {
        let text = fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(prefix))?;
        let value = line.split_once(':').map_or(line, |(_, value)| value);
        Some(value.trim().to_owned())
    };
    let unknown = || "unknown".to_owned();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    [
        (
            "kernel",
            line("/proc/sys/kernel/osrelease", "").unwrap_or_else(unknown),
        ),
        (
            "processor",
            line("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
        ),
        (
            "processors",
            thread::available_parallelism().map_or_else(|_| unknown(), |count| count.to_string()),
        ),
        (
            "load when it began",
            line("/proc/loadavg", "").unwrap_or_else(unknown),
        ),
        ("seconds since 1970", now.to_string()),
        (
            EXTENT,
            if options.quick { "quick" } else { "full" }.to_owned(),
        ),
    ]
    .map(|(what, value)| (what.to_owned(), value))
    .into()
}
