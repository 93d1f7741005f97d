//! Health checks: what the YAML says of them.

mod model;

pub use model::{
    AgentProbe, Check, Digest, DnsProbe, DnsRecord, ExchangeProbe, ExternalProbe, HttpProbe,
    LoginProbe, Pattern, Probe, Secret, SipProbe, SmtpProbe, Step, Timing, TlsOptions, TlsProbe,
    UdpProbe,
};
