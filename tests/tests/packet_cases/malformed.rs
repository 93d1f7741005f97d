//! Lengths that contradict each other or the frame.

use director_tests::packet::build::protocol;
use director_tests::packet::fixture::{BOTH, Family, port, site};
use director_tests::packet::{Case, Place};
use xdp_ebpf::layout::Reason;

use crate::common::{KINDS, Kind, client, from_client, from_server, real_end, to_server};

/// Writes a length into a frame's IP header.
fn set_length(frame: &mut [u8], family: Family, length: u16) {
    let at = match family {
        Family::V4 => 16,
        Family::V6 => 18,
    };
    frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
    if family == Family::V4 {
        fix_header_checksum(frame);
    }
}

/// So that the length alone is wrong.
fn fix_header_checksum(frame: &mut [u8]) {
    let header_len = usize::from(frame[14] & 0xf) * 4;
    if header_len < 20 || frame.len() < 14 + header_len {
        return;
    }
    let header = etherparse::Ipv4HeaderSlice::from_slice(&frame[14..]).map(|it| it.to_header());
    if let Ok(header) = header {
        let sum = header.calc_header_checksum();
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
}

pub(crate) fn rows() -> Vec<Case> {
    let mut rows = Vec::new();
    for family in BOTH {
        for kind in KINDS {
            lengths(&mut rows, family, kind);
        }
    }
    versions(&mut rows);
    rows
}

fn lengths(rows: &mut Vec<Case>, family: Family, kind: Kind) {
    let request = kind.request(family, port::NAT);
    let payload = request.payload_bytes().len() as u16;
    // What the header's field counts: all, or what is behind the header.
    let (header, least) = match family {
        Family::V4 => (20, if kind == Kind::Tcp { 20 } else { 8 }),
        Family::V6 => (0, if kind == Kind::Tcp { 20 } else { 8 }),
    };
    for (length, what) in [
        (header + payload + 1, "one byte more than the frame has"),
        (u16::MAX, "as much as can be said"),
        (
            header + least - 1,
            "one byte less than the transport header",
        ),
        (header, "nothing behind the header"),
        (0, "nothing"),
    ] {
        let mut frame = from_client(&request).bytes();
        set_length(&mut frame, family, length);
        rows.push(
            Case::new(
                format!("{family:?} {kind:?}: a length that says {what} is malformed"),
                site(),
                frame.clone(),
            )
            .drops(Reason::Malformed)
            .leaves(&[]),
        );
        let mut reply = from_server(&kind.data(real_end(family), client(family), b"")).bytes();
        let payload = reply.len() as u16 - 14 - if family == Family::V4 { 20 } else { 40 };
        let length = if what.starts_with("one byte more") {
            header + payload + 1
        } else {
            length
        };
        set_length(&mut reply, family, length);
        rows.push(
            Case::new(
                format!("{family:?} {kind:?}: a reply whose length says {what} is malformed"),
                site(),
                reply,
            )
            .after(&from_client(&request))
            .drops(Reason::Malformed),
        );
        let mut other = from_client(&kind.request(family, 22)).bytes();
        set_length(&mut other, family, length);
        rows.push(Case::new(
            format!("{family:?} {kind:?}: somebody else's packet whose length says {what} is the kernel's"),
            site(),
            other,
        ));
    }
}

fn versions(rows: &mut Vec<Case>) {
    let request = from_client(&Kind::Tcp.request(Family::V4, port::NAT)).bytes();
    for first in [0x05, 0x35, 0x55, 0x65, 0xf5, 0x40, 0x41, 0x42, 0x43, 0x44] {
        let mut frame = request.clone();
        frame[14] = first;
        rows.push(Case::new(
            format!("V4: a header that begins with {first:02x} is the kernel's"),
            site(),
            frame,
        ));
    }
    for first in [0x4b, 0x4f] {
        let mut frame = request.clone();
        frame[14] = first;
        rows.push(Case::new(
            format!("V4: a header length beyond the frame ({first:02x}) is the kernel's"),
            site(),
            frame,
        ));
    }
    let request = from_client(&Kind::Tcp.request(Family::V6, port::NAT)).bytes();
    for first in [0x00, 0x40, 0x50, 0x70, 0xf0] {
        let mut frame = request.clone();
        frame[14] = first;
        rows.push(Case::new(
            format!("V6: a header that begins with {first:02x} is the kernel's"),
            site(),
            frame,
        ));
    }
    // UDP's own length is the receiver's business, as in IPVS.
    let udp = Kind::Udp.request(Family::V4, port::DR);
    let mut frame = from_client(&udp).bytes();
    let mut out = to_server(&udp).bytes();
    for bytes in [&mut frame, &mut out] {
        bytes[38..40].copy_from_slice(&9_u16.to_be_bytes());
    }
    let id = site().id(Family::V4, port::DR, protocol::UDP, 0);
    let mut case = Case::new(
        "DR V4: a wrong length in the UDP header is the receiver's business",
        site(),
        frame,
    )
    .transmits(&to_server(&udp), Place::In(id));
    case.output = out;
    case.is_damaged = true;
    rows.push(case);
}
