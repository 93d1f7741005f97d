//! Services and their real servers: from the YAML's structs to the model.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::across::Across;
use super::addresses::{Address, RealServerWord, ServerAddress};
use super::checks::{Check, CheckChoices};
use super::defaults::{Defaults, Flags, PersistenceDefaults};
use super::error::{Mistake, Place};
use super::file::{
    EndpointFile, PersistenceChoice, Quorum, RealServerFile, ServiceFile, Threshold, TimeoutsFile,
};
use super::kinds::{
    FlagWord, MethodWord, Port, PortRange, ProtocolWord, SchedulerWord, SlowStart, Switch,
    TrackWord, Word,
};
use super::limits;
use super::model::{
    Endpoint, Health, Method, NoServer, OnDown, Persistence, Ports, Protocol, RealServer,
    RemovedServers, Scheduler, Timeouts, Track, UntilChecked, VirtualService,
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
    /// Whether anybody further inside has an upper threshold.
    pub(super) has_upper_threshold_inside: bool,
    pub(super) check: &'a Optional<CheckChoices>,
    pub(super) on_down: &'a Optional<Value<Word<OnDown>>>,
    pub(super) until_checked: &'a Optional<Value<Word<UntilChecked>>>,
    pub(super) quorum: &'a Optional<Value<Quorum>>,
    pub(super) hysteresis: &'a Optional<Value<Quorum>>,
    pub(super) slow_start: &'a Optional<Value<SlowStart>>,
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
                if !self.is_part {
                    across.add(&service, written.place, &places, &mut self.mistakes);
                }
                self.places.push(written.place);
                services.push(service);
            }
        }
        across.finish(services.len() == list.len(), &mut self.mistakes);
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
                has_upper_threshold_inside: file.has_upper_threshold_inside(),
                check: &file.check,
                on_down: &file.on_down,
                until_checked: &file.until_checked,
                quorum: &file.quorum,
                hysteresis: &file.hysteresis,
                slow_start: &file.slow_start,
            },
            defaults,
        );
        let scheduler = self.scheduler(file, defaults, own.fallback);
        let for_real_servers = Defaults {
            method: self.or(&file.method, defaults.method),
            tunnel: self.tunnel(&file.tunnel, defaults.tunnel),
            weight: self.or(&file.weight, defaults.weight),
            ..own.clone()
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
        if scheduler == Scheduler::Ovf && endpoints.iter().any(|it| it.protocol == Protocol::Udp) {
            // "ovf" in ipvsadm's manual: it looks at active connections alone, and UDP's are all inactive.
            self.mistakes.push(Mistake::new(
                file.scheduler.as_ref().map_or(place, |it| it.place),
                "found the scheduler ovf in a service that takes UDP, whose connections it does not count: the heaviest \
                 real server would get them all",
                "\"scheduler: fo\", if that is meant, another scheduler, or \"protocol: tcp\"",
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
        let mut seen = HashMap::new();
        let list = file.real_servers.as_deref().unwrap_or_default();
        let (real_servers, mut places) =
            self.real_servers(list, &known, &for_real_servers, &mut seen);
        let list = file.fallback_servers.as_ref();
        let list = list.map_or(&[][..], |it| it.value.as_slice());
        let (fallback_servers, more) =
            self.real_servers(list, &known, &for_real_servers, &mut seen);
        places.extend(more);
        self.useless_tunnel(
            file,
            for_real_servers.method,
            real_servers.iter().chain(&fallback_servers),
        );
        let is_right_so_far = self.mistakes.len() == mistakes_before;
        let track = self.track(
            file,
            is_right_so_far,
            &own,
            scheduler,
            &endpoints,
            real_servers.iter().chain(&fallback_servers),
        );
        let health = self.health(file, &own, scheduler);
        if real_servers.len() == file.real_servers.as_deref().unwrap_or_default().len() {
            self.expect_reachable_quorum(file, place, &health, &real_servers);
        }
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
                track,
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
                fallback_servers,
                health,
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
        address: IpAddr,
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
                written.has_upper_threshold_inside,
            ),
            checks: self
                .checks(written.check)
                .unwrap_or_else(|| Arc::clone(&defaults.checks)),
            on_down: self.or(written.on_down, defaults.on_down),
            until_checked: self.or(written.until_checked, defaults.until_checked),
            quorum: self.or(written.quorum, defaults.quorum),
            hysteresis: self.or(written.hysteresis, defaults.hysteresis),
            slow_start_s: self.or(written.slow_start, defaults.slow_start_s),
            ..defaults.clone()
        }
    }

    /// What follows from health checks, but for the checks themselves.
    fn health(&mut self, file: &ServiceFile, own: &Defaults, scheduler: Scheduler) -> Health {
        if let Some(slow_start) = file.slow_start.as_ref()
            && own.slow_start_s > 0
            && !scheduler.follows_weights()
        {
            let message = format!(
                "found \"slow_start\", but the scheduler {} does not give shares by weight",
                scheduler.name()
            );
            self.mistakes.push(Mistake::new(
                slow_start.place,
                message,
                "one of the schedulers wlc, wrr, sed, nq, twos, or no such key",
            ));
        }
        let mut depends_on = Vec::new();
        if let Some(written) = file.depends_on.as_ref() {
            self.mistakes
                .extend(limits::DEPENDENCIES.check(written.value.len(), written.place));
            for name in &written.value {
                depends_on.extend(name.read(&mut self.mistakes));
            }
        }
        Health {
            on_down: own.on_down,
            until_checked: own.until_checked,
            quorum: own.quorum,
            hysteresis: own.hysteresis,
            // Of a default that is for other schedulers.
            slow_start_s: if scheduler.follows_weights() {
                own.slow_start_s
            } else {
                0
            },
            depends_on,
        }
    }

    /// Whether the quorum can be reached, and once lost, reached again.
    fn expect_reachable_quorum(
        &mut self,
        file: &ServiceFile,
        place: Place,
        health: &Health,
        real_servers: &[RealServer],
    ) {
        let (quorum, hysteresis) = (u64::from(health.quorum), u64::from(health.hysteresis));
        let weight: u64 = real_servers.iter().map(|it| u64::from(it.weight)).sum();
        // One of weight 0 is out for a while, and will weigh something again.
        let is_known = !real_servers.is_empty() && real_servers.iter().all(|it| it.weight > 0);
        if !is_known || quorum + hysteresis <= weight {
            return;
        }
        let written = file.hysteresis.as_ref().or(file.quorum.as_ref());
        let place = written.map_or(place, |written| written.place);
        let found = if quorum > weight {
            format!("found the quorum {quorum}, but all real servers together weigh {weight}")
        } else {
            format!(
                "found the quorum {quorum} with the hysteresis {hysteresis}, but all real servers together weigh {weight}: \
                 once lost, it would never be reached again"
            )
        };
        self.mistakes.push(Mistake::new(
            place,
            found,
            format!("quorum and hysteresis that are together at most {weight}, or more weight"),
        ));
    }

    /// Which connections are tracked; what tracking on change cannot do is a mistake.
    fn track<'a>(
        &mut self,
        file: &ServiceFile,
        is_right_so_far: bool,
        own: &Defaults,
        scheduler: Scheduler,
        endpoints: &[Endpoint],
        servers: impl Iterator<Item = &'a RealServer>,
    ) -> Track {
        let word = self.or(&file.track, TrackWord::All);
        let hold_s = self.maybe(&file.hold_time);
        if !is_right_so_far {
            // What could not be read has its default here, which may not go with it.
            return Track::All;
        }
        let (TrackWord::OnChange, Some(track)) = (word, file.track.as_ref()) else {
            if let Some(hold_time) = file.hold_time.as_ref() {
                self.mistakes.push(Mistake::new(
                    hold_time.place,
                    "found \"hold_time\" in a service that tracks all connections",
                    "\"track: on-change\", or no such key",
                ));
            }
            return Track::All;
        };
        let mut refuse = |is_refused: bool, what: String, expected: &str| {
            if is_refused {
                let message = format!("found \"track: on-change\" {what}");
                self.mistakes
                    .push(Mistake::new(track.place, message, expected));
            }
        };
        refuse(
            !matches!(scheduler, Scheduler::Mh { .. }),
            format!(
                "with the scheduler {}: only a table by which each client has its real server needs no connections",
                scheduler.name()
            ),
            "\"scheduler: mh\", or no such key",
        );
        refuse(
            own.persistence.is_some(),
            "with persistence, which remembers each client".to_owned(),
            "\"persistence: off\": mh without mh-port keeps clients by their addresses",
        );
        refuse(
            own.one_packet && endpoints.iter().all(|it| it.protocol == Protocol::Udp),
            "with one_packet, which tracks nothing at all".to_owned(),
            "one of the two keys",
        );
        refuse(
            file.fallback.is_some() && !own.fallback,
            "with \"fallback: false\": a real server that is out has no slots, and others have its clients".to_owned(),
            "one of the two keys",
        );
        let mut has_threshold = false;
        let mut nat = None;
        for server in servers {
            has_threshold |= server.upper_threshold > 0;
            if server.method == Method::Nat {
                nat = nat.or(Some(server.address));
            }
        }
        refuse(
            has_threshold,
            "with an upper threshold: nobody counts connections that are not tracked".to_owned(),
            "no thresholds, or no such key",
        );
        if let Some(address) = nat {
            refuse(
                true,
                format!(
                    "with the method nat, for {address}: answers are translated back by the connection's entry"
                ),
                "the method dr or tun, or no such key",
            );
        }
        // As long as an idle connection is remembered that is tracked.
        let (longest_s, timeout) = if endpoints.iter().all(|it| it.protocol == Protocol::Udp) {
            (own.timeouts.udp_s, "timeouts.udp")
        } else {
            (own.timeouts.established_s, "timeouts.established")
        };
        let hold_s = hold_s.unwrap_or(longest_s);
        if let Some(hold_time) = file.hold_time.as_ref().filter(|_| hold_s > longest_s) {
            self.mistakes.push(Mistake::new(
                hold_time.place,
                format!(
                    "found a \"hold_time\" of {hold_s} s, longer than {timeout}, {longest_s} s: new connections of a slot that \
                     changes are forgotten before it is over, and go to the real server that had the slot"
                ),
                format!("at most {longest_s}s, or a longer {timeout}"),
            ));
        }
        Track::OnChange { hold_s }
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

    /// Real servers or fallback servers, and their places. `seen`: those of the same service before.
    fn real_servers(
        &mut self,
        list: &[ShortOrLong<RealServerWord, RealServerFile>],
        service: &ForRealServers,
        defaults: &Defaults,
        seen: &mut HashMap<(IpAddr, Option<u16>), Place>,
    ) -> (Vec<RealServer>, Vec<Place>) {
        let mut real_servers = Vec::with_capacity(list.len());
        let mut places = Vec::with_capacity(list.len());
        for written in list {
            let Some(real_server) = self.real_server(written, service, defaults) else {
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
        (real_servers, places)
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
                let address = self.required::<ServerAddress>("address", &file.address, place);
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
        let checks = self
            .checks(&file.check)
            .unwrap_or_else(|| Arc::clone(&defaults.checks));
        let (address, own_port) = endpoint?;
        let is_local = address.is_loopback();
        if let (Some(found), true) = (own_port, is_local)
            && service.port != Some(found)
        {
            let message = format!(
                "found port {found} of the director itself, which gets packets as they are, with the virtual port"
            );
            let expected = match service.port {
                Some(port) => format!("the service's port {port}, or no port"),
                None => "no port".to_owned(),
            };
            self.mistakes
                .push(Mistake::new(port_place, message, expected));
        } else if let (Some(found), MethodWord::Dr | MethodWord::Tun) = (own_port, word)
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
        if let Some(is_ipv4) = service.is_ipv4
            && (is_local || word != MethodWord::Tun)
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
            _ if is_local => Method::Local,
            MethodWord::Nat => Method::Nat,
            MethodWord::Dr => Method::Dr,
            MethodWord::Tun => Method::Tun(tunnel),
        };
        if checks.iter().any(|check| check.through) {
            let place = file.check.as_ref().map_or(place, |written| written.place());
            self.goes_through(place, address, method, &checks, service);
        }
        self.expect_sources(&file.check, place, address, &checks, service);
        let thresholds = self.thresholds(
            &file.upper_threshold,
            &file.lower_threshold,
            defaults.thresholds,
            false,
        );
        Some(RealServer {
            address,
            port: own_port.or(service.port),
            weight,
            upper_threshold: thresholds.upper,
            lower_threshold: thresholds.lower,
            method,
            checks,
        })
    }

    /// Whether checks are sent from addresses of the family that they go to.
    fn expect_sources(
        &mut self,
        written: &Optional<CheckChoices>,
        place: Place,
        address: IpAddr,
        checks: &[Arc<Check>],
        service: &ForRealServers,
    ) {
        let family = |is_ipv4: bool| if is_ipv4 { "IPv4" } else { "IPv6" };
        for check in checks {
            let to_ipv4 = if check.through {
                service.is_ipv4
            } else {
                Some(check.address.unwrap_or(address).is_ipv4())
            };
            let (Some(source), Some(to_ipv4)) = (check.source, to_ipv4) else {
                continue;
            };
            if source.is_ipv4() != to_ipv4 {
                self.mistakes.push(Mistake::new(
                    written.as_ref().map_or(place, |written| written.place()),
                    format!(
                        "found the source {source} for the check {} of {address}, which goes to an {} address",
                        check.probe.name(),
                        family(to_ipv4)
                    ),
                    format!("an {} address of this node, or no source", family(to_ipv4)),
                ));
            }
        }
    }

    /// Whether a check can take the way of clients' packets to a real server.
    fn goes_through(
        &mut self,
        place: Place,
        address: IpAddr,
        method: Method,
        checks: &[Arc<Check>],
        service: &ForRealServers,
    ) {
        if method == Method::Nat {
            self.mistakes.push(Mistake::new(
                place,
                format!(
                    "found a check that goes \"through\" for {address}, but the method here is nat, under which the real \
                     server has no virtual address"
                ),
                "the method dr or tun, or a check without \"through\", which asks a real server under nat just where \
                 clients' packets go",
            ));
        }
        let mut through = checks.iter().filter(|check| check.through);
        if let (Method::Tun(_), Some(is_ipv4)) = (method, service.is_ipv4)
            && is_ipv4 != address.is_ipv4()
            && through.any(|check| check.source.is_none())
        {
            let family = if is_ipv4 { "IPv4" } else { "IPv6" };
            self.mistakes.push(Mistake::new(
                place,
                format!("found a check that goes \"through\" for {address}, in an {family} service"),
                format!(
                    "the key \"source\" in it: this node's {family} address, to which the real server answers"
                ),
            ));
        }
    }

    /// A tunnel written for a service of which no real server is reached by one.
    fn useless_tunnel<'a>(
        &mut self,
        file: &ServiceFile,
        method: MethodWord,
        mut real_servers: impl Iterator<Item = &'a RealServer>,
    ) {
        let used = real_servers.any(|real_server| matches!(real_server.method, Method::Tun(_)));
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
