//! Both sides of a bulk resync of Director's own sync protocol; the first byte says where the rest is cut in two.
#![no_main]

use conn_sync::wire::fuzz;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Some((cut, bytes)) = input.split_first() {
        fuzz::bulk(bytes, (*cut).into());
    }
});
