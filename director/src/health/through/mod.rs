//! Checks through the real path: to the virtual address, at one real server, as clients' packets go.
//!
//! ```text
//!  a namespace of the director's own                    the node
//!  ┌────────────────────────────────┐
//!  │ check's socket ──► tun ────────┼─► carrier ─► packet path (natively, Deliver) ─► packet socket ─► real server
//!  │ own address:port     ▲         │                                                                     │
//!  │ ► virtual address    └─────────┼── carrier ◄──────────── packet socket ◄── virtual ► own address ◄───┘
//!  └────────────────────────────────┘
//! ```
//!
//! The node usually holds the virtual address itself, so its own network stack could neither send a packet for it out nor
//! take one from it in. The namespace does not hold it. It has no name and no process: it ends with the director, however
//! that ends, and there is no rule, route or device outside of it.
//!
//! The real server answers the node's own address, where the node's stack would reset what it knows no socket of. So a
//! socket that drops everything (`guard.rs`) holds the port meanwhile.
//!
//! Packets leave with a TTL of 1: a real server without the virtual address cannot forward them to one that has it.

mod carrier;
mod guard;
mod namespace;
mod packet;
mod wire;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use xdp_ebpf::layout::Destination;

pub use carrier::{Carrier, Flow};

use super::probe::{Failure, FailureKind};
use crate::config::Method;

/// Which way a check goes to a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    /// The virtual address that it is sent to.
    pub virtual_address: IpAddr,
    /// How it reaches the real server.
    pub method: Method,
}

/// What it takes to go there.
#[derive(Clone, Debug)]
pub struct Through {
    /// Who carries its packets.
    pub carrier: Carrier,
    /// The real server, as the packet path has it.
    pub destination: Destination,
    /// The real server's address.
    pub server: IpAddr,
}

/// Transport protocol of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Through {
    /// A socket whose packets go through, bound to this node's address and not connected yet. It must be dropped before the
    /// flow.
    ///
    /// # Errors
    /// [`Failure`]: why there is none.
    pub async fn open(
        &self,
        transport: Transport,
        to: SocketAddr,
        source: Option<IpAddr>,
    ) -> Result<(socket2::Socket, Flow), Failure> {
        let failed = |kind, what: String| Failure::new(kind, format!("no way through: {what}"));
        let refused = |what: String, error: &io::Error| {
            failed(FailureKind::of_beginning(error), format!("{what}: {error}"))
        };
        if self.destination.next_hop.ifindex == 0 {
            return Err(Failure::new(
                FailureKind::Unreachable,
                format!("the next hop to {} is not resolved", self.server),
            ));
        }
        let source = match source {
            Some(source) => source,
            None => source_to(self.server)
                .map_err(|error| refused(format!("no route to {}", self.server), &error))?,
        };
        if source == to.ip() || source.is_ipv4() != to.is_ipv4() {
            let what = format!(
                "this node has the address {source} towards {}, to which {} would not answer; give the check another \
                 \"source\"",
                self.server,
                to.ip()
            );
            return Err(failed(FailureKind::Local, what));
        }
        self.carrier
            .open(transport, source, to, self.destination)
            .await
            .map_err(|error| refused(format!("from {source} to {to}"), &error))
    }
}

/// The address that this node's packets to a host have.
fn source_to(host: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if host.is_ipv4() {
        IpAddr::from([0u8; 4])
    } else {
        IpAddr::from([0u16; 8])
    };
    let socket = UdpSocket::bind((any, 0))?;
    // Sends nothing. Any port but 0 will do; this is `discard`.
    socket.connect((host, 9))?;
    Ok(socket.local_addr()?.ip())
}
