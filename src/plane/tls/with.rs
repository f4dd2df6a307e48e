use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use slipring_core::{ByteStream, Environment, Error, Result};
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::time_provider::TimeProvider;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{TcpTls, TlsFault};

/// What both ends say they want to speak, so that nothing else that speaks TLS is taken for a link.
const PROTOCOL: &[u8] = b"slipring";

/// Wraps connections into TLS.
pub(crate) struct Tls {
    /// None without authorities to trust.
    connector: Option<TlsConnector>,
    /// None without a certificate to show.
    acceptor: Option<TlsAcceptor>,
    server_name: Option<ServerName<'static>>,
}

/// By which certificates are judged.
#[derive(Debug)]
struct WallTime(Arc<dyn Environment>);

impl TimeProvider for WallTime {
    fn current_time(&self) -> Option<UnixTime> {
        self.0.wall_time().duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

/// What is read from the files.
struct Files {
    roots: Option<Arc<RootCertStore>>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Tls {
    /// Reads the files, so that a wrong one is known at once.
    ///
    /// # Errors
    /// `Invalid` naming the file, or the name, that cannot be used.
    pub(crate) fn new(options: &TcpTls, listens: bool, environment: &Arc<dyn Environment>) -> Result<Self> {
        let files = Files::read(options)?;
        let server_name = match &options.server_name {
            None => None,
            Some(name) => Some(ServerName::try_from(name.clone()).map_err(|problem| {
                Error::invalid("TCP plane", format!("server_name {name}"), problem.to_string())
            })?),
        };
        let connector = files.connector(options, environment)?;
        let acceptor = if listens { files.acceptor(options, environment)? } else { None };
        Ok(Self { connector, acceptor, server_name })
    }

    /// Shakes hands with whoever is at this `host:port`, as the one who dialled.
    pub(crate) async fn connect(
        &self,
        host: &str,
        stream: Box<dyn ByteStream>,
    ) -> std::result::Result<Box<dyn ByteStream>, TlsFault> {
        let connector = self.connector.as_ref().ok_or(TlsFault::NoAuthority)?;
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => name_of(host).ok_or(TlsFault::Host)?,
        };
        match connector.connect(name, stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(TlsFault::of_handshake(&error)),
        }
    }

    /// Shakes hands with whoever dialled.
    pub(crate) async fn accept(
        &self,
        stream: Box<dyn ByteStream>,
    ) -> std::result::Result<Box<dyn ByteStream>, TlsFault> {
        let acceptor = self.acceptor.as_ref().expect("whoever listens was checked to have a certificate");
        match acceptor.accept(stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(TlsFault::of_handshake(&error)),
        }
    }
}

impl Files {
    fn read(options: &TcpTls) -> Result<Self> {
        let roots = match &options.ca_file {
            None => None,
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|problem| unfit(path, problem))?;
                }
                Some(Arc::new(roots))
            }
        };
        let identity = match &options.identity_files {
            None => None,
            Some((certificate, key)) => {
                let own = PrivateKeyDer::from_pem_file(key).map_err(|problem| unread(key, problem))?;
                Some((certificates(certificate)?, own))
            }
        };
        Ok(Self { roots, identity })
    }

    fn connector(
        &self,
        options: &TcpTls,
        environment: &Arc<dyn Environment>,
    ) -> Result<Option<TlsConnector>> {
        let Some(roots) = &self.roots else { return Ok(None) };
        let time = Arc::new(WallTime(environment.clone()));
        let builder = ClientConfig::builder_with_details(provider(), time)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider supports it")
            .with_root_certificates(roots.clone());
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder
                .with_client_auth_cert(chain.clone(), key.clone_key())
                .map_err(|problem| options.unfit_identity(problem))?,
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Some(TlsConnector::from(Arc::new(config))))
    }

    fn acceptor(&self, options: &TcpTls, environment: &Arc<dyn Environment>) -> Result<Option<TlsAcceptor>> {
        let Some((chain, key)) = &self.identity else { return Ok(None) };
        let time = Arc::new(WallTime(environment.clone()));
        let builder = ServerConfig::builder_with_details(provider(), time)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider supports it");
        let builder = match &self.roots {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider());
                builder.with_client_cert_verifier(verifier.build().expect("there is an authority"))
            }
        };
        let mut config = builder
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|problem| options.unfit_identity(problem))?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Some(TlsAcceptor::from(Arc::new(config))))
    }
}

impl TcpTls {
    /// The certificate and the key cannot be used, or not together.
    fn unfit_identity(&self, problem: impl fmt::Display) -> Error {
        let (certificate, key) = self.identity_files.as_ref().expect("they were read");
        let files = format!("{} with {}", certificate.display(), key.display());
        Error::invalid("PEM files", files, problem.to_string())
    }
}

/// Handed in: the process's default provider belongs to the application.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The name that a certificate has to be for, of whoever is dialled here.
fn name_of(host: &str) -> Option<ServerName<'static>> {
    let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(name.to_owned()).ok()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let all =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    match all {
        Ok(certificates) if certificates.is_empty() => Err(unfit(path, "it holds no certificate")),
        all => all.map_err(|problem| unread(path, problem)),
    }
}

/// A file that cannot be read. What is in it is not shown: it may be a key.
fn unread(path: &Path, problem: pem::Error) -> Error {
    match problem {
        pem::Error::Io(problem) => unfit(path, problem),
        pem::Error::NoItemsFound => unfit(path, "it holds none of what is looked for"),
        _ => unfit(path, "it is no PEM file: a line is damaged"),
    }
}

fn unfit(path: &Path, problem: impl fmt::Display) -> Error {
    Error::invalid("PEM file", path.display().to_string(), problem.to_string())
}

/// Neither keys nor certificates are shown.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("dials", &self.connector.is_some())
            .field("is_dialled", &self.acceptor.is_some())
            .field("server_name", &self.server_name)
            .finish()
    }
}
