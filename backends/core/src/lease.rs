use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The name of a lease: chosen by the backend, fresh at every grant, never 0, and below 2^53 where the
/// backend leaves a choice (so that JSON readers keep every digit).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeaseId(pub u64);

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseId({:x})", self.0)
    }
}

/// In hexadecimal, as in keys and subjects.
impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A lease as granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// Time to live as granted; it may exceed what was asked, and is what holds.
    pub ttl: Duration,
}
