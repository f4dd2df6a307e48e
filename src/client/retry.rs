//! When a failed call may be tried again; without the I/O.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use slipring_core::{Effect, Error};
use tokio::time::Instant;

use crate::backoff::scaled;

/// The pause before the second retry. It doubles with each further one; the first retry comes at once, for
/// it goes elsewhere.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause before a retry.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// The attempts of one call.
///
/// A call is tried again only if that cannot execute it twice (or the caller declared that harmless), never
/// after its first item, never past its deadline, a bounded number of times, and within a budget that all
/// calls share. What reached nobody is bounded by the deadline alone, see [`RetryPolicy::patient`].
///
/// # Order of calls
/// After each failed attempt [`handle_error`](Self::handle_error); on [`Decision::Again`] the next attempt,
/// on [`Decision::GiveUp`] nothing more but [`finish`](Self::finish).
#[derive(Debug, Clone)]
pub struct Retry {
    policy: RetryPolicy,
    deadline: Instant,
    failures: u32,
    effect: Effect,
}

/// How a call is retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// How often the call is tried in all, at least once.
    pub attempts_max: u32,
    /// Does executing the call twice do no harm?
    pub idempotent: bool,
    /// Is an instance that is registered, but not there, waited for as long as the deadline allows? It may be
    /// about to subscribe again, as after a restart of the broker; and nobody has done anything meanwhile.
    pub patient: bool,
}

impl RetryPolicy {
    /// Four attempts, and patience with those who are not there; executing twice does harm.
    pub fn new() -> Self {
        Self { attempts_max: 4, idempotent: false, patient: true }
    }

    /// With so many attempts in all.
    #[must_use]
    pub fn with_attempts_max(mut self, attempts: u32) -> Self {
        self.attempts_max = attempts;
        self
    }

    /// Executing the call twice does no harm, or does.
    #[must_use]
    pub fn with_idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    /// Those who are registered, but not there, are waited for, or not.
    #[must_use]
    pub fn with_patient(mut self, patient: bool) -> Self {
        self.patient = patient;
        self
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::new()
    }
}

/// What to do about a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Try again then, before the deadline.
    Again {
        /// When.
        at: Instant,
    },
    /// Tell the caller.
    GiveUp,
}

impl Retry {
    /// A call that must end by `deadline`.
    pub fn new(policy: RetryPolicy, deadline: Instant) -> Self {
        Self { policy, deadline, failures: 0, effect: Effect::None }
    }

    /// An attempt failed, after it had delivered so many items. Takes a retry from the budget if there is to
    /// be one. Free is what doubles no work: waiting for an instance that is not there, and the first move away
    /// from one that is going. `random` is any number; it spreads the retries of many calls.
    pub fn handle_error(
        &mut self,
        now: Instant,
        error: &Error,
        items_delivered: u64,
        budget: &mut RetryBudget,
        random: u64,
    ) -> Decision {
        self.failures = self.failures.saturating_add(1);
        self.effect = self.effect.max(error.effect());
        let safe = match error.retry() {
            slipring_core::Retry::Now => true,
            slipring_core::Retry::IfIdempotent => self.policy.idempotent,
            slipring_core::Retry::Never | slipring_core::Retry::Resync => false,
        };
        let at = now + self.pause(random);
        let waits = self.policy.patient && matches!(error, Error::NoResponders { .. });
        let more = waits || self.failures < self.policy.attempts_max;
        let allowed = safe && items_delivered == 0 && more && at < self.deadline;
        let free = waits || (self.failures == 1 && is_turned_away(error));
        if allowed && (free || budget.withdraw(now)) { Decision::Again { at } } else { Decision::GiveUp }
    }

    /// The error to tell the caller: the last one, with the greatest effect that any attempt may have had.
    pub fn finish(self, error: Error) -> Error {
        error.raise(self.effect)
    }

    fn pause(&self, random: u64) -> Duration {
        match self.failures.checked_sub(2) {
            None => Duration::ZERO,
            Some(doublings) => {
                let pause = (PAUSE_MIN * 2_u32.saturating_pow(doublings.min(16))).min(PAUSE_MAX);
                pause / 2 + scaled(pause / 2, random)
            }
        }
    }
}

/// How many retries all calls of a runtime may make together, so that retries never multiply an outage.
///
/// A token bucket: each request deposits a fifth of a retry. A few more accrue with time, so that a quiet
/// caller may retry too.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    /// In thousandths of a retry.
    tokens: u64,
    refilled: Instant,
}

impl RetryBudget {
    /// What a retry costs.
    const RETRY: u64 = 1_000;
    /// What a request deposits.
    const REQUEST: u64 = 200;
    /// Up to here the budget refills with time, one retry a second; it starts here.
    const FLOOR: u64 = 10 * Self::RETRY;
    /// What it can hold.
    const MAX: u64 = 100 * Self::RETRY;

    /// Ten retries.
    pub fn new(now: Instant) -> Self {
        Self { tokens: Self::FLOOR, refilled: now }
    }

    /// A request begins (its retries do not count).
    pub fn deposit(&mut self, now: Instant) {
        self.refill(now);
        self.tokens = (self.tokens + Self::REQUEST).min(Self::MAX);
    }

    /// Takes one retry, if there is one.
    fn withdraw(&mut self, now: Instant) -> bool {
        self.refill(now);
        let left = self.tokens.checked_sub(Self::RETRY);
        self.tokens = left.unwrap_or(self.tokens);
        left.is_some()
    }

    fn is_full(&self) -> bool {
        self.tokens == Self::MAX
    }

    fn refill(&mut self, now: Instant) {
        // A thousandth of a retry each millisecond; what is less than that is kept for the next time.
        let millis = now.saturating_duration_since(self.refilled).as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX).min(Self::FLOOR);
        if millis == Self::FLOOR {
            self.refilled = now;
        } else {
            self.refilled += Duration::from_millis(millis);
        }
        if self.tokens < Self::FLOOR {
            self.tokens = (self.tokens + millis).min(Self::FLOOR);
        }
    }
}

/// Was it sent away untouched by an instance that is skipped from now on? However many calls meet such an
/// instance at the same moment, each may move on once.
fn is_turned_away(error: &Error) -> bool {
    let away = matches!(error, Error::NoResponders { .. } | Error::Draining { .. } | Error::LeaseLost { .. });
    away && error.effect() == Effect::None
}

/// The budget that all calls of a runtime share.
pub(crate) struct SharedBudget {
    /// It holds all that it can, as it does nearly always: a request need not take the lock.
    full: AtomicBool,
    budget: Mutex<RetryBudget>,
}

impl SharedBudget {
    pub(crate) fn new(now: Instant) -> Self {
        Self { full: AtomicBool::new(false), budget: Mutex::new(RetryBudget::new(now)) }
    }

    /// A request begins (its retries do not count).
    pub(crate) fn deposit(&self, now: Instant) {
        if self.full.load(Ordering::Relaxed) {
            return;
        }
        let mut budget = self.lock();
        budget.deposit(now);
        self.full.store(budget.is_full(), Ordering::Relaxed);
    }

    /// Lets something be taken from it.
    pub(crate) fn take<T>(&self, take: impl FnOnce(&mut RetryBudget) -> T) -> T {
        let mut budget = self.lock();
        self.full.store(false, Ordering::Relaxed);
        take(&mut budget)
    }

    fn lock(&self) -> MutexGuard<'_, RetryBudget> {
        // Two numbers, set together.
        self.budget.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn error(kind: usize) -> Error {
        match kind {
            0 => Error::draining("worker"),
            1 => Error::no_responders("subject"),
            2 => Error::unavailable("worker", "reset", Effect::Unknown),
            3 => Error::unavailable("worker", "reset", Effect::None),
            4 => Error::stream_interrupted(1, "cut"),
            5 => Error::fault("f", "m"),
            6 => Error::compacted(slipring_core::Revision(1)),
            _ => Error::deadline_exceeded("attempt", SECOND, Effect::Unknown),
        }
    }

    /// The first retry comes at once, the others after growing pauses, and there are no more than allowed.
    #[test]
    fn retries_slow_down_and_end() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        let policy = RetryPolicy::new().with_attempts_max(9);
        let mut retry = Retry::new(policy, now + SECOND);
        let mut decide = || retry.handle_error(now, &error(0), 0, &mut budget, 0);
        let millis = [0, 5, 10, 20, 40, 80, 160, 250].map(Duration::from_millis);
        for pause in millis {
            assert_eq!(decide(), Decision::Again { at: now + pause });
        }
        assert_eq!(decide(), Decision::GiveUp);
    }

    /// Whoever is registered and not there is waited for to the deadline, with pauses that stop growing, and
    /// without using up what others may need; unless the call has no patience.
    #[test]
    fn who_is_not_there_is_waited_for() {
        let start = Instant::now();
        for (patient, attempts) in [(true, 26), (false, 4)] {
            let (mut now, mut budget, mut made) = (start, RetryBudget::new(start), 1);
            let mut retry = Retry::new(RetryPolicy::new().with_patient(patient), start + 10 * SECOND);
            while let Decision::Again { at } = retry.handle_error(now, &error(1), 0, &mut budget, u64::MAX) {
                (now, made) = (at, made + 1);
            }
            assert_eq!(made, attempts);
        }
    }

    /// A call that may have been executed is tried again only if that is harmless.
    #[test]
    fn only_idempotent_calls_are_executed_twice() {
        let now = Instant::now();
        for idempotent in [false, true] {
            let policy = RetryPolicy::new().with_idempotent(idempotent);
            let mut retry = Retry::new(policy, now + SECOND);
            let decision = retry.handle_error(now, &error(2), 0, &mut RetryBudget::new(now), 0);
            assert_eq!(decision == Decision::Again { at: now }, idempotent);
        }
    }

    /// The caller learns the greatest effect of all attempts, not only that of the last.
    #[test]
    fn the_effect_of_every_attempt_counts() {
        let now = Instant::now();
        let mut retry = Retry::new(RetryPolicy::new().with_idempotent(true), now + SECOND);
        let mut budget = RetryBudget::new(now);
        retry.handle_error(now, &error(2), 0, &mut budget, 0);
        retry.handle_error(now, &error(0), 0, &mut budget, 0);
        let told = retry.finish(error(0));
        assert_eq!((told.code(), told.effect()), ("draining", Effect::Unknown));
    }

    /// Under an outage the retries are a fifth of the requests, beyond a few; idle time brings these back.
    #[test]
    fn an_outage_is_not_multiplied() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        let mut storm = |now, requests| {
            let retries = |_| {
                budget.deposit(now);
                let mut retry = Retry::new(RetryPolicy::new(), now + SECOND);
                let again = |_: &_| retry.handle_error(now, &error(3), 0, &mut budget, 0) != Decision::GiveUp;
                std::iter::repeat(()).take_while(again).count()
            };
            (0..requests).map(retries).sum::<usize>()
        };
        assert_eq!(storm(now, 1_000), 10 + 200);
        assert_eq!(storm(now + 3 * SECOND, 1), 3);
        assert_eq!(storm(now + 3600 * SECOND, 100), 10 + 20);
    }

    /// A long time without failures does not save up for a storm of retries.
    #[test]
    fn the_budget_is_bounded() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        (0..100_000).for_each(|_| budget.deposit(now));
        assert_eq!((0..1_000).filter(|_| budget.withdraw(now)).count(), 100);
    }

    /// U732: any number of calls may move away from a dead instance, each once; what follows is paid for.
    #[test]
    fn u732_moving_away_is_free_once() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        let mut retried = [0, 0];
        for _ in 0..1_000 {
            let mut retry = Retry::new(RetryPolicy::new().with_patient(false), now + SECOND);
            for count in &mut retried {
                let decision = retry.handle_error(now, &error(1), 0, &mut budget, 0);
                *count += u32::from(decision != Decision::GiveUp);
            }
        }
        assert_eq!(retried, [1_000, 10]);
    }

    proptest! {
        /// Whatever fails and when: never past the deadline, never after an item, never more often than
        /// allowed, never twice executed unless that is harmless, and never more than the budget allows.
        #[test]
        fn retries_keep_to_their_bounds(
            calls in prop::collection::vec(
                (
                    (0..6_u32, any::<bool>(), 0..3_000_u64),
                    prop::collection::vec((0..8_usize, 0..4_u64, 0..900_u64, any::<u64>()), 1..8),
                ),
                1..60,
            ),
        ) {
            let start = Instant::now();
            let (mut now, mut budget, mut retries) = (start, RetryBudget::new(start), 0);
            for (number, ((attempts_max, idempotent, millis), failures)) in calls.iter().enumerate() {
                let policy = RetryPolicy::new().with_attempts_max(*attempts_max).with_idempotent(*idempotent);
                let deadline = now + Duration::from_millis(*millis);
                let mut retry = Retry::new(policy, deadline);
                budget.deposit(now);
                let (mut attempts, mut greatest) = (0, Effect::None);
                for (kind, items, lasted, random) in failures {
                    now += Duration::from_millis(*lasted);
                    let (error, items) = (error(*kind), items.saturating_sub(2));
                    (attempts, greatest) = (attempts + 1, greatest.max(error.effect()));
                    match retry.handle_error(now, &error, items, &mut budget, *random) {
                        Decision::Again { at } => {
                            let waits = matches!(error, Error::NoResponders { .. });
                            retries += u32::from(!(waits || attempts == 1 && is_turned_away(&error)));
                            prop_assert!(at >= now && at < deadline && at <= now + PAUSE_MAX);
                            prop_assert!(items == 0 && (waits || attempts < *attempts_max));
                            prop_assert!(greatest == Effect::None || *idempotent);
                            prop_assert!(greatest != Effect::Applied);
                            now = at;
                        }
                        Decision::GiveUp => {
                            prop_assert_eq!(retry.finish(error).effect(), greatest);
                            break;
                        }
                    }
                }
                let seconds = (now - start).as_secs_f64();
                let allowed = 10.0 + (number + 1) as f64 * 0.2 + seconds;
                prop_assert!(f64::from(retries) <= allowed, "{retries} retries of {allowed}");
            }
        }
    }
}
