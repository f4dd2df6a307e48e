use std::time::Duration;

/// How long to wait before the next attempt to connect: at first 50 ms, then twice as long each time, up to a
/// second. Up to a half is taken off at random, so that many clients do not come at once.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    const MIN: Duration = Duration::from_millis(50);
    pub(crate) const MAX: Duration = Duration::from_secs(1);

    pub(crate) fn new() -> Self {
        Self(Self::MIN)
    }

    /// The next delay. `random` is any number.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let delay = self.0;
        self.0 = (delay * 2).min(Self::MAX);
        let half_micros = u64::try_from(delay.as_micros() / 2).expect("the delay is a second at most");
        delay - Duration::from_micros(random % (half_micros + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The delays double up to a second and stay there; at most a half is taken off.
    #[test]
    fn delays_double_up_to_a_second() {
        let all = |random| -> [u128; 8] {
            let mut backoff = Backoff::new();
            std::array::from_fn(|_| backoff.next(random).as_millis())
        };
        assert_eq!(all(0), [50, 100, 200, 400, 800, 1000, 1000, 1000]);
        for random in [1, 7_777_777, u64::MAX] {
            for (delay, whole) in all(random).iter().zip(all(0)) {
                assert!((whole / 2..=whole).contains(delay), "{delay} of {whole}");
            }
        }
        assert_eq!(Backoff::new().next(25_000).as_millis(), 25);
    }
}
