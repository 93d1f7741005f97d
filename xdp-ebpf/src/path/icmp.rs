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
use super::reply::{self, owner_anywhere};
use super::send::{Direction, account, send};
use super::translate::{End, New, Translate, exchange_port};
use super::{Ip, Subject, Verdict, may_be_ranged, subject, untracked};
use crate::checksum::Delta;
use crate::layout::{Destination, NextHop, Reason, Served, Stage, method};
use crate::packet::Packet;
use crate::parse::{self, Network, Part, Transport};
use crate::reach::{Reach, Shape};
use crate::table::EVERYWHERE;
use crate::tables::Tables;
use crate::wire::{icmp, ports, protocol, tcp, udp};

/// Bytes of a transport header that every ICMP error quotes (RFC 792).
const QUOTED: usize = 8;

/// [`Stage::Icmp`] and [`Stage::Icmp6`], and of services on ranges of ports [`Stage::IcmpRanged`] and
/// [`Stage::Icmp6Ranged`].
#[inline(always)]
pub fn stage<F: Ip, R: Reach<F>, P: Packet, T: Tables>(packet: &mut P, tables: &T) -> Verdict {
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
        && let Some(served) = R::served(
            tables,
            quoted.source,
            transport.source_port,
            quoted.protocol,
        )
    {
        return to_real_server::<F, R, P, T>(packet, tables, &subject, &quoted, transport, served);
    }
    to_client::<F, R, P, T>(packet, tables, &subject, &quoted, transport)
}

/// About a packet from the virtual address to a client.
#[inline(always)]
fn to_real_server<F: Ip, R: Reach<F>, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    subject: &Subject<'_, F>,
    quoted: &Network<F>,
    transport: Transport,
    served: Served,
) -> Verdict {
    let key = R::key(
        quoted.destination,
        transport.destination_port,
        transport.source_port,
        served.endpoint(),
    );
    let value = R::Shape::find_elsewhere(tables, key, EVERYWHERE);
    let id = if served.tracks_on_change() {
        let port = transport.destination_port;
        untracked::owner::<F, T>(tables, served, quoted.destination, port, value)
    } else {
        value.destination()
    };
    if id == 0 {
        return Verdict::Pass;
    }
    let Some(destination) = tables.destination(id) else {
        return Verdict::Pass;
    };
    if destination.service != served.service() {
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
fn to_client<F: Ip, R: Reach<F>, P: Packet, T: Tables>(
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
    let Some(shared) = R::real_server(
        tables,
        quoted.destination,
        transport.destination_port,
        quoted.protocol,
    ) else {
        return match (may_be_ranged::<F, R, T>(tables), F::IPV6) {
            (false, _) => Verdict::Pass,
            (true, false) => Verdict::Continue(Stage::IcmpRanged),
            (true, true) => Verdict::Continue(Stage::Icmp6Ranged),
        };
    };
    let Some(owner) = owner_anywhere::<F, R, T>(
        tables,
        subject.settings,
        (quoted.source, transport.source_port),
        (quoted.destination, transport.destination_port),
        shared,
    ) else {
        return Verdict::Pass;
    };
    let next_hop = reply::next_hop::<F, P, T>(packet, tables, network.source, network.destination);
    let new = New {
        end: End::Source,
        address: F::from_table(&owner.endpoint.address),
        port: owner.virtual_port(),
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
    let exchanged = exchange_port(header, inside, port);
    delta = delta.and(exchanged);
    let transport = pseudo.and(exchanged);
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
