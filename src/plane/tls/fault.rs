use std::io;

use slipring_core::{Effect, Error};
use tokio_rustls::rustls::{AlertDescription as Alert, CertificateError, Error as Rustls, InvalidMessage};

/// Why there is no TLS with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsFault {
    /// Its certificate is not accepted.
    Theirs(CertificateFault),
    /// It does not accept the certificate of this end.
    Ours(CertificateFault),
    /// It does not speak TLS.
    Plain,
    /// This end was not told whom to trust.
    NoAuthority,
    /// No certificate can be for the host that is dialled.
    Host,
    /// The connection ended or broke in the handshake.
    Cut,
    /// Both speak TLS, and cannot agree.
    Failed,
}

/// What is wrong with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CertificateFault {
    /// None was shown.
    Missing,
    /// Its time is over.
    Expired,
    /// Its time is to come.
    Early,
    /// It is of no authority that is trusted.
    Authority,
    /// It is for another name.
    Name,
    /// Anything else.
    Unfit,
}

/// What broke TLS, if that is what ended a connection.
pub(crate) fn fault_of(error: &io::Error) -> Option<TlsFault> {
    let cause = error.get_ref()?.downcast_ref::<Rustls>()?;
    tracing::debug!(%error, "TLS failed");
    Some(TlsFault::of(cause))
}

impl TlsFault {
    pub(super) fn of_handshake(error: &io::Error) -> Self {
        fault_of(error).unwrap_or(Self::Cut)
    }

    fn of(cause: &Rustls) -> Self {
        match cause {
            Rustls::NoCertificatesPresented => Self::Theirs(CertificateFault::Missing),
            Rustls::InvalidCertificate(problem) => Self::Theirs(CertificateFault::of(problem)),
            Rustls::AlertReceived(alert) => match alert {
                Alert::CertificateRequired => Self::Ours(CertificateFault::Missing),
                Alert::CertificateExpired => Self::Ours(CertificateFault::Expired),
                Alert::UnknownCA => Self::Ours(CertificateFault::Authority),
                // What is said of a signature, too, which is how the certificate of a namesake shows.
                Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateUnknown
                | Alert::AccessDenied
                | Alert::DecryptError => Self::Ours(CertificateFault::Unfit),
                _ => Self::Failed,
            },
            Rustls::InvalidMessage(InvalidMessage::InvalidContentType) => Self::Plain,
            _ => Self::Failed,
        }
    }

    /// A stable word, for counters.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Theirs(CertificateFault::Missing) => "certificate_missing",
            Self::Theirs(CertificateFault::Expired) => "certificate_expired",
            Self::Theirs(CertificateFault::Early) => "certificate_not_yet_valid",
            Self::Theirs(CertificateFault::Authority) => "certificate_authority",
            Self::Theirs(CertificateFault::Name) => "certificate_name",
            Self::Theirs(CertificateFault::Unfit) => "certificate_unfit",
            Self::Ours(_) => "own_certificate",
            Self::Plain => "tls_missing",
            Self::NoAuthority => "tls_no_authority",
            Self::Host => "tls_host",
            Self::Cut => "tls_cut",
            Self::Failed => "tls_failed",
        }
    }

    pub(crate) fn error(self, who: String) -> Error {
        let unavailable = |who: String, cause: &str| Error::unavailable(who, cause, Effect::None);
        match self {
            Self::Theirs(fault) => Error::unauthorized(who, fault.of_theirs()),
            Self::Ours(fault) => Error::unauthorized(who, fault.of_ours()),
            Self::Plain => unavailable(who, "it does not speak TLS, and this end speaks nothing else"),
            Self::NoAuthority => {
                unavailable(who, "it speaks TLS, and without ca_file this end trusts nobody")
            }
            Self::Host => unavailable(who, "no certificate can be for this host: give server_name"),
            Self::Cut => {
                unavailable(who, "the connection was cut in the TLS handshake: it may not speak TLS there")
            }
            Self::Failed => unavailable(who, "the TLS handshake failed: both speak it, and do not agree"),
        }
    }
}

impl CertificateFault {
    fn of(problem: &CertificateError) -> Self {
        use CertificateError as Problem;
        match problem {
            Problem::Expired | Problem::ExpiredContext { .. } => Self::Expired,
            Problem::NotValidYet | Problem::NotValidYetContext { .. } => Self::Early,
            // The signature is that of a namesake of an authority that is trusted.
            Problem::UnknownIssuer | Problem::BadSignature => Self::Authority,
            Problem::NotValidForName | Problem::NotValidForNameContext { .. } => Self::Name,
            _ => Self::Unfit,
        }
    }

    fn of_theirs(self) -> &'static str {
        match self {
            Self::Missing => "it shows no certificate, and one of an authority in ca_file is demanded",
            Self::Expired => "its certificate has expired",
            Self::Early => "its certificate is not valid yet",
            Self::Authority => "its certificate is of no authority in ca_file",
            Self::Name => {
                "its certificate is for another name than server_name, or the host that was dialled"
            }
            Self::Unfit => "its certificate is not fit for this",
        }
    }

    fn of_ours(self) -> &'static str {
        match self {
            Self::Missing => "it demands a certificate of this end: give cert_file and key_file",
            Self::Expired => "it refuses the certificate in cert_file, which has expired or is not valid yet",
            Self::Authority => {
                "it refuses the certificate in cert_file, which is of no authority that it trusts"
            }
            Self::Early | Self::Name | Self::Unfit => "it refuses the certificate in cert_file",
        }
    }
}
