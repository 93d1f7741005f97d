//! The section as it is written in YAML.

use schemars::JsonSchema;
use serde::Deserialize;

use super::kinds::{Group, NodeWord, SyncProtocol, SyncTime};
use crate::config::addresses::Address;
use crate::config::checks::AbsolutePath;
use crate::config::kinds::{InterfaceName, Number, Port, Word};
use crate::config::limits;
use crate::config::value::{Located, Optional, Value};

/// With whom this director shares its connections, so that they go on when another one takes over.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Sync", extend("required" = ["interface"]))]
pub(in crate::config) struct SyncFile {
    /// Interface that it talks to the others on.
    pub(super) interface: Optional<Value<InterfaceName>>,
    /// This node's name among them. Default: heartbeat's, else the host's.
    pub(super) node: Optional<Value<NodeWord>>,
    /// director: Director's own protocol. ipvs: the kernel's, with a Linux IPVS director as the other. Default: director.
    pub(super) protocol: Optional<Value<Word<SyncProtocol>>>,
    /// ipvs: 0 to 255; messages of other ids are not taken, but 0 takes all. Default: 0.
    pub(super) syncid: Optional<Value<Number<0, 255>>>,
    /// ipvs: bytes of the longest message that is sent. Default: 1472.
    pub(super) sync_maxlen: Optional<Value<Number<1024, 65507>>>,
    /// ipvs: what is in use is told again after this time, at the latest. Default: 60s.
    pub(super) sync_refresh_period: Optional<Value<SyncTime>>,
    /// ipvs: what was told is told so many times more, an eighth of sync_refresh_period apart: no message is answered. Default: 0.
    pub(super) sync_retries: Optional<Value<Number<0, 3>>>,
    /// Addresses of the others. Default: all that have joined the group.
    pub(super) peers: Optional<Located<Vec<Value<Address>>>>,
    /// Multicast group that they share. Default: 224.0.0.81.
    pub(super) group: Optional<Value<Group>>,
    /// How many routers a datagram to the group may pass, plus one. Default: 1.
    pub(super) ttl: Optional<Value<Number<1, 255>>>,
    /// Port, UDP and TCP. Default: 8849; ipvs: 8848.
    pub(super) port: Optional<Value<Port>>,
    /// What messages are signed with. Default: nothing.
    pub(super) key: Optional<Located<SyncKeysFile>>,
    /// Connections that are told in a second, at most. Default: 200000.
    pub(super) rate: Optional<Value<Number<1, { limits::SYNC_RATE }>>>,
    /// Bytes of the longest datagram. Default: 1472.
    pub(super) datagram: Optional<
        Value<Number<{ limits::SYNC_DATAGRAM_BYTES.0 }, { limits::SYNC_DATAGRAM_BYTES.1 }>>,
    >,
    /// Without another node for so long after its start, this one has what there is to have. Default: 5s.
    pub(super) alone_after: Optional<Value<SyncTime>>,
}

/// Keys.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "SyncKeys", extend("required" = ["id", "file"]))]
pub(super) struct SyncKeysFile {
    /// Its number, which messages name.
    pub(super) id: Optional<Value<Number<1, 255>>>,
    /// Its file: 16 to 1024 bytes that only its owner can read.
    pub(super) file: Optional<Value<AbsolutePath>>,
    /// More keys that are accepted, while one takes another's place.
    pub(super) accept: Optional<Located<Vec<Located<SyncKeyFile>>>>,
}

/// One more key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "SyncKey", extend("required" = ["id", "file"]))]
pub(super) struct SyncKeyFile {
    /// Its number.
    pub(super) id: Optional<Value<Number<1, 255>>>,
    /// Its file.
    pub(super) file: Optional<Value<AbsolutePath>>,
}
