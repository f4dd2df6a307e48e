use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How many steps the tasks of a world may take while no time passes; more take only those that wake themselves
/// for ever.
pub(crate) const STEPS_AT_ONCE_MAX: u64 = 1_000_000;

/// How many steps are taken between two looks at the clock.
const STEPS_A_LOOK: u64 = 1 << 14;

/// How a run gets on: what steps its tasks take, and whether time passes meanwhile. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pulse(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    steps: AtomicU64,
    /// When the clock was looked at last, in nanoseconds, and how many steps had been taken when that was new.
    looked_at: AtomicU64,
    since: AtomicU64,
    stop: Mutex<Stop>,
}

#[derive(Debug, Default)]
struct Stop {
    why: Option<String>,
    /// Who waits for the end of the story.
    waker: Option<Waker>,
}

impl Pulse {
    /// A task is about to take a step. Is that one too many for the time that has passed?
    pub(crate) fn is_one_too_many(&self, now: impl FnOnce() -> Duration) -> bool {
        let steps = self.0.steps.fetch_add(1, Ordering::Relaxed) + 1;
        if !steps.is_multiple_of(STEPS_A_LOOK) {
            return false;
        }
        let now = u64::try_from(now().as_nanos()).unwrap_or(u64::MAX);
        if self.0.looked_at.swap(now, Ordering::Relaxed) != now {
            self.0.since.store(steps, Ordering::Relaxed);
        }
        steps - self.0.since.load(Ordering::Relaxed) >= STEPS_AT_ONCE_MAX
    }

    /// How many steps were taken.
    #[cfg(feature = "command")]
    pub(crate) fn steps(&self) -> u64 {
        self.0.steps.load(Ordering::Relaxed)
    }

    /// Has the run stop, which goes no further by itself.
    pub(crate) fn stop(&self, why: String) {
        let mut stop = self.state();
        stop.why.get_or_insert(why);
        let waker = stop.waker.take();
        drop(stop);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Waits for the reason to stop, if there comes to be one.
    pub(crate) fn poll_stop(&self, cx: &mut Context<'_>) -> Poll<String> {
        let mut stop = self.state();
        if let Some(why) = &stop.why {
            return Poll::Ready(why.clone());
        }
        stop.waker.get_or_insert_with(|| cx.waker().clone()).clone_from(cx.waker());
        Poll::Pending
    }

    fn state(&self) -> MutexGuard<'_, Stop> {
        self.0.stop.lock().expect("no code panics while it holds the lock")
    }
}

/// What is said of who wakes himself for ever.
pub(crate) fn standstill(who: &str) -> String {
    format!(
        "{who} took {STEPS_AT_ONCE_MAX} steps while time stood still: it wakes itself, or others it, for ever"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any number of steps is fine as long as time passes; too many at one moment are not.
    #[test]
    fn steps_are_counted_for_each_moment() {
        let (pulse, mut now) = (Pulse::default(), Duration::ZERO);
        for step in 0..5 * STEPS_AT_ONCE_MAX {
            if step % (STEPS_AT_ONCE_MAX / 2) == 0 {
                now += Duration::from_nanos(1);
            }
            assert!(!pulse.is_one_too_many(|| now));
        }
        let more = (0..).take_while(|_| !pulse.is_one_too_many(|| now)).count() as u64;
        assert!((STEPS_AT_ONCE_MAX / 2..=STEPS_AT_ONCE_MAX + STEPS_A_LOOK).contains(&more), "{more}");
    }

    /// Who waits is woken by the reason, and is told the first.
    #[test]
    fn the_reason_to_stop_is_told() {
        let pulse = Pulse::default();
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(pulse.poll_stop(cx).is_pending());
        pulse.stop("one".to_owned());
        pulse.stop("two".to_owned());
        assert_eq!(pulse.poll_stop(cx), Poll::Ready("one".to_owned()));
    }
}
