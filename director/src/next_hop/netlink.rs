//! Netlink messages on the wire, and dumps.

use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, ParseableParametrized,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::errno::Errno;
use nix::libc;

use super::decode;
use super::event::Event;

/// Larger than any datagram the kernel makes of messages (32 KiB for a dump).
pub(super) const DATAGRAM_BYTES: usize = 64 << 10;
/// Tries to get a dump during which nothing changed. Changes are told as events too, so giving up is no disaster.
const DUMP_TRIES: u32 = 3;

/// One dump, on a socket of its own: a dump given up half way would stand in the way of the next one.
pub(super) async fn dump(
    request: RouteNetlinkMessage,
    mut each: impl FnMut(&RouteNetlinkMessage),
) -> io::Result<Vec<Event>> {
    let mut tries = 0;
    loop {
        tries += 1;
        let socket: TokioSocket = AsyncSocket::new(NETLINK_ROUTE)?;
        // Lets the kernel leave out other routing tables; those before Linux 4.20 do not know it and send them all.
        if let Err(error) = socket.socket_ref().set_netlink_get_strict_chk(true) {
            tracing::debug!(%error, "no filtering of dumps");
        }
        socket.socket_ref().connect(&SocketAddr::new(0, 0))?;
        let bytes = serialize(request.clone(), NLM_F_REQUEST | NLM_F_DUMP, tries);
        socket.send(&bytes).await?;
        let mut events = Vec::new();
        let mut interrupted = false;
        let mut buffer = Vec::with_capacity(DATAGRAM_BYTES);
        'reading: loop {
            buffer.clear();
            socket.recv(&mut buffer).await?;
            for (header, payload) in messages(&buffer) {
                interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                match header.message_type {
                    NLMSG_DONE => break 'reading,
                    NLMSG_ERROR => match error_code(payload) {
                        // A routing table that never held a route does not exist.
                        Some(error) if error.raw_os_error() == Some(libc::ENOENT) => break 'reading,
                        Some(error) => return Err(error),
                        None => {}
                    },
                    _ => {
                        let Some(message) = parse(&header, payload) else {
                            continue;
                        };
                        each(&message);
                        events.extend(decode::event(&message, header.flags));
                    }
                }
            }
        }
        if !interrupted || tries == DUMP_TRIES {
            return Ok(events);
        }
    }
}

pub(crate) fn serialize(payload: RouteNetlinkMessage, flags: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(payload));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// The messages of a datagram: header and payload. Ends early where lengths contradict each other.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (NetlinkHeader, &[u8])> {
    std::iter::from_fn(move || {
        let buffer = NetlinkBuffer::new_checked(datagram).ok()?;
        let mut header = NetlinkHeader::default();
        header.length = buffer.length();
        header.message_type = buffer.message_type();
        header.flags = buffer.flags();
        header.sequence_number = buffer.sequence_number();
        let length = usize::try_from(buffer.length()).ok()?;
        let payload = buffer.payload();
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        Some((header, payload))
    })
}

pub(super) fn parse(header: &NetlinkHeader, payload: &[u8]) -> Option<RouteNetlinkMessage> {
    RouteNetlinkMessage::parse_with_param(payload, header.message_type)
        .inspect_err(|error| {
            tracing::warn!(message_type = header.message_type, %error, "a message of the kernel's is not understood");
        })
        .ok()
}

/// The error of an `NLMSG_ERROR` message; none: an acknowledgement.
pub(crate) fn error_code(payload: &[u8]) -> Option<io::Error> {
    let code = payload
        .first_chunk()
        .map_or(-libc::EBADMSG, |bytes| i32::from_ne_bytes(*bytes));
    (code != 0).then(|| Errno::from_raw(-code).into())
}
