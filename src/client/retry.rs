//! When a call is tried again, without the I/O.

use std::sync::Mutex;
use std::time::Duration;

use slipring_core::{Effect, Error, Retry as Advice};
use tokio::time::Instant;

/// What each call adds to the budget: at most one call in five is tried again in the long run.
const DEPOSIT: f64 = 0.2;
/// What a budget begins with, and can hold at most this much more of.
const FLOOR: f64 = 10.0;
/// What a budget holds at most.
const TOKENS_MAX: f64 = 1_000.0;
/// What time alone adds, so that a client with few calls can try again too.
const TOKENS_PER_SECOND: f64 = 1.0;
/// The pause before the second retry; the first, elsewhere, needs none. It doubles with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause, before jitter.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// What the retries of all calls of a runtime are paid from, so that retries never make an outage worse: a
/// call adds a fifth of a retry.
#[derive(Debug)]
pub struct RetryBudget {
    state: Mutex<Tokens>,
}

#[derive(Debug)]
struct Tokens {
    left: f64,
    at: Instant,
}

impl RetryBudget {
    /// A budget with ten retries in it.
    pub fn new(now: Instant) -> Self {
        Self { state: Mutex::new(Tokens { left: FLOOR, at: now }) }
    }

    /// A call began.
    pub fn handle_request(&self, now: Instant) {
        self.change(now, |left| (left + DEPOSIT, ()));
    }

    /// Takes one retry, if there is one.
    pub fn withdraw(&self, now: Instant) -> bool {
        self.change(now, |left| if left >= 1.0 { (left - 1.0, true) } else { (left, false) })
    }

    fn change<R>(&self, now: Instant, change: impl FnOnce(f64) -> (f64, R)) -> R {
        // Two numbers, set together.
        let mut tokens = self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let waited = now.saturating_duration_since(tokens.at).as_secs_f64();
        let grown = (tokens.left + waited * TOKENS_PER_SECOND).min(tokens.left.max(FLOOR));
        let (left, result) = change(grown);
        *tokens = Tokens { left: left.min(TOKENS_MAX), at: now.max(tokens.at) };
        result
    }
}

/// When a call may be tried again.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Policy {
    /// How often it is tried in all. Default 4.
    pub attempts_max: u32,
    /// Does executing it twice do no harm? Default no.
    pub idempotent: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { attempts_max: 4, idempotent: false }
    }
}

impl Policy {
    /// For a request that may be executed twice, or not.
    #[must_use]
    pub fn with_idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }
}

/// What to do after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Try again, not before this moment.
    Again {
        /// When.
        at: Instant,
    },
    /// Say the error.
    GiveUp,
}

/// The attempts of one call, until its first item.
#[derive(Debug)]
pub struct Retry {
    policy: Policy,
    deadline: Instant,
    attempts: u32,
    effect: Effect,
}

impl Retry {
    /// No attempt yet.
    pub fn new(policy: Policy, deadline: Instant) -> Self {
        Self { policy, deadline, attempts: 0, effect: Effect::None }
    }

    /// An attempt failed before its first item. `jitter` is any random number.
    pub fn handle_error(
        &mut self,
        now: Instant,
        error: &Error,
        budget: &RetryBudget,
        jitter: u64,
    ) -> Decision {
        self.attempts += 1;
        self.effect = self.effect.max(error.effect());
        let allowed = match error.retry() {
            Advice::Now => true,
            Advice::IfIdempotent => self.policy.idempotent,
            Advice::Never | Advice::Resync => false,
        };
        let at = now + self.pause(jitter);
        if allowed && self.attempts < self.policy.attempts_max && at < self.deadline && budget.withdraw(now) {
            Decision::Again { at }
        } else {
            Decision::GiveUp
        }
    }

    /// The error to say in the end: with the greatest effect that any attempt had.
    pub fn finish(self, error: Error) -> Error {
        error.raise(self.effect)
    }

    /// None before the first retry, then doubling, each between a half and the whole of itself.
    fn pause(&self, jitter: u64) -> Duration {
        let Some(doublings) = self.attempts.checked_sub(2) else { return Duration::ZERO };
        let pause = (PAUSE_MIN * 2_u32.saturating_pow(doublings.min(16))).min(PAUSE_MAX);
        pause / 2 + crate::backoff::scaled(pause / 2, jitter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn errors() -> impl Strategy<Value = Error> {
        let kinds = prop_oneof![
            Just(Error::draining("a")),
            Just(Error::overloaded("a")),
            Just(Error::no_responders("a")),
            Just(Error::fault("a", "b")),
            Just(Error::payload_too_large(1, 2)),
            Just(Error::stream_interrupted(0, "cut")),
        ];
        let effects = prop_oneof![Just(Effect::None), Just(Effect::Unknown), Just(Effect::Applied)];
        (kinds, effects).prop_map(|(error, effect)| error.raise(effect))
    }

    proptest! {
        /// Whatever the errors: nothing that may have been executed is tried again (unless it may be), nothing
        /// past the deadline, never too often, and the final error knows the greatest effect of all attempts.
        #[test]
        fn retries_are_harmless_and_bounded(
            errors in proptest::collection::vec((errors(), any::<u64>(), 0_u64..3_000), 1..12),
            idempotent: bool,
        ) {
            let mut now = Instant::now();
            let deadline = now + Duration::from_secs(4);
            let budget = RetryBudget::new(now);
            let mut retry = Retry::new(Policy::default().with_idempotent(idempotent), deadline);
            let mut worst = Effect::None;
            for (attempt, (error, jitter, passed)) in errors.into_iter().enumerate() {
                now += Duration::from_millis(passed);
                worst = worst.max(error.effect());
                match retry.handle_error(now, &error, &budget, jitter) {
                    Decision::Again { at } => {
                        prop_assert!(attempt < 3 && at >= now && at < deadline);
                        prop_assert!(at <= now + PAUSE_MAX);
                        prop_assert!(worst == Effect::None || (idempotent && worst == Effect::Unknown));
                        now = at;
                    }
                    Decision::GiveUp => {
                        prop_assert_eq!(retry.finish(error).effect(), worst);
                        return Ok(());
                    }
                }
            }
        }

        /// In the long run at most a fifth of the calls is tried again, beside the floor and what time adds.
        #[test]
        fn the_budget_bounds_retries(calls in 1_usize..5_000) {
            let now = Instant::now();
            let budget = RetryBudget::new(now);
            let mut retried = 0;
            for _ in 0..calls {
                budget.handle_request(now);
                retried += usize::from(budget.withdraw(now));
            }
            prop_assert!(retried <= calls / 5 + 10);
        }
    }

    /// An exhausted budget recovers with time alone, up to its floor.
    #[test]
    fn the_budget_recovers() {
        let now = Instant::now();
        let budget = RetryBudget::new(now);
        while budget.withdraw(now) {}
        let later = now + Duration::from_secs(3600);
        let again = (0..100).filter(|_| budget.withdraw(later)).count();
        assert_eq!(again, 10);
    }
}
