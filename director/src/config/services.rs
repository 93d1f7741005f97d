//! Services and their real servers: from the YAML's structs to the model.

use std::collections::HashMap;

use super::across::Across;
use super::addresses::{Address, RealServerWord};
use super::defaults::{Defaults, Flags, PersistenceDefaults};
use super::error::{Mistake, Place};
use super::file::{
    EndpointFile, PersistenceChoice, RealServerFile, ServiceFile, Threshold, TimeoutsFile,
};
use super::kinds::{
    FlagWord, MethodWord, Port, PortRange, ProtocolWord, SchedulerWord, Switch, Word,
};
use super::limits;
use super::model::{
    Endpoint, Method, NoServer, Persistence, Ports, Protocol, RealServer, RemovedServers,
    Scheduler, Timeouts, VirtualService,
};
use super::resolve::Resolver;
use super::value::{Located, Optional, ShortOrLong, Value};

/// The keys that stand in services and in the defaults alike.
pub(super) struct Behaviour<'a> {
    pub(super) fallback: &'a Optional<Value<Switch>>,
    pub(super) timeouts: Option<&'a TimeoutsFile>,
    pub(super) sloppy: &'a Optional<Value<Switch>>,
    pub(super) persistence: &'a Optional<PersistenceChoice>,
    pub(super) one_packet: &'a Optional<Value<Switch>>,
    pub(super) no_server: &'a Optional<Value<Word<NoServer>>>,
    pub(super) removed_servers: &'a Optional<Value<Word<RemovedServers>>>,
    pub(super) upper_threshold: &'a Optional<Value<Threshold>>,
    pub(super) lower_threshold: &'a Optional<Value<Threshold>>,
}

/// What real servers must know of their service.
struct ForRealServers {
    /// The only port that it has.
    port: Option<u16>,
    /// Whether a range of ports is among its endpoints.
    has_range: bool,
    /// Its address family, if that is known.
    is_ipv4: Option<bool>,
    /// Whether all of its endpoints could be read: else its ports are not known.
    are_endpoints_read: bool,
}

impl Resolver {
    pub(super) fn services(
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
        let mistakes_before = self.mistakes.len();
        let endpoints = self.endpoints(file, place, defaults);
        let are_endpoints_read = self.mistakes.len() == mistakes_before;
        let name = file
            .name
            .as_ref()
            .and_then(|name| name.read(&mut self.mistakes));
        let own = self.behaviour(
            &Behaviour {
                fallback: &file.fallback,
                timeouts: file.timeouts.as_ref(),
                sloppy: &file.sloppy,
                persistence: &file.persistence,
                one_packet: &file.one_packet,
                no_server: &file.no_server,
                removed_servers: &file.removed_servers,
                upper_threshold: &file.upper_threshold,
                lower_threshold: &file.lower_threshold,
            },
            defaults,
        );
        let scheduler = self.scheduler(file, defaults, own.fallback);
        let for_real_servers = Defaults {
            method: self.or(&file.method, defaults.method),
            tunnel: self.tunnel(&file.tunnel, defaults.tunnel),
            weight: self.or(&file.weight, defaults.weight),
            ..own
        };
        let ports: Vec<Ports> = endpoints.iter().map(|endpoint| endpoint.ports).collect();
        let known = ForRealServers {
            port: ports
                .first()
                .filter(|first| ports.iter().all(|ports| ports == *first))
                .and_then(|ports| ports.only()),
            has_range: ports.iter().any(|ports| ports.only().is_none()),
            is_ipv4: endpoints.first().map(|endpoint| endpoint.address.is_ipv4()),
            are_endpoints_read,
        };
        if let (Some(one_packet), true) = (file.one_packet.as_ref(), own.one_packet)
            && endpoints.iter().any(|it| it.protocol == Protocol::Tcp)
        {
            let message = "found one_packet in a service that takes TCP";
            self.mistakes.push(Mistake::new(
                one_packet.place,
                message,
                "\"protocol: udp\", or no such key",
            ));
        }
        // A default may be meant for services of the other family.
        if let (Some(ShortOrLong::Long(long)), Some(true)) =
            (file.persistence.as_ref(), known.is_ipv4)
            && let Some(granularity) = long.value.granularity.as_ref()
            && let Some(33..) = own.persistence.and_then(|it| it.prefix)
        {
            let message = format!(
                "found \"{}\", longer than an IPv4 address",
                granularity.text
            );
            self.mistakes.push(Mistake::new(
                granularity.place,
                message,
                "a number from 1 to 32",
            ));
        }
        let list = file.real_servers.as_deref().unwrap_or_default();
        let mut real_servers = Vec::with_capacity(list.len());
        let mut places = Vec::with_capacity(list.len());
        let mut seen = HashMap::new();
        for written in list {
            let Some(real_server) = self.real_server(written, &known, &for_real_servers) else {
                continue;
            };
            let identity = (real_server.address, real_server.port);
            if let Some(first) = seen.insert(identity, written.place()) {
                let what = format!("the real server {} of this service", real_server.shown());
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
        if !are_endpoints_read {
            return None;
        }
        let name = name.or_else(|| endpoints.first().map(ToString::to_string))?;
        let whole = if known.is_ipv4 == Some(true) { 32 } else { 128 };
        Some((
            VirtualService {
                name,
                scheduler,
                // Of a default that is for UDP services.
                one_packet: own.one_packet
                    && endpoints.iter().all(|it| it.protocol == Protocol::Udp),
                endpoints,
                sloppy: own.sloppy,
                timeouts: own.timeouts,
                persistence: own.persistence.map(|persistence| Persistence {
                    timeout_s: persistence.timeout_s,
                    prefix: persistence.prefix.unwrap_or(whole).min(whole),
                    across_ports: persistence.across_ports,
                    expire_quiescent: persistence.expire_quiescent,
                }),
                no_server: own.no_server,
                removed_servers: own.removed_servers,
                real_servers,
            },
            places,
        ))
    }

    /// Where clients connect to. What could not be read is left out, and noted.
    fn endpoints(
        &mut self,
        file: &ServiceFile,
        place: Place,
        defaults: &Defaults,
    ) -> Vec<Endpoint> {
        let Some(list) = file.endpoints.as_ref() else {
            let address = self.required("address", &file.address, place);
            let port = self.port(&file.port, defaults.port, place);
            let protocol = self.or(&file.protocol, defaults.protocol);
            let (Some(address), Some(ports)) = (address, port) else {
                return Vec::new();
            };
            let protocols = protocol.protocols().iter();
            return protocols
                .map(|protocol| Endpoint {
                    address,
                    ports,
                    protocol: *protocol,
                })
                .collect();
        };
        if let Some(address) = file.address.as_ref() {
            let message = "found an address beside endpoints";
            self.mistakes.push(Mistake::new(
                address.place,
                message,
                "either \"address\" or \"endpoints\"",
            ));
        }
        if list.value.is_empty() {
            self.mistakes.push(Mistake::new(
                list.place,
                "there are no endpoints",
                "at least one address",
            ));
        }
        let default_port = file
            .port
            .as_ref()
            .and_then(|port| port.read(&mut self.mistakes))
            .or(defaults.port);
        let default_protocol = self.or(&file.protocol, defaults.protocol);
        let mut endpoints = Vec::new();
        for written in &list.value {
            let nothing = EndpointFile::default();
            let (address, port, file) = match written {
                ShortOrLong::Short(word) => match word.read(&mut self.mistakes) {
                    Some((address, port)) => (Some(address), port.map(Ports::one), &nothing),
                    None => continue,
                },
                ShortOrLong::Long(long) => (
                    self.required::<Address>("address", &long.value.address, long.place),
                    None,
                    &long.value,
                ),
            };
            let ports = match port {
                Some(port) => Some(port),
                None => self.port(&file.port, default_port, written.place()),
            };
            let protocol = self.or(&file.protocol, default_protocol);
            let (Some(address), Some(ports)) = (address, ports) else {
                continue;
            };
            self.add_endpoints(&mut endpoints, address, ports, protocol, written.place());
        }
        self.mistakes
            .extend(limits::ENDPOINTS_PER_SERVICE.check(endpoints.len(), list.place));
        endpoints
    }

    fn add_endpoints(
        &mut self,
        endpoints: &mut Vec<Endpoint>,
        address: std::net::IpAddr,
        ports: Ports,
        protocol: ProtocolWord,
        place: Place,
    ) {
        if let Some(first) = endpoints.first()
            && first.address.is_ipv4() != address.is_ipv4()
        {
            let message = format!(
                "found {address} in a service whose first address is {}",
                first.address
            );
            self.mistakes.push(Mistake::new(
                place,
                message,
                "addresses of one family in a service; another service for the other family",
            ));
            return;
        }
        endpoints.extend(protocol.protocols().iter().map(|protocol| Endpoint {
            address,
            ports,
            protocol: *protocol,
        }));
    }

    fn port(
        &mut self,
        written: &Optional<Value<PortRange>>,
        default: Option<Ports>,
        place: Place,
    ) -> Option<Ports> {
        match (written.as_ref(), default) {
            (None, Some(ports)) => Some(ports),
            _ => self.required("port", written, place),
        }
    }

    /// Everything of [`Behaviour`]; what is not written is as in `defaults`, and so is everything else.
    pub(super) fn behaviour(&mut self, written: &Behaviour<'_>, defaults: &Defaults) -> Defaults {
        Defaults {
            fallback: self.or(written.fallback, defaults.fallback),
            timeouts: match written.timeouts {
                Some(timeouts) => self.timeouts(timeouts, defaults.timeouts),
                None => defaults.timeouts,
            },
            sloppy: self.or(written.sloppy, defaults.sloppy),
            persistence: match written.persistence.as_ref() {
                Some(persistence) => self.persistence(persistence, defaults.persistence),
                None => defaults.persistence,
            },
            one_packet: self.or(written.one_packet, defaults.one_packet),
            no_server: self.or(written.no_server, defaults.no_server),
            removed_servers: self.or(written.removed_servers, defaults.removed_servers),
            thresholds: self.thresholds(
                written.upper_threshold,
                written.lower_threshold,
                defaults.thresholds,
            ),
            ..*defaults
        }
    }

    fn timeouts(&mut self, file: &TimeoutsFile, defaults: Timeouts) -> Timeouts {
        Timeouts {
            established_s: self.or(&file.established, defaults.established_s),
            syn_received_s: self.or(&file.syn_received, defaults.syn_received_s),
            fin_wait_s: self.or(&file.fin_wait, defaults.fin_wait_s),
            time_wait_s: self.or(&file.time_wait, defaults.time_wait_s),
            close_s: self.or(&file.close, defaults.close_s),
            close_wait_s: self.or(&file.close_wait, defaults.close_wait_s),
            udp_s: self.or(&file.udp, defaults.udp_s),
        }
    }

    fn persistence(
        &mut self,
        written: &PersistenceChoice,
        default: Option<PersistenceDefaults>,
    ) -> Option<PersistenceDefaults> {
        let base = default.unwrap_or_default();
        match written {
            ShortOrLong::Short(word) => {
                let timeout_s = word.read(&mut self.mistakes)??;
                Some(PersistenceDefaults {
                    timeout_s: u32::from(timeout_s),
                    ..base
                })
            }
            ShortOrLong::Long(long) => {
                let file = &long.value;
                let timeout_s = file.timeout.as_ref();
                let timeout_s = timeout_s.and_then(|it| it.read(&mut self.mistakes));
                let prefix = file.granularity.as_ref();
                let prefix = prefix.and_then(|it| it.read(&mut self.mistakes));
                Some(PersistenceDefaults {
                    timeout_s: timeout_s.map_or(base.timeout_s, u32::from),
                    // At most 128.
                    prefix: prefix.map(|prefix| prefix as u8).or(base.prefix),
                    across_ports: self.or(&file.across_ports, base.across_ports),
                    expire_quiescent: self.or(&file.expire_quiescent, base.expire_quiescent),
                })
            }
        }
    }

    pub(super) fn flags(&mut self, flags: &[Value<Word<FlagWord>>]) -> Flags {
        let mut found = Flags::default();
        for flag in flags {
            match flag.read(&mut self.mistakes) {
                Some(FlagWord::ShPort) => found.sh_port = true,
                Some(FlagWord::MhPort) => found.mh_port = true,
                None => {}
            }
        }
        found
    }

    fn scheduler(&mut self, file: &ServiceFile, defaults: &Defaults, fallback: bool) -> Scheduler {
        let word = self.or(&file.scheduler, defaults.scheduler);
        let own_flags = file
            .flags
            .as_ref()
            .map(|flags| (self.flags(&flags.value), flags.place));
        if let Some((flags, place)) = own_flags {
            for (flag, name, scheduler) in [
                (flags.sh_port, "sh", SchedulerWord::Sh),
                (flags.mh_port, "mh", SchedulerWord::Mh),
            ] {
                if flag && word != scheduler {
                    let message = format!(
                        "found the flag {name}-port, but the scheduler of this service is not {name}"
                    );
                    let expected = format!("\"scheduler: {name}\", or no such flag");
                    self.mistakes.push(Mistake::new(place, message, expected));
                }
            }
        }
        let hashes = matches!(
            word,
            SchedulerWord::Dh | SchedulerWord::Sh | SchedulerWord::Mh
        );
        if let (Some(own), false) = (file.fallback.as_ref(), hashes) {
            let message = "found \"fallback\", but the scheduler of this service has none";
            self.mistakes.push(Mistake::new(
                own.place,
                message,
                "one of the schedulers sh, dh, mh, or no such key",
            ));
        }
        let flags = own_flags.map_or(defaults.flags, |(flags, _)| flags);
        match word {
            SchedulerWord::Rr => Scheduler::Rr,
            SchedulerWord::Wrr => Scheduler::Wrr,
            SchedulerWord::Lc => Scheduler::Lc,
            SchedulerWord::Wlc => Scheduler::Wlc,
            SchedulerWord::Lblc => Scheduler::Lblc,
            SchedulerWord::Lblcr => Scheduler::Lblcr,
            SchedulerWord::Dh => Scheduler::Dh { fallback },
            SchedulerWord::Sh => Scheduler::Sh {
                port: flags.sh_port,
                fallback,
            },
            SchedulerWord::Mh => Scheduler::Mh {
                port: flags.mh_port,
                fallback,
            },
            SchedulerWord::Sed => Scheduler::Sed,
            SchedulerWord::Nq => Scheduler::Nq,
            SchedulerWord::Fo => Scheduler::Fo,
            SchedulerWord::Ovf => Scheduler::Ovf,
            SchedulerWord::Twos => Scheduler::Twos,
        }
    }

    fn real_server(
        &mut self,
        written: &ShortOrLong<RealServerWord, RealServerFile>,
        service: &ForRealServers,
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
        if let (Some(found), MethodWord::Dr | MethodWord::Tun) = (own_port, word)
            && service.are_endpoints_read
            && service.port != Some(found)
        {
            let message = format!(
                "found port {found}, but the method {} cannot change ports",
                name_of(word)
            );
            let expected = match service.port {
                Some(port) => format!("the service's port {port}, or the method nat"),
                None => "no port, or the method nat".to_owned(),
            };
            self.mistakes
                .push(Mistake::new(port_place, message, expected));
        } else if let (Some(found), true) = (own_port, service.has_range) {
            let message = format!(
                "found port {found}, but the service has a range of ports: an answer would not tell to which of them"
            );
            let expected = "no port: the real server gets the one that the client used";
            self.mistakes
                .push(Mistake::new(port_place, message, expected));
        }
        if let (Some(is_ipv4), MethodWord::Nat | MethodWord::Dr) = (service.is_ipv4, word)
            && is_ipv4 != address.is_ipv4()
        {
            let family = |is_ipv4: bool| if is_ipv4 { "IPv4" } else { "IPv6" };
            let message = format!(
                "found the {} real server {address} in an {} service with the method {}",
                family(address.is_ipv4()),
                family(is_ipv4),
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
        let thresholds = self.thresholds(
            &file.upper_threshold,
            &file.lower_threshold,
            defaults.thresholds,
        );
        Some(RealServer {
            address,
            port: own_port.or(service.port),
            weight,
            upper_threshold: thresholds.upper,
            lower_threshold: thresholds.lower,
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
}

fn name_of(method: MethodWord) -> &'static str {
    match method {
        MethodWord::Nat => "nat",
        MethodWord::Dr => "dr",
        MethodWord::Tun => "tun",
    }
}
