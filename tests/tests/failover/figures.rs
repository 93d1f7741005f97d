//! How fast connections are shared: figures for README, and bounds on them with room for a busy machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use conn_sync::machine::{PeerState, Report};
use director_tests::director::{self, Service};
use director_tests::lab::plan::{VIRTUAL4, server4};
use director_tests::lab::{Gateway, Host, Lab, LabOptions, Topology};
use director_tests::peer::{Peer, PeerTables};
use director_tests::{PATIENCE, wait_until};

const SERVICE: (std::net::Ipv4Addr, u16) = (VIRTUAL4[0], 80);

fn lab() -> Lab {
    Lab::up(&LabOptions {
        topology: Topology::TwoDirectors,
        gateway: Gateway::Router,
        servers: 2,
        ..LabOptions::default()
    })
    .unwrap()
}

fn peer(lab: &Lab, host: Host, tables: &Arc<PeerTables>) -> Peer {
    let servers = [server4(1), server4(2)];
    let host_of = lab.host(host).unwrap();
    Peer::start(
        host_of,
        &host.to_string(),
        "eth1",
        tables,
        SERVICE,
        &servers,
    )
    .unwrap()
}

fn is_synced(report: Option<&Report>) -> bool {
    report
        .into_iter()
        .flat_map(|report| &report.peers)
        .any(|peer| peer.state == PeerState::Synced)
}

/// Connections that stand and that begin, for so many seconds: how late the last ones are at the peer, and what the sender
/// takes of a core.
fn stream(standing: u32, each_second: u32, seconds: u32) -> (Vec<Duration>, f64) {
    const STEP: Duration = Duration::from_millis(5);
    let lab = lab();
    let all = standing + each_second * seconds;
    let (ours, theirs) = (PeerTables::new(all), PeerTables::new(all));
    assert_eq!(ours.open(0..standing, 1), standing as usize);
    let sender = peer(&lab, Host::Director, &ours);
    let receiver = peer(&lab, Host::Backup, &theirs);
    wait_until("the peer has what stands", PATIENCE, || {
        let status = receiver.status()?;
        let sent = sender.status()?;
        let is_shared = is_synced(status.machine.as_ref())
            && sent.machine.is_some_and(|it| it.backlog == 0)
            && theirs.has(standing - 1);
        ensure!(is_shared, "{:?}", status.machine);
        Ok(())
    })
    .unwrap();
    let (before, began) = (sender.status().unwrap().cpu_ms, Instant::now());
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
        assert!(
            began.elapsed() < PATIENCE + Duration::from_secs(seconds.into()),
            "{} of {} steps have come",
            waiting,
            opened.len()
        );
        std::thread::sleep(STEP);
    }
    let took = began.elapsed();
    let cpu = sender.status().unwrap().cpu_ms - before;
    late.sort();
    (late, cpu as f64 / took.as_millis() as f64)
}

fn show_stream(standing: u32, each_second: u32, seconds: u32) -> (Duration, f64) {
    let (late, share) = stream(standing, each_second, seconds);
    let worst = late[late.len() - 1];
    println!(
        "{standing} connections stand, {each_second} begin in a second: at the peer after {} ms by the median, {} ms at the \
         most; the sender takes {:.1} % of a core",
        late[late.len() / 2].as_millis(),
        worst.as_millis(),
        share * 100.0
    );
    (worst, share)
}

/// A director's table is filled by a peer, and another director's by that one.
fn bulk(connections: u32) -> [Duration; 2] {
    let lab = lab();
    let tables = PeerTables::new(connections);
    let standing = tables.open(0..connections, 1);
    let yaml = |host| {
        let service = Service {
            method: "nat",
            ..Service::rr(SERVICE.0.into(), SERVICE.1)
        };
        let extra = format!("sync: {{interface: eth1, node: {host}-real}}\n");
        director::yaml_on(&lab, host, Topology::TwoDirectors, &[service], &extra)
    };
    let start = |host| {
        let mut process = director::start_on(&lab, host, &yaml(host)).unwrap();
        director::wait_ready_on(&lab, host, &mut process).unwrap();
        process
    };
    let wait_filled = |host, what: &str| {
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
        })
        .unwrap();
        took
    };
    let _director = start(Host::Director);
    let began = Instant::now();
    let peer = peer(&lab, Host::Backup, &tables);
    wait_filled(Host::Director, "the director has all of the peer's");
    let first = began.elapsed();
    drop(peer);
    let _backup = start(Host::Backup);
    let second = wait_filled(Host::Backup, "the other director has all of the first's");
    [first, second]
}

fn show_bulk(connections: u32) -> [Duration; 2] {
    let took = bulk(connections);
    println!(
        "{connections} connections into a director's empty table: {:.2} s from the start of the peer, {:.2} s from one \
         director's table into another's",
        took[0].as_secs_f64(),
        took[1].as_secs_f64()
    );
    took
}

/// A tenth of what is promised, by programs that are not optimised.
#[test]
#[ignore = "needs root, network namespaces and BPF: cargo xtask test runs it"]
fn connections_are_at_the_peer_soon() {
    let (worst, share) = show_stream(10_000, 2_000, 3);
    assert!(worst < Duration::from_secs(3), "{worst:?}");
    assert!(share < 0.9, "{share}");
    let took = show_bulk(100_000);
    assert!(took.iter().all(|took| *took < PATIENCE), "{took:?}");
}

mod slow {
    use super::*;

    #[test]
    #[ignore = "slow: cargo xtask test --all runs it"]
    fn a_million_connections() {
        let (worst, share) = show_stream(100_000, 20_000, 10);
        assert!(worst < Duration::from_millis(750), "{worst:?}");
        assert!(share < 0.45, "{share}");
        let took = show_bulk(1_000_000);
        assert!(
            took.iter().all(|took| *took < Duration::from_secs(9)),
            "{took:?}"
        );
    }
}
