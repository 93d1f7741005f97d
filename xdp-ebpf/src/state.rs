//! States of a connection: IPVS's, from its table of transitions (`tcp_states` and `tcp_state_idx` in
//! `net/netfilter/ipvs/ip_vs_proto_tcp.c`).
//!
//! ```text
//!   SYN ► SynReceived ─ACK► Established ─FIN► FinWait / CloseWait ─FIN of the other end► TimeWait
//!                                  └─RST► Close
//! ```
//!
//! Left out are the states that a balanced connection never enters: `SYN_SENT` and `LISTEN` (a real server does not open
//! connections under the virtual address), `LAST_ACK` (the kernel's table has no way into it) and `SYNACK` (only with
//! `secure_tcp`). Two transitions differ: a reset ends a half-open connection at once, where the kernel keeps it 60 s, and a real
//! server's SYN on a closing connection changes nothing.

use crate::wire::tcp;

/// State of a connection.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// A SYN was seen, nothing else (`SYN_RECV`).
    SynReceived = 1,
    /// Packets go both ways.
    Established = 2,
    /// NAT: the real server's FIN was seen. DR and TUN, where only the client is heard: the client's.
    FinWait = 3,
    /// NAT: the client's FIN was seen, the real server's not.
    CloseWait = 4,
    /// Both ends' FIN were seen.
    TimeWait = 5,
    /// A reset was seen.
    Close = 6,
    /// One datagram of a client, and no answer that passed here. IPVS knows no such state: here it is what a flood from
    /// made-up sources leaves behind, and gives way first.
    UdpOne = 7,
    /// UDP (`IP_VS_UDP_S_NORMAL`).
    Udp = 8,
}

/// Where a segment was seen, as IPVS's table distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client, and answers pass here too (NAT).
    Input,
    /// From the real server (NAT).
    Output,
    /// From the client, and answers do not pass here (DR, TUN).
    InputOnly,
}

/// States that exist.
pub const STATES: usize = 9;

/// A row of the table of transitions: for each state, by its number, the next one, four bits each.
#[derive(Clone, Copy)]
struct Row(u64);

impl Row {
    /// States after `SynReceived`, `Established`, `FinWait`, `CloseWait`, `TimeWait`, `Close`.
    const fn new(next: [State; 6]) -> Self {
        let mut row = 0;
        let mut index = 0;
        while index < next.len() {
            row |= (next[index] as u64) << (4 * (index + 1));
            index += 1;
        }
        // UDP has no segments.
        row |= (State::UdpOne as u64) << (4 * State::UdpOne as u64);
        row |= (State::Udp as u64) << (4 * State::Udp as u64);
        Self(row)
    }

    #[inline(always)]
    const fn next(self, state: State) -> u8 {
        (self.0 >> (4 * state as u64) & 15) as u8
    }
}

mod rows {
    use super::Row;
    use super::State::{Close, CloseWait, Established, FinWait, SynReceived, TimeWait};

    /// A SYN on a closing connection that was not scheduled anew.
    pub(super) const IN_SYN: Row = Row::new([
        SynReceived,
        Established,
        SynReceived,
        SynReceived,
        SynReceived,
        SynReceived,
    ]);
    pub(super) const IN_FIN: Row =
        Row::new([TimeWait, CloseWait, TimeWait, CloseWait, TimeWait, Close]);
    pub(super) const ONLY_FIN: Row =
        Row::new([TimeWait, FinWait, FinWait, CloseWait, TimeWait, Close]);
    /// Written out in [`super::State::after_segment`], where it is one comparison.
    #[cfg(test)]
    pub(super) const ACK: Row = Row::new([
        Established,
        Established,
        FinWait,
        CloseWait,
        TimeWait,
        Close,
    ]);
    /// A SYN-ACK alone does not establish: the client's acknowledgement does.
    pub(super) const OUT_SYN: Row = Row::new([
        SynReceived,
        Established,
        FinWait,
        CloseWait,
        TimeWait,
        Close,
    ]);
    pub(super) const OUT_FIN: Row =
        Row::new([TimeWait, FinWait, FinWait, TimeWait, TimeWait, Close]);
    pub(super) const IN_RST: Row = Row::new([Close, Close, Close, Close, Close, Close]);
    pub(super) const OUT_RST: Row = Row::new([Close, Close, Close, Close, TimeWait, Close]);
}

impl State {
    /// All states.
    pub const ALL: [Self; STATES - 1] = [
        Self::SynReceived,
        Self::Established,
        Self::FinWait,
        Self::CloseWait,
        Self::TimeWait,
        Self::Close,
        Self::UdpOne,
        Self::Udp,
    ];

    /// The state with this number.
    #[inline(always)]
    #[must_use]
    pub const fn from_u8(state: u8) -> Option<Self> {
        match state {
            1 => Some(Self::SynReceived),
            2 => Some(Self::Established),
            3 => Some(Self::FinWait),
            4 => Some(Self::CloseWait),
            5 => Some(Self::TimeWait),
            6 => Some(Self::Close),
            7 => Some(Self::UdpOne),
            8 => Some(Self::Udp),
            _ => None,
        }
    }

    /// Whether peers are told of a connection in this state: it stands, or stood. What is half-open its client begins again
    /// (IPVS tells of neither: `ip_vs_sync_conn_needed` in `net/netfilter/ipvs/ip_vs_sync.c`).
    #[inline(always)]
    #[must_use]
    pub const fn is_told(self) -> bool {
        !self.is_half_open()
    }

    /// What operators see: IPVS's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynReceived => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::UdpOne => "UDP_ONE",
            Self::Udp => "UDP",
        }
    }

    /// Whether IPVS counts it as active rather than inactive (`tcp_state_active_table`; UDP never is).
    #[inline(always)]
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::SynReceived | Self::Established)
    }

    /// Whether it is on its way out, or was never really in: what gives way to a connection that stands.
    #[inline(always)]
    #[must_use]
    pub const fn is_half_open(self) -> bool {
        matches!(self, Self::SynReceived | Self::UdpOne)
    }

    /// Whether the connection is over or ending.
    #[inline(always)]
    #[must_use]
    pub const fn is_closing(self) -> bool {
        matches!(
            self,
            Self::FinWait | Self::CloseWait | Self::TimeWait | Self::Close
        )
    }

    /// Whether a SYN on it is a new connection under the same addresses (`is_new_conn_expected` with
    /// `conn_reuse_mode` 3: `TIME_WAIT` and `CLOSE`, and `FIN_WAIT` where only one direction is seen).
    #[inline(always)]
    #[must_use]
    pub const fn is_reusable(self, direction: Direction) -> bool {
        match self {
            Self::TimeWait | Self::Close => true,
            Self::FinWait => matches!(direction, Direction::InputOnly),
            _ => false,
        }
    }

    /// The state of a connection that begins with this segment (the table's row for `NONE`).
    ///
    /// In the middle, where the table says `ESTABLISHED`, it is half-open here until the client's next segment: a single one
    /// may have been made up, and a flood of them must not look like connections that stand.
    #[inline(always)]
    #[must_use]
    pub const fn first(flags: u8) -> Self {
        // RST counts before SYN, SYN before FIN.
        if flags & tcp::RST != 0 || flags & (tcp::SYN | tcp::FIN) == tcp::FIN {
            Self::Close
        } else {
            Self::SynReceived
        }
    }

    /// The state after a TCP segment with these flags: RST counts before SYN, SYN before FIN, FIN before ACK.
    #[inline(always)]
    #[must_use]
    pub const fn after_segment(self, flags: u8, direction: Direction) -> Self {
        if flags & (tcp::SYN | tcp::FIN | tcp::RST) == 0 {
            // Nearly all segments: one comparison.
            return if matches!(self, Self::SynReceived) {
                Self::Established
            } else {
                self
            };
        }
        let row = if flags & tcp::RST != 0 {
            match direction {
                Direction::Output => rows::OUT_RST,
                _ => rows::IN_RST,
            }
        } else if flags & tcp::SYN != 0 {
            match direction {
                Direction::Output => rows::OUT_SYN,
                _ => rows::IN_SYN,
            }
        } else {
            match direction {
                Direction::Input => rows::IN_FIN,
                Direction::Output => rows::OUT_FIN,
                Direction::InputOnly => rows::ONLY_FIN,
            }
        };
        match Self::from_u8(row.next(self)) {
            Some(next) => next,
            None => self,
        }
    }
}

/// IPVS's idle seconds for a state (`tcp_timeouts`, `udp_timeouts`), by its number. A service may have others.
pub const TIMEOUTS_S: [u16; STATES] = [0, 60, 900, 120, 60, 120, 10, 300, 300];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for state in State::ALL {
            assert_eq!(State::from_u8(state as u8), Some(state));
            assert!(TIMEOUTS_S[state as usize] > 0);
        }
        assert_eq!(State::from_u8(0), None);
        assert_eq!(State::from_u8(STATES as u8), None);
    }

    #[test]
    fn an_acknowledgement_goes_by_its_row_too() {
        for state in State::ALL {
            let by_row = State::from_u8(rows::ACK.next(state));
            assert_eq!(
                Some(state.after_segment(tcp::ACK, Direction::Input)),
                by_row,
                "{state:?}"
            );
        }
    }

    #[test]
    fn whole_connections() {
        use Direction::{Input, InputOnly, Output};
        use State::{Close, CloseWait, Established, FinWait, SynReceived, TimeWait};
        const SYN: u8 = tcp::SYN;
        const ACK: u8 = tcp::ACK;
        const FIN: u8 = tcp::FIN | tcp::ACK;
        const RST: u8 = tcp::RST;
        type Case = (&'static [(u8, Direction)], State, &'static str);
        let cases: [Case; 14] = [
            (&[], SynReceived, "a SYN"),
            (&[(SYN, Input)], SynReceived, "a repeated SYN"),
            (&[(SYN | ACK, Output)], SynReceived, "the SYN-ACK"),
            (&[(ACK, Input)], Established, "the acknowledgement"),
            (&[(ACK, Input), (FIN, Input)], CloseWait, "the client's FIN"),
            (&[(ACK, Input), (FIN, Output)], FinWait, "the server's FIN"),
            (
                &[(ACK, Input), (FIN, Input), (FIN, Output), (ACK, Input)],
                TimeWait,
                "both FINs",
            ),
            (
                &[(ACK, Input), (FIN, Output), (FIN, Input)],
                TimeWait,
                "both FINs, the server's first",
            ),
            (
                &[(ACK, InputOnly), (FIN, InputOnly), (ACK, InputOnly)],
                FinWait,
                "DR: the client's FIN and what it still acknowledges",
            ),
            (&[(RST, Input)], Close, "a reset of a half-open connection"),
            (&[(ACK, Input), (RST, Output)], Close, "the server's reset"),
            (
                &[(ACK, Input), (FIN, Input), (RST, Input)],
                Close,
                "a reset after FIN",
            ),
            (
                &[(ACK, Input), (RST, Input), (FIN, Input)],
                Close,
                "a FIN after a reset",
            ),
            (
                &[(ACK, Input), (RST | SYN | FIN, Input)],
                Close,
                "a reset counts before everything else",
            ),
        ];
        for (segments, expected, what) in cases {
            let state = segments
                .iter()
                .fold(State::first(SYN), |state, (flags, direction)| {
                    state.after_segment(*flags, *direction)
                });
            assert_eq!(state, expected, "{what}");
        }
    }
}
