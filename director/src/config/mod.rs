//! The YAML configuration: model, loading with errors for people, limits, schema.
//!
//! ```text
//!  text ──► yaml ──► file: as written, every value ──► resolve ──► model
//!                     │     with its place               │ defaults, across (several services)
//!                     │     (value, kinds, addresses)    └──► error: all mistakes; limits
//!                     └──► schema
//! ```
//!
//! A file that was read before and has changed in one place is read there only (`again`).
//!
//! The rest of the director sees only the model: addresses parsed, defaults applied, everything checked that can be
//! checked without looking at the machine.

mod across;
mod addresses;
mod again;
mod alerts;
mod checks;
mod defaults;
mod error;
mod file;
mod guess;
mod kinds;
pub mod limits;
mod load;
mod model;
mod resolve;
mod schema;
mod services;
mod sync;
#[cfg(test)]
mod tests;
mod thresholds;
mod value;
mod yaml;

pub use again::Reader;
pub use alerts::{
    AlertKind, AlertTarget, AlertWay, MailTls, MailWay, Period, ProgramWay, WebhookWay,
};
pub use checks::{
    AgentProbe, Check, Digest, DnsProbe, DnsRecord, ExchangeProbe, ExternalProbe, HttpProbe,
    LoginProbe, Pattern, Probe, Secret, SipProbe, SmtpProbe, Step, Timing, TlsOptions, TlsProbe,
    UdpProbe, compile,
};
pub use error::{ConfigError, Mistake, Mistakes, Place};
pub use guess::guess_control_socket;
pub use load::{load, load_of_running, parse, read_regular_text};
pub use model::{
    Config, ConnectionLimits, Endpoint, Health, Interface, Method, NoServer, OnDown, Persistence,
    Ports, Protocol, RealServer, RemovedServers, Scheduler, Timeouts, Track, Tunnel,
    TunnelSettings, UntilChecked, VirtualService, XdpMode,
};
pub use schema::schema;
pub use sync::{KernelSync, KeyFile, Sync, SyncKeyError, SyncKeys, load_sync_keys};
