//! What the client library's errors, and the server's complaints, mean.

use async_nats::{ConnectError, ConnectErrorKind, ServerError};
use slipring_core::{Effect, Error};

/// What is unavailable.
const NATS: &str = "NATS";

pub(crate) fn unavailable(cause: impl Into<String>, effect: Effect) -> Error {
    Error::unavailable(NATS, cause, effect)
}

/// A call on a closed handle.
pub(crate) fn closed() -> Error {
    unavailable("this handle is closed", Effect::None)
}

/// Why a server could not be connected to. Nothing was sent by then.
pub(crate) fn connect(server: &str, with_tls: bool, error: &ConnectError) -> Error {
    let mut cause = format!("{server}: {error}");
    if !with_tls && cause.contains("peer certificate") {
        cause.push_str("; it speaks TLS: configure it (tls=true)");
    }
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation => Error::unauthorized(NATS, cause),
        // It signs what the server sends before anything else.
        ConnectErrorKind::Authentication => {
            Error::invalid("NATS nkey", "..", "it cannot sign; allowed: the seed of a user's key pair (SU..)")
        }
        _ => unavailable(cause, Effect::None),
    }
}

/// A server's `-ERR`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Complaint {
    /// A subscription that is not permitted.
    Subscription { pattern: String, queue: Option<String>, error: Error },
    /// A message to a subject that is not permitted.
    Publish { subject: String, error: Error },
    /// Anything else; often the reason why the server is about to close the connection.
    Other(String),
}

/// Reads a server's `-ERR`.
pub(crate) fn complaint(error: &ServerError) -> Complaint {
    let text = match error {
        ServerError::AuthorizationViolation => "Authorization Violation",
        ServerError::SlowConsumer(_) => "Slow Consumer",
        ServerError::Other(text) => text,
    };
    let refused = |rest: &str| {
        let (subject, rest) = rest.strip_prefix('"')?.split_once('"')?;
        let queue = rest.strip_prefix(" using queue \"").and_then(|queue| queue.strip_suffix('"'));
        Some((subject.to_owned(), queue.map(str::to_owned)))
    };
    let error = || Error::unauthorized(NATS, text);
    let (subscription, publish) =
        ("Permissions Violation for Subscription to ", "Permissions Violation for Publish to ");
    if let Some((pattern, queue)) = text.strip_prefix(subscription).and_then(refused) {
        Complaint::Subscription { pattern, queue, error: error() }
    } else if let Some((subject, _)) = text.strip_prefix(publish).and_then(refused) {
        Complaint::Publish { subject, error: error() }
    } else {
        Complaint::Other(text.to_owned())
    }
}
