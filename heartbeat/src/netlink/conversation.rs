//! Requests and their answers.

use std::io;
use std::os::fd::AsFd;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, ParseableParametrized,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Larger than any datagram the kernel makes of messages (32 KiB for a dump).
pub(super) const DATAGRAM_BYTES: usize = 64 << 10;
/// Room for the answers of a conversation, in bytes.
const ANSWER_BYTES: usize = 1 << 20;
/// Most requests sent at once: their answers must all find room before the first is read.
const AT_ONCE: usize = 256;
/// Tries to get a dump during which nothing changed.
const DUMP_TRIES: u32 = 3;
/// A kernel that does not answer within this time will not: no answer of rtnetlink takes longer than the request.
const PATIENCE_MS: u16 = 1000;

/// A request with the flags it needs besides those that every one has.
pub(crate) struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
}

/// A request that changes something.
pub(crate) fn change(message: RouteNetlinkMessage, flags: u16) -> Request {
    Request { message, flags }
}

/// A socket for requests.
pub(crate) struct Conversation {
    socket: Socket,
    sequence: u32,
}

impl Conversation {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_rx_buf_sz(ANSWER_BYTES as libc::c_int)?;
        // An acknowledgement does not quote the request: many fit into the buffer.
        socket.set_cap_ack(true)?;
        // Lets the kernel leave out what a dump did not ask for. Those before Linux 4.20 do not know it.
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Carries out the requests in their order, whichever of them fail, and gives each one's answer.
    pub(crate) fn carry_out(&mut self, requests: &[Request]) -> io::Result<Vec<io::Result<()>>> {
        let mut answers = Vec::with_capacity(requests.len());
        for some in requests.chunks(AT_ONCE) {
            let first = self.sequence.wrapping_add(1);
            let mut bytes = Vec::new();
            for request in some {
                self.sequence = self.sequence.wrapping_add(1);
                let flags = NLM_F_REQUEST | NLM_F_ACK | request.flags;
                append(&mut bytes, request.message.clone(), flags, self.sequence);
            }
            self.socket.send(&bytes, 0)?;
            let mut waited: Vec<Option<io::Result<()>>> = some.iter().map(|_| None).collect();
            while waited.iter().any(Option::is_none) {
                self.read(|header, payload| {
                    let nth = header.sequence_number.wrapping_sub(first);
                    if let Some(answer) = waited.get_mut(nth as usize)
                        && header.message_type == NLMSG_ERROR
                    {
                        *answer = Some(error_code(payload).map_or(Ok(()), Err));
                    }
                })?;
            }
            answers.extend(waited.into_iter().flatten());
        }
        Ok(answers)
    }

    /// All entries of a table, or those that the request picks.
    pub(crate) fn dump(
        &mut self,
        request: &RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (entries, is_interrupted) = self.ask(request, NLM_F_DUMP)?;
            if !is_interrupted || tries == DUMP_TRIES {
                return Ok(entries);
            }
        }
    }

    /// One entry.
    pub(crate) fn get(
        &mut self,
        request: &RouteNetlinkMessage,
    ) -> io::Result<Option<RouteNetlinkMessage>> {
        let (entries, _) = self.ask(request, NLM_F_ACK)?;
        Ok(entries.into_iter().next())
    }

    fn ask(
        &mut self,
        request: &RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<(Vec<RouteNetlinkMessage>, bool)> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let mut bytes = Vec::new();
        append(&mut bytes, request.clone(), NLM_F_REQUEST | flags, sequence);
        self.socket.send(&bytes, 0)?;
        let (mut entries, mut is_over, mut is_interrupted, mut failed) =
            (Vec::new(), false, false, None);
        while !is_over {
            self.read(|header, payload| {
                // What is left of a dump that was given up.
                if header.sequence_number != sequence {
                    return;
                }
                is_interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                match header.message_type {
                    NLMSG_DONE => is_over = true,
                    NLMSG_ERROR => {
                        failed = error_code(payload);
                        is_over = true;
                    }
                    _ => entries.extend(parse(&header, payload)),
                }
            })?;
        }
        match failed {
            Some(error) => Err(error),
            None => Ok((entries, is_interrupted)),
        }
    }

    /// The next datagram of answers.
    fn read(&mut self, mut each: impl FnMut(NetlinkHeader, &[u8])) -> io::Result<()> {
        let mut waits = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waits, PollTimeout::from(PATIENCE_MS))? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the kernel does not answer a netlink request",
            ));
        }
        let mut buffer = Vec::with_capacity(DATAGRAM_BYTES);
        self.socket.recv(&mut buffer, libc::MSG_DONTWAIT)?;
        for (header, payload) in messages(&buffer) {
            each(header, payload);
        }
        Ok(())
    }
}

fn append(bytes: &mut Vec<u8>, payload: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(payload));
    message.finalize();
    let at = bytes.len();
    bytes.resize(at + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut bytes[at..]);
}

/// The messages of a datagram: header and payload. Ends early where lengths contradict each other.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (NetlinkHeader, &[u8])> {
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
            tracing::debug!(message_type = header.message_type, %error, "a message of the kernel's is not understood");
        })
        .ok()
}

/// The error of an `NLMSG_ERROR` message; none: an acknowledgement.
fn error_code(payload: &[u8]) -> Option<io::Error> {
    let code = payload
        .first_chunk()
        .map_or(-libc::EBADMSG, |bytes| i32::from_ne_bytes(*bytes));
    (code != 0).then(|| Errno::from_raw(-code).into())
}
