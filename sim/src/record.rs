use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use slipring_core::{
    Base, Batch, BoxFuture, Change, Discovery, Effect, Error, Range, Result, Revision, Start, Watch,
};
use slipring_memory::MemoryDiscovery;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::trace::Log;

/// Writes every change of a store to the log, in the order of the commits.
pub(crate) struct Record {
    log: Log,
    discovery: MemoryDiscovery,
    silence_max: Duration,
    reached: Mutex<Revision>,
    moved: Notify,
}

impl Record {
    /// A record of this store; what keeps it is [`keep`](Self::keep).
    pub(crate) fn new(log: Log, discovery: MemoryDiscovery) -> Self {
        let capabilities = discovery.capabilities().now_or_never();
        let silence_max = capabilities.and_then(Result::ok).expect(ALWAYS).watch_silence_max;
        Self { log, discovery, silence_max, reached: Mutex::default(), moved: Notify::new() }
    }

    /// Begins with the store as it is now, and follows it for ever; also through a restore, of which a watch
    /// need not say anything.
    pub(crate) fn keep(self: Arc<Self>) -> BoxFuture<'static, ()> {
        let mut watch = self.open();
        Box::pin(async move {
            loop {
                if let Err(error) = self.follow(watch).await {
                    self.log.line(STORE, error);
                }
                watch = self.open();
            }
        })
    }

    /// Waits until all is written that was committed.
    pub(crate) async fn settle(&self) {
        let settled = async {
            loop {
                let moved = self.moved.notified();
                let head = self.discovery.read(Range::All).await.expect(ALWAYS).revision;
                if *self.reached.lock().expect(NO_PANIC) == head {
                    return;
                }
                moved.await;
            }
        };
        timeout(2 * self.silence_max, settled).await.expect("a silent watch is opened anew");
    }

    /// Ends well when the watch has been silent for too long.
    async fn follow(&self, mut watch: Watch) -> Result<()> {
        while let Ok(event) = timeout(self.silence_max, watch.events.next()).await {
            let ended = || Error::unavailable("the store", "its watch ended without an error", Effect::None);
            let batch = event.ok_or_else(ended)??;
            if !batch.changes.is_empty() {
                self.log.line(STORE, Shown(&batch));
            }
            self.reach(batch.revision);
        }
        Ok(())
    }

    fn open(&self) -> Watch {
        let watch = self.discovery.watch(Range::All, Start::Snapshot).now_or_never();
        let watch = watch.and_then(Result::ok).expect(ALWAYS);
        if let Base::Snapshot(snapshot) = &watch.base {
            let (revision, keys) = (snapshot.revision, snapshot.entries.len());
            self.log.line(STORE, format_args!("at revision {revision} with {keys} keys"));
            self.reach(revision);
        }
        watch
    }

    fn reach(&self, revision: Revision) {
        *self.reached.lock().expect(NO_PANIC) = revision;
        self.moved.notify_waiters();
    }
}

const STORE: &str = "store";
const ALWAYS: &str = "a store in memory is there, and answers at once";
const NO_PANIC: &str = "no code panics while it holds the lock";

/// A batch as a line: the revision, and each change.
struct Shown<'a>(&'a Batch);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {}:", self.0.revision)?;
        for change in &self.0.changes {
            match change {
                Change::Delete(key) => write!(f, " delete {key}")?,
                Change::Put(entry) => {
                    write!(f, " put {} = {:?}", entry.key, entry.value)?;
                    if let Some(lease) = entry.lease {
                        write!(f, " (lease {lease})")?;
                    }
                }
            }
        }
        Ok(())
    }
}
