use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long a message takes in one direction: between two bounds, mostly near the lower one.
///
/// In whole milliseconds, which is what tokio's clock knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    min_ms: u64,
    max_ms: u64,
}

impl Latency {
    /// No time at all.
    pub const NONE: Self = Self { min_ms: 0, max_ms: 0 };

    /// Between these two; the greater one is the upper bound. Below a millisecond is nothing.
    pub fn between(one: Duration, other: Duration) -> Self {
        let [one, other] = [one, other].map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        Self { min_ms: one.min(other), max_ms: one.max(other) }
    }

    /// The longest that a message takes.
    pub fn max(self) -> Duration {
        Duration::from_millis(self.max_ms)
    }

    /// The shortest that a message takes.
    pub fn min(self) -> Duration {
        Duration::from_millis(self.min_ms)
    }

    /// Half of all random numbers give less than an eighth of the span, as on a network with a long tail.
    pub(crate) fn sample(self, random: u64) -> Duration {
        let (min_ms, span) = (self.min_ms.min(self.max_ms), self.max_ms.abs_diff(self.min_ms));
        let unit = u128::from(random >> 32);
        let cube = unit * unit * unit;
        let part = (u128::from(span) * (cube >> 32)) >> 64;
        Duration::from_millis(min_ms + u64::try_from(part).expect("it is a part of the span"))
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{} ms", self.min_ms, self.max_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples stay between the bounds and reach close to both; half of them are in the first eighth.
    #[test]
    fn samples_stay_between_the_bounds() {
        let latency = Latency::between(Duration::from_millis(1_010), Duration::from_millis(10));
        let samples: Vec<u64> = (0..=1000_u64)
            .map(|step| latency.sample(u64::MAX / 1000 * step).as_millis().try_into().unwrap())
            .collect();
        assert_eq!(samples[0], 10);
        assert!((1_000..=1_010).contains(&samples[1000]), "{}", samples[1000]);
        assert!(samples.is_sorted());
        assert!((130..=140).contains(&samples[500]), "{}", samples[500]);
        assert_eq!(Latency::NONE.sample(u64::MAX), Duration::ZERO);
    }
}
