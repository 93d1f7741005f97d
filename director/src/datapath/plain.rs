//! The tables' types as keys and values of maps.

use aya::Pod;
use xdp_ebpf::layout::{
    Counters, Destination, Endpoint, Endpoint4, Endpoint6, FragmentKey4, FragmentKey6, LocalityKey,
    Neighbour4, Neighbour6, NextHop, RangeKey4, RangeKey6, Route, Service, Settings, SharedBy,
    Template, TemplateKey,
};

/// A type of [`xdp_ebpf::layout`] for a map of `aya`, whose own trait cannot be implemented for another crate's types.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Plain<T>(pub(super) T);

/// Plain old data.
///
/// # Safety
/// Any bytes are a value of the type, and it has no padding that is not named.
pub(super) unsafe trait PlainData: Copy + 'static {}

// SAFETY: transparent over a type that may be copied from and to the kernel byte by byte.
unsafe impl<T: PlainData> Pod for Plain<T> {}

macro_rules! plain {
    ($($name:ty),+ $(,)?) => {
        // SAFETY: `repr(C)`, integers and arrays of them only, no padding (sizes asserted in `layout`).
        $(unsafe impl PlainData for $name {})+
    };
}

plain!(
    Counters,
    Destination,
    Endpoint,
    Endpoint4,
    Endpoint6,
    FragmentKey4,
    FragmentKey6,
    LocalityKey,
    Neighbour4,
    Neighbour6,
    NextHop,
    RangeKey4,
    RangeKey6,
    Route,
    Service,
    Settings,
    SharedBy,
    Template,
    TemplateKey,
    xdp_ebpf::layout::Fragment,
);
