//! Certificates for the tests, as files.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use slipring::{Environment, SystemEnvironment, TcpTls};

/// A certificate authority, and what it issued, in a directory that goes with it.
pub(crate) struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// One of this name: `ca.pem`, with `ca.key`.
    pub(crate) fn new(name: &str) -> Self {
        let number = SystemEnvironment.random("directory");
        let directory = std::env::temp_dir().join(format!("slipring-planes-{number:x}"));
        std::fs::create_dir_all(&directory).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        write(&directory, "ca", &certificate, &key);
        Self { directory, issuer: Issuer::new(params, key) }
    }

    /// Issues a certificate for this host, with its key: `{file}.pem`, `{file}.key`.
    pub(crate) fn issue(&self, file: &str, host: &str) {
        self.issue_as(file, host, |_| {});
    }

    /// The same, changed before it is signed.
    pub(crate) fn issue_as(&self, file: &str, host: &str, change: impl FnOnce(&mut CertificateParams)) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, file);
        change(&mut params);
        write(&self.directory, file, &params.signed_by(&key, &self.issuer).unwrap(), &key);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Trusts this authority.
    pub(crate) fn trusted(&self) -> TcpTls {
        TcpTls::new().with_ca_file(self.path("ca.pem"))
    }

    /// Shows what was issued under this name.
    pub(crate) fn shown(&self, tls: TcpTls, file: &str) -> TcpTls {
        tls.with_identity_files(self.path(&format!("{file}.pem")), self.path(&format!("{file}.key")))
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn write(directory: &Path, name: &str, certificate: &Certificate, key: &KeyPair) {
    std::fs::write(directory.join(format!("{name}.pem")), certificate.pem()).unwrap();
    std::fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}
