//! TLS with the provider that is compiled in here; none is ever installed for the whole process.

use std::sync::Arc;

use async_nats::rustls::crypto::ring;
use async_nats::rustls::{ClientConfig, RootCertStore};
use slipring_core::{Error, Result};

use crate::Tls;

/// What the client library uses if a server speaks TLS: without `tls` it trusts nobody.
///
/// # Errors
/// `Invalid` naming the file that cannot be used; `Unsupported` without the feature `tls`.
pub(crate) fn client_config(tls: Option<&Tls>) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("the provider supports the default versions");
    match tls {
        None => Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()),
        #[cfg(feature = "tls")]
        Some(tls) => {
            let builder = builder.with_root_certificates(pem::roots(tls)?);
            match &tls.identity_files {
                None => Ok(builder.with_no_client_auth()),
                Some((certificate, key)) => builder
                    .with_client_auth_cert(pem::certificates(certificate)?, pem::key(key)?)
                    .map_err(|problem| pem::invalid(certificate, problem)),
            }
        }
        #[cfg(not(feature = "tls"))]
        Some(_) => Err(Error::unsupported("TLS to NATS", "compile slipring with the feature `tls`")),
    }
}

#[cfg(feature = "tls")]
mod pem {
    use std::fmt::Display;
    use std::path::Path;

    use async_nats::rustls::pki_types::pem::{self, PemObject};
    use async_nats::rustls::pki_types::{CertificateDer, PrivateKeyDer};

    use super::*;

    pub(super) fn roots(tls: &Tls) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        match &tls.ca_file {
            Some(path) => {
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|problem| invalid(path, problem))?;
                }
            }
            None => {
                let system = rustls_native_certs::load_native_certs();
                let (added, _) = roots.add_parsable_certificates(system.certs);
                if added == 0 {
                    let problem = format!("the system trusts nobody ({:?}); give ca_file", system.errors);
                    return Err(Error::invalid("certificate authorities", "", problem));
                }
            }
        }
        Ok(roots)
    }

    pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
        let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        match all {
            Ok(certificates) if certificates.is_empty() => Err(invalid(path, "it holds no certificate")),
            all => all.map_err(|problem| unread(path, problem)),
        }
    }

    pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>> {
        PrivateKeyDer::from_pem_file(path).map_err(|problem| unread(path, problem))
    }

    /// A file that cannot be read. What is in it is not shown: it may be a key.
    fn unread(path: &Path, problem: pem::Error) -> Error {
        match problem {
            pem::Error::Io(problem) => invalid(path, problem),
            pem::Error::NoItemsFound => invalid(path, "it holds none of what is looked for"),
            _ => invalid(path, "it is no PEM file: a line is damaged"),
        }
    }

    pub(super) fn invalid(path: &Path, problem: impl Display) -> Error {
        Error::invalid("PEM file", path.display().to_string(), problem.to_string())
    }
}

#[cfg(all(test, not(feature = "tls")))]
mod tests {
    use super::*;

    /// Without the feature, asking for TLS is refused with what to do.
    #[test]
    fn tls_is_a_feature() {
        let error = client_config(Some(&Tls::new())).unwrap_err();
        assert_eq!(error.code(), "unsupported");
        assert!(error.to_string().contains("feature `tls`"), "{error}");
        assert!(client_config(None).is_ok());
    }
}
