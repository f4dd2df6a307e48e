use std::collections::VecDeque;

use slipring_core::{Batch, Change, Error, Result, Revision};

/// The newest revisions, one batch each, without holes.
#[derive(Debug, Clone)]
pub(super) struct History {
    /// All after this is in the log.
    oldest: Revision,
    log: VecDeque<Batch>,
}

impl History {
    /// The history of a fresh store: it begins at revision 1, in which nothing happened.
    pub(super) fn new() -> Self {
        let first = Batch { revision: Revision(1), changes: Vec::new() };
        Self { oldest: Revision(0), log: VecDeque::from([first]) }
    }

    /// The current revision.
    pub(super) fn head(&self) -> Revision {
        Revision(self.oldest.0 + self.log.len() as u64)
    }

    /// The oldest revision after which all is known.
    pub(super) fn oldest(&self) -> Revision {
        self.oldest
    }

    /// The next revision, and what is beyond the bound forgotten.
    pub(super) fn append(&mut self, changes: Vec<Change>, revisions_max: usize) -> &Batch {
        let revision = Revision(self.head().0 + 1);
        self.log.push_back(Batch { revision, changes });
        self.forget(self.log.len().saturating_sub(revisions_max.max(1)));
        self.log.back().expect("it was just appended, and one at least is kept")
    }

    /// Forgets what came up to a revision, itself included.
    pub(super) fn compact(&mut self, revision: Revision) -> Result<()> {
        if revision <= self.oldest || revision > self.head() {
            return Err(Error::compacted(self.oldest));
        }
        self.forget(self.skipped_by(revision));
        Ok(())
    }

    /// Everything after a revision.
    pub(super) fn after(&self, revision: Revision) -> Result<impl Iterator<Item = &Batch>> {
        if revision < self.oldest || revision > self.head() {
            return Err(Error::compacted(self.oldest));
        }
        Ok(self.log.range(self.skipped_by(revision)..))
    }

    fn forget(&mut self, revisions: usize) {
        self.log.drain(..revisions);
        self.oldest.0 += revisions as u64;
    }

    /// How many revisions of the log are not after a revision, which is within it.
    fn skipped_by(&self, revision: Revision) -> usize {
        usize::try_from(revision.0 - self.oldest.0).expect("it is within the length of the log")
    }
}
