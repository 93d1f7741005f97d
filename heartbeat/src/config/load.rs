//! From a path or a text to the resolved configuration, and to the keys that it names.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::libc;
use nix::unistd::geteuid;
use serde_saphyr::{Error, MessageFormatter, UserMessageFormatter};

use super::error::{ConfigError, Mistake, Mistakes, Place};
use super::file::File;
use super::foreign::foreign_alone;
use super::model::{Config, KeyFile};
use super::nearest::nearest;
use super::shape::shape;
use super::value::place;
use super::{limits, resolve};
use crate::wire::auth::{KEY_BYTES, Key, KeyError, Keyring};

/// Loads the configuration file of the program alone, and the keys that it names. `host` is the node's name where none is
/// given.
///
/// # Errors
/// The file cannot be read or is too large, or its text is wrong, or a key of it: then with every mistake's line and column.
pub fn load(path: &Path, host: &str) -> Result<(Config, Keyring), ConfigError> {
    let bytes = read(path, limits::FILE_BYTES)?;
    let file_name = path.display().to_string();
    let text = String::from_utf8(bytes).map_err(|error| {
        let mistake = Mistake {
            place: Place::default(),
            path: String::new(),
            message: format!(
                "the byte at {} is not part of any character in UTF-8",
                error.utf8_error().valid_up_to()
            ),
            expected: "text in UTF-8".to_owned(),
        };
        ConfigError::Mistakes(Mistakes {
            file_name: file_name.clone(),
            list: vec![mistake],
        })
    })?;
    let config = parse(&file_name, &text, host)?;
    let keyring = load_keys(&config).map_err(|error| {
        let place = error.file().map(|path| place_of(path, &text, "key:"));
        ConfigError::Mistakes(Mistakes {
            file_name,
            list: vec![Mistake {
                place: place.unwrap_or_default(),
                path: "key".to_owned(),
                message: error.to_string(),
                expected: KEY_EXPECTED.to_owned(),
            }],
        })
    })?;
    Ok((config, keyring))
}

/// What the file of a key should be.
pub const KEY_EXPECTED: &str =
    "a file with 16 to 1024 bytes, the same on all nodes, that only its owner can read";

/// Where a text names a file: the first place after the section's, else the first at all, but for comments. What the text is
/// read into keeps no places: two configurations that say the same are the same.
#[must_use]
pub fn place_of(path: &Path, text: &str, section: &str) -> Place {
    let path = path.display().to_string();
    let starts = text.lines().position(|line| line.starts_with(section));
    let lines = || (1..).zip(text.lines());
    let at = |(line, text): (usize, &str)| {
        let code = text.find(" #").map_or(text, |comment| &text[..comment]);
        let before = &code[..code.find(&path)?];
        (!before.starts_with('#')).then(|| Place {
            line,
            column: before.chars().count() + 1,
        })
    };
    let behind = lines().skip(starts.unwrap_or(0)).find_map(at);
    behind.or_else(|| lines().find_map(at)).unwrap_or_default()
}

/// Reads a configuration's text; `file_name` only stands in the errors.
///
/// # Errors
/// The text is wrong: [`ConfigError::Mistakes`].
pub fn parse(file_name: &str, text: &str, host: &str) -> Result<Config, ConfigError> {
    let resolved = yaml(text)
        .map_err(|mistake| vec![mistake])
        .and_then(|file| resolve::resolve(&file, host));
    resolved.map_err(|list| {
        ConfigError::Mistakes(Mistakes {
            file_name: file_name.to_owned(),
            list,
        })
    })
}

fn yaml(text: &str) -> Result<File, Mistake> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: limits::YAML_EVENTS,
            max_nodes: limits::YAML_EVENTS,
            max_depth: limits::YAML_DEPTH,
            flow_nesting_limit: limits::YAML_DEPTH,
            max_documents: 2,
        },
        // A key without a value is told in the words of that value.
        null_as_string: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let error = error.without_snippet();
        let place = error
            .location()
            .map(|location| place(&location))
            .unwrap_or_default();
        let (message, expected) = match error {
            Error::SerdeUnknownField {
                field, expected, ..
            } => {
                let near = || {
                    let near = nearest(field, expected.iter().copied())?;
                    Some(format!("did you mean \"{near}\"?"))
                };
                let meant = foreign_alone(field).or_else(near);
                let meant = meant.map_or_else(String::new, |meant| format!(" ({meant})"));
                (
                    format!("unknown key \"{field}\"{meant}"),
                    format!("one of the keys {}", expected.join(", ")),
                )
            }
            Error::Unexpected { expected, .. } => mismatch(text, place, expected),
            Error::SerdeInvalidType { expected, .. }
            | Error::SerdeInvalidValue { expected, .. } => mismatch(text, place, expected),
            other => (
                UserMessageFormatter.format_message(other).into_owned(),
                "a configuration in YAML, as in the documentation".to_owned(),
            ),
        };
        Mistake {
            place,
            path: String::new(),
            message,
            expected,
        }
    })
}

/// What was found and expected, where that is of different shapes.
fn mismatch(text: &str, place: Place, expected: &str) -> (String, String) {
    let found = single_value(text, place);
    let message = found.map_or_else(
        || "what stands here has another shape".to_owned(),
        |found| format!("found \"{found}\""),
    );
    (message, shape(expected, found))
}

/// The single value that stands at a place; none if something else does.
fn single_value(text: &str, place: Place) -> Option<&str> {
    let line = text.lines().nth(place.line.checked_sub(1)?)?;
    let (start, _) = line.char_indices().nth(place.column.checked_sub(1)?)?;
    let rest = &line[start..];
    let ends = [", ", " #", "}", "]"].into_iter();
    let end = ends.filter_map(|end| rest.find(end)).min();
    let value = rest[..end.unwrap_or(rest.len())].trim_end();
    let is_other = value.starts_with(['[', '{', '-', '&', '*', '!', '|', '>'])
        || value.contains(": ")
        || value.ends_with(':');
    (!is_other && !value.is_empty()).then_some(value)
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    read_opened(fs::File::open(path).map_err(failed)?, path, limit)
}

fn read_opened(file: fs::File, path: &Path, limit: u64) -> Result<Vec<u8>, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    // Not the size that the file system tells: that of a pipe is 0.
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

/// Reads the keys that a configuration names: the bytes of their files, without white space at the end.
///
/// # Errors
/// A file cannot be read, can be read by others than its owner, or holds no key.
pub fn load_keys(config: &Config) -> Result<Keyring, ConfigError> {
    let Some(files) = &config.keys else {
        return Ok(Keyring::without_secret());
    };
    let active = load_key(&files.active)?;
    let accept = files
        .accept
        .iter()
        .map(load_key)
        .collect::<Result<Vec<_>, _>>()?;
    Keyring::new(active, accept).map_err(|source| ConfigError::Key {
        path: files.active.file.clone(),
        source,
    })
}

fn load_key(KeyFile { id, file }: &KeyFile) -> Result<Key, ConfigError> {
    let secret = read_secret(file)?;
    Key::new(*id, &secret).map_err(|source| ConfigError::Key {
        path: file.clone(),
        source,
    })
}

/// Reads a key's file: its bytes, without white space at the end.
///
/// # Errors
/// It cannot be read, is no regular file, belongs to another user, or can be read by others than its owner.
pub fn read_secret(file: &Path) -> Result<Vec<u8>, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: file.to_owned(),
        source,
    };
    // A pipe that nobody writes to would be waited for.
    let opened = fs::File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(file)
        .map_err(failed)?;
    let found = opened.metadata().map_err(failed)?;
    let owner = found.uid();
    if !found.is_file() {
        return Err(failed(io::Error::other("it is no regular file")));
    }
    if owner != 0 && owner != geteuid().as_raw() {
        return Err(failed(io::Error::other(format!(
            "it belongs to the user with the number {owner}, who can change it; expected: to root, or to the user who runs this"
        ))));
    }
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(ConfigError::KeyOpen {
            path: file.to_owned(),
            mode,
        });
    }
    // Room for the end of the line.
    let longest = *KEY_BYTES.end() as u64 + 2;
    if found.len() > longest {
        let found = usize::try_from(found.len()).unwrap_or(usize::MAX);
        return Err(ConfigError::Key {
            path: file.to_owned(),
            source: KeyError::Length { found },
        });
    }
    let bytes = read_opened(opened, file, longest)?;
    Ok(bytes.trim_ascii_end().to_vec())
}
