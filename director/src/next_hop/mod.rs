//! Where packets for an address go: routes, neighbours and links, kept from netlink.
//!
//! ```text
//!  kernel ──netlink──► Watch ──Event──► Network ──► resolve(real server) ─► destination records
//!    ▲                                     │   └──► tables() ─► ROUTES, NEXT_HOPS, NEIGHBOURS
//!    └──────probe────── Watch ◄── Prober ◄─┘
//! ```
//!
//! [`Network`] and [`Prober`] decide and never do I/O; [`Watch`] does I/O and never decides. Put together:
//!
//! ```no_run
//! # async fn run() -> Result<(), director::next_hop::WatchError> {
//! use director::next_hop::{Network, PROBE_TICK, Prober, Watch};
//! let (mut watch, mut network, mut prober) = (Watch::start()?, Network::new(), Prober::default());
//! network.configure(&[(2, 0), (3, 1)]);
//! network.want(["192.0.2.10".parse().unwrap()]);
//! let mut tick = tokio::time::interval(PROBE_TICK);
//! loop {
//!     tokio::select! {
//!         events = watch.next() => for event in events? { network.apply(event); },
//!         _ = tick.tick() => for probe in prober.due(&mut network, std::time::Instant::now()) {
//!             watch.probe(probe.ifindex, probe.address)?;
//!         },
//!     }
//!     let tables = network.tables(); // write the difference to the maps
//!     # let _ = tables;
//! }
//! # }
//! ```
//!
//! What is not followed, so that a packet is left to the kernel or goes another way than the kernel's: policy
//! rules (`ip rule`) and tables other than main, routes with an MTU of their own (the interface's is used), and
//! several next hops for one route (left to the kernel, which spreads over them).

mod decode;
mod egress;
mod event;
mod forwarding;
pub(crate) mod netlink;
mod network;
mod probe;
mod routes;
mod watch;

pub use event::{
    AsSource, Event, Hop, Link, LinkKind, NeighbourState, Placement, RouteEntry, RouteKind,
    VlanProtocol,
};
pub use forwarding::{ForwardingTables, Limits, Overflow};
pub use network::{Left, Network, Resolution};
pub use probe::{KEEP_ALIVE, PROBE_TICK, PROBES_PER_SECOND, Probe, Prober, RETRY};
pub use watch::{Watch, WatchError};

#[cfg(test)]
mod tests;
