//! A sequence of steps, done to two stores in turn, whose answers have to be the same.

use std::collections::BTreeSet;

use slipring_core::{Entry, Key, LeaseId, Range, Revision, Snapshot, Start, Txn};

use crate::agreement::{Counts, Divergence, differ};
use crate::side::{Answer, Ask, Side, lease_id};
use crate::step::{Condition, From, Step, Value, Which, Write};

/// The kinds of answers that even a fraction of all sequences has to have shown.
pub(crate) const KINDS: [&str; 13] = [
    "applied",
    "batches",
    "caught up",
    "compacted",
    "done",
    "granted or kept",
    "invalid",
    "lease_lost",
    "read",
    "refused",
    "unsupported",
    "watch from a snapshot",
    "watch resumed",
];

/// Two stores, and what is needed to ask them something that makes sense.
pub(crate) struct Contest {
    sides: [Side; 2],
    /// The largest value that both take.
    value_bytes_max: usize,
    /// The ranges of the watches that were opened; `None` when closed.
    ranges: Vec<Option<Range>>,
    granted: usize,
    /// The oldest revision after which all is known.
    oldest: Revision,
    catch_ups: u64,
    counts: Counts,
}

impl Contest {
    pub(crate) async fn new(sides: [Side; 2]) -> Self {
        let capabilities = sides[0].discovery.capabilities().await.expect("the store answers");
        Self {
            sides,
            value_bytes_max: capabilities.value_bytes_max,
            ranges: Vec::new(),
            granted: 0,
            oldest: Revision(1),
            catch_ups: 0,
            counts: Counts::new(),
        }
    }

    /// Does all steps, then ends the leases and reads everything to its end.
    pub(crate) async fn run(mut self, steps: &[Step]) -> Result<Counts, Divergence> {
        for step in steps {
            self.step(step).await?;
        }
        for granted in 0..self.granted {
            self.compare(Ask::Revoke(lease_id(granted))).await?;
        }
        self.catch_up().await?;
        self.compare(Ask::Read(Range::All)).await?;
        Ok(self.counts)
    }

    async fn step(&mut self, step: &Step) -> Result<(), Divergence> {
        match step {
            Step::Read(range) => self.compare(Ask::Read(range.clone())).await?,
            Step::Commit(conditions, writes) => {
                let txn = self.txn(conditions, writes).await;
                self.compare(Ask::Commit(txn)).await?
            }
            Step::Wide(guarded, written) => self.compare(Ask::Commit(wide(*guarded, *written))).await?,
            Step::Grant(ttl) => {
                if let Answer::Lives(_) = self.compare(Ask::Grant(*ttl)).await? {
                    self.granted += 1;
                }
                return Ok(());
            }
            Step::KeepAlive(which) => self.compare(Ask::KeepAlive(self.lease(which))).await?,
            Step::Revoke(which) => self.compare(Ask::Revoke(self.lease(which))).await?,
            Step::Watch(range, from) => return self.watch(range, from).await,
            Step::Close(watch) => return self.close(*watch).await,
            Step::Compact(back) => return self.compact(*back).await,
            Step::CatchUp => return self.catch_up().await,
        };
        Ok(())
    }

    async fn watch(&mut self, range: &Range, from: &From) -> Result<(), Divergence> {
        let head = self.now().await.revision;
        let start = match from {
            From::Snapshot => Start::Snapshot,
            From::Back(back) => Start::After(Revision(head.0.saturating_add_signed(-back))),
            From::AtEnd => Start::After(Revision(u64::MAX)),
        };
        let gone = matches!(start, Start::After(after) if after < self.oldest || after > head);
        if let Answer::Watch(_) = self.compare(Ask::Watch { range: range.clone(), start, gone }).await? {
            self.ranges.push(Some(range.clone()));
        }
        Ok(())
    }

    async fn close(&mut self, watch: usize) -> Result<(), Divergence> {
        let Some(range) = self.ranges.get_mut(watch) else { return Ok(()) };
        *range = None;
        self.compare(Ask::Close(watch)).await.map(|_| ())
    }

    /// A slow watch is cancelled by a compaction, and which watch is slow is a matter of time: so all are
    /// first read to their ends.
    async fn compact(&mut self, back: i64) -> Result<(), Divergence> {
        self.catch_up().await?;
        let head = self.now().await.revision;
        let revision = Revision(head.0.saturating_add_signed(-back));
        if self.compare(Ask::Compact(revision)).await? == Answer::Done {
            self.oldest = revision;
        }
        Ok(())
    }

    async fn catch_up(&mut self) -> Result<(), Divergence> {
        let seen = self.ranges.iter().flatten().map(|range| match range {
            Range::All => Key::new("-").unwrap(),
            Range::Key(key) => key.clone(),
            Range::Prefix(prefix) => prefix.key("-").unwrap(),
        });
        let keys: BTreeSet<Key> = seen.collect();
        if keys.is_empty() {
            return Ok(());
        }
        self.catch_ups += 1;
        let value = format!("caught up {}", self.catch_ups);
        let txn = keys.into_iter().fold(Txn::new(), |txn, key| txn.put(key, value.clone(), None));
        let Answer::CaughtUp(seen) = self.compare(Ask::CatchUp(txn)).await? else { return Ok(()) };
        for (range, seen) in self.ranges.iter_mut().filter(|range| range.is_some()).zip(&seen) {
            *self.counts.entry("batches").or_default() += seen.batches.len() as u64;
            if seen.failed.is_some() {
                *range = None;
            }
        }
        Ok(())
    }

    /// Everything that is in the store, without comparing.
    async fn now(&mut self) -> Snapshot {
        match self.sides[0].answer(&Ask::Read(Range::All)).await {
            Answer::Read(snapshot) => snapshot,
            answer => panic!("a store that stands still fails: {answer:?}"),
        }
    }

    async fn txn(&mut self, conditions: &[(Key, Condition)], writes: &[Write]) -> Txn {
        let now = self.now().await;
        let mut txn = Txn::new();
        for (key, condition) in conditions {
            let written = |entry: &&Entry| entry.key == *key;
            let modified = now.entries.iter().find(written).map_or(now.revision, |entry| entry.modified);
            let key = key.clone();
            txn = match condition {
                Condition::Absent => txn.absent(key),
                Condition::Unchanged => txn.unchanged(key, modified),
                Condition::Stale => txn.unchanged(key, Revision(modified.0 - 1)),
                Condition::AtZero => txn.unchanged(key, Revision(0)),
                Condition::AtEnd => txn.unchanged(key, Revision(u64::MAX)),
            };
        }
        writes.iter().fold(txn, |txn, write| match write {
            Write::Put(key, value, lease) => {
                let bytes = match value {
                    Value::Short(seed) => vec![*seed; usize::from(*seed % 3)],
                    Value::Limit(more) => vec![b'v'; self.value_bytes_max.saturating_add_signed(*more)],
                };
                txn.put(key.clone(), bytes, lease.as_ref().map(|which| self.lease(which)))
            }
            Write::Delete(key) => txn.delete(key.clone()),
        })
    }

    fn lease(&self, which: &Which) -> LeaseId {
        match which {
            Which::Granted(at) => lease_id(at % self.granted.max(1)),
            Which::Unknown(id) => LeaseId(*id),
        }
    }

    /// Asks both; the answer if it is the same.
    async fn compare(&mut self, ask: Ask) -> Result<Answer, Divergence> {
        let [one, other] = &mut self.sides;
        let answers = [one.answer(&ask).await, other.answer(&ask).await];
        differ(&ask, &answers[0], &answers[1])?;
        let [answer, _] = answers;
        *self.counts.entry(answer.kind()).or_default() += 1;
        Ok(answer)
    }
}

fn wide(guarded: usize, written: usize) -> Txn {
    let key = |kind: &str, at: usize| Key::new(format!("{kind}/{at}")).unwrap();
    let txn = (0..guarded).fold(Txn::new(), |txn, at| txn.absent(key("guarded", at)));
    (0..written).fold(txn, |txn, at| txn.put(key("written", at), "", None))
}
