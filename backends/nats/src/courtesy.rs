use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use futures_util::task::AtomicWaker;
use slipring_core::{Environment, EnvironmentExt, Task};

/// Lets every task that is ready send what it has before the connection writes: one write then takes all.
///
/// tokio's threads run the task that was woken last before all others. Whoever puts a message into the client
/// library's queue wakes the task of the connection, which would write that one message at once, and the next
/// task's message with another write: half of what a request costs. So another task is woken behind it, one that
/// does nothing. It takes that place, and the connection's task the one behind those that are ready.
///
/// It changes when something is written, by no more than those tasks take, and nothing else.
pub(crate) struct Courtesy {
    waker: Arc<AtomicWaker>,
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
        Self { waker, _task: environment.start("nats courtesy", idle) }
    }

    /// Called right after something was put into the queue.
    pub(crate) fn after_you(&self) {
        self.waker.wake();
    }
}
