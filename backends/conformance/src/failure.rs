use std::fmt;
use std::panic::Location;

use slipring_core::Error;

/// What a case ends with.
pub type Verdict = Result<(), Failure>;

/// Why a case failed, and where it noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    reason: String,
    location: &'static Location<'static>,
}

impl Failure {
    /// A failure noticed here.
    #[track_caller]
    pub fn new(reason: impl Into<String>) -> Self {
        Self::at(Location::caller(), reason)
    }

    pub(crate) fn at(location: &'static Location<'static>, reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), location }
    }
}

/// An error where the contract promises an answer.
impl From<Error> for Failure {
    #[track_caller]
    fn from(error: Error) -> Self {
        Self::new(format!("expected an answer, got the error {:?}: {error}", error.code()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.location.file();
        // The kit may have been built anywhere; what precedes `src` tells the reader nothing.
        let file = file.rfind("src/").map_or(file, |at| &file[at..]);
        write!(f, "{} ({file}:{})", self.reason, self.location.line())
    }
}

impl std::error::Error for Failure {}

/// Ends the case with a failure unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($reason:tt)+) => {
        if !$condition {
            return Err($crate::Failure::new(format!($($reason)+)));
        }
    };
}
pub(crate) use ensure;

/// Ends the case with a failure that shows both values unless they are equal.
macro_rules! ensure_eq {
    ($actual:expr, $expected:expr, $($what:tt)+) => {
        match (&$actual, &$expected) {
            (actual, expected) => $crate::failure::ensure!(
                actual == expected,
                "{}: expected {expected:?}, got {actual:?}",
                format_args!($($what)+),
            ),
        }
    };
}
pub(crate) use ensure_eq;

#[cfg(test)]
mod tests {
    use super::*;

    fn compare() -> Verdict {
        ensure_eq!(1 + 1, 3, "the sum of {} and {}", 1, 1);
        Ok(())
    }

    fn call() -> Verdict {
        Err(Error::draining("worker"))?;
        Ok(())
    }

    /// A failed comparison says what was compared, both values, and the line.
    #[test]
    fn a_failure_says_what_and_where() {
        let text = compare().unwrap_err().to_string();
        assert!(text.starts_with("the sum of 1 and 1: expected 3, got 2 (src/failure.rs:"), "{text}");
    }

    /// An error that a case hands on is placed where the case handed it on.
    #[test]
    fn an_error_is_placed_where_it_was_met() {
        let text = call().unwrap_err().to_string();
        assert!(text.contains("\"draining\": worker is draining"), "{text}");
        assert!(text.contains("(src/failure.rs:"), "{text}");
    }
}
