use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Decides whether a request is worked on right where it arrives, or in a task of its own.
///
/// A task costs more than all the rest of a quick answer: it is allocated, and it wakes another thread. But where
/// requests arrive they wait for one another. So that is done only while they hold each other up by no more than
/// [`QUICK`] on average: an endpoint that pauses, or computes for long, gets a task for each request.
#[derive(Debug)]
pub(super) struct Pace {
    /// How long a request takes before it is done or has to wait for something: a moving average.
    mean_ns: AtomicU64,
}

/// As long as a thread takes to start a handful of tasks.
const QUICK: Duration = Duration::from_micros(20);
/// A request that has to wait counts as one that took so long: working on it at once was of no use.
const PAUSE: Duration = Duration::from_millis(1);
/// No request counts for more than this.
const SLOW_MAX: Duration = Duration::from_secs(1);
/// The average is taken over about so many requests.
const REQUESTS: u64 = 64;

impl Pace {
    /// Of an endpoint that nothing is known of: it has to show that it is quick.
    pub(super) fn new() -> Self {
        Self { mean_ns: AtomicU64::new(nanos(PAUSE)) }
    }

    /// Is the next request likely to be answered quickly?
    pub(super) fn is_quick(&self) -> bool {
        self.mean_ns.load(Ordering::Relaxed) < nanos(QUICK)
    }

    /// A request was answered without a pause, after so long.
    pub(super) fn answered(&self, time: Duration) {
        let mean = self.mean_ns.load(Ordering::Relaxed);
        // Of two at the same moment one may be lost, which does no harm to an average.
        self.mean_ns.store(mean - mean / REQUESTS + nanos(time) / REQUESTS, Ordering::Relaxed);
    }

    /// A request has to wait for something.
    pub(super) fn paused(&self) {
        self.answered(PAUSE);
    }
}

fn nanos(time: Duration) -> u64 {
    time.min(SLOW_MAX).as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: Duration = Duration::from_micros(1);

    /// A pace at which so many requests each took so long.
    fn after(requests: u32, time: Duration) -> Pace {
        let pace = Pace::new();
        (0..requests).for_each(|_| pace.answered(time));
        pace
    }

    /// An endpoint is quick after some hundred quick answers and not before, and never one whose answers take
    /// longer.
    #[test]
    fn only_short_answers_make_a_quick_endpoint() {
        assert!(!after(64, MICRO).is_quick());
        assert!(after(400, 10 * MICRO).is_quick());
        assert!(!after(100_000, 21 * MICRO).is_quick());
    }

    /// A thread that is held up for a moment changes nothing; an answer that takes a millisecond in every
    /// hundred, or a pause in every ten, does, however long it goes on. What a request counts for is bounded.
    #[test]
    fn what_holds_the_others_up_counts_by_its_length() {
        let pace = after(400, 2 * MICRO);
        pace.answered(500 * MICRO);
        assert!(pace.is_quick());
        for (others, slow) in [(99, 4000 * MICRO), (9, PAUSE)] {
            let mut quick = 0;
            let pace = after(400, 2 * MICRO);
            for _ in 0..1000 {
                pace.answered(slow);
                quick += u32::from(pace.is_quick());
                (0..others).for_each(|_| pace.answered(2 * MICRO));
            }
            assert!(quick <= 1, "{quick}");
        }
        let pace = after(1, Duration::MAX);
        (0..64 * 20).for_each(|_| pace.answered(MICRO));
        assert!(pace.is_quick());
    }
}
