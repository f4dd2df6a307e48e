//! TLS over whatever the environment dials.

use slipring_core::{ByteStream, Result};

use crate::TlsConfig;

#[cfg(feature = "tls")]
pub(crate) use with::Tls;
#[cfg(not(feature = "tls"))]
pub(crate) use without::Tls;

#[cfg(not(feature = "tls"))]
mod without {
    use slipring_core::Error;

    use super::*;

    /// Cannot be made.
    #[derive(Clone)]
    pub(crate) enum Tls {}

    impl Tls {
        pub(crate) fn new(_: &TlsConfig) -> Result<Self> {
            Err(Error::unsupported("TLS to etcd", "build with the feature `tls`"))
        }

        pub(crate) async fn wrap(&self, _: &str, _: Box<dyn ByteStream>) -> Result<Box<dyn ByteStream>> {
            match *self {}
        }
    }
}

#[cfg(feature = "tls")]
mod with {
    use std::sync::Arc;

    use rustls_pki_types::pem::{self, PemObject};
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use slipring_core::{Effect, Error};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

    use super::*;

    /// Wraps connections into TLS.
    #[derive(Clone)]
    pub(crate) struct Tls(TlsConnector);

    impl Tls {
        /// Reads the files, so that a wrong one is known at once.
        pub(crate) fn new(config: &TlsConfig) -> Result<Self> {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(&config.ca_file)? {
                roots.add(certificate).map_err(|error| bad_file(&config.ca_file, error))?;
            }
            // Handed in: the process's default provider belongs to the application.
            let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| bad_file(&config.ca_file, error))?
                .with_root_certificates(roots);
            let mut client = match &config.client_files {
                None => builder.with_no_client_auth(),
                Some((cert_file, key_file)) => {
                    let key = PrivateKeyDer::from_pem_file(key_file);
                    let key = key.map_err(|error| unread(key_file, error))?;
                    let own = builder.with_client_auth_cert(certificates(cert_file)?, key);
                    own.map_err(|error| bad_file(cert_file, error))?
                }
            };
            client.alpn_protocols = vec![b"h2".to_vec()];
            Ok(Self(TlsConnector::from(Arc::new(client))))
        }

        /// Shakes hands with the server at `endpoint`, which must be who its certificate says.
        pub(crate) async fn wrap(
            &self,
            endpoint: &str,
            stream: Box<dyn ByteStream>,
        ) -> Result<Box<dyn ByteStream>> {
            let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _port)| host);
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(host.clone())
                .map_err(|error| Error::invalid("etcd endpoint", host, error.to_string()))?;
            let connected = self.0.connect(name, stream).await;
            let stream = connected
                .map_err(|error| Error::unavailable(endpoint, format!("TLS: {error}"), Effect::None))?;
            Ok(Box::new(stream))
        }
    }

    fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>> {
        let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let certificates = read.map_err(|error| unread(file, error))?;
        if certificates.is_empty() {
            return Err(bad_file(file, "it has no certificate"));
        }
        Ok(certificates)
    }

    /// A file that cannot be read. What is in it is not shown: it may be a key.
    fn unread(file: &str, problem: pem::Error) -> Error {
        match problem {
            pem::Error::Io(problem) => bad_file(file, problem),
            pem::Error::NoItemsFound => bad_file(file, "it holds none of what is looked for"),
            _ => bad_file(file, "it is no PEM file: a line is damaged"),
        }
    }

    fn bad_file(file: &str, problem: impl std::fmt::Display) -> Error {
        Error::invalid("TLS file", file, problem.to_string())
    }
}
