//! Judges a history: does it keep what the store, the leases, the watches, the bus and the component model
//! promise?
//!
//! The store writes down its commit order, so a check is a replay, not a search. What a check has to know
//! beside the history is in [`Terms`].

mod bus;
mod calls;
mod calm;
mod heartbeats;
mod invariants;
mod leases;
mod ledger;
mod lines;
pub(crate) mod names;
mod owners;
mod reads;
mod registration;
mod replay;
mod requests;
mod rest;
mod routes;
mod store;
mod terms;
mod txns;
mod views;
mod watches;

use std::fmt;
use std::time::Duration;

pub use self::invariants::{ELSEWHERE, INVARIANTS};
use self::ledger::Ledger;
pub use self::terms::Terms;
use crate::history::History;
use crate::run::STANDSTILL;

/// A promise that a history breaks, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// The invariant's number, such as `L1`.
    pub invariant: &'static str,
    /// When it was broken, since the world began.
    pub at: Duration,
    /// How.
    pub what: String,
    /// The few events that matter: places in [`History::moments`], in order. The last one is where it was
    /// found.
    pub moments: Vec<usize>,
}

impl Violation {
    /// For judges of one's own. It names no events.
    pub fn new(invariant: &'static str, at: Duration, what: impl Into<String>) -> Self {
        Self { invariant, at, what: what.into(), moments: Vec::new() }
    }

    /// With the events that matter.
    #[must_use]
    pub fn with_moments(mut self, moments: Vec<usize>) -> Self {
        self.moments = moments;
        self
    }

    /// What the invariant promises, in words.
    pub fn promise(&self) -> &'static str {
        let known = INVARIANTS.iter().find(|(name, _)| *name == self.invariant);
        match known {
            Some((_, promise)) => promise,
            None if self.invariant == STANDSTILL => "time passes, and the run comes to an end",
            None => "what a scenario expects of itself",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) at {:?}: {}", self.invariant, self.promise(), self.at, self.what)
    }
}

/// All that is wrong with a history, in the order in which it went wrong; after its first fault a lease, a
/// watch or a subscription is not looked at any more. A broker's [`Profile`](slipring_memory::Profile) will do
/// for terms.
///
/// What is not in the history is not judged: messages are only there if the
/// [`Setup`](crate::Setup::with_messages) says so, and calls that go past the links of the nodes never.
pub fn check(history: &History, terms: impl Into<Terms>) -> Vec<Violation> {
    let terms = terms.into();
    let ledger = Ledger::new(history);
    let mut found = Findings { history, violations: Vec::new() };
    store::check(history, &terms, &mut found);
    txns::check(history, &mut found);
    reads::check(history, &terms, &ledger, &mut found);
    leases::check(history, &terms, &mut found);
    heartbeats::check(history, &terms, &mut found);
    owners::check(history, &terms, &mut found);
    registration::check(history, &terms, &mut found);
    watches::check(history, &terms, &ledger, &mut found);
    views::check(history, &terms, &ledger, &mut found);
    bus::check(history, &terms, &mut found);
    requests::check(history, &terms, &mut found);
    calls::check(history, &terms, &mut found);
    routes::check(history, &ledger, &mut found);
    rest::check(history, &mut found);
    found.violations.sort_by_key(|violation| violation.moments.last().copied());
    found.violations
}

/// What was found so far.
struct Findings<'a> {
    history: &'a History,
    violations: Vec<Violation>,
}

impl Findings<'_> {
    /// `moments` are the places that matter, the last of them is the one where it was found.
    fn add(&mut self, invariant: &'static str, moments: impl Into<Vec<usize>>, what: String) {
        let mut moments = moments.into();
        let last = moments.last().copied().unwrap_or_default();
        moments.sort_unstable();
        moments.dedup();
        let at = self.history.moments().get(last).map(|moment| moment.at).unwrap_or_default();
        self.violations.push(Violation { invariant, at, what, moments });
    }
}
