//! nginx as a real server.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::{Host, Lab, Process};
use crate::{PATIENCE, http, wait_until};

/// Ports that it listens on, in both families: those of services, 8080 also for NAT to translate to.
pub const PORTS: [u16; 9] = [80, 8080, 8081, 8082, 8083, 8084, 8085, 8086, 8087];

/// Size of the file at `/transfer`, in bytes; its content is [`http::pattern`].
pub const TRANSFER_BYTES: usize = 1 << 20;

/// Starts nginx on real server `number`. It listens when this returns; ends when the guard is dropped.
///
/// `/` gives the line `s1 answered ADDRESS:PORT for CLIENT:PORT`, like [`http::serve`]; `/transfer` a file;
/// `/slow` the same file over about four seconds; `/ping.html` what [`set_ping`] said last, at first `Hello World`.
///
/// # Errors
/// nginx is not installed, or ended; with what it said.
pub fn start(lab: &Lab, number: u8) -> Result<Process> {
    start_on(lab, Host::Server(number))
}

/// The same on any host.
///
/// # Errors
/// As for [`start`].
pub fn start_on(lab: &Lab, host: Host) -> Result<Process> {
    let directory = directory(lab, host);
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    set_ping(lab, host, "Hello World\n")?;
    let write = |name: &str, content: &[u8]| {
        let path = directory.join(name);
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))
    };
    write(
        "nginx.conf",
        configuration(&directory, &host.to_string()).as_bytes(),
    )?;
    let content: Vec<u8> = (0..TRANSFER_BYTES).map(http::pattern).collect();
    write("transfer", &content)?;

    let mut command = Command::new("nginx");
    command
        .arg("-c")
        .arg(directory.join("nginx.conf"))
        // Before it has read its configuration it would complain into the system's log.
        .arg("-e")
        .arg(directory.join("error.log"));
    let namespace = lab.host(host)?;
    let mut nginx = namespace.spawn(command, directory.join("output.log"))?;
    wait_until("nginx listens", PATIENCE, || {
        nginx.check_running()?;
        namespace.run(|| {
            for port in PORTS {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
            }
            Ok(())
        })?
    })?;
    Ok(nginx)
}

fn directory(lab: &Lab, host: Host) -> PathBuf {
    lab.directory().join(format!("nginx-{host}"))
}

/// What nginx on a host answers under `/ping.html` from now on.
///
/// # Errors
/// The file cannot be written.
pub fn set_ping(lab: &Lab, host: Host, text: &str) -> Result<()> {
    let path = directory(lab, host).join("ping.html");
    // Whole, or as before: a check may be reading it.
    let next = path.with_extension("next");
    fs::write(&next, text)
        .and_then(|()| fs::rename(&next, &path))
        .with_context(|| format!("writing {}", path.display()))
}

fn configuration(directory: &Path, name: &str) -> String {
    let directory = directory.display();
    let listen: String = PORTS
        .iter()
        .map(|port| format!("    listen {port};\n    listen [::]:{port} ipv6only=on;\n"))
        .collect();
    format!(
        "\
daemon off;
# One process, which takes its connections with it when it is killed.
master_process off;
# Left unprivileged it could not read the lab's directory.
user root;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
{listen}    root {directory};
    default_type text/plain;
    location = / {{ return 200 \"{name} answered $server_addr:$server_port for $remote_addr:$remote_port\\n\"; }}
    location = /transfer {{ }}
    location = /ping.html {{ }}
    location = /slow {{ alias {directory}/transfer; limit_rate 262144; }}
  }}
}}
"
    )
}
