//! Noticing that the configuration file has changed.
//!
//! By looking at it now and then, not by events of the file system: files are replaced, linked and mounted over, and a look a
//! few times in a second costs nothing. A thread beside the loop looks: on a network's file system that does not answer it
//! waits, and nothing else does.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

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
    /// What the thread that looks now will find.
    looking: Option<oneshot::Receiver<Option<Stamp>>>,
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

    /// The file could not be loaded in time, in whatever state: not again before it changes.
    pub(super) fn gave_up(&mut self) {
        self.loaded = self.seen;
    }

    /// The state that a thread has found since the last call, if it is done; then another one begins to look, and never more
    /// than one at a time.
    pub(super) fn found(&mut self, file: &Path) -> Option<Option<Stamp>> {
        let found = match self.looking.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Err(oneshot::error::TryRecvError::Empty)) => return None,
            Some(Ok(stamp)) => Some(stamp),
            // The first call, or it broke.
            Some(Err(oneshot::error::TryRecvError::Closed)) | None => None,
        };
        let (tell, looking) = oneshot::channel();
        self.looking = Some(looking);
        let file = file.to_owned();
        spawn_blocking(move || {
            // Nobody listens where the director ends.
            let _ = tell.send(Stamp::of(&file));
        });
        found
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
    /// One that could not be loaded in time is not tried again and again.
    #[test]
    fn a_file_that_hangs_is_not_loaded_again_before_it_changes() {
        let stamp = |number| Some(Stamp(0, 0, number, 0, 0));
        let mut watch = Watch::default();
        watch.loaded(stamp(1));
        // (what is looked at, what to do)
        let looks = [
            (2, Look::Leave),
            (2, Look::Load),
            (2, Look::Leave),
            (3, Look::Leave),
            (3, Look::Load),
        ];
        for (number, expected) in looks {
            assert_eq!(watch.look(stamp(number)), expected);
            if expected == Look::Load {
                watch.gave_up();
            }
        }
    }

    /// The loop asks and never waits; what it is told is from after its question before.
    #[tokio::test]
    async fn a_thread_looks_and_the_loop_goes_on() {
        let file = std::env::temp_dir().join(format!("director-watch-{}", std::process::id()));
        let mut watch = Watch::default();
        assert_eq!(watch.found(&file), None, "nobody has looked yet");
        for text in [None, Some("one"), Some("other one")] {
            if let Some(text) = text {
                fs::write(&file, text).unwrap();
            }
            let mut founds = Vec::new();
            // The first of them may have been under way when the file was written.
            while founds.len() < 2 {
                founds.extend(watch.found(&file));
                tokio::task::yield_now().await;
            }
            assert_eq!(founds[1], Stamp::of(&file), "{text:?}");
        }
        fs::remove_file(&file).unwrap();
    }
}
