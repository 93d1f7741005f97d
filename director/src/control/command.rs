//! What an operator can change.

use serde::{Deserialize, Serialize};

/// Something about a real server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerCommand {
    /// Name of the service.
    pub service: String,
    /// The real server: address, or address and port.
    pub server: String,
    /// What to do.
    pub said: ServerSaid,
}

/// What to do with a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum ServerSaid {
    /// As configured again.
    Enable,
    /// No new connections.
    Disable,
    /// Another weight.
    Weight(u32),
    /// No new connections, and after so many seconds those that there are are closed.
    Drain {
        /// None: never.
        within_s: Option<u64>,
    },
}

/// Why a command is not carried out, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It names nothing that there is.
    Unknown(String),
    /// It says too little, or there is too much already.
    Wrong(String),
    /// It could not be done, or not all of it.
    Failed(String),
}
