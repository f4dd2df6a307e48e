use std::sync::Arc;

use bytes::Bytes;
use slipring_core::service::EndpointStats;
use slipring_core::{Effect, Error, Result};

use crate::plane::Plane;
use crate::plane::link::{Outflow, Taker};
use crate::plane::local::LocalCall;
use crate::plane::server::{BrokerAnswers, Job};

/// Where the answers to one request go, on the plane that it came on.
pub(crate) enum Answers {
    /// Over the broker.
    Broker(BrokerAnswers),
    /// Over a connection.
    Link(LinkAnswers),
    /// To a caller in this process.
    Local(Arc<LocalCall>),
}

/// Where the answers to one request go over a connection.
pub(crate) struct LinkAnswers {
    outflow: Outflow,
    stats: Arc<EndpointStats>,
    /// The request itself, if it came over the broker.
    job: Option<BrokerAnswers>,
}

impl LinkAnswers {
    pub(crate) fn new(outflow: Outflow, stats: Arc<EndpointStats>, job: Option<BrokerAnswers>) -> Self {
        Self { outflow, stats, job }
    }

    fn items(&self, items: &[Bytes], last: bool) -> Result<()> {
        // The handler ran.
        self.outflow.items(items, last, self.load()).map_err(|error| error.raise(Effect::Applied))
    }

    /// How many requests are in flight beside this one.
    fn load(&self) -> u64 {
        self.stats.in_flight().saturating_sub(1)
    }
}

impl Answers {
    /// The plane that they go on.
    pub(super) fn plane(&self) -> Plane {
        match self {
            Self::Broker(_) => Plane::Broker,
            Self::Link(answers) if answers.job.is_some() => Plane::NatsTcp,
            Self::Link(_) => Plane::Tcp,
            Self::Local(_) => Plane::Local,
        }
    }

    /// Sends the one item of a unary answer.
    #[expect(clippy::manual_async_fn, reason = "an async fn keeps room for its arguments twice")]
    pub(super) fn only(&mut self, item: Bytes) -> impl Future<Output = Result<()>> + Send {
        async move {
            match self {
                Self::Broker(answers) => answers.only(item).await,
                Self::Link(answers) => answers.items(&[item], true),
                Self::Local(call) => {
                    call.items(std::iter::once(item), true);
                    Ok(())
                }
            }
        }
    }

    /// Sends the next items of a stream, at least one; `last` if nothing follows.
    pub(super) async fn items(&mut self, items: Vec<Bytes>, last: bool) -> Result<()> {
        match self {
            Self::Broker(answers) => answers.items(&items, last).await,
            Self::Link(answers) => answers.items(&items, last),
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
            Self::Link(answers) => answers.outflow.end(answers.load()),
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
            Self::Link(answers) => answers.outflow.fail(error, answers.load()),
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
            Self::Link(answers) => return answers.outflow.room().await,
            Self::Local(call) => call.room().await,
        }
        Ok(())
    }

    /// Has the caller room for so many items more?
    pub(super) fn has_room_for(&self, items: u64) -> bool {
        match self {
            Self::Broker(answers) => answers.has_room_for(items),
            // A batch is far smaller than what a connection takes at once.
            Self::Link(answers) => answers.outflow.has_room(),
            Self::Local(call) => call.has_room_for(items),
        }
    }

    /// What a caller asks after over the broker: also after what is answered over a connection, until that has
    /// reached it. What brought other requests says by itself what becomes of them.
    pub(super) fn job(&self) -> Option<Arc<Job>> {
        match self {
            Self::Broker(answers) => Some(answers.job().clone()),
            Self::Link(answers) => answers.job.as_ref().map(|request| request.job().clone()),
            Self::Local(_) => None,
        }
    }

    pub(super) fn asker(&self) -> Asker {
        match self {
            Self::Broker(answers) => Asker::Broker(answers.job().clone()),
            Self::Link(answers) => Asker::Link(answers.outflow.taker()),
            Self::Local(call) => Asker::Local(call.clone()),
        }
    }
}

/// Who asked: to find out whether anybody still waits.
pub(crate) enum Asker {
    Broker(Arc<Job>),
    Link(Taker),
    Local(Arc<LocalCall>),
}

impl Asker {
    /// Is it certain that nobody waits any more?
    pub(super) fn is_gone(&self) -> bool {
        match self {
            Self::Broker(job) => job.is_cancelled(),
            Self::Link(taker) => taker.is_gone(),
            Self::Local(call) => call.is_given_up(),
        }
    }

    /// Resolves when nobody waits any more, and says what was given up.
    pub(super) async fn gone(&self, name: &str, silence_max: std::time::Duration) -> String {
        match self {
            Self::Broker(job) => return job.gone(name, silence_max).await,
            Self::Link(taker) => taker.gone().await,
            Self::Local(call) => call.given_up().await,
        }
        name.to_owned()
    }
}
