//! What can be wrong with a configuration, told to people.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::limits;

/// Why a configuration was not loaded.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than any sensible configuration.
    #[error("{} is larger than {} bytes: is this the right file?", path.display(), limits::FILE_BYTES)]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The text is there but wrong.
    #[error("{0}")]
    Mistakes(Mistakes),
    /// A key's file does not hold a key.
    #[error("the key in {}: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: crate::wire::auth::KeyError,
    },
    /// Others may read a key's file.
    #[error("the key's file {} can be read by others (mode {mode:o}); expected: by its owner only, as after chmod 600", path.display())]
    KeyOpen {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

impl ConfigError {
    /// The file that it is about, where that is one that a configuration names.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Read { path, .. }
            | Self::TooLarge { path }
            | Self::Key { path, .. }
            | Self::KeyOpen { path, .. } => Some(path),
            Self::Mistakes(_) => None,
        }
    }
}

/// A place in a file. Both count from 1; 0 means that the place is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where in the file.
    pub place: Place,
    /// Where in the configuration, like `groups[0].priority.lb2`; empty where the text could not be read so far.
    pub path: String,
    /// What was found, and what is wrong with it.
    pub message: String,
    /// What was expected instead.
    pub expected: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line, column } = self.place;
        if line > 0 {
            write!(f, "{line}:{column}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        // A control character would reach the operator's terminal.
        let printable = |text: &str| {
            text.escape_debug()
                .to_string()
                .replace("\\\"", "\"")
                .replace("\\'", "'")
        };
        write!(
            f,
            "{}; expected {}",
            printable(&self.message),
            printable(&self.expected)
        )
    }
}

/// All mistakes of one text, a line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes {
    /// Stands before each.
    pub file_name: String,
    /// In the order of their places.
    pub list: Vec<Mistake>,
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, mistake) in self.list.iter().enumerate() {
            let end = if number == 0 { "" } else { "\n" };
            // Without a place it is a mistake of the whole file.
            let gap = if mistake.place.line > 0 { "" } else { " " };
            write!(f, "{end}{}:{gap}{mistake}", self.file_name)?;
        }
        Ok(())
    }
}
