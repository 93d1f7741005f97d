//! Bringing maps and interfaces in line: with a configuration, and with the network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use tokio::task::spawn_blocking;
use xdp_ebpf::layout::destination;

use super::health::is_remote;
use super::node::Node;
use super::system;
use super::times::milliseconds;
use crate::config::{Config, Interface, VirtualService};
use crate::datapath::Datapath;
use crate::plan::{self, Inputs, NetworkView, Tables, Write};
use crate::words::in_words;

impl Node {
    /// Puts a configuration into force. If that fails, the one before it is as if nothing had been.
    pub(super) fn configure(&mut self, config: Arc<Config>) -> anyhow::Result<()> {
        // Where it is the same, what operators said is new, or the time, or the network.
        let is_another = !Arc::ptr_eq(&self.config, &config);
        let outcome = if self.in_force && !is_another {
            // That an interface has gone meanwhile is no reason to refuse that.
            self.try_configure(&config, &present(&config.interfaces))
        } else {
            self.try_configure(&config, &config.interfaces)
        };
        if let Err(error) = outcome {
            if self.in_force && is_another {
                self.put_back();
            }
            return Err(error);
        }
        let began = Instant::now();
        if !self.in_force || is_another {
            self.health.in_force(&config, &self.tables);
        }
        tracing::debug!(took_ms = milliseconds(began.elapsed()), "checks are told");
        let before = std::mem::replace(&mut self.config, config);
        // Thousands of texts: the memory is given back beside the loop.
        spawn_blocking(move || drop(before));
        self.in_force = true;
        self.tell_readiness();
        self.expect_sync();
        self.follow_heartbeat();
        self.follow_sync();
        Ok(())
    }

    /// After something was refused: the network is asked for what the present configuration needs, interfaces that were
    /// attached for another are let go, and what was written, if it came that far, is written over.
    pub(super) fn put_back(&mut self) {
        let config = Arc::clone(&self.config);
        // That one of them has gone meanwhile is no reason to leave the rest as the other configuration wanted it.
        if let Err(worse) = self.try_configure(&config, &present(&config.interfaces)) {
            tracing::error!(
                "the configuration before cannot be put back: {}",
                in_words(&worse)
            );
        }
        self.tell_readiness();
    }

    /// What may be refused comes before anything is changed that packets or people notice: services are judged beside the
    /// present ones, tables are planned, the program is attached. Only then are the tables written. Until then an interface
    /// that is new goes by the present ones.
    fn try_configure(&mut self, config: &Config, interfaces: &[Interface]) -> anyhow::Result<()> {
        let slots = self.slots(interfaces)?;
        self.tell_network(config, &slots);
        let mut part = Instant::now();
        let mut done = |what: &str| {
            tracing::debug!(
                took_ms = milliseconds(part.elapsed()),
                "configuring: {what}"
            );
            part = Instant::now();
        };
        let view = self.view(config, &slots);
        done("the network is asked");
        let is_another = self.in_force && !std::ptr::eq(&*self.config, config);
        let before = is_another.then_some(&*self.config);
        // Before: a drain that ends from now on has its turn.
        let now_s = system::unix_s();
        let judged = self.health.judge_beside(config, before, &self.overrides);
        done("services are judged");
        let desired = plan::desired(
            &self.tables,
            &Inputs {
                config,
                standings: judged.standings(),
                view: &view,
                cpus: self.datapath.cpus(),
                buckets4: self.datapath.buckets4(),
                buckets6: self.datapath.buckets6(),
                seed: system::random().context("cannot make a secret for the connection tables")?,
            },
        )?;
        done("tables are planned");
        self.datapath.attach(interfaces)?;
        done("interfaces are attached");
        self.write(&desired)?;
        self.forget_used();
        self.health.are_written(judged, config, &self.overrides);
        self.own_real_servers = view.own_real_servers();
        done("tables are written");
        self.drain_deadline_s = self.overrides.next_deadline_s(now_s);
        self.upkeep.set_rules(self.rules(config));
        self.templates
            .set_timeouts(self.persistence_timeouts(config));
        if let Err(error) = self.datapath.detach_others(interfaces) {
            // All else is in force by now, and the program passes what comes by an interface without a slot.
            tracing::error!(
                "an interface that is not configured any more keeps its program, until the next reload tries again: {error}"
            );
        }
        Ok(())
    }

    /// Egress slots of interfaces, all of which must be there.
    fn slots(&self, interfaces: &[Interface]) -> anyhow::Result<BTreeMap<u32, u32>> {
        let indexes: Vec<u32> = interfaces
            .iter()
            .map(|it| Datapath::ifindex(&it.name))
            .collect::<Result<_, _>>()?;
        Ok(plan::assign_slots(&self.tables.interfaces, &indexes))
    }

    fn tell_network(&mut self, config: &Config, slots: &BTreeMap<u32, u32>) {
        // Slots are below `limits::INTERFACES`.
        let interfaces: Vec<(u32, u16)> = slots
            .iter()
            .map(|(slot, ifindex)| (*ifindex, *slot as u16))
            .collect();
        self.network.configure(&interfaces);
        self.network.want(self.real_servers(config));
    }

    /// Addresses of all real servers: configured ones, and removed ones that still have connections.
    pub(super) fn real_servers(&self, config: &Config) -> BTreeSet<IpAddr> {
        let configured = config
            .services
            .iter()
            .flat_map(VirtualService::all_servers)
            .filter(|server| is_remote(server))
            .map(|server| server.address);
        configured
            .chain(
                self.tables
                    .destinations
                    .values()
                    .filter(|record| record.flags & destination::LOCAL == 0)
                    .map(plan::destination_address),
            )
            .collect()
    }

    fn view(&mut self, config: &Config, slots: &BTreeMap<u32, u32>) -> NetworkView {
        let servers = self.real_servers(config);
        let view = NetworkView::of(&mut self.network, &servers, slots);
        let overflow = view.forwarding.overflow;
        if !overflow.is_none() && !self.overflow_told {
            tracing::warn!(
                ?overflow,
                "more routes or neighbours than the packet path's tables take: packets for them go through the kernel"
            );
        }
        self.overflow_told = !overflow.is_none();
        view
    }

    /// Makes the maps hold what is desired. After an error they hold a consistent part of it.
    pub(super) fn write(&mut self, desired: &Tables) -> anyhow::Result<()> {
        self.apply(plan::diff(&self.tables, desired))
    }

    /// Makes these writes, one after the other.
    pub(super) fn apply(&mut self, writes: Vec<Write>) -> anyhow::Result<()> {
        // Whatever comes of it: who was gone may be back, or his id another real server's.
        if !writes.is_empty() {
            self.gone_is_told = false;
        }
        let has_ways = |write: &Write| matches!(write, Write::Destination(..));
        let are_ways_new = writes.iter().any(has_ways);
        for write in writes {
            self.names_are_told &= !self.is_other_name(&write);
            tracing::trace!(?write, "map");
            self.datapath.maps.apply(&write)?;
            self.tables.apply(&write);
        }
        if are_ways_new {
            self.health.tell_ways(&self.tables);
        }
        Ok(())
    }

    /// Brings maps and interfaces in line with the network.
    pub(super) fn follow_network(&mut self) {
        if !self.network.take_change() {
            return;
        }
        if let Err(error) = self.follow_interfaces() {
            tracing::error!("{}", in_words(&error));
            self.network.look_again();
        }
        // Taken back while a program is refused, and given again once it is not.
        self.tell_readiness();
        let (config, slots) = (Arc::clone(&self.config), self.tables.interfaces.clone());
        let view = self.view(&config, &slots);
        // Seldom: a real server has become this node, or is it no more, and is reached by another method.
        let outcome = if view.own_real_servers() == self.own_real_servers {
            self.apply(plan::follow(&self.tables, &view))
        } else {
            tracing::info!(
                real_servers = ?view.own_real_servers(),
                "other real servers than before are this node"
            );
            self.configure(config)
        };
        if let Err(error) = outcome {
            self.network.look_again();
            if let Some(untold) = self.troubles.network.tell(Instant::now()) {
                tracing::error!(
                    untold,
                    "cannot bring the tables in line with the network: {}",
                    in_words(&error)
                );
            }
        }
    }

    /// An interface that went away and came back has another index: it needs its program and its slot anew.
    fn follow_interfaces(&mut self) -> anyhow::Result<()> {
        let present: Vec<Interface> = self
            .config
            .interfaces
            .iter()
            .filter(|interface| self.links.values().any(|link| link.name == interface.name))
            .cloned()
            .collect();
        let changed = present.iter().any(|interface| {
            let attached = self
                .datapath
                .attached()
                .find(|attached| attached.name == interface.name);
            !self.links.values().any(|link| {
                link.name == interface.name
                    && attached.is_some_and(|attached| attached.ifindex == link.ifindex)
            })
        });
        if !changed {
            return Ok(());
        }
        tracing::info!("an interface came back: attaching to it");
        let slots = self.slots(&present)?;
        let config = Arc::clone(&self.config);
        self.tell_network(&config, &slots);
        let view = self.view(&config, &slots);
        self.apply(plan::follow(&self.tables, &view))?;
        self.datapath.attach(&present)?;
        self.datapath.detach_others(&present)?;
        Ok(())
    }
}

/// Those interfaces that are there.
fn present(interfaces: &[Interface]) -> Vec<Interface> {
    let present = interfaces
        .iter()
        .filter(|interface| Datapath::ifindex(&interface.name).is_ok());
    present.cloned().collect()
}
