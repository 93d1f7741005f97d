//! The rules of conn-sync: what is sent, what is missing, when a node has all. No I/O: inputs and the time in, actions out.
//!
//! The time is what has passed since some fixed point before the node's start; it does not go back.
//!
//! **Order.** Updates of a peer are applied in the order of their numbers; one that another has overtaken is not applied but asked
//! for anew, and a repair is what the peer's table holds by then. So no news of a peer is ever followed by older news of it.
//!
//! What a peer has from another one waits while anybody's bulk resync is under way, which may bring older news of the same.
//!
//! **Trust.** Sequences and incarnations refuse what was heard before. What was recorded before this node started is refused
//! because a peer's updates count only from the time on when the peer itself has told that it hears this start of this node.

pub(crate) mod aside;
mod gaps;
pub mod limits;
mod node;
mod pace;
mod peers;
mod refusals;
mod report;
mod second_hand;
mod sender;
mod stream;
mod types;
mod walk;

pub use node::Machine;
pub use refusals::{Refused, Warning};
pub use report::{PeerReport, PeerState, Readiness, Report, Role};
pub use types::{Action, Class, Config, Found, SessionId, To, Token};

#[cfg(test)]
mod tests;
