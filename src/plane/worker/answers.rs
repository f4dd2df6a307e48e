use std::sync::Arc;

use bytes::Bytes;
use slipring_core::{Error, Result};

use crate::plane::local::LocalCall;
use crate::plane::server::{BrokerAnswers, Job};

/// Where the answers to one request go, on the plane that it came on.
pub(crate) enum Answers {
    /// Over the broker.
    Broker(BrokerAnswers),
    /// To a caller in this process.
    Local(Arc<LocalCall>),
}

impl Answers {
    /// Sends the one item of a unary answer.
    pub(super) async fn only(&mut self, item: Bytes) -> Result<()> {
        match self {
            Self::Broker(answers) => answers.only(item).await,
            Self::Local(call) => {
                call.items(std::iter::once(item), true);
                Ok(())
            }
        }
    }

    /// Sends the next items of a stream, at least one; `last` if nothing follows.
    pub(super) async fn items(&mut self, items: Vec<Bytes>, last: bool) -> Result<()> {
        match self {
            Self::Broker(answers) => answers.items(&items, last).await,
            Self::Local(call) => {
                call.items(items.into_iter(), last);
                Ok(())
            }
        }
    }

    /// Sends the end of a stream.
    pub(super) async fn end(&self) -> Result<()> {
        match self {
            Self::Broker(answers) => answers.end().await,
            Self::Local(call) => {
                call.end();
                Ok(())
            }
        }
    }

    /// Sends an error, after which nothing follows. If that fails too, the caller finds out by asking.
    pub(super) async fn fail(&self, error: &Error) {
        match self {
            Self::Broker(answers) => answers.fail(error).await,
            Self::Local(call) => call.fail(error),
        }
    }

    /// Waits until the caller has room for an item.
    ///
    /// # Errors
    /// That of a caller that will have none any more.
    pub(super) async fn room(&self) -> Result<()> {
        match self {
            Self::Broker(answers) => answers.room().await,
            Self::Local(call) => call.room().await,
        }
        Ok(())
    }

    /// Has the caller room for so many items more?
    pub(super) fn has_room_for(&self, items: u64) -> bool {
        match self {
            Self::Broker(answers) => answers.has_room_for(items),
            Self::Local(call) => call.has_room_for(items),
        }
    }

    pub(super) fn asker(&self) -> Asker {
        match self {
            Self::Broker(answers) => Asker::Broker(answers.job().clone()),
            Self::Local(call) => Asker::Local(call.clone()),
        }
    }
}

/// Who asked: to find out whether anybody still waits.
pub(crate) enum Asker {
    Broker(Arc<Job>),
    Local(Arc<LocalCall>),
}

impl Asker {
    /// The request gets a task of its own: from now on its caller may ask after it.
    pub(super) fn list(&self) {
        match self {
            Self::Broker(job) => job.list(),
            Self::Local(_) => {}
        }
    }

    /// Is it certain that nobody waits any more?
    pub(super) fn is_gone(&self) -> bool {
        match self {
            Self::Broker(job) => job.is_cancelled(),
            Self::Local(call) => call.is_given_up(),
        }
    }

    /// Resolves when nobody waits any more, and says what was given up.
    pub(super) async fn gone(&self, name: &str, silence_max: std::time::Duration) -> String {
        match self {
            Self::Broker(job) => return job.gone(name, silence_max).await,
            Self::Local(call) => call.given_up().await,
        }
        name.to_owned()
    }
}
