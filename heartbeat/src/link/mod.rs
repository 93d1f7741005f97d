//! Ways to the other nodes: UDP, VRRP, serial lines.
//!
//! A link never waits: what cannot be sent now is dropped and counted. One that breaks (its interface or device is
//! gone) says so once, and is opened again every second until it works; that is said, too. While an interface is down,
//! sending goes on to fail without being opened anew.

pub mod framing;
mod own;
pub mod packets;
mod serial;
mod udp;
mod vrrp;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use serde::Serialize;

use self::serial::Serial;
use self::udp::Udp;
use self::vrrp::Vrrp;
use crate::config;
use crate::config::LinkKind;
use crate::takeover::Mac;
use crate::wire::vrrp::Envelope;

/// Time between two tries to open a link.
pub const REOPEN: Duration = Duration::from_secs(1);
/// Largest datagram that is received; what is longer is cut, and refused as damaged.
const LARGEST_DATAGRAM: usize = 2048;
/// Most packets looked at on a link in one go, so that a flood on one does not keep the loop from the others.
pub const AT_ONCE: usize = 64;

/// Something heard on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Who sent it, where the link has addresses.
    pub from: Option<IpAddr>,
    /// Where it was sent to; VRRP only, whose checksum covers it.
    pub to: Option<IpAddr>,
    /// What it says.
    pub bytes: Vec<u8>,
}

/// Something happened to a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It works, after it did not.
    Works,
    /// It does not work any more, and why.
    Broken(String),
}

/// Numbers of a link since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Messages sent; on a serial line, handed to it.
    pub sent: u64,
    /// Messages that could not be sent, or waited for the line until a newer one took their place.
    pub unsent: u64,
    /// Messages heard.
    pub heard: u64,
    /// Packets not looked at: VRRP through a router, or not from a peer.
    pub refused: u64,
    /// Packets not looked at: from an address that this node alone has, so that they are its own. Broadcasts come back.
    pub own: u64,
    /// Pieces between frames of a serial line that were no messages.
    pub garbage: u64,
    /// How often it was opened.
    pub opened: u64,
}

/// What came of looking for a packet.
enum Looked {
    /// There is none now.
    Nothing,
    /// It is this node's own, or not for it: counted.
    Skipped,
    Taken(Received),
}

enum Open {
    Udp(Udp),
    Vrrp(Vrrp),
    Serial(Serial),
}

/// A way to the other nodes.
pub struct Link {
    settings: config::Link,
    virtual_ones: Vec<IpAddr>,
    open: Option<Open>,
    /// Number of the interface that it was opened on: one that is made again under its name is another.
    opened_on: Option<u32>,
    reopen: Duration,
    fault: Option<String>,
    /// What was told last.
    told: Option<bool>,
    counters: Counters,
    garbage_before: u64,
    /// The last look left packets unread, perhaps.
    has_more: bool,
}

impl Link {
    /// A link that is opened by the first [`Link::step`]. Adverts are never sent from `virtual_ones`, and what comes from one of
    /// them is another node's.
    #[must_use]
    pub fn new(settings: config::Link, virtual_ones: Vec<IpAddr>) -> Self {
        Self {
            settings,
            virtual_ones,
            open: None,
            opened_on: None,
            reopen: Duration::ZERO,
            fault: None,
            told: None,
            counters: Counters::default(),
            garbage_before: 0,
            has_more: false,
        }
    }

    /// Opens the link if that is due, and goes on with what waits for the line.
    pub fn step(&mut self, now: Duration) -> Option<Event> {
        if self.open.is_none() && self.reopen <= now {
            let index = self.interface().map(if_nametoindex);
            self.opened_on = index.and_then(Result::ok);
            let opened = match &self.settings.kind {
                LinkKind::Udp(settings) => Udp::open(settings, &self.virtual_ones).map(Open::Udp),
                LinkKind::Vrrp(settings) => {
                    Vrrp::open(settings, &self.virtual_ones).map(Open::Vrrp)
                }
                LinkKind::Serial(settings) => Serial::open(settings).map(Open::Serial),
            };
            match opened {
                Ok(open) => {
                    self.open = Some(open);
                    self.fault = None;
                    self.counters.opened += 1;
                }
                Err(error) => self.close(&error, now),
            }
        }
        let pushed = match &mut self.open {
            Some(Open::Serial(serial)) if serial.deadline().is_some_and(|due| due <= now) => {
                serial.push_on(now)
            }
            _ => Ok(()),
        };
        if let Err(error) = pushed {
            self.failed(&error, now);
        }
        self.tell()
    }

    /// When [`Link::step`] is to be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        match &self.open {
            None => Some(self.reopen),
            Some(Open::Serial(serial)) => serial.deadline(),
            Some(Open::Udp(_) | Open::Vrrp(_)) => None,
        }
    }

    /// What to wait for being readable.
    #[must_use]
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        match &self.open {
            None => Vec::new(),
            Some(Open::Udp(udp)) => udp.fds().collect(),
            Some(Open::Vrrp(vrrp)) => vrrp.fds().collect(),
            Some(Open::Serial(serial)) => vec![serial.fd()],
        }
    }

    /// Sends a heartbeat to everybody on the link.
    pub fn send(&mut self, bytes: &[u8], now: Duration) -> Option<Event> {
        let sent = match &mut self.open {
            Some(Open::Udp(udp)) => udp.send(bytes),
            Some(Open::Serial(serial)) => serial.send(bytes, now).map(|is_dropped| {
                self.counters.unsent += u64::from(is_dropped);
            }),
            Some(Open::Vrrp(_)) | None => return None,
        };
        self.count(sent, now)
    }

    /// The ways that an advert of a family goes on this link.
    #[must_use]
    pub fn envelopes(&self, is_ipv6: bool) -> Vec<Envelope> {
        match (&self.open, &self.settings.kind) {
            (Some(Open::Vrrp(vrrp)), LinkKind::Vrrp(settings)) => vrrp.envelopes(settings, is_ipv6),
            _ => Vec::new(),
        }
    }

    /// Sends an advert, with a virtual MAC as the frame's source if it is given one.
    pub fn advertise(
        &mut self,
        envelope: Envelope,
        mac: Option<Mac>,
        advert: &[u8],
        now: Duration,
    ) -> Option<Event> {
        let Some(Open::Vrrp(vrrp)) = &self.open else {
            return None;
        };
        let sent = vrrp.send(envelope, mac, advert);
        self.count(sent, now)
    }

    /// What adverts are sent from.
    #[must_use]
    pub fn sources(&self) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
        match &self.open {
            Some(Open::Vrrp(vrrp)) => vrrp.sources(),
            _ => (None, None),
        }
    }

    /// What was heard, as much as is handled in one go. Never this node's own messages.
    pub fn receive(&mut self, now: Duration) -> (Vec<Received>, Option<Event>) {
        let mut all = Vec::new();
        self.has_more = true;
        for _ in 0..AT_ONCE {
            let looked = match (&mut self.open, &self.settings.kind) {
                (Some(Open::Udp(udp)), _) => udp.receive(&mut self.counters.own),
                (Some(Open::Vrrp(vrrp)), LinkKind::Vrrp(settings)) => {
                    vrrp.receive(settings, &mut self.counters)
                }
                (Some(Open::Serial(serial)), _) => serial
                    .receive()
                    .map(|received| received.map_or(Looked::Nothing, Looked::Taken)),
                _ => Ok(Looked::Nothing),
            };
            match looked {
                Ok(Looked::Taken(received)) => all.push(received),
                Ok(Looked::Skipped) => {}
                Ok(Looked::Nothing) => {
                    self.has_more = false;
                    break;
                }
                Err(error) => {
                    self.has_more = false;
                    self.failed(&error, now);
                    break;
                }
            }
        }
        self.counters.heard += all.len() as u64;
        (all, self.tell())
    }

    /// Whether the last [`Link::receive`] left packets unread, as far as is known: there are more than can be handled in one go.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// An interface came up or went: a link on it that is broken is opened at once. Addresses of it changed, perhaps.
    /// Another one has its name, perhaps, which the sockets of one that only listens would never notice.
    pub fn interface_changed(&mut self, interface: &str, index: u32, now: Duration) {
        if self.interface() != Some(interface) {
            return;
        }
        if self.opened_on.is_some_and(|before| before != index) && self.open.is_some() {
            self.close(&io::Error::other("the interface was made anew"), now);
        }
        self.reopen = self.reopen.min(now);
        let looked = match (&mut self.open, &self.settings.kind) {
            (Some(Open::Vrrp(vrrp)), LinkKind::Vrrp(settings)) => {
                vrrp.readdress(settings, &self.virtual_ones)
            }
            (Some(Open::Udp(udp)), LinkKind::Udp(settings)) => {
                udp.readdress(settings, &self.virtual_ones)
            }
            _ => Ok(()),
        };
        if let Err(error) = looked {
            tracing::debug!(link = self.settings.name, %error, "cannot look which addresses the interface has");
        }
    }

    /// The interface it is on.
    #[must_use]
    pub fn interface(&self) -> Option<&str> {
        match &self.settings.kind {
            LinkKind::Udp(settings) => Some(&settings.interface),
            LinkKind::Vrrp(settings) => Some(&settings.interface),
            LinkKind::Serial(_) => None,
        }
    }

    /// Why it does not work; none: it does.
    #[must_use]
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Its numbers.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let garbage = match &self.open {
            Some(Open::Serial(serial)) => serial.garbage(),
            _ => 0,
        };
        Counters {
            garbage: self.garbage_before + garbage,
            ..self.counters
        }
    }

    fn count(&mut self, sent: io::Result<()>, now: Duration) -> Option<Event> {
        match sent {
            Ok(()) => {
                self.counters.sent += 1;
                self.fault = None;
            }
            Err(error) => {
                self.counters.unsent += 1;
                // A full queue is no fault: the next one may find room.
                if error.kind() != io::ErrorKind::WouldBlock {
                    self.failed(&error, now);
                }
            }
        }
        self.tell()
    }

    fn failed(&mut self, error: &io::Error, now: Duration) {
        if own::is_final(error) {
            self.close(error, now);
        } else {
            self.fault = Some(error.to_string());
        }
    }

    fn close(&mut self, error: &io::Error, now: Duration) {
        self.garbage_before = self.counters().garbage;
        self.open = None;
        self.fault = Some(error.to_string());
        self.reopen = now + REOPEN;
    }

    /// What is to be told of the link's state, once for each change.
    fn tell(&mut self) -> Option<Event> {
        let works = self.fault.is_none() && self.open.is_some();
        if self.told == Some(works) {
            return None;
        }
        self.told = Some(works);
        Some(match &self.fault {
            None => Event::Works,
            Some(fault) => Event::Broken(fault.clone()),
        })
    }
}
