//! From the YAML's structs to the model: defaults applied, every value read, all mistakes collected.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::across::Across;
use super::addresses::{Address, RealServerWord};
use super::defaults::{
    CONNECTIONS, Defaults, FRAGMENT_TIMEOUT_MS, GUE_PORT, ICMP_PER_SECOND, INSTANCE, SOURCE_IPV4,
    SOURCE_IPV6,
};
use super::error::{Mistake, Place};
use super::file::{DefaultsFile, File, RealServerFile, ServiceFile, TunnelChoice};
use super::kinds::{FlagWord, InterfaceName, MethodWord, Port, SchedulerWord, TunnelWord, Word};
use super::limits;
use super::model::{
    Config, ConnectionLimits, Interface, Method, RealServer, Scheduler, Tunnel, TunnelSettings,
    VirtualService, XdpMode,
};
use super::value::{Kind, Located, Optional, ShortOrLong, Value};

/// Reads every value. Gives the configuration, or all mistakes.
pub(super) fn resolve(file: &File) -> Result<Config, Vec<Mistake>> {
    let mut resolver = Resolver::default();
    let config = resolver.config(file);
    if resolver.mistakes.is_empty() {
        Ok(config)
    } else {
        Err(resolver.mistakes)
    }
}

#[derive(Default)]
struct Resolver {
    mistakes: Vec<Mistake>,
}

impl Resolver {
    fn config(&mut self, file: &File) -> Config {
        let instance = self.or(&file.instance, INSTANCE.to_owned());
        let interfaces = self.interfaces(file);
        let defaults = file
            .defaults
            .as_ref()
            .map(|defaults| self.defaults(defaults))
            .unwrap_or_default();
        let services = self.services(file.services.as_deref().unwrap_or_default(), &defaults);
        let tunnel = file.tunnel.as_ref();
        let connections = file.connections.as_ref();
        Config {
            interfaces,
            services,
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
            instance,
        }
    }

    /// The value of a key, else the default. A wrong value is noted and the default stands in for it.
    fn or<K: Kind>(&mut self, value: &Optional<Value<K>>, default: K::Parsed) -> K::Parsed {
        value
            .as_ref()
            .and_then(|value| value.read(&mut self.mistakes))
            .unwrap_or(default)
    }

    /// The value of a key that must be there.
    fn required<K: Kind>(
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

    fn defaults(&mut self, file: &DefaultsFile) -> Defaults {
        let last_resort = Defaults::default();
        Defaults {
            port: file
                .port
                .as_ref()
                .and_then(|port| port.read(&mut self.mistakes)),
            protocol: self.or(&file.protocol, last_resort.protocol),
            scheduler: self.or(&file.scheduler, last_resort.scheduler),
            mh_port: file.flags.as_ref().is_some_and(|flags| self.mh_port(flags)),
            method: self.or(&file.method, last_resort.method),
            tunnel: self.tunnel(&file.tunnel, last_resort.tunnel),
            weight: self.or(&file.weight, last_resort.weight),
        }
    }

    fn mh_port(&mut self, flags: &[Value<Word<FlagWord>>]) -> bool {
        let mut found = false;
        for flag in flags {
            match flag.read(&mut self.mistakes) {
                Some(FlagWord::MhPort) => found = true,
                None => {}
            }
        }
        found
    }

    fn tunnel(&mut self, written: &Optional<TunnelChoice>, default: Tunnel) -> Tunnel {
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

    fn services(
        &mut self,
        list: &[Located<ServiceFile>],
        defaults: &Defaults,
    ) -> Vec<VirtualService> {
        let mut across = Across::default();
        let mut services = Vec::with_capacity(list.len());
        for written in list {
            if let Some((service, places)) = self.service(&written.value, written.place, defaults) {
                across.add(&service, written.place, &places, &mut self.mistakes);
                services.push(service);
            }
        }
        across.finish(&mut self.mistakes);
        services
    }

    /// A service and the places of its real servers; `None` if it could not be read far enough to check it against others.
    fn service(
        &mut self,
        file: &ServiceFile,
        place: Place,
        defaults: &Defaults,
    ) -> Option<(VirtualService, Vec<Place>)> {
        let address = self.required("address", &file.address, place);
        let port = match (file.port.as_ref(), defaults.port) {
            (None, Some(port)) => Some(port),
            _ => self.required("port", &file.port, place),
        };
        let name = file
            .name
            .as_ref()
            .and_then(|name| name.read(&mut self.mistakes));
        let protocol = self.or(&file.protocol, defaults.protocol);
        let scheduler = self.scheduler(file, defaults);
        let for_real_servers = Defaults {
            port,
            method: self.or(&file.method, defaults.method),
            tunnel: self.tunnel(&file.tunnel, defaults.tunnel),
            weight: self.or(&file.weight, defaults.weight),
            ..*defaults
        };
        let list = file.real_servers.as_deref().unwrap_or_default();
        let mut real_servers = Vec::with_capacity(list.len());
        let mut places = Vec::with_capacity(list.len());
        let mut seen = HashMap::new();
        for written in list {
            let Some(real_server) = self.real_server(written, address, &for_real_servers) else {
                continue;
            };
            if let Some(first) = seen.insert(real_server.socket_address(), written.place()) {
                let what = format!(
                    "the real server {} of this service",
                    real_server.socket_address()
                );
                self.repeated(
                    written.place(),
                    &what,
                    first,
                    "every real server once in a service",
                );
            }
            real_servers.push(real_server);
            places.push(written.place());
        }
        self.useless_tunnel(file, for_real_servers.method, &real_servers);
        let (address, port) = (address?, port?);
        let name = name.unwrap_or_else(|| format!("{protocol}/{}", SocketAddr::new(address, port)));
        Some((
            VirtualService {
                name,
                address,
                port,
                protocol,
                scheduler,
                real_servers,
            },
            places,
        ))
    }

    fn scheduler(&mut self, file: &ServiceFile, defaults: &Defaults) -> Scheduler {
        let word = self.or(&file.scheduler, defaults.scheduler);
        let own_flag = file
            .flags
            .as_ref()
            .map(|flags| (self.mh_port(&flags.value), flags.place));
        if let Some((true, place)) = own_flag
            && word != SchedulerWord::Mh
        {
            let message = "found the flag mh-port, but the scheduler of this service is not mh";
            self.mistakes.push(Mistake::new(
                place,
                message,
                "\"scheduler: mh\", or no such flag",
            ));
        }
        match word {
            SchedulerWord::Rr => Scheduler::Rr,
            SchedulerWord::Wrr => Scheduler::Wrr,
            SchedulerWord::Mh => Scheduler::Mh {
                port: own_flag.map_or(defaults.mh_port, |(flag, _)| flag),
            },
        }
    }

    fn real_server(
        &mut self,
        written: &ShortOrLong<RealServerWord, RealServerFile>,
        virtual_address: Option<IpAddr>,
        defaults: &Defaults,
    ) -> Option<RealServer> {
        let nothing = RealServerFile::default();
        let place = written.place();
        let (endpoint, file, port_place) = match written {
            ShortOrLong::Short(word) => (word.read(&mut self.mistakes), &nothing, place),
            ShortOrLong::Long(long) => {
                let file = &long.value;
                let own_port = file
                    .port
                    .as_ref()
                    .map(|port: &Value<Port>| port.read(&mut self.mistakes));
                let address = self.required::<Address>("address", &file.address, place);
                // A port that could not be read must not be taken for none.
                let endpoint = address
                    .filter(|_| own_port != Some(None))
                    .map(|address| (address, own_port.flatten()));
                (
                    endpoint,
                    file,
                    file.port.as_ref().map_or(place, |port| port.place),
                )
            }
        };
        let word = self.or(&file.method, defaults.method);
        let tunnel = self.tunnel(&file.tunnel, defaults.tunnel);
        let weight = self.or(&file.weight, defaults.weight);
        if let (Some(tunnel), MethodWord::Nat | MethodWord::Dr) = (file.tunnel.as_ref(), word) {
            self.tunnel_without_tun(tunnel.place(), word);
        }
        let (address, own_port) = endpoint?;
        if let (Some(found), Some(expected), MethodWord::Dr | MethodWord::Tun) =
            (own_port, defaults.port, word)
            && found != expected
        {
            let message = format!(
                "found port {found}, but the method {} cannot change ports",
                name_of(word)
            );
            let expected = format!("the service's port {expected}, or the method nat");
            self.mistakes
                .push(Mistake::new(port_place, message, expected));
        }
        if let (Some(virtual_address), MethodWord::Nat | MethodWord::Dr) = (virtual_address, word)
            && virtual_address.is_ipv4() != address.is_ipv4()
        {
            let family = |address: IpAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
            let message = format!(
                "found the {} real server {address} in an {} service with the method {}",
                family(address),
                family(virtual_address),
                name_of(word),
            );
            self.mistakes.push(Mistake::new(
                place,
                message,
                "the method tun, or an address of the same family",
            ));
        }
        let method = match word {
            MethodWord::Nat => Method::Nat,
            MethodWord::Dr => Method::Dr,
            MethodWord::Tun => Method::Tun(tunnel),
        };
        Some(RealServer {
            address,
            port: own_port.or(defaults.port)?,
            weight,
            method,
        })
    }

    /// A tunnel written for a service of which no real server is reached by one.
    fn useless_tunnel(
        &mut self,
        file: &ServiceFile,
        method: MethodWord,
        real_servers: &[RealServer],
    ) {
        let used = real_servers
            .iter()
            .any(|real_server| matches!(real_server.method, Method::Tun(_)));
        if let (Some(tunnel), MethodWord::Nat | MethodWord::Dr, false) =
            (file.tunnel.as_ref(), method, used)
        {
            self.tunnel_without_tun(tunnel.place(), method);
        }
    }

    fn tunnel_without_tun(&mut self, place: Place, method: MethodWord) {
        let message = format!("found a tunnel, but the method here is {}", name_of(method));
        self.mistakes.push(Mistake::new(
            place,
            message,
            "\"method: tun\", or no tunnel",
        ));
    }

    fn repeated(&mut self, place: Place, what: &str, first: Place, expected: &str) {
        let message = format!("{what} stands already in line {}", first.line);
        self.mistakes.push(Mistake::new(place, message, expected));
    }
}

fn name_of(method: MethodWord) -> &'static str {
    match method {
        MethodWord::Nat => "nat",
        MethodWord::Dr => "dr",
        MethodWord::Tun => "tun",
    }
}
