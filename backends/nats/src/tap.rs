use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

use async_nats::{Message, Subscriber};
use futures_util::StreamExt;
use tokio::task::coop::unconstrained;

/// What to do with the messages of a [`Tap`].
pub(crate) trait Sink: Send + Sync + 'static {
    /// Takes a message, without waiting. Returns who is to be woken.
    fn accept(&self, message: Message) -> Option<Waker>;

    /// No more will come: the connection is lost.
    fn cut(&self);
}

/// Takes each message out of the client library's buffer the moment it is put there.
///
/// That buffer drops what does not fit without saying how much. So it has to stay empty, whatever the reader
/// does; a task that empties it would cost every message one more change of tasks. Instead this is the *waker*
/// of the subscription: the library calls it, in its own task, right after it has put a message into the buffer,
/// and the message is taken out before the call returns.
///
/// A waker may be called while its own subscription is being polled, on the same thread even: then it only leaves
/// word, and whoever polls does so once more.
pub(crate) struct Tap<S> {
    source: Mutex<Option<Subscriber>>,
    /// How often it was asked to look since nobody did.
    asked: AtomicUsize,
    sink: S,
}

impl<S: Sink> Tap<S> {
    /// No source yet.
    pub(crate) fn new(sink: S) -> Arc<Self> {
        Arc::new(Self { source: Mutex::new(None), asked: AtomicUsize::new(0), sink })
    }

    /// Where the messages go.
    pub(crate) fn sink(&self) -> &S {
        &self.sink
    }

    /// Takes messages from here from now on.
    pub(crate) fn open(self: &Arc<Self>, source: Subscriber) {
        let before = self.source().replace(source);
        drop(before);
        self.drain();
    }

    /// Takes no more messages, and gives back where they came from. Dropping that unsubscribes.
    pub(crate) fn close(&self) -> Option<Subscriber> {
        self.source().take()
    }

    fn source(&self) -> MutexGuard<'_, Option<Subscriber>> {
        self.source.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn drain(self: &Arc<Self>) {
        let mut answered = 1;
        if self.asked.fetch_add(1, Ordering::AcqRel) > 0 {
            return;
        }
        loop {
            self.take_all();
            match self.asked.compare_exchange(answered, 0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(asked) => answered = asked,
            }
        }
    }

    fn take_all(self: &Arc<Self>) {
        let waker = Waker::from(self.clone());
        let mut context = Context::from_waker(&waker);
        let mut woken: Option<Waker> = None;
        let mut source = self.source();
        let cut = loop {
            let Some(subscriber) = source.as_mut() else { break None };
            // Whoever calls a waker may have used up its budget, which would leave the message where it is.
            match pin!(unconstrained(subscriber.next())).poll(&mut context) {
                // Under the lock, which keeps the order.
                Poll::Ready(Some(message)) => woken = self.sink.accept(message).or(woken),
                Poll::Ready(None) => break source.take(),
                Poll::Pending => break None,
            }
        };
        drop(source);
        if cut.is_some() {
            self.sink.cut();
        }
        if let Some(waker) = woken {
            waker.wake();
        }
    }
}

impl<S: Sink> Wake for Tap<S> {
    fn wake(self: Arc<Self>) {
        self.drain();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.drain();
    }
}
