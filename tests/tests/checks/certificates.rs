//! Certificates, good and bad.

use std::time::{Duration, SystemTime};

use director_tests::servers::Directory;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

const DAY: Duration = Duration::from_secs(86_400);

/// An authority of its own.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    /// The authority's certificate: the file `NAME.pem`.
    pub(crate) fn write(&self, directory: &Directory, name: &str) {
        directory.write(&format!("{name}.pem"), &self.pem).unwrap();
    }

    /// A server's certificate, valid for some days from now or, if negative, until so many days ago: the files `NAME.crt`
    /// and `NAME.key`.
    pub(crate) fn certify(
        &self,
        directory: &Directory,
        name: &str,
        names: &[&str],
        days_left: i32,
    ) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        let now = SystemTime::now();
        params.not_before = (now - 1000 * DAY).into();
        let end = match u32::try_from(days_left) {
            // Half a day more, so that the count of whole days is the same for the whole test.
            Ok(days) => now + days * DAY + DAY / 2,
            Err(_) => now - days_left.unsigned_abs() * DAY,
        };
        params.not_after = end.into();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        directory
            .write(&format!("{name}.crt"), &certificate.pem())
            .unwrap();
        directory
            .write(&format!("{name}.key"), &key.serialize_pem())
            .unwrap();
    }
}
