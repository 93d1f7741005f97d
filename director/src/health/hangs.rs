//! A program for tests whose file takes long to be read, as on a network's file system that does not answer.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};

/// Far longer than anything takes that does not hang.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// Until it is dropped there is such a program.
pub(super) struct Hangs {
    pub(super) path: PathBuf,
    /// Nobody else can open it. The kernel takes it away from who does not give it up within 45 s.
    lease: File,
}

impl Hangs {
    /// `name`: of this test alone. `script`: what it does once it can be read.
    pub(super) fn new(name: &str, script: &str) -> Self {
        let name = format!("director-hangs-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        // SAFETY: it is ignored, which runs nothing of ours. Somebody wants the file: that would end this process.
        unsafe { signal(Signal::SIGIO, SigHandler::SigIgn) }.unwrap();
        let lease = File::open(&path).unwrap();
        let deadline = Instant::now() + LONG;
        // SAFETY: a descriptor that is open, and a number.
        while unsafe { libc::fcntl(lease.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) } != 0 {
            // A process that another test has just begun may still have the file open.
            assert!(Instant::now() < deadline, "{}", io::Error::last_os_error());
            thread::yield_now();
        }
        Self { path, lease }
    }

    /// Its file system answers again.
    pub(super) fn answer(&self) {
        // Closing it is not enough: who waits for the file as a new process has this descriptor, too.
        // SAFETY: a descriptor that is open, and a number.
        let given_up =
            unsafe { libc::fcntl(self.lease.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
        assert_eq!(given_up, 0, "{}", io::Error::last_os_error());
    }
}

impl Drop for Hangs {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}
