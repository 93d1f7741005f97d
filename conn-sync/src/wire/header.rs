//! What every datagram begins with.
//!
//! ```text
//!  "DS"  version  kind  key id  node name (length, bytes)  incarnation (8)  sequence (8)
//!  body
//!  HMAC-SHA256 of all that, its first 16 bytes
//! ```

use super::auth::Reject;
use super::reader::{Reader, put_node_name};
use crate::entry::NodeName;

/// Bytes of the signature. 128 bits of an HMAC are enough where nobody can try more than one message at a time (RFC 2104
/// section 5: at least half of the hash).
pub(super) const SIGNATURE: usize = 16;

const MAGIC: [u8; 2] = *b"DS";
const VERSION: u8 = 1;
const FIXED: usize = 5;

/// Who sends a datagram, and which one it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sender.
    pub node: NodeName,
    /// Rises with every start of the node.
    pub incarnation: u64,
    /// Rises with every datagram, whatever is in it; the first one is 1.
    pub sequence: u64,
}

impl Header {
    /// How many bytes it takes.
    pub(super) fn length(node: &NodeName) -> usize {
        FIXED + 1 + node.as_str().len() + 16
    }

    pub(super) fn put(&self, bytes: &mut Vec<u8>, kind: u8, key_id: u8) {
        bytes.extend(MAGIC);
        bytes.extend([VERSION, kind, key_id]);
        put_node_name(bytes, &self.node);
        bytes.extend(self.incarnation.to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
    }

    /// The key's id of a whole datagram, if it is one in this version at all.
    pub(super) fn key_id(bytes: &[u8]) -> Result<u8, Reject> {
        let (start, _) = bytes.split_first_chunk::<FIXED>().ok_or(Reject::Short)?;
        if start[..2] != MAGIC {
            return Err(Reject::Foreign);
        }
        if start[2] != VERSION {
            return Err(Reject::Version);
        }
        Ok(start[4])
    }

    /// Reads it, and the number of the kind of message.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<(Self, u8), Reject> {
        let [_, _, _, kind, _] = reader.array::<FIXED>()?;
        let header = Self {
            node: reader.node_name()?,
            incarnation: reader.u64()?,
            sequence: reader.u64()?,
        };
        Ok((header, kind))
    }
}
