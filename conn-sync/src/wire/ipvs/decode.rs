//! From a message to its entries, as the kernel takes them (`ip_vs_process_message`, `ip_vs_proc_sync_conn`).

use std::net::{IpAddr, SocketAddr};

use super::state::states;
use super::{ENTRY4, ENTRY6, HEADER, KernelEntry, Refusal, flags};

/// Bytes of an entry of version 0, and of what follows it where sequence numbers are adjusted.
const ENTRY0: usize = 24;
const SEQUENCES: usize = 24;
/// Kinds of options; with this bit whoever does not know one may leave it out.
const OPTIONAL: u8 = 0x40;
const SEQUENCE_DATA: u8 = 1;
const ENGINE_DATA: u8 = 2;
const ENGINE_NAME: u8 = 3;
/// Longest name of a persistence engine (`IP_VS_PENAME_MAXLEN`).
const ENGINE_NAME_BYTES: usize = 16;

/// What a message came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Entries that are taken.
    pub entries: Vec<KernelEntry>,
    /// Why others are not.
    pub refusals: Vec<Refusal>,
    /// Its version.
    pub version: u8,
}

/// Why an entry is not taken.
enum Failure {
    /// Only this one.
    Skip(Refusal),
    /// Nor those after it.
    Stop(Refusal),
}

/// Takes a message apart. A `sync_id` of 0 takes those of all.
#[must_use]
pub fn decode(message: &[u8], sync_id: u8) -> Outcome {
    let mut outcome = Outcome::default();
    let Some([first, id, high, low]) = message.first_chunk::<4>().copied() else {
        outcome.refusals.push(Refusal::Short);
        return outcome;
    };
    if usize::from(u16::from_be_bytes([high, low])) != message.len() {
        outcome.refusals.push(Refusal::Length);
        return outcome;
    }
    if sync_id != 0 && id != sync_id {
        outcome.refusals.push(Refusal::SyncId);
        return outcome;
    }
    match message.first_chunk::<HEADER>() {
        // Anything else is of version 0.
        Some([0, _, _, _, count, 1, 0, 0]) => {
            outcome.version = 1;
            version1(message, *count, &mut outcome);
        }
        _ => version0(message, first, &mut outcome),
    }
    outcome
}

fn version1(message: &[u8], count: u8, outcome: &mut Outcome) {
    let mut at = HEADER;
    for _ in 0..count {
        let entry = message.get(at..).unwrap_or_default();
        let size = match size1(entry) {
            Ok(size) => size,
            Err(refusal) => {
                outcome.refusals.push(refusal);
                return;
            }
        };
        match entry1(&entry[..size]) {
            Ok(entry) => outcome.entries.push(entry),
            Err(Failure::Skip(refusal)) => outcome.refusals.push(refusal),
            Err(Failure::Stop(refusal)) => {
                outcome.refusals.push(refusal);
                return;
            }
        }
        // Each begins at a multiple of four bytes.
        at += size.next_multiple_of(4);
    }
}

/// Bytes of an entry with its options.
fn size1(entry: &[u8]) -> Result<usize, Refusal> {
    let [kind, _, high, low] = *entry.first_chunk::<4>().ok_or(Refusal::Malformed)?;
    let word = u16::from_be_bytes([high, low]);
    let (version, size) = (word >> 12, usize::from(word & 0xfff));
    let least = match kind {
        0 => ENTRY4,
        kind if kind & 1 != 0 => ENTRY6,
        _ => return Err(Refusal::Malformed),
    };
    if version != 0 || size < least || size > entry.len() {
        return Err(Refusal::Malformed);
    }
    Ok(size)
}

/// An entry of `size1` bytes.
fn entry1(entry: &[u8]) -> Result<KernelEntry, Failure> {
    let be16 = |at: usize| u16::from_be_bytes([entry[at], entry[at + 1]]);
    let be32 =
        |at: usize| u32::from_be_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
    let is_ipv6 = entry[0] & 1 != 0;
    let length = if is_ipv6 { 16 } else { 4 };
    let address = |index: usize, port: u16| {
        let at = 24 + index * length;
        SocketAddr::new(read_address(&entry[at..at + length]), port)
    };
    let (sequences, engine) = options(&entry[24 + 3 * length..])?;
    let decoded = KernelEntry {
        protocol: entry[1],
        flags: be32(4) & flags::TAKEN,
        state: be16(8),
        client: address(0, be16(10)),
        virtual_service: address(1, be16(12)),
        server: address(2, be16(14)),
        mark: be32(16),
        timeout_s: Some(be32(20)),
        sequences,
        engine,
    };
    check(&decoded)?;
    Ok(decoded)
}

/// Protocol and state. A template's state out of its range is only logged.
fn check(entry: &KernelEntry) -> Result<(), Failure> {
    if entry.is_template() {
        return Ok(());
    }
    match states(entry.protocol) {
        None => Err(Failure::Skip(Refusal::Protocol)),
        Some(states) if entry.state >= states => Err(Failure::Skip(Refusal::State)),
        Some(_) => Ok(()),
    }
}

type Options = (Option<[u32; 6]>, Option<(Vec<u8>, Vec<u8>)>);

fn options(mut rest: &[u8]) -> Result<Options, Failure> {
    let (mut sequences, mut data, mut name) = (None, None, None);
    while !rest.is_empty() {
        let [kind, length] = *rest
            .first_chunk::<2>()
            .ok_or(Failure::Stop(Refusal::Option))?;
        let length = usize::from(length);
        let value = rest.get(2..2 + length).filter(|_| length > 0);
        let value = value.ok_or(Failure::Stop(Refusal::Option))?;
        match kind & !OPTIONAL {
            SEQUENCE_DATA if sequences.is_none() && length == SEQUENCES => {
                sequences = Some(words(value, u32::from_be_bytes));
            }
            ENGINE_DATA if data.is_none() => data = Some(value.to_vec()),
            ENGINE_NAME if name.is_none() && length <= ENGINE_NAME_BYTES => {
                name = Some(value.to_vec());
            }
            SEQUENCE_DATA | ENGINE_DATA | ENGINE_NAME => {
                return Err(Failure::Stop(Refusal::Option));
            }
            _ if kind & OPTIONAL == 0 => return Err(Failure::Skip(Refusal::Unknown)),
            _ => {}
        }
        rest = &rest[2 + length..];
    }
    match (name, data) {
        (Some(name), Some(data)) => Ok((sequences, Some((name, data)))),
        (None, None) => Ok((sequences, None)),
        // The kernel takes a name without a key for nothing, and leaves out a key without a name.
        (Some(_), None) => Ok((sequences, None)),
        (None, Some(_)) => Err(Failure::Skip(Refusal::Engine)),
    }
}

fn words(bytes: &[u8], word: impl Fn([u8; 4]) -> u32) -> [u32; 6] {
    let mut words = [0; 6];
    for (to, from) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *to = word([from[0], from[1], from[2], from[3]]);
    }
    words
}

fn version0(message: &[u8], count: u8, outcome: &mut Outcome) {
    let mut rest = &message[4..];
    for _ in 0..count {
        let Some((entry, others)) = rest.split_first_chunk::<ENTRY0>() else {
            outcome.refusals.push(Refusal::Malformed);
            return;
        };
        rest = others;
        let be16 = |at: usize| u16::from_be_bytes([entry[at], entry[at + 1]]);
        let address =
            |at: usize, port: u16| SocketAddr::new(read_address(&entry[at..at + 4]), port);
        let entry_flags = u32::from(be16(20));
        let mut sequences = None;
        if entry_flags & flags::SEQUENCE != 0 {
            let Some((adjusted, others)) = rest.split_first_chunk::<SEQUENCES>() else {
                outcome.refusals.push(Refusal::Malformed);
                return;
            };
            rest = others;
            // In the sender's own order of bytes, as the kernel copies them.
            sequences = Some(words(adjusted, u32::from_ne_bytes));
        }
        let decoded = KernelEntry {
            protocol: entry[1],
            flags: entry_flags,
            state: be16(22),
            client: address(8, be16(2)),
            virtual_service: address(12, be16(4)),
            server: address(16, be16(6)),
            mark: 0,
            timeout_s: None,
            sequences,
            engine: None,
        };
        match check(&decoded) {
            Ok(()) => outcome.entries.push(decoded),
            Err(Failure::Skip(refusal) | Failure::Stop(refusal)) => outcome.refusals.push(refusal),
        }
    }
}

/// Of 4 or 16 bytes.
fn read_address(bytes: &[u8]) -> IpAddr {
    match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(four), _) => IpAddr::from(four),
        (_, Ok(sixteen)) => IpAddr::from(sixteen),
        _ => IpAddr::from([0; 4]),
    }
}
