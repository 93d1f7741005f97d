//! Entry points for fuzzers: bytes that anybody can send, and bytes behind a signature that was found right.

use super::auth::{self, Keyring};
use super::bulk::{Client, HELLO, NONCE, Server};
use super::header::Header;
use crate::entry::NodeName;

/// A datagram as it comes from the network, and as if its signature had been right.
///
/// # Panics
/// The decoder takes what the encoder would not write.
pub fn datagram(bytes: &[u8]) {
    let keyring = Keyring::without_secret();
    let _ = keyring.open(bytes);
    if Header::key_id(bytes).is_err() {
        return;
    }
    if let Ok((header, message)) = auth::read(bytes) {
        let sealed = keyring.seal(&header, &message);
        assert_eq!(keyring.open(&sealed), Ok((header, message)));
    }
}

/// What a bulk resync's server says to a client and a client to a server, in two pieces: as it comes from the network, and as if
/// its signature had been right.
pub fn bulk(bytes: &[u8], cut: usize) {
    let keyring = Keyring::without_secret();
    let Ok(name) = NodeName::new("fuzz") else {
        return;
    };
    let own = (name, 1);
    let new_client = || Client::new(&keyring, own.clone(), own.clone(), None, [0; NONCE]);
    let new_server = || Server::new(&keyring, own.clone(), [1; NONCE]);
    let (first, second) = bytes.split_at(cut.min(bytes.len()));

    let mut client = new_client();
    let _ = client.push(first).and_then(|_| client.push(second));
    let (mut server, greeting) = new_server();
    let _ = server.push(first).and_then(|_| server.push(second));

    // A hello with these fields.
    let body = [&HELLO[..], &[0], bytes].concat();
    let signature = keyring.active().sign(&[&[1; NONCE], &body]);
    let length = (body.len() + signature.len()) as u16;
    let hello = [&length.to_be_bytes()[..], &body, &signature].concat();
    let (mut server, _) = new_server();
    let _ = server.push(&hello);

    // Frames of every kind, before and after a welcome.
    for is_welcomed in [false, true] {
        for kind in 0..6 {
            let (mut server, mut client) = (new_server().0, new_client());
            let Ok(output) = client.push(&greeting) else {
                return;
            };
            let _ = server.push(&output.send);
            if is_welcomed {
                let _ = client.push(&server.welcome(0, 0));
            }
            let _ = client.push(&server.seal(kind, bytes));
        }
    }
}

/// A message of the kernel's protocol: what is taken of it is the same when it is written and read again.
pub fn kernel(message: &[u8]) {
    let outcome = super::ipvs::decode(message, 0);
    let mut encoder = super::ipvs::Encoder::new(0, 1472);
    let mut again = Vec::new();
    let known = |entry: &super::ipvs::KernelEntry| super::ipvs::KernelEntry {
        // Version 0 has neither timeouts nor a mask over its flags.
        timeout_s: Some(entry.timeout_s.unwrap_or(0)),
        flags: entry.flags & super::ipvs::flags::TAKEN,
        ..entry.clone()
    };
    let entries: Vec<_> = outcome.entries.iter().map(known).collect();
    for entry in &entries {
        again.extend(encoder.push(entry));
    }
    again.extend(encoder.finish());
    let read = again
        .iter()
        .flat_map(|it| super::ipvs::decode(it, 0).entries);
    assert!(read.eq(entries), "{message:02x?}");
}
