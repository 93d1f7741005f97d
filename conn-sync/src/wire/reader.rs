//! Reading numbers and addresses from bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::entry::NodeName;

/// The bytes end too soon, or say what cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// What is still to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn slice(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (first, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(first)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn ip(&mut self, is_ipv4: bool) -> Result<IpAddr, Malformed> {
        Ok(if is_ipv4 {
            Ipv4Addr::from(self.array::<4>()?).into()
        } else {
            Ipv6Addr::from(self.array::<16>()?).into()
        })
    }

    pub(super) fn endpoint(&mut self, is_ipv4: bool) -> Result<SocketAddr, Malformed> {
        Ok((self.ip(is_ipv4)?, self.u16()?).into())
    }

    pub(super) fn node_name(&mut self) -> Result<NodeName, Malformed> {
        let length = self.u8()?.into();
        let name = str::from_utf8(self.slice(length)?).map_err(|_| Malformed)?;
        NodeName::new(name).map_err(|_| Malformed)
    }

    /// Everything was read.
    pub(super) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed)
        }
    }
}

pub(super) fn put_ip(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => bytes.extend(address.octets()),
        IpAddr::V6(address) => bytes.extend(address.octets()),
    }
}

pub(super) fn put_endpoint(bytes: &mut Vec<u8>, endpoint: SocketAddr) {
    put_ip(bytes, endpoint.ip());
    bytes.extend(endpoint.port().to_be_bytes());
}

pub(super) fn put_node_name(bytes: &mut Vec<u8>, name: &NodeName) {
    // A name has at most 32 bytes.
    bytes.push(name.as_str().len() as u8);
    bytes.extend(name.as_str().as_bytes());
}
