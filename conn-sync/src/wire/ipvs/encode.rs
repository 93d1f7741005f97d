//! From entries to messages of version 1 (`ip_vs_sync_conn`).

use super::{ENTRIES, ENTRY4, ENTRY6, HEADER, KernelEntry, put_address};

/// Packs entries into messages.
#[derive(Clone, Debug)]
pub struct Encoder {
    sync_id: u8,
    /// `sync_maxlen`.
    longest: usize,
    message: Vec<u8>,
    entries: u8,
}

impl Encoder {
    /// For messages of at most `longest` bytes, unless one entry alone has more.
    #[must_use]
    pub fn new(sync_id: u8, longest: usize) -> Self {
        Self {
            sync_id,
            longest,
            message: Vec::new(),
            entries: 0,
        }
    }

    /// Adds an entry; gives the message before it where it did not fit in any more. One whose addresses are of several
    /// families cannot be written down, and is left out.
    pub fn push(&mut self, entry: &KernelEntry) -> Option<Vec<u8>> {
        if !entry.is_of_one_family() {
            return None;
        }
        let bytes = written(entry);
        // No padding after the last entry: so it comes before the next.
        let padding = self.message.len().next_multiple_of(4) - self.message.len();
        let is_full = usize::from(self.entries) == ENTRIES
            || self.message.len() + padding + bytes.len() > self.longest;
        let full = if is_full { self.finish() } else { None };
        if self.message.is_empty() {
            self.message = vec![0, self.sync_id, 0, 0, 0, 1, 0, 0];
        } else {
            self.message.resize(self.message.len() + padding, 0);
        }
        self.message.extend(bytes);
        self.entries += 1;
        full
    }

    /// The message so far, if there is anything in it.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        if self.entries == 0 {
            return None;
        }
        let mut message = std::mem::take(&mut self.message);
        // Not longer than `longest`, which 16 bits hold, or than one entry.
        let size = (message.len() as u16).to_be_bytes();
        message[2..4].copy_from_slice(&size);
        message[4] = self.entries;
        self.entries = 0;
        debug_assert!(message.len() > HEADER);
        Some(message)
    }
}

fn written(entry: &KernelEntry) -> Vec<u8> {
    let is_ipv6 = entry.client.is_ipv6();
    let mut bytes = Vec::with_capacity(ENTRY6);
    bytes.extend([u8::from(is_ipv6), entry.protocol, 0, 0]);
    bytes.extend(entry.flags.to_be_bytes());
    bytes.extend(entry.state.to_be_bytes());
    for port in [
        entry.client.port(),
        entry.virtual_service.port(),
        entry.server.port(),
    ] {
        bytes.extend(port.to_be_bytes());
    }
    bytes.extend(entry.mark.to_be_bytes());
    bytes.extend(entry.timeout_s.unwrap_or(0).to_be_bytes());
    for address in [entry.client, entry.virtual_service, entry.server] {
        put_address(&mut bytes, address.ip());
    }
    debug_assert_eq!(bytes.len(), if is_ipv6 { ENTRY6 } else { ENTRY4 });
    if let Some(sequences) = entry.sequences {
        bytes.extend([1, 24]);
        bytes.extend(sequences.iter().flat_map(|word| word.to_be_bytes()));
    }
    if let Some((name, data)) = &entry.engine {
        for (kind, value) in [(2, data), (3, name)] {
            // A key has 255 bytes at most, a name 16: nothing else is ever decoded.
            let value = &value[..value.len().min(255)];
            bytes.extend([kind, value.len() as u8]);
            bytes.extend(value);
        }
    }
    // Far below 4096.
    let size = (bytes.len() as u16).to_be_bytes();
    bytes[2..4].copy_from_slice(&size);
    bytes
}
