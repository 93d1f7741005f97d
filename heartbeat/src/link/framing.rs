//! Messages on a line that knows only bytes.
//!
//! A frame is the message and its CRC-32, big-endian, stuffed by COBS so that no zero byte is in it, between two zero
//! bytes. Whatever garbage came before, the next zero byte ends it: at most the frame that it ran into is lost.

/// Longest message, in bytes: above any heartbeat.
pub const LONGEST: usize = crate::wire::message::LONGEST;

const CRC_BYTES: usize = 4;
/// COBS adds one byte for every 254, and one.
const LONGEST_STUFFED: usize = LONGEST + CRC_BYTES + (LONGEST + CRC_BYTES) / 254 + 2;

/// A message as it goes over the line.
#[must_use]
pub fn frame(message: &[u8]) -> Vec<u8> {
    let mut bytes = message.to_vec();
    bytes.extend(crc32fast::hash(message).to_be_bytes());
    let mut framed = vec![0];
    framed.extend(cobs::encode_vec(&bytes));
    framed.push(0);
    framed
}

/// What comes over the line, as messages again.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// Too long: nothing up to the next zero byte can be a message.
    is_lost: bool,
    garbage: u64,
}

impl Decoder {
    /// Takes in bytes, and gives each whole message in them.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        for byte in bytes {
            match *byte {
                0 => messages.extend(self.end()),
                _ if self.is_lost => {}
                _ if self.bytes.len() == LONGEST_STUFFED => {
                    self.bytes.clear();
                    self.is_lost = true;
                }
                byte => self.bytes.push(byte),
            }
        }
        messages
    }

    /// How often something between two zero bytes was no message.
    #[must_use]
    pub fn garbage(&self) -> u64 {
        self.garbage
    }

    fn end(&mut self) -> Option<Vec<u8>> {
        let stuffed = std::mem::take(&mut self.bytes);
        let is_lost = std::mem::take(&mut self.is_lost);
        if stuffed.is_empty() && !is_lost {
            return None;
        }
        let message = unframed(&stuffed).filter(|_| !is_lost);
        self.garbage += u64::from(message.is_none());
        message
    }
}

fn unframed(stuffed: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = cobs::decode_vec(stuffed).ok()?;
    let (message, crc) = bytes.split_last_chunk::<CRC_BYTES>()?;
    if u32::from_be_bytes(*crc) != crc32fast::hash(message) || message.len() > LONGEST {
        return None;
    }
    bytes.truncate(bytes.len() - CRC_BYTES);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(line: &[u8], expected: &[&[u8]], garbage: u64) {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.feed(line), expected, "{line:?}");
        assert_eq!(decoder.garbage(), garbage, "{line:?}");
    }

    #[test]
    fn frames_and_garbage() {
        let hello = frame(b"hello");
        let zeros = frame(&[0; 300]);
        let mut damaged = hello.clone();
        damaged[3] ^= 1;
        check(&hello, &[b"hello"], 0);
        check(&zeros, &[&[0; 300]], 0);
        check(&frame(b""), &[b""], 0);
        check(&[0, 0, 0], &[], 0);
        check(
            &[&hello[..], &zeros, &hello].concat(),
            &[b"hello", &[0; 300], b"hello"],
            0,
        );
        check(&[b"login: ", &hello[..]].concat(), &[b"hello"], 1);
        check(&[&hello[..4], &hello].concat(), &[b"hello"], 1);
        check(&[&damaged[..], &hello].concat(), &[b"hello"], 1);
        check(
            &[&hello[1..hello.len() - 1], &hello].concat(),
            &[b"hello", b"hello"],
            0,
        );
        check(&[&[7; LONGEST * 3][..], &hello].concat(), &[b"hello"], 1);
        check(&[&[7; LONGEST * 3][..], &[0]].concat(), &[], 1);
        check(&frame(&[9; LONGEST + 1]), &[], 1);
        check(&frame(&[9; LONGEST]), &[&[9; LONGEST]], 0);
    }

    proptest! {
        #[test]
        fn any_message_after_any_garbage(
            garbage in proptest::collection::vec(any::<u8>(), 0..600),
            message in proptest::collection::vec(any::<u8>(), 0..LONGEST),
            cut in 1_usize..50,
        ) {
            let line = [garbage, frame(&message)].concat();
            let mut decoder = Decoder::default();
            let messages: Vec<_> = line.chunks(cut).flat_map(|part| decoder.feed(part)).collect();
            prop_assert_eq!(messages.last(), Some(&message));
            prop_assert!(messages.len() == 1 || decoder.garbage() < 600);
        }
    }
}
