//! Calls within the process: a request goes straight to the worker, and its answers into the caller's queue.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use bytes::Bytes;
use futures_util::FutureExt;
use slipring_core::{Error, Subject};
use tokio::sync::Notify;

use super::caller::Call;
use super::queue::Queue;
use super::worker::{Answers, Inbound, Worker};
use crate::endpoint::Metadata;

/// Where the endpoints of this process are found by its own clients, without a broker or a socket between them.
///
/// A runtime has one for itself. Runtimes of one process that are given the same one, with
/// [`RuntimeBuilder::local`](crate::RuntimeBuilder::local), call each other directly too. Cheap to clone; clones
/// are the same. Nothing about a call changes but its speed: requests and items are written and read as on every
/// plane, with the same limits, deadlines, cancellation, statistics and order of a stop.
///
/// Give it only to runtimes that use the same brokers and deployment, for who an instance is, is said by its
/// subject; and that run on the same tokio runtime, where the handlers' tasks start.
#[derive(Clone, Default)]
pub struct LocalPlane {
    workers: Arc<Mutex<Workers>>,
}

/// By instance, and then by subject.
type Workers = BTreeMap<u64, BTreeMap<String, Weak<Worker>>>;

impl LocalPlane {
    /// One that nobody uses yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lists a worker for as long as what is returned lives.
    pub(crate) fn list(&self, instance: u64, subject: &Subject, worker: &Arc<Worker>) -> Listing {
        let (subject, worker) = (subject.to_string(), Arc::downgrade(worker));
        self.lock().entry(instance).or_default().insert(subject.clone(), worker.clone());
        Listing { plane: self.clone(), instance, subject, worker }
    }

    /// The worker of an instance, if it is in this process.
    pub(crate) fn worker(&self, instance: u64, subject: &str) -> Option<Arc<Worker>> {
        self.lock().get(&instance)?.get(subject)?.upgrade()
    }

    fn lock(&self) -> MutexGuard<'_, Workers> {
        // Single inserts and removals: whole whatever panics elsewhere.
        self.workers.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl fmt::Debug for LocalPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints: usize = self.lock().values().map(BTreeMap::len).sum();
        f.debug_struct("LocalPlane").field("endpoints", &endpoints).finish()
    }
}

/// A worker's place in a [`LocalPlane`].
pub(crate) struct Listing {
    plane: LocalPlane,
    instance: u64,
    subject: String,
    worker: Weak<Worker>,
}

impl Drop for Listing {
    fn drop(&mut self) {
        let mut workers = self.plane.lock();
        let Some(of_instance) = workers.get_mut(&self.instance) else { return };
        // Somebody else may have taken the place.
        if of_instance.get(&self.subject).is_some_and(|listed| listed.ptr_eq(&self.worker)) {
            of_instance.remove(&self.subject);
        }
        if of_instance.is_empty() {
            workers.remove(&self.instance);
        }
    }
}

/// One call within the process, as both ends see it.
#[derive(Debug)]
pub(crate) struct LocalCall {
    queue: Queue,
    /// How many items may wait to be read.
    window: u64,
    sent: AtomicU64,
    taken: AtomicU64,
    given_up: AtomicBool,
    /// There is more room, or the call was given up.
    changed: Notify,
}

/// Calls a worker. What it answers at once has arrived when this returns.
pub(crate) fn open(
    worker: &Arc<Worker>,
    call: &Call,
    window: u64,
    metadata: Metadata,
    payload: Bytes,
) -> Arc<LocalCall> {
    let local = Arc::new(LocalCall {
        queue: Queue::default(),
        window,
        sent: AtomicU64::new(0),
        taken: AtomicU64::new(0),
        given_up: AtomicBool::new(false),
        changed: Notify::new(),
    });
    let answers = Answers::Local(local.clone());
    let request = Inbound { metadata, payload, deadline: Some(call.remaining), answers };
    if let Err(refused) = worker.take(request, true) {
        refused.tell().now_or_never().expect("nothing is waited for within the process");
    }
    local
}

impl LocalCall {
    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The caller read so many items in all.
    pub(crate) fn took(&self, items: u64) {
        self.taken.store(items, Ordering::Release);
        // Half a window at a time, unless it is too small to be halved.
        if items.is_multiple_of((self.window / 2).max(1)) {
            self.changed.notify_waiters();
        }
    }

    /// The caller does not wait any more.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    pub(super) async fn given_up(&self) {
        self.wait(|| self.is_given_up()).await;
    }

    pub(super) fn items(&self, items: impl ExactSizeIterator<Item = Bytes>, last: bool) {
        let before = self.sent.fetch_add(items.len() as u64, Ordering::AcqRel);
        self.queue.items(before + 1, items, last);
    }

    pub(super) fn end(&self) {
        self.queue.end(self.sent.load(Ordering::Acquire));
    }

    pub(super) fn fail(&self, error: &Error) {
        self.queue.fail(error.clone());
    }

    pub(super) fn has_room_for(&self, items: u64) -> bool {
        let sent = self.sent.load(Ordering::Acquire) + items;
        sent <= self.taken.load(Ordering::Acquire) + self.window
    }

    pub(super) async fn room(&self) {
        self.wait(|| self.has_room_for(1)).await;
    }

    async fn wait(&self, is_so: impl Fn() -> bool) {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Before the look, so that nothing is missed between the two.
            changed.as_mut().enable();
            if is_so() {
                return;
            }
            changed.await;
        }
    }
}
