//! The heartbeats of one lease, without the I/O.

use std::time::{Duration, SystemTime};

use slipring_core::LeaseId;
use slipring_core::mutation::{Mutated, Mutation};
use tokio::time::Instant;

/// Longer times to live are taken for this, so that no sum of times overflows.
const TTL_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Keeps one lease: says when to beat, and how long the lease may be believed in.
///
/// All times are parts of the TTL, as granted or as last answered:
/// - A beat is due a third after the *sending* of the last acknowledged one, and is given a sixth.
/// - After a failed beat the next is due a twelfth later: two retries fit even if every beat times out.
/// - The deadline is the sending of the last acknowledged beat plus the TTL, less a twentieth: clocks that
///   differ in speed by less than that do no harm. Past it the lease is lost for ever.
/// - A machine that was suspended (wall time ran ahead of the monotonic clock by over a twentieth since the
///   last acknowledged beat was sent) may have slept past the end of its lease. It beats at once, and does not
///   believe until a beat sent after the sleep is acknowledged.
///
/// # Order of calls
/// At every wake-up: [`handle_wall`](Self::handle_wall), then what happened, then [`poll`](Self::poll). On
/// [`Step::Beat`]: [`handle_sent`](Self::handle_sent), send, and answer with one of
/// [`handle_ack`](Self::handle_ack), [`handle_failure`](Self::handle_failure) and
/// [`handle_lost`](Self::handle_lost). Answers may be late, doubled or missing. `now` never goes back.
#[derive(Debug, Clone)]
pub struct Keeper {
    lease: LeaseId,
    ttl: Duration,
    /// The newest beat that was acknowledged; at first the grant.
    proven: Beat,
    /// The newest beat that was sent.
    sent: Beat,
    /// When the next beat is due.
    due: Instant,
    /// When the clocks were last compared, and what they showed.
    looked: (Instant, SystemTime),
    /// By how much wall time ran ahead of the monotonic clock, in all.
    slept: Duration,
    lost: bool,
    mutation: Mutated,
}

/// A heartbeat that was sent: goes back in with its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Beat {
    at: Instant,
    /// What the keeper had slept by then.
    slept: Duration,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Send a heartbeat now, and count it as failed after `timeout`.
    Beat {
        /// A sixth of the TTL, or what is left until the deadline.
        timeout: Duration,
    },
    /// Nothing to do until then, at most a twelfth of the TTL away, so that a suspended machine soon notices.
    Wait(Instant),
    /// The lease is lost, for ever.
    Lost,
}

impl Keeper {
    /// Keeps a lease that was granted with this TTL. `granted_sent_at` is when the grant was *asked for*,
    /// `wall` the wall time then.
    pub fn new(lease: LeaseId, ttl: Duration, granted_sent_at: Instant, wall: SystemTime) -> Self {
        let ttl = ttl.min(TTL_MAX);
        let grant = Beat { at: granted_sent_at, slept: Duration::ZERO };
        Self {
            lease,
            ttl,
            proven: grant,
            sent: grant,
            due: granted_sent_at + ttl / 3,
            looked: (granted_sent_at, wall),
            slept: Duration::ZERO,
            lost: false,
            mutation: Mutated::default(),
        }
    }

    #[doc(hidden)]
    #[must_use]
    pub fn with_mutation(mut self, mutation: Mutated) -> Self {
        self.mutation = mutation;
        self
    }

    /// The lease.
    pub fn lease(&self) -> LeaseId {
        self.lease
    }

    /// Until when the lease may be believed in, as far as the monotonic clock can tell.
    pub fn deadline(&self) -> Instant {
        self.proven.at + (self.ttl - self.margin())
    }

    /// May the holder of the lease act as such? False from the deadline on, and in doubt.
    pub fn alive(&self, now: Instant) -> bool {
        !self.is_lost(now) && self.slept - self.proven.slept <= self.margin()
    }

    /// What to do next. Changes nothing; may be called at any time.
    pub fn poll(&self, now: Instant) -> Step {
        let deadline = self.deadline();
        if self.is_lost(now) {
            Step::Lost
        } else if now >= self.due || self.has_just_woken() {
            Step::Beat { timeout: (self.ttl / 6).min(deadline - now) }
        } else {
            Step::Wait(self.due.min(deadline).min(now + self.pause()))
        }
    }

    /// A heartbeat is being sent. Until it is answered, or its time is up, none is due.
    pub fn handle_sent(&mut self, now: Instant) -> Beat {
        self.sent = Beat { at: now, slept: self.slept };
        self.due = now + self.ttl / 6 + self.pause();
        self.sent
    }

    /// A heartbeat was acknowledged: the lease lives for `ttl` from some moment after the sending. Even the
    /// answer to a beat given up as failed counts, from when that beat was sent; after the deadline none does.
    pub fn handle_ack(&mut self, now: Instant, beat: Beat, ttl: Duration) {
        self.lost = self.is_lost(now);
        if self.lost || beat <= self.proven {
            return;
        }
        self.proven = beat;
        if self.mutation.is(Mutation::DeadlineFromAnswer) {
            self.proven.at = now;
        }
        self.ttl = ttl.min(TTL_MAX);
        let third = if self.mutation.is(Mutation::BeatsAreSlow) { self.ttl * 9 / 10 } else { self.ttl / 3 };
        let due = beat.at + third;
        // While a later beat is under way, the answer to an earlier one brings none too soon after it.
        self.due = if beat == self.sent { due } else { due.min(self.due).max(self.sent.at + self.pause()) };
    }

    /// A heartbeat failed, or its time is up; the lease may live or not.
    pub fn handle_failure(&mut self, now: Instant, beat: Beat) {
        if beat == self.sent {
            self.due = self.due.min(now + self.pause());
        }
    }

    /// The store says that the lease does not exist.
    pub fn handle_lost(&mut self) {
        self.lost = !self.mutation.is(Mutation::LossIsIgnored);
    }

    /// Compares the clocks. Wall time that runs ahead means that the machine may have been suspended; wall
    /// time that was set back means nothing.
    pub fn handle_wall(&mut self, now: Instant, wall: SystemTime) {
        let (then, wall_then) = self.looked;
        let passed = wall.duration_since(wall_then).unwrap_or_default();
        self.slept += passed.saturating_sub(now.saturating_duration_since(then)).min(TTL_MAX);
        self.looked = (now, wall);
    }

    fn is_lost(&self, now: Instant) -> bool {
        self.lost || now >= self.deadline()
    }

    /// Has the machine slept since the last beat was sent?
    fn has_just_woken(&self) -> bool {
        self.slept - self.sent.slept > self.margin()
    }

    /// What is not believed of the TTL.
    fn margin(&self) -> Duration {
        if self.mutation.is(Mutation::NoMargin) { Duration::ZERO } else { self.ttl / 20 }
    }

    /// The shortest time between a failed beat and the next.
    fn pause(&self) -> Duration {
        self.ttl / 12
    }
}

#[cfg(test)]
mod tests;
