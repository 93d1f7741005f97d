//! Reading the YAML's text into its structs, and the YAML reader's errors into mistakes.
//!
//! The only file that knows which YAML crate is used, besides the places in `value`.

use heartbeat::config::{foreign, shape};
use serde_saphyr::{Error, MessageFormatter, UserMessageFormatter};

use super::error::{Mistake, Place, token};
use super::file::File;
use super::limits;
use super::value::{nearest, place};

/// Reads one YAML document. What a YAML reader refuses, it refuses at its first place.
pub(super) fn read(text: &str) -> Result<File, Mistake> {
    read_within(text, limits::YAML_EVENTS)
}

/// As [`read`], of at most so many events, those included that aliases repeat.
pub(super) fn read_within(text: &str, events: usize) -> Result<File, Mistake> {
    if text.len() as u64 > limits::FILE_BYTES {
        let message = format!("the text is {} bytes long", text.len());
        return Err(Mistake::new(
            Place::default(),
            message,
            format!("at most {} MiB", limits::FILE_BYTES >> 20),
        ));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: events,
            max_nodes: events,
            max_depth: limits::YAML_DEPTH,
            flow_nesting_limit: limits::YAML_DEPTH,
            max_documents: 2,
            // One list of real servers may well stand in a thousand services.
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: events,
            max_replay_stack_depth: limits::YAML_DEPTH,
        },
        // A key without a value is told in the words of that value.
        null_as_string: true,
        // Snippets are ours, the same for all mistakes.
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| translate(text, &error))
}

fn translate(text: &str, error: &Error) -> Mistake {
    let error = error.without_snippet();
    if let Error::AliasError { error, .. } = error {
        return translate(text, error);
    }
    let place = error
        .location()
        .map(|location| place(&location))
        .unwrap_or_default();
    match error {
        Error::SerdeUnknownField {
            field, expected, ..
        } => {
            let mistake = Mistake::new(
                place,
                format!("unknown key \"{field}\""),
                format!("one of the keys {}", expected.join(", ")),
            );
            let near = || {
                let near = nearest(field, expected.iter().copied())?;
                Some(format!("did you mean \"{near}\"?"))
            };
            match foreign(field).or_else(near) {
                Some(help) => mistake.with_help(help),
                None => mistake,
            }
        }
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or("");
            Mistake::new(
                place,
                format!("the key \"{key}\" stands here a second time"),
                "every key once",
            )
        }
        Error::Unexpected { expected, .. } => mismatch(text, place, expected),
        Error::SerdeInvalidType { expected, .. } | Error::SerdeInvalidValue { expected, .. } => {
            mismatch(text, place, expected)
        }
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => Mistake::new(
            place,
            format!("too much: {}", UserMessageFormatter.format_message(error)),
            "a configuration that is not nested as deeply, or is shorter",
        ),
        Error::MultipleDocuments { .. } => Mistake::new(
            place,
            "a second YAML document begins here",
            "one document in the file",
        ),
        Error::Eof { .. } => {
            Mistake::new(place, "the text ends here", "the rest of the configuration")
        }
        Error::UnknownAnchor { .. } => Mistake::new(
            place,
            "this alias has no anchor",
            "a name that was given with \"&\" before",
        ),
        other => {
            let message = format!(
                "this cannot be read as YAML: {}",
                UserMessageFormatter.format_message(other)
            );
            let mistake = Mistake::new(place, message, "valid YAML");
            let line = text.lines().nth(place.line.saturating_sub(1)).unwrap_or("");
            let indentation = &line[..line.len() - line.trim_start().len()];
            if indentation.contains('\t') {
                return mistake
                    .with_help("YAML is indented with spaces; this line begins with a tab");
            }
            mistake
        }
    }
}

/// Something of another shape than expected: the reader's words for shapes in ours.
fn mismatch(text: &str, place: Place, expected: &str) -> Mistake {
    let (found, bracket) = found(text, place);
    let value = found.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    let expected = shape(expected, value);
    let mistake = Mistake::new(place, format!("found {found}"), expected.as_str());
    if bracket && expected.contains("single value") {
        return mistake
            .with_help("an IPv6 address in brackets must be quoted, like \"[2001:db8::10]\"");
    }
    mistake
}

/// What stands at a place, for people; and whether it is a bracket before an IPv6 address.
fn found(text: &str, place: Place) -> (String, bool) {
    let line = text.lines().nth(place.line.saturating_sub(1)).unwrap_or("");
    let start = line
        .char_indices()
        .nth(place.column.saturating_sub(1))
        .map_or(line.len(), |(start, _)| start);
    let rest = &line[start..];
    let token = token(rest);
    let after = &rest[token.len()..];
    if rest.starts_with('[') {
        return ("a list".to_owned(), token.contains("::"));
    }
    let found = if rest.starts_with('{') || (after.starts_with(':') && !token.is_empty()) {
        "a mapping of keys and values".to_owned()
    } else if rest.starts_with("- ") || rest == "-" {
        "a list".to_owned()
    } else if token.is_empty() || rest.starts_with(':') {
        "nothing".to_owned()
    } else {
        format!("\"{}\"", token.trim_matches(['"', '\'']))
    };
    (found, false)
}
