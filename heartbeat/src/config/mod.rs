//! Nodes, links and groups, as they are written in YAML and as the rest works with them.

mod model;

pub use model::{
    Announce, AutoFailback, Config, Fence, Fitness, Group, InterfaceTracked, KeyFile, KeyFiles,
    Link, LinkKind, Lowers, PingTracked, Program, ProgramTracked, Rhythm, SerialLink, Timing,
    UdpLink, UdpTo, VrrpLink,
};
