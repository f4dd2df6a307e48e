use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

/// F37: runs a future and drops it at one of its await points: when it has to wait for the time of this number,
/// from 1; with 0 it does not begin. Gives its output if it was done before, and nothing if it was dropped.
///
/// A test of cancellation counts up until the future is done:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// for waits in 0.. {
///     let done = slipring_sim::cancelled_after(waits, tokio::task::yield_now()).await;
///     // Here it looks at what the future left behind.
///     if done.is_some() {
///         assert_eq!(waits, 2);
///         break;
///     }
/// }
/// # }
/// ```
pub async fn cancelled_after<F: Future>(waits: u32, future: F) -> Option<F::Output> {
    let orders = Arc::new(Orders::default());
    orders.cancel(waits);
    orders.cancellable(future).await
}

/// What is to be cancelled among the futures of a node, and when.
#[derive(Debug, Default)]
pub(crate) struct Orders(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How many waits are left before each order is executed, one order after the other.
    left: VecDeque<u32>,
    /// Who waits, by future.
    waiting: BTreeMap<u64, Waker>,
    futures: u64,
}

impl Orders {
    /// Has a future dropped after this many more waits.
    pub(crate) fn cancel(&self, waits: u32) {
        let waiting = {
            let mut state = self.state();
            state.left.push_back(waits);
            if waits == 0 { std::mem::take(&mut state.waiting) } else { BTreeMap::new() }
        };
        waiting.into_values().for_each(Waker::wake);
    }

    /// A future that an order may drop.
    pub(crate) fn cancellable<F: Future>(self: &Arc<Self>, future: F) -> Cancellable<F> {
        let number = {
            let mut state = self.state();
            state.futures += 1;
            state.futures
        };
        Cancellable { orders: self.clone(), number, future: Some(Box::pin(future)) }
    }

    /// Is it a future's turn to be dropped?
    fn strikes(&self) -> bool {
        let mut state = self.state();
        let strikes = state.left.front() == Some(&0);
        if strikes {
            state.left.pop_front();
        }
        strikes
    }

    /// A future has to wait.
    fn count_wait(&self, number: u64, waker: &Waker) {
        let mut state = self.state();
        if let Some(left) = state.left.front_mut() {
            *left = left.saturating_sub(1);
        }
        let replaced = state.waiting.insert(number, waker.clone());
        drop(state);
        drop(replaced);
    }

    fn forget(&self, number: u64) {
        let waker = self.state().waiting.remove(&number);
        drop(waker);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no code panics while it holds the lock")
    }
}

/// A future that may be dropped where it waits.
pub(crate) struct Cancellable<F> {
    orders: Arc<Orders>,
    number: u64,
    future: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for Cancellable<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.orders.strikes() {
            let future = self.future.as_mut().expect("it is not polled after its end");
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                self.future = None;
                return Poll::Ready(Some(output));
            }
            self.orders.count_wait(self.number, cx.waker());
            if !self.orders.strikes() {
                return Poll::Pending;
            }
        }
        self.future = None;
        Poll::Ready(None)
    }
}

impl<F> Drop for Cancellable<F> {
    fn drop(&mut self) {
        self.orders.forget(self.number);
    }
}
