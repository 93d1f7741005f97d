//! Ranges of ports as prefixes of their sixteen bits, for a longest-prefix map.

/// All ports that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    /// How many bits.
    pub(super) bits: u32,
    /// The first such port.
    pub(super) port: u16,
}

/// The fewest prefixes that make up the ports from the first to the last one.
pub(super) fn prefixes(first: u16, last: u16) -> Vec<Prefix> {
    let mut prefixes = Vec::new();
    let (mut next, last) = (u32::from(first), u32::from(last));
    while next <= last {
        let mut size: u32 = 1;
        while next.is_multiple_of(2 * size) && next + 2 * size - 1 <= last {
            size *= 2;
        }
        prefixes.push(Prefix {
            bits: 16 - size.trailing_zeros(),
            // Not beyond the last port, which has 16 bits.
            port: next as u16,
        });
        next += size;
    }
    prefixes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_is_in_exactly_one_prefix() {
        let ranges = [
            (0, 65_535, 1),
            (1, 65_535, 16),
            (1, 65_534, 30),
            (80, 80, 1),
            (8000, 8999, 6),
            (1024, 2047, 1),
            (65_535, 65_535, 1),
            (9, 8, 0),
        ];
        for (first, last, count) in ranges {
            let prefixes = prefixes(first, last);
            assert_eq!(prefixes.len(), count, "{first}-{last}: {prefixes:?}");
            let mut covered = Vec::new();
            for prefix in prefixes {
                let size = 1_u32 << (16 - prefix.bits);
                covered.extend((0..size).map(|offset| u32::from(prefix.port) + offset));
            }
            let expected: Vec<u32> = (u32::from(first)..=u32::from(last)).collect();
            assert_eq!(covered, expected, "{first}-{last}");
        }
    }
}
