use std::collections::VecDeque;

use slipring_core::{Batch, Change, Error, Result, Revision};

/// The newest revisions, one batch each, without holes. Never empty: the newest one always stays.
#[derive(Debug, Clone)]
pub(super) struct History {
    log: VecDeque<Batch>,
}

impl History {
    /// The history of a fresh store: it begins at revision 1, in which nothing happened.
    pub(super) fn new() -> Self {
        Self { log: VecDeque::from([Batch { revision: Revision(1), changes: Vec::new() }]) }
    }

    /// The current revision.
    pub(super) fn head(&self) -> Revision {
        self.log.back().expect("the newest revision always stays").revision
    }

    /// The oldest revision after which all is known.
    pub(super) fn oldest(&self) -> Revision {
        let first = self.log.front().expect("the newest revision always stays").revision;
        Revision(first.0 - 1)
    }

    /// The next revision, and what is beyond the bound forgotten.
    pub(super) fn append(&mut self, changes: Vec<Change>, revisions_max: usize) -> &Batch {
        let revision = Revision(self.head().0 + 1);
        self.log.push_back(Batch { revision, changes });
        let excess = self.log.len().saturating_sub(revisions_max.max(1));
        self.log.drain(..excess);
        self.log.back().expect("it was just appended")
    }

    /// Forgets what came before a revision, which itself stays.
    pub(super) fn compact(&mut self, revision: Revision) -> Result<()> {
        let oldest = self.oldest();
        if revision <= oldest || revision > self.head() {
            return Err(Error::compacted(oldest));
        }
        let excess = revision.0 - oldest.0 - 1;
        self.log.drain(..usize::try_from(excess).expect("it is below the length of the log"));
        Ok(())
    }

    /// Everything after a revision.
    pub(super) fn after(&self, revision: Revision) -> Result<impl Iterator<Item = &Batch>> {
        let oldest = self.oldest();
        if revision < oldest || revision > self.head() {
            return Err(Error::compacted(oldest));
        }
        let skipped = revision.0 - oldest.0;
        Ok(self.log.range(usize::try_from(skipped).expect("it is within the length of the log")..))
    }
}
