//! What a store has to answer, written to be read, not to be fast: the whole content at every revision, as a
//! plain map each. No code is shared with the store.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use slipring_core::{
    Base, Batch, Change, Commit, Entry, Error, Guard, Key, LeaseId, Op, Range, Result, Revision, Snapshot,
    Start, Txn,
};

use crate::run::{Answer, Input, World};

type Content = BTreeMap<String, (Bytes, u64, Option<LeaseId>)>;

/// A store as a list of everything that it ever held.
#[derive(Debug)]
pub(crate) struct Model {
    world: World,
    now: Duration,
    /// What it held at revision 1, 2, 3, and so on.
    contents: Vec<Content>,
    /// The keys that were written in each of these revisions, in order.
    written: Vec<Vec<String>>,
    /// All history up to here is forgotten.
    oldest: u64,
    leases: Vec<ModelLease>,
    watches: Vec<ModelWatch>,
}

#[derive(Debug)]
struct ModelLease {
    id: LeaseId,
    ttl: Duration,
    end: Duration,
}

#[derive(Debug)]
struct ModelWatch {
    range: Range,
    seen: u64,
    open: bool,
}

impl Model {
    pub(crate) fn new(world: World) -> Self {
        Self {
            world,
            now: Duration::ZERO,
            contents: vec![Content::new()],
            written: vec![Vec::new()],
            oldest: 0,
            leases: Vec::new(),
            watches: Vec::new(),
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        Revision(self.contents.len() as u64)
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        let (_, content) = self.current();
        content.iter().map(|(key, value)| entry(key, value)).collect()
    }

    pub(crate) fn leases(&self) -> Vec<LeaseId> {
        let mut ids: Vec<LeaseId> = self.leases.iter().map(|lease| lease.id).collect();
        ids.sort();
        ids
    }

    /// What the store must answer. It may choose the id of a lease: that is taken from its own answer.
    pub(crate) fn answer(&mut self, input: &Input, of_store: &Answer) -> Answer {
        match input {
            Input::Advance(time) => {
                self.advance(*time);
                Answer::Done
            }
            Input::Read(range) => Answer::Read(self.snapshot(range)),
            Input::Commit(txn) => Answer::Commit(self.commit(txn)),
            Input::Grant(ttl) => {
                let Answer::Grant(Ok(lease)) = of_store else {
                    panic!("the store did not grant: {of_store:?}")
                };
                let ttl = (*ttl).max(self.world.ttl_min);
                self.leases.push(ModelLease { id: lease.id, ttl, end: self.now + ttl });
                Answer::Grant(Ok(slipring_core::Lease { id: lease.id, ttl }))
            }
            Input::KeepAlive(id) => Answer::KeepAlive(self.keep_alive(*id)),
            Input::Revoke(id) => Answer::Revoke(self.revoke(*id)),
            Input::Compact(revision) => Answer::Compact(self.compact(*revision)),
            Input::Watch(range, start) => Answer::Watch(self.watch(range, *start)),
            Input::Poll(watch) => Answer::Poll(self.poll(*watch)),
            Input::Close(watch) => {
                if let Some(watch) = self.watches.get_mut(*watch) {
                    watch.open = false;
                }
                Answer::Done
            }
        }
    }

    fn current(&self) -> (u64, &Content) {
        (self.contents.len() as u64, &self.contents[self.contents.len() - 1])
    }

    /// Goes through time in steps of a millisecond, and through the leases one by one.
    fn advance(&mut self, by: Duration) {
        let to = self.now + by;
        while self.now < to {
            self.now += Duration::from_millis(1);
            let every = self.world.granularity.as_millis();
            let since_phase = self.now.as_millis().checked_sub(self.world.phase.as_millis());
            let looks = every == 0 || since_phase.is_some_and(|since| since.is_multiple_of(every));
            let most =
                if self.world.granularity.is_zero() { usize::MAX } else { self.world.expiries_per_scan };
            let mut removed = 0;
            while looks && removed < most {
                let due = self.leases.iter().filter(|lease| lease.end <= self.now);
                let Some(id) = due.min_by_key(|lease| (lease.end, lease.id)).map(|lease| lease.id) else {
                    break;
                };
                self.end(id);
                removed += 1;
            }
        }
    }

    fn snapshot(&self, range: &Range) -> Snapshot {
        let (revision, content) = self.current();
        let inside = content.iter().filter(|(key, _)| is_in(range, key));
        Snapshot {
            revision: Revision(revision),
            entries: inside.map(|(key, value)| entry(key, value)).collect(),
        }
    }

    fn commit(&mut self, txn: &Txn) -> Result<Commit> {
        txn.check(self.world.atomic_keys_max)?;
        let (_, content) = self.current();
        let holds = |guard: &Guard| match guard {
            Guard::Absent(key) => content.get(key.as_str()).is_none(),
            Guard::Unchanged(key, revision) => {
                content.get(key.as_str()).map(|(_, modified, _)| *modified) == Some(revision.0)
            }
        };
        if !txn.guards.iter().all(holds) {
            return Ok(Commit::Refused);
        }
        for op in &txn.ops {
            if let Op::Put { lease: Some(lease), .. } = op
                && !self.leases.iter().any(|granted| granted.id == *lease)
            {
                return Err(Error::lease_lost(*lease));
            }
        }
        self.write(&txn.ops);
        Ok(Commit::Applied(self.revision()))
    }

    fn write(&mut self, ops: &[Op]) {
        let (revision, content) = self.current();
        let mut next = content.clone();
        let mut written = Vec::new();
        for op in ops {
            let key = op.key().as_str().to_owned();
            match op {
                Op::Put { value, lease, .. } => {
                    next.insert(key.clone(), (value.clone(), revision + 1, *lease));
                    written.push(key);
                }
                Op::Delete { .. } => {
                    if next.remove(&key).is_some() {
                        written.push(key);
                    }
                }
            }
        }
        if !written.is_empty() {
            self.contents.push(next);
            self.written.push(written);
            let kept = self.world.history_revisions_max as u64;
            self.oldest = self.oldest.max((revision + 1).saturating_sub(kept));
        }
    }

    fn keep_alive(&mut self, id: LeaseId) -> Result<Duration> {
        let now = self.now;
        let lease = self.leases.iter_mut().find(|lease| lease.id == id && now < lease.end);
        let lease = lease.ok_or(Error::lease_lost(id))?;
        lease.end = now + lease.ttl;
        Ok(lease.ttl)
    }

    fn revoke(&mut self, id: LeaseId) -> Result<()> {
        if !self.leases.iter().any(|lease| lease.id == id) {
            return Err(Error::lease_lost(id));
        }
        self.end(id);
        Ok(())
    }

    fn end(&mut self, id: LeaseId) {
        self.leases.retain(|lease| lease.id != id);
        let (_, content) = self.current();
        let attached = content.iter().filter(|(_, (_, _, lease))| *lease == Some(id));
        let deletes: Vec<Op> = attached.map(|(key, _)| Op::Delete { key: Key::new(key).unwrap() }).collect();
        if self.world.expiry_atomic {
            self.write(&deletes);
        } else {
            deletes.iter().for_each(|delete| self.write(std::slice::from_ref(delete)));
        }
    }

    fn compact(&mut self, revision: Revision) -> Result<()> {
        if revision.0 <= self.oldest || revision > self.revision() {
            return Err(Error::compacted(Revision(self.oldest)));
        }
        self.oldest = revision.0;
        Ok(())
    }

    fn watch(&mut self, range: &Range, start: Start) -> Result<Base> {
        let (seen, base) = match start {
            Start::Snapshot => (self.revision(), Base::Snapshot(self.snapshot(range))),
            Start::After(revision) => {
                if revision.0 < self.oldest || revision > self.revision() {
                    return Err(Error::compacted(Revision(self.oldest)));
                }
                (revision, Base::Resumed(revision))
            }
        };
        self.watches.push(ModelWatch { range: range.clone(), seen: seen.0, open: true });
        Ok(base)
    }

    fn poll(&mut self, watch: usize) -> Result<Option<Batch>> {
        let head = self.revision().0;
        let Some(ModelWatch { range, seen, open: true }) = self.watches.get(watch) else { return Ok(None) };
        let mut unseen = (seen + 1..=head).map(|revision| self.changes(revision, range));
        let found = unseen.find(|batch| !batch.changes.is_empty());
        let watch = &mut self.watches[watch];
        match &found {
            Some(batch) if batch.revision.0 <= self.oldest => {
                watch.open = false;
                return Err(Error::compacted(Revision(self.oldest)));
            }
            Some(batch) => watch.seen = batch.revision.0,
            None => watch.seen = head,
        }
        Ok(found)
    }

    /// What happened in a range at a revision.
    fn changes(&self, revision: u64, range: &Range) -> Batch {
        let at = revision as usize - 1;
        let inside = self.written[at].iter().filter(|key| is_in(range, key));
        let changes = inside.map(|key| match self.contents[at].get(key) {
            Some(value) => Change::Put(entry(key, value)),
            None => Change::Delete(Key::new(key).unwrap()),
        });
        Batch { revision: Revision(revision), changes: changes.collect() }
    }
}

fn entry(key: &str, (value, modified, lease): &(Bytes, u64, Option<LeaseId>)) -> Entry {
    let key = Key::new(key).unwrap();
    Entry { key, value: value.clone(), modified: Revision(*modified), lease: *lease }
}

/// Is the key in the range?
pub(crate) fn is_in(range: &Range, key: &str) -> bool {
    match range {
        Range::All => true,
        Range::Key(one) => key == one.as_str(),
        Range::Prefix(prefix) => key.get(..prefix.as_str().len()) == Some(prefix.as_str()),
    }
}
