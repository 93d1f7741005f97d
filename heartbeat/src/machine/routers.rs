//! VRRP: this node as one router of several for a group, on one link and in one address family.
//!
//! Foreign routers are those that are not nodes of ours: keepalived on another machine, or all there is where nodes know each
//! other by VRRP only. For these the rules are RFC 9568 section 6.4; a node of ours is judged by its own heartbeats.

use std::net::IpAddr;
use std::time::Duration;

use super::types::LinkId;
use crate::config::{Config, LinkKind, limits};
use crate::wire::vrrp::{Addresses, Advert, Version};

/// Priority of the owner of the addresses.
pub(super) const OWNER: u8 = 255;
/// The highest priority of who does not own them.
pub(super) const HIGHEST: u8 = 254;

/// One virtual router.
#[derive(Clone, Debug)]
pub(super) struct Router {
    pub(super) link: LinkId,
    pub(super) group: usize,
    pub(super) version: Version,
    pub(super) is_ipv6: bool,
    pub(super) vrid: u8,
    /// How often this node advertises.
    interval: Duration,
    /// Longest interval that is believed of another router: [`limits::FOREIGN_INTERVAL`].
    longest: Duration,
    /// How often the primary does (Active_Adver_Interval).
    active_interval: Duration,
    /// This node's address on the link.
    pub(super) address: Option<IpAddr>,
    addresses: Addresses,
    /// The foreign router that advertised last.
    pub(super) foreign: Option<Foreign>,
    /// Until then a foreign router is, or may be, primary (Active_Down_Timer).
    pub(super) down_at: Duration,
    pub(super) next_advert: Duration,
    /// When it last said at once, and not when it was due, that it is primary.
    asserted_at: Option<Duration>,
}

/// A foreign router.
#[derive(Clone, Copy, Debug)]
pub(super) struct Foreign {
    pub(super) address: IpAddr,
    pub(super) priority: u8,
    pub(super) heard_at: Duration,
}

/// How this node stands to the group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) is_primary: bool,
    pub(super) priority: u8,
    /// Less than the own priority does not keep this node from becoming primary.
    pub(super) preempts: bool,
    /// An operator ordered takeover: no foreign router goes before this node.
    pub(super) is_forced: bool,
}

/// What an advert of a foreign router means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing changes.
    Nothing,
    /// It is primary and goes before this node.
    GoesBefore,
    /// It is primary but this node goes before, and must say so.
    MustYield,
    /// It no longer is primary.
    Released,
}

impl Router {
    /// All virtual routers of a configuration.
    pub(super) fn all(config: &Config) -> Vec<Self> {
        let mut routers = Vec::new();
        for (link, id) in config.links.iter().zip(0..) {
            let LinkKind::Vrrp(vrrp) = &link.kind else {
                continue;
            };
            for (group, about) in config.groups.iter().enumerate() {
                let Some(vrid) = about.vrid else { continue };
                let hosts = || about.addresses.iter().map(ipnet::IpNet::addr);
                let v4 = hosts().filter_map(|address| match address {
                    IpAddr::V4(address) => Some(address),
                    IpAddr::V6(_) => None,
                });
                let mut v6: Vec<_> = hosts()
                    .filter_map(|address| match address {
                        IpAddr::V6(address) => Some(address),
                        IpAddr::V4(_) => None,
                    })
                    .collect();
                // The first one is to be link-local (RFC 9568 section 5.2.9).
                v6.sort_by_key(|address| !address.is_unicast_link_local());
                let version = if vrrp.version == 2 {
                    Version::V2
                } else {
                    Version::V3
                };
                let families = [
                    (version, Addresses::V4(v4.collect())),
                    (Version::V3, Addresses::V6(v6)),
                ];
                for (version, addresses) in families {
                    let is_ipv6 = matches!(addresses, Addresses::V6(_));
                    let is_empty = match &addresses {
                        Addresses::V4(list) => list.is_empty(),
                        Addresses::V6(list) => list.is_empty(),
                    };
                    if is_empty {
                        continue;
                    }
                    routers.push(Self {
                        link: LinkId(id),
                        group,
                        version,
                        is_ipv6,
                        vrid,
                        interval: vrrp.interval,
                        longest: vrrp.interval.max(limits::FOREIGN_INTERVAL),
                        active_interval: vrrp.interval,
                        address: None,
                        addresses,
                        foreign: None,
                        down_at: Duration::ZERO,
                        next_advert: Duration::ZERO,
                        asserted_at: None,
                    });
                }
            }
        }
        routers
    }

    /// Skew_Time: the better wait less.
    fn skew(&self, priority: u8) -> Duration {
        let unit = match self.version {
            // RFC 3768 section 6.1: of a second, whatever the interval.
            Version::V2 => Duration::from_secs(1),
            Version::V3 => self.active_interval,
        };
        unit * (256 - u32::from(priority)) / 256
    }

    /// Waits for Active_Down_Interval.
    pub(super) fn wait(&mut self, now: Duration, priority: u8) {
        self.down_at = now + self.active_interval * 3 + self.skew(priority);
    }

    /// Whether a foreign router, heard and not since silent, is primary.
    pub(super) fn foreign_now(&self, now: Duration) -> Option<Foreign> {
        self.foreign.filter(|_| now < self.down_at)
    }

    /// Whether any foreign router advertises, whatever its priority.
    pub(super) fn hears_foreign(&self, now: Duration) -> bool {
        let is_recent = |foreign: Foreign| now < foreign.heard_at + self.active_interval * 4;
        self.foreign.is_some_and(is_recent)
    }

    /// How often a foreign router advertises, as far as that is believed.
    pub(super) fn believed(&self, interval: Duration) -> Duration {
        interval.min(self.longest)
    }

    /// Silence after which a foreign router that advertises so often is no longer there. Not less than this node's own three
    /// intervals: who forges adverts cannot have the end of a split told, and the network, more often.
    pub(super) fn silence(&self, interval: Duration) -> Duration {
        self.believed(interval).max(self.interval) * 3
    }

    /// Takes a foreign router's advert.
    pub(super) fn hear(
        &mut self,
        now: Duration,
        from: IpAddr,
        advert: &Advert,
        own: Standing,
    ) -> Heard {
        let Standing {
            is_primary,
            priority,
            preempts,
            is_forced,
        } = own;
        if advert.priority == 0 {
            let is_of_active = self.foreign.is_none_or(|foreign| foreign.address == from);
            if is_primary {
                // Section 6.4.3 (700): others are told at once that the addresses are served.
                return Heard::MustYield;
            }
            if is_of_active {
                self.down_at = now + self.skew(priority);
            }
            return Heard::Released;
        }
        let goes_before = advert.priority > priority
            || (advert.priority == priority && Some(from) > self.address);
        let is_accepted = match is_primary {
            _ if is_forced => false,
            true => goes_before,
            // Section 6.4.2 (450): Preempt_Mode decides over what is less, and what is equal is accepted.
            false => advert.priority >= priority || !preempts,
        };
        if is_primary && !is_accepted {
            return Heard::MustYield;
        }
        if !is_accepted
            && self
                .foreign_now(now)
                .is_some_and(|foreign| foreign.priority >= priority)
        {
            return Heard::Nothing;
        }
        self.foreign = Some(Foreign {
            address: from,
            priority: advert.priority,
            heard_at: now,
        });
        if is_accepted {
            if self.version == Version::V3 {
                self.active_interval = self.believed(advert.interval);
            }
            self.wait(now, priority);
        }
        if is_primary {
            Heard::GoesBefore
        } else {
            Heard::Nothing
        }
    }

    /// This node becomes primary: its own interval counts.
    pub(super) fn becomes_primary(&mut self, now: Duration) {
        self.active_interval = self.interval;
        self.next_advert = now;
        self.down_at = now;
        self.foreign = None;
    }

    /// Says at once that it is primary, once in an interval: two routers of which operators ordered each to take over would answer
    /// each other without end.
    pub(super) fn assert(&mut self, now: Duration) {
        if self.asserted_at.is_none_or(|at| now >= at + self.interval) {
            self.asserted_at = Some(now);
            self.next_advert = now;
        }
    }

    /// The advert that is due now, if one is.
    pub(super) fn due(&mut self, now: Duration, priority: u8) -> Option<Advert> {
        if now < self.next_advert {
            return None;
        }
        self.next_advert = now + self.interval;
        Some(self.advert(priority))
    }

    /// An advert of this priority.
    pub(super) fn advert(&self, priority: u8) -> Advert {
        Advert {
            version: self.version,
            vrid: self.vrid,
            priority,
            interval: self.interval,
            addresses: self.addresses.clone(),
            password: None,
        }
    }
}
