//! From the YAML's structs to the model: defaults applied, every value read, all mistakes collected.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::across::Across;
use super::defaults::{
    CONNECTIONS, Defaults, FRAGMENT_TIMEOUT_MS, GUE_PORT, ICMP_PER_SECOND, INSTANCE, SOURCE_IPV4,
    SOURCE_IPV6,
};
use super::error::{Mistake, Place};
use super::file::{DefaultsFile, File, ServiceFile, TunnelChoice};
use super::kinds::{InterfaceName, TunnelWord};
use super::limits;
use super::model::{
    Config, ConnectionLimits, Interface, Tunnel, TunnelSettings, VirtualService, XdpMode,
};
use super::services::Behaviour;
use super::value::{Kind, Located, Optional, ShortOrLong, Value};

/// Reads every value. Gives the configuration and the places of its services, or all mistakes.
pub(super) fn resolve(file: &File) -> Result<(Config, Vec<Place>), Vec<Mistake>> {
    Resolver::default().whole(file)
}

/// As [`resolve`], of a file that lacks some services: what they must not have in common is not looked at.
pub(super) fn resolve_part(file: &File) -> Result<(Config, Vec<Place>), Vec<Mistake>> {
    let resolver = Resolver {
        is_part: true,
        ..Resolver::default()
    };
    resolver.whole(file)
}

/// Whether services, each of which is right, are so together.
pub(super) fn are_sound_together(services: &[VirtualService]) -> bool {
    let mut mistakes = Vec::new();
    let mut across = Across::default();
    for service in services {
        let places = vec![Place::default(); service.all_servers().count()];
        across.add(service, Place::default(), &places, &mut mistakes);
    }
    across.finish(true, &mut mistakes);
    mistakes.is_empty()
}

#[derive(Default)]
pub(super) struct Resolver {
    pub(super) mistakes: Vec<Mistake>,
    /// Places of the services.
    pub(super) places: Vec<Place>,
    pub(super) is_part: bool,
}

impl Resolver {
    fn whole(mut self, file: &File) -> Result<(Config, Vec<Place>), Vec<Mistake>> {
        let config = self.config(file);
        if self.mistakes.is_empty() {
            Ok((config, self.places))
        } else {
            Err(self.mistakes)
        }
    }

    fn config(&mut self, file: &File) -> Config {
        let instance = self.or(&file.instance, INSTANCE.to_owned());
        let interfaces = self.interfaces(file);
        let defaults = file
            .defaults
            .as_ref()
            .map(|defaults| self.defaults(defaults, file.services.as_deref().unwrap_or_default()))
            .unwrap_or_default();
        let services = self.services(file.services.as_deref().unwrap_or_default(), &defaults);
        let alerts = self.alerts(&file.alerts);
        let tunnel = file.tunnel.as_ref();
        let connections = file.connections.as_ref();
        let heartbeat = file.heartbeat.as_ref().and_then(|it| self.heartbeat(it));
        let sync = file.sync.as_ref();
        let sync = sync.and_then(|it| self.sync(it, heartbeat.as_deref()));
        Config {
            interfaces,
            services,
            alerts,
            tunnel: TunnelSettings {
                source_ipv4: tunnel.map_or(SOURCE_IPV4, |tunnel| {
                    self.or(&tunnel.source_ipv4, SOURCE_IPV4)
                }),
                source_ipv6: tunnel.map_or(SOURCE_IPV6, |tunnel| {
                    self.or(&tunnel.source_ipv6, SOURCE_IPV6)
                }),
            },
            connections: ConnectionLimits {
                ipv4: connections.map_or(CONNECTIONS.ipv4, |given| {
                    self.or(&given.ipv4, CONNECTIONS.ipv4)
                }),
                ipv6: connections.map_or(CONNECTIONS.ipv6, |given| {
                    self.or(&given.ipv6, CONNECTIONS.ipv6)
                }),
            },
            icmp_per_second: self.or(&file.icmp_per_second, ICMP_PER_SECOND),
            fragment_timeout_ms: self.or(&file.fragment_timeout, FRAGMENT_TIMEOUT_MS),
            control_socket: self.or(
                &file.control,
                PathBuf::from(format!("/run/director/{instance}.sock")),
            ),
            watch: self.or(&file.watch, false),
            heartbeat,
            sync,
            instance,
        }
    }

    /// The value of a key, else the default. A wrong value is noted and the default stands in for it.
    pub(super) fn or<K: Kind>(
        &mut self,
        value: &Optional<Value<K>>,
        default: K::Parsed,
    ) -> K::Parsed {
        value
            .as_ref()
            .and_then(|value| value.read(&mut self.mistakes))
            .unwrap_or(default)
    }

    /// The value of a key, if it is there and can be read.
    pub(super) fn maybe<K: Kind>(&mut self, value: &Optional<Value<K>>) -> Option<K::Parsed> {
        value
            .as_ref()
            .and_then(|value| value.read(&mut self.mistakes))
    }

    /// The value of a key that must be there.
    pub(super) fn required<K: Kind>(
        &mut self,
        key: &str,
        value: &Optional<Value<K>>,
        place: Place,
    ) -> Option<K::Parsed> {
        match value.as_ref() {
            Some(value) => value.read(&mut self.mistakes),
            None => {
                self.mistakes.push(Mistake::new(
                    place,
                    format!("the key \"{key}\" is missing here"),
                    K::expected(),
                ));
                None
            }
        }
    }

    fn interfaces(&mut self, file: &File) -> Vec<Interface> {
        let (list, place) = match file.interfaces.as_ref() {
            Some(interfaces) => (interfaces.value.as_slice(), interfaces.place),
            None => (&[][..], Place { line: 1, column: 1 }),
        };
        if list.is_empty() {
            let expected = format!(
                "the key \"interfaces\" with at least one of them: {}",
                InterfaceName::expected()
            );
            self.mistakes
                .push(Mistake::new(place, "there are no interfaces", expected));
        }
        self.mistakes
            .extend(limits::INTERFACES.check(list.len(), place));
        let mut seen = HashMap::new();
        let mut interfaces = Vec::new();
        for written in list {
            let (name, mode) = match written {
                ShortOrLong::Short(name) => (name.read(&mut self.mistakes), XdpMode::default()),
                ShortOrLong::Long(long) => (
                    self.required("name", &long.value.name, long.place),
                    self.or(&long.value.mode, XdpMode::default()),
                ),
            };
            let Some(name) = name else { continue };
            if let Some(first) = seen.insert(name.clone(), written.place()) {
                self.repeated(
                    written.place(),
                    &format!("the interface {name}"),
                    first,
                    "every interface once",
                );
            }
            interfaces.push(Interface { name, mode });
        }
        interfaces
    }

    fn defaults(&mut self, file: &DefaultsFile, services: &[Located<ServiceFile>]) -> Defaults {
        let last_resort = Defaults::default();
        let behaviour = Behaviour {
            fallback: &file.fallback,
            timeouts: file.timeouts.as_ref(),
            sloppy: &file.sloppy,
            persistence: &file.persistence,
            one_packet: &file.one_packet,
            no_server: &file.no_server,
            removed_servers: &file.removed_servers,
            upper_threshold: &file.upper_threshold,
            lower_threshold: &file.lower_threshold,
            has_upper_threshold_inside: services.iter().any(|it| {
                it.value.upper_threshold.is_some() || it.value.has_upper_threshold_inside()
            }),
            check: &file.check,
            on_down: &file.on_down,
            until_checked: &file.until_checked,
            quorum: &file.quorum,
            hysteresis: &file.hysteresis,
            slow_start: &file.slow_start,
        };
        Defaults {
            port: file
                .port
                .as_ref()
                .and_then(|port| port.read(&mut self.mistakes)),
            protocol: self.or(&file.protocol, last_resort.protocol),
            scheduler: self.or(&file.scheduler, last_resort.scheduler),
            flags: file
                .flags
                .as_ref()
                .map_or(last_resort.flags, |flags| self.flags(flags)),
            method: self.or(&file.method, last_resort.method),
            tunnel: self.tunnel(&file.tunnel, last_resort.tunnel),
            weight: self.or(&file.weight, last_resort.weight),
            ..self.behaviour(&behaviour, &last_resort)
        }
    }

    pub(super) fn tunnel(&mut self, written: &Optional<TunnelChoice>, default: Tunnel) -> Tunnel {
        let (word, port) = match written.as_ref() {
            None => return default,
            Some(ShortOrLong::Short(word)) => (word.read(&mut self.mistakes), None),
            Some(ShortOrLong::Long(long)) => (
                self.required("type", &long.value.kind, long.place),
                long.value.port.as_ref(),
            ),
        };
        let gue_port = port
            .and_then(|port| port.read(&mut self.mistakes))
            .unwrap_or(GUE_PORT);
        if let (Some(TunnelWord::Ipip | TunnelWord::Gre), Some(port)) = (word, port) {
            let message = "found a port, but only gue has one";
            self.mistakes.push(Mistake::new(
                port.place,
                message,
                "the type gue, or no port",
            ));
        }
        match word {
            None => default,
            Some(TunnelWord::Ipip) => Tunnel::Ipip,
            Some(TunnelWord::Gue) => Tunnel::Gue { port: gue_port },
            Some(TunnelWord::Gre) => Tunnel::Gre,
        }
    }

    /// The section is heartbeat's own business, which has its own file where it runs alone.
    fn heartbeat(
        &mut self,
        written: &Located<heartbeat::config::File>,
    ) -> Option<Arc<heartbeat::config::Config>> {
        // What a node is called by default; without it the name is missing, and that is told.
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        match heartbeat::config::resolve(&written.value, host.trim()) {
            Ok(config) => Some(Arc::new(config)),
            Err(mistakes) => {
                self.mistakes.extend(mistakes.into_iter().map(|mistake| {
                    // What is missing in the whole section has no other place.
                    let place = match mistake.place {
                        heartbeat::config::Place { line: 0, .. } => written.place,
                        heartbeat::config::Place { line, column } => Place { line, column },
                    };
                    let message = format!("heartbeat.{}: {}", mistake.path, mistake.message);
                    Mistake::new(place, message, mistake.expected)
                }));
                None
            }
        }
    }

    pub(super) fn repeated(&mut self, place: Place, what: &str, first: Place, expected: &str) {
        let message = format!("{what} stands already in line {}", first.line);
        self.mistakes.push(Mistake::new(place, message, expected));
    }
}
