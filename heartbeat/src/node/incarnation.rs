//! The number of a node's start, by which the others tell what it says now from what it said before, and from what somebody
//! recorded: greater than at any start before, though the time of day may have been set back meanwhile.
//!
//! It is the time of day, or where that is not enough one more than the last one, which stands in a file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::clock;

/// The year 10000, in milliseconds since 1970: a number from then on was not written by a node.
const END_OF_TIME: u64 = 253_402_300_800_000;
/// Longer than any number in the file.
const FILE_BYTES: u64 = 32;

/// The number of this start, which is written to the file for the next one. A file that cannot be read or written is told in
/// the log and keeps nobody from starting: then the time of day alone decides.
#[must_use]
pub fn next(path: &Path) -> u64 {
    let last = read(path).unwrap_or_else(|error| {
        tracing::error!(
            "the number of this node's last start cannot be read from {}: {error}; if the clock was set back since, the \
             others take this node's messages for old ones until it has caught up",
            path.display()
        );
        None
    });
    let number = after(last, clock::milliseconds());
    if let Err(error) = write(path, number) {
        tracing::error!(
            "the number of this start cannot be written to {}: {error}; the next start needs a clock that was not set back",
            path.display()
        );
    }
    number
}

/// The rule. Never 0, which stands for a node that was never heard of.
fn after(last: Option<u64>, now: u64) -> u64 {
    last.map_or(1, |last| last + 1).max(now)
}

/// A file that is not there is that of a first start.
fn read(path: &Path) -> io::Result<Option<u64>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let text = io::read_to_string(io::Read::take(file, FILE_BYTES))?;
    let number: Option<u64> = text.trim_end().parse().ok();
    let is_sound = |number: &u64| *number < END_OF_TIME;
    number.filter(is_sound).map(Some).ok_or_else(|| {
        let what = format!("it holds {text:?} instead of a number of milliseconds since 1970");
        io::Error::new(io::ErrorKind::InvalidData, what)
    })
}

/// Whole or not at all.
fn write(path: &Path, number: u64) -> io::Result<()> {
    let beside = path.with_extension("incarnation.new");
    // What a start that was cut short left. A new file, never one that somebody put or linked there for us to overwrite.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    writeln!(file, "{number}")?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back() {
        // The last one, the time of day, and this one.
        let cases = [
            (None, 0, 1),
            (None, 1_800_000_000_000, 1_800_000_000_000),
            (
                Some(1_800_000_000_000),
                1_800_000_060_000,
                1_800_000_060_000,
            ),
            // Twice in a millisecond; set back; not set at all.
            (
                Some(1_800_000_000_000),
                1_800_000_000_000,
                1_800_000_000_001,
            ),
            (
                Some(1_800_000_000_000),
                1_700_000_000_000,
                1_800_000_000_001,
            ),
            (Some(1_800_000_000_000), 0, 1_800_000_000_001),
        ];
        for (last, now, expected) in cases {
            assert_eq!(after(last, now), expected, "{last:?} at {now}");
        }
    }

    /// What the file holds, and whether the next number is one more than that or the time of day.
    #[test]
    fn whatever_the_file_holds_there_is_a_number() {
        let directory = std::env::temp_dir().join(format!("incarnation-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("main.incarnation");
        let in_2200 = 7_258_118_400_000;
        let cases: [(Option<&[u8]>, bool); 8] = [
            (None, false),
            (Some(b"7258118400000\n"), true),
            (Some(b"7258118400000"), true),
            (Some(b""), false),
            (Some(b"-1\n"), false),
            (Some(b"\xff\xfe\n"), false),
            (Some(b"18446744073709551615\n"), false),
            (Some(&[b'1'; 1000]), false),
        ];
        for (held, is_followed) in cases {
            match held {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => assert!(!path.exists()),
            }
            let numbers = [next(&path), next(&path)];
            assert_eq!(
                numbers[0] == in_2200 + 1,
                is_followed,
                "{held:?}: {numbers:?}"
            );
            assert!(numbers[0] < numbers[1], "{held:?}: {numbers:?}");
        }
        // Nor does it matter that nothing can be read or written.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(next(&path) > 1_700_000_000_000);
        assert!(next(&directory.join("nowhere/main.incarnation")) > 1_700_000_000_000);
        fs::remove_dir_all(&directory).unwrap();
    }
}
