//! Judges a history: does it keep what the store, the leases and the watches promise?
//!
//! The store writes down its commit order, so a check is a replay, not a search.

mod leases;
mod store;
mod watches;

use std::fmt;
use std::time::Duration;

use slipring_memory::Profile;

use crate::history::History;

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
}

impl Violation {
    /// For judges of one's own.
    pub fn new(invariant: &'static str, at: Duration, what: impl Into<String>) -> Self {
        Self { invariant, at, what: what.into() }
    }

    /// What the invariant promises, in words.
    pub fn promise(&self) -> &'static str {
        let known = INVARIANTS.iter().find(|(name, _)| *name == self.invariant);
        known.map_or("an invariant without a name", |(_, promise)| promise)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) at {:?}: {}", self.invariant, self.promise(), self.at, self.what)
    }
}

/// The invariants that are checked, in words.
pub const INVARIANTS: [(&str, &str); 8] = [
    ("K2", "each commit is the next revision, and changes something"),
    ("L1", "no lease ends before its time"),
    ("L2", "a lease that nobody renews ends soon after its time"),
    ("W1", "a watch goes forward"),
    ("W2", "a watch shows no revision twice"),
    ("W3", "a watch leaves out nothing in its range"),
    ("W4", "a watch shows each revision whole, and as it was committed"),
    ("W13", "a watch begins with what was in the store"),
];

/// All that is wrong with a history, in the order in which it went wrong; after its first fault a lease or a
/// watch is not looked at any more. `profile` is the broker's: it says how late a lease may end, and whether
/// watches show every revision; the W invariants are checked only if they do.
pub fn check(history: &History, profile: &Profile) -> Vec<Violation> {
    let mut violations = store::check(history);
    violations.extend(leases::check(history, profile));
    violations.extend(watches::check(history, profile));
    violations.sort_by_key(|violation| violation.at);
    violations
}
