use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fault::millis;

/// Work that a node is given at a time: a value in a [`Schedule`](crate::Schedule), beside the faults, so that
/// a failing run shrinks to the little work that it takes.
///
/// What the words mean is up to the node's program, which gets them from
/// [`Node::operation`](crate::Node::operation).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// When, since the schedule began to play; in whole milliseconds.
    #[serde(rename = "at_ms", with = "millis")]
    pub at: Duration,
    /// The node that is given it.
    pub node: String,
    /// What it is asked to do.
    pub what: String,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:?}: {} is asked: {}", self.at, self.node, self.what.escape_debug())
    }
}
