//! From the YAML's structs to the model: defaults, and everything that can be wrong.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::across;
use super::error::{Mistake, Place};
use super::file::{
    AnnounceFile, FenceFile, File, FitnessFile, GroupFile, KeysFile, LinkFile, UdpFile, VrrpFile,
};
use super::limits::{self, Limit, Times};
use super::model::{
    Announce, AutoFailback, Config, Fence, Fitness, Group, InterfaceTracked, KeyFile, KeyFiles,
    Link, LinkKind, PingTracked, Program, ProgramTracked, Rhythm, SerialLink, Timing, UdpLink,
    UdpTo, VrrpLink,
};
use super::value::{Located, Optional, ShortOrLong, Text};

/// Gives a configuration its meaning. `host` is the node's name where none is given.
///
/// # Errors
/// All mistakes, in the order of their places.
pub fn resolve(file: &File, host: &str) -> Result<Config, Vec<Mistake>> {
    let mut resolver = Resolver {
        mistakes: Vec::new(),
        path: Vec::new(),
    };
    let config = resolver.config(file, host);
    if let Some(config) = &config {
        across::check(config, file, &mut resolver);
    }
    let mut mistakes = resolver.mistakes;
    mistakes.sort_by(|a, b| (a.place, &a.path).cmp(&(b.place, &b.path)));
    match config {
        Some(config) if mistakes.is_empty() => Ok(config),
        _ => Err(mistakes),
    }
}

/// Collects mistakes, and knows where in the configuration it is.
pub(super) struct Resolver {
    mistakes: Vec<Mistake>,
    path: Vec<String>,
}

impl Resolver {
    pub(super) fn wrong(
        &mut self,
        place: Place,
        message: impl Into<String>,
        expected: impl Into<String>,
    ) {
        self.mistakes.push(Mistake {
            place,
            path: self.path.concat().trim_start_matches('.').to_owned(),
            message: message.into(),
            expected: expected.into(),
        });
    }

    /// Does something below a key.
    pub(super) fn below<T>(&mut self, key: &str, what: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(format!(".{key}"));
        let result = what(self);
        self.path.pop();
        result
    }

    fn at<T>(&mut self, position: usize, what: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(format!("[{position}]"));
        let result = what(self);
        self.path.pop();
        result
    }

    /// The meaning of a text, or a mistake.
    fn read<T>(
        &mut self,
        text: &Text,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let parsed = parse(&text.text);
        if parsed.is_none() {
            let found = match text.text.as_str() {
                "" => "no value stands here".to_owned(),
                found => format!("found \"{found}\""),
            };
            self.wrong(text.place, found, expected);
        }
        parsed
    }

    fn optional<T>(
        &mut self,
        key: &str,
        text: &Optional<Text>,
        what: impl FnOnce(&mut Self, &Text) -> Option<T>,
    ) -> Option<T> {
        let text = text.0.as_ref()?;
        self.below(key, |this| what(this, text))
    }

    fn required<T>(
        &mut self,
        key: &str,
        text: &Optional<Text>,
        place: Place,
        what: impl FnOnce(&mut Self, &Text) -> Option<T>,
    ) -> Option<T> {
        if text.0.is_none() {
            self.below(key, |this| {
                this.wrong(place, "the key is missing", "a value")
            });
        }
        self.optional(key, text, what)
    }

    fn limit(&mut self, limit: Limit, found: usize, place: Place) {
        let Limit { what, maximum } = limit;
        if found > maximum {
            self.wrong(
                place,
                format!("{found} {what}"),
                format!("at most {maximum}"),
            );
        }
    }

    /// The entries of a list, each at its position.
    fn list<E, T>(
        &mut self,
        key: &str,
        list: &Optional<Located<Vec<E>>>,
        limit: Limit,
        mut what: impl FnMut(&mut Self, &E) -> Option<T>,
    ) -> Vec<T> {
        let Some(list) = &list.0 else {
            return Vec::new();
        };
        self.below(key, |this| {
            this.limit(limit, list.value.len(), list.place);
            let entries = list.value.iter().enumerate();
            entries
                .filter_map(|(position, entry)| this.at(position, |this| what(this, entry)))
                .collect()
        })
    }

    // ---- Single values ----

    fn time(&mut self, text: &Text, times: Times) -> Option<Duration> {
        let Times { shortest, longest } = times;
        let expected = format!(
            "a time with its unit from {} to {}, like 500ms",
            humantime::format_duration(shortest),
            humantime::format_duration(longest)
        );
        self.read(text, &expected, |text| {
            let time = humantime::parse_duration(text).ok()?;
            (shortest..=longest).contains(&time).then_some(time)
        })
    }

    fn number(&mut self, text: &Text, range: RangeInclusive<u64>) -> Option<u64> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        self.read(text, &expected, |text| {
            let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse()
                .ok()
                .filter(|number| is_plain && range.contains(number))
        })
    }

    fn byte(&mut self, text: &Text, range: RangeInclusive<u8>) -> Option<u8> {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        self.number(text, range)
            .and_then(|number| u8::try_from(number).ok())
    }

    fn switch(&mut self, text: &Text) -> Option<bool> {
        self.read(text, "true or false", |text| text.parse().ok())
    }

    fn name(&mut self, text: &Text) -> Option<String> {
        let expected = format!(
            "a name of at most {} bytes without spaces or control characters",
            limits::NAME_BYTES
        );
        self.read(text, &expected, |text| {
            is_name(text).then(|| text.to_owned())
        })
    }

    fn interface(&mut self, text: &Text) -> Option<String> {
        let expected = format!(
            "the name of a network interface, at most {} bytes, as in \"ip link\"",
            limits::INTERFACE_NAME_BYTES
        );
        self.read(text, &expected, |text| {
            let is_bad = |c: char| c.is_whitespace() || c.is_control() || "/:".contains(c);
            let fits = (1..=limits::INTERFACE_NAME_BYTES).contains(&text.len());
            (fits && text != "." && text != ".." && !text.chars().any(is_bad))
                .then(|| text.to_owned())
        })
    }

    fn absolute_path(&mut self, text: &Text) -> Option<PathBuf> {
        self.read(
            text,
            "an absolute path, like /etc/director/heartbeat.key",
            |text| (text.starts_with('/') && !text.contains('\0')).then(|| PathBuf::from(text)),
        )
    }

    fn host(&mut self, text: &Text) -> Option<IpAddr> {
        self.read(
            text,
            "the IPv4 or IPv6 address of a host, like 192.0.2.10 or 2001:db8::10",
            |text| {
                let address: IpAddr = text.parse().ok()?;
                let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
                (!address.is_unspecified() && !address.is_multicast() && !is_broadcast)
                    .then_some(address)
            },
        )
    }

    fn command(&mut self, key: &str, list: &Optional<Located<Vec<Text>>>) -> Option<Vec<String>> {
        let place = list.0.as_ref()?.place;
        let words: Vec<String> = self.list(key, list, limits::WORDS, |this, word| {
            let expected = format!("a word of at most {} bytes", limits::WORD_BYTES);
            this.read(word, &expected, |text| {
                (text.len() <= limits::WORD_BYTES && !text.contains('\0')).then(|| text.to_owned())
            })
        });
        if !words.first().is_some_and(|word| word.starts_with('/')) {
            let expected = "a list of the program's absolute path and its arguments, like [/usr/local/bin/page, --now]";
            self.below(key, |this| {
                this.wrong(place, "the program's path is missing or relative", expected)
            });
            return None;
        }
        Some(words)
    }

    // ---- The whole ----

    fn config(&mut self, file: &File, host: &str) -> Option<Config> {
        let node = match &file.node.0 {
            Some(_) => self.optional("node", &file.node, Self::name),
            None if is_name(host) => Some(host.to_owned()),
            None => {
                let message = format!("the host's name \"{host}\" cannot be the node's");
                self.below("node", |this| {
                    this.wrong(Place::default(), message, "a key \"node\" with a name")
                });
                None
            }
        };
        let timing = self.timing(file);
        let failback_limit = self.optional("failback_limit", &file.failback_limit, |this, text| {
            this.time(text, limits::TIME_OR_NONE)
        });
        let auto_failback =
            self.optional(
                "auto_failback",
                &file.auto_failback,
                |this, text| match text.text.as_str() {
                    "true" => Some(AutoFailback::On),
                    "false" => Some(AutoFailback::Off),
                    _ => {
                        let delay = humantime::parse_duration(&text.text).ok();
                        let delay = delay.filter(|delay| *delay <= limits::TIME_OR_NONE.longest);
                        this.read(
                            text,
                            "true, false, or a time with its unit up to 1h, like 30s",
                            |_| delay,
                        )
                        .map(AutoFailback::After)
                    }
                },
            );
        let keys = file
            .key
            .0
            .as_ref()
            .map(|keys| self.below("key", |this| this.keys(&keys.value, keys.place)));
        let links = self.list("links", &file.links, limits::LINKS, |this, link| {
            this.link(link, &timing)
        });
        let links = told_apart(links);
        let name = node.as_deref().unwrap_or_default();
        let before = self.mistakes.len();
        let groups = self.list("groups", &file.groups, limits::GROUPS, |this, group| {
            this.group(&group.value, group.place, name)
        });
        let are_groups_right = self.mistakes.len() == before;
        let place = |list: Option<Place>| list.unwrap_or_default();
        let lists = [
            (
                "links",
                file.links.is_empty(),
                place(file.links.0.as_ref().map(|it| it.place)),
                "at least one, like \"- udp: { interface: eth0, peers: [192.0.2.2] }\"",
            ),
            (
                "groups",
                file.groups.is_empty(),
                place(file.groups.0.as_ref().map(|it| it.place)),
                "at least one, with the keys name, interface, addresses and priority",
            ),
        ];
        for (key, is_missing, place, expected) in lists {
            if is_missing {
                self.below(key, |this| this.wrong(place, "there are none", expected));
            }
        }
        // What follows from a wrong group is no mistake of its own.
        let units = if are_groups_right {
            self.units(file, &groups)
        } else {
            Vec::new()
        };
        let fitness = file.fitness.0.as_ref();
        let fitness =
            fitness.map(|fitness| self.below("fitness", |this| this.fitness(&fitness.value)));
        let fence = file.fence.0.as_ref();
        let fence =
            fence.map(|fence| self.below("fence", |this| this.fence(&fence.value, fence.place)));
        let mut nodes: Vec<String> = groups
            .iter()
            .flat_map(|group| group.priorities.keys().cloned())
            .collect();
        nodes.sort();
        nodes.dedup();
        if !self.mistakes.is_empty() {
            return None;
        }
        Some(Config {
            node: node?,
            nodes,
            timing,
            auto_failback: auto_failback.unwrap_or(AutoFailback::On),
            failback_limit: failback_limit.unwrap_or(FAILBACK_LIMIT),
            keys: keys.flatten(),
            links,
            groups,
            units,
            fitness: fitness.unwrap_or_default(),
            fence: fence.flatten(),
        })
    }

    fn timing(&mut self, file: &File) -> Timing {
        let before = self.mistakes.len();
        let mut time = |key, text: &Optional<Text>, times| {
            self.optional(key, text, |this, text| this.time(text, times))
        };
        let keepalive =
            time("keepalive", &file.keepalive, limits::KEEPALIVE).unwrap_or(Duration::from_secs(1));
        let deadtime = time("deadtime", &file.deadtime, limits::DEADTIME).unwrap_or(keepalive * 10);
        let warntime = time("warntime", &file.warntime, limits::DEADTIME).unwrap_or(deadtime / 2);
        let least = deadtime + keepalive;
        let initdead = time("initdead", &file.initdead, limits::INITDEAD).unwrap_or(deadtime * 2);
        let timing = Timing {
            keepalive,
            warntime,
            deadtime,
            initdead,
        };
        // What follows from a wrong time is no mistake of its own; nothing is shorter than no keepalive.
        if self.mistakes.len() > before {
            return Timing {
                keepalive: Duration::ZERO,
                ..timing
            };
        }
        let shown = |time| humantime::format_duration(time).to_string();
        let place =
            |text: &Optional<Text>| text.0.as_ref().map(|text| text.place).unwrap_or_default();
        if deadtime < keepalive * limits::KEEPALIVES_IN_DEADTIME {
            let message = format!(
                "{} is too soon after a heartbeat every {}",
                shown(deadtime),
                shown(keepalive)
            );
            let expected = format!("at least {} keepalives", limits::KEEPALIVES_IN_DEADTIME);
            self.below("deadtime", |this| {
                this.wrong(place(&file.deadtime), message, expected)
            });
        }
        if warntime >= deadtime || warntime < keepalive {
            let message = format!("{} is not between keepalive and deadtime", shown(warntime));
            let expected = format!(
                "a time from {} to less than {}",
                shown(keepalive),
                shown(deadtime)
            );
            self.below("warntime", |this| {
                this.wrong(place(&file.warntime), message, expected)
            });
        }
        if initdead < least {
            let message = format!(
                "{} is shorter than deadtime and a keepalive",
                shown(initdead)
            );
            self.below("initdead", |this| {
                this.wrong(
                    place(&file.initdead),
                    message,
                    format!("at least {}", shown(least)),
                )
            });
        }
        timing
    }

    fn keys(&mut self, file: &KeysFile, place: Place) -> Option<KeyFiles> {
        let active = self.key(&file.id, &file.file, place);
        let accept = self.list("accept", &file.accept, limits::KEYS, |this, key| {
            this.key(&key.value.id, &key.value.file, key.place)
        });
        let active = active?;
        let mut ids: Vec<u8> = accept.iter().map(|key| key.id).chain([active.id]).collect();
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            self.wrong(
                place,
                format!("two keys have the id {}", pair[0]),
                "every id once",
            );
        }
        Some(KeyFiles { active, accept })
    }

    fn key(&mut self, id: &Optional<Text>, file: &Optional<Text>, place: Place) -> Option<KeyFile> {
        let id = self.required("id", id, place, |this, text| this.byte(text, 1..=255));
        let file = self.required("file", file, place, Self::absolute_path);
        Some(KeyFile {
            id: id?,
            file: file?,
        })
    }

    fn link(&mut self, link: &Located<LinkFile>, timing: &Timing) -> Option<Link> {
        let LinkFile { udp, serial, vrrp } = &link.value;
        match (&udp.0, &serial.0, &vrrp.0) {
            (Some(udp), None, None) => self.below("udp", |this| this.udp(&udp.value, udp.place)),
            (None, Some(serial), None) => self.below("serial", |this| {
                let device = this.required(
                    "device",
                    &serial.value.device,
                    serial.place,
                    Self::absolute_path,
                );
                let baud = this.optional("baud", &serial.value.baud, |this, text| {
                    this.number(text, limits::BAUD)
                });
                let device = device?;
                let name = format!("serial {}", device.display());
                let baud = baud
                    .and_then(|baud| u32::try_from(baud).ok())
                    .unwrap_or(115_200);
                Some(Link {
                    name,
                    kind: LinkKind::Serial(SerialLink { device, baud }),
                })
            }),
            (None, None, Some(vrrp)) => {
                self.below("vrrp", |this| this.vrrp(&vrrp.value, vrrp.place, timing))
            }
            _ => {
                self.wrong(
                    link.place,
                    "a link that is not exactly one thing",
                    "one of the keys udp, serial, vrrp",
                );
                None
            }
        }
    }

    fn udp(&mut self, file: &UdpFile, place: Place) -> Option<Link> {
        let interface = self.required("interface", &file.interface, place, Self::interface);
        let port = self.optional("port", &file.port, |this, text| {
            this.number(text, 1..=65_535)
        });
        let peers = self.list("peers", &file.peers, limits::PEERS, Self::host);
        let multicast = self.optional("multicast", &file.multicast, |this, text| {
            this.read(
                text,
                "a multicast address, like 239.255.6.94 or ff02::6:94",
                |text| text.parse().ok().filter(IpAddr::is_multicast),
            )
        });
        let broadcast = self.optional("broadcast", &file.broadcast, Self::switch);
        let is_broadcast = broadcast == Some(true);
        // As written: what is wrong was meant to be one of them.
        let ways = [
            file.peers.0.is_some(),
            file.multicast.0.is_some(),
            file.broadcast.0.is_some() && broadcast != Some(false),
        ];
        if ways.iter().filter(|way| **way).count() != 1 || (ways[0] && file.peers.is_empty()) {
            self.wrong(
                place,
                "it is not said who gets the heartbeats",
                "exactly one of peers, multicast, broadcast: true",
            );
        }
        let to = match multicast {
            Some(address) => UdpTo::Multicast(address),
            None if is_broadcast => UdpTo::Broadcast,
            None => UdpTo::Unicast(peers),
        };
        let interface = interface?;
        let port = port
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(694);
        let name = format!("udp {interface}");
        Some(Link {
            name,
            kind: LinkKind::Udp(UdpLink {
                interface,
                port,
                to,
            }),
        })
    }

    fn vrrp(&mut self, file: &VrrpFile, place: Place, timing: &Timing) -> Option<Link> {
        let interface = self.required("interface", &file.interface, place, Self::interface);
        let version = self
            .optional("version", &file.version, |this, text| {
                this.byte(text, 2..=3)
            })
            .unwrap_or(3);
        let times = if version == 2 {
            limits::ADVERTS_V2
        } else {
            limits::ADVERTS_V3
        };
        let unit_ms: u64 = if version == 2 { 1000 } else { 10 };
        let default_ms = (timing.keepalive.as_millis() as u64).div_ceil(unit_ms) * unit_ms;
        let interval = self.optional("interval", &file.interval, |this, text| {
            let interval = this.time(text, times)?;
            let is_whole = interval
                .as_nanos()
                .is_multiple_of(u128::from(unit_ms) * 1_000_000);
            if !is_whole || interval < timing.keepalive {
                let message = format!("found \"{}\"", text.text);
                let unit = if version == 2 {
                    "whole seconds"
                } else {
                    "whole hundredths of a second"
                };
                this.wrong(
                    text.place,
                    message,
                    format!("{unit}, and not less than keepalive"),
                );
            }
            Some(interval)
        });
        let interval = interval
            .unwrap_or(Duration::from_millis(default_ms))
            .min(times.longest);
        let peers = self.list("peers", &file.peers, limits::PEERS, Self::host);
        let pseudo_header = self
            .optional("pseudo_header", &file.pseudo_header, Self::switch)
            .unwrap_or(true);
        let interface = interface?;
        Some(Link {
            name: format!("vrrp {interface}"),
            kind: LinkKind::Vrrp(VrrpLink {
                interface,
                version,
                interval,
                peers,
                pseudo_header,
            }),
        })
    }

    fn group(&mut self, file: &GroupFile, place: Place, node: &str) -> Option<Group> {
        let name = self.required("name", &file.name, place, Self::name);
        let interface = self.required("interface", &file.interface, place, Self::interface);
        let addresses = self.list(
            "addresses",
            &file.addresses,
            limits::ADDRESSES,
            |this, text| {
                let expected = "a host's address with its prefix length, like 198.51.100.10/24 or 2001:db8::10/64";
                this.read(text, expected, |text| {
                    let network: IpNet = text.parse().ok()?;
                    let address = network.addr();
                    // In networks of two or one the first and the last address are hosts', too (RFC 3021).
                    let is_whole_network = address.is_ipv4()
                        && network.prefix_len() < 31
                        && [network.network(), network.broadcast()].contains(&address);
                    let is_host = !address.is_unspecified()
                        && !address.is_multicast()
                        && !address.is_loopback()
                        && !is_whole_network
                        && network.prefix_len() > 0;
                    is_host.then_some(network)
                })
            },
        );
        if file.addresses.is_empty() {
            let expected = "at least one address, like [198.51.100.10/24]";
            self.below("addresses", |this| {
                this.wrong(place, "there are none", expected)
            });
        }
        let priorities = match &file.priority.0 {
            None => {
                self.below("priority", |this| {
                    this.wrong(
                        place,
                        "the key is missing",
                        "a number from 1 to 255 for each node",
                    )
                });
                BTreeMap::new()
            }
            Some(ShortOrLong::Short(text)) => {
                let priority = self.below("priority", |this| this.byte(text, 1..=255));
                priority
                    .map(|priority| (node.to_owned(), priority))
                    .into_iter()
                    .collect()
            }
            Some(ShortOrLong::Long(map)) => {
                self.below("priority", |this| this.priorities(&map.value, map.place))
            }
        };
        let vrid = self.optional("vrid", &file.vrid, |this, text| this.byte(text, 1..=255));
        let virtual_mac = self
            .optional("virtual_mac", &file.virtual_mac, Self::switch)
            .unwrap_or(false);
        if virtual_mac && file.vrid.0.is_none() {
            let expected = "a vrid, from which the MAC address follows";
            let place = file.virtual_mac.place_or(place);
            self.below("virtual_mac", |this| {
                this.wrong(place, "there is no vrid", expected)
            });
        }
        let announce = file.announce.0.as_ref();
        let announce = self.below("announce", |this| {
            this.announce(announce.map(|announce| &announce.value))
        });
        let timeout = self.optional("timeout", &file.timeout, |this, text| {
            this.time(text, limits::TIME)
        });
        let timeout = timeout.unwrap_or(Duration::from_secs(10));
        let program = |command| Program { command, timeout };
        let on_primary = self.command("on_primary", &file.on_primary).map(program);
        let on_backup = self.command("on_backup", &file.on_backup).map(program);
        Some(Group {
            name: name?,
            interface: interface?,
            addresses,
            priorities,
            vrid,
            virtual_mac,
            announce,
            on_primary,
            on_backup,
        })
    }

    fn priorities(&mut self, map: &BTreeMap<String, Text>, place: Place) -> BTreeMap<String, u8> {
        let mut priorities = BTreeMap::new();
        for (node, text) in map {
            self.below(node, |this| {
                if !is_name(node) {
                    this.wrong(
                        text.place,
                        format!("\"{node}\" cannot be a node's name"),
                        "a name without spaces",
                    );
                }
                let Some(priority) = this.byte(text, 1..=255) else {
                    return;
                };
                if let Some((other, _)) = priorities.iter().find(|(_, other)| **other == priority) {
                    let message = format!("{other} has the priority {priority} too");
                    this.wrong(
                        text.place,
                        message,
                        "another priority for each node: the highest is preferred",
                    );
                }
                priorities.insert(node.clone(), priority);
            });
        }
        if map.is_empty() {
            self.wrong(
                place,
                "no node may serve the group",
                "a priority for at least one node",
            );
        }
        priorities
    }

    fn announce(&mut self, file: Option<&AnnounceFile>) -> Announce {
        let nothing = AnnounceFile::default();
        let file = file.unwrap_or(&nothing);
        let count = self.optional("count", &file.count, |this, text| {
            this.number(text, limits::ANNOUNCEMENTS)
        });
        let interval = self.optional("interval", &file.interval, |this, text| {
            this.time(text, limits::TIME)
        });
        let refresh = self.optional("refresh", &file.refresh, |this, text| {
            this.time(text, limits::TIME_OR_NONE)
        });
        Announce {
            count: count
                .and_then(|count| u8::try_from(count).ok())
                .unwrap_or(5),
            interval: interval.unwrap_or(Duration::from_millis(200)),
            refresh: refresh.unwrap_or_default(),
        }
    }

    fn units(&mut self, file: &File, groups: &[Group]) -> Vec<Vec<usize>> {
        let mut units: Vec<Vec<usize>> = Vec::new();
        let together = self.list("together", &file.together, limits::GROUPS, |this, unit| {
            let names = unit.value.iter().filter_map(|text| {
                let position = groups.iter().position(|group| group.name == text.text);
                this.read(text, "the name of a group", |_| position)
            });
            Some((names.collect::<Vec<usize>>(), unit.place))
        });
        for (unit, place) in together {
            for group in &unit {
                let count = unit.iter().filter(|other| *other == group).count();
                if count > 1 || units.iter().any(|other| other.contains(group)) {
                    let message = format!("the group {} stands here twice", groups[*group].name);
                    self.below("together", |this| {
                        this.wrong(place, message, "every group once")
                    });
                }
                if groups[*group].priorities != groups[unit[0]].priorities {
                    let message = format!(
                        "{} and {} have other priorities",
                        groups[unit[0]].name, groups[*group].name
                    );
                    self.below("together", |this| {
                        this.wrong(place, message, "the same for groups that move together")
                    });
                }
            }
            units.push(unit);
        }
        for group in 0..groups.len() {
            if !units.iter().any(|unit| unit.contains(&group)) {
                units.push(vec![group]);
            }
        }
        units.retain(|unit| !unit.is_empty());
        units
    }

    fn fitness(&mut self, file: &FitnessFile) -> Fitness {
        let interfaces = self.list(
            "interfaces",
            &file.interfaces,
            limits::TRACKED,
            |this, entry| match entry {
                ShortOrLong::Short(text) => this
                    .interface(text)
                    .map(|name| InterfaceTracked { name, lowers: None }),
                ShortOrLong::Long(long) => {
                    let name = this.required("name", &long.value.name, long.place, Self::interface);
                    let lowers = this.lowers(&long.value.lowers);
                    Some(InterfaceTracked {
                        name: name?,
                        lowers,
                    })
                }
            },
        );
        let ping = self.list(
            "ping",
            &file.ping,
            limits::TRACKED,
            |this, entry| match entry {
                ShortOrLong::Short(text) => this.host(text).map(|address| PingTracked {
                    address,
                    rhythm: RHYTHM,
                    lowers: None,
                }),
                ShortOrLong::Long(long) => {
                    let file = &long.value;
                    let address = this.required("address", &file.address, long.place, Self::host);
                    let rhythm = this.rhythm(
                        &file.interval,
                        &file.timeout,
                        &file.fall,
                        &file.rise,
                        long.place,
                    );
                    let lowers = this.lowers(&file.lowers);
                    Some(PingTracked {
                        address: address?,
                        rhythm,
                        lowers,
                    })
                }
            },
        );
        let programs = self.list(
            "programs",
            &file.programs,
            limits::TRACKED,
            |this, entry| {
                let file = &entry.value;
                if file.command.0.is_none() {
                    this.below("command", |this| {
                        this.wrong(
                            entry.place,
                            "the key is missing",
                            "a program and its arguments",
                        )
                    });
                }
                let command = this.command("command", &file.command);
                let rhythm = this.rhythm(
                    &file.interval,
                    &file.timeout,
                    &file.fall,
                    &file.rise,
                    entry.place,
                );
                let lowers = this.lowers(&file.lowers);
                Some(ProgramTracked {
                    command: command?,
                    rhythm,
                    lowers,
                })
            },
        );
        Fitness {
            interfaces,
            ping,
            programs,
        }
    }

    fn lowers(&mut self, text: &Optional<Text>) -> Option<u8> {
        self.optional("lowers", text, |this, text| this.byte(text, 1..=255))
    }

    fn rhythm(
        &mut self,
        interval: &Optional<Text>,
        timeout: &Optional<Text>,
        fall: &Optional<Text>,
        rise: &Optional<Text>,
        place: Place,
    ) -> Rhythm {
        let before = self.mistakes.len();
        let place = timeout.place_or(place);
        let interval = self.optional("interval", interval, |this, text| {
            this.time(text, limits::TIME)
        });
        let timeout = self.optional("timeout", timeout, |this, text| {
            this.time(text, limits::TIME)
        });
        let are_times_right = self.mistakes.len() == before;
        let mut count = |key, text: &Optional<Text>, default: u8| {
            let count = self.optional(key, text, |this, text| this.number(text, limits::IN_A_ROW));
            count
                .and_then(|count| u8::try_from(count).ok())
                .unwrap_or(default)
        };
        let (fall, rise) = (
            count("fall", fall, RHYTHM.fall),
            count("rise", rise, RHYTHM.rise),
        );
        let interval = interval.unwrap_or(RHYTHM.interval);
        let rhythm = Rhythm {
            interval,
            timeout: timeout.unwrap_or(interval),
            fall,
            rise,
        };
        if rhythm.timeout > interval && are_times_right {
            self.below("timeout", |this| {
                this.wrong(
                    place,
                    "it is longer than the interval",
                    "at most the interval",
                )
            });
        }
        rhythm
    }

    fn fence(&mut self, file: &FenceFile, place: Place) -> Option<Fence> {
        if file.command.0.is_none() {
            self.below("command", |this| {
                this.wrong(place, "the key is missing", "a program and its arguments")
            });
        }
        let command = self.command("command", &file.command);
        let timeout = self.optional("timeout", &file.timeout, |this, text| {
            this.time(text, limits::TIME)
        });
        let required = self
            .optional("required", &file.required, Self::switch)
            .unwrap_or(false);
        let timeout = timeout.unwrap_or(Duration::from_secs(10));
        Some(Fence {
            program: Program {
                command: command?,
                timeout,
            },
            required,
        })
    }
}

/// How long a node waits for what it needs to take groups back.
const FAILBACK_LIMIT: Duration = Duration::from_secs(60);
/// How something is tried where nothing is said.
const RHYTHM: Rhythm = Rhythm {
    interval: Duration::from_secs(1),
    timeout: Duration::from_secs(1),
    fall: 2,
    rise: 2,
};

fn is_name(text: &str) -> bool {
    let fits = (1..=limits::NAME_BYTES).contains(&text.len());
    fits && !text.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// Where links have the same name, the port or the version stands in it, too.
fn told_apart(mut links: Vec<Link>) -> Vec<Link> {
    let names: Vec<String> = links.iter().map(|link| link.name.clone()).collect();
    for link in &mut links {
        let is_same = |name: &&String| **name == link.name;
        if names.iter().filter(is_same).count() < 2 {
            continue;
        }
        match &link.kind {
            LinkKind::Udp(udp) => link.name = format!("{}:{}", link.name, udp.port),
            LinkKind::Vrrp(vrrp) => {
                link.name = format!("{} version {}", link.name, vrrp.version);
            }
            LinkKind::Serial(_) => {}
        }
    }
    links
}
