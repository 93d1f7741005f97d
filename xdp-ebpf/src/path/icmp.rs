//! ICMP errors about a balanced connection, in both directions.
//!
//! ```text
//!  somebody on the client's side: outer → virtual address, quoted packet from (virtual address, port) to the client
//!                                 goes to the real server that owns the connection, by its method
//!  a NAT real server or a router: outer → client, quoted packet from the client to (real server, port)
//!                                 goes to the client, as if the virtual address had said it
//! ```
//!
//! The quoted packet is translated too, or its receiver would not recognise it (RFC 5508 section 4.2; IPVS's
//! `ip_vs_nat_icmp`).

use super::deliver::deliver;
use super::forward::flow_hash;
use super::reply::{self, owner};
use super::send::{Direction, account, send};
use super::translate::{End, New, Translate};
use super::{Ip, Subject, Verdict, subject};
use crate::checksum::Delta;
use crate::connection::Value;
use crate::layout::{Destination, NextHop, Reason, method};
use crate::packet::Packet;
use crate::parse::{self, Network, Part, Transport};
use crate::table;
use crate::tables::Tables;
use crate::wire::{icmp, ports, protocol, tcp, udp};

/// Bytes of a transport header that every ICMP error quotes (RFC 792).
const QUOTED: usize = 8;

/// [`crate::layout::Stage::Icmp`] and [`crate::layout::Stage::Icmp6`].
#[inline(always)]
pub fn stage<F: Ip, P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
    let Some(link) = parse::link(packet) else {
        return Verdict::Pass;
    };
    let Some(network) = F::network(packet, link.l3) else {
        return Verdict::Pass;
    };
    if network.part != Part::Whole || !parse::is_icmp_error(packet, &network) {
        return Verdict::Pass;
    }
    let Some(quoted) = F::network(packet, network.l4 + icmp::LEN) else {
        return Verdict::Pass;
    };
    if quoted.part == Part::Later || !matches!(quoted.protocol, protocol::TCP | protocol::UDP) {
        return Verdict::Pass;
    }
    let Some(header) = packet.window::<QUOTED>(quoted.l4) else {
        return Verdict::Pass;
    };
    let transport = Transport {
        source_port: header.raw16::<{ ports::SOURCE }>(),
        destination_port: header.raw16::<{ ports::DESTINATION }>(),
        flags: 0,
    };
    // All that is read and written must be the message's, not the frame's padding.
    let needed = icmp::LEN as u32 + quoted.header + QUOTED as u32;
    if !network.is_consistent(packet, needed) {
        return Verdict::Pass;
    }
    let Some(subject) = subject(packet, tables, link, network) else {
        return Verdict::Pass;
    };
    if F::is_same(network.destination, quoted.source)
        && let Some(service) = F::service(
            tables,
            quoted.source,
            transport.source_port,
            quoted.protocol,
        )
    {
        return to_real_server(packet, tables, &subject, &quoted, transport, service);
    }
    to_client(packet, tables, &subject, &quoted, transport)
}

/// About a packet from the virtual address to a client.
#[inline(always)]
fn to_real_server<F: Ip, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    subject: &Subject<'_, F>,
    quoted: &Network<F>,
    transport: Transport,
    service: u32,
) -> Verdict {
    let key = F::key(
        quoted.destination,
        transport.destination_port,
        service as u16,
    );
    let own = table::find::<F, T>(tables, subject.settings, tables.cpu(), key);
    let value = if own.is_some() {
        own.value
    } else {
        Value(table::find_elsewhere::<F, T>(tables, &key))
    };
    if !value.is_some() {
        return Verdict::Pass;
    }
    let id = value.destination();
    let Some(destination) = tables.destination(id) else {
        return Verdict::Pass;
    };
    if u32::from(destination.service) != service {
        return Verdict::Pass;
    }
    match destination.method {
        0 => Verdict::Pass,
        method::NAT => {
            let verdict = translated(packet, subject, quoted, destination);
            account(tables, id, Direction::In, subject.frame_bytes, verdict)
        }
        _ => {
            // As the connection's own packets from this client, so that they take the same way.
            let as_sent = Transport {
                source_port: transport.destination_port,
                destination_port: transport.source_port,
                flags: 0,
            };
            let flow = flow_hash::<F>(quoted.destination, as_sent);
            deliver(packet, tables, subject, false, id, destination, flow)
        }
    }
}

/// To a NAT real server: the virtual address becomes the real server's, outside and in the quoted packet.
#[inline(always)]
fn translated<F: Ip, P: Packet>(
    packet: &mut P,
    subject: &Subject<'_, F>,
    quoted: &Network<F>,
    destination: &Destination,
) -> Verdict {
    if !F::is_of(destination) {
        return Verdict::Drop(Reason::DestinationGone);
    }
    let new = New {
        end: End::Destination,
        address: F::from_table(&destination.address),
        port: u16::from_ne_bytes(destination.port),
    };
    send_on(packet, subject, quoted, new, &destination.next_hop)
}

/// Translates a message and the packet it quotes, and sends it on.
#[inline(always)]
fn send_on<F: Ip, P: Packet>(
    packet: &mut P,
    subject: &Subject<'_, F>,
    quoted: &Network<F>,
    new: New<F::Address>,
    next_hop: &NextHop,
) -> Verdict {
    let network = &subject.network;
    // Never an ICMP error about an ICMP error (RFC 1122 section 3.2.2).
    if network.ttl <= 1 {
        return Verdict::Drop(Reason::AnswerSuppressed);
    }
    let ours = next_hop.ifindex != 0 && network.length <= u32::from(next_hop.mtu);
    match translate_error(packet, network, quoted, new, ours) {
        None => Verdict::Drop(Reason::Malformed),
        Some(()) if ours => send(packet, subject.link.len, next_hop, F::ETHER_TYPE),
        Some(()) => Verdict::Pass,
    }
}

/// About a packet from a client to a NAT real server.
#[inline(always)]
fn to_client<F: Ip, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    subject: &Subject<'_, F>,
    quoted: &Network<F>,
    transport: Transport,
) -> Verdict {
    let network = &subject.network;
    if !F::is_same(network.destination, quoted.source) {
        return Verdict::Pass;
    }
    let Some(shared) = F::real_server(
        tables,
        quoted.destination,
        transport.destination_port,
        quoted.protocol,
    ) else {
        return Verdict::Pass;
    };
    let Some(owner) = owner(
        tables,
        subject,
        (quoted.source, transport.source_port),
        (quoted.destination, transport.destination_port),
        None,
        shared,
        false,
    ) else {
        return Verdict::Pass;
    };
    let next_hop = reply::next_hop::<F, P, T>(packet, tables, network.source, network.destination);
    let new = New {
        end: End::Source,
        address: F::from_table(&owner.record.address),
        port: u16::from_ne_bytes(owner.record.port),
    };
    let verdict = send_on(packet, subject, quoted, new, &next_hop);
    account(
        tables,
        owner.destination,
        Direction::Out,
        subject.frame_bytes,
        verdict,
    )
}

/// Replaces one end of the message and the opposite end of the packet it quotes.
#[inline(always)]
fn translate_error<F: Translate, P: Packet>(
    packet: &P,
    network: &Network<F>,
    quoted: &Network<F>,
    new: New<F::Address>,
    hop: bool,
) -> Option<()> {
    let New { end, address, port } = new;
    let inside = match end {
        End::Source => End::Destination,
        End::Destination => End::Source,
    };
    let pseudo = F::replace(packet, quoted.l3, inside, address, false)?;
    // What the message's checksum sees. An IPv4 header's own checksum changed by just the opposite of its address.
    let mut delta = if F::IPV6 { pseudo } else { Delta::NONE };
    let header = packet.window::<QUOTED>(quoted.l4)?;
    let old_port = match inside {
        End::Source => {
            let old = header.raw16::<{ ports::SOURCE }>();
            header.set_raw16::<{ ports::SOURCE }>(port);
            old
        }
        End::Destination => {
            let old = header.raw16::<{ ports::DESTINATION }>();
            header.set_raw16::<{ ports::DESTINATION }>(port);
            old
        }
    };
    delta = delta.word(old_port, port);
    let transport = pseudo.word(old_port, port);
    if quoted.protocol == protocol::UDP {
        let old = header.raw16::<{ udp::CHECKSUM }>();
        let new = transport.apply_udp(old);
        header.set_raw16::<{ udp::CHECKSUM }>(new);
        delta = delta.word(old, new);
    } else if network.length
        >= network.header + icmp::LEN as u32 + quoted.header + tcp::CHECKSUM as u32 + 2
        && let Some(header) = packet.window::<{ tcp::CHECKSUM + 2 }>(quoted.l4)
    {
        let old = header.raw16::<{ tcp::CHECKSUM }>();
        let new = transport.apply(old);
        header.set_raw16::<{ tcp::CHECKSUM }>(new);
        delta = delta.word(old, new);
    }
    let pseudo = F::replace(packet, network.l3, end, address, hop)?;
    if F::IPV6 {
        delta = delta.and(pseudo);
    }
    let message = packet.window::<{ icmp::LEN }>(network.l4)?;
    message.set_raw16::<{ icmp::CHECKSUM }>(delta.apply(message.raw16::<{ icmp::CHECKSUM }>()));
    Some(())
}
