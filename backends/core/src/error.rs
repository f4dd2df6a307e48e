use std::time::Duration;

use crate::{LeaseId, Revision};

/// The result of everything in slipring that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// May the request behind an error have been executed?
///
/// Ordered: an error is only ever raised to a greater effect, never lowered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// It was not executed, and never will be.
    None,
    /// Nobody can tell; it may even be executed later.
    Unknown,
    /// It was executed, at least in part.
    Applied,
}

/// What a caller may do after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// Trying again gives the same answer, or would execute the request twice.
    Never,
    /// Safe at once (elsewhere, or after a short wait): nothing was executed.
    Now,
    /// Safe only if executing the request twice does no harm.
    IfIdempotent,
    /// What was seen is out of date: read a fresh snapshot first.
    Resync,
}

/// The one error of slipring and its backends.
///
/// Every variant carries its [`Effect`], set where the error arises and only raised afterwards
/// ([`Error::raise`]). The constructors (`Error::unavailable(..)`) set the effect that the kind normally has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument, a name, a record or a configuration value is not acceptable.
    #[error("invalid {what} {}{}: {problem}", shown(.input), at(.position))]
    Invalid {
        /// What kind of thing was given, such as `namespace`.
        what: &'static str,
        /// What was given.
        input: String,
        /// The byte at which it goes wrong, where there is such a place.
        position: Option<usize>,
        /// What is wrong, and what is allowed.
        problem: String,
        /// May it have been executed?
        effect: Effect,
    },
    /// The thing asked for does not exist.
    #[error("{what} not found{}", hint(.near))]
    NotFound {
        /// What was looked for.
        what: String,
        /// Names that exist and look similar.
        near: Vec<String>,
        /// May it have been executed?
        effect: Effect,
    },
    /// The thing exists already.
    #[error("{what} already exists")]
    AlreadyExists {
        /// What was to be made.
        what: String,
        /// May it have been executed?
        effect: Effect,
    },
    /// An endpoint had no instance to send to until the call's deadline.
    #[error("no instances of {endpoint}: {cause}{}", hint(.near))]
    NoInstances {
        /// The endpoint, as `namespace/component/endpoint`.
        endpoint: String,
        /// Why: never seen, all gone, the watch is stale, none matches the labels.
        cause: String,
        /// Names that are registered and look similar.
        near: Vec<String>,
        /// May it have been executed?
        effect: Effect,
    },
    /// Nobody is subscribed to the subject.
    #[error("no responders on {subject:?}")]
    NoResponders {
        /// The subject asked.
        subject: String,
        /// May it have been executed?
        effect: Effect,
    },
    /// The other side is stopping and takes no new requests.
    #[error("{what} is draining and takes no new requests")]
    Draining {
        /// Who refuses.
        what: String,
        /// May it have been executed?
        effect: Effect,
    },
    /// The other side has all the work it accepts.
    #[error("{what} is overloaded")]
    Overloaded {
        /// Who refuses, with its limits.
        what: String,
        /// May it have been executed?
        effect: Effect,
    },
    /// The deadline passed first.
    #[error("{what} did not finish within {after:?}")]
    DeadlineExceeded {
        /// What was waited for.
        what: String,
        /// How long it was given.
        after: Duration,
        /// May it have been executed?
        effect: Effect,
    },
    /// The caller gave up, or its task was stopped.
    #[error("{what} was cancelled")]
    Cancelled {
        /// What was given up.
        what: String,
        /// May it have been executed?
        effect: Effect,
    },
    /// A payload (with its headers) is over the limit. Never sent.
    #[error("payload of {actual} bytes is over the limit of {limit} bytes")]
    PayloadTooLarge {
        /// The limit, in bytes.
        limit: usize,
        /// The size, in bytes.
        actual: usize,
        /// May it have been executed?
        effect: Effect,
    },
    /// A response stream ended before its end was announced.
    #[error("stream interrupted after {items_delivered} items: {cause}")]
    StreamInterrupted {
        /// Items that the caller was given, without a hole.
        items_delivered: u64,
        /// What happened.
        cause: String,
        /// May it have been executed?
        effect: Effect,
    },
    /// The lease is gone: expired, revoked, or never granted.
    #[error("lease {lease} is lost")]
    LeaseLost {
        /// The lease.
        lease: LeaseId,
        /// May it have been executed?
        effect: Effect,
    },
    /// The history asked for is no longer (or not yet) there: take a fresh snapshot.
    #[error("history is compacted: the oldest revision that can be resumed from is {oldest}")]
    Compacted {
        /// The oldest revision that `Start::After` accepts now.
        oldest: Revision,
        /// May it have been executed?
        effect: Effect,
    },
    /// A bounded buffer overflowed; the number of messages lost is exact.
    #[error("{missed} messages were lost to a full buffer")]
    Lagged {
        /// How many were lost.
        missed: u64,
        /// May it have been executed?
        effect: Effect,
    },
    /// The backend or a peer cannot be reached.
    #[error("{what} is unavailable: {cause}")]
    Unavailable {
        /// Who cannot be reached.
        what: String,
        /// Why.
        cause: String,
        /// May it have been executed?
        effect: Effect,
    },
    /// Credentials are missing or wrong, or do not permit this.
    #[error("{what} refused the credentials: {cause}")]
    Unauthorized {
        /// Who refuses.
        what: String,
        /// Why.
        cause: String,
        /// May it have been executed?
        effect: Effect,
    },
    /// The backend cannot do this.
    #[error("{what} is not supported: {hint}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// What to do about it.
        hint: String,
        /// May it have been executed?
        effect: Effect,
    },
    /// The handler at the far end answered with a fault of its own.
    #[error("handler fault {fault:?}: {message}")]
    Fault {
        /// The handler's own code; `panic` if it panicked.
        fault: String,
        /// The handler's own words.
        message: String,
        /// May it have been executed?
        effect: Effect,
    },
}

/// Where an error keeps its effect, by reference or by mutable reference. Every kind has one, so there is no
/// wildcard.
macro_rules! effect_of {
    ($error:expr) => {
        match $error {
            Self::Invalid { effect, .. }
            | Self::NotFound { effect, .. }
            | Self::AlreadyExists { effect, .. }
            | Self::NoInstances { effect, .. }
            | Self::NoResponders { effect, .. }
            | Self::Draining { effect, .. }
            | Self::Overloaded { effect, .. }
            | Self::DeadlineExceeded { effect, .. }
            | Self::Cancelled { effect, .. }
            | Self::PayloadTooLarge { effect, .. }
            | Self::StreamInterrupted { effect, .. }
            | Self::LeaseLost { effect, .. }
            | Self::Compacted { effect, .. }
            | Self::Lagged { effect, .. }
            | Self::Unavailable { effect, .. }
            | Self::Unauthorized { effect, .. }
            | Self::Unsupported { effect, .. }
            | Self::Fault { effect, .. } => effect,
        }
    };
}

impl Error {
    /// Input that cannot be accepted. Effect none.
    pub fn invalid(what: &'static str, input: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid {
            what,
            input: input.into(),
            position: None,
            problem: problem.into(),
            effect: Effect::None,
        }
    }

    /// A thing that does not exist. Effect none.
    pub fn not_found(what: impl Into<String>, near: Vec<String>) -> Self {
        Self::NotFound { what: what.into(), near, effect: Effect::None }
    }

    /// A thing that exists already. Effect none.
    pub fn already_exists(what: impl Into<String>) -> Self {
        Self::AlreadyExists { what: what.into(), effect: Effect::None }
    }

    /// No instance to send to. Effect none.
    pub fn no_instances(endpoint: impl Into<String>, cause: impl Into<String>, near: Vec<String>) -> Self {
        Self::NoInstances { endpoint: endpoint.into(), cause: cause.into(), near, effect: Effect::None }
    }

    /// Nobody is subscribed. Effect none.
    pub fn no_responders(subject: impl Into<String>) -> Self {
        Self::NoResponders { subject: subject.into(), effect: Effect::None }
    }

    /// Refused because of a stop. Effect none.
    pub fn draining(what: impl Into<String>) -> Self {
        Self::Draining { what: what.into(), effect: Effect::None }
    }

    /// Refused because of load. Effect none.
    pub fn overloaded(what: impl Into<String>) -> Self {
        Self::Overloaded { what: what.into(), effect: Effect::None }
    }

    /// The deadline passed. The effect depends on what was sent by then.
    pub fn deadline_exceeded(what: impl Into<String>, after: Duration, effect: Effect) -> Self {
        Self::DeadlineExceeded { what: what.into(), after, effect }
    }

    /// Given up. The effect depends on what was sent by then.
    pub fn cancelled(what: impl Into<String>, effect: Effect) -> Self {
        Self::Cancelled { what: what.into(), effect }
    }

    /// A payload over the limit. Effect none.
    pub fn payload_too_large(limit: usize, actual: usize) -> Self {
        Self::PayloadTooLarge { limit, actual, effect: Effect::None }
    }

    /// A stream that was cut. Effect unknown, or applied once an item was delivered.
    pub fn stream_interrupted(items_delivered: u64, cause: impl Into<String>) -> Self {
        let effect = if items_delivered > 0 { Effect::Applied } else { Effect::Unknown };
        Self::StreamInterrupted { items_delivered, cause: cause.into(), effect }
    }

    /// A lease that is gone. Effect none.
    pub fn lease_lost(lease: LeaseId) -> Self {
        Self::LeaseLost { lease, effect: Effect::None }
    }

    /// History that is gone. Effect none.
    pub fn compacted(oldest: Revision) -> Self {
        Self::Compacted { oldest, effect: Effect::None }
    }

    /// Messages lost to a full buffer. Effect none.
    pub fn lagged(missed: u64) -> Self {
        Self::Lagged { missed, effect: Effect::None }
    }

    /// Cannot be reached. Say with `effect` whether anything was sent.
    pub fn unavailable(what: impl Into<String>, cause: impl Into<String>, effect: Effect) -> Self {
        Self::Unavailable { what: what.into(), cause: cause.into(), effect }
    }

    /// Wrong credentials. Effect none.
    pub fn unauthorized(what: impl Into<String>, cause: impl Into<String>) -> Self {
        Self::Unauthorized { what: what.into(), cause: cause.into(), effect: Effect::None }
    }

    /// Not supported here. Effect none.
    pub fn unsupported(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into(), hint: hint.into(), effect: Effect::None }
    }

    /// A handler's own fault. Effect applied: the handler ran.
    pub fn fault(fault: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Fault { fault: fault.into(), message: message.into(), effect: Effect::Applied }
    }

    /// May the request have been executed?
    pub fn effect(&self) -> Effect {
        *effect_of!(self)
    }

    /// The same error with at least this effect: what a layer says that knows more was sent than the layer
    /// below could see. Never lowers.
    #[must_use]
    pub fn raise(mut self, to: Effect) -> Self {
        let effect = effect_of!(&mut self);
        *effect = to.max(*effect);
        self
    }

    /// What a caller may do next; follows from the kind and the effect alone.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Invalid { .. }
            | Self::NotFound { .. }
            | Self::AlreadyExists { .. }
            | Self::Cancelled { .. }
            | Self::PayloadTooLarge { .. }
            | Self::Unauthorized { .. }
            | Self::Unsupported { .. }
            | Self::Fault { .. } => Retry::Never,
            Self::Compacted { .. } | Self::Lagged { .. } => Retry::Resync,
            Self::NoInstances { effect, .. }
            | Self::NoResponders { effect, .. }
            | Self::Draining { effect, .. }
            | Self::Overloaded { effect, .. }
            | Self::DeadlineExceeded { effect, .. }
            | Self::StreamInterrupted { effect, .. }
            | Self::LeaseLost { effect, .. }
            | Self::Unavailable { effect, .. } => match effect {
                Effect::None => Retry::Now,
                Effect::Unknown => Retry::IfIdempotent,
                Effect::Applied => Retry::Never,
            },
        }
    }

    /// A stable name of the kind, for logs, metrics and the wire.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid",
            Self::NotFound { .. } => "not_found",
            Self::AlreadyExists { .. } => "already_exists",
            Self::NoInstances { .. } => "no_instances",
            Self::NoResponders { .. } => "no_responders",
            Self::Draining { .. } => "draining",
            Self::Overloaded { .. } => "overloaded",
            Self::DeadlineExceeded { .. } => "deadline_exceeded",
            Self::Cancelled { .. } => "cancelled",
            Self::PayloadTooLarge { .. } => "payload_too_large",
            Self::StreamInterrupted { .. } => "stream_interrupted",
            Self::LeaseLost { .. } => "lease_lost",
            Self::Compacted { .. } => "compacted",
            Self::Lagged { .. } => "lagged",
            Self::Unavailable { .. } => "unavailable",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Unsupported { .. } => "unsupported",
            Self::Fault { .. } => "fault",
        }
    }
}

/// The input in quotes, cut to a length that fits a log line.
fn shown(input: &str) -> String {
    const CHARS_MAX: usize = 80;
    match input.char_indices().nth(CHARS_MAX) {
        None => format!("{input:?}"),
        Some((end, _)) => format!("{:?}... ({} bytes)", &input[..end], input.len()),
    }
}

fn at(position: &Option<usize>) -> String {
    position.map(|byte| format!(" at byte {byte}")).unwrap_or_default()
}

fn hint(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!(" (did you mean {}?)", near.join(" or ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wrapping can only make an error more alarming.
    #[test]
    fn the_effect_is_only_ever_raised() {
        let error = Error::draining("worker").raise(Effect::Applied).raise(Effect::None);
        assert_eq!(error.effect(), Effect::Applied);
        assert_eq!(error.code(), "draining");
    }

    /// What may be tried again follows from kind and effect.
    #[test]
    fn retry_follows_from_kind_and_effect() {
        assert_eq!(Error::draining("w").retry(), Retry::Now);
        assert_eq!(Error::draining("w").raise(Effect::Unknown).retry(), Retry::IfIdempotent);
        assert_eq!(Error::draining("w").raise(Effect::Applied).retry(), Retry::Never);
        assert_eq!(Error::compacted(Revision(7)).retry(), Retry::Resync);
        assert_eq!(Error::payload_too_large(1, 2).retry(), Retry::Never);
        assert_eq!(Error::fault("f", "m").retry(), Retry::Never);
    }

    /// A stream that delivered something was executed.
    #[test]
    fn an_interrupted_stream_knows_its_effect() {
        assert_eq!(Error::stream_interrupted(0, "cut").effect(), Effect::Unknown);
        assert_eq!(Error::stream_interrupted(3, "cut").effect(), Effect::Applied);
    }

    /// A megabyte of bad input does not become a megabyte of log.
    #[test]
    fn long_input_is_cut_when_shown() {
        let error = Error::invalid("key", "é".repeat(10_000), "too long");
        assert!(error.to_string().len() < 300, "{error}");
    }
}
