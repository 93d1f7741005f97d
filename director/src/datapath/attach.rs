//! The entry program on the interfaces.

use std::collections::BTreeMap;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpLinkId, XdpMode as AyaMode};
use aya::programs::{ProgramError, Xdp};
use nix::libc;

use super::bpffs::PinDirectory;
use super::error::{DatapathError, os_error};
use super::link::{LinkState, ifindex, query};
use super::sys;
use crate::config::{Interface, XdpMode};

/// An interface that the packet path is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// The mode that the kernel says it has.
    pub mode: XdpMode,
}

/// The links of all interfaces.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// The descriptor keeps nothing attached that the pin does not: it is there to notice when it is gone.
    links: BTreeMap<String, (Attached, FdLink)>,
}

impl Links {
    pub(super) fn attached(&self) -> impl Iterator<Item = &Attached> {
        self.links.values().map(|(attached, _)| attached)
    }

    /// Attaches the program where it is wanted. A link that stands already gets the program in place of the one it has,
    /// without a gap.
    pub(super) fn set(
        &mut self,
        program: &mut Xdp,
        directory: &PinDirectory,
        wanted: &[Interface],
    ) -> Result<(), DatapathError> {
        // Interfaces that have no program yet first: where one of them refuses, those that forward have not been touched.
        let (others, new): (Vec<&Interface>, Vec<&Interface>) = wanted
            .iter()
            .partition(|interface| self.links.contains_key(&interface.name));
        for interface in new.into_iter().chain(others) {
            let index = ifindex(&interface.name)?;
            let stands = self
                .links
                .get(&interface.name)
                .is_some_and(|(attached, _)| {
                    attached.ifindex == index && attached.mode == interface.mode
                });
            if !stands {
                // Whatever comes of it, that one is over.
                self.links.remove(&interface.name);
                let link = attach(program, directory, interface, index)?;
                self.links.insert(interface.name.clone(), link);
            }
        }
        Ok(())
    }

    /// Takes the program away where it is not wanted.
    pub(super) fn retain(
        &mut self,
        directory: &PinDirectory,
        wanted: &[Interface],
    ) -> Result<(), DatapathError> {
        for name in directory.links()? {
            if !wanted.iter().any(|interface| interface.name == name) {
                tracing::info!(
                    interface = name,
                    "detached: it is not configured any more, or gone"
                );
                directory.detach(&name)?;
                self.links.remove(&name);
            }
        }
        Ok(())
    }

    /// Puts the program in the place of the one that each link has. Where one refuses, those before it have it already.
    pub(super) fn replace(
        &mut self,
        program: &mut Xdp,
        directory: &PinDirectory,
    ) -> Result<(), DatapathError> {
        for (name, (attached, link)) in &mut self.links {
            let interface = Interface {
                name: name.clone(),
                mode: attached.mode,
            };
            let state = look(name, attached.ifindex)?;
            // `None`: the interface is gone, and comes back with a link of its own.
            if let Some(new) = adopt(program, directory, &interface, attached.ifindex, state)? {
                *link = new;
            }
        }
        Ok(())
    }

    /// Lets go of the descriptors; with their pins gone too, the kernel detaches.
    pub(super) fn release(&mut self) {
        self.links.clear();
    }
}

fn attach(
    program: &mut Xdp,
    directory: &PinDirectory,
    interface: &Interface,
    index: u32,
) -> Result<(Attached, FdLink), DatapathError> {
    let Interface { name, mode } = interface;
    let state = look(name, index)?;
    if let Some(link) = adopt(program, directory, interface, index, state)? {
        tracing::info!(interface = name, %mode, "took over the running program's place");
        return Ok((
            Attached {
                name: name.clone(),
                ifindex: index,
                mode: *mode,
            },
            link,
        ));
    }
    let (mtu, present) = (state.mtu, state.program);
    let id = attach_new(program, index, *mode)
        .map_err(|source| DatapathError::attach(name, *mode, mtu, present, source))?;
    let link = fd_link(program, id)
        .map_err(|source| DatapathError::attach(name, *mode, mtu, present, source))?;
    let path = directory.link(name);
    let link = link.pin(&path).map_err(|error| DatapathError::Pin {
        action: "pin",
        path,
        source: std::io::Error::other(error),
    })?;
    let state = look(name, index)?;
    let got = state.mode.unwrap_or(*mode);
    tracing::info!(interface = name, mode = %got, "attached");
    Ok((
        Attached {
            name: name.clone(),
            ifindex: index,
            mode: got,
        },
        link.into(),
    ))
}

/// Attaches without a pin; the link ends with the program or its own removal.
pub(super) fn attach_new(
    program: &mut Xdp,
    index: u32,
    mode: XdpMode,
) -> Result<XdpLinkId, ProgramError> {
    program.attach_to_if_index(
        index,
        match mode {
            XdpMode::Native => AyaMode::Driver,
            XdpMode::Generic => AyaMode::Skb,
        },
    )
}

pub(super) fn look(name: &str, index: u32) -> Result<LinkState, DatapathError> {
    query(index).map_err(|source| DatapathError::Query {
        name: name.to_owned(),
        source,
    })
}

fn fd_link(program: &mut Xdp, id: XdpLinkId) -> Result<FdLink, std::io::Error> {
    let link = program.take_link(id).map_err(std::io::Error::other)?;
    // Only where the kernel refused a link and the library fell back to the old way.
    FdLink::try_from(link).map_err(|_| std::io::Error::from_raw_os_error(libc::EINVAL))
}

/// Puts the program into a link that a former director left. `None`: there is none, or none that fits; then it is gone.
fn adopt(
    program: &mut Xdp,
    directory: &PinDirectory,
    interface: &Interface,
    index: u32,
    state: LinkState,
) -> Result<Option<FdLink>, DatapathError> {
    let Interface { name, mode } = interface;
    let path = directory.link(name);
    if !path.exists() {
        return Ok(None);
    }
    let fits = sys::link_ifindex(&path).is_ok_and(|attached_to| attached_to == index);
    if !fits || state.mode.is_some_and(|present| present != *mode) {
        if fits {
            tracing::warn!(interface = name, %mode, "attaching anew for another mode: packets pass unbalanced for a moment");
        }
        directory.detach(name)?;
        return Ok(None);
    }
    let refused =
        |source: ProgramError| DatapathError::attach(name, *mode, state.mtu, state.program, source);
    let pinned = PinnedLink::from_pin(&path).map_err(|source| DatapathError::Pin {
        action: "open",
        path: path.clone(),
        source: std::io::Error::other(source),
    })?;
    let link = XdpLink::try_from(FdLink::from(pinned)).map_err(|source| DatapathError::Pin {
        action: "use",
        path: path.clone(),
        source: std::io::Error::other(source),
    })?;
    let id = match program.attach_to_link(link) {
        Ok(id) => id,
        // The interface went away and came back since: the link hangs on nothing.
        Err(error) if os_error(&error) == Some(libc::ENOLINK) => {
            directory.detach(name)?;
            return Ok(None);
        }
        Err(error) => return Err(refused(error)),
    };
    fd_link(program, id)
        .map(Some)
        .map_err(|source| DatapathError::Pin {
            action: "use",
            path,
            source,
        })
}
