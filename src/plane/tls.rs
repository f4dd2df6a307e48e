//! TLS below the links: their frames travel encrypted, between ends that were verified.

#[cfg(feature = "tls")]
mod fault;
#[cfg(feature = "tls")]
mod with;
#[cfg(not(feature = "tls"))]
mod without;

use std::path::PathBuf;

use slipring_core::{Address, Error, Options, Result};

#[cfg(feature = "tls")]
pub(crate) use self::fault::{TlsFault, fault_of};
#[cfg(feature = "tls")]
pub(crate) use self::with::Tls;
#[cfg(not(feature = "tls"))]
pub(crate) use self::without::{Tls, TlsFault, fault_of};

/// What an address begins with where TLS is spoken, in records and wherever else it is said where to dial.
const SCHEME: &str = "tls://";

/// TLS on the planes over TCP (feature `tls`), with files in PEM format.
///
/// A runtime with TLS speaks nothing else on its connections, whoever dialled: an instance whose record offers
/// plain TCP is called another way, and so is one that speaks TLS by a runtime without. Nothing was sent then.
///
/// | to | is needed | and may be given |
/// |---|---|---|
/// | dial | [`ca_file`](Self::ca_file) | [`identity_files`](Self::identity_files), for peers that demand a certificate; [`server_name`](Self::server_name) |
/// | be dialled | [`identity_files`](Self::identity_files) | [`ca_file`](Self::ca_file): then whoever dials has to show a certificate as well (mutual TLS) |
///
/// It is TLS 1.3, with the provider that is compiled in here; none is ever installed for the process. The files
/// are read once, when the runtime is built. Every connection is verified anew, none is resumed. In a simulation
/// the time by which certificates are judged is that of the node; the keys are not drawn from its seed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpTls {
    /// The authorities whose certificates are accepted, from those that this runtime dials and from those that dial
    /// it. Default: none, so that nobody can be dialled and nobody who dials is asked for a certificate.
    pub ca_file: Option<PathBuf>,
    /// The certificate of this runtime, with those between it and the authority, and its key. Default: none, so that
    /// it cannot be dialled and shows nothing when it dials.
    pub identity_files: Option<(PathBuf, PathBuf)>,
    /// The name that the certificate of whoever is dialled must be for. Default: the host that is dialled.
    pub server_name: Option<String>,
}

impl TcpTls {
    /// Without any file yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the authorities in this file.
    #[must_use]
    pub fn with_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Is this certificate, with its key.
    #[must_use]
    pub fn with_identity_files(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity_files = Some((certificate.into(), key.into()));
        self
    }

    /// Expects this name in the certificate of whoever is dialled, whatever the address.
    #[must_use]
    pub fn with_server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// What the options `tls`, `ca_file`, `cert_file`, `key_file` and `server_name` of an address say.
    pub(super) fn from_options(address: &Address, options: &Options<'_>) -> Result<Option<Self>> {
        let wrong = |problem: &str| Err(Error::invalid("TCP address", address.to_string(), problem));
        let path = |name| options.text(name).map(PathBuf::from);
        let identity_files = match (path("cert_file"), path("key_file")) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            _ => return wrong("cert_file and key_file go together"),
        };
        let server_name = options.text("server_name").map(str::to_owned);
        let tls = Self { ca_file: path("ca_file"), identity_files, server_name };
        match options.flag("tls")? {
            None | Some(false) if tls == Self::default() => Ok(None),
            Some(false) => wrong("tls=false, but it names what is for TLS"),
            None | Some(true) => Ok(Some(tls)),
        }
    }

    /// Refuses what cannot work for a runtime that listens, or that dials.
    pub(super) fn check(&self, listens: bool, dials: bool) -> Result<()> {
        let wrong = |problem| Err(Error::invalid("TCP plane", "tls", problem));
        if listens && self.identity_files.is_none() {
            return wrong("to listen it needs cert_file and key_file");
        }
        if dials && self.ca_file.is_none() {
            return wrong("to dial it needs ca_file");
        }
        Ok(())
    }
}

/// Where to dial, and whether TLS is spoken there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Destination<'a> {
    /// `host:port`.
    pub(crate) host: &'a str,
    pub(crate) tls: bool,
}

impl<'a> Destination<'a> {
    /// What `host:port` or `tls://host:port` means.
    pub(crate) fn of(address: &'a str) -> Self {
        match address.strip_prefix(SCHEME) {
            Some(host) => Self { host, tls: true },
            None => Self { host: address, tls: false },
        }
    }
}

/// The address of somebody who speaks TLS at `host:port`.
pub(super) fn with_tls(host: &str) -> String {
    format!("{SCHEME}{host}")
}
