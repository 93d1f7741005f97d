//! Alerts: what the YAML says of who is told when something is down.

mod file;
mod kinds;
mod model;
mod period;
mod resolve;

pub(super) use file::AlertFile;
pub use model::{AlertKind, AlertTarget, AlertWay, MailTls, MailWay, ProgramWay, WebhookWay};
pub use period::Period;
