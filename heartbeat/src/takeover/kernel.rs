//! The kernel's end of taking over: rtnetlink, a packet socket, `/proc/sys/net`.

use std::io;
use std::mem;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::Path;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope, CacheInfo,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoMacVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use nix::libc;
use socket2::{Domain, Socket, Type};

use super::frames::Mac;
use super::network::{Change, Held, Interface, Network};
use crate::netlink::{Conversation, address, change};

/// The mark of addresses where nothing else is asked for: what `ip address` shows as `proto 94` (heartbeat's port is
/// 694). None of the kernel's own or of iproute2's list (`rt_addrprotos`). Kernels before 5.18 do not keep it.
pub const MARK: u8 = 94;
/// Where settings of the network stand.
const SETTINGS: &str = "/proc/sys/net";

/// The network of the namespace in which it was opened.
pub struct Kernel {
    conversation: Conversation,
    packets: Socket,
    mark: u8,
}

impl Kernel {
    /// Opens the sockets. `mark` tells what this heartbeat has added from everything else: several in one network
    /// namespace need different ones.
    ///
    /// # Errors
    /// No permission.
    pub fn open(mark: u8) -> io::Result<Self> {
        // Protocol 0: it only sends, and no packet is copied to it.
        let packets = Socket::new(Domain::PACKET, Type::RAW, None)?;
        packets.set_nonblocking(true)?;
        Ok(Self {
            conversation: Conversation::open()?,
            packets,
            mark,
        })
    }

    fn alias(&self) -> String {
        format!("heartbeat {}", self.mark)
    }

    fn read(&self, message: &RouteNetlinkMessage) -> Option<Interface> {
        let RouteNetlinkMessage::NewLink(message) = message else {
            return None;
        };
        if message.header.interface_family != AddressFamily::Unspec {
            return None;
        }
        let alias = self.alias();
        let (mut name, mut mac, mut parent, mut is_marked, mut is_macvlan) =
            (None, [0; 6], None, false, false);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(value) => name = Some(value.clone()),
                LinkAttribute::Address(value) => {
                    mac = Mac::try_from(value.as_slice()).unwrap_or_default();
                }
                LinkAttribute::Link(value) => parent = Some(*value),
                LinkAttribute::IfAlias(value) => is_marked = *value == alias,
                LinkAttribute::LinkInfo(infos) => {
                    is_macvlan = infos
                        .iter()
                        .any(|info| matches!(info, LinkInfo::Kind(InfoKind::MacVlan)));
                }
                _ => {}
            }
        }
        Some(Interface {
            index: message.header.index,
            name: name?,
            mac,
            parent,
            is_marked: is_marked && is_macvlan,
        })
    }

    fn request(&self, asked: &Change) -> crate::netlink::Request {
        match asked {
            Change::AddAddress {
                index,
                address,
                metric,
            } => {
                let mut message = address_message(*index, address);
                if address.addr().is_ipv6() {
                    // Duplicate address detection would take a second, and would find the failed node, if it still
                    // answers: then nobody would serve.
                    message
                        .attributes
                        .push(AddressAttribute::Flags(AddressFlags::Nodad));
                    // Nor is it what this node's own packets come from: of the addresses of a network the kernel takes the
                    // newest, or the one that is most alike, and who else holds it, another node or a real server behind
                    // direct routing, would take the answers for its own.
                    message
                        .attributes
                        .push(AddressAttribute::CacheInfo(deprecated()));
                }
                if let Some(metric) = metric {
                    message
                        .attributes
                        .push(AddressAttribute::RoutePriority(*metric));
                }
                let mark = AddressProtocol::from(self.mark);
                message.attributes.push(AddressAttribute::Protocol(mark));
                change(
                    RouteNetlinkMessage::NewAddress(message),
                    NLM_F_CREATE | NLM_F_EXCL,
                )
            }
            Change::RemoveAddress { index, address } => change(
                RouteNetlinkMessage::DelAddress(address_message(*index, address)),
                0,
            ),
            Change::AddMacvlan { parent, name, mac } => {
                let mut message = LinkMessage::default();
                message.attributes = vec![
                    LinkAttribute::IfName(name.clone()),
                    LinkAttribute::Link(*parent),
                    LinkAttribute::Address(mac.to_vec()),
                    LinkAttribute::LinkInfo(vec![
                        LinkInfo::Kind(InfoKind::MacVlan),
                        LinkInfo::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(
                            MacVlanMode::Bridge,
                        )])),
                    ]),
                ];
                change(
                    RouteNetlinkMessage::NewLink(message),
                    NLM_F_CREATE | NLM_F_EXCL,
                )
            }
            Change::SwitchOn { index } => {
                let mut message = LinkMessage::default();
                message.header.index = *index;
                message.header.flags = LinkFlags::Up;
                message.header.change_mask = LinkFlags::Up;
                message
                    .attributes
                    .push(LinkAttribute::IfAlias(self.alias()));
                change(RouteNetlinkMessage::SetLink(message), 0)
            }
            Change::RemoveInterface { index } => {
                let mut message = LinkMessage::default();
                message.header.index = *index;
                change(RouteNetlinkMessage::DelLink(message), 0)
            }
        }
    }
}

impl Network for Kernel {
    fn interface(&mut self, name: &str) -> io::Result<Option<Interface>> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        match self
            .conversation
            .get(&RouteNetlinkMessage::GetLink(message))
        {
            Ok(answer) => Ok(answer.and_then(|message| self.read(&message))),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn interfaces(&mut self) -> io::Result<Vec<Interface>> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let all = self.conversation.dump(&request)?;
        Ok(all
            .iter()
            .filter_map(|message| self.read(message))
            .collect())
    }

    fn addresses(&mut self) -> io::Result<Vec<Held>> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let all = self.conversation.dump(&request)?;
        let mark = AddressProtocol::from(self.mark);
        let held = all.iter().filter_map(|message| {
            let RouteNetlinkMessage::NewAddress(message) = message else {
                return None;
            };
            Some(Held {
                index: message.header.index,
                address: IpNet::new(address(message)?, message.header.prefix_len).ok()?,
                is_marked: message
                    .attributes
                    .contains(&AddressAttribute::Protocol(mark)),
            })
        });
        Ok(held.collect())
    }

    fn change(&mut self, changes: &[Change]) -> io::Result<Vec<io::Result<()>>> {
        let requests: Vec<_> = changes.iter().map(|asked| self.request(asked)).collect();
        self.conversation.carry_out(&requests)
    }

    fn is_router(&mut self, interface: &str) -> bool {
        self.setting(&format!("ipv6/conf/{interface}/forwarding"))
            .is_ok_and(|value| value != "0")
    }

    fn setting(&mut self, path: &str) -> io::Result<String> {
        let value = std::fs::read_to_string(Path::new(SETTINGS).join(path))?;
        Ok(value.trim().to_owned())
    }

    fn set(&mut self, path: &str, value: &str) -> io::Result<()> {
        std::fs::write(Path::new(SETTINGS).join(path), value)
    }

    fn send(&mut self, index: u32, frame: &[u8]) -> io::Result<()> {
        send_frame(&self.packets, index, frame)
    }
}

/// Sends a frame by a packet socket.
pub(crate) fn send_frame(socket: &Socket, index: u32, frame: &[u8]) -> io::Result<()> {
    let to = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: 0,
        sll_ifindex: index as libc::c_int,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the buffer and the address live until the call returns, and their lengths are given.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            libc::MSG_DONTWAIT,
            (&raw const to).cast(),
            mem::size_of_val(&to) as libc::socklen_t,
        )
    };
    Errno::result(sent).map(drop).map_err(io::Error::from)
}

/// For ever valid, and never preferred: others reach it, and the kernel chooses it as a source only where there is no other
/// (RFC 6724, rule 3).
fn deprecated() -> CacheInfo {
    let mut info = CacheInfo::default();
    info.ifa_valid = u32::MAX;
    info.ifa_preferred = 0;
    info
}

fn address_message(index: u32, address: &IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = address.prefix_len();
    message.header.scope = AddressScope::Universe;
    message.header.family = match address {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    let own = address.addr();
    message.attributes.push(AddressAttribute::Local(own));
    message.attributes.push(AddressAttribute::Address(own));
    if let (IpNet::V4(address), IpAddr::V4(_)) = (address, own)
        && address.prefix_len() < 31
    {
        message
            .attributes
            .push(AddressAttribute::Broadcast(address.broadcast()));
    }
    message
}
