use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{Stream, StreamExt};
use slipring_core::{
    Effect, Environment, Error, Message, Messaging, MessagingCapabilities, Result, Subject, Subscriber,
    Subscription,
};
use tokio::task::coop;

use crate::bus::{Buffer, Bus, ConnectionId, SubscriptionId};

/// One [`Bus`] for any number of handles, on any number of threads and runtimes.
pub struct SharedBus {
    state: Mutex<State>,
    entropy: Arc<dyn Environment>,
}

#[derive(Debug)]
struct State {
    bus: Bus,
    /// Who waits for a subscription to become readable.
    wakers: BTreeMap<SubscriptionId, Waker>,
    /// Empty between calls; kept for its memory.
    readable: Vec<SubscriptionId>,
}

impl SharedBus {
    /// A bus that can do this and no more. `entropy` chooses among the members of a queue group, and the
    /// names of inboxes.
    pub fn new(capabilities: MessagingCapabilities, entropy: Arc<dyn Environment>) -> Arc<Self> {
        Self::with(Bus::new(capabilities), entropy)
    }

    pub(crate) fn with(bus: Bus, entropy: Arc<dyn Environment>) -> Arc<Self> {
        let state = State { bus, wakers: BTreeMap::new(), readable: Vec::new() };
        Arc::new(Self { state: Mutex::new(state), entropy })
    }

    /// Everything the bus offers: wildcards, queue groups, headers, no-responders, 1 MiB, 255 bytes.
    pub fn capabilities_max() -> MessagingCapabilities {
        MessagingCapabilities::minimal()
            .with_wildcards(true)
            .with_queue_groups(true)
            .with_no_responders(true)
            .with_payload_bytes_max(1024 * 1024)
            .with_subject_bytes_max(Subject::BYTES_MAX)
    }

    /// Subscriptions that are routed to, or have still something to be read: for leak tests.
    pub fn subscriptions(&self) -> usize {
        self.lock().bus.subscriptions()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The bus calls no foreign code but the environment, and that before it changes anything.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Does something to the bus, and wakes whom it made readable once the lock is free.
    fn change<R>(&self, change: impl FnOnce(&mut Bus, &mut Vec<SubscriptionId>) -> R) -> R {
        let mut state = self.lock();
        let State { bus, wakers, readable } = &mut *state;
        let result = change(bus, readable);
        // Mostly there is one at most, which needs no list.
        let mut woken = readable.drain(..).filter_map(|id| wakers.remove(&id));
        let (first, others) = (woken.next(), woken.collect::<Vec<_>>());
        drop(state);
        first.into_iter().chain(others).for_each(Waker::wake);
        result
    }

    fn poll_next(&self, id: SubscriptionId, cx: &mut Context<'_>) -> Poll<Option<Result<Message>>> {
        let mut state = self.lock();
        let next = state.bus.next(id);
        let replaced = match next {
            Poll::Pending => state.wakers.insert(id, cx.waker().clone()),
            Poll::Ready(_) => None,
        };
        drop(state);
        // Outside the lock: a waker may own the last part of a task that owns a subscriber of this bus.
        drop(replaced);
        next
    }

    fn remove(&self, id: SubscriptionId) {
        let mut state = self.lock();
        // Both are dropped outside the lock: see above; and a full buffer takes its time.
        let _gone: (Option<Buffer>, Option<Waker>) = (state.bus.remove(id), state.wakers.remove(&id));
        drop(state);
    }
}

impl fmt::Debug for SharedBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBus").field("subscriptions", &self.subscriptions()).finish_non_exhaustive()
    }
}

/// Messaging within the process: a handle to a [`SharedBus`]. Clones are the same handle and are closed
/// together; [`MemoryMessaging::new`] makes an independent one.
///
/// No call waits for a reader, and none needs a runtime except [`request`](Messaging::request), for its
/// timeout.
#[derive(Debug, Clone)]
pub struct MemoryMessaging {
    connection: Arc<Connection>,
}

impl MemoryMessaging {
    /// A handle of its own.
    pub fn new(shared: Arc<SharedBus>) -> Self {
        let id = shared.lock().bus.connect();
        let inbox = shared.entropy.random("inbox");
        Self { connection: Arc::new(Connection { shared, id, inbox, requests: AtomicU64::new(0) }) }
    }

    /// Subscriptions on the whole bus, of this handle and of others: for leak tests.
    pub fn subscriptions(&self) -> usize {
        self.connection.shared.subscriptions()
    }
}

#[async_trait]
impl Messaging for MemoryMessaging {
    async fn capabilities(&self) -> Result<MessagingCapabilities> {
        let state = self.connection.shared.lock();
        state.bus.check(self.connection.id)?;
        Ok(state.bus.capabilities())
    }

    async fn publish(&self, message: Message) -> Result<()> {
        // A publisher in a hot loop lets its readers run.
        coop::consume_budget().await;
        let Connection { shared, id, .. } = &*self.connection;
        let mut random = || shared.entropy.random("queue group");
        shared.change(|bus, readable| bus.publish(*id, message, &mut random, readable))
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Subscriber> {
        let Connection { shared, id, .. } = &*self.connection;
        let id = shared.lock().bus.subscribe(*id, subscription)?;
        let incoming = Incoming { connection: self.connection.clone(), id };
        let connection = self.connection.clone();
        Ok(Subscriber::new(incoming, move || {
            connection.shared.change(|bus, readable| bus.stop(id, readable))
        }))
    }

    async fn request(&self, message: Message, timeout: Duration) -> Result<Message> {
        let inbox = self.connection.fresh_inbox()?;
        let asked = message.subject.clone();
        // An inbox for each request, that ends with it: a late reply finds nobody, and nothing is left over.
        let mut replies = self.subscribe(Subscription::new(&inbox).with_messages_max(1)).await?;
        self.publish(message.with_reply(inbox)).await?;
        match tokio::time::timeout(timeout, replies.next()).await {
            Ok(Some(Ok(reply))) if reply.no_responders => Err(Error::no_responders(asked.as_str())),
            Ok(Some(reply)) => reply,
            Ok(None) => {
                Err(Error::unavailable("the bus", "this handle was closed meanwhile", Effect::Unknown))
            }
            Err(_) => Err(Error::deadline_exceeded(format!("request to {asked}"), timeout, Effect::Unknown)),
        }
    }

    async fn flush(&self) -> Result<()> {
        self.connection.shared.lock().bus.check(self.connection.id)
    }

    /// Immediate: a publish is with the bus when it returns.
    async fn close(&self, _grace: Duration) -> Result<()> {
        self.connection.close();
        Ok(())
    }
}

/// What the clones of a handle and its subscribers share.
#[derive(Debug)]
struct Connection {
    shared: Arc<SharedBus>,
    id: ConnectionId,
    inbox: u64,
    requests: AtomicU64,
}

impl Connection {
    fn fresh_inbox(&self) -> Result<Subject> {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        Subject::new(format!("_INBOX.{:016x}.{request:x}", self.inbox))
    }

    fn close(&self) {
        self.shared.change(|bus, readable| bus.close(self.id, readable));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

/// The messages of one subscription.
struct Incoming {
    connection: Arc<Connection>,
    id: SubscriptionId,
}

impl Stream for Incoming {
    type Item = Result<Message>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // A reader in a hot loop lets the other tasks of its thread run.
        let budget = ready!(coop::poll_proceed(cx));
        let next = self.connection.shared.poll_next(self.id, cx);
        if next.is_ready() {
            budget.made_progress();
        }
        next
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.connection.shared.remove(self.id);
    }
}
