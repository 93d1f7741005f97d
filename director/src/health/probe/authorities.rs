//! Certificate authorities that a backend's certificate is held against.
//!
//! Those of a file are read for each run: it may be renewed at any time, and is a small file. Those of the system are read
//! anew when another configuration comes into force, so that what is added to them counts after a reload. Where that takes
//! long, or there are none any more, those from before are good enough: no backend is down for it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls_native_certs::ErrorKind;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::{Failure, FailureKind, PLACES};
use crate::config::limits::AUTHORITIES_BYTES;
use crate::files::read_regular;
use crate::health::aside::Aside;
use crate::seldom::Seldom;

/// How long the system's may take to be read, where there are those from before.
const PATIENCE: Duration = Duration::from_millis(250);

/// Where they are read from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    File(PathBuf),
    /// The system's, as of this number of reloads.
    System(u64),
}

type Read = Result<Arc<RootCertStore>, Failure>;

/// Reads them for somebody, in places of their own.
pub(in crate::health) struct Authorities(Aside<Source, Read>);

/// For checks.
pub(in crate::health) static OF_CHECKS: Authorities = Authorities::new(&PLACES);
static SYSTEM: LazyLock<Mutex<System>> = LazyLock::new(Mutex::default);

/// The system's.
#[derive(Default)]
struct System {
    reloads: u64,
    /// Never without any: should there be none, or should they not be readable, the next run looks again.
    kept: Option<Kept>,
    troubles: Seldom,
}

struct Kept {
    /// Reloads by the time that they were read.
    reloads: u64,
    roots: Arc<RootCertStore>,
}

impl Authorities {
    pub(in crate::health) const fn new(places: &'static Semaphore) -> Self {
        Self(Aside::new(places))
    }

    /// Those of a file.
    pub(super) async fn of_file(&'static self, file: &Path) -> Read {
        self.read(Source::File(file.to_owned())).await
    }

    /// Those of the system.
    pub(super) async fn of_system(&'static self) -> Read {
        let (reloads, before) = {
            let system = system();
            let kept = system.kept.as_ref();
            let before = kept.map(|kept| Arc::clone(&kept.roots));
            match (kept, before) {
                (Some(kept), Some(roots)) if kept.reloads == system.reloads => return Ok(roots),
                (_, before) => (system.reloads, before),
            }
        };
        let reading = self.read(Source::System(reloads));
        let Some(before) = before else {
            return reading.await;
        };
        let why = match timeout(PATIENCE, reading).await {
            Ok(Ok(roots)) => return Ok(roots),
            Ok(Err(failure)) => failure.words,
            // It goes on, and a later run has what it finds.
            Err(_) => "they are still being read".to_owned(),
        };
        if let Some(untold) = system().troubles.tell(Instant::now()) {
            tracing::warn!(
                untold,
                "the certificate authorities of this system from before the reload are used: {why}"
            );
        }
        Ok(before)
    }

    async fn read(&'static self, source: Source) -> Read {
        let read = self.0.get(&source, |source| match source {
            Source::File(file) => file_now(file),
            Source::System(reloads) => {
                let roots = system_now()?;
                system().kept = Some(Kept {
                    reloads: *reloads,
                    roots: Arc::clone(&roots),
                });
                Ok(roots)
            }
        });
        read.await.map_err(|error| {
            let words = format!("certificate authorities: {error}");
            Failure::new(FailureKind::of_beginning(&error), words)
        })?
    }
}

/// Another configuration is in force: the system's are read anew.
pub(in crate::health) fn reloaded() {
    system().reloads += 1;
}

fn system() -> MutexGuard<'static, System> {
    // Nothing is left half done by whoever panics.
    SYSTEM.lock().unwrap_or_else(PoisonError::into_inner)
}

fn file_now(file: &Path) -> Read {
    let failed = |kind, what: &dyn std::fmt::Display| {
        let words = format!("certificate authorities of {}: {what}", file.display());
        Failure::new(kind, words)
    };
    let local = |what: &dyn std::fmt::Display| failed(FailureKind::Local, what);
    let mut roots = RootCertStore::empty();
    let pem = read_regular(file, AUTHORITIES_BYTES)
        .map_err(|error| failed(FailureKind::of_beginning(&error), &error))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| local(&error))?;
        roots.add(certificate).map_err(|error| local(&error))?;
    }
    if roots.is_empty() {
        return Err(local(&"there are none in it"));
    }
    Ok(Arc::new(roots))
}

fn system_now() -> Read {
    let found = rustls_native_certs::load_native_certs();
    let failed = |kind, what: String| {
        let words = format!("certificate authorities of this system: {what}");
        Failure::new(kind, words)
    };
    let kind = |error: &rustls_native_certs::Error| match &error.kind {
        ErrorKind::Io { inner, .. } => FailureKind::of_beginning(inner),
        _ => FailureKind::Local,
    };
    // Half of them would refuse good certificates.
    let mut errors = found.errors.iter();
    if let Some(error) = errors.find(|error| kind(error) == FailureKind::Shortage) {
        return Err(failed(FailureKind::Shortage, error.to_string()));
    }
    let mut roots = RootCertStore::empty();
    // What cannot be read otherwise is not trusted.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(": {error}"));
        let what = format!(
            "there are none{}; install them (package ca-certificates), or name an authority under \"ca\"",
            why.unwrap_or_default()
        );
        return Err(failed(FailureKind::Local, what));
    }
    Ok(Arc::new(roots))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;
    use crate::alone::alone;

    /// A number of authorities, as a file.
    fn pem(number: usize) -> String {
        (0..number)
            .map(|at| {
                let CertifiedKey { cert, .. } =
                    generate_simple_self_signed([format!("host-{at}.test")]).unwrap();
                cert.pem()
            })
            .collect()
    }

    /// What counts is what the system has had since the last reload; where it has none, since the last run.
    #[test]
    fn the_systems_are_read_anew_by_a_reload() {
        let file = std::env::temp_dir().join(format!("director-system-{}.pem", std::process::id()));
        // Where they are is said by the environment, which is a whole process's.
        if !alone(
            "health::probe::authorities::tests::the_systems_are_read_anew_by_a_reload",
            &[
                ("SSL_CERT_FILE", &file.display().to_string()),
                ("SSL_CERT_DIR", ""),
            ],
        ) {
            return;
        }
        let file = PathBuf::from(std::env::var_os("SSL_CERT_FILE").unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        // (authorities that the system has; none: no such file, whether there is a reload, what a check has or is told)
        let cases: [(Option<usize>, bool, Result<usize, &str>); 9] = [
            (None, false, Err("No such file")),
            (Some(0), false, Err("there are none; install")),
            (Some(1), false, Ok(1)),
            (Some(3), false, Ok(1)),
            (Some(3), true, Ok(3)),
            (None, false, Ok(3)),
            // Those from before, until there are some again.
            (None, true, Ok(3)),
            (Some(0), true, Ok(3)),
            (Some(2), false, Ok(2)),
        ];
        for (number, case) in cases.into_iter().enumerate() {
            let (authorities, is_reload, expected) = case;
            match authorities {
                Some(authorities) => fs::write(&file, pem(authorities)).unwrap(),
                None => drop(fs::remove_file(&file)),
            }
            if is_reload {
                reloaded();
            }
            // Reading may take longer than it is waited for, on a busy machine.
            let has = |found: &Read| found.as_ref().map_or(0, |roots| roots.len());
            let found = std::iter::repeat_with(|| runtime.block_on(OF_CHECKS.of_system()))
                .take(20)
                .find(|found| expected.is_err() || expected == Ok(has(found)))
                .unwrap_or_else(|| runtime.block_on(OF_CHECKS.of_system()));
            match (found, expected) {
                (Ok(roots), Ok(length)) => assert_eq!(roots.len(), length, "case {number}"),
                (Err(failure), Err(words)) => {
                    assert!(failure.words.contains(words), "case {number}: {failure:?}");
                    assert_eq!(failure.kind, FailureKind::Local);
                }
                (found, _) => panic!("case {number}: {found:?}"),
            }
        }
    }
}
