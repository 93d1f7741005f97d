//! Signatures, and which datagrams are refused.

use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;
use thiserror::Error;

use super::header::{Header, SIGNATURE};
use super::message::Message;
use super::reader::{Malformed, Reader};

/// Shortest and longest key, in bytes.
pub const KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=1024;
/// Most keys that are accepted.
pub const KEYS: usize = 8;
/// The longest datagram that is looked at.
pub const LONGEST: usize = 9000;

/// Without a configured key datagrams are signed with this one: against damage, not against people. Its id is 0.
const NO_KEY: &[u8] = b"no key is configured";

/// A secret that all nodes share.
#[derive(Clone)]
pub struct Key {
    id: u8,
    /// Keyed already, to be cloned for each message.
    state: Hmac<Sha256>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The secret must not get into a log.
        f.debug_struct("Key")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What is wrong with a key.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    /// Its id is 0.
    #[error("the key's id is 0, which stands for no key; expected 1 to 255")]
    Id,
    /// It is too short or too long.
    #[error("the key has {found} bytes; expected {} to {}", KEY_BYTES.start(), KEY_BYTES.end())]
    Length {
        /// So many.
        found: usize,
    },
    /// Two have the same id.
    #[error("two keys have the id {0}; expected every id once")]
    Twice(u8),
    /// There are too many.
    #[error("{0} keys; expected at most {KEYS}")]
    TooMany(usize),
}

impl Key {
    /// A key of these bytes.
    ///
    /// # Errors
    /// The id is 0 or the length is not in [`KEY_BYTES`].
    pub fn new(id: u8, secret: &[u8]) -> Result<Self, KeyError> {
        if id == 0 {
            return Err(KeyError::Id);
        }
        if !KEY_BYTES.contains(&secret.len()) {
            return Err(KeyError::Length {
                found: secret.len(),
            });
        }
        Ok(Self::keyed(id, secret))
    }

    fn keyed(id: u8, secret: &[u8]) -> Self {
        // An HMAC key can have any length (RFC 2104 section 2), so that this has no error to report.
        let state = Hmac::new_from_slice(secret).unwrap_or_else(|_| Hmac::new(&Default::default()));
        Self { id, state }
    }

    /// Its number in messages.
    pub(super) fn id(&self) -> u8 {
        self.id
    }

    /// The key of one conversation, which follows from what both sides said in it.
    pub(super) fn derived(&self, parts: &[&[u8]]) -> Self {
        let mut state = self.state.clone();
        for part in parts {
            state.update(part);
        }
        Self::keyed(self.id, &state.finalize().into_bytes())
    }

    pub(super) fn sign(&self, parts: &[&[u8]]) -> [u8; SIGNATURE] {
        let mut state = self.state.clone();
        for part in parts {
            state.update(part);
        }
        let whole = state.finalize().into_bytes();
        let mut signature = [0; SIGNATURE];
        signature.copy_from_slice(&whole[..SIGNATURE]);
        signature
    }

    pub(super) fn is_right(&self, parts: &[&[u8]], signature: &[u8]) -> bool {
        let mut state = self.state.clone();
        for part in parts {
            state.update(part);
        }
        // In constant time. A shorter one would be compared in its own length.
        signature.len() == SIGNATURE && state.verify_truncated_left(signature).is_ok()
    }
}

/// The key to sign with, and all that are accepted.
#[derive(Clone, Debug)]
pub struct Keyring {
    /// The first one signs.
    keys: Vec<Key>,
}

impl Keyring {
    /// Whether both have the same secrets under the same numbers, and sign with the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let marks = |keyring: &Self| -> Vec<_> {
            let keys = keyring.keys.iter();
            keys.map(|key| (key.id, key.sign(&[b"the same?"])))
                .collect()
        };
        marks(self) == marks(other)
    }

    /// Without secrets: messages are protected from damage only.
    #[must_use]
    pub fn without_secret() -> Self {
        Self {
            keys: vec![Key::keyed(0, NO_KEY)],
        }
    }

    /// Signs with `active`, accepts the others too. A message without secret is then not accepted.
    ///
    /// # Errors
    /// Two have the same id, or they are too many.
    pub fn new(active: Key, accept: impl IntoIterator<Item = Key>) -> Result<Self, KeyError> {
        let mut keys = vec![active];
        for key in accept {
            if keys.iter().any(|other| other.id == key.id) {
                return Err(KeyError::Twice(key.id));
            }
            keys.push(key);
        }
        if keys.len() > KEYS {
            return Err(KeyError::TooMany(keys.len()));
        }
        Ok(Self { keys })
    }

    /// The key that signs.
    pub(super) fn active(&self) -> &Key {
        &self.keys[0]
    }

    /// The key with this id.
    pub(super) fn key(&self, id: u8) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// The bytes of a datagram.
    #[must_use]
    pub fn seal(&self, header: &Header, message: &Message) -> Vec<u8> {
        let active = self.active();
        let mut bytes = Vec::with_capacity(1472);
        header.put(&mut bytes, message.kind(), active.id);
        message.put(&mut bytes);
        let signature = active.sign(&[&bytes]);
        bytes.extend(signature);
        bytes
    }

    /// What is in these bytes.
    ///
    /// # Errors
    /// It is not one of ours, or damaged, or signed with no key that is known.
    pub fn open(&self, bytes: &[u8]) -> Result<(Header, Message), Reject> {
        if bytes.len() > LONGEST {
            return Err(Reject::Long);
        }
        let id = Header::key_id(bytes)?;
        let (signed, signature) = bytes.split_last_chunk::<SIGNATURE>().ok_or(Reject::Short)?;
        let key = self.key(id).ok_or(Reject::Key)?;
        if !key.is_right(&[signed], signature) {
            return Err(Reject::Signature);
        }
        read(signed)
    }
}

/// Reads what stands before the signature, which was found to be right.
pub(super) fn read(signed: &[u8]) -> Result<(Header, Message), Reject> {
    let mut reader = Reader(signed);
    let (header, kind) = Header::read(&mut reader)?;
    let message = Message::read(kind, reader)?;
    Ok((header, message))
}

/// Why a datagram was not taken.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reject {
    /// It is shorter than any.
    #[error("too short for conn-sync")]
    Short,
    /// It is longer than any.
    #[error("too long for conn-sync")]
    Long,
    /// It is something else.
    #[error("not conn-sync")]
    Foreign,
    /// Another version.
    #[error("conn-sync in another version")]
    Version,
    /// The signature is right but what it signs makes no sense.
    #[error("a datagram that cannot be read")]
    Malformed,
    /// Signed with a key that is not known.
    #[error("signed with a key that is not known")]
    Key,
    /// The signature is wrong: damaged, forged, or the secrets differ.
    #[error("the signature is wrong")]
    Signature,
    /// This node's own, which came back.
    #[error("this node's own")]
    Own,
    /// From another machine that has this node's name.
    #[error("from another machine with this node's name")]
    SameName,
    /// Peers are listed, and this address is not among them.
    #[error("from an address that is not among the listed peers")]
    Unlisted,
    /// There are as many peers as can be told apart.
    #[error("from one peer too many")]
    Peers,
    /// It was heard already.
    #[error("heard before")]
    Replayed,
    /// The node has been started anew since.
    #[error("of an older start than the one that is known")]
    Old,
    /// The node has sent so many more since that it cannot be told whether this one was heard.
    #[error("too late to be told from what was heard")]
    Late,
}

impl Reject {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Short,
        Self::Long,
        Self::Foreign,
        Self::Version,
        Self::Malformed,
        Self::Key,
        Self::Signature,
        Self::Own,
        Self::SameName,
        Self::Unlisted,
        Self::Peers,
        Self::Replayed,
        Self::Old,
        Self::Late,
    ];
}

impl From<Malformed> for Reject {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Which of the last datagrams of one start of one node were heard.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Window {
    newest: u64,
    /// Bit n: `newest` - n was heard.
    heard: u128,
}

impl Window {
    /// So many datagrams may overtake one.
    pub(crate) const SIZE: u64 = 128;

    /// Notes a sequence.
    ///
    /// # Errors
    /// It was heard before or cannot be told from those.
    pub(crate) fn note(&mut self, sequence: u64) -> Result<(), Reject> {
        if sequence == 0 {
            return Err(Reject::Late);
        }
        if sequence > self.newest {
            let ahead = sequence - self.newest;
            self.heard = if ahead < Self::SIZE {
                self.heard << ahead
            } else {
                0
            };
            self.heard |= 1;
            self.newest = sequence;
            return Ok(());
        }
        let behind = self.newest - sequence;
        if behind >= Self::SIZE {
            return Err(Reject::Late);
        }
        if self.heard & 1 << behind != 0 {
            return Err(Reject::Replayed);
        }
        self.heard |= 1 << behind;
        Ok(())
    }
}
