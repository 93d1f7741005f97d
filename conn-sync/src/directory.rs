//! Names and numbers: what an entry of the tables is called on the wire, and the other way round.
//!
//! ```text
//!   tables: endpoint 7, destination 312   ◄── Directory ──►   wire: 198.51.100.1:80/TCP, 10.0.0.2:8080
//! ```
//!
//! Numbers are each director's own. So names travel: the virtual service's and the real server's addresses.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use xdp_ebpf::connection::{Key6, Value, key4, key6, split_key4, split_key6};
use xdp_ebpf::layout::{self, TemplateKey, destination};
use xdp_ebpf::state::{STATES, State, TIMEOUTS_S};
use xdp_ebpf::walk::idle_s;

use crate::entry::{Entry, Template};

/// What stands in the tables, named: an entry of a table or a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Handle {
    /// Of the narrow table.
    Narrow(u64),
    /// Of the wide table.
    Wide(Key6),
    /// A template.
    Template(TemplateKey),
}

impl Handle {
    /// The id of its endpoint; 0 of a template of all of a service.
    #[must_use]
    pub fn endpoint(self) -> u16 {
        match self {
            Self::Narrow(key) => split_key4(key).2,
            Self::Wide(key) => split_key6(key).endpoint,
            Self::Template(key) => key.endpoint,
        }
    }
}

/// How persistence of an endpoint's service names its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// Bits of the client's address that count.
    pub mask: [u8; 16],
    /// Whether endpoint and port are part of the name.
    pub per_port: bool,
    /// Idle seconds after which a client is forgotten.
    pub timeout_s: u32,
}

/// An endpoint of a virtual service.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// As the packet path knows it.
    pub record: layout::Endpoint,
    /// Idle seconds after which its connections are forgotten, by the number of a [`State`].
    pub timeouts_s: [u16; STATES],
    /// Of its service.
    pub persistence: Option<Persistence>,
}

impl Endpoint {
    /// Of this record, with the usual timeouts.
    #[must_use]
    pub fn new(record: layout::Endpoint) -> Self {
        Self {
            record,
            timeouts_s: TIMEOUTS_S,
            persistence: None,
        }
    }

    fn address(&self) -> IpAddr {
        from_table(self.record.address, self.record.family == 6)
    }

    fn first_port(&self) -> u16 {
        u16::from_be_bytes(self.record.port)
    }

    fn last_port(&self) -> u16 {
        u16::from_be_bytes(self.record.last_port)
    }

    fn is_ranged(&self) -> bool {
        self.record.port != self.record.last_port
    }

    fn has_all_ports(&self) -> bool {
        (self.first_port(), self.last_port()) == (1, u16::MAX)
    }
}

/// The ports of a virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// One.
    One,
    /// Some.
    Some,
    /// All of them.
    All,
}

/// A real server as a service sees it.
#[derive(Clone, Copy, Debug)]
struct Server {
    service: u16,
    address: SocketAddr,
    is_out: bool,
    /// One of [`layout::method`].
    method: u8,
    is_local: bool,
}

/// All names of a director's tables at one moment.
#[derive(Debug, Default)]
pub struct Directory {
    endpoints: HashMap<u16, Endpoint>,
    /// Of each endpoint, by its id.
    timeouts_s: Vec<[u16; STATES]>,
    exact: HashMap<(u8, SocketAddr), u16>,
    ranges: HashMap<(u8, IpAddr), Vec<u16>>,
    /// The lowest of each service's endpoints, which templates name it by.
    first: HashMap<u16, u16>,
    servers: Vec<Option<Server>>,
    numbers: HashMap<(u16, SocketAddr), u32>,
}

/// An entry under its numbers, as it is to be learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// Which entry.
    pub handle: Handle,
    /// Destination id.
    pub destination: u32,
}

/// What an entry names and this director does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// The virtual service.
    #[error("no virtual service here has this address, port and protocol")]
    Service,
    /// The real server.
    #[error("the virtual service has no such real server here")]
    Server,
}

impl Directory {
    /// Of these endpoints and destinations, by their ids.
    #[must_use]
    pub fn new(
        endpoints: impl IntoIterator<Item = (u16, Endpoint)>,
        destinations: impl IntoIterator<Item = (u32, layout::Destination)>,
    ) -> Self {
        let mut directory = Self::default();
        for (id, endpoint) in endpoints {
            let service = endpoint.record.service;
            let first = directory.first.entry(service).or_insert(id);
            *first = (*first).min(id);
            let (protocol, address) = (endpoint.record.protocol, endpoint.address());
            if endpoint.is_ranged() {
                let ranges = directory.ranges.entry((protocol, address)).or_default();
                ranges.push(id);
            } else {
                let name = SocketAddr::new(address, endpoint.first_port());
                directory.exact.insert((protocol, name), id);
            }
            let index = usize::from(id);
            if directory.timeouts_s.len() <= index {
                directory.timeouts_s.resize(index + 1, TIMEOUTS_S);
            }
            directory.timeouts_s[index] = endpoint.timeouts_s;
            directory.endpoints.insert(id, endpoint);
        }
        for (id, record) in destinations {
            if record.method == 0 {
                continue;
            }
            let address = SocketAddr::new(
                from_table(record.address, record.flags & destination::IPV6 != 0),
                u16::from_be_bytes(record.port),
            );
            let out = destination::RETIRED | destination::CLOSED | destination::GONE;
            let server = Server {
                service: record.service,
                address,
                is_out: record.flags & out != 0,
                method: record.method,
                is_local: record.flags & destination::LOCAL != 0,
            };
            let number = directory.numbers.entry((record.service, address));
            let standing = number.or_insert(id);
            // One that was removed and has come back stands twice for a while.
            let is_better = directory
                .servers
                .get(*standing as usize)
                .and_then(Option::as_ref)
                .is_none_or(|other| other.is_out && !server.is_out);
            if is_better {
                *standing = id;
            }
            if directory.servers.len() <= id as usize {
                directory.servers.resize(id as usize + 1, None);
            }
            directory.servers[id as usize] = Some(server);
        }
        directory
    }

    /// The name of what stands in the tables. `None`: of nothing that is configured, or of what is only to be freed yet: its time
    /// has passed, and peers would refuse it.
    #[must_use]
    pub fn entry(&self, handle: Handle, value: Value, now_s: u32) -> Option<Entry> {
        let (client, client_port, virtual_port, endpoint) = match handle {
            Handle::Narrow(key) => {
                let (address, port, endpoint) = split_key4(key);
                let client = IpAddr::from(address.to_ne_bytes());
                (client, port, None, self.endpoints.get(&endpoint)?)
            }
            Handle::Wide(key) => {
                let split = split_key6(key);
                let endpoint = self.endpoints.get(&split.endpoint)?;
                let address = xdp_ebpf::family::bytes6(split.client);
                let client = from_table(address, endpoint.record.family == 6);
                let port = (split.virtual_port != 0).then(|| u16::from_be(split.virtual_port));
                (client, split.port, port, endpoint)
            }
            Handle::Template(_) => return None,
        };
        let server = self.server(value.destination())?;
        (server.service == endpoint.record.service).then_some(())?;
        let (state, idle_s) = (State::from_u8(value.state())?, idle_s(value, now_s));
        (idle_s < endpoint.timeouts_s[state as usize]).then_some(())?;
        let virtual_port = virtual_port.unwrap_or_else(|| endpoint.first_port());
        Some(Entry {
            protocol: endpoint.record.protocol,
            client: SocketAddr::new(client, u16::from_be(client_port)),
            virtual_service: SocketAddr::new(endpoint.address(), virtual_port),
            server: server.address,
            state,
            idle_s,
        })
    }

    /// Where a name's entry stands in the tables, and the service that it is of.
    ///
    /// # Errors
    /// [`Unknown::Service`] here.
    pub fn handle(&self, entry: &Entry) -> Result<(Handle, u16), Unknown> {
        let id = self
            .endpoint_of(entry.protocol, entry.virtual_service)
            .ok_or(Unknown::Service)?;
        let endpoint = self.endpoints.get(&id).ok_or(Unknown::Service)?;
        let port = entry.client.port().to_be();
        let handle = match entry.client.ip() {
            IpAddr::V4(client) if !endpoint.is_ranged() => {
                Handle::Narrow(key4(u32::from_ne_bytes(client.octets()), port, id))
            }
            client => {
                let virtual_port = if endpoint.is_ranged() {
                    entry.virtual_service.port().to_be()
                } else {
                    0
                };
                Handle::Wide(key6(words(to_table(client)), port, virtual_port, id))
            }
        };
        Ok((handle, endpoint.record.service))
    }

    /// The numbers of a name.
    ///
    /// # Errors
    /// [`Unknown`] here.
    pub fn number(&self, entry: &Entry) -> Result<Numbered, Unknown> {
        let (handle, service) = self.handle(entry)?;
        let destination = self.server_at(service, entry.server, entry.virtual_service.port());
        Ok(Numbered {
            handle,
            destination: destination.ok_or(Unknown::Server)?,
        })
    }

    /// The name of a template. `None`: of nothing that is configured, or of what stays only if its client has a connection yet:
    /// then it is used again soon.
    #[must_use]
    pub fn template(
        &self,
        key: &TemplateKey,
        template: &layout::Template,
        now_s: u32,
    ) -> Option<Template> {
        let id = if key.endpoint == 0 {
            *self.first.get(&key.service)?
        } else {
            key.endpoint
        };
        let endpoint = self.endpoints.get(&id)?;
        let server = self.server(template.destination)?;
        (server.service == key.service && endpoint.record.service == key.service).then_some(())?;
        let port = match u16::from_be_bytes(key.port) {
            0 => endpoint.first_port(),
            port => port,
        };
        let idle_s = match now_s.wrapping_sub(template.seen_s) {
            // Used after `now_s` was read: now.
            ahead if ahead > u32::MAX / 2 => 0,
            idle_s => idle_s,
        };
        (idle_s < endpoint.persistence?.timeout_s).then_some(())?;
        Some(Template {
            protocol: endpoint.record.protocol,
            virtual_service: SocketAddr::new(endpoint.address(), port),
            per_port: key.endpoint != 0,
            client: from_table(key.client, endpoint.record.family == 6),
            server: server.address,
            idle_s,
        })
    }

    /// The numbers of a template: its key and its destination.
    ///
    /// # Errors
    /// [`Unknown`] here.
    pub fn number_template(&self, template: &Template) -> Result<(TemplateKey, u32), Unknown> {
        let id = self
            .endpoint_of_template(template.protocol, template.virtual_service)
            .ok_or(Unknown::Service)?;
        let endpoint = self.endpoints.get(&id).ok_or(Unknown::Service)?;
        let service = endpoint.record.service;
        // A service that keeps its clients otherwise than the peer's has no use for it.
        let persistence = endpoint.persistence.ok_or(Unknown::Service)?;
        if persistence.per_port != template.per_port {
            return Err(Unknown::Service);
        }
        let destination = self
            .server_at(service, template.server, template.virtual_service.port())
            .ok_or(Unknown::Server)?;
        let client = u128::from_ne_bytes(to_table(template.client));
        let key = TemplateKey {
            client: (client & u128::from_ne_bytes(persistence.mask)).to_ne_bytes(),
            service,
            endpoint: if template.per_port { id } else { 0 },
            port: if template.per_port {
                template.virtual_service.port().to_be_bytes()
            } else {
                [0; 2]
            },
            zero: 0,
        };
        Ok((key, destination))
    }

    /// Idle seconds after which entries of an endpoint are forgotten, by the number of their state; the usual ones of an
    /// endpoint that is not known. Asked for each entry that stands, several times a minute.
    #[must_use]
    pub fn timeouts_s(&self, endpoint: u16) -> &[u16; STATES] {
        self.timeouts_s
            .get(usize::from(endpoint))
            .unwrap_or(&TIMEOUTS_S)
    }

    /// Idle seconds after which a template is forgotten.
    #[must_use]
    pub fn template_timeout_s(&self, key: &TemplateKey) -> u32 {
        let id = if key.endpoint == 0 {
            self.first.get(&key.service)
        } else {
            Some(&key.endpoint)
        };
        let persistence = id
            .and_then(|id| self.endpoints.get(id))
            .and_then(|endpoint| endpoint.persistence);
        persistence.map_or(0, |it| it.timeout_s)
    }

    /// How packets reach a destination, a [`layout::method`], and whether it is the director itself.
    #[must_use]
    pub fn method(&self, destination: u32) -> Option<(u8, bool)> {
        let server = self.server(destination)?;
        Some((server.method, server.is_local))
    }

    /// Idle seconds after which a connection of this virtual service and state is forgotten.
    #[must_use]
    pub fn timeout_s(
        &self,
        protocol: u8,
        virtual_service: SocketAddr,
        state: State,
    ) -> Option<u16> {
        let endpoint = self
            .endpoints
            .get(&self.endpoint_of(protocol, virtual_service)?)?;
        Some(endpoint.timeouts_s[state as usize])
    }

    /// How this virtual service, as a template names it, keeps its clients.
    #[must_use]
    pub fn persistence(&self, protocol: u8, virtual_service: SocketAddr) -> Option<Persistence> {
        let id = self.endpoint_of_template(protocol, virtual_service)?;
        self.endpoints.get(&id)?.persistence
    }

    /// Which ports this virtual service has.
    #[must_use]
    pub fn ports(&self, protocol: u8, virtual_service: SocketAddr) -> Option<Ports> {
        let id = self.endpoint_of(protocol, virtual_service)?;
        let endpoint = self.endpoints.get(&id)?;
        Some(match endpoint.is_ranged() {
            false => Ports::One,
            true if endpoint.has_all_ports() => Ports::All,
            true => Ports::Some,
        })
    }

    /// All virtual services and the real servers of each.
    fn names(&self) -> HashSet<Name> {
        let service_of = |endpoint: &Endpoint| {
            let address = SocketAddr::new(endpoint.address(), endpoint.first_port());
            (endpoint.record.protocol, address)
        };
        let services = self.endpoints.values().map(|endpoint| {
            let (protocol, address) = service_of(endpoint);
            (protocol, address, None)
        });
        let servers = self.servers.iter().flatten().filter_map(|server| {
            let first = self.first.get(&server.service)?;
            let (protocol, address) = service_of(self.endpoints.get(first)?);
            Some((protocol, address, Some(server.address)))
        });
        services.chain(servers).collect()
    }

    fn endpoint_of(&self, protocol: u8, name: SocketAddr) -> Option<u16> {
        if let Some(id) = self.exact.get(&(protocol, name)) {
            return Some(*id);
        }
        let ranges = self.ranges.get(&(protocol, name.ip()))?;
        ranges.iter().copied().find(|id| {
            self.endpoints.get(id).is_some_and(|endpoint| {
                (endpoint.first_port()..=endpoint.last_port()).contains(&name.port())
            })
        })
    }

    /// The kernel names a service on all ports by port 0 in its templates.
    fn endpoint_of_template(&self, protocol: u8, name: SocketAddr) -> Option<u16> {
        if name.port() != 0 {
            return self.endpoint_of(protocol, name);
        }
        let ranges = self.ranges.get(&(protocol, name.ip()))?;
        let has_all = |id: &u16| self.endpoints.get(id).is_some_and(Endpoint::has_all_ports);
        ranges.iter().copied().find(has_all)
    }

    fn server(&self, destination: u32) -> Option<&Server> {
        self.servers.get(destination as usize)?.as_ref()
    }

    /// The kernel's protocol has the port that packets are sent to where this director says that it is kept.
    fn server_at(&self, service: u16, address: SocketAddr, virtual_port: u16) -> Option<u32> {
        self.server_of(service, address).or_else(|| {
            let kept = SocketAddr::new(address.ip(), 0);
            (address.port() == virtual_port)
                .then(|| self.server_of(service, kept))
                .flatten()
        })
    }

    fn server_of(&self, service: u16, address: SocketAddr) -> Option<u32> {
        self.numbers.get(&(service, address)).copied()
    }
}

/// A virtual service, or a real server of one.
type Name = (u8, SocketAddr, Option<SocketAddr>);

/// What was there and is not any more. When it comes back, what peers told of it is to be had anew.
#[derive(Debug, Default)]
pub struct Gone(HashSet<Name>);

/// More than this is not remembered.
const GONE: usize = 1 << 17;

impl Gone {
    /// One directory takes another's place. Whether something has come back.
    pub fn on_change(&mut self, before: &Directory, after: &Directory) -> bool {
        let after = after.names();
        let was = self.0.len();
        self.0.retain(|name| !after.contains(name));
        let is_back = self.0.len() < was;
        let gone = before.names().into_iter().filter(|it| !after.contains(it));
        let room = GONE.saturating_sub(self.0.len());
        self.0.extend(gone.take(room));
        is_back
    }
}

/// An address as it stands in a table.
fn from_table(bytes: [u8; 16], is_ipv6: bool) -> IpAddr {
    if is_ipv6 {
        IpAddr::from(bytes)
    } else {
        let [a, b, c, d, ..] = bytes;
        IpAddr::from([a, b, c, d])
    }
}

fn to_table(address: IpAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    match address {
        IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => bytes = address.octets(),
    }
    bytes
}

fn words(bytes: [u8; 16]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    words
}

#[cfg(test)]
mod tests;
