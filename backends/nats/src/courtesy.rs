use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use futures_util::task::AtomicWaker;
use slipring_core::{Environment, EnvironmentExt, Task};
use tokio::task;

/// Lets every task that is ready send what it has before the connection writes: one write then takes all.
///
/// tokio's threads run the task that was woken last before all others. Whoever puts a message into the client
/// library's queue wakes the task of the connection, which would write that one message at once, and the next
/// task's message with another write: half of what a request costs. So another task is woken behind it, one that
/// does nothing. It takes that place, and the connection's task the one behind those that are ready.
///
/// A task that sends one message after the other needs none of this: the connection writes when it pauses. In its
/// place among those that are ready, the connection's task would even be taken by another thread.
///
/// It changes when something is written, by no more than those tasks take, and nothing else.
pub(crate) struct Courtesy {
    waker: Arc<AtomicWaker>,
    /// Who sent last.
    sender: Mutex<Option<task::Id>>,
    _task: Task,
}

impl Courtesy {
    pub(crate) fn new(environment: &dyn Environment) -> Self {
        let waker = Arc::new(AtomicWaker::new());
        let own = waker.clone();
        let idle = poll_fn(move |cx| {
            own.register(cx.waker());
            Poll::<()>::Pending
        });
        Self { waker, sender: Mutex::default(), _task: environment.start("nats courtesy", idle) }
    }

    /// Called by whoever put something into the queue, right after it did.
    pub(crate) fn after_you(&self) {
        let sender = task::try_id();
        let before = {
            let mut before = self.sender.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            std::mem::replace(&mut *before, sender)
        };
        if sender != before {
            self.waker.wake();
        }
    }
}
