//! Connection-table updates from a director to its backups, so that established connections survive a failover.
//!
//! Nothing lives here yet but this plan. What will:
//!
//! ```text
//!  connection table ──walk──► sender ──► wire ──UDP multicast──► wire ──► receiver ──► the backup's table
//!  (mapped memory)                        └──── bulk resync over TCP ────┘
//! ```
//!
//! * `wire`: Director's own messages and the kernel's IPVS sync protocol as codecs without I/O.
//! * `machine`: what is sent next, what is missing, when a node is synced.
//! * `link`: multicast and unicast sockets, the resync stream.
//! * `config`: peers, group, rate, keys.
//!
//! It sends *state, not events*: a burst can delay an update but cannot lose one. It does **not** know
//! who is in charge, how packets are forwarded or what a virtual service is called.
