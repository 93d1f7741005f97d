//! Reading a file again that has changed in one place: of thousands of services only those are read that are new there.
//!
//! What a text means is said by the same reader and the same rules as ever. A shorter text is handed to them: the old one's
//! beginning, the service before the change, what has changed, the service after it, and the end. The services next to the
//! change must come out of that as they were, in the lines where they are expected: then the reader was between two
//! services at both ends of the change, as it was in the old text, and all others are what they were. Where anything is
//! unlike that, a mistake included, the whole text is read.

use std::path::Path;

use super::error::{ConfigError, Place};
use super::load::{load_keys, read_regular_text, read_whole};
use super::model::{Config, VirtualService};
use super::{resolve, yaml};

/// Reads one file again and again.
#[derive(Debug, Default)]
pub struct Reader {
    known: Option<Known>,
}

/// What was read the last time.
#[derive(Debug)]
struct Known {
    text: String,
    /// Where each service's first line begins.
    starts: Vec<usize>,
    services: Vec<VirtualService>,
}

impl Reader {
    /// Loads the configuration file.
    ///
    /// # Errors
    /// As [`super::load()`].
    pub fn load(&mut self, path: &Path) -> Result<Config, ConfigError> {
        let text = read_regular_text(path)?;
        let file_name = path.display().to_string();
        let (config, starts) = self.read(&file_name, &text)?;
        let keys = load_keys(&config, &file_name, &text);
        self.keep(text, starts, &config);
        keys.map(|()| config)
    }

    /// Reads a configuration's text; `file_name` only stands in the errors.
    ///
    /// # Errors
    /// As [`super::parse`].
    pub fn parse(&mut self, file_name: &str, text: String) -> Result<Config, ConfigError> {
        let (config, starts) = self.read(file_name, &text)?;
        self.keep(text, starts, &config);
        Ok(config)
    }

    /// A text's configuration, and where its services begin, if that can be told.
    fn read(
        &self,
        file_name: &str,
        text: &str,
    ) -> Result<(Config, Option<Vec<usize>>), ConfigError> {
        if let Some((config, starts)) = self.known.as_ref().and_then(|known| known.again(text)) {
            return Ok((config, Some(starts)));
        }
        let (config, places) = read_whole(file_name, text)?;
        let starts = starts(text, &places);
        Ok((config, starts))
    }

    /// For the next time.
    fn keep(&mut self, text: String, starts: Option<Vec<usize>>, config: &Config) {
        self.known = starts.map(|starts| Known {
            text,
            starts,
            services: config.services.clone(),
        });
    }
}

impl Known {
    /// The new text's configuration and where its services begin; `None`: the whole must be read.
    fn again(&self, text: &str) -> Option<(Config, Vec<usize>)> {
        let (old, starts) = (self.text.as_str(), self.starts.as_slice());
        let change = Change::between(old, text, starts)?;
        let Change { before, after, .. } = change;
        let changed = text.get(change.from..change.to)?;
        let last = starts.len() - 1;
        if after > last && (has_other_keys(old.get(starts[last]..)?) || has_other_keys(changed)) {
            // Defaults, for one, may stand after the services.
            return None;
        }
        let end_of = |place: usize| starts.get(place + 1).copied().unwrap_or(old.len());
        let whole = |place: usize| old.get(starts[place]..end_of(place));
        let mut short = String::with_capacity(changed.len() + old.len() / 16);
        short.push_str(old.get(..starts[0])?);
        // Services that must come out as they were: lines and places.
        let mut expected = Vec::new();
        let mut add = |short: &mut String, place: usize, part: &str| {
            expected.push((line_at(short, short.len()), place));
            short.push_str(part);
        };
        add(&mut short, before - 1, whole(before - 1)?);
        let changed_at = short.len();
        short.push_str(changed);
        if after <= last {
            add(&mut short, after, whole(after)?);
        }
        if after < last {
            add(&mut short, last, whole(last)?);
        }

        let file = yaml::read(&short).ok()?;
        let (config, places) = resolve::resolve_part(&file).ok()?;
        let read = config.services.len();
        let kept_behind = expected.len() - 1;
        let first_behind = read.checked_sub(kept_behind).filter(|first| *first >= 1)?;
        let kept = [0].into_iter().chain(first_behind..read);
        for (at, (line, place)) in kept.zip(expected) {
            if places.get(at)?.line != line
                || config.services.get(at)? != self.services.get(place)?
            {
                return None;
            }
        }
        let new_places = places.get(1..first_behind)?;
        let shift = |start: usize| start + text.len() - old.len();
        let mut new_starts = starts[..before].to_vec();
        for start in self::starts(&short, new_places)? {
            new_starts.push(change.from + start.checked_sub(changed_at)?);
        }
        new_starts.extend(starts[after..].iter().copied().map(shift));

        let mut services = Vec::with_capacity(new_starts.len());
        services.extend_from_slice(self.services.get(..before)?);
        services.extend(config.services.into_iter().take(first_behind).skip(1));
        services.extend_from_slice(self.services.get(after..)?);
        if services.len() != new_starts.len() || !resolve::are_sound_together(&services) {
            return None;
        }
        Some((Config { services, ..config }, new_starts))
    }
}

/// Where two texts differ, by whole services.
#[derive(Debug)]
struct Change {
    /// So many services at the beginning are the same.
    before: usize,
    /// And those from this one of the old text on.
    after: usize,
    /// What has changed, in the new text.
    from: usize,
    to: usize,
}

impl Change {
    fn between(old: &str, new: &str, starts: &[usize]) -> Option<Self> {
        if has_anchors(old) || has_anchors(new) {
            return None;
        }
        let dash = indent(old.get(*starts.first()?..)?)?;
        let begins_a_service = |place: usize| {
            let start = starts.get(place).copied();
            start.and_then(|start| indent(new.get(start..)?)) == Some(dash)
        };
        let same = |pairs: &mut dyn Iterator<Item = (u8, u8)>| {
            pairs.take_while(|(one, other)| one == other).count()
        };
        let prefix = same(&mut old.bytes().zip(new.bytes()));
        let rest = old.len().min(new.len()) - prefix;
        let suffix = same(&mut old.bytes().rev().zip(new.bytes().rev()).take(rest));
        // A service ends where the next one begins; but for those that lines were added to or a next one was taken from.
        let whole = starts.iter().skip(1).filter(|start| **start <= prefix);
        let before = (1..=whole.count())
            .rev()
            .find(|place| begins_a_service(*place))?;
        let from = *starts.get(before)?;
        let in_new = |start: usize| (start + new.len()).checked_sub(old.len());
        let after = (before..starts.len()).find(|place| {
            let start = starts[*place];
            let begins_a_line = || {
                in_new(start).and_then(|at| new.as_bytes().get(at.checked_sub(1)?)) == Some(&b'\n')
            };
            start >= old.len() - suffix && begins_a_line()
        });
        let after = after.unwrap_or(starts.len());
        let to = match starts.get(after) {
            Some(start) => in_new(*start)?,
            None => new.len(),
        };
        (from <= to).then_some(Self {
            before,
            after,
            from,
            to,
        })
    }
}

/// Whether a text may repeat a part of itself elsewhere: then what stands in one place changes what another one means.
fn has_anchors(text: &str) -> bool {
    let mut before = b'\n';
    text.bytes().any(|byte| {
        let is_one = matches!(byte, b'&' | b'*')
            && matches!(
                before,
                b' ' | b'\t' | b'\n' | b'\r' | b'[' | b'{' | b',' | b':'
            );
        before = byte;
        is_one
    })
}

/// Whether anything but a comment stands at the very beginning of a line.
fn has_other_keys(text: &str) -> bool {
    let mut lines = text.lines();
    lines.any(|line| !line.is_empty() && !line.starts_with([' ', '#']))
}

/// Spaces before the dash of a list's entry; `None`: none begins here.
fn indent(text: &str) -> Option<usize> {
    let rest = text.trim_start_matches(' ');
    rest.starts_with("- ").then_some(text.len() - rest.len())
}

/// Number of the line that a place in a text is in, from 1 on.
fn line_at(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes().iter().take(at);
    1 + bytes.filter(|byte| **byte == b'\n').count()
}

/// Where the lines begin in which services do. `None`: it is not so that each begins a line, with its dash below that of
/// the one before.
fn starts(text: &str, places: &[Place]) -> Option<Vec<usize>> {
    let mut starts = Vec::with_capacity(places.len());
    let mut places = places.iter().peekable();
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let Some(place) = places.peek() else { break };
        if place.line == number + 1 {
            let indent = indent(line)?;
            // Its first key is in the line of its dash, and nothing else is before it.
            let before = line.get(indent + 1..place.column.checked_sub(1)?)?;
            if !before.trim_start_matches(' ').is_empty() {
                return None;
            }
            starts.push(at);
            places.next();
        }
        at += line.len();
    }
    let is_even = |pair: &[usize]| {
        let [one, other] = [pair[0], pair[1]].map(|start| text.get(start..).and_then(indent));
        one == other
    };
    (places.next().is_none() && starts.windows(2).all(is_even)).then_some(starts)
}

#[cfg(test)]
mod tests;
