//! What etcd's errors mean: which kind, and may the request have been executed?

use std::error::Error as _;

use slipring_core::{Effect, Error};
use tonic::{Code, Status};

/// The name under which the backend appears in errors.
pub(crate) const ETCD: &str = "etcd";

/// What went wrong, as one of our errors. `sent` is the effect of a request whose fate is not known: none
/// for a read, unknown for a write.
pub(crate) fn error_of(error: &etcd_client::Error, sent: Effect) -> Error {
    match error {
        etcd_client::Error::GRpcStatus(status) => error_of_status(status, sent),
        other => Error::unavailable(ETCD, other.to_string(), sent),
    }
}

fn error_of_status(status: &Status, sent: Effect) -> Error {
    // Dialling failed: our own error, of effect none, comes back inside of the client's.
    let mut source = status.source();
    while let Some(error) = source {
        if let Some(own) = error.downcast_ref::<Error>() {
            return own.clone();
        }
        source = error.source();
    }
    let message = status.message();
    let says = |words: &str| message.contains(words);
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => Error::unauthorized(ETCD, message),
        _ if is_about_credentials(message) => Error::unauthorized(ETCD, message),
        // Some of etcd's errors come without their code: the words are what is stable.
        _ if says("required revision has been compacted") => Error::compacted(slipring_core::Revision(0)),
        _ if says("too many requests") => Error::overloaded(ETCD),
        _ if says("request is too large") => {
            Error::unsupported("a request of this size", "raise --max-request-bytes of etcd")
        }
        _ if says("too many operations in txn") => {
            Error::unsupported("a transaction over so many keys", "raise --max-txn-ops of etcd")
        }
        _ if says("database space exceeded") => Error::unavailable(ETCD, message, Effect::None),
        Code::Unimplemented => Error::unsupported(message, "this needs etcd 3.4 or newer"),
        Code::InvalidArgument => Error::invalid("etcd request", "", message),
        _ => Error::unavailable(ETCD, what_happened(status), sent),
    }
}

/// Is this about who we are, or what we may do?
pub(crate) fn is_about_credentials(message: &str) -> bool {
    let about_us = ["authentication", "auth token", "user name is empty"];
    is_forbidden(message) || about_us.iter().any(|words| message.contains(words))
}

/// Does etcd know who we are, and not permit this?
pub(crate) fn is_forbidden(message: &str) -> bool {
    message.contains("permission denied")
}

/// Does etcd not know (any more) the lease that the request named?
pub(crate) fn is_lease_unknown(error: &etcd_client::Error) -> bool {
    match error {
        etcd_client::Error::GRpcStatus(status) => status.message().contains("requested lease not found"),
        etcd_client::Error::LeaseKeepAliveError(message) => message == "lease not found",
        _ => false,
    }
}

/// Does the lease that was to be granted exist?
pub(crate) fn is_lease_taken(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.message().contains("lease already exists"))
}

/// Was the answer larger than what this side accepts?
pub(crate) fn is_answer_too_large(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status)
        if status.code() == Code::OutOfRange && status.message().contains("message length too large"))
}

/// The message and the innermost reason, which the client's own words hide.
fn what_happened(status: &Status) -> String {
    let mut innermost = None;
    let mut source = status.source();
    while let Some(error) = source {
        innermost = Some(error.to_string());
        source = error.source();
    }
    match innermost {
        Some(reason) if reason != status.message() => format!("{}: {reason}", status.message()),
        _ => status.message().to_owned(),
    }
}
