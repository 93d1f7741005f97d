//! Signatures of own heartbeats, and what of what arrives is believed.

use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;
use thiserror::Error;

use super::message::{Message, NameId, SIGNATURE};
use crate::machine::LinkId;

/// Shortest and longest key, in bytes.
pub const KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=1024;
/// Most keys that are accepted.
pub const KEYS: usize = 8;

/// Without a configured key messages are signed with this one: against damage, not against people. Its id is 0.
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

    fn sign(&self, bytes: &mut Vec<u8>) {
        let mut state = self.state.clone();
        state.update(bytes);
        bytes.extend(state.finalize().into_bytes());
    }

    fn is_right(&self, bytes: &[u8], signature: &[u8]) -> bool {
        let mut state = self.state.clone();
        state.update(bytes);
        // In constant time.
        state.verify_slice(signature).is_ok()
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
            let mark = |key: &Key| {
                let mut bytes = vec![key.id];
                key.sign(&mut bytes);
                bytes
            };
            keyring.keys.iter().map(mark).collect()
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

    /// The bytes of a message with its signature.
    #[must_use]
    pub fn seal(&self, message: &Message) -> Vec<u8> {
        let active = &self.keys[0];
        let mut bytes = message.encode(active.id);
        active.sign(&mut bytes);
        bytes
    }

    /// The message in these bytes.
    ///
    /// # Errors
    /// It is not one of ours, or damaged, or signed with no key that is known.
    pub fn open(&self, bytes: &[u8]) -> Result<Message, Reject> {
        let id = Message::key_id(bytes)?;
        let key = self.keys.iter().find(|key| key.id == id);
        let key = key.ok_or(Reject::Key)?;
        let (signed, signature) = bytes.split_at(bytes.len() - SIGNATURE);
        if !key.is_right(signed, signature) {
            return Err(Reject::Signature);
        }
        Message::decode(signed)
    }
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reject {
    /// It is shorter than any message.
    #[error("too short for a heartbeat")]
    Short,
    /// It is longer than any message.
    #[error("too long for a heartbeat")]
    Long,
    /// It is something else.
    #[error("not a heartbeat")]
    Foreign,
    /// Another version.
    #[error("a heartbeat in another version")]
    Version,
    /// The signature is right but what it signs makes no sense.
    #[error("a heartbeat that cannot be read")]
    Malformed,
    /// Signed with a key that is not known.
    #[error("signed with a key that is not known")]
    Key,
    /// The signature is wrong: damaged, forged, or the secrets differ.
    #[error("the signature is wrong")]
    Signature,
    /// No group names this node.
    #[error("from a node that stands in no group's priorities")]
    Node,
    /// This node's own, which came back.
    #[error("this node's own")]
    Own,
    /// From another machine that has this node's name.
    #[error("from another machine with this node's name")]
    SameName,
    /// It was heard on this link already.
    #[error("heard before on this link")]
    Replayed,
    /// The node has been started anew since, or sent so many more that this one cannot be checked.
    #[error("older than what is known")]
    Old,
}

impl Reject {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Short,
        Self::Long,
        Self::Foreign,
        Self::Version,
        Self::Malformed,
        Self::Key,
        Self::Signature,
        Self::Node,
        Self::Own,
        Self::SameName,
        Self::Replayed,
        Self::Old,
    ];
}

/// Which of the last messages of one node were heard on one link.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    newest: u64,
    /// Bit n: `newest` - n was heard.
    heard: u128,
}

impl Window {
    /// So many messages may overtake one.
    const SIZE: u64 = 128;

    /// Notes a sequence; false if it was heard before or cannot be told from those.
    fn note(&mut self, sequence: u64) -> bool {
        if sequence > self.newest {
            let ahead = sequence - self.newest;
            self.heard = if ahead < Self::SIZE {
                self.heard << ahead
            } else {
                0
            };
            self.heard |= 1;
            self.newest = sequence;
            return true;
        }
        let behind = self.newest - sequence;
        if behind >= Self::SIZE || self.heard & 1 << behind != 0 {
            return false;
        }
        self.heard |= 1 << behind;
        true
    }
}

/// What was heard of one node.
#[derive(Clone, Debug)]
struct Heard {
    node: NameId,
    incarnation: u64,
    newest: u64,
    /// By link: the same message comes once on each.
    windows: Vec<Window>,
}

/// Takes bytes from links and gives messages that are authentic, from a known node, and new on their link. Counts the rest.
///
/// A message is new if its sequence was not heard on its link, whatever came on others: a copy on a second link shows that
/// this link works. Old incarnations are refused on all links. A stream that was recorded before this node's own start, of a
/// node that is silent since, passes here: the machine asks for proof that it is none.
#[derive(Clone, Debug)]
pub struct Receiver {
    keyring: Keyring,
    own: (NameId, u64),
    nodes: Vec<Heard>,
    counts: Vec<[u64; Reject::ALL.len()]>,
}

impl Receiver {
    /// For a node of this name and incarnation, that listens to these others on so many links.
    pub fn new<'a>(
        keyring: Keyring,
        own: (&str, u64),
        others: impl IntoIterator<Item = &'a str>,
        links: usize,
    ) -> Self {
        let heard = |name: &str| Heard {
            node: NameId::of(name),
            incarnation: 0,
            newest: 0,
            windows: vec![Window::default(); links],
        };
        Self {
            keyring,
            own: (NameId::of(own.0), own.1),
            nodes: others
                .into_iter()
                .filter(|name| *name != own.0)
                .map(heard)
                .collect(),
            counts: vec![[0; Reject::ALL.len()]; links],
        }
    }

    /// From now on believes what is signed with these. What was heard before stays heard.
    pub fn follow(&mut self, keyring: Keyring) {
        self.keyring = keyring;
    }

    /// Takes what came on a link.
    ///
    /// # Errors
    /// Why it is not taken. It is counted.
    pub fn receive(&mut self, link: LinkId, bytes: &[u8]) -> Result<Message, Reject> {
        self.keyring
            .open(bytes)
            .and_then(|message| self.note(link, &message).map(|()| message))
            .inspect_err(|reject| {
                if let Some(counts) = self.counts.get_mut(usize::from(link.0)) {
                    counts[*reject as usize] += 1;
                }
            })
    }

    /// How many messages of a link were refused, by reason; those that are zero are left out.
    #[must_use]
    pub fn refused(&self, link: LinkId) -> Vec<(Reject, u64)> {
        let counts = self.counts.get(usize::from(link.0));
        let counts = counts.into_iter().flatten().copied();
        let named = Reject::ALL.into_iter().zip(counts);
        named.filter(|(_, count)| *count > 0).collect()
    }

    /// Who says in these bytes that he sent them, whether or not that is to be believed.
    #[must_use]
    pub fn claimed(bytes: &[u8]) -> Option<NameId> {
        let signed = bytes.get(..bytes.len().checked_sub(SIGNATURE)?)?;
        Message::key_id(bytes).ok()?;
        Some(Message::decode(signed).ok()?.sender.node)
    }

    fn note(&mut self, link: LinkId, message: &Message) -> Result<(), Reject> {
        let sender = &message.sender;
        if sender.node == self.own.0 {
            let is_own = sender.incarnation == self.own.1;
            return Err(if is_own {
                Reject::Own
            } else {
                Reject::SameName
            });
        }
        let heard = self
            .nodes
            .iter_mut()
            .find(|heard| heard.node == sender.node);
        let heard = heard.ok_or(Reject::Node)?;
        if sender.incarnation < heard.incarnation {
            return Err(Reject::Old);
        }
        if sender.incarnation > heard.incarnation {
            heard.incarnation = sender.incarnation;
            heard.newest = 0;
            heard.windows.fill(Window::default());
        }
        if sender.sequence == 0 || heard.newest.saturating_sub(sender.sequence) >= Window::SIZE {
            return Err(Reject::Old);
        }
        let window = heard
            .windows
            .get_mut(usize::from(link.0))
            .ok_or(Reject::Foreign)?;
        if !window.note(sender.sequence) {
            return Err(Reject::Replayed);
        }
        heard.newest = heard.newest.max(sender.sequence);
        Ok(())
    }
}
