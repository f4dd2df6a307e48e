use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use slipring_core::BoxFuture;

use crate::pulse::standstill;
use crate::random::SplitMix;
use crate::trace::Log;

/// When the tasks of a node run. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Pace(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    pauses: u32,
    /// Who wanted to run during a pause, by task.
    waiting: BTreeMap<u64, Waker>,
    tasks: u64,
    shuffle: Option<SplitMix>,
}

impl Pace {
    /// With a seed, a task that could run lets others go first, in one of four cases.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        let shuffle = seed.map(SplitMix::new);
        Self(Arc::new(Mutex::new(State { pauses: 0, waiting: BTreeMap::new(), tasks: 0, shuffle })))
    }

    pub(crate) fn pause(&self) {
        self.state().pauses += 1;
    }

    pub(crate) fn resume(&self) {
        let waiting = {
            let mut state = self.state();
            state.pauses = state.pauses.saturating_sub(1);
            if state.pauses > 0 { BTreeMap::new() } else { std::mem::take(&mut state.waiting) }
        };
        waiting.into_values().for_each(Waker::wake);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no code panics while it holds the lock")
    }
}

/// The steps of a task.
pub(crate) struct Steps {
    pub(crate) log: Log,
    pub(crate) node: Arc<str>,
    pub(crate) task: &'static str,
}

impl Steps {
    /// One more.
    ///
    /// # Panics
    /// If it is one too many. That ends the task; and the run, for which time would stand still.
    fn take(&self) {
        if self.log.is_one_too_many() {
            let why = standstill(&format!("task {} of {}", self.task, self.node));
            self.log.pulse().stop(why.clone());
            panic!("{why}");
        }
    }
}

/// A task that runs only when its node does.
pub(crate) struct Paced {
    pace: Pace,
    steps: Steps,
    number: u64,
    /// It let others go first; now it is its turn.
    waited: bool,
    task: BoxFuture<'static, ()>,
}

impl Paced {
    pub(crate) fn new(pace: Pace, steps: Steps, task: BoxFuture<'static, ()>) -> Self {
        let number = {
            let mut state = pace.state();
            state.tasks += 1;
            state.tasks
        };
        Self { pace, steps, number, waited: false, task }
    }

    /// Does the task run now? If not, it is woken when it is to be asked again.
    fn runs(&mut self, cx: &Context<'_>) -> bool {
        let mut state = self.pace.state();
        if state.pauses > 0 {
            let replaced = state.waiting.insert(self.number, cx.waker().clone());
            drop(state);
            drop(replaced);
            // Its turn is over: it is woken by the end of the pause alone.
            self.waited = false;
            return false;
        }
        self.waited = !self.waited && state.shuffle.as_mut().is_some_and(|shuffle| shuffle.next() % 4 == 0);
        !self.waited
    }
}

impl Future for Paced {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.steps.take();
        if self.runs(cx) {
            return self.task.as_mut().poll(cx);
        }
        if self.waited {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicU32);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// F13: a task that let others go first when a pause began does not wake itself during the pause; time
    /// would stand still for ever. It runs after the pause.
    #[tokio::test(start_paused = true)]
    async fn f13_a_pause_meets_a_task_that_waits_for_its_turn() {
        let (pace, wakes) = (Pace::new(Some(7)), Arc::new(Wakes::default()));
        let waker = Waker::from(wakes.clone());
        let mut cx = Context::from_waker(&waker);
        let steps = Steps { log: Log::new(), node: "node".into(), task: "task" };
        let mut paced = Paced::new(pace.clone(), steps, Box::pin(std::future::pending()));
        while !paced.waited {
            assert!(Pin::new(&mut paced).poll(&mut cx).is_pending());
        }
        let before = wakes.0.load(Ordering::Relaxed);
        pace.pause();
        assert!(Pin::new(&mut paced).poll(&mut cx).is_pending());
        assert_eq!(wakes.0.load(Ordering::Relaxed), before);
        pace.resume();
        assert_eq!(wakes.0.load(Ordering::Relaxed), before + 1);
    }
}
