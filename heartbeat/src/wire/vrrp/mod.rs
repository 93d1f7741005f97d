//! VRRP packets: version 2 (RFC 3768) and 3 (RFC 9568), without I/O.

mod advert;
mod checksum;

pub use advert::{ADDRESSES, Addresses, Advert, ChecksumRule, Envelope, Version, VrrpError};

#[cfg(test)]
mod tests;
