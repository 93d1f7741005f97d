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
    missed: bool,
}

/// What to do about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing.
    Leave,
    /// Load it.
    Load,
    /// Say that it is gone: the director would not start again.
    Missing,
}

impl Watch {
    /// The file was loaded, or tried to be, in this state.
    pub(super) fn loaded(&mut self, stamp: Option<Stamp>) {
        self.loaded = stamp;
        self.seen = stamp;
    }

    /// To load it, where it has changed and stays as it is since the last look, so that nobody is writing it right now. That
    /// it is not there, at two looks, is told once.
    pub(super) fn look(&mut self, stamp: Option<Stamp>) -> Look {
        let is_still = self.seen == stamp;
        self.seen = stamp;
        let was_missed = self.missed;
        self.missed = stamp.is_none() && (is_still || was_missed);
        match stamp {
            None if self.missed && !was_missed => Look::Missing,
            Some(_) if is_still && stamp != self.loaded => Look::Load,
            _ => Look::Leave,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_stays_is_one() {
        let stamp = |number| Some(Stamp(0, 0, number, 0, 0));
        use Look::{Leave, Load, Missing};
        // (what is looked at, what to do); what is to be loaded is.
        let looks = [
            (stamp(1), Leave),
            (stamp(2), Leave),
            (stamp(3), Leave),
            (stamp(3), Load),
            (stamp(3), Leave),
            // Replaced by way of no file at all.
            (None, Leave),
            (None, Missing),
            (None, Leave),
            (stamp(4), Leave),
            (stamp(4), Load),
            // There and back.
            (stamp(5), Leave),
            (stamp(4), Leave),
            (stamp(4), Leave),
        ];
        let mut watch = Watch::default();
        watch.loaded(stamp(1));
        for (number, (look, expected)) in looks.into_iter().enumerate() {
            assert_eq!(watch.look(look), expected, "look {number}");
            if expected == Load {
                watch.loaded(look);
            }
        }
    }
}
