//! Datagrams of the kernel's IPVS sync protocol.
#![no_main]

use conn_sync::wire::fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::kernel(bytes));
