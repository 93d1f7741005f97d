//! The kernel's table of TCP states (`tcp_states`, `tcp_state_idx` in `net/netfilter/ipvs/ip_vs_proto_tcp.c`), by its names.

/// States that a balanced connection can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the kernel's names")]
pub enum State {
    None,
    Established,
    SynSent,
    SynRecv,
    FinWait,
    TimeWait,
    Close,
    CloseWait,
}

/// Where a segment was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client, with answers passing too.
    Input,
    /// From the real server.
    Output,
    /// From the client alone.
    InputOnly,
}

use State::{Close, CloseWait, Established, FinWait, SynRecv, SynSent, TimeWait};

/// Columns: none, established, SYN sent, SYN received, FIN wait, time wait, close, close wait. Rows: SYN, FIN, ACK, RST.
type Table = [[State; 8]; 4];

const INPUT: Table = [
    [
        SynRecv,
        Established,
        Established,
        SynRecv,
        SynRecv,
        SynRecv,
        SynRecv,
        SynRecv,
    ],
    [
        Close, CloseWait, SynSent, TimeWait, TimeWait, TimeWait, Close, CloseWait,
    ],
    [
        Established,
        Established,
        SynSent,
        Established,
        FinWait,
        TimeWait,
        Close,
        CloseWait,
    ],
    [Close, Close, Close, SynRecv, Close, Close, Close, Close],
];

const OUTPUT: Table = [
    [
        SynSent,
        Established,
        SynSent,
        SynRecv,
        SynSent,
        SynSent,
        SynSent,
        SynSent,
    ],
    [
        TimeWait, FinWait, SynSent, TimeWait, FinWait, TimeWait, Close, TimeWait,
    ],
    [
        Established,
        Established,
        SynSent,
        Established,
        FinWait,
        TimeWait,
        Close,
        CloseWait,
    ],
    [Close, Close, SynSent, Close, Close, TimeWait, Close, Close],
];

const INPUT_ONLY: Table = [
    INPUT[0],
    [
        Close, FinWait, SynSent, TimeWait, FinWait, TimeWait, Close, CloseWait,
    ],
    INPUT[2],
    INPUT[3],
];

/// TCP flags.
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;

/// The state after a segment; one without any of the four flags changes nothing in the kernel.
#[must_use]
pub fn next(state: State, direction: Direction, flags: u8) -> State {
    let row = match flags {
        flags if flags & RST != 0 => 3,
        flags if flags & SYN != 0 => 0,
        flags if flags & FIN != 0 => 1,
        _ => 2,
    };
    let table = match direction {
        Direction::Input => INPUT,
        Direction::Output => OUTPUT,
        Direction::InputOnly => INPUT_ONLY,
    };
    table[row][state as usize]
}

#[cfg(test)]
mod tests {
    use xdp_ebpf::state;

    use super::*;

    /// The packet path's state of the same name.
    fn ours(state: State) -> Option<state::State> {
        match state {
            State::None | SynSent => None,
            Established => Some(state::State::Established),
            SynRecv => Some(state::State::SynReceived),
            FinWait => Some(state::State::FinWait),
            TimeWait => Some(state::State::TimeWait),
            Close => Some(state::State::Close),
            CloseWait => Some(state::State::CloseWait),
        }
    }

    #[test]
    fn the_packet_path_follows_the_kernels_table() {
        let all = [Established, SynRecv, FinWait, TimeWait, Close, CloseWait];
        let directions = [
            (Direction::Input, state::Direction::Input),
            (Direction::Output, state::Direction::Output),
            (Direction::InputOnly, state::Direction::InputOnly),
        ];
        for flags in (0..32).filter(|flags| flags & 0x17 != 0) {
            let first = match next(State::None, Direction::Input, flags) {
                // In the middle: only with the client's next segment.
                Established => Some(state::State::SynReceived),
                expected => ours(expected),
            };
            let found = Some(state::State::first(flags));
            assert_eq!(found, first, "first, flags {flags:#x}");
            for state in all {
                let Some(from) = ours(state) else { continue };
                for (kernels, direction) in directions {
                    let expected = match next(state, kernels, flags) {
                        // A reset ends a half-open connection at once.
                        SynRecv if flags & RST != 0 => Some(state::State::Close),
                        // A real server does not open connections under the virtual address: nothing changes.
                        SynSent => Some(from),
                        expected => ours(expected),
                    };
                    let found = from.after_segment(flags, direction);
                    assert_eq!(Some(found), expected, "{state:?} {kernels:?} {flags:#x}");
                }
            }
        }
    }

    #[test]
    fn timeouts_and_kinds_are_the_kernels() {
        // (state, `tcp_timeouts` in seconds, `tcp_state_active_table`)
        let cases = [
            (Established, 900, true),
            (SynRecv, 60, true),
            (FinWait, 120, false),
            (TimeWait, 120, false),
            (Close, 10, false),
            (CloseWait, 60, false),
        ];
        for (state, timeout_s, is_active) in cases {
            let Some(ours) = ours(state) else { continue };
            assert_eq!(state::TIMEOUTS_S[ours as usize], timeout_s, "{state:?}");
            assert_eq!(ours.is_active(), is_active, "{state:?}");
        }
        assert_eq!(state::TIMEOUTS_S[state::State::Udp as usize], 300);
        assert!(!state::State::Udp.is_active());
    }
}
