//! Noticing that the configuration file has changed.
//!
//! By looking at it now and then, not by events of the file system: files are replaced, linked and mounted over, and a look a
//! few times in a second costs nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What tells one state of a file from another: device, file, length, and when it was last written, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(u64, u64, u64, i64, i64);

impl Stamp {
    /// Of a file as it is now. `None`: it is not there, or cannot be looked at.
    pub(super) fn of(file: &Path) -> Option<Self> {
        let facts = fs::metadata(file).ok()?;
        Some(Self(
            facts.dev(),
            facts.ino(),
            facts.size(),
            facts.mtime(),
            facts.mtime_nsec(),
        ))
    }
}

/// Looks at one file.
#[derive(Debug, Default)]
pub(super) struct Watch {
    loaded: Option<Stamp>,
    seen: Option<Stamp>,
}

impl Watch {
    /// The file was loaded, or tried to be, in this state.
    pub(super) fn loaded(&mut self, stamp: Option<Stamp>) {
        self.loaded = stamp;
        self.seen = stamp;
    }

    /// Whether to load it: it has changed, and stays as it is since the last look, so that nobody is writing it right now.
    pub(super) fn look(&mut self, stamp: Option<Stamp>) -> bool {
        let is_still = self.seen == stamp;
        self.seen = stamp;
        is_still && stamp.is_some() && stamp != self.loaded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_stays_is_one() {
        let stamp = |number| Some(Stamp(0, 0, number, 0, 0));
        // (what is looked at, whether to load it); what is to be loaded is.
        let looks = [
            (stamp(1), false),
            (stamp(2), false),
            (stamp(3), false),
            (stamp(3), true),
            (stamp(3), false),
            // Replaced by way of no file at all.
            (None, false),
            (None, false),
            (stamp(4), false),
            (stamp(4), true),
            // There and back.
            (stamp(5), false),
            (stamp(4), false),
            (stamp(4), false),
        ];
        let mut watch = Watch::default();
        watch.loaded(stamp(1));
        for (number, (look, expected)) in looks.into_iter().enumerate() {
            assert_eq!(watch.look(look), expected, "look {number}");
            if expected {
                watch.loaded(look);
            }
        }
    }
}
