//! What the benchmark's programs and whoever runs them share: names, and the order that a run is given.
//!
//! `BPF_PROG_TEST_RUN` with a repetition resets nothing between two turns, neither bytes nor pointers. So what is measured
//! runs inside the program [`programs::MEASURE`], which gives each turn a fresh packet:
//!
//! ```text
//!   MEASURE ─► a global function ─tail call─► what is measured (slot 0 of MEASURED)
//!      ▲                └──────── its verdict comes back ◄────────┘
//!      └─ counts the verdict, moves the head back, writes the headers anew: the same flow, the next one, or a new source
//! ```
//!
//! All of this costs the same whatever is measured, so a trivial program measured this way is the floor.

/// Names of the programs.
pub mod programs {
    /// Runs what stands in slot 0 of [`super::maps::MEASURED`], and makes the packet fresh again.
    pub const MEASURE: &str = "measure";
    /// Floor: sends.
    pub const TRIVIAL: &str = "trivial";
    /// Floor: moves the head by an IPv4 header and sends.
    pub const MOVE_HEAD: &str = "move_head";
    /// Yardstick: parses an IPv4 packet and looks its flow up in an LRU hash, key of 16 bytes. Sends what it finds, drops
    /// what it does not.
    pub const LRU16: &str = "lru16";
    /// The same with a key of 40 bytes, as a balancer for both families has it.
    pub const LRU40: &str = "lru40";
    /// Parses an IPv4 packet and sends it.
    pub const PARSE: &str = "parse";
    /// Parses as far and looks the destination up in a hash, key of 8 bytes, as the packet path does for the service.
    pub const HASH8: &str = "hash8";
    /// Parses as far and looks the source up in a trie of prefixes, as the packet path does for the way of a reply.
    pub const TRIE: &str = "trie";
    /// Enters what a packet wants where [`HASH8`] and [`TRIE`] look.
    pub const FILL8: &str = "fill8";
    /// Enters a packet's flow where [`LRU16`] looks.
    pub const FILL16: &str = "fill16";
    /// Enters a packet's flow where [`LRU40`] looks.
    pub const FILL40: &str = "fill40";
    /// Takes a packet's flow out of where [`LRU16`] looks.
    pub const EMPTY16: &str = "empty16";
    /// Takes a packet's flow out of where [`LRU40`] looks.
    pub const EMPTY40: &str = "empty40";
    /// Sends live frames, each the next flow's.
    pub const EMIT: &str = "emit";
    /// Drops: where live frames end.
    pub const SINK: &str = "sink";
    /// All that can be measured.
    pub const ALL: [&str; 12] = [
        TRIVIAL, MOVE_HEAD, LRU16, LRU40, PARSE, HASH8, TRIE, FILL8, FILL16, FILL40, EMPTY16,
        EMPTY40,
    ];
}

/// Names of the maps.
pub mod maps {
    /// Slot 0: the program that is measured.
    pub const MEASURED: &str = "MEASURED";
    /// One [`super::Order`].
    pub const ORDER: &str = "ORDER";
    /// Pages of [`super::flow`]s.
    pub const FLOWS: &str = "FLOWS";
    /// LRU hash, key of 16 bytes.
    pub const FLOWS16: &str = "FLOWS16";
    /// LRU hash, key of 40 bytes.
    pub const FLOWS40: &str = "FLOWS40";
}

/// Flows in one element of [`maps::FLOWS`]: it is filled in few calls.
pub const FLOWS_PER_PAGE: usize = 512;
/// Most flows of a run.
pub const MAX_FLOWS: u32 = 1 << 22;

/// A flow: the client's address and port, as in the packet.
#[must_use]
pub const fn flow(address: [u8; 4], port: u16) -> u64 {
    u32::from_ne_bytes(address) as u64 | (port.to_be() as u64) << 32
}

/// Offset and width of each piece in which a frame's headers are written anew. A processor hands a value that it has just
/// stored on to a load at once only if one store has all of it: so no field that programs read is cut, in IPv4 or IPv6.
pub const PIECES: [(usize, usize); 12] = [
    (0, 8),
    (8, 4),
    (12, 2),
    (14, 8),
    (22, 4),
    (26, 8),
    (34, 4),
    (38, 8),
    (46, 8),
    (54, 8),
    (62, 8),
    (70, 8),
];
/// Bytes of a frame that are written anew; no frame may be shorter.
pub const RESTORED: usize = 78;

/// Verdict that is none: what should be measured is not in its slot.
pub const NOT_CALLED: usize = 7;
/// Verdict that is none: the frame could not be made fresh.
pub const NOT_RESTORED: usize = 6;

/// What a run is given, and what it counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Bytes of the frame.
    pub length: u64,
    /// Its beginning, in [`PIECES`].
    pub pieces: [u64; 12],
    /// Flows to go through, over and over: the first so many of [`maps::FLOWS`]. 0: each packet is the frame as it stands.
    pub flows: u64,
    /// The next of them, or the next new source.
    pub cursor: u64,
    /// Not 0: each packet is of a source that none had before.
    pub new_sources: u64,
    /// Verdicts so far, by their numbers.
    pub verdicts: [u64; 8],
}

const _: () = assert!(size_of::<Order>() == 24 * 8);

impl Order {
    /// An order to repeat a frame.
    ///
    /// # Panics
    /// The frame is shorter than [`RESTORED`].
    #[must_use]
    pub fn new(frame: &[u8]) -> Self {
        let mut order = Self {
            length: frame.len() as u64,
            ..Self::default()
        };
        for (piece, (at, width)) in order.pieces.iter_mut().zip(PIECES) {
            let mut bytes = [0; 8];
            bytes[..width].copy_from_slice(&frame[at..at + width]);
            *piece = u64::from_le_bytes(bytes);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_frame_without_a_gap() {
        let mut at = 0;
        for (offset, width) in PIECES {
            assert_eq!(offset, at);
            at += width;
        }
        assert_eq!(at, RESTORED);
        let frame: Vec<u8> = (0..100).collect();
        let order = Order::new(&frame);
        let mut bytes: Vec<u8> = Vec::new();
        for (piece, (_, width)) in order.pieces.iter().zip(PIECES) {
            bytes.extend(&piece.to_le_bytes()[..width]);
        }
        assert_eq!(bytes, frame[..RESTORED]);
    }

    #[test]
    fn fields_that_programs_read_are_not_cut() {
        // Offset and width in the frame: addresses and ports of both families, lengths, TTL, protocol, flags.
        for (what, at, width) in [
            ("ether type", 12, 2),
            ("IPv4 length", 16, 2),
            ("IPv4 fragment", 20, 2),
            ("IPv4 TTL and protocol", 22, 2),
            ("IPv4 source", 26, 4),
            ("IPv4 destination", 30, 4),
            ("IPv4 ports", 34, 4),
            ("TCP flags in IPv4", 47, 1),
            ("IPv6 length", 18, 2),
            ("IPv6 source 0", 22, 4),
            ("IPv6 source 1", 26, 4),
            ("IPv6 source 2", 30, 4),
            ("IPv6 source 3", 34, 4),
            ("IPv6 destination 0", 38, 4),
            ("IPv6 destination 1", 42, 4),
            ("IPv6 destination 2", 46, 4),
            ("IPv6 destination 3", 50, 4),
            ("IPv6 ports", 54, 4),
            ("TCP flags in IPv6", 67, 1),
        ] {
            assert!(
                PIECES
                    .iter()
                    .any(|(offset, piece)| *offset <= at && at + width <= offset + piece),
                "{what}"
            );
        }
    }
}
