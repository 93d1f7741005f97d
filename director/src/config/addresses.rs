//! The kinds of addresses in the YAML.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde_json::json;

use super::value::{Kind, Refusal};

/// The address of one host, IPv6 with or without brackets.
#[derive(Debug)]
pub(super) struct Address;

impl Kind for Address {
    type Parsed = IpAddr;

    fn expected() -> String {
        "the IPv4 or IPv6 address of a host, like 192.0.2.10 or 2001:db8::10".to_owned()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1 })
    }

    fn parse(text: &str) -> Result<IpAddr, Refusal> {
        let address = any_address(text)?;
        check_host(address).map(|()| address)
    }
}

/// The address of a real server: as [`Address`], or a loopback address for the director itself.
#[derive(Debug)]
pub(super) struct ServerAddress;

impl Kind for ServerAddress {
    type Parsed = IpAddr;

    fn expected() -> String {
        Address::expected()
    }

    fn schema() -> serde_json::Value {
        Address::schema()
    }

    fn parse(text: &str) -> Result<IpAddr, Refusal> {
        let address = any_address(text)?;
        check_server(address).map(|()| address)
    }
}

fn any_address(text: &str) -> Result<IpAddr, Refusal> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = match bare {
        Some(bare) => bare.parse::<Ipv6Addr>().map(IpAddr::V6),
        None => text.parse(),
    };
    address.map_err(|_| Refusal {
        why: None,
        help: text
            .parse::<SocketAddr>()
            .is_ok()
            .then(|| "write the port under its own key, \"port\"".to_owned()),
    })
}

/// An address that a packet can be sent to, and that is one host.
fn check_host(address: IpAddr) -> Result<(), Refusal> {
    if address.is_loopback() {
        return Err(Refusal::because(
            "packets for a loopback address never leave a host",
        ));
    }
    check_server(address)
}

/// As [`check_host`], or a loopback address: the director itself.
fn check_server(address: IpAddr) -> Result<(), Refusal> {
    let why = match address {
        _ if address.is_unspecified() => "the unspecified address is nobody's",
        _ if address.is_multicast() => "this is a multicast address",
        IpAddr::V4(address) if address.is_broadcast() => "this is the broadcast address",
        IpAddr::V4(address) if address.octets()[0] == 0 => {
            "0.0.0.0/8 means \"this network\" and is nobody's"
        }
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            "a link-local address means nothing without an interface"
        }
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
            "this is an IPv4 address in IPv6 clothes; write it as IPv4"
        }
        IpAddr::V4(_) | IpAddr::V6(_) => return Ok(()),
    };
    Err(Refusal::because(why))
}

/// A real server in one word: an address, with or without port.
#[derive(Debug)]
pub(super) struct RealServerWord;

impl Kind for RealServerWord {
    type Parsed = (IpAddr, Option<u16>);

    fn expected() -> String {
        EndpointWord::expected()
    }

    fn schema() -> serde_json::Value {
        EndpointWord::schema()
    }

    fn parse(text: &str) -> Result<Self::Parsed, Refusal> {
        match text.parse::<SocketAddr>() {
            Ok(endpoint) if endpoint.port() == 0 => Err(Refusal::because("port 0 is no port")),
            Ok(endpoint) => {
                check_server(endpoint.ip()).map(|()| (endpoint.ip(), Some(endpoint.port())))
            }
            Err(_) => ServerAddress::parse(text).map(|address| (address, None)),
        }
    }
}

/// An endpoint of a service in one word: an address, with or without port.
#[derive(Debug)]
pub(super) struct EndpointWord;

impl Kind for EndpointWord {
    type Parsed = (IpAddr, Option<u16>);

    fn expected() -> String {
        "an address with or without a port, like 10.0.0.1:8080 or \"[2001:db8::1]:8080\", or a mapping with the key address"
            .to_owned()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1 })
    }

    fn parse(text: &str) -> Result<Self::Parsed, Refusal> {
        match text.parse::<SocketAddr>() {
            Ok(endpoint) if endpoint.port() == 0 => Err(Refusal::because("port 0 is no port")),
            Ok(endpoint) => {
                check_host(endpoint.ip()).map(|()| (endpoint.ip(), Some(endpoint.port())))
            }
            Err(_) => Address::parse(text).map(|address| (address, None)),
        }
    }
}

/// IPv4 addresses that can stand as outer source.
#[derive(Debug)]
pub(super) struct SourcePrefix4;

impl Kind for SourcePrefix4 {
    type Parsed = Ipv4Net;

    fn expected() -> String {
        "an IPv4 prefix from /8 to /32, or one address, like 198.18.0.0/16".to_owned()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1 })
    }

    fn parse(text: &str) -> Result<Ipv4Net, Refusal> {
        let prefix = text
            .parse::<Ipv4Addr>()
            .map(Ipv4Net::from)
            .or_else(|_| text.parse::<Ipv4Net>());
        let prefix = prefix.map_err(|_| Refusal::default())?;
        check_host(prefix.addr().into())?;
        match prefix.prefix_len() {
            8.. if prefix.addr() == prefix.network() => Ok(prefix),
            8.. => Err(host_bits(prefix.trunc())),
            _ => Err(Refusal::because(
                "this takes in too much of the address space",
            )),
        }
    }
}

/// IPv6 addresses that can stand as outer source. Their last 32 bits always vary: `Destination::outer_source`.
#[derive(Debug)]
pub(super) struct SourcePrefix6;

impl Kind for SourcePrefix6 {
    type Parsed = Ipv6Net;

    fn expected() -> String {
        "an IPv6 prefix from /32 to /96, like 100::/64".to_owned()
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "minLength": 1 })
    }

    fn parse(text: &str) -> Result<Ipv6Net, Refusal> {
        let prefix = text.parse::<Ipv6Net>().map_err(|_| Refusal::default())?;
        check_host(prefix.addr().into())?;
        match prefix.prefix_len() {
            97.. => Err(Refusal::because(
                "the last 32 bits vary with the connection",
            )),
            32.. if prefix.addr() == prefix.network() => Ok(prefix),
            32.. => Err(host_bits(prefix.trunc())),
            _ => Err(Refusal::because(
                "this takes in too much of the address space",
            )),
        }
    }
}

fn host_bits(network: impl std::fmt::Display) -> Refusal {
    Refusal {
        why: Some("bits beyond the prefix length are set"),
        help: Some(format!("did you mean \"{network}\"?")),
    }
}
