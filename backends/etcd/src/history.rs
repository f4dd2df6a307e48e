use slipring_core::Revision;

/// What a handle has seen of the store's history, to notice that the store was emptied or restored: then
/// revisions count anew, and etcd takes one of the old history for one of the new.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// The cluster, as it names itself.
    cluster: Option<u64>,
    /// The newest revision that was seen of this history.
    newest: Revision,
    /// A revision before this one may be of an older history.
    floor: Revision,
}

impl History {
    /// The newest revision that was seen. Taken before a question is sent: who answers it with less is not at
    /// that point of this history.
    pub(crate) fn newest(&self) -> Revision {
        self.newest
    }

    /// A change at this revision was shown.
    pub(crate) fn saw(&mut self, revision: Revision) {
        self.newest = self.newest.max(revision);
    }

    /// A server says that it is at `now`, in answer to a question that was sent when `asked` was the newest
    /// revision seen.
    ///
    /// A member that lags behind is taken for a new history too: that costs a fresh snapshot, where the other
    /// mistake would cost a change.
    pub(crate) fn answered(&mut self, cluster: u64, now: Revision, asked: Revision) {
        let another = self.cluster.replace(cluster).is_some_and(|known| known != cluster);
        if another || now < asked {
            self.floor = self.newest.max(self.floor);
            self.newest = now;
        }
        self.saw(now);
    }

    /// Can a watch go on after this revision, on a server that is at `now`?
    pub(crate) fn resumes(&self, after: Revision, now: Revision) -> bool {
        self.floor <= after && after <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const R: fn(u64) -> Revision = Revision;

    /// In one history a watch resumes after whatever is not beyond it.
    #[test]
    fn one_history_resumes() {
        let mut history = History::default();
        history.answered(1, R(10), history.newest());
        assert!(history.resumes(R(3), R(10)) && history.resumes(R(10), R(10)));
        assert!(!history.resumes(R(11), R(10)));
    }

    /// F39: what was seen before the store went back is no basis any more, also when the new history has
    /// overtaken it.
    #[test]
    fn f39_a_store_that_went_back_is_noticed() {
        let mut history = History::default();
        history.saw(R(100));
        history.answered(1, R(5), history.newest());
        assert!(!history.resumes(R(100), R(5)) && !history.resumes(R(4), R(5)));
        history.answered(1, R(150), history.newest());
        assert!(!history.resumes(R(99), R(150)));
        assert!(
            history.resumes(R(100), R(150)),
            "a revision above all that was seen before is of the new one"
        );
    }

    /// F39: another cluster at the same address is another history, whatever its revision.
    #[test]
    fn f39_another_cluster_is_noticed() {
        let mut history = History::default();
        history.answered(1, R(100), history.newest());
        history.answered(2, R(200), history.newest());
        assert!(!history.resumes(R(99), R(200)) && history.resumes(R(200), R(200)));
    }

    /// An answer that was under way while a newer revision was shown says nothing about the history.
    #[test]
    fn an_answer_that_was_overtaken_is_no_new_history() {
        let mut history = History::default();
        history.saw(R(10));
        let asked = history.newest();
        history.saw(R(12));
        history.answered(1, R(11), asked);
        assert!(history.resumes(R(10), R(11)) && history.newest() == R(12));
    }
}
