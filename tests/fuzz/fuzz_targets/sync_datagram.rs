//! Datagrams of Director's own sync protocol.
#![no_main]

use conn_sync::wire::fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::datagram(bytes));
