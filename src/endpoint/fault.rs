use std::any::Any;
use std::error::Error as StdError;
use std::fmt;

use slipring_core::Error;

/// What a handler answers when it cannot do what was asked.
///
/// Any error becomes a fault with `?`; its code is `error`, or the [`Error::code`] of a slipring error. Like
/// every type with that convenience it is itself no [`std::error::Error`]: the caller gets
/// [`Error::Fault`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(Error);

impl Fault {
    /// A fault with a code for programs and a message for people. Its effect is applied: the handler ran.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self(Error::fault(code, message))
    }

    /// Refuses the request before anything was done, with this very error: `Error::overloaded(..)` or
    /// `Error::draining(..)` send the caller elsewhere.
    pub fn refuse(error: Error) -> Self {
        Self(error)
    }

    pub(crate) fn into_error(self) -> Error {
        self.0
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Fault {
    fn from(error: E) -> Self {
        let code = (&error as &dyn Any).downcast_ref::<Error>().map_or("error", Error::code);
        Self::new(code, error.to_string())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
