//! Watches: all of a handle on one stream, each with a bounded queue of its own.

mod queue;
mod stream;
mod watchers;

use std::fmt;
use std::sync::{Arc, Mutex};

use etcd_client::GetOptions;
use futures_util::{StreamExt, stream as streams};
use slipring_core::{Base, Effect, Environment, Error, Range, Result, Revision, Start, Watch};
use tokio::time::timeout;

use self::queue::Queue;
use self::stream::{Reader, WatchStream};
use crate::Config;
use crate::connection::{Connection, no_answer};
use crate::error::{ETCD, error_of};
use crate::history::History;
use crate::kv::{self, Keys};

/// Opens watches.
pub(crate) struct Watches {
    config: Arc<Config>,
    environment: Arc<dyn Environment>,
    connection: Arc<Connection>,
    keys: Keys,
    history: Arc<Mutex<History>>,
    /// Where new watches are made; old ones may go on elsewhere.
    current: tokio::sync::Mutex<Option<Arc<WatchStream>>>,
}

impl Watches {
    pub(crate) fn new(
        config: Arc<Config>,
        environment: Arc<dyn Environment>,
        connection: Arc<Connection>,
        keys: Keys,
    ) -> Self {
        let (history, current) = (Arc::default(), tokio::sync::Mutex::default());
        Self { config, environment, connection, keys, history, current }
    }

    pub(crate) async fn watch(&self, range: Range, start: Start) -> Result<Watch> {
        match start {
            Start::After(after) => {
                let reader = self.follow(&range, after).await?;
                self.check_history(&range, after).await?;
                Ok(watch_of(Base::Resumed(after), reader))
            }
            Start::Snapshot => {
                let snapshot = kv::read(&self.connection, &self.keys, &range).await?;
                let reader = self.follow(&range, snapshot.revision).await.map_err(|error| match error {
                    Error::Compacted { .. } => {
                        let cause = "the server of the watches is behind the one that was read from";
                        Error::unavailable(ETCD, cause, Effect::None)
                    }
                    other => other,
                })?;
                Ok(watch_of(Base::Snapshot(snapshot), reader))
            }
        }
    }

    /// A watch of what follows a revision, made within `call_timeout`.
    async fn follow(&self, range: &Range, after: Revision) -> Result<Reader> {
        match self.try_follow(range, after).await {
            // A stream keeps the token that it was opened with, and tokens expire.
            Err(error @ Error::Unauthorized { .. }) if self.config.user.is_some() => {
                // A call of the same permission says which it is, and takes a fresh token if it has to.
                self.ask_at(range, None).await?.map_err(|_| error)?;
                *self.current.lock().await = None;
                self.try_follow(range, after).await
            }
            made_or_refused => made_or_refused,
        }
    }

    async fn try_follow(&self, range: &Range, after: Revision) -> Result<Reader> {
        let mut used = None;
        let make = async {
            let stream = used.insert(self.stream().await?);
            let queue = Queue::new(self.config.watch_buffer_batches_max, self.config.watch_buffer_bytes_max);
            stream.watch(self.keys.bounds(range), after, queue).await
        };
        let bound = self.config.call_timeout;
        let Ok(made) = timeout(bound, make).await else {
            if let Some(stream) = used {
                self.give_up(&stream);
            }
            return Err(Error::unavailable(ETCD, no_answer(bound), Effect::None));
        };
        made
    }

    /// A watch that starts at the very revision that is compacted is accepted, but the versions in use may
    /// have lost a deletion there. So the history must be readable at the revision before, which is asked
    /// when the watch is made and cannot be overtaken any more.
    async fn check_history(&self, range: &Range, after: Revision) -> Result<()> {
        // Before the first revision there is nothing to lose.
        let Ok(after) = i64::try_from(after.0) else { return Ok(()) };
        if after == 0 {
            return Ok(());
        }
        let answer = self.ask_at(range, Some(after)).await?;
        answer.map_err(|error| error_of(&error, Effect::None))
    }

    /// Asks for as little as possible of a range.
    async fn ask_at(&self, range: &Range, at: Option<i64>) -> Result<Result<(), etcd_client::Error>> {
        let (from, end) = self.keys.bounds(range);
        let mut options = GetOptions::new().with_limit(1).with_keys_only();
        if let Some(end) = end {
            options = options.with_range(end);
        }
        if let Some(at) = at {
            options = options.with_revision(at);
        }
        let request = |client: etcd_client::Client| async move {
            client.kv_client().get(from, Some(options)).await.map(|_| ())
        };
        self.connection.call(Effect::None, request).await
    }

    async fn stream(&self) -> Result<Arc<WatchStream>> {
        let mut current = self.current.lock().await;
        if let Some(stream) = &*current
            && !stream.is_over()
        {
            return Ok(stream.clone());
        }
        let pulse = self.config.watch_silence_max / 3;
        let (connection, keys, history) = (self.connection.clone(), self.keys.clone(), self.history.clone());
        let stream = WatchStream::open(connection, &*self.environment, keys, history, pulse).await?;
        Ok(current.insert(stream).clone())
    }

    /// New watches are made on another stream, to another server.
    fn give_up(&self, stream: &Arc<WatchStream>) {
        if let Ok(mut current) = self.current.try_lock()
            && current.as_ref().is_some_and(|current| Arc::ptr_eq(current, stream))
        {
            *current = None;
        }
        self.connection.give_up(&stream.link);
    }
}

fn watch_of(base: Base, reader: Reader) -> Watch {
    let events = streams::unfold(reader, |reader| async {
        let item = reader.next().await?;
        Some((item, reader))
    });
    Watch { base, events: events.boxed() }
}

impl fmt::Debug for Watches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watches").field("history", &self.history).finish_non_exhaustive()
    }
}
