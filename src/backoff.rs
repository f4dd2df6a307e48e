//! Pauses between attempts, and the jitter that keeps machines of one fleet apart.

use std::time::Duration;

/// The pause after a first failure. It doubles with each further one.
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause, before jitter.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Counts failures in a row and says how long to pause. Its jitter follows from the seed alone.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    failures: u32,
    random: u64,
}

impl Backoff {
    /// No failures yet.
    pub(crate) fn new(seed: u64) -> Self {
        Self { failures: 0, random: seed }
    }

    /// How many failures came in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Counts a failure and returns the pause before the next attempt: from [`PAUSE_MIN`] doubling to
    /// [`PAUSE_MAX`], plus up to half of that.
    pub(crate) fn fail(&mut self) -> Duration {
        let pause = (PAUSE_MIN * 2_u32.saturating_pow(self.failures.min(16))).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        pause + self.up_to(pause / 2)
    }

    /// An attempt went well.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// A random duration from zero up to `most`.
    pub(crate) fn up_to(&mut self, most: Duration) -> Duration {
        // SplitMix64: every state is followed by another one, so any seed will do.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scaled(most, mixed(self.random))
    }
}

/// The part of `most` that a random number stands for: zero for 0, nearly all of it for `u64::MAX`.
pub(crate) fn scaled(most: Duration, random: u64) -> Duration {
    most.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
}

fn mixed(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pauses grow to a bound, stay there however many failures follow, and begin anew after a success.
    #[test]
    fn pauses_grow_to_a_bound() {
        let mut backoff = Backoff::new(7);
        let pauses: Vec<_> = (0..40).map(|_| backoff.fail()).collect();
        assert!(pauses[0] >= PAUSE_MIN && pauses[0] <= PAUSE_MIN * 3 / 2, "{pauses:?}");
        assert!(pauses.iter().skip(5).all(|pause| *pause >= PAUSE_MAX && *pause <= PAUSE_MAX * 3 / 2));
        backoff.reset();
        assert!(backoff.fail() <= PAUSE_MIN * 3 / 2);
    }

    /// Jitter spreads over the whole span and follows from the seed.
    #[test]
    fn jitter_spreads_and_repeats() {
        let most = Duration::from_secs(1);
        let draws = |seed| {
            let mut backoff = Backoff::new(seed);
            (0..1000).map(|_| backoff.up_to(most)).collect::<Vec<_>>()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
        assert!(draws(1).iter().all(|draw| *draw <= most));
        assert!(draws(1).iter().any(|draw| *draw < most / 10));
        assert!(draws(1).iter().any(|draw| *draw > most * 9 / 10));
    }
}
