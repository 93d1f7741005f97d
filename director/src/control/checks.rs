//! What `director checks` knows. Field names are an interface: they may be added to, not changed.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// One check of one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckStatus {
    /// The real server's address.
    pub server: IpAddr,
    /// The port that is asked; 0: the check has none.
    pub port: u16,
    /// Ports of the real server in the services that want it, as `director status` names it; none: those services have several.
    #[serde(default)]
    pub service_ports: Vec<u16>,
    /// Its type, like `http`.
    pub check: String,
    /// The virtual address that it is sent to at that real server, if it goes the way of clients' packets.
    #[serde(default)]
    pub through: Option<IpAddr>,
    /// Services that want it.
    pub services: Vec<String>,
    /// `up`, `down` or `unchecked`.
    pub state: String,
    /// For how many seconds it has been so; none while unchecked.
    pub for_s: Option<u64>,
    /// The words of its last result.
    pub words: String,
    /// What an agent reported, in its words.
    #[serde(default)]
    pub said: Option<String>,
    /// Runs so far.
    pub runs: u64,
    /// Failed ones among them.
    pub failures: u64,
    /// Milliseconds until it runs next; none while it runs.
    pub next_in_ms: Option<u64>,
    /// Its last results, the newest first.
    pub history: Vec<RunStatus>,
}

/// One result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStatus {
    /// How many milliseconds ago it began.
    pub ago_ms: u64,
    /// How many it took.
    pub took_ms: u64,
    /// Whether it succeeded.
    pub good: bool,
    /// The kind of failure.
    pub kind: Option<String>,
    /// In words.
    pub words: String,
}
