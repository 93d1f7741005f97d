//! How fast connections are shared: how late what begins is at a peer, and how long a whole table takes.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use conn_sync::machine::{PeerState, Report};

use crate::director::{self, Service};
use crate::lab::plan::{VIRTUAL4, server4};
use crate::lab::{Gateway, Host, Lab, LabOptions, Process, Topology};
use crate::peer::{Peer, PeerTables};
use crate::{PATIENCE, wait_until};

/// Where clients ask.
const SERVICE: (Ipv4Addr, u16) = (VIRTUAL4[0], 80);
/// How often connections are opened, and looked for at the peer.
const STEP: Duration = Duration::from_millis(5);

fn lab() -> Result<Lab> {
    Lab::up(&LabOptions {
        topology: Topology::TwoDirectors,
        gateway: Gateway::Router,
        servers: 2,
        ..LabOptions::default()
    })
}

fn peer(lab: &Lab, host: Host, tables: &Arc<PeerTables>) -> Result<Peer> {
    let servers = [server4(1), server4(2)];
    let name = host.to_string();
    Peer::start(lab.host(host)?, &name, "eth1", tables, SERVICE, &servers)
}

fn is_synced(report: Option<&Report>) -> bool {
    report
        .into_iter()
        .flat_map(|report| &report.peers)
        .any(|peer| peer.state == PeerState::Synced)
}

/// What became of connections that began one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Stream {
    /// How late the last ones of each step were at the peer, the soonest first. Never empty.
    pub late: Vec<Duration>,
    /// What the sender took of a core: 1 is all of it.
    pub share: f64,
}

impl Stream {
    /// Half of them came sooner.
    #[must_use]
    pub fn median(&self) -> Duration {
        self.late
            .get(self.late.len() / 2)
            .copied()
            .unwrap_or_default()
    }

    /// None came later.
    #[must_use]
    pub fn worst(&self) -> Duration {
        self.late.last().copied().unwrap_or_default()
    }
}

/// Connections that stand and that begin, for so many seconds: how late the last ones are at the peer, and what the sender
/// takes of a core.
///
/// # Errors
/// They do not come.
pub fn stream(standing: u32, each_second: u32, seconds: u32) -> Result<Stream> {
    let lab = lab()?;
    let all = standing + each_second * seconds;
    let (ours, theirs) = (PeerTables::new(all), PeerTables::new(all));
    let stand = ours.open(0..standing, 1);
    ensure!(
        stand == standing as usize,
        "of {standing} only {stand} stand"
    );
    let sender = peer(&lab, Host::Director, &ours)?;
    let receiver = peer(&lab, Host::Backup, &theirs)?;
    wait_until("the peer has what stands", PATIENCE, || {
        let status = receiver.status()?;
        let sent = sender.status()?;
        let is_shared = is_synced(status.machine.as_ref())
            && sent.machine.is_some_and(|it| it.backlog == 0)
            && theirs.has(standing - 1);
        ensure!(is_shared, "{:?}", status.machine);
        Ok(())
    })?;
    let (before, began) = (sender.status()?.cpu_ms, Instant::now());
    let patience = PATIENCE + Duration::from_secs(seconds.into());
    let mut opened: Vec<(Instant, u32)> = Vec::new();
    let mut next = standing;
    let mut late = Vec::new();
    let mut waiting = 0;
    while waiting < opened.len() || next < all {
        let due = standing + (began.elapsed().as_secs_f64() * f64::from(each_second)) as u32;
        let until = due.min(all);
        if until > next {
            ours.open(next..until, 2);
            opened.push((Instant::now(), until - 1));
            next = until;
        }
        // In the order in which they began: the last one of each step.
        while waiting < opened.len() && theirs.has(opened[waiting].1) {
            late.push(opened[waiting].0.elapsed());
            waiting += 1;
        }
        ensure!(
            began.elapsed() < patience,
            "{waiting} of {} steps have come",
            opened.len()
        );
        std::thread::sleep(STEP);
    }
    let took = began.elapsed();
    let cpu = sender.status()?.cpu_ms - before;
    late.sort();
    Ok(Stream {
        late,
        share: cpu as f64 / took.as_millis() as f64,
    })
}

/// How long a whole table takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bulk {
    /// From a peer's table into a director's, from the start of the peer on.
    pub from_peer: Duration,
    /// From that director's table into another one's, from the first connection that came on.
    pub from_director: Duration,
}

/// A director's table is filled by a peer, and another director's by that one.
///
/// # Errors
/// They are not.
pub fn bulk(connections: u32) -> Result<Bulk> {
    let lab = lab()?;
    let tables = PeerTables::new(connections);
    let standing = tables.open(0..connections, 1);
    let start = |host| -> Result<Process> {
        let service = Service {
            method: "nat",
            ..Service::rr(SERVICE.0.into(), SERVICE.1)
        };
        let extra = format!("sync: {{interface: eth1, node: {host}-real}}\n");
        let yaml = director::yaml_on(&lab, host, Topology::TwoDirectors, &[service], &extra);
        let mut process = director::start_on(&lab, host, &yaml)?;
        director::wait_ready_on(&lab, host, &mut process)?;
        Ok(process)
    };
    let wait_filled = |host, what: &str| -> Result<Duration> {
        let mut began = None;
        let mut took = Duration::ZERO;
        wait_until(what, PATIENCE, || {
            let status = director::sync_status_on(&lab, host)?;
            let taken = status["applied"]["taken"].as_u64().unwrap_or(0);
            if taken > 0 {
                began.get_or_insert(Instant::now());
            }
            ensure!(
                status["readiness"] == "synced" && taken * 1000 >= standing as u64 * 999,
                "{status}"
            );
            took = began.map_or(Duration::ZERO, |it| it.elapsed());
            Ok(())
        })?;
        Ok(took)
    };
    let _director = start(Host::Director)?;
    let began = Instant::now();
    let peer = peer(&lab, Host::Backup, &tables)?;
    wait_filled(Host::Director, "the director has all of the peer's")?;
    let from_peer = began.elapsed();
    drop(peer);
    let _backup = start(Host::Backup)?;
    let from_director = wait_filled(Host::Backup, "the other director has all of the first's")?;
    Ok(Bulk {
        from_peer,
        from_director,
    })
}
