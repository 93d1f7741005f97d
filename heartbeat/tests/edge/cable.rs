//! A serial line without a serial port. The failover tests of directors use this file too.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

/// A null-modem cable: two devices, and what one writes the other reads, until this is dropped.
pub(crate) struct Cable {
    pub(crate) devices: [PathBuf; 2],
    is_over: Arc<AtomicBool>,
    carriers: Vec<JoinHandle<()>>,
}

impl Cable {
    pub(crate) fn new() -> Self {
        let ends = [0, 1].map(|_| nix::pty::openpty(None, None).unwrap());
        let devices = [0, 1].map(|end: usize| nix::unistd::ttyname(&ends[end].slave).unwrap());
        let is_over = Arc::new(AtomicBool::new(false));
        let [one, other] = ends.map(|end| {
            let mut line = tcgetattr(&end.slave).unwrap();
            cfmakeraw(&mut line);
            tcsetattr(&end.slave, SetArg::TCSANOW, &line).unwrap();
            // The slave's descriptor is kept: without it the line hangs up while no node has it open.
            (File::from(end.master), end.slave)
        });
        let carriers = [
            (one.0.try_clone().unwrap(), other.0.try_clone().unwrap()),
            (other.0.try_clone().unwrap(), one.0.try_clone().unwrap()),
        ]
        .map(|(mut from, mut to)| {
            let is_over = Arc::clone(&is_over);
            std::thread::spawn(move || {
                let mut buffer = [0; 1024];
                while !is_over.load(Ordering::Relaxed) {
                    let mut waits = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
                    if poll(&mut waits, PollTimeout::from(50_u16)).unwrap_or(0) > 0 {
                        let length = from.read(&mut buffer).unwrap_or(0);
                        let _ = to.write_all(&buffer[..length]);
                    }
                }
            })
        });
        // Both ends, as long as the carriers live.
        let mut carriers = Vec::from(carriers);
        let over = Arc::clone(&is_over);
        carriers.push(std::thread::spawn(move || {
            let _ends = (one, other);
            while !over.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_millis(50));
            }
        }));
        Self {
            devices,
            is_over,
            carriers,
        }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for carrier in self.carriers.drain(..) {
            let _ = carrier.join();
        }
    }
}
