//! Health checks: what the YAML says of them.

mod file;
mod kinds;
mod model;
mod resolve;
mod sense;

pub(super) use file::CheckChoices;
pub use kinds::compile;
pub(super) use kinds::{AbsolutePath, HeaderValue, Text};
pub use model::{
    AgentProbe, Check, Digest, DnsProbe, DnsRecord, ExchangeProbe, ExternalProbe, HttpProbe,
    LoginProbe, Pattern, Probe, Secret, SipProbe, SmtpProbe, Step, Timing, TlsOptions, TlsProbe,
    UdpProbe,
};
