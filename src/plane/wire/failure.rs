//! Errors as they travel.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use slipring_core::{Effect, Error, LeaseId, Result, Revision};

/// An error as it travels: flat, so that any version can read the parts that it knows.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Failure {
    code: String,
    effect: String,
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    numbers: Option<[u64; 2]>,
}

/// Writes an error as a payload.
pub(crate) fn encode_failure(error: &Error) -> Vec<u8> {
    serde_json::to_vec(&Failure::from(error)).expect("strings and numbers are always JSON")
}

/// Reads an error from a payload.
///
/// # Errors
/// `Invalid` if it is none.
pub(crate) fn decode_failure(payload: &[u8]) -> Result<Error> {
    Failure::decode(payload)
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let effect = match error.effect() {
            Effect::None => "none",
            Effect::Unknown => "unknown",
            Effect::Applied => "applied",
        };
        let mut failure =
            Self { code: error.code().to_owned(), effect: effect.to_owned(), ..Self::default() };
        let (message, subject, numbers) = match error {
            Error::Invalid { what, input, problem, .. } => (problem.clone(), format!("{what} {input}"), None),
            Error::NotFound { what, .. }
            | Error::AlreadyExists { what, .. }
            | Error::Draining { what, .. }
            | Error::Overloaded { what, .. }
            | Error::Cancelled { what, .. } => (String::new(), what.clone(), None),
            Error::NoInstances { endpoint, cause, .. } => (cause.clone(), endpoint.clone(), None),
            Error::NoResponders { subject, .. } => (String::new(), subject.clone(), None),
            Error::DeadlineExceeded { what, after, .. } => {
                (String::new(), what.clone(), Some([u64::try_from(after.as_millis()).unwrap_or(u64::MAX), 0]))
            }
            Error::PayloadTooLarge { limit, actual, .. } => {
                (String::new(), String::new(), Some([*limit as u64, *actual as u64]))
            }
            Error::StreamInterrupted { items_delivered, cause, .. } => {
                (cause.clone(), String::new(), Some([*items_delivered, 0]))
            }
            Error::LeaseLost { lease, .. } => (String::new(), String::new(), Some([lease.0, 0])),
            Error::Compacted { oldest, .. } => (String::new(), String::new(), Some([oldest.0, 0])),
            Error::Lagged { missed, .. } => (String::new(), String::new(), Some([*missed, 0])),
            Error::Unavailable { what, cause, .. } | Error::Unauthorized { what, cause, .. } => {
                (cause.clone(), what.clone(), None)
            }
            Error::Unsupported { what, hint, .. } => (hint.clone(), what.clone(), None),
            Error::Fault { fault, message, .. } => (message.clone(), fault.clone(), None),
            // A later kind of error: its words survive, its code tells old readers apart.
            other => (other.to_string(), String::new(), None),
        };
        failure.message = message;
        failure.subject = subject;
        failure.numbers = numbers;
        failure
    }
}

impl Failure {
    fn decode(payload: &[u8]) -> Result<Error> {
        let failure: Self = serde_json::from_slice(payload).map_err(|error| {
            Error::invalid("error answer", String::from_utf8_lossy(payload), error.to_string())
        })?;
        let effect = match failure.effect.as_str() {
            "none" => Effect::None,
            "applied" => Effect::Applied,
            _ => Effect::Unknown,
        };
        Ok(failure.into_error().raise(effect))
    }

    /// The error with the least effect of its kind; the sender's effect is raised afterwards.
    fn into_error(self) -> Error {
        let Self { code, message, subject, .. } = self;
        let [first, second] = self.numbers.unwrap_or_default();
        match code.as_str() {
            "invalid" => Error::invalid("request", subject, message),
            "not_found" => Error::not_found(subject, Vec::new()),
            "already_exists" => Error::already_exists(subject),
            "no_instances" => Error::no_instances(subject, message, Vec::new()),
            "no_responders" => Error::no_responders(subject),
            "draining" => Error::draining(subject),
            "overloaded" => Error::overloaded(subject),
            "deadline_exceeded" => {
                Error::deadline_exceeded(subject, Duration::from_millis(first), Effect::None)
            }
            "cancelled" => Error::cancelled(subject, Effect::None),
            "payload_too_large" => Error::payload_too_large(first as usize, second as usize),
            "stream_interrupted" => Error::stream_interrupted(first, message),
            "lease_lost" => Error::lease_lost(LeaseId(first)),
            "compacted" => Error::compacted(Revision(first)),
            "lagged" => Error::lagged(first),
            "unavailable" => Error::unavailable(subject, message, Effect::None),
            "unauthorized" => Error::unauthorized(subject, message),
            "unsupported" => Error::unsupported(subject, message),
            "fault" => Error::fault(subject, message),
            // Of a later version: nothing is known but the words.
            code => Error::fault(code, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every error arrives as the same kind with the same effect and particulars (D26: errors are never told
    /// apart by their text).
    #[test]
    fn d26_errors_keep_their_kind_effect_and_particulars() {
        let second = Duration::from_secs(1);
        for error in [
            Error::draining("a"),
            Error::draining("a").raise(Effect::Unknown),
            Error::overloaded("a"),
            Error::payload_too_large(10, 11).raise(Effect::Applied),
            Error::lease_lost(LeaseId(77)),
            Error::deadline_exceeded("a", second, Effect::Unknown),
            Error::cancelled("a", Effect::Unknown),
            Error::fault("bad-prompt", "too \"long\"\n"),
            Error::unavailable("a", "b", Effect::None),
            Error::unsupported("a", "b"),
            Error::no_instances("a/b/c", "gone", Vec::new()),
            Error::stream_interrupted(3, "cut"),
        ] {
            assert_eq!(Failure::decode(&encode_failure(&error)).unwrap(), error);
        }
    }

    /// An error of a later version, and bytes that are none, are readable or refused, never a panic.
    #[test]
    fn u649_strange_errors_do_no_harm() {
        let later = br#"{"code":"shiny","effect":"applied","message":"words","more":1}"#;
        let error = Failure::decode(later).unwrap();
        assert_eq!((error.code(), error.effect()), ("fault", Effect::Applied));
        assert!(Failure::decode(b"\xff{").is_err());
    }
}
