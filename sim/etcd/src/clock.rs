use std::time::Duration;

use tokio::time::Instant;

/// The server's clock against tokio's. It stands still while no server runs.
#[derive(Debug)]
pub(crate) struct Clock {
    /// How fast it runs, in millionths.
    rate_ppm: u128,
    /// When it was first looked at, or started anew, and what it showed.
    origin: Option<(Instant, Duration)>,
    stopped: Option<Duration>,
}

impl Clock {
    const MILLION: u128 = 1_000_000;
    /// Thirty years: no timer waits longer.
    const FAR_AWAY: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

    pub(crate) fn new(rate_ppm: u32) -> Self {
        Self { rate_ppm: rate_ppm.max(1).into(), origin: None, stopped: None }
    }

    pub(crate) fn now(&mut self) -> Duration {
        if let Some(stopped) = self.stopped {
            return stopped;
        }
        let (origin, shown) = self.origin();
        let elapsed = Instant::now().saturating_duration_since(origin);
        shown + nanos(elapsed.as_nanos() * self.rate_ppm / Self::MILLION)
    }

    pub(crate) fn stop(&mut self) {
        self.stopped = Some(self.now());
    }

    /// Goes on from where it stopped, perhaps on another runtime. False if it was not stopped.
    pub(crate) fn start(&mut self) -> bool {
        let stopped = self.stopped.take();
        if let Some(shown) = stopped {
            self.origin = Some((Instant::now(), shown));
        }
        stopped.is_some()
    }

    /// The first moment at which it shows `at`; far away if it is stopped, or beyond what timers can wait for.
    pub(crate) fn instant(&mut self, at: Duration) -> Instant {
        let (origin, shown) = self.origin();
        let left = at.saturating_sub(shown).as_nanos() * Self::MILLION;
        let instant = origin.checked_add(nanos(left.div_ceil(self.rate_ppm)));
        let instant = instant.filter(|_| self.stopped.is_none());
        instant.unwrap_or_else(|| Instant::now() + Self::FAR_AWAY)
    }

    fn origin(&mut self) -> (Instant, Duration) {
        *self.origin.get_or_insert_with(|| (Instant::now(), Duration::ZERO))
    }
}

/// A duration of so many nanoseconds; what is longer than 500 years is 500 years.
fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that runs slowly shows less, and rings later; stopped it shows the same for ever.
    #[tokio::test(start_paused = true)]
    async fn a_clock_has_its_rate() {
        let mut clock = Clock::new(500_000);
        let (second, began) = (Duration::from_secs(1), Instant::now());
        assert_eq!(clock.now(), Duration::ZERO);
        assert_eq!(clock.instant(second), began + 2 * second);
        tokio::time::advance(4 * second).await;
        assert_eq!(clock.now(), 2 * second);
        clock.stop();
        tokio::time::advance(4 * second).await;
        assert_eq!(clock.now(), 2 * second);
        assert!(clock.start() && !clock.start());
        assert_eq!((clock.now(), clock.instant(3 * second)), (2 * second, Instant::now() + 2 * second));
        tokio::time::advance(2 * second).await;
        assert_eq!(clock.now(), 3 * second);
    }
}
