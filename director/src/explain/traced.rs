//! Tables that write down what they are asked.

use std::cell::RefCell;
use std::net::IpAddr;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use xdp_ebpf::connection::{Bucket, Bucket4, Bucket6, Key6, Value};
use xdp_ebpf::layout::{
    Counters, Destination, Endpoint, Endpoint4, Endpoint6, Fragment, FragmentKey4, FragmentKey6,
    Load, Locality, LocalityKey, Neighbour4, Neighbour6, NextHop, RangeKey4, RangeKey6, Reason,
    Route, Scratch, Served, Service, Settings, SharedBy, Template, TemplateKey, TokenBucket, Work,
    method, scheduler, slot,
};
use xdp_ebpf::native::NativeTables;
use xdp_ebpf::packet::Packet;
use xdp_ebpf::state::State;
use xdp_ebpf::table::Put;
use xdp_ebpf::tables::Tables;

use crate::plan::{destination_address, endpoint_address, owners};

/// Tables and what was asked of them.
pub(super) struct Traced<'a> {
    tables: &'a NativeTables,
    steps: RefCell<Vec<String>>,
}

impl<'a> Traced<'a> {
    pub(super) fn new(tables: &'a NativeTables) -> Self {
        Self {
            tables,
            steps: RefCell::default(),
        }
    }

    pub(super) fn into_steps(self) -> Vec<String> {
        self.steps.into_inner()
    }

    /// Writes a step down, unless it is the last one once more.
    fn say(&self, step: String) {
        let mut steps = self.steps.borrow_mut();
        if steps.last() != Some(&step) {
            steps.push(step);
        }
    }

    fn found(&self, what: &str, found: Option<Served>) {
        self.say(match found {
            Some(served) => format!(
                "{what}: service {}, endpoint {}",
                served.service(),
                served.endpoint()
            ),
            None => format!("{what}: of no service"),
        });
    }

    fn server(&self, id: u32) -> String {
        match self.tables.destinations.get(&id) {
            Some(record) => format!(
                "destination {id} ({} port {})",
                destination_address(record),
                u16::from_be_bytes(record.port)
            ),
            None => format!("destination {id}"),
        }
    }

    fn value(&self, value: Value) -> String {
        let state = State::from_u8(value.state()).map_or("?", State::name);
        let now_s = self.tables.settings.map_or(0, |settings| settings.now_s);
        format!(
            "{}, {state}, idle {} s",
            self.server(value.destination()),
            value.idle_s(now_s)
        )
    }
}

fn end(address: impl Into<IpAddr>, port: [u8; 2], protocol: u8) -> String {
    let name = match protocol {
        6 => "tcp",
        17 => "udp",
        _ => "?",
    };
    format!(
        "{name} {} port {}",
        address.into(),
        u16::from_be_bytes(port)
    )
}

// SAFETY: everything is handed on to `NativeTables`, whose promises these are.
unsafe impl Tables for Traced<'_> {
    fn cpu(&self) -> u32 {
        self.tables.cpu()
    }

    fn now_ns(&self) -> u64 {
        self.tables.now_ns()
    }

    fn ticks(&self) -> u64 {
        self.tables.ticks()
    }

    fn lease_until(&self) -> u64 {
        self.tables.lease_until()
    }

    fn settings(&self) -> Option<&Settings> {
        self.tables.settings()
    }

    fn served4(&self, endpoint: &Endpoint4) -> Option<Served> {
        let found = self.tables.served4(endpoint);
        self.found(
            &end(endpoint.address, endpoint.port, endpoint.protocol),
            found,
        );
        found
    }

    fn served6(&self, endpoint: &Endpoint6) -> Option<Served> {
        let found = self.tables.served6(endpoint);
        self.found(
            &end(endpoint.address, endpoint.port, endpoint.protocol),
            found,
        );
        found
    }

    fn ranged4(&self, key: &RangeKey4) -> Option<Served> {
        let found = self.tables.ranged4(key);
        let what = end(key.address, key.port, key.protocol);
        self.found(&format!("{what} in a range"), found);
        found
    }

    fn ranged6(&self, key: &RangeKey6) -> Option<Served> {
        let found = self.tables.ranged6(key);
        let what = end(key.address, key.port, key.protocol);
        self.found(&format!("{what} in a range"), found);
        found
    }

    fn endpoint(&self, id: u16) -> Option<&Endpoint> {
        let found = self.tables.endpoint(id);
        if let Some(record) = found {
            let what = end(endpoint_address(record), record.port, record.protocol);
            self.say(format!("endpoint {id} is {what}"));
        }
        found
    }

    fn service(&self, id: u16) -> Option<&Service> {
        let found = self.tables.service(id);
        if let Some(record) = found {
            self.say(format!(
                "service {id}: scheduler {}, {} slots from {}, flags {:#x}",
                scheduler_name(record.scheduler),
                record.slots,
                record.first_slot,
                record.flags
            ));
        }
        found
    }

    fn cursor(&self, service: u16) -> Option<&AtomicU64> {
        self.tables.cursor(service)
    }

    fn slot(&self, index: u32) -> Option<u32> {
        let found = self.tables.slot(index);
        if let Some(word) = found.filter(|word| slot::previous(*word) != 0) {
            let (owner, previous) = (slot::owner(word), slot::previous(word));
            self.say(if previous == owners::NOBODY {
                format!("slot {index} was nobody's: what is not known goes to destination {owner}")
            } else {
                format!(
                    "slot {index} has changed: new connections go to destination {owner}, those that are not known to {previous}"
                )
            });
        }
        found
    }

    fn destination(&self, id: u32) -> Option<&Destination> {
        let found = self.tables.destination(id);
        if let Some(record) = found {
            let hop = if record.next_hop.ifindex == 0 {
                "next hop not resolved".to_owned()
            } else {
                format!("by interface {}", record.next_hop.ifindex)
            };
            self.say(format!(
                "{}: {}, flags {:#x}, {hop}",
                self.server(id),
                method_name(record.method),
                record.flags
            ));
        }
        found
    }

    fn load(&self, destination: u32) -> Option<&Load> {
        self.tables.load(destination)
    }

    fn template(&self, key: &TemplateKey) -> Option<Template> {
        let found = self.tables.template(key);
        self.say(match found {
            Some(template) => format!(
                "persistence knows the client: {}",
                self.server(template.destination)
            ),
            None => "persistence does not know the client".to_owned(),
        });
        found
    }

    fn put_template(&self, key: &TemplateKey, template: &Template, only_new: bool) -> bool {
        self.tables.put_template(key, template, only_new)
    }

    fn locality(&self, key: &LocalityKey) -> Option<&Locality> {
        self.tables.locality(key)
    }

    fn add_locality(&self, key: &LocalityKey) -> bool {
        self.tables.add_locality(key)
    }

    fn random(&self) -> u32 {
        self.tables.random()
    }

    fn counters(&self, destination: u32) -> Option<NonNull<Counters>> {
        self.tables.counters(destination)
    }

    fn count(&self, reason: Reason) {
        self.tables.count(reason);
    }

    fn real_server4(&self, endpoint: &Endpoint4) -> Option<&SharedBy> {
        let found = self.tables.real_server4(endpoint);
        let what = end(endpoint.address, endpoint.port, endpoint.protocol);
        let which = if found.is_some() { "a" } else { "no" };
        self.say(format!("from {what}: {which} real server under NAT"));
        found
    }

    fn real_server6(&self, endpoint: &Endpoint6) -> Option<&SharedBy> {
        let found = self.tables.real_server6(endpoint);
        let what = end(endpoint.address, endpoint.port, endpoint.protocol);
        let which = if found.is_some() { "a" } else { "no" };
        self.say(format!("from {what}: {which} real server under NAT"));
        found
    }

    fn address4(&self, address: [u8; 4]) -> u32 {
        self.tables.address4(address)
    }

    fn address6(&self, address: [u8; 16]) -> u32 {
        self.tables.address6(address)
    }

    fn route4(&self, address: [u8; 4]) -> Option<Route> {
        let found = self.tables.route4(address);
        self.say(format!("route to {}: {found:?}", IpAddr::from(address)));
        found
    }

    fn route6(&self, address: [u8; 16]) -> Option<Route> {
        let found = self.tables.route6(address);
        self.say(format!("route to {}: {found:?}", IpAddr::from(address)));
        found
    }

    fn next_hop(&self, id: u32) -> Option<&NextHop> {
        self.tables.next_hop(id)
    }

    fn neighbour4(&self, neighbour: &Neighbour4) -> Option<&NextHop> {
        self.tables.neighbour4(neighbour)
    }

    fn neighbour6(&self, neighbour: &Neighbour6) -> Option<&NextHop> {
        self.tables.neighbour6(neighbour)
    }

    fn egress(&self, ifindex: u32) -> Option<u32> {
        self.tables.egress(ifindex)
    }

    // The packet is one that comes to this node.
    fn own_mac(&self, _: u32) -> u64 {
        xdp_ebpf::layout::own_mac::ANY
    }

    fn bucket4(&self, index: u32) -> Option<&Bucket4> {
        self.tables.bucket4(index)
    }

    fn bucket6(&self, index: u32) -> Option<&Bucket6> {
        self.tables.bucket6(index)
    }

    fn fragment4(&self, key: &FragmentKey4) -> Option<NonNull<Fragment>> {
        self.tables.fragment4(key)
    }

    fn fragment6(&self, key: &FragmentKey6) -> Option<NonNull<Fragment>> {
        self.tables.fragment6(key)
    }

    fn put_fragment4(&self, key: &FragmentKey4, fragment: &Fragment) -> bool {
        self.tables.put_fragment4(key, fragment)
    }

    fn put_fragment6(&self, key: &FragmentKey6, fragment: &Fragment) -> bool {
        self.tables.put_fragment6(key, fragment)
    }

    fn remove_fragment4(&self, key: &FragmentKey4) {
        self.tables.remove_fragment4(key);
    }

    fn remove_fragment6(&self, key: &FragmentKey6) {
        self.tables.remove_fragment6(key);
    }

    fn hold<P: Packet>(&self, packet: &P, now_ns: u64) -> bool {
        self.say("an early fragment waits for its datagram's first one".to_owned());
        self.tables.hold(packet, now_ns)
    }

    fn limiter(&self) -> Option<NonNull<TokenBucket>> {
        self.tables.limiter()
    }

    fn scratch(&self) -> Option<NonNull<Scratch>> {
        self.tables.scratch()
    }

    fn work(&self) -> Option<NonNull<Work>> {
        self.tables.work()
    }

    fn put4(&self, key: u64, value: u64, is_new: bool) -> Put {
        let put = self.tables.put4(key, value, is_new);
        if !matches!(put, Put::Crowded(_)) {
            self.inserted(put == Put::In, Value(value), Bucket4::endpoint(key));
        }
        put
    }

    fn put_beyond4(&self, key: u64, value: u64, number: u64) -> bool {
        let put = self.tables.put_beyond4(key, value, number);
        self.inserted(put, Value(value), Bucket4::endpoint(key));
        put
    }

    fn put6(&self, key: Key6, value: u64, is_new: bool) -> Put {
        let put = self.tables.put6(key, value, is_new);
        if !matches!(put, Put::Crowded(_)) {
            self.inserted(put == Put::In, Value(value), Bucket6::endpoint(key));
        }
        put
    }

    fn put_beyond6(&self, key: Key6, value: u64, number: u64) -> bool {
        let put = self.tables.put_beyond6(key, value, number);
        self.inserted(put, Value(value), Bucket6::endpoint(key));
        put
    }

    fn elsewhere4(&self, key: u64, but: u32) -> u64 {
        let found = self.tables.elsewhere4(key, but);
        self.elsewhere(Value(found));
        found
    }

    fn elsewhere6(&self, key: Key6, but: u32) -> u64 {
        let found = self.tables.elsewhere6(key, but);
        self.elsewhere(Value(found));
        found
    }

    fn choose_by_table(&self, service: u16, hash: u32) -> u32 {
        let chosen = self.tables.choose_by_table(service, hash);
        self.chosen(chosen);
        chosen
    }

    fn choose_by_count(&self, service: u16) -> u32 {
        let chosen = self.tables.choose_by_count(service);
        self.chosen(chosen);
        chosen
    }

    fn choose_by_locality(&self, service: u16, address: [u64; 2], now_s: u32) -> u32 {
        let chosen = self.tables.choose_by_locality(service, address, now_s);
        self.chosen(chosen);
        chosen
    }
}

impl Traced<'_> {
    fn inserted(&self, put: bool, value: Value, endpoint: u16) {
        let how = match (put, value.flags() & Value::COPY != 0) {
            (true, false) => "a connection is entered",
            (true, true) => "a copy of the connection is entered on this CPU",
            (false, _) => "the connection table has no room",
        };
        self.say(format!("{how}: endpoint {endpoint}, {}", self.value(value)));
    }

    fn elsewhere(&self, value: Value) {
        self.say(if value.is_some() {
            format!("in another CPU's table: {}", self.value(value))
        } else {
            "in no other CPU's table".to_owned()
        });
    }

    fn chosen(&self, id: u32) {
        self.say(if id == 0 {
            "the scheduler finds no real server available".to_owned()
        } else {
            format!("the scheduler chooses {}", self.server(id))
        });
    }
}

/// As the configuration calls it.
fn scheduler_name(number: u8) -> &'static str {
    match number {
        scheduler::CURSOR => "rr or wrr",
        scheduler::MAGLEV => "mh",
        scheduler::SOURCE => "sh",
        scheduler::DESTINATION => "dh",
        scheduler::LC => "lc",
        scheduler::WLC => "wlc",
        scheduler::SED => "sed",
        scheduler::NQ => "nq",
        scheduler::FO => "fo",
        scheduler::OVF => "ovf",
        scheduler::TWOS => "twos",
        scheduler::LBLC => "lblc",
        scheduler::LBLCR => "lblcr",
        _ => "unknown",
    }
}

/// As the configuration calls it.
fn method_name(number: u8) -> &'static str {
    match number {
        method::NAT => "nat",
        method::DR => "dr",
        method::IPIP => "tun with ipip",
        method::GUE => "tun with gue",
        method::GRE => "tun with gre",
        _ => "no method",
    }
}
