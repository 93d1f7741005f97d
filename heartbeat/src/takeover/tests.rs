//! The rules of taking over, on a network of plain data.

use std::collections::BTreeMap;

use super::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A network without a kernel.
#[derive(Debug, Default)]
struct Fake {
    interfaces: Vec<Interface>,
    held: Vec<Held>,
    settings: BTreeMap<String, String>,
    sent: Vec<(u32, Vec<u8>)>,
    /// Addresses that it does not want.
    refused: Vec<IpNet>,
    /// Whether the first address of a network takes the others with it.
    drops_secondaries: bool,
}

impl Network for Fake {
    fn interface(&mut self, name: &str) -> io::Result<Option<Interface>> {
        Ok(self
            .interfaces
            .iter()
            .find(|interface| interface.name == name)
            .cloned())
    }

    fn interfaces(&mut self) -> io::Result<Vec<Interface>> {
        Ok(self.interfaces.clone())
    }

    fn addresses(&mut self) -> io::Result<Vec<Held>> {
        Ok(self.held.clone())
    }

    fn change(&mut self, changes: &[Change]) -> io::Result<Vec<io::Result<()>>> {
        let mut outcomes = Vec::new();
        for change in changes {
            outcomes.push(self.one(change).map_err(io::Error::from_raw_os_error));
        }
        Ok(outcomes)
    }

    fn is_router(&mut self, _interface: &str) -> bool {
        true
    }

    fn setting(&mut self, path: &str) -> io::Result<String> {
        Ok(self
            .settings
            .get(path)
            .cloned()
            .unwrap_or_else(|| "0".to_owned()))
    }

    fn set(&mut self, path: &str, value: &str) -> io::Result<()> {
        self.settings.insert(path.to_owned(), value.to_owned());
        Ok(())
    }

    fn send(&mut self, index: u32, frame: &[u8]) -> io::Result<()> {
        self.sent.push((index, frame.to_vec()));
        Ok(())
    }
}

impl Fake {
    fn one(&mut self, change: &Change) -> Result<(), i32> {
        match change {
            Change::AddAddress { index, address, .. } => {
                self.exists(*index)?;
                if self.refused.contains(address) {
                    return Err(libc::EACCES);
                }
                if self.has(*index, address) {
                    return Err(libc::EEXIST);
                }
                self.held.push(Held {
                    index: *index,
                    address: *address,
                    is_marked: true,
                });
            }
            Change::RemoveAddress { index, address } => {
                self.exists(*index)?;
                if !self.has(*index, address) {
                    return Err(libc::EADDRNOTAVAIL);
                }
                let first = self
                    .held
                    .iter()
                    .find(|held| held.index == *index && held.address.trunc() == address.trunc())
                    .copied();
                let takes_all =
                    self.drops_secondaries && first.is_some_and(|first| first.address == *address);
                self.held.retain(|held| {
                    held.index != *index
                        || (held.address != *address
                            && !(takes_all && held.address.trunc() == address.trunc()))
                });
            }
            Change::AddMacvlan { parent, name, mac } => {
                self.exists(*parent)?;
                let index = 100 + self.interfaces.len() as u32;
                self.interfaces.push(Interface {
                    index,
                    name: name.clone(),
                    mac: *mac,
                    parent: Some(*parent),
                    is_marked: false,
                });
            }
            Change::SwitchOn { index } => {
                self.exists(*index)?;
                for interface in &mut self.interfaces {
                    interface.is_marked |= interface.index == *index;
                }
            }
            Change::RemoveInterface { index } => {
                self.exists(*index)?;
                self.interfaces
                    .retain(|interface| interface.index != *index);
                self.held.retain(|held| held.index != *index);
            }
        }
        Ok(())
    }

    fn exists(&self, index: u32) -> Result<(), i32> {
        let found = self.interfaces.iter().any(|found| found.index == index);
        if found { Ok(()) } else { Err(libc::ENODEV) }
    }

    fn has(&self, index: u32, address: &IpNet) -> bool {
        self.held
            .iter()
            .any(|held| (held.index, held.address) == (index, *address))
    }

    fn plug(&mut self, index: u32, name: &str) {
        self.interfaces.push(Interface {
            index,
            name: name.to_owned(),
            mac: [2, 0, 0, 0, 0, index as u8],
            parent: None,
            is_marked: false,
        });
    }

    fn shown(&self) -> Vec<String> {
        let mut shown: Vec<String> = self
            .held
            .iter()
            .map(|held| format!("{} {}", held.index, held.address))
            .collect();
        shown.sort();
        shown
    }
}

fn movable(name: &str, addresses: &[&str], virtual_mac: Option<u8>) -> Movable {
    Movable {
        name: name.to_owned(),
        interface: "eth0".to_owned(),
        addresses: addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect(),
        virtual_mac,
        announce: Announce {
            count: 2,
            interval: ms(200),
            refresh: ms(0),
        },
    }
}

fn takeover(groups: Vec<Movable>) -> Takeover<Fake> {
    let mut fake = Fake::default();
    fake.plug(2, "eth0");
    Takeover::new(fake, groups)
}

#[test]
fn taken_announced_and_given_up() {
    let mut takeover = takeover(vec![movable(
        "web",
        &["198.51.100.10/24", "2001:db8::10/64"],
        None,
    )]);
    for _ in 0..2 {
        takeover.take(0, ms(0)).unwrap();
        assert!(takeover.is_held(0));
        // Two forms of ARP, one advertisement; each time.
        assert_eq!(takeover.network.sent.len(), 3);
        takeover.network.sent.clear();
    }
    assert_eq!(
        takeover.network.shown(),
        ["2 198.51.100.10/24", "2 2001:db8::10/64"]
    );
    assert_eq!(takeover.deadline(), Some(ms(200)));
    assert!(takeover.step(ms(200)).is_empty());
    assert_eq!(takeover.network.sent.len(), 3);
    assert_eq!(takeover.deadline(), None);
    takeover.announce(0, ms(500));
    assert_eq!(takeover.network.sent.len(), 6);

    for _ in 0..2 {
        takeover.release(0, ms(600)).unwrap();
        assert!(takeover.network.held.is_empty());
        assert!(!takeover.is_held(0));
        assert_eq!(takeover.deadline(), None);
    }
    takeover.announce(0, ms(700));
    assert_eq!(takeover.network.sent.len(), 6);
}

#[test]
fn an_interface_that_comes_later() {
    let mut takeover = takeover(vec![movable("web", &["198.51.100.10/24"], None)]);
    takeover.network.interfaces.clear();
    let error = takeover.take(0, ms(0)).unwrap_err().to_string();
    assert!(error.contains("eth0") && error.contains("web"), "{error}");
    assert_eq!(takeover.deadline(), Some(RETRY));
    assert!(matches!(
        takeover.step(RETRY)[..],
        [Outcome::Failed { group: 0, .. }]
    ));
    takeover.network.plug(7, "eth0");
    takeover.interface_up("eth1", ms(1100));
    assert!(takeover.step(ms(1100)).is_empty());
    takeover.interface_up("eth0", ms(1100));
    assert!(matches!(
        takeover.step(ms(1100))[..],
        [Outcome::Taken { group: 0 }]
    ));
    assert_eq!(takeover.network.shown(), ["7 198.51.100.10/24"]);
    // And vanishes while it is held, and while it is given up.
    takeover.network.interfaces.clear();
    takeover.network.held.clear();
    takeover.interface_up("eth0", ms(2000));
    assert!(matches!(
        takeover.step(ms(2000))[..],
        [Outcome::Failed { group: 0, .. }]
    ));
    takeover.release(0, ms(2100)).unwrap();
    assert_eq!(takeover.deadline(), None);
}

#[test]
fn what_one_address_hinders_the_others_do_not_wait_for() {
    let mut takeover = takeover(vec![movable(
        "web",
        &["2001:db8::10/64", "198.51.100.10/24"],
        None,
    )]);
    takeover.network.refused = vec!["2001:db8::10/64".parse().unwrap()];
    let error = takeover.take(0, ms(0)).unwrap_err().to_string();
    assert!(
        error.contains("2001:db8::10/64") && error.contains("disable_ipv6"),
        "{error}"
    );
    assert!(!takeover.is_held(0));
    assert_eq!(takeover.network.shown(), ["2 198.51.100.10/24"]);
    assert_eq!(takeover.network.sent.len(), 2, "only what is here");
    takeover.network.refused.clear();
    assert!(matches!(
        takeover.step(RETRY)[..],
        [Outcome::Taken { group: 0 }]
    ));
    assert!(takeover.is_held(0));
}

#[test]
fn addresses_that_others_remove_are_put_back() {
    let address = "198.51.100.10/24";
    let mut takeover = takeover(vec![movable("web", &[address], None)]);
    takeover.take(0, ms(0)).unwrap();
    let lost = |takeover: &mut Takeover<Fake>, now| {
        takeover.network.held.clear();
        let gone: IpNet = address.parse().unwrap();
        takeover.address_gone(3, gone.addr(), now);
        takeover.address_gone(2, "198.51.100.11".parse().unwrap(), now);
        assert!(takeover.step(now).is_empty(), "not ours");
        takeover.address_gone(2, gone.addr(), now);
    };
    lost(&mut takeover, ms(1000));
    assert!(matches!(
        takeover.step(ms(1000))[..],
        [Outcome::Taken { group: 0 }]
    ));
    assert_eq!(takeover.network.shown(), [format!("2 {address}")]);
    // One who removes it all the time does not keep us busy all the time.
    takeover.step(ms(1001));
    takeover.address_gone(2, "198.51.100.10".parse().unwrap(), ms(1001));
    assert_eq!(takeover.deadline(), Some(ms(1000) + LEAST_RETRY));
    takeover.release(0, ms(1002)).unwrap();
    takeover.address_gone(2, "198.51.100.10".parse().unwrap(), ms(1003));
    assert_eq!(takeover.deadline(), None);
}

#[test]
fn one_groups_first_address_does_not_take_the_others_away() {
    let mut takeover = takeover(vec![
        movable("web", &["198.51.100.10/24"], None),
        movable("mail", &["198.51.100.20/24"], None),
    ]);
    takeover.network.drops_secondaries = true;
    takeover.take(0, ms(0)).unwrap();
    takeover.take(1, ms(0)).unwrap();
    takeover.release(0, ms(10)).unwrap();
    assert_eq!(takeover.network.shown(), ["2 198.51.100.20/24"]);
}

#[test]
fn virtual_mac() {
    let mut takeover = takeover(vec![
        movable("web", &["198.51.100.10/24", "2001:db8::10/64"], Some(51)),
        movable("mail", &["198.51.100.20/24"], Some(52)),
    ]);
    let setting =
        |takeover: &mut Takeover<Fake>, path: &str| takeover.network.setting(path).unwrap();
    takeover
        .network
        .set("ipv4/conf/eth0/arp_announce", "1")
        .unwrap();
    takeover.take(0, ms(0)).unwrap();
    takeover.take(1, ms(0)).unwrap();
    let macvlan = takeover.network.interface("hb4.51.2").unwrap().unwrap();
    assert_eq!(macvlan.mac, [0, 0, 0x5e, 0, 1, 51]);
    let macvlan6 = takeover.network.interface("hb6.51.2").unwrap().unwrap();
    assert_eq!(macvlan6.mac, [0, 0, 0x5e, 0, 2, 51]);
    assert!(
        takeover
            .network
            .has(macvlan.index, &"198.51.100.10/24".parse().unwrap())
    );
    let (index, frame) = &takeover.network.sent[0];
    assert_eq!(
        (*index, &frame[6..12]),
        (macvlan.index, &macvlan.mac[..]),
        "from the virtual MAC"
    );
    assert_eq!(setting(&mut takeover, "ipv4/conf/eth0/arp_ignore"), "1");
    assert_eq!(setting(&mut takeover, "ipv4/conf/eth0/arp_announce"), "2");
    assert_eq!(setting(&mut takeover, "ipv4/conf/hb4.51.2/rp_filter"), "2");
    // Again: nothing new.
    takeover.take(0, ms(10)).unwrap();
    assert_eq!(takeover.network.interfaces.len(), 4);

    takeover.release(0, ms(20)).unwrap();
    assert_eq!(setting(&mut takeover, "ipv4/conf/eth0/arp_ignore"), "1");
    takeover.release(1, ms(20)).unwrap();
    assert!(takeover.network.held.is_empty());
    assert_eq!(takeover.deadline(), Some(ms(20) + LINGER));
    // Taken back before it was gone.
    takeover.take(1, ms(20)).unwrap();
    assert_eq!(takeover.network.held.len(), 1);
    takeover.release(1, ms(20)).unwrap();
    assert!(matches!(
        takeover.step(ms(20) + LINGER)[..],
        [
            Outcome::Released { group: 0 },
            Outcome::Released { group: 1 }
        ]
    ));
    assert_eq!(takeover.network.interfaces.len(), 1);
    assert_eq!(setting(&mut takeover, "ipv4/conf/eth0/arp_ignore"), "0");
    assert_eq!(setting(&mut takeover, "ipv4/conf/eth0/arp_announce"), "1");
}

#[test]
fn the_end() {
    let mut takeover = takeover(vec![
        movable("web", &["198.51.100.10/24"], Some(51)),
        movable("mail", &["198.51.100.20/24"], None),
        movable("news", &["198.51.100.30/24"], None),
    ]);
    for group in 0..2 {
        takeover.take(group, ms(0)).unwrap();
    }
    takeover.release(0, ms(10)).unwrap();
    let outcomes = takeover.finish(ms(10));
    assert!(
        matches!(
            outcomes[..],
            [
                Outcome::Released { group: 0 },
                Outcome::Released { group: 1 }
            ]
        ),
        "{outcomes:?}"
    );
    assert!(takeover.network.held.is_empty());
    assert_eq!(takeover.network.interfaces.len(), 1);
    assert_eq!(takeover.deadline(), None);
}

#[test]
fn a_virtual_mac_needs_ethernet() {
    let mut takeover = takeover(vec![movable("web", &["198.51.100.10/24"], Some(51))]);
    takeover.network.interfaces[0].mac = [0; 6];
    let error = takeover.take(0, ms(0)).unwrap_err().to_string();
    assert!(error.contains("virtual_mac"), "{error}");
}

#[test]
fn leftovers() {
    let mut takeover = takeover(vec![movable("web", &["198.51.100.10/24"], None)]);
    takeover.network.plug(3, "eth1");
    let held = [
        // (interface, address, marked, stays)
        (2, "198.51.100.10/32", false, false),
        (2, "198.51.100.10/24", true, false),
        (2, "198.51.100.1/24", false, true),
        (3, "203.0.113.10/24", true, false),
        (3, "198.51.100.10/24", false, true),
    ];
    takeover.network.held = held
        .iter()
        .map(|(index, address, is_marked, _)| Held {
            index: *index,
            address: address.parse().unwrap(),
            is_marked: *is_marked,
        })
        .collect();
    takeover.network.interfaces.push(Interface {
        index: 9,
        name: "hb4.51.2".to_owned(),
        mac: [0, 0, 0x5e, 0, 1, 51],
        parent: Some(2),
        is_marked: true,
    });
    let words = takeover.clean().unwrap();
    assert_eq!(words.len(), 4, "{words:?}");
    assert!(words.contains(&"203.0.113.10/24 on eth1".to_owned()));
    assert!(words.contains(&"macvlan hb4.51.2".to_owned()));
    assert_eq!(
        takeover.network.shown(),
        ["2 198.51.100.1/24", "3 198.51.100.10/24"]
    );
    assert_eq!(takeover.network.interfaces.len(), 2);
    assert!(takeover.clean().unwrap().is_empty());
}
