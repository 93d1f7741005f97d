//! A site whose persistence remembers many clients: what else the director does goes on beside it.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use ::director::datapath::View;
use anyhow::ensure;
use director_tests::lab::{Host, Topology};
use director_tests::wait_until;
use xdp_ebpf::layout::{Template, TemplateKey, service};

use crate::site::{Site, server, virtual_address};

/// Clients that stay.
const CLIENTS: u32 = 150_000;
/// Clients of a service that is persistent no more: they are forgotten.
const FORGOTTEN: u32 = 50_000;
/// An id that no service has.
const NO_SERVICE: u16 = 999;
/// Where the real server listens whose checks fail and succeed in turn.
const FLAPPING_PORT: u16 = 9000;
/// How long a verdict may take by the median of the last ones, where the machine lets it once.
const MEDIAN: Duration = Duration::from_millis(10);
/// How long a verdict may take at most. A few milliseconds are meant; this is for a build without optimisation on a machine
/// that has something else to do. Reading them all at once took half a second and more.
const VERDICT: Duration = Duration::from_millis(400);
/// How long verdicts are watched: in that time templates are looked through more than once.
const WATCHED: Duration = Duration::from_secs(20);
/// Everything here takes longer than elsewhere.
const LONG: Duration = Duration::from_secs(180);

fn template(client: u32, service: u16, seen_s: u32) -> (TemplateKey, Template) {
    let mut key = TemplateKey {
        service,
        ..TemplateKey::default()
    };
    key.client[..4].copy_from_slice(&client.to_be_bytes());
    let template = Template {
        destination: 1,
        seen_s,
    };
    (key, template)
}

/// A real server goes and comes back, again and again. Gives when it is done the longest that a verdict took since the start.
fn flap(site: &Site, mut is_done: impl FnMut() -> bool) -> Duration {
    let address = SocketAddr::new(server(1, false), FLAPPING_PORT);
    let wait_for = |wanted: bool| {
        wait_until("a verdict is in the tables", LONG, || {
            ensure!(site.status().services[0].up == wanted, "not yet");
            Ok(())
        })
        .unwrap();
    };
    while !is_done() {
        let host = site.host(Host::Server(1));
        let listener = host.run(|| TcpListener::bind(address)).unwrap().unwrap();
        wait_for(true);
        drop(listener);
        wait_for(false);
    }
    Duration::from_micros(site.status().verdicts.worst_us)
}

#[test]
#[ignore = "needs root, network namespaces and nginx: cargo xtask test runs it"]
fn verdicts_do_not_wait_for_many_templates() {
    let mut site = Site::up(Topology::TwoInterfaces);
    let (address, real_server) = (virtual_address(false), server(1, false));
    let services = format!(
        "  - {{name: flapping, address: {address}, port: 80, check: {{type: connect, port: {FLAPPING_PORT}, interval: 50ms, \
         down_interval: 50ms, spread: 1ms, fall: 1, rise: 1}}, real_servers: [\"{real_server}:8080\"]}}\n  - {{name: shop, address: {address}, port: 81, \
         persistence: 1h, real_servers: [\"{real_server}:8080\"]}}\n"
    );
    site.start_text(&format!("{}{services}", site.yaml(&[])));
    let mut view = View::open(Path::new("/sys/fs/bpf"), &site.lab.instance_name()).unwrap();
    let tables = view.maps.read().unwrap();
    let is_persistent =
        |record: &xdp_ebpf::layout::Service| record.flags & service::PERSISTENT != 0;
    let (id, _) = tables
        .services
        .iter()
        .find(|(_, record)| is_persistent(record))
        .unwrap();
    // As if they had been used for the last time a while ago.
    let seen_s = tables.settings.now_s.wrapping_sub(10);
    let all = (0..CLIENTS)
        .map(|client| template(client, *id, seen_s))
        .chain((0..FORGOTTEN).map(|client| template(client, NO_SERVICE, seen_s)));
    for (key, template) in all {
        view.maps.put_template(key, Some(template)).unwrap();
    }
    let began = Instant::now();
    let worst = flap(&site, || {
        let median = Duration::from_micros(site.status().verdicts.median_us);
        assert!(
            began.elapsed() < LONG,
            "they are not forgotten, or a verdict takes {median:?}"
        );
        let is_gone = |client| {
            let (key, _) = template(client, NO_SERVICE, 0);
            view.maps.template(&key).is_none()
        };
        let probes = [0, FORGOTTEN / 2, FORGOTTEN - 1];
        began.elapsed() > WATCHED && median < MEDIAN && probes.into_iter().all(is_gone)
    });
    println!("the longest that a verdict took beside {CLIENTS} templates: {worst:?}");
    let left = view.maps.templates().unwrap();
    let of_nobody = left.iter().filter(|(key, _)| key.service == NO_SERVICE);
    assert_eq!(of_nobody.count(), 0);
    assert_eq!(left.len(), CLIENTS as usize);
    assert!(worst < VERDICT, "{worst:?}");
    site.check_end();
}
