//! Why a packet was dropped or answered.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $value:literal, $name:literal;)+) => {
        /// Why a packet was neither passed nor forwarded. Every such packet is counted under exactly one;
        /// a forwarded packet is counted in its destination's [`super::Counters`] instead.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant = $value,)+
        }

        impl Reason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)+];

            /// The name an operator sees.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Reason::$variant => $name,)+
                }
            }
        }
    };
}

reasons! {
    /// Lengths in the packet contradict each other or the frame.
    Malformed = 0, "malformed";
    /// No real server is available: the client is told so (ICMP port unreachable).
    NoRealServer = 1, "no_real_server";
    /// The connection's real server is not known any more.
    DestinationGone = 2, "destination_gone";
    /// The next hop is not resolved, and the kernel could not deliver the packet either (DR).
    NextHopUnresolved = 3, "next_hop_unresolved";
    /// TTL or hop limit used up: the sender is told so.
    TtlExpired = 4, "ttl_expired";
    /// Larger than the way to the real server takes: the sender is told so.
    TooBig = 5, "too_big";
    /// An ICMP message was due but its rate limit was reached, or it may not be sent (RFC 1122 section 3.2.2).
    AnswerSuppressed = 6, "answer_suppressed";
    /// A fragment was handed to userspace to wait for its datagram's first one.
    FragmentHeld = 7, "fragment_held";
    /// A fragment without a first one, and no room or no way to wait.
    FragmentLost = 8, "fragment_lost";
    /// No room in front of or behind the frame for another header, or a helper refused.
    NoRoom = 9, "no_room";
    /// A stage's program is not there.
    StageMissing = 10, "stage_missing";
    /// The connection's real server was drained and its deadline has passed: the sender got a reset.
    Closed = 11, "closed";
    /// The connection table has no room that a new connection could take from one that is worth less.
    TableFull = 12, "table_full";
    /// It would have begun a connection in the moment in which the tables are exchanged for ones of another size.
    Moving = 13, "moving";
    /// For an address that this node may no longer serve: its lease has run out.
    Fenced = 14, "fenced";
}

/// Number of [`Reason`]s.
pub const REASONS: u32 = Reason::ALL.len() as u32;
