//! From the YAML's structs to the model.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use conn_sync::config::{DATAGRAM_BYTES, GROUP, PORT, RECORDS_PER_SECOND};
use conn_sync::wire::ipvs;
use heartbeat::config::LinkKind;

use super::file::{SyncFile, SyncKeyFile, SyncKeysFile};
use super::kinds::{NodeWord, SyncProtocol};
use super::model::{KernelSync, KeyFile, Sync, SyncKeys};
use crate::config::error::{Mistake, Place};
use crate::config::kinds::Number;
use crate::config::limits;
use crate::config::resolve::Resolver;
use crate::config::value::{Kind, Located, Optional, Value};

/// When what is in use is told again, by the kernel's protocol.
const REFRESH: Duration = Duration::from_secs(60);
/// How long another node is waited for at start.
const ALONE_AFTER: Duration = Duration::from_secs(5);

/// Heartbeat's link on this interface and port.
fn link_at<'h>(
    heartbeat: &'h heartbeat::config::Config,
    interface: &str,
    port: u16,
) -> Option<&'h str> {
    let mut links = heartbeat.links.iter();
    let link = links.find(|link| match &link.kind {
        LinkKind::Udp(udp) => udp.interface == interface && udp.port == port,
        LinkKind::Serial(_) | LinkKind::Vrrp(_) => false,
    })?;
    Some(&link.name)
}

impl Resolver {
    /// `heartbeat` is what calls this node by a name, and has ports of its own.
    pub(in crate::config) fn sync(
        &mut self,
        written: &Located<SyncFile>,
        heartbeat: Option<&heartbeat::config::Config>,
    ) -> Option<Arc<Sync>> {
        let (file, place) = (&written.value, written.place);
        let interface = self.required("interface", &file.interface, place);
        let node = match file.node.as_ref() {
            Some(node) => node.read(&mut self.mistakes),
            None => self.node_by_default(heartbeat.map(|it| it.node.as_str()), place),
        };
        let kernel = self.kernel(file);
        let peers = self.peers(file);
        let group = self.or(&file.group, IpAddr::from(GROUP));
        let keys = file.key.as_ref();
        let has_keys = keys.is_some();
        let keys = keys.and_then(|keys| self.keys(&keys.value, keys.place));
        let sync = Sync {
            peers,
            group,
            // Within the limits of the kinds.
            ttl: self.or(&file.ttl, 1) as u8,
            port: self.or(&file.port, if kernel.is_some() { ipvs::PORT } else { PORT }),
            kernel,
            records_per_second: self.or(&file.rate, RECORDS_PER_SECOND),
            datagram_bytes: self.or(&file.datagram, DATAGRAM_BYTES as u32) as usize,
            alone_after: self.or(&file.alone_after, ALONE_AFTER),
            interface: interface?,
            node: node?,
            keys,
        };
        if let Some(link) = heartbeat.and_then(|it| link_at(it, &sync.interface, sync.port)) {
            let place = file.port.as_ref().map_or(place, |it| it.place);
            let message = format!(
                "port {} on {} is that of heartbeat's link \"{link}\" too",
                sync.port, sync.interface
            );
            let expected = "a port of its own for each, by \"port\" here or at the link";
            self.mistakes.push(Mistake::new(place, message, expected));
        }
        (sync.keys.is_some() || !has_keys).then(|| Arc::new(sync))
    }

    /// The kernel's protocol, if it is to be spoken; what only one of the two has is a mistake with the other.
    fn kernel(&mut self, file: &SyncFile) -> Option<KernelSync> {
        let protocol = self.maybe(&file.protocol);
        if protocol.is_none() && file.protocol.is_some() {
            // Which keys go with it is not known.
            return None;
        }
        let is_kernel = protocol == Some(SyncProtocol::Ipvs);
        let place =
            |is_there: Option<Place>, name: &'static str| is_there.map(|place| (name, place));
        let (others, whose) = if is_kernel {
            let others = [
                place(file.peers.as_ref().map(|it| it.place), "peers"),
                place(file.key.as_ref().map(|it| it.place), "key"),
                place(file.datagram.as_ref().map(|it| it.place), "datagram"),
                place(file.alone_after.as_ref().map(|it| it.place), "alone_after"),
            ];
            (others, "director")
        } else {
            let others = [
                place(file.syncid.as_ref().map(|it| it.place), "syncid"),
                place(file.sync_maxlen.as_ref().map(|it| it.place), "sync_maxlen"),
                place(
                    file.sync_refresh_period.as_ref().map(|it| it.place),
                    "sync_refresh_period",
                ),
                place(
                    file.sync_retries.as_ref().map(|it| it.place),
                    "sync_retries",
                ),
            ];
            (others, "ipvs")
        };
        for (name, place) in others.into_iter().flatten() {
            let message = format!("found \"{name}\", which only the protocol {whose} has");
            let expected = format!("no key \"{name}\", or protocol: {whose}");
            self.mistakes.push(Mistake::new(place, message, expected));
        }
        let refresh = self.or(&file.sync_refresh_period, REFRESH);
        is_kernel.then(|| KernelSync {
            // Within the limits of the kinds.
            syncid: self.or(&file.syncid, 0) as u8,
            sync_maxlen: self.or(&file.sync_maxlen, DATAGRAM_BYTES as u32) as usize,
            sync_refresh_period_s: refresh.as_secs().max(1) as u16,
            sync_retries: self.or(&file.sync_retries, 0) as u8,
        })
    }

    fn node_by_default(&mut self, heartbeat: Option<&str>, place: Place) -> Option<String> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = heartbeat.unwrap_or(host.trim());
        let parsed = NodeWord::parse(name).ok();
        if parsed.is_none() {
            let message = format!("the key \"node\" is missing here, and \"{name}\" is no name");
            self.mistakes
                .push(Mistake::new(place, message, NodeWord::expected()));
        }
        parsed
    }

    fn peers(&mut self, file: &SyncFile) -> Vec<IpAddr> {
        let Some(written) = file.peers.as_ref() else {
            return Vec::new();
        };
        self.mistakes
            .extend(limits::SYNC_PEERS.check(written.value.len(), written.place));
        if written.value.is_empty() {
            let message = "there are no peers in the list";
            let expected =
                "addresses of the other nodes, or no key \"peers\": then those of the group";
            self.mistakes
                .push(Mistake::new(written.place, message, expected));
        }
        for (name, place) in [
            ("group", file.group.as_ref().map(|it| it.place)),
            ("ttl", file.ttl.as_ref().map(|it| it.place)),
        ] {
            if let Some(place) = place {
                let message =
                    format!("found \"{name}\" and \"peers\", but a group has no list of peers");
                self.mistakes
                    .push(Mistake::new(place, message, "one of the two"));
            }
        }
        let mut seen = HashMap::new();
        let mut peers = Vec::new();
        for written in &written.value {
            let Some(peer) = written.read(&mut self.mistakes) else {
                continue;
            };
            if let Some(first) = seen.insert(peer, written.place) {
                self.repeated(
                    written.place,
                    &format!("the peer {peer}"),
                    first,
                    "every peer once",
                );
            }
            peers.push(peer);
        }
        peers
    }

    fn keys(&mut self, file: &SyncKeysFile, place: Place) -> Option<SyncKeys> {
        let active = self.key(&file.id, &file.file, place);
        let mut ids: HashMap<u8, Place> = active.iter().map(|key| (key.id, place)).collect();
        let mut accept = Vec::new();
        let written = file.accept.as_ref();
        for written in written.map(|it| it.value.as_slice()).unwrap_or_default() {
            let SyncKeyFile { id, file } = &written.value;
            let Some(key) = self.key(id, file, written.place) else {
                continue;
            };
            if let Some(first) = ids.insert(key.id, written.place) {
                let what = format!("a key with the id {}", key.id);
                self.repeated(
                    written.place,
                    &what,
                    first,
                    "every key with an id of its own",
                );
            }
            accept.push(key);
        }
        if let Some(written) = written {
            self.mistakes
                .extend(limits::SYNC_KEYS.check(written.value.len(), written.place));
        }
        Some(SyncKeys {
            active: active?,
            accept,
        })
    }

    fn key(
        &mut self,
        id: &Optional<Value<Number<1, 255>>>,
        file: &Optional<Value<crate::config::checks::AbsolutePath>>,
        place: Place,
    ) -> Option<KeyFile> {
        let id = self.required("id", id, place);
        let file = self.required("file", file, place);
        Some(KeyFile {
            // Within the limits of its kind.
            id: id? as u8,
            file: file?,
        })
    }
}
