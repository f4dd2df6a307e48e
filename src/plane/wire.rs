//! What travels on the broker plane: the payload is the bare codec bytes, all control is in headers.
//!
//! A request without [`CALL`] is a plain one, from any client of the broker.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use slipring_core::{Effect, Error, Headers, LeaseId, Message, Result, Revision};

/// The call's number, unique at its inbox. On every message of a call, in both directions.
pub(crate) const CALL: &str = "Slipring-Call";
/// On a request: what is left of its deadline, in milliseconds.
pub(crate) const DEADLINE: &str = "Slipring-Deadline";
/// From the caller: how many items it takes in all, counted from the first. Cumulative, so that a lost
/// message does no harm.
pub(crate) const CREDIT: &str = "Slipring-Credit";
/// From the caller, in place of a request: `probe` or `cancel`.
pub(crate) const CONTROL: &str = "Slipring-Control";
/// On a request: the beginning of the names of the user's metadata.
pub(crate) const METADATA: &str = "Slipring-Meta-";
/// On an answer: the item's number, from 1.
pub(crate) const ITEM: &str = "Slipring-Item";
/// On an answer: nothing follows; the number of items in all. May stand on the last item itself.
pub(crate) const END: &str = "Slipring-End";
/// On an answer: nothing follows but this error, whose particulars are the payload.
pub(crate) const ERROR: &str = "Slipring-Error";
/// On the answer to a probe: `yes`, or `no` if no such call is known.
pub(crate) const ALIVE: &str = "Slipring-Alive";
/// On an answer: how many requests the endpoint has in flight.
pub(crate) const LOAD: &str = "Slipring-Load";
/// W3C trace context.
pub(crate) const TRACEPARENT: &str = "traceparent";
/// W3C trace context.
pub(crate) const TRACESTATE: &str = "tracestate";

/// What a caller says about a call that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    /// Is it alive? Also carries the credit.
    Probe,
    /// It is given up.
    Cancel,
}

impl Control {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Cancel => "cancel",
        }
    }

    /// The control of a message, if it is one. An unknown one is of a later version and counts as a probe,
    /// which does nothing but answer.
    pub(crate) fn of(headers: &Headers) -> Option<Self> {
        headers
            .first(CONTROL)
            .map(|name| if name == Self::Cancel.name() { Self::Cancel } else { Self::Probe })
    }
}

/// What a worker says about a call.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The item of this number; `last` if nothing follows.
    Item { number: u64, last: bool },
    /// All items were sent; so many.
    End(u64),
    /// Nothing follows but this.
    Failed(Error),
    /// The answer to a probe: is the call known?
    Alive(bool),
}

impl Answer {
    /// Reads an answer.
    ///
    /// # Errors
    /// `Invalid` if it is none.
    pub(crate) fn of(message: &Message) -> Result<Self> {
        let headers = &message.headers;
        if headers.first(ERROR).is_some() {
            return Ok(Self::Failed(Failure::decode(&message.payload)?));
        }
        if let Some(number) = number(headers, ITEM)? {
            return Ok(Self::Item { number, last: headers.first(END).is_some() });
        }
        if let Some(count) = number(headers, END)? {
            return Ok(Self::End(count));
        }
        match headers.first(ALIVE) {
            Some(alive) => Ok(Self::Alive(alive == "yes")),
            None => Err(Error::invalid(
                "answer",
                message.subject.as_str(),
                "it has no header that says what it is",
            )),
        }
    }
}

/// A header that holds a number, if it is there.
///
/// # Errors
/// `Invalid` if it holds something else.
pub(crate) fn number(headers: &Headers, name: &'static str) -> Result<Option<u64>> {
    let Some(text) = headers.first(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| Error::invalid(name, text, "allowed: a decimal number below 2^64"))
}

/// Headers of our own that hold numbers, with room for two more.
pub(crate) fn headers<const N: usize>(numbers: [(&'static str, u64); N]) -> Headers {
    let mut headers = Headers::with_capacity(N + 2);
    for (name, number) in numbers {
        headers.append_number(name, number).expect("our own names are legal");
    }
    headers
}

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
        let message = Message::new("inbox".parse().unwrap(), "");
        assert!(Answer::of(&message).is_err());
    }
}
