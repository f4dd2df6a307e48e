//! One clock for all calls of a runtime.

use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Waker};

use slipring_core::{Environment, EnvironmentExt, Task};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Wakes those who wait at the time that each of them said.
///
/// A call hardly ever reaches its deadline, so its alarm has to be cheap to set and to take back: it is a place in
/// a list, and only a task that sleeps until the earliest of them has a timer. A timer each would also wake the
/// thread that waits for the network, again and again, to tell it about a deadline that nobody needs.
pub(crate) struct Alarms {
    shared: Arc<Shared>,
    _task: Task,
}

/// One that waits; dropping it takes the alarm back.
pub(crate) struct Alarm {
    shared: Arc<Shared>,
    place: Option<usize>,
    /// What it was set to last.
    last: Option<(Instant, Waker)>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// There is an alarm before the one that the task waits for.
    sooner: Notify,
}

#[derive(Default)]
struct State {
    places: Vec<Place>,
    free: Vec<usize>,
    /// When the task looks again; never, if nobody waits.
    next: Option<Instant>,
}

/// An alarm: not set, or gone off, without a time.
#[derive(Default)]
struct Place {
    at: Option<Instant>,
    waker: Option<Waker>,
}

impl Alarms {
    pub(crate) fn start(environment: &dyn Environment) -> Self {
        let shared = Arc::<Shared>::default();
        let task = environment.start("alarms", run(shared.clone()));
        Self { shared, _task: task }
    }

    /// One that is not set yet.
    pub(crate) fn alarm(&self) -> Alarm {
        Alarm { shared: self.shared.clone(), place: None, last: None }
    }
}

impl Alarm {
    /// Wakes the task at this time, unless it is going to be woken before: whoever moves the time on, item by
    /// item, sets it anew only when it goes off.
    pub(crate) fn set(&mut self, now: Instant, at: Instant, cx: &Context<'_>) {
        if self
            .last
            .as_ref()
            .is_some_and(|(last, waker)| now < *last && *last <= at && waker.will_wake(cx.waker()))
        {
            return;
        }
        self.last = Some((at, cx.waker().clone()));
        let mut state = self.shared.state();
        let free = state.free.pop();
        let number = match self.place {
            Some(number) => {
                state.free.extend(free);
                number
            }
            None => free.unwrap_or_else(|| {
                state.places.push(Place::default());
                state.places.len() - 1
            }),
        };
        self.place = Some(number);
        let place = &mut state.places[number];
        place.at = Some(at);
        if !place.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            place.waker = Some(cx.waker().clone());
        }
        if state.next.is_none_or(|next| at < next) {
            state.next = Some(at);
            drop(state);
            self.shared.sooner.notify_one();
        }
    }

    /// Takes it back.
    pub(crate) fn clear(&mut self) {
        self.last = None;
        let Some(number) = self.place.take() else { return };
        let mut state = self.shared.state();
        let place = std::mem::take(&mut state.places[number]);
        state.free.push(number);
        // A waker is of somebody else: not under the lock.
        drop(state);
        drop(place);
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is whole, so a panic elsewhere leaves it usable.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Lets go off what is due, and says when to look again.
    fn look(&self, now: Instant) {
        let mut due = Vec::new();
        let mut state = self.state();
        let mut next = None::<Instant>;
        for place in &mut state.places {
            match place.at {
                Some(at) if at <= now => {
                    place.at = None;
                    due.extend(place.waker.take());
                }
                Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
                None => {}
            }
        }
        state.next = next;
        drop(state);
        due.into_iter().for_each(Waker::wake);
    }
}

async fn run(shared: Arc<Shared>) {
    loop {
        let next = shared.state().next;
        match next {
            None => shared.sooner.notified().await,
            Some(at) => tokio::select! {
                biased;
                () = shared.sooner.notified() => {}
                () = tokio::time::sleep_until(at) => shared.look(Instant::now()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;
    use std::time::Duration;

    use slipring_core::SystemEnvironment;

    use super::*;

    /// Waits for an alarm that is set once.
    async fn wait(alarms: &Alarms, at: Instant) {
        let mut alarm = alarms.alarm();
        poll_fn(|cx| {
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            // Woken before its time, by those beside it, it waits on.
            alarm.set(Instant::now(), at, cx);
            Poll::Pending
        })
        .await;
    }

    /// Alarms go off at their time, in whatever order they were set.
    #[tokio::test(start_paused = true)]
    async fn alarms_go_off_at_their_time() {
        let (alarms, start) = (Alarms::start(&SystemEnvironment), Instant::now());
        let waits = [5, 3, 9, 3, 1000, 1].map(|millis| {
            let (alarms, at) = (&alarms, start + Duration::from_millis(millis));
            async move {
                wait(alarms, at).await;
                assert_eq!(Instant::now(), at);
            }
        });
        futures_util::future::join_all(waits).await;
    }

    /// One that was set again to a later time goes off at both, one that was set to an earlier time at that one, and
    /// one that was dropped wakes nobody and leaves its place to the next.
    #[tokio::test(start_paused = true)]
    async fn alarms_are_set_again_and_taken_back() {
        let (alarms, start) = (Alarms::start(&SystemEnvironment), Instant::now());
        let [soon, later] = [1, 2].map(|secs| start + Duration::from_secs(secs));
        let mut alarm = alarms.alarm();
        let mut polls = Vec::new();
        poll_fn(|cx| {
            let now = Instant::now();
            if polls.is_empty() {
                alarm.set(now, later, cx);
                alarm.set(now, soon, cx);
            }
            polls.push(now);
            if now >= later {
                return Poll::Ready(());
            }
            alarm.set(now, later, cx);
            Poll::Pending
        })
        .await;
        assert_eq!(polls, [start, soon, later]);
        for _ in 0..100 {
            let mut dropped = alarms.alarm();
            poll_fn(|cx| {
                dropped.set(later, later + Duration::from_secs(9), cx);
                Poll::Ready(())
            })
            .await;
        }
        assert_eq!(alarms.shared.state().places.len(), 2);
        drop(alarm);
        wait(&alarms, later + Duration::from_secs(20)).await;
        let state = alarms.shared.state();
        assert_eq!((state.next, state.free.len()), (None, 2));
    }
}
