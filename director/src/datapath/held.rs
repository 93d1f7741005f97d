//! Fragments that came before their datagram's first one: which wait, when they go on, when they are given up. No I/O.

use std::collections::VecDeque;

use xdp_ebpf::family::{Family, V4, V6};
use xdp_ebpf::layout::{FragmentKey4, FragmentKey6, NextHop};
use xdp_ebpf::packet::Packet;
use xdp_ebpf::parse;
use xdp_ebpf::wire::ethernet;

/// Frames that may wait at once.
const FRAMES: usize = 512;
/// Bytes that may wait at once.
const BYTES: usize = 1 << 20;

/// The datagram that a fragment belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Datagram {
    /// IPv4.
    V4(FragmentKey4),
    /// IPv6.
    V6(FragmentKey6),
}

/// A fragment on its way back to the packet path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldFragment {
    /// Interface it came in by.
    pub ifindex: u32,
    /// When it came (monotonic clock, nanoseconds).
    pub at_ns: u64,
    /// The frame.
    pub frame: Vec<u8>,
}

/// The fragments that wait, in the order in which they came.
#[derive(Debug, Default)]
pub struct Waiting {
    fragments: VecDeque<(Datagram, HeldFragment)>,
    bytes: usize,
    given_up: u64,
}

impl Waiting {
    /// Takes one in. What is no fragment is given up at once; where there is no room, the one that waits longest is.
    pub fn hold(&mut self, mut fragment: HeldFragment) {
        let Some(datagram) =
            datagram(&mut fragment.frame).filter(|_| fragment.frame.len() <= BYTES)
        else {
            self.given_up += 1;
            return;
        };
        while self.fragments.len() >= FRAMES || self.bytes + fragment.frame.len() > BYTES {
            let Some((_, oldest)) = self.fragments.pop_front() else {
                break;
            };
            self.bytes -= oldest.frame.len();
            self.given_up += 1;
        }
        self.bytes += fragment.frame.len();
        self.fragments.push_back((datagram, fragment));
    }

    /// The fragments whose datagram's first one has been seen meanwhile, in their order. Those that have waited longer
    /// than `timeout_ns` are given up.
    pub fn release(
        &mut self,
        now_ns: u64,
        timeout_ns: u64,
        mut is_known: impl FnMut(&Datagram) -> bool,
    ) -> Vec<HeldFragment> {
        let mut released = Vec::new();
        for (datagram, fragment) in std::mem::take(&mut self.fragments) {
            if is_known(&datagram) {
                self.bytes -= fragment.frame.len();
                released.push(fragment);
            } else if now_ns.saturating_sub(fragment.at_ns) >= timeout_ns {
                self.bytes -= fragment.frame.len();
                self.given_up += 1;
            } else {
                self.fragments.push_back((datagram, fragment));
            }
        }
        released
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fragments.is_empty()
    }

    /// Fragments given up since the start.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.given_up
    }
}

/// The datagram of a frame, by the packet path's own reading of it. `None`: not a later fragment.
fn datagram(frame: &mut [u8]) -> Option<Datagram> {
    let frame = Frame(frame);
    let link = parse::link(&frame)?;
    match link.ether_type {
        ethernet::IPV4 => {
            let network = V4::network(&frame, link.l3)?;
            (network.part == parse::Part::Later).then(|| Datagram::V4(V4::fragment_key(&network)))
        }
        ethernet::IPV6 => {
            let network = V6::network(&frame, link.l3)?;
            (network.part == parse::Part::Later).then(|| Datagram::V6(V6::fragment_key(&network)))
        }
        _ => None,
    }
}

/// A frame for reading.
struct Frame<'a>(&'a mut [u8]);

// SAFETY: the bytes of an exclusive borrow, which nobody else can refer to while it lasts.
unsafe impl Packet for Frame<'_> {
    fn data(&self) -> usize {
        self.0.as_ptr() as usize
    }

    fn end(&self) -> usize {
        self.data() + self.0.len()
    }

    fn adjust_head(&mut self, _delta: i32) -> bool {
        false
    }

    fn adjust_tail(&mut self, _delta: i32) -> bool {
        false
    }

    fn ingress_ifindex(&self) -> u32 {
        0
    }

    fn copy_to(&self, _into: &mut [u8]) -> bool {
        false
    }

    fn kernel_next_hop4(&self, _source: u32, _destination: u32) -> NextHop {
        NextHop::default()
    }

    fn kernel_next_hop6(&self, _source: [u32; 4], _destination: [u32; 4]) -> NextHop {
        NextHop::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT_NS: u64 = 1000;

    /// An IPv4 fragment of datagram `id`, with as many bytes of payload.
    fn fragment(id: u16, offset: u16, at_ns: u64, payload: usize) -> HeldFragment {
        let mut frame = vec![0; 14 + 20 + payload];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14] = 0x45;
        frame[16..18].copy_from_slice(&(20 + payload as u16).to_be_bytes());
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        frame[20..22].copy_from_slice(&offset.to_be_bytes());
        frame[23] = 17;
        frame[26..34].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 10]);
        HeldFragment {
            ifindex: 3,
            at_ns,
            frame,
        }
    }

    fn id_of(fragment: &HeldFragment) -> u16 {
        u16::from_be_bytes([fragment.frame[18], fragment.frame[19]])
    }

    fn known(ids: &[u16]) -> impl FnMut(&Datagram) -> bool {
        move |datagram| match datagram {
            Datagram::V4(key) => ids.contains(&u16::from_be_bytes(key.id)),
            Datagram::V6(_) => false,
        }
    }

    #[test]
    fn when_fragments_go_on() {
        // (held: (datagram, when), now, datagrams known, let go, given up, what)
        type Case = (
            &'static [(u16, u64)],
            u64,
            &'static [u16],
            &'static [u16],
            u64,
            &'static str,
        );
        let cases: [Case; 7] = [
            (&[], 5000, &[1], &[], 0, "none waits"),
            (&[(1, 0)], 10, &[], &[], 0, "the first one has not come"),
            (&[(1, 0)], 10, &[1], &[1], 0, "it has"),
            (
                &[(1, 0), (2, 1), (1, 2)],
                10,
                &[1],
                &[1, 1],
                0,
                "one datagram of two",
            ),
            (&[(1, 0)], 1000, &[], &[], 1, "too late"),
            (&[(1, 0)], 1000, &[1], &[1], 0, "at the last moment"),
            (
                &[(1, 0), (2, 500)],
                1200,
                &[],
                &[],
                1,
                "one too late, another waits on",
            ),
        ];
        for (held, now, ids, expected, given_up, what) in cases {
            let mut waiting = Waiting::default();
            held.iter()
                .for_each(|(id, at)| waiting.hold(fragment(*id, 185, *at, 8)));
            let released = waiting.release(now, TIMEOUT_NS, known(ids));
            assert_eq!(
                released.iter().map(id_of).collect::<Vec<_>>(),
                expected,
                "{what}"
            );
            assert_eq!(waiting.given_up(), given_up, "{what}");
            let rest = held.len() - expected.len() - given_up as usize;
            assert_eq!(waiting.fragments.len(), rest, "{what}");
            assert_eq!(waiting.bytes, rest * 42, "{what}");
        }
    }

    #[test]
    fn what_is_no_later_fragment_does_not_wait() {
        let cases = [
            (fragment(1, 0, 0, 8), "whole"),
            (fragment(1, 0x2000, 0, 8), "first"),
            (
                HeldFragment {
                    ifindex: 3,
                    at_ns: 0,
                    frame: vec![],
                },
                "nothing",
            ),
            (
                HeldFragment {
                    ifindex: 3,
                    at_ns: 0,
                    frame: vec![0; 60],
                },
                "no IP",
            ),
        ];
        for (frame, what) in cases {
            let mut waiting = Waiting::default();
            waiting.hold(frame);
            assert!(waiting.is_empty(), "{what}");
            assert_eq!(waiting.given_up(), 1, "{what}");
        }
    }

    #[test]
    fn the_oldest_makes_room() {
        // (payload of each, how many fit)
        for (payload, fit) in [(8, FRAMES), (8192 - 34, BYTES / 8192)] {
            let mut waiting = Waiting::default();
            (0..fit as u16 + 3).for_each(|id| waiting.hold(fragment(id, 185, 0, payload)));
            assert_eq!(
                (waiting.fragments.len(), waiting.given_up()),
                (fit, 3),
                "{payload} bytes each"
            );
            assert_eq!(
                waiting.fragments.front().map(|(_, oldest)| id_of(oldest)),
                Some(3)
            );
        }
    }
}
