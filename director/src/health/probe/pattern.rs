//! What must be found in an answer.

use regex::bytes::Regex;

use super::{Failure, FailureKind};
use crate::config::Pattern;

/// A pattern that is ready to be looked for.
#[derive(Debug)]
pub(super) enum Wanted {
    Text(Vec<u8>),
    Regex(Box<Regex>),
}

impl Wanted {
    /// Compiles it. The configuration has done so once before.
    pub(super) fn new(pattern: &Pattern) -> Result<Self, Failure> {
        match pattern {
            Pattern::Text(text) => Ok(Self::Text(text.clone().into_bytes())),
            Pattern::Regex(regex) => Regex::new(regex)
                .map(|regex| Self::Regex(Box::new(regex)))
                .map_err(|error| Failure::new(FailureKind::Local, error.to_string())),
        }
    }

    /// Whether it is in an answer.
    pub(super) fn is_in(&self, answer: &[u8]) -> bool {
        match self {
            Self::Text(text) => answer
                .windows(text.len().max(1))
                .any(|window| window == text.as_slice()),
            Self::Regex(regex) => regex.is_match(answer),
        }
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Text(text) => format!("\"{}\"", String::from_utf8_lossy(text)),
            Self::Regex(regex) => format!("a match of {regex}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let text = |text: &str| Pattern::Text(text.to_owned());
        let regex = |text: &str| Pattern::Regex(text.to_owned());
        let cases = [
            (text("Hello"), "say Hello World", true),
            (text("Hello"), "Hell", false),
            (text("Hello"), "", false),
            (regex("^OK [0-9]+$"), "OK 12", true),
            (regex("^OK [0-9]+$"), "NOT OK 12", false),
            (regex("(?i)hello"), "HELLO", true),
        ];
        for (pattern, answer, expected) in cases {
            let wanted = Wanted::new(&pattern).unwrap();
            assert_eq!(
                wanted.is_in(answer.as_bytes()),
                expected,
                "{pattern:?} {answer}"
            );
        }
        let broken = Wanted::new(&regex("(")).unwrap_err();
        assert_eq!(broken.kind, FailureKind::Local);
    }
}
