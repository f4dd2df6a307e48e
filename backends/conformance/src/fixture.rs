use std::fmt::Debug;
use std::sync::Arc;

use slipring_core::{Discovery, Environment, Error, Messaging, Result, async_trait};

/// A backend under test: where handles come from, and what can be done to the server behind them.
#[async_trait]
pub trait Fixture: Debug + Send + Sync + 'static {
    /// The environment that the backend was built with. Cases draw their names from it.
    fn environment(&self) -> Arc<dyn Environment>;

    /// A fresh handle to the store, as a program of its own would have; all of them reach the same store.
    /// None if this backend has no discovery.
    ///
    /// # Errors
    /// Whatever making a handle ends with; it fails the case.
    async fn discovery(&self) -> Result<Option<Arc<dyn Discovery>>> {
        Ok(None)
    }

    /// A fresh handle to the broker, as a program of its own would have: closing it closes no other. None if
    /// this backend has no messaging.
    ///
    /// # Errors
    /// Whatever making a handle ends with; it fails the case.
    async fn messaging(&self) -> Result<Option<Arc<dyn Messaging>>> {
        Ok(None)
    }

    /// Can [`act`](Self::act) do this? Cases that need an action are skipped without it.
    fn can(&self, action: Action) -> bool {
        let _ = action;
        false
    }

    /// Does something to the server; resolves when it is done, as each [`Action`] says.
    ///
    /// # Errors
    /// Whatever it ends with; `Unsupported` for what it [cannot](Self::can) do.
    async fn act(&self, action: Action) -> Result<()> {
        Err(Error::unsupported(format!("{action:?}"), "the fixture has to implement it"))
    }
}

/// Something that is done to the server. It concerns all handles, and they are told nothing.
///
/// Stop and start belong together, and so do pause and resume: a fixture can do both or neither. When a case
/// ends, however it ends, the server is started and resumed again, so both are no-op where there is nothing
/// to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Forget the history before the store's current revision.
    Compact,
    /// Take the server away without a word, as a crash does: its connections end, and new ones are refused.
    Stop,
    /// Bring the stopped server back, at the same address, with everything that it had acknowledged. Resolves
    /// when it accepts connections; it need not answer yet.
    Start,
    /// Let the server stand still: its connections stay open, new ones may be made, and nothing is answered.
    Pause,
    /// Let the paused server go on.
    Resume,
    /// End every connection to the server once. New ones are accepted at once.
    Cut,
}
