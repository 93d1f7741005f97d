//! States as the kernel numbers them (`include/net/ip_vs.h`), and Director's.

use xdp_ebpf::state::State;
use xdp_ebpf::wire::protocol;

/// States of TCP in the kernel.
pub const TCP_STATES: u16 = 11;
/// States of SCTP in the kernel.
const SCTP_STATES: u16 = 14;
const SCTP: u8 = 132;
const ESP: u8 = 50;
const AH: u8 = 51;

/// How many states a protocol has in the kernel. `None`: it does not balance it.
pub(super) fn states(protocol: u8) -> Option<u16> {
    match protocol {
        protocol::TCP => Some(TCP_STATES),
        SCTP => Some(SCTP_STATES),
        protocol::UDP | ESP | AH => Some(1),
        _ => None,
    }
}

/// Director's state for the kernel's. `None`: of no protocol that is balanced here, or a state that peers are not told of:
/// half-open ones.
#[must_use]
pub fn to_state(protocol: u8, state: u16) -> Option<State> {
    match (protocol, state) {
        (protocol::TCP, 1) => Some(State::Established),
        (protocol::TCP, 4) => Some(State::FinWait),
        (protocol::TCP, 5) => Some(State::TimeWait),
        (protocol::TCP, 6) => Some(State::Close),
        // The kernel's last acknowledgement, which Director does not know: both ends' FIN were seen.
        (protocol::TCP, 8) => Some(State::TimeWait),
        (protocol::TCP, 7) => Some(State::CloseWait),
        (protocol::UDP, 0) => Some(State::Udp),
        _ => None,
    }
}

/// The kernel's number of a state.
#[must_use]
pub const fn state(state: State) -> u16 {
    match state {
        State::Established => 1,
        State::SynReceived => 3,
        State::FinWait => 4,
        State::TimeWait => 5,
        State::Close => 6,
        State::CloseWait => 7,
        State::Udp | State::UdpOne => 0,
    }
}
