//! What must be found in an answer.

use regex::bytes::Regex;

use super::{Failure, FailureKind};
use crate::config::{Pattern, compile};

/// A pattern that is ready to be looked for.
#[derive(Debug)]
pub(super) struct Wanted {
    /// A text is one too, for the sake of its search.
    regex: Regex,
    shown: String,
}

impl Wanted {
    /// Compiles it. The configuration has done so once before.
    pub(super) fn new(pattern: &Pattern) -> Result<Self, Failure> {
        let (expression, shown) = match pattern {
            Pattern::Text(text) => (regex::escape(text), format!("\"{text}\"")),
            Pattern::Regex(regex) => (regex.clone(), format!("a match of {regex}")),
        };
        let regex = compile(&expression)
            .map_err(|error| Failure::new(FailureKind::Local, error.to_string()))?;
        Ok(Self { regex, shown })
    }

    /// Whether it is in an answer.
    pub(super) fn is_in(&self, answer: &[u8]) -> bool {
        self.regex.is_match(answer)
    }

    /// For people.
    pub(super) fn shown(&self) -> &str {
        &self.shown
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
            (regex("^OK$"), "first\r\nOK\r\nlast", true),
            (text("a.c"), "abc", false),
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
