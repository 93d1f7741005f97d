//! One connection or template in bytes.
//!
//! ```text
//!  connection: flags  protocol  client (address, port)  virtual service  server  idle seconds (2)      22 bytes all in IPv4
//!  template:   flags  protocol  virtual service  client (address)  server  idle seconds (4)
//!  flags: 0x80 template   0x40 learned by who sends it   0x20 client and virtual service are IPv6   0x10 server is IPv6
//!         0x0f state of the connection; of a template: 1 if it holds for the endpoint alone
//! ```

use std::net::SocketAddr;

use xdp_ebpf::state::State;

use super::reader::{Malformed, Reader, put_endpoint, put_ip};
use crate::entry::{Entry, Record, Template};

/// Bytes of the longest record: a connection all in IPv6.
pub const LONGEST_RECORD: usize = 2 + 3 * 18 + 2;

const TEMPLATE: u8 = 0x80;
const LEARNED: u8 = 0x40;
const CLIENT6: u8 = 0x20;
const SERVER6: u8 = 0x10;
const LOW: u8 = 0x0f;

/// How many bytes a record takes.
pub(crate) fn length(record: &Record) -> usize {
    let families = |client: SocketAddr, server: SocketAddr| {
        let bytes = |endpoint: SocketAddr| if endpoint.is_ipv4() { 4 } else { 16 };
        2 + 2 * bytes(client) + bytes(server)
    };
    match record {
        Record::Entry(entry) => families(entry.virtual_service, entry.server) + 6 + 2,
        Record::Template(template) => families(template.virtual_service, template.server) + 4 + 4,
    }
}

/// Writes a record. `is_learned`: the writer has it from a peer itself.
pub(super) fn put(bytes: &mut Vec<u8>, record: &Record, is_learned: bool) {
    let flags = |kind: u8, client: SocketAddr, server: SocketAddr| {
        let bit = |flag: u8, is_set: bool| if is_set { flag } else { 0 };
        kind | bit(LEARNED, is_learned)
            | bit(CLIENT6, client.is_ipv6())
            | bit(SERVER6, server.is_ipv6())
    };
    match record {
        Record::Entry(entry) => {
            bytes.extend([
                flags(entry.state as u8, entry.virtual_service, entry.server),
                entry.protocol,
            ]);
            put_endpoint(bytes, entry.client);
            put_endpoint(bytes, entry.virtual_service);
            put_endpoint(bytes, entry.server);
            bytes.extend(entry.idle_s.to_be_bytes());
        }
        Record::Template(template) => {
            let kind = TEMPLATE | u8::from(template.per_port);
            bytes.extend([
                flags(kind, template.virtual_service, template.server),
                template.protocol,
            ]);
            put_endpoint(bytes, template.virtual_service);
            put_ip(bytes, template.client);
            put_endpoint(bytes, template.server);
            bytes.extend(template.idle_s.to_be_bytes());
        }
    }
}

/// Reads a record, and whether the writer had learned it.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<(Record, bool), Malformed> {
    let [flags, protocol] = reader.array()?;
    let is_learned = flags & LEARNED != 0;
    let (client_is_v4, server_is_v4) = (flags & CLIENT6 == 0, flags & SERVER6 == 0);
    if flags & TEMPLATE == 0 {
        let state = State::from_u8(flags & LOW).ok_or(Malformed)?;
        let entry = Entry {
            protocol,
            client: reader.endpoint(client_is_v4)?,
            virtual_service: reader.endpoint(client_is_v4)?,
            server: reader.endpoint(server_is_v4)?,
            state,
            idle_s: reader.u16()?,
        };
        return Ok((Record::Entry(entry), is_learned));
    }
    let per_port = match flags & LOW {
        0 => false,
        1 => true,
        _ => return Err(Malformed),
    };
    let template = Template {
        protocol,
        per_port,
        virtual_service: reader.endpoint(client_is_v4)?,
        client: reader.ip(client_is_v4)?,
        server: reader.endpoint(server_is_v4)?,
        idle_s: reader.u32()?,
    };
    Ok((Record::Template(template), is_learned))
}
