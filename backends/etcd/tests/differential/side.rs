//! One of two stores that are compared, told and heard in numbers that both share.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use slipring_core::{
    Base, Batch, Change, Commit, Discovery, Effect, Entry, Error, Guard, LeaseId, Op, Range, Result,
    Revision, Snapshot, Start, Txn, async_trait,
};
use tokio::time::{Instant, timeout_at};

/// How long an event may take that has to come.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// The first lease that was granted is this one in the comparison; smaller numbers are leases that never were.
const FIRST_LEASE: u64 = 1000;

/// Who may forget history, which no [`Discovery`] does.
#[async_trait]
pub(crate) trait Operator: Send + Sync {
    /// Forgets what came before a revision.
    async fn compact(&self, revision: Revision) -> Result<()>;
}

/// What a store is asked. Revisions count from the beginning of the sequence, where it is 1; leases from
/// [`FIRST_LEASE`].
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Read(Range),
    Commit(Txn),
    Grant(Duration),
    KeepAlive(LeaseId),
    Revoke(LeaseId),
    /// With `gone`, the history asked for is not there: the refusal may also be the first event.
    Watch {
        range: Range,
        start: Start,
        gone: bool,
    },
    Close(usize),
    Compact(Revision),
    /// A transaction that each open watch sees, and then all that each watch saw until it.
    CatchUp(Txn),
}

/// What it says, in the same numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Done,
    Failed(Failure),
    Read(Snapshot),
    Commit(Commit),
    /// The time granted or left.
    Lives(Duration),
    Watch(Base),
    CaughtUp(Vec<Seen>),
}

/// What a watch yielded, in order, and why it ended if it did.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub batches: Vec<Batch>,
    pub failed: Option<Failure>,
}

/// An error as far as stores have to agree on it: not its words.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    code: &'static str,
    effect: Effect,
    /// The lease that is lost, or the limit of what is too large.
    about: Vec<u64>,
}

/// A store under comparison.
pub(crate) struct Side {
    pub discovery: Arc<dyn Discovery>,
    operator: Arc<dyn Operator>,
    /// What is added to a revision of the comparison.
    offset: u64,
    leases: Vec<LeaseId>,
    /// Those that were opened; `None` when closed.
    watches: Vec<Option<BoxStream<'static, Result<Batch>>>>,
}

impl Side {
    /// A store whose present is the beginning of a sequence: what came before is forgotten.
    pub(crate) async fn new(discovery: Arc<dyn Discovery>, operator: Arc<dyn Operator>) -> Self {
        let now = discovery.read(Range::All).await.expect("the store answers").revision;
        // Refused if the last sequence ended by forgetting just this.
        let _ = operator.compact(now).await;
        Self { discovery, operator, offset: now.0 - 1, leases: Vec::new(), watches: Vec::new() }
    }

    /// Does what is asked, and says what came of it.
    pub(crate) async fn answer(&mut self, ask: &Ask) -> Answer {
        let answer = self.try_answer(ask).await;
        answer.unwrap_or_else(|error| Answer::Failed(self.failure(&error, ask)))
    }

    async fn try_answer(&mut self, ask: &Ask) -> Result<Answer> {
        Ok(match ask {
            Ask::Read(range) => Answer::Read(self.snapshot(self.discovery.read(range.clone()).await?)),
            Ask::Commit(txn) => {
                let commit = self.discovery.commit(self.txn(txn)).await?;
                Answer::Commit(self.commit(commit))
            }
            Ask::Grant(ttl) => Answer::Lives(self.grant(*ttl).await?),
            Ask::KeepAlive(lease) => Answer::Lives(self.discovery.keep_alive(self.theirs(*lease)).await?),
            Ask::Revoke(lease) => {
                self.discovery.revoke(self.theirs(*lease)).await?;
                Answer::Done
            }
            Ask::Watch { range, start, gone } => self.watch(range, *start, *gone).await?,
            Ask::Close(watch) => {
                self.watches[*watch] = None;
                Answer::Done
            }
            Ask::Compact(revision) => {
                self.operator.compact(self.denormal(*revision)).await?;
                Answer::Done
            }
            Ask::CatchUp(txn) => self.catch_up(txn).await?,
        })
    }

    async fn grant(&mut self, ttl: Duration) -> Result<Duration> {
        let lease = self.discovery.grant(ttl).await?;
        let fresh = lease.id.0 != 0 && lease.id.0 < 1 << 53 && !self.leases.contains(&lease.id);
        assert!(fresh, "{:?} is no name for a lease, or was one before", lease.id);
        self.leases.push(lease.id);
        Ok(lease.ttl)
    }

    async fn watch(&mut self, range: &Range, start: Start, gone: bool) -> Result<Answer> {
        let start = match start {
            Start::Snapshot => Start::Snapshot,
            Start::After(revision) => Start::After(self.denormal(revision)),
        };
        let mut watch = self.discovery.watch(range.clone(), start).await?;
        if gone && let Some(Err(error)) = next(&mut watch.events, Instant::now() + SILENCE_MAX).await {
            return Err(error);
        }
        self.watches.push(Some(watch.events));
        Ok(Answer::Watch(match watch.base {
            Base::Snapshot(snapshot) => Base::Snapshot(self.snapshot(snapshot)),
            Base::Resumed(revision) => Base::Resumed(self.normal(revision)),
        }))
    }

    async fn catch_up(&mut self, txn: &Txn) -> Result<Answer> {
        let Commit::Applied(until) = self.discovery.commit(txn.clone()).await? else {
            panic!("a transaction without guards was refused")
        };
        let mut all = Vec::new();
        for at in 0..self.watches.len() {
            let Some(mut events) = self.watches[at].take() else { continue };
            let mut seen = Seen { batches: Vec::new(), failed: None };
            let deadline = Instant::now() + SILENCE_MAX;
            let last = self.normal(until);
            while seen.failed.is_none() && seen.batches.last().is_none_or(|batch| batch.revision < last) {
                match next(&mut events, deadline).await {
                    Some(Ok(batch)) => seen.batches.push(self.batch(batch)),
                    Some(Err(error)) => seen.failed = Some(self.failure(&error, &Ask::CatchUp(txn.clone()))),
                    None => panic!("watch {at} ended without saying why"),
                }
            }
            self.watches[at] = seen.failed.is_none().then_some(events);
            all.push(seen);
        }
        Ok(Answer::CaughtUp(all))
    }

    /// The store's own revision. At 0 nothing ever happened, anywhere; and no store reaches the last one.
    fn denormal(&self, revision: Revision) -> Revision {
        Revision(revision.0.saturating_add(self.offset))
    }

    fn normal(&self, revision: Revision) -> Revision {
        if revision.0 == u64::MAX { revision } else { Revision(revision.0.saturating_sub(self.offset)) }
    }

    fn theirs(&self, lease: LeaseId) -> LeaseId {
        let granted = lease.0.checked_sub(FIRST_LEASE).and_then(|at| usize::try_from(at).ok());
        granted.and_then(|at| self.leases.get(at).copied()).unwrap_or(lease)
    }

    fn ours(&self, lease: LeaseId) -> LeaseId {
        let granted = self.leases.iter().position(|granted| *granted == lease);
        granted.map_or(lease, lease_id)
    }

    fn txn(&self, txn: &Txn) -> Txn {
        let mut txn = txn.clone();
        for guard in &mut txn.guards {
            if let Guard::Unchanged(_, revision) = guard
                && revision.0 > 0
            {
                *revision = self.denormal(*revision);
            }
        }
        for op in &mut txn.ops {
            if let Op::Put { lease: Some(lease), .. } = op {
                *lease = self.theirs(*lease);
            }
        }
        txn
    }

    fn commit(&self, commit: Commit) -> Commit {
        match commit {
            Commit::Applied(revision) => Commit::Applied(self.normal(revision)),
            Commit::Refused => Commit::Refused,
        }
    }

    fn entry(&self, entry: Entry) -> Entry {
        Entry {
            modified: self.normal(entry.modified),
            lease: entry.lease.map(|lease| self.ours(lease)),
            ..entry
        }
    }

    fn snapshot(&self, snapshot: Snapshot) -> Snapshot {
        Snapshot {
            revision: self.normal(snapshot.revision),
            entries: snapshot.entries.into_iter().map(|entry| self.entry(entry)).collect(),
        }
    }

    fn batch(&self, batch: Batch) -> Batch {
        let changes = batch.changes.into_iter().map(|change| match change {
            Change::Put(entry) => Change::Put(self.entry(entry)),
            delete => delete,
        });
        Batch { revision: self.normal(batch.revision), changes: changes.collect() }
    }

    fn failure(&self, error: &Error, ask: &Ask) -> Failure {
        let about = match error {
            // Of several leases etcd does not say which one is lost.
            Error::LeaseLost { .. } if matches!(ask, Ask::Commit(txn) if names_several_leases(txn)) => vec![],
            Error::LeaseLost { lease, .. } => vec![self.ours(*lease).0],
            // How much a request takes beyond its values is each store's own matter.
            Error::PayloadTooLarge { limit, .. } => vec![*limit as u64],
            _ => vec![],
        };
        Failure { code: error.code(), effect: error.effect(), about }
    }
}

/// The number of a granted lease in the comparison.
pub(crate) fn lease_id(granted: usize) -> LeaseId {
    LeaseId(FIRST_LEASE + granted as u64)
}

fn names_several_leases(txn: &Txn) -> bool {
    let named = txn.ops.iter().filter_map(|op| match op {
        Op::Put { lease, .. } => *lease,
        Op::Delete { .. } => None,
    });
    named.collect::<BTreeSet<_>>().len() > 1
}

/// The next item of a watch that is more than progress.
async fn next(events: &mut BoxStream<'static, Result<Batch>>, deadline: Instant) -> Option<Result<Batch>> {
    loop {
        match timeout_at(deadline, events.next()).await {
            Ok(Some(Ok(progress))) if progress.changes.is_empty() => {}
            Ok(item) => return item,
            Err(_) => {
                return Some(Err(Error::deadline_exceeded("the watch", SILENCE_MAX, Effect::None)));
            }
        }
    }
}

impl Answer {
    /// What kind of answer it is, for counting.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed(failure) => failure.code,
            Self::Read(_) => "read",
            Self::Commit(Commit::Applied(_)) => "applied",
            Self::Commit(Commit::Refused) => "refused",
            Self::Lives(_) => "granted or kept",
            Self::Watch(Base::Snapshot(_)) => "watch from a snapshot",
            Self::Watch(Base::Resumed(_)) => "watch resumed",
            Self::CaughtUp(_) => "caught up",
        }
    }
}
