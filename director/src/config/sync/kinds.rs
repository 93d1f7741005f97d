//! The kinds of single values in the section.

use std::net::IpAddr;
use std::time::Duration;

use conn_sync::entry::{NODE_NAME_BYTES, NodeName};
use serde_json::json;

use crate::config::kinds::Words;
use crate::config::limits;
use crate::config::value::{Kind, Refusal};

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SyncProtocol {
    Director,
    Ipvs,
}

impl Words for SyncProtocol {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("director", SyncProtocol::Director),
        ("ipvs", SyncProtocol::Ipvs),
    ];
}

/// A node's name.
#[derive(Debug)]
pub(super) struct NodeWord;

impl Kind for NodeWord {
    type Parsed = String;

    fn expected() -> String {
        format!("a name of 1 to {NODE_NAME_BYTES} bytes without spaces or control characters")
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1, "maxLength": NODE_NAME_BYTES })
    }

    fn parse(text: &str) -> Result<String, Refusal> {
        let allowed = !text.chars().any(|c| c.is_control() || c.is_whitespace());
        (allowed && NodeName::new(text).is_ok())
            .then(|| text.to_owned())
            .ok_or_else(Refusal::default)
    }
}

/// A multicast group.
#[derive(Debug)]
pub(super) struct Group;

impl Kind for Group {
    type Parsed = IpAddr;

    fn expected() -> String {
        "a multicast address, like 224.0.0.81 or ff02::81".to_owned()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1 })
    }

    fn parse(text: &str) -> Result<IpAddr, Refusal> {
        let address: Option<IpAddr> = text.parse().ok();
        address
            .filter(IpAddr::is_multicast)
            .ok_or_else(Refusal::default)
    }
}

/// A time of the section.
#[derive(Debug)]
pub(super) struct SyncTime;

impl Kind for SyncTime {
    type Parsed = Duration;

    fn expected() -> String {
        "a time with its unit from 100ms to 1h, like 5s".to_owned()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^[0-9]" })
    }

    fn parse(text: &str) -> Result<Duration, Refusal> {
        let time = humantime::parse_duration(text).map_err(|_| Refusal::default())?;
        limits::SYNC_TIME
            .contains(&time)
            .then_some(time)
            .ok_or_else(Refusal::default)
    }
}
