//! From a path or a text to the resolved configuration.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use heartbeat::config::{KEY_EXPECTED, place_of};

use super::error::{ConfigError, Mistake, Mistakes, Place};
use super::model::Config;
use super::sync::load_sync_keys;
use super::{limits, resolve, yaml};
use crate::files::open_regular;

/// Loads a configuration file, or what comes through a pipe.
///
/// # Errors
/// The file or a key that it names cannot be read, or is too large, or its text is wrong: then with every mistake's line and column.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let (file_name, text) = (path.display().to_string(), read_text(path)?);
    let config = parse(&file_name, &text)?;
    load_keys(&config, &file_name, &text)?;
    Ok(config)
}

/// Loads the configuration of a director that runs, to find it or to know its names. As that does, it takes regular files
/// only: nobody waits for a pipe. The keys that it names are the running director's to read.
///
/// # Errors
/// As [`load`], and where the file is no regular one.
pub fn load_of_running(path: &Path) -> Result<Config, ConfigError> {
    parse(&path.display().to_string(), &read_regular_text(path)?)
}

/// Reads a configuration's text; `file_name` only stands in the errors.
///
/// # Errors
/// The text is wrong: [`ConfigError::Mistakes`].
pub fn parse(file_name: &str, text: &str) -> Result<Config, ConfigError> {
    read_whole(file_name, text).map(|(config, _)| config)
}

/// As [`parse`], with the places of the services.
pub(super) fn read_whole(file_name: &str, text: &str) -> Result<(Config, Vec<Place>), ConfigError> {
    yaml::read(text)
        .map_err(|mistake| vec![mistake])
        .and_then(|file| resolve::resolve(&file))
        .map_err(|mistakes| ConfigError::Mistakes(Mistakes::new(file_name, text, mistakes)))
}

/// Whether the keys that a configuration names can be used.
pub(super) fn load_keys(config: &Config, file_name: &str, text: &str) -> Result<(), ConfigError> {
    let mut mistakes = Vec::new();
    let mut wrong = |section: &str, error: &dyn std::error::Error, file: Option<&Path>| {
        let place = file.map(|file| place_of(file, text, &format!("{section}:")));
        let place = place.map(|heartbeat::config::Place { line, column }| Place { line, column });
        let message = format!("{section}.key: {error}");
        mistakes.push(Mistake::new(
            place.unwrap_or_default(),
            message,
            KEY_EXPECTED,
        ));
    };
    if let Some(heartbeat) = &config.heartbeat
        && let Err(error) = heartbeat::config::load_keys(heartbeat)
    {
        wrong("heartbeat", &error, error.file());
    }
    if let Some(sync) = &config.sync
        && let Err(error) = load_sync_keys(sync)
    {
        wrong("sync", &error, error.file());
    }
    if mistakes.is_empty() {
        return Ok(());
    }
    Err(ConfigError::Mistakes(Mistakes::new(
        file_name, text, mistakes,
    )))
}

/// A file's text. It may be a pipe: somebody checks what a program prints.
fn read_text(path: &Path) -> Result<String, ConfigError> {
    text_of(path, fs::File::open(path))
}

/// A regular file's text, mistakes and all: nothing else can be read again and again, and without waiting.
///
/// # Errors
/// It is no regular file, cannot be read, is too large, or not in UTF-8.
pub fn read_regular_text(path: &Path) -> Result<String, ConfigError> {
    text_of(path, open_regular(path))
}

fn text_of(path: &Path, opened: io::Result<fs::File>) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    // Not the size that the file system tells: that of a pipe is 0.
    let file = opened.map_err(failed)?;
    file.take(limits::FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > limits::FILE_BYTES {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
        });
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()])
            .into_owned();
        let line = valid.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = valid.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        let place = Place { line, column };
        let mistake = Mistake::new(
            place,
            "a byte here is not part of any character in UTF-8",
            "text in UTF-8",
        );
        let file_name = path.display().to_string();
        ConfigError::Mistakes(Mistakes::new(&file_name, &valid, vec![mistake]))
    })
}
