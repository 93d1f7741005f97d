//! The whole table over a TCP connection: both sides' rules and bytes, without sockets.
//!
//! ```text
//!  server ─► greeting: "DSB", version, nonce (16)
//!  client ─► hello:    length (2), then "DSH", version, key id, node name, incarnation (8), nonce (16), flags (1),
//!                      if it goes on: the server's incarnation (8), cursor (8); signature (16)
//!  server ─► frames:   length (4), then kind (1), counter (8), body, signature (16)
//!      welcome:  node name, incarnation (8), number (8), cursor from which it goes on (8), about so many records (8)
//!      heard:    peers: count (1), each name, incarnation (8), number (8): of whose updates the records that follow may know
//!      records:  number (8), cursor (8), count (2), each as in `entry`
//!      end:      number when it was welcomed (8), records in this connection (8)
//! ```
//!
//! The hello's signature covers both nonces, and the frames' key follows from them: nothing of an earlier conversation can be
//! said again. Numbers are the server's place in its update stream.

use thiserror::Error;

use super::auth::{Key, Keyring};
use super::entry;
use super::header::SIGNATURE;
use super::message::{HeardUpTo, put_heard, read_heard};
use super::reader::{Malformed, Reader, put_node_name};
use crate::entry::{NODE_NAME_BYTES, NodeName, Record};
use crate::machine::limits::{FRAME_BYTES, RECORDS_PER_FRAME};

/// Bytes of a nonce.
pub const NONCE: usize = 16;

const GREETING: [u8; 4] = *b"DSB\x02";
pub(super) const HELLO: [u8; 4] = *b"DSH\x02";
/// Bytes of the longest hello, without its length.
const HELLO_BYTES: usize = 4 + 1 + 1 + NODE_NAME_BYTES + 8 + NONCE + 1 + 16 + SIGNATURE;
const GOES_ON: u8 = 1;

const WELCOME: u8 = 1;
const RECORDS: u8 = 2;
const END: u8 = 3;
const HEARD: u8 = 4;

const _: () = assert!(
    9 + 18 + RECORDS_PER_FRAME * entry::LONGEST_RECORD + SIGNATURE <= FRAME_BYTES,
    "a frame must hold its records whatever their families"
);

/// Where a client goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The start of the server in which the cursor means something.
    pub incarnation: u64,
    /// The place after the last records that arrived.
    pub cursor: u64,
}

/// Why a conversation ended.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// Not this protocol or not this version.
    #[error("the other side does not speak this version of conn-sync's bulk resync")]
    Foreign,
    /// The hello's key is not known.
    #[error("the other side signs with a key that is not known")]
    Key,
    /// The secrets differ, or somebody interferes.
    #[error("the signature is wrong: the secrets differ, or bytes were damaged")]
    Signature,
    /// A frame is longer than allowed.
    #[error("a frame of {0} bytes; expected at most {FRAME_BYTES}")]
    Long(u32),
    /// It cannot be read.
    #[error("a message that cannot be read")]
    Malformed,
    /// Frames are missing or come twice.
    #[error("frame {found} came where {expected} was expected")]
    Order {
        /// It has this number.
        found: u64,
        /// It should have this one.
        expected: u64,
    },
    /// A frame of another kind was expected.
    #[error("a frame out of turn")]
    Turn,
    /// The server is another one, or was started anew.
    #[error("the peer is not the one that was called, or was started anew")]
    Peer,
    /// Records are missing.
    #[error("{found} records came where {expected} were sent")]
    Total {
        /// So many came.
        found: u64,
        /// So many were sent.
        expected: u64,
    },
}

impl From<Malformed> for Error {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// What a client learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The walk begins.
    Welcome {
        /// The last update that the server had sent by then.
        number: u64,
        /// From where it begins: 0 or the cursor that was asked for.
        cursor: u64,
        /// About so many records follow.
        about: u64,
    },
    /// What the server has from other nodes in the records that follow is as new as this.
    Heard(Vec<HeardUpTo>),
    /// Part of the table.
    Records {
        /// The last update that the server had sent when it had read these.
        number: u64,
        /// The place after them.
        cursor: u64,
        /// The records, and whether the server has them from a peer itself.
        records: Vec<(Record, bool)>,
    },
    /// That was all.
    End,
}

/// What comes of bytes that a client was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// To be sent.
    pub send: Vec<u8>,
    /// To be told to the machine, in this order.
    pub events: Vec<Event>,
}

/// A client whose hello was right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Who it is.
    pub node: NodeName,
    /// Which start of it.
    pub incarnation: u64,
    /// Where the walk begins.
    pub cursor: u64,
}

/// Bytes that have arrived and do not yet make a whole message.
#[derive(Clone, Debug, Default)]
struct Inbox {
    bytes: Vec<u8>,
    /// So many of them are done with.
    taken: usize,
}

impl Inbox {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend(bytes);
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// The next so many bytes, if they are here.
    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let end = self.taken.checked_add(length)?;
        let taken = self.bytes.get(self.taken..end)?;
        self.taken = end;
        Some(taken)
    }
}

/// Signs or checks frames of one conversation.
#[derive(Clone, Debug)]
struct Frames {
    key: Key,
    counter: u64,
}

impl Frames {
    fn new(key: &Key, server_nonce: &[u8], client_nonce: &[u8]) -> Self {
        Self {
            key: key.derived(&[b"frames", server_nonce, client_nonce]),
            counter: 0,
        }
    }

    fn seal(&mut self, kind: u8, body: &[u8]) -> Vec<u8> {
        let length = (1 + 8 + body.len() + SIGNATURE) as u32;
        let mut bytes = Vec::with_capacity(4 + length as usize);
        bytes.extend(length.to_be_bytes());
        bytes.push(kind);
        bytes.extend(self.counter.to_be_bytes());
        bytes.extend(body);
        let signature = self.key.sign(&[&bytes]);
        bytes.extend(signature);
        self.counter += 1;
        bytes
    }

    /// The kind and body of a frame, given without its length.
    fn open<'a>(&mut self, frame: &'a [u8]) -> Result<(u8, &'a [u8]), Error> {
        let (signed, signature) = frame
            .split_last_chunk::<SIGNATURE>()
            .ok_or(Error::Malformed)?;
        let length = (frame.len() as u32).to_be_bytes();
        if !self.key.is_right(&[&length, signed], signature) {
            return Err(Error::Signature);
        }
        let mut reader = Reader(signed);
        let (kind, found) = (reader.u8()?, reader.u64()?);
        if found != self.counter {
            return Err(Error::Order {
                found,
                expected: self.counter,
            });
        }
        self.counter += 1;
        Ok((kind, reader.0))
    }
}

/// What a client waits for.
#[derive(Clone, Debug)]
enum Awaits {
    Greeting,
    Welcome(Frames),
    Records(Frames),
    Nothing,
}

/// The side that is filled.
#[derive(Clone, Debug)]
pub struct Client {
    key: Key,
    own: (NodeName, u64),
    server: (NodeName, u64),
    resume: Option<Resume>,
    nonce: [u8; NONCE],
    inbox: Inbox,
    awaits: Awaits,
    number: u64,
    records: u64,
}

impl Client {
    /// For a connection to this server. `nonce` is random.
    #[must_use]
    pub fn new(
        keyring: &Keyring,
        own: (NodeName, u64),
        server: (NodeName, u64),
        resume: Option<Resume>,
        nonce: [u8; NONCE],
    ) -> Self {
        Self {
            key: keyring.active().clone(),
            own,
            server,
            resume,
            nonce,
            inbox: Inbox::default(),
            awaits: Awaits::Greeting,
            number: 0,
            records: 0,
        }
    }

    /// Takes what has arrived.
    ///
    /// # Errors
    /// The connection is of no use any more. Events before the error are lost with it; the cursor is that of the last one told.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Output, Error> {
        self.inbox.push(bytes);
        let mut output = Output::default();
        if matches!(self.awaits, Awaits::Greeting) {
            let Some(greeting) = self.inbox.take(GREETING.len() + NONCE) else {
                return Ok(output);
            };
            let (magic, server_nonce) = greeting.split_at(GREETING.len());
            if magic != GREETING {
                return Err(Error::Foreign);
            }
            let mut nonce = [0; NONCE];
            nonce.copy_from_slice(server_nonce);
            output.send = self.hello(&nonce);
            self.awaits = Awaits::Welcome(Frames::new(&self.key, &nonce, &self.nonce));
        }
        while let Some(length) = self.inbox.rest().first_chunk() {
            let length = u32::from_be_bytes(*length);
            if length as usize > FRAME_BYTES {
                return Err(Error::Long(length));
            }
            let Some(frame) = self.inbox.take(4 + length as usize) else {
                break;
            };
            let frame = frame[4..].to_vec();
            output.events.push(self.frame(&frame)?);
        }
        Ok(output)
    }

    fn hello(&self, server_nonce: &[u8; NONCE]) -> Vec<u8> {
        let mut body = HELLO.to_vec();
        body.push(self.key.id());
        put_node_name(&mut body, &self.own.0);
        body.extend(self.own.1.to_be_bytes());
        body.extend(self.nonce);
        body.push(if self.resume.is_some() { GOES_ON } else { 0 });
        if let Some(resume) = self.resume {
            body.extend(resume.incarnation.to_be_bytes());
            body.extend(resume.cursor.to_be_bytes());
        }
        let signature = self.key.sign(&[server_nonce, &body]);
        body.extend(signature);
        let mut bytes = (body.len() as u16).to_be_bytes().to_vec();
        bytes.extend(body);
        bytes
    }

    fn frame(&mut self, frame: &[u8]) -> Result<Event, Error> {
        let awaits = std::mem::replace(&mut self.awaits, Awaits::Nothing);
        let (mut frames, is_welcomed) = match awaits {
            Awaits::Welcome(frames) => (frames, false),
            Awaits::Records(frames) => (frames, true),
            Awaits::Greeting | Awaits::Nothing => return Err(Error::Turn),
        };
        let (kind, body) = frames.open(frame)?;
        let mut reader = Reader(body);
        let event = match (kind, is_welcomed) {
            (WELCOME, false) => self.read_welcome(&mut reader)?,
            (HEARD, true) => Event::Heard(read_heard(&mut reader)?),
            (RECORDS, true) => {
                let event = read_records(&mut reader)?;
                if let Event::Records { records, .. } = &event {
                    self.records += records.len() as u64;
                }
                event
            }
            (END, true) => {
                let (number, expected) = (reader.u64()?, reader.u64()?);
                if number != self.number {
                    return Err(Error::Malformed);
                }
                if expected != self.records {
                    return Err(Error::Total {
                        found: self.records,
                        expected,
                    });
                }
                reader.end()?;
                return Ok(Event::End);
            }
            _ => return Err(Error::Turn),
        };
        reader.end()?;
        self.awaits = Awaits::Records(frames);
        Ok(event)
    }

    fn read_welcome(&mut self, reader: &mut Reader<'_>) -> Result<Event, Error> {
        let server = (reader.node_name()?, reader.u64()?);
        if server != self.server {
            return Err(Error::Peer);
        }
        let (number, cursor, about) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let asked = self.resume.map_or(0, |resume| resume.cursor);
        if cursor != 0 && cursor != asked {
            return Err(Error::Malformed);
        }
        self.number = number;
        Ok(Event::Welcome {
            number,
            cursor,
            about,
        })
    }
}

fn read_records(reader: &mut Reader<'_>) -> Result<Event, Error> {
    let (number, cursor, count) = (reader.u64()?, reader.u64()?, reader.u16()?.into());
    if count > RECORDS_PER_FRAME {
        return Err(Error::Malformed);
    }
    let records = (0..count)
        .map(|_| entry::read(reader))
        .collect::<Result<_, _>>()?;
    Ok(Event::Records {
        number,
        cursor,
        records,
    })
}

/// The side whose table is sent.
#[derive(Clone, Debug)]
pub struct Server {
    keyring: Keyring,
    own: (NodeName, u64),
    nonce: [u8; NONCE],
    inbox: Inbox,
    /// Once the hello was right.
    frames: Option<Frames>,
    cursor: u64,
    number: u64,
    records: u64,
}

impl Server {
    /// For a connection from some client, and what to send first. `nonce` is random.
    #[must_use]
    pub fn new(keyring: &Keyring, own: (NodeName, u64), nonce: [u8; NONCE]) -> (Self, Vec<u8>) {
        let server = Self {
            keyring: keyring.clone(),
            own,
            nonce,
            inbox: Inbox::default(),
            frames: None,
            cursor: 0,
            number: 0,
            records: 0,
        };
        let greeting = [GREETING.as_slice(), &nonce].concat();
        (server, greeting)
    }

    /// Takes what has arrived; gives the client once its hello is whole and right.
    ///
    /// # Errors
    /// It is no client of ours, or it says more than a hello.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Accepted>, Error> {
        if self.frames.is_some() && !bytes.is_empty() {
            return Err(Error::Turn);
        }
        self.inbox.push(bytes);
        let Some(length) = self.inbox.rest().first_chunk() else {
            return Ok(None);
        };
        let length = u16::from_be_bytes(*length);
        if usize::from(length) > HELLO_BYTES {
            return Err(Error::Long(length.into()));
        }
        let Some(hello) = self.inbox.take(2 + usize::from(length)) else {
            return Ok(None);
        };
        let hello = hello[2..].to_vec();
        if !self.inbox.rest().is_empty() {
            return Err(Error::Turn);
        }
        self.hello(&hello).map(Some)
    }

    fn hello(&mut self, hello: &[u8]) -> Result<Accepted, Error> {
        let (signed, signature) = hello
            .split_last_chunk::<SIGNATURE>()
            .ok_or(Error::Malformed)?;
        let mut reader = Reader(signed);
        if reader.array::<4>()? != HELLO {
            return Err(Error::Foreign);
        }
        let key = self.keyring.key(reader.u8()?).ok_or(Error::Key)?;
        if !key.is_right(&[&self.nonce, signed], signature) {
            return Err(Error::Signature);
        }
        let (node, incarnation) = (reader.node_name()?, reader.u64()?);
        let nonce = reader.array::<NONCE>()?;
        let resume = match reader.u8()? {
            0 => None,
            GOES_ON => Some(Resume {
                incarnation: reader.u64()?,
                cursor: reader.u64()?,
            }),
            _ => return Err(Error::Malformed),
        };
        reader.end()?;
        self.frames = Some(Frames::new(key, &self.nonce, &nonce));
        // A cursor of another start means nothing in these tables.
        let resume = resume.filter(|resume| resume.incarnation == self.own.1);
        self.cursor = resume.map_or(0, |resume| resume.cursor);
        Ok(Accepted {
            node,
            incarnation,
            cursor: self.cursor,
        })
    }

    /// The client's cursor means nothing in the tables that there are now: it gets all of them.
    pub fn begin_anew(&mut self) {
        self.cursor = 0;
    }

    /// The first frame, to be sent before the walk begins. `number`: the last update sent so far; `about`: an estimate of how many
    /// records follow, for people.
    pub fn welcome(&mut self, number: u64, about: u64) -> Vec<u8> {
        self.number = number;
        let mut body = Vec::new();
        put_node_name(&mut body, &self.own.0);
        body.extend(self.own.1.to_be_bytes());
        body.extend(number.to_be_bytes());
        body.extend(self.cursor.to_be_bytes());
        body.extend(about.to_be_bytes());
        self.seal(WELCOME, &body)
    }

    /// How far other nodes were heard when the records that follow were read: at most as many as there can be. It goes before such as have
    /// learned ones among them.
    pub fn heard(&mut self, peers: &[HeardUpTo]) -> Vec<u8> {
        let mut body = Vec::new();
        put_heard(&mut body, peers);
        self.seal(HEARD, &body)
    }

    /// Part of the table: at most [`RECORDS_PER_FRAME`] records, each with whether it was learned from a peer. `number`: the last
    /// update sent once these were read; `cursor`: the place after them.
    pub fn records(&mut self, number: u64, cursor: u64, records: &[(Record, bool)]) -> Vec<u8> {
        let writable = records
            .iter()
            .filter(|(record, _)| record.is_of_one_family())
            .take(RECORDS_PER_FRAME);
        let mut body = Vec::with_capacity(18 + records.len() * 24);
        body.extend(number.to_be_bytes());
        body.extend(cursor.to_be_bytes());
        body.extend([0; 2]);
        let mut count = 0_u16;
        for (record, is_learned) in writable {
            entry::put(&mut body, record, *is_learned);
            count += 1;
        }
        body[16..18].copy_from_slice(&count.to_be_bytes());
        self.records += u64::from(count);
        self.seal(RECORDS, &body)
    }

    /// The last frame.
    pub fn end(&mut self) -> Vec<u8> {
        let body = [self.number.to_be_bytes(), self.records.to_be_bytes()].concat();
        self.seal(END, &body)
    }

    /// Without a hello there is nobody to send anything to.
    pub(super) fn seal(&mut self, kind: u8, body: &[u8]) -> Vec<u8> {
        let frames = self.frames.as_mut();
        frames.map_or_else(Vec::new, |frames| frames.seal(kind, body))
    }
}
