//! What the kernel says of an interface and its XDP program.

use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use super::error::DatapathError;
use crate::config::XdpMode;

/// An interface, as far as attaching needs to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkState {
    /// Largest IP packet, in bytes.
    pub(super) mtu: u32,
    /// How its XDP program is attached.
    pub(super) mode: Option<XdpMode>,
    /// Id of that program.
    pub(super) program: Option<u32>,
}

/// Index of an interface.
pub(super) fn ifindex(name: &str) -> Result<u32, DatapathError> {
    if_nametoindex(name).map_err(|errno| match errno {
        Errno::ENODEV | Errno::ENXIO | Errno::EINVAL => DatapathError::NoInterface {
            name: name.to_owned(),
        },
        errno => DatapathError::Query {
            name: name.to_owned(),
            source: errno.into(),
        },
    })
}

/// Asks for one interface.
pub(super) fn query(ifindex: u32) -> io::Result<LinkState> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut request = LinkMessage::default();
    request.header.index = ifindex;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(
        header,
        NetlinkPayload::from(RouteNetlinkMessage::GetLink(request)),
    );
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    state(&answer)
}

fn state(answer: &[u8]) -> io::Result<LinkState> {
    let message =
        NetlinkMessage::<RouteNetlinkMessage>::deserialize(answer).map_err(io::Error::other)?;
    let link = match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => link,
        NetlinkPayload::Error(error) => return Err(error.to_io()),
        other => {
            return Err(io::Error::other(format!(
                "an answer that is none: {other:?}"
            )));
        }
    };
    let mut state = LinkState::default();
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => state.mtu = mtu,
            LinkAttribute::Xdp(facts) => {
                for fact in facts {
                    match fact {
                        LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Hardware) => {
                            state.mode = Some(XdpMode::Native);
                        }
                        LinkXdp::Attached(XdpAttached::SocketBuffer) => {
                            state.mode = Some(XdpMode::Generic)
                        }
                        LinkXdp::ProgId(id)
                        | LinkXdp::DrvProgId(id)
                        | LinkXdp::SkbProgId(id)
                        | LinkXdp::HwProgId(id)
                            if id != 0 =>
                        {
                            state.program = Some(id);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(state)
}
