//! The operator's socket: what is asked over it and how the answer looks.
//!
//! HTTP over a Unix socket, so that `curl --unix-socket` is a client too:
//!
//! ```text
//!  GET /v1/status ──► server ──question──► run loop, the only one that knows
//!                            ◄──Status────
//! ```

mod client;
mod render;
mod server;
mod status;

pub use client::{ClientError, fetch_status};
pub use render::render;
pub use server::{Control, ControlError, Question};
pub use status::{
    ConfigStatus, ConnectionsStatus, Health, InterfaceStatus, RealServerStatus, ReasonStatus,
    ServiceStatus, Status, TableStatus,
};
