use std::collections::BTreeSet;

use bytes::Bytes;

use crate::{Error, Key, LeaseId, Result, Revision};

/// A condition on one key, checked at the moment of the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// The key does not exist.
    Absent(Key),
    /// The key exists and was last written at this revision.
    Unchanged(Key, Revision),
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Writes the key. `lease: None` detaches it from the lease it had; another lease moves it there.
    Put {
        /// The key.
        key: Key,
        /// Its new value.
        value: Bytes,
        /// The lease whose end deletes it.
        lease: Option<LeaseId>,
    },
    /// Deletes the key; nothing happens if it does not exist.
    Delete {
        /// The key.
        key: Key,
    },
}

impl Op {
    /// The key that is written.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// A guarded transaction: if all guards hold, all operations happen at one revision; otherwise none does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// The conditions; all must hold.
    pub guards: Vec<Guard>,
    /// The writes, each of another key.
    pub ops: Vec<Op>,
}

impl Txn {
    /// An empty transaction, to be built up.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the condition that the key does not exist.
    #[must_use]
    pub fn absent(mut self, key: Key) -> Self {
        self.guards.push(Guard::Absent(key));
        self
    }

    /// Adds the condition that the key was last written at this revision.
    #[must_use]
    pub fn unchanged(mut self, key: Key, revision: Revision) -> Self {
        self.guards.push(Guard::Unchanged(key, revision));
        self
    }

    /// Adds a write.
    #[must_use]
    pub fn put(mut self, key: Key, value: impl Into<Bytes>, lease: Option<LeaseId>) -> Self {
        self.ops.push(Op::Put { key, value: value.into(), lease });
        self
    }

    /// Adds a deletion.
    #[must_use]
    pub fn delete(mut self, key: Key) -> Self {
        self.ops.push(Op::Delete { key });
        self
    }

    /// What every backend checks before it sends a transaction: no key is written twice, and the number of
    /// keys (guarded and written) is within `atomic_keys_max`.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the key, or [`Error::Unsupported`] naming the limit.
    pub fn check(&self, atomic_keys_max: usize) -> Result<()> {
        let mut written = BTreeSet::new();
        if let Some(op) = self.ops.iter().find(|op| !written.insert(op.key())) {
            return Err(Error::invalid("transaction", op.key().as_str(), "this key is written twice"));
        }
        let guarded = self.guards.iter().map(|guard| match guard {
            Guard::Absent(key) | Guard::Unchanged(key, _) => key,
        });
        written.extend(guarded);
        if written.len() > atomic_keys_max {
            return Err(Error::unsupported(
                format!("a transaction over {} keys", written.len()),
                format!("this backend takes at most {atomic_keys_max}; split it"),
            ));
        }
        Ok(())
    }
}

/// The answer to a transaction. Losing a race is an answer, not an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a refused transaction changed nothing"]
pub enum Commit {
    /// All guards held. The revision of the writes, or the current one if nothing changed.
    Applied(Revision),
    /// A guard did not hold; nothing happened.
    Refused,
}
