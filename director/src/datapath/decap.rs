//! The program for a real server that takes tunnels off.

use std::net::IpAddr;

use aya::maps::{Array, HashMap, MapData};
use aya::{Ebpf, EbpfLoader};
use nix::ifaddrs::getifaddrs;
use xdp_ebpf::layout::programs;

use super::attach::{attach_new, look};
use super::error::DatapathError;
use super::link::ifindex;
use super::load::{load_program, program};
use super::maps::{failed, take_as};
use super::{objects, privileges};
use crate::config::Interface;

const ADDRESSES4: &str = "DECAP_ADDRESSES4";
const ADDRESSES6: &str = "DECAP_ADDRESSES6";
const SETTINGS: &str = "DECAP_SETTINGS";

/// What to take off, and where.
#[derive(Clone, Debug)]
pub struct DecapOptions {
    /// The interfaces that tunnels arrive by.
    pub interfaces: Vec<Interface>,
    /// Addresses at which tunnels end.
    pub addresses: Vec<IpAddr>,
    /// UDP port of GUE.
    pub gue_port: u16,
}

/// The program, attached for as long as this lives.
pub struct Decap {
    _object: Ebpf,
}

impl Decap {
    /// Loads and attaches it.
    ///
    /// # Errors
    /// [`DatapathError`], each in words for the operator.
    pub fn start(options: &DecapOptions) -> Result<Self, DatapathError> {
        let code = objects::DECAP.ok_or(DatapathError::NotBuilt)?;
        privileges::check()?;
        let mut object = EbpfLoader::new()
            .load(code)
            .map_err(|error| DatapathError::Load(Box::new(error)))?;
        let mut addresses4: HashMap<MapData, [u8; 4], u32> = take_as(&mut object, ADDRESSES4)?;
        let mut addresses6: HashMap<MapData, [u8; 16], u32> = take_as(&mut object, ADDRESSES6)?;
        let mut settings: Array<MapData, u32> = take_as(&mut object, SETTINGS)?;
        for address in &options.addresses {
            match address {
                IpAddr::V4(v4) => addresses4
                    .insert(v4.octets(), 1, 0)
                    .map_err(failed("write", ADDRESSES4))?,
                IpAddr::V6(v6) => addresses6
                    .insert(v6.octets(), 1, 0)
                    .map_err(failed("write", ADDRESSES6))?,
            }
        }
        settings
            .set(0, u32::from(options.gue_port), 0)
            .map_err(failed("write", SETTINGS))?;

        let decap = program(&mut object, programs::DECAP)?;
        load_program(decap, programs::DECAP)?;
        for Interface { name, mode } in &options.interfaces {
            let index = ifindex(name)?;
            let state = look(name, index)?;
            attach_new(decap, index, *mode).map_err(|source| {
                DatapathError::attach(name, *mode, state.mtu, state.program, source)
            })?;
            tracing::info!(interface = name, %mode, "attached");
        }
        Ok(Self { _object: object })
    }
}

/// The addresses of an interface.
pub(super) fn addresses_of(interface: &str) -> Result<Vec<IpAddr>, DatapathError> {
    let failed = |errno: nix::errno::Errno| DatapathError::Query {
        name: interface.to_owned(),
        source: errno.into(),
    };
    let mut addresses = Vec::new();
    for entry in getifaddrs()
        .map_err(failed)?
        .filter(|entry| entry.interface_name == interface)
    {
        let Some(address) = entry.address else {
            continue;
        };
        if let Some(v4) = address.as_sockaddr_in() {
            addresses.push(IpAddr::V4(v4.ip()));
        } else if let Some(v6) = address.as_sockaddr_in6() {
            addresses.push(IpAddr::V6(v6.ip()));
        }
    }
    Ok(addresses)
}

impl DecapOptions {
    /// Fills in the interfaces' own addresses where none were given.
    ///
    /// # Errors
    /// When an interface is not there or has no address.
    pub fn with_default_addresses(mut self) -> Result<Self, DatapathError> {
        if self.addresses.is_empty() {
            for interface in &self.interfaces {
                ifindex(&interface.name)?;
                self.addresses.extend(addresses_of(&interface.name)?);
            }
        }
        Ok(self)
    }
}
