//! Nodes, links and groups, as they are written in YAML and as the rest works with them.

mod across;
mod error;
mod file;
mod foreign;
pub mod limits;
mod load;
mod model;
mod nearest;
mod resolve;
mod shape;
mod unsigned;
mod value;

#[cfg(test)]
mod tests;

pub use error::{ConfigError, Mistake, Mistakes, Place};
pub use file::File;
pub use foreign::foreign;
pub use load::{KEY_EXPECTED, load, load_keys, parse, place_of, read_secret};
pub use model::{
    Announce, AutoFailback, Config, Fence, Fitness, Group, InterfaceTracked, KeyFile, KeyFiles,
    Link, LinkKind, Lowers, PingTracked, Program, ProgramTracked, Rhythm, SerialLink, Timing,
    UdpLink, UdpTo, VrrpLink,
};
pub use nearest::nearest;
pub use resolve::resolve;
pub use shape::shape;
pub use unsigned::unsigned;
