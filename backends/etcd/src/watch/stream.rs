use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use etcd_client::{WatchOptions, WatchRequestSender, WatchResponseStream};
use slipring_core::{Batch, Effect, Environment, EnvironmentExt, Error, Result, Revision, Task};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::queue::Queue;
use super::watchers::{Watcher, Watchers};
use crate::connection::{Connection, Link, Unanswered};
use crate::error::{ETCD, error_of};
use crate::history::History;
use crate::kv::{ANSWER_BYTES_MAX, Keys};

/// How many new watches wait to be asked for.
const REQUESTS_MAX: usize = 64;

/// One stream of watches to a server, shared by many. It ends when nobody holds it.
#[derive(Debug)]
pub(super) struct WatchStream {
    /// What it runs on.
    pub(super) link: Arc<Link>,
    requests: mpsc::Sender<Request>,
    next_id: AtomicI64,
    gone: Arc<Gone>,
    task: Task,
}

/// A watch to be made.
#[derive(Debug)]
struct Request {
    id: i64,
    bounds: (Vec<u8>, Option<Vec<u8>>),
    after: Revision,
    queue: Queue,
    made: oneshot::Sender<Result<()>>,
}

/// The watches that are to be cancelled at the server; each stands here once.
#[derive(Debug, Default)]
struct Gone {
    ids: Mutex<Vec<i64>>,
    changed: Notify,
}

impl WatchStream {
    /// Opens a stream, without a watch.
    ///
    /// The server is asked for a sign of life in every `pulse`; after two without any message the stream ends.
    /// Dropped before it is open, it gives the link up: the server may be hung.
    pub(super) async fn open(
        connection: Arc<Connection>,
        environment: &dyn Environment,
        keys: Keys,
        history: Arc<Mutex<History>>,
        pulse: Duration,
    ) -> Result<Arc<Self>> {
        let link = connection.link().await?;
        // A stream opens with a request for a watch: one of an empty range, which is refused.
        let nothing = WatchOptions::new().with_range("a");
        let mut client = link.client.watch_client().max_decoding_message_size(ANSWER_BYTES_MAX);
        let unanswered = Unanswered::new(|| connection.give_up(&link));
        let stream = client.watch("b", Some(nothing)).await;
        unanswered.answered();
        let (requests, answers) = stream.map_err(|error| error_of(&error, Effect::None))?.split();
        let (sender, receiver) = mpsc::channel(REQUESTS_MAX);
        let gone = Arc::new(Gone::default());
        let watchers = Arc::new(Mutex::new(Watchers::new(keys, history)));
        let run = Run { connection, link: link.clone(), watchers, gone: gone.clone(), pulse };
        let task = environment.start("etcd watches", run.run(requests, receiver, answers));
        Ok(Arc::new(Self { link, requests: sender, next_id: AtomicI64::new(1), gone, task }))
    }

    pub(super) fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Makes a watch of what follows `after`; resolves when the server has made it. Dropped before, it leaves
    /// nothing.
    pub(super) async fn watch(
        self: &Arc<Self>,
        bounds: (Vec<u8>, Option<Vec<u8>>),
        after: Revision,
        queue: Queue,
    ) -> Result<Reader> {
        let over = || Error::unavailable(ETCD, "the stream of watches has ended", Effect::None);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let reader = Reader { id, queue: queue.clone(), stream: self.clone() };
        let (made, answer) = oneshot::channel();
        let request = Request { id, bounds, after, queue, made };
        self.requests.send(request).await.map_err(|_| over())?;
        answer.await.map_err(|_| over())??;
        Ok(reader)
    }
}

/// The reading end of a watch. Dropping it cancels the watch.
#[derive(Debug)]
pub(super) struct Reader {
    id: i64,
    queue: Queue,
    stream: Arc<WatchStream>,
}

impl Reader {
    /// The next item; none after the last.
    pub(super) async fn next(&self) -> Option<Result<Batch>> {
        self.queue.next().await
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // In this order: whoever does not see the one sees the other.
        self.queue.close();
        self.stream.gone.add(self.id);
    }
}

impl Gone {
    fn add(&self, id: i64) {
        self.lock().push(id);
        self.changed.notify_one();
    }

    fn take(&self) -> Vec<i64> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<i64>> {
        self.ids.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// What the stream's task holds. However the task ends, every watch is told.
struct Run {
    connection: Arc<Connection>,
    link: Arc<Link>,
    watchers: Arc<Mutex<Watchers>>,
    gone: Arc<Gone>,
    pulse: Duration,
}

impl Run {
    async fn run(
        self,
        requests: WatchRequestSender,
        asked: mpsc::Receiver<Request>,
        answers: WatchResponseStream,
    ) {
        // Apart, so that a server that takes no requests is heard nevertheless.
        let error = tokio::select! {
            biased;
            error = self.receive(answers) => error,
            error = self.send(requests, asked) => error,
        };
        tracing::debug!(%error, "the stream of watches ended");
        self.watchers().end(&error);
        self.connection.give_up(&self.link);
    }

    async fn receive(&self, mut answers: WatchResponseStream) -> Error {
        loop {
            let silence_max = self.pulse * 2;
            let message = match timeout(silence_max, answers.message()).await {
                Ok(Ok(Some(message))) => message.0,
                Ok(Ok(None)) => return Error::unavailable(ETCD, "the server ended the stream", Effect::None),
                Ok(Err(error)) => return error_of(&error, Effect::None),
                Err(_) => {
                    let cause = format!("no sign of life within {silence_max:?}");
                    return Error::unavailable(ETCD, cause, Effect::None);
                }
            };
            let ended = self.watchers().handle(message);
            if let Some(id) = ended {
                self.gone.add(id);
            }
        }
    }

    async fn send(&self, mut requests: WatchRequestSender, mut asked: mpsc::Receiver<Request>) -> Error {
        let mut pulse = Instant::now() + self.pulse;
        loop {
            let sent = tokio::select! {
                biased;
                () = self.gone.changed.notified() => self.cancel(&mut requests).await,
                () = sleep_until(pulse) => {
                    pulse = Instant::now() + self.pulse;
                    self.watchers().ask_progress();
                    requests.request_progress().await
                }
                request = asked.recv() => match request {
                    Some(request) => self.ask(&mut requests, request).await,
                    None => return Error::unavailable(ETCD, "nobody holds the stream", Effect::None),
                },
            };
            if let Err(error) = sent {
                return error_of(&error, Effect::None);
            }
        }
    }

    async fn ask(
        &self,
        requests: &mut WatchRequestSender,
        request: Request,
    ) -> Result<(), etcd_client::Error> {
        let Request { id, bounds: (from, end), after, queue, made } = request;
        // The reader went before it was asked for.
        if queue.is_closed() {
            return Ok(());
        }
        let start = i64::try_from(after.0).unwrap_or(i64::MAX).saturating_add(1);
        let mut options = WatchOptions::new().with_watch_id(id).with_start_revision(start).with_fragment();
        if let Some(end) = end {
            options = options.with_range(end);
        }
        self.watchers().add(id, Watcher::new(queue, after, made));
        requests.watch(from, Some(options)).await
    }

    async fn cancel(&self, requests: &mut WatchRequestSender) -> Result<(), etcd_client::Error> {
        for id in self.gone.take() {
            // One that the server ended, or was never asked for, is unknown there.
            self.watchers().remove(id);
            requests.cancel(id).await?;
        }
        Ok(())
    }

    fn watchers(&self) -> MutexGuard<'_, Watchers> {
        self.watchers.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.watchers().end(&Error::unavailable(ETCD, "the task of the watches has ended", Effect::None));
    }
}
