//! What can be wrong with a configuration, told to people.

use std::fmt;
use std::io;
use std::path::PathBuf;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use thiserror::Error;

use super::limits;

/// Why a configuration was not loaded.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than any sensible configuration.
    #[error(
        "the configuration {} is larger than {} MiB: is this the right file?",
        path.display(),
        limits::FILE_BYTES >> 20
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The text is there but wrong. Every mistake stands there with its place.
    #[error("{0}")]
    Mistakes(Mistakes),
}

impl ConfigError {
    /// The mistakes in the text, in its order; empty when the text was not even read.
    #[must_use]
    pub fn mistakes(&self) -> &[Mistake] {
        match self {
            ConfigError::Mistakes(mistakes) => &mistakes.list,
            ConfigError::Read { .. } | ConfigError::TooLarge { .. } => &[],
        }
    }
}

/// A place in a file. Both count characters or lines from 1; 0 means that the place is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where.
    pub place: Place,
    /// What was found, and what is wrong with it.
    pub message: String,
    /// What was expected instead.
    pub expected: String,
    /// What to do, where there is more to say.
    pub help: Option<String>,
}

impl Mistake {
    /// A mistake without further help.
    pub(super) fn new(
        place: Place,
        message: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self {
            place,
            message: message.into(),
            expected: expected.into(),
            help: None,
        }
    }

    /// The same with advice.
    pub(super) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// All mistakes of one text, with the lines they stand in. Displays each with its line, like a compiler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes {
    file_name: String,
    list: Vec<Mistake>,
    /// For each of the mistakes that are shown: its line.
    lines: Vec<String>,
}

impl Mistakes {
    /// Puts the mistakes in order and keeps the lines of those that will be shown.
    pub(super) fn new(file_name: &str, text: &str, mut list: Vec<Mistake>) -> Self {
        list.sort_by(|a, b| (a.place, &a.message).cmp(&(b.place, &b.message)));
        // A wrong value with an anchor is found again at each of its aliases.
        list.dedup();
        let mut lines = Vec::new();
        let mut rest = text.lines().zip(1..);
        let mut current = ("", 0);
        for mistake in list.iter().take(limits::MISTAKES_SHOWN) {
            while current.1 < mistake.place.line
                && let Some(next) = rest.next()
            {
                current = next;
            }
            // Beyond the last line stands nothing.
            lines.push(if current.1 == mistake.place.line {
                current.0.to_owned()
            } else {
                String::new()
            });
        }
        Self {
            file_name: file_name.to_owned(),
            list,
            lines,
        }
    }

    fn show(&self, f: &mut fmt::Formatter<'_>, mistake: &Mistake, line: &str) -> fmt::Result {
        // A control character in a message would reach the operator's terminal.
        let message = printable(&mistake.message);
        let expected = format!("expected {}", printable(&mistake.expected));
        let (line, marked) = mark(line, mistake.place.column);
        let mut group = Group::with_title(Level::ERROR.primary_title(message)).element(
            Snippet::source(line)
                .path(self.file_name.as_str())
                .line_start(mistake.place.line.max(1))
                .annotation(AnnotationKind::Primary.span(marked).label(expected)),
        );
        if let Some(help) = &mistake.help {
            group = group.element(Level::HELP.message(printable(help)));
        }
        write!(f, "{}", Renderer::plain().render(&[group]))
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (mistake, line)) in self.list.iter().zip(&self.lines).enumerate() {
            if position > 0 {
                f.write_str("\n\n")?;
            }
            self.show(f, mistake, line)?;
        }
        match self.list.len() - self.lines.len() {
            0 => Ok(()),
            more => write!(f, "\n\n... and {more} more mistakes"),
        }
    }
}

/// Longest part of a line that is shown, in characters.
const SHOWN_CHARACTERS: usize = 240;

/// The part of a line around a column (from 1), and in it the bytes of the token that stands there.
fn mark(line: &str, column: usize) -> (String, std::ops::Range<usize>) {
    let before = column.saturating_sub(1);
    let first = if before < SHOWN_CHARACTERS / 2 {
        0
    } else {
        before - SHOWN_CHARACTERS / 4
    };
    let shown: String = line.chars().skip(first).take(SHOWN_CHARACTERS).collect();
    let start: usize = shown.chars().take(before - first).map(char::len_utf8).sum();
    let end = start + token(&shown[start..]).len();
    (shown, start..end)
}

/// The token at the start of a piece of YAML, for marking it and for saying what was found.
pub(super) fn token(text: &str) -> &str {
    let quote = text
        .chars()
        .next()
        .filter(|first| matches!(first, '"' | '\''));
    if let Some(quote) = quote {
        let end = text[1..].find(quote).map_or(text.len(), |end| end + 2);
        return &text[..end];
    }
    let ends = [": ", ":\t", " #", ", ", "}", "]"];
    let end = ends
        .iter()
        .filter_map(|end| text.find(end))
        .min()
        .unwrap_or(text.len());
    let token = text[..end].trim_end();
    token
        .strip_suffix(':')
        .filter(|key| end == text.len() && !key.ends_with(':'))
        .unwrap_or(token)
}

fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            if c.is_control() {
                c.escape_default().collect()
            } else {
                vec![c]
            }
        })
        .collect()
}
