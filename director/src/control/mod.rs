//! The operator's socket: what is asked over it and how the answer looks.
//!
//! HTTP over a Unix socket, so that `curl --unix-socket` is a client too:
//!
//! ```text
//!  GET  /v1/status, /v1/checks, ─► server ──question──► run loop, the only one that knows
//!  POST /v1/server, /v1/reload,         ◄──answer────
//!       /v1/heartbeat
//! ```

mod checks;
mod client;
mod command;
mod render;
mod server;
mod status;

pub use checks::{CheckStatus, RunStatus};
pub use client::{
    ClientError, fetch_checks, fetch_status, fetch_sync, send_command, send_question, send_reload,
};
pub use command::{Refusal, ServerCommand, ServerSaid};
pub use render::{render, render_checks, render_services};
pub use server::{Control, ControlError, Question};
pub use status::{
    ConfigStatus, ConnectionsStatus, GroupStatus, Health, HeartbeatStatus, InterfaceStatus,
    RateStatus, RealServerStatus, ReasonStatus, ServerHealth, ServiceStatus, Status, SyncStatus,
    TableStatus, VerdictsStatus,
};
