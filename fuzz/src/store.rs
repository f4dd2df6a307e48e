//! Operations on a store of two clients, and what has to hold after each of them.

use std::collections::BTreeMap;
use std::time::Duration;

use slipring_core::{
    Base, Batch, Change, Commit, Entry, Key, LeaseId, Prefix, Range, Result, Revision, Start, Txn,
};
use slipring_memory::store::{Saved, Store, WatchId};
use slipring_memory::{OnRestore, Profile};

/// The store: triples of bytes, an operation each; what is none is skipped.
pub fn store(data: &[u8]) {
    let mut session = Session::new();
    for operation in
        data.chunks_exact(3).filter_map(|triple| Operation::parse([triple[0], triple[1], triple[2]]))
    {
        session.run(operation);
        session.check();
    }
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    /// Lets so many hundredths of a second pass.
    Advance(u8),
    /// Writes a key, under one of the leases that were granted (or none).
    Put {
        key: u8,
        lease: u8,
    },
    Delete {
        key: u8,
    },
    /// Writes two keys if a third is as it was read (or absent).
    Swap {
        key: u8,
        guard: u8,
    },
    /// Creates a key under the last lease, unless it exists.
    Create {
        key: u8,
    },
    Grant {
        tenths: u8,
    },
    KeepAlive {
        lease: u8,
    },
    Revoke {
        lease: u8,
    },
    /// Forgets the history up to so many revisions before the current one.
    Compact {
        keep: u8,
    },
    Watch {
        range: u8,
    },
    /// Watches from so many revisions before the current one.
    Resume {
        range: u8,
        back: u8,
    },
    Poll {
        watch: u8,
    },
    Unwatch {
        watch: u8,
    },
    Save,
    Restore,
}

impl Operation {
    /// A letter and two arguments.
    fn parse([letter, first, second]: [u8; 3]) -> Option<Self> {
        Some(match letter {
            b'+' => Self::Advance(first),
            b'p' => Self::Put { key: first, lease: second },
            b'd' => Self::Delete { key: first },
            b's' => Self::Swap { key: first, guard: second },
            b'c' => Self::Create { key: first },
            b'g' => Self::Grant { tenths: first },
            b'k' => Self::KeepAlive { lease: first },
            b'r' => Self::Revoke { lease: first },
            b'f' => Self::Compact { keep: first },
            b'w' => Self::Watch { range: first },
            b'a' => Self::Resume { range: first, back: second },
            b'o' => Self::Poll { watch: first },
            b'u' => Self::Unwatch { watch: first },
            b'S' => Self::Save,
            b'R' => Self::Restore,
            _ => return None,
        })
    }
}

/// A store with what its clients know of it.
struct Session {
    store: Store,
    now: Duration,
    granted: Vec<LeaseId>,
    watchers: Vec<Watcher>,
    saved: Saved,
}

impl Session {
    fn new() -> Self {
        let profile = Profile::etcd().with_history_revisions_max(16).with_on_restore(OnRestore::End);
        let store = Store::new(profile, 7);
        Self { store, now: Duration::ZERO, granted: Vec::new(), watchers: Vec::new(), saved: Saved::empty() }
    }

    fn run(&mut self, operation: Operation) {
        let now = self.now;
        match operation {
            Operation::Advance(hundredths) => self.advance(Duration::from_millis(10 * u64::from(hundredths))),
            Operation::Put { key, lease } => {
                let lease = self.granted.get(usize::from(lease) % 8).copied();
                self.commit(Txn::new().put(name(key), [key].to_vec(), lease));
            }
            Operation::Delete { key } => self.commit(Txn::new().delete(name(key))),
            Operation::Swap { key, guard } => {
                let guarded = self.store.read(now, &name(guard).into()).entries.pop();
                let txn = match guarded {
                    Some(entry) => Txn::new().unchanged(entry.key, entry.modified),
                    None => Txn::new().absent(name(guard)),
                };
                self.commit(txn.put(name(key), "swapped", None).put(name(key ^ 1), "swapped", None));
            }
            Operation::Create { key } => {
                let lease = self.granted.last().copied();
                self.commit(Txn::new().absent(name(key)).put(name(key), "created", lease));
            }
            Operation::Grant { tenths } => self.grant(Duration::from_millis(100 * u64::from(tenths))),
            Operation::KeepAlive { lease } => self.beat(lease),
            Operation::Revoke { lease } => self.revoke(lease),
            Operation::Compact { keep } => {
                let revision = Revision(self.store.revision().0.saturating_sub(u64::from(keep)));
                let _compacted = self.store.compact(revision);
            }
            Operation::Watch { range: of } => self.watch(range(of), Start::Snapshot),
            Operation::Resume { range: of, back } => {
                let after = Revision(self.store.revision().0.saturating_sub(u64::from(back)));
                self.watch(range(of), Start::After(after));
            }
            Operation::Poll { watch } => self.poll(usize::from(watch)),
            Operation::Unwatch { watch } => {
                if let Some(index) = usize::from(watch).checked_rem(self.watchers.len()) {
                    self.store.unwatch(self.watchers.remove(index).id);
                }
            }
            Operation::Save => self.saved = self.store.export(),
            Operation::Restore => {
                self.store.import(now, self.saved.clone());
                for watcher in std::mem::take(&mut self.watchers) {
                    assert!(self.store.poll(watcher.id).is_err(), "a watch survived a restore");
                }
            }
        }
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        self.store.advance(self.now);
    }

    /// K2, K3: a commit moves the revision by one if it changes something, and else not at all.
    fn commit(&mut self, txn: Txn) {
        let before = self.store.read(self.now, &Range::All);
        let committed = self.store.commit(self.now, txn);
        let after = self.store.read(self.now, &Range::All);
        match committed {
            Ok(Commit::Applied(revision)) => {
                assert_eq!(revision, after.revision);
                let changed = u64::from(before.entries != after.entries);
                assert_eq!(after.revision.0, before.revision.0 + changed);
            }
            Ok(Commit::Refused) | Err(_) => assert_eq!(before, after),
        }
    }

    /// L8, L9: a lease lasts as long as was asked or longer, under a name that was never used.
    fn grant(&mut self, ttl: Duration) {
        if let Ok(lease) = self.store.grant(self.now, ttl) {
            assert!(lease.ttl >= ttl);
            assert!(lease.id.0 > 0 && !self.granted.contains(&lease.id));
            self.granted.push(lease.id);
        } else {
            assert!(ttl.is_zero());
        }
    }

    /// A heartbeat never revives: it succeeds only on a lease that is there.
    fn beat(&mut self, lease: u8) {
        let Some(index) = usize::from(lease).checked_rem(self.granted.len()) else { return };
        let lease = self.granted[index];
        if self.store.keep_alive(self.now, lease).is_ok() {
            assert!(self.store.leases().iter().any(|held| held.id == lease));
        }
    }

    /// L5: a lease is revoked once, and its keys are gone with it.
    fn revoke(&mut self, lease: u8) {
        let Some(index) = usize::from(lease).checked_rem(self.granted.len()) else { return };
        let lease = self.granted[index];
        let _revoked = self.store.revoke(self.now, lease);
        assert!(self.store.revoke(self.now, lease).is_err());
        let entries = self.store.read(self.now, &Range::All).entries;
        assert!(entries.iter().all(|entry| entry.lease != Some(lease)));
    }

    fn watch(&mut self, range: Range, start: Start) {
        let Ok((id, base)) = self.store.watch(self.now, range.clone(), start) else {
            assert!(matches!(start, Start::After(revision) if revision < self.store.oldest()));
            return;
        };
        self.watchers.push(Watcher::new(id, range, base));
    }

    fn poll(&mut self, watch: usize) {
        let Some(index) = watch.checked_rem(self.watchers.len()) else { return };
        let polled = self.store.poll(self.watchers[index].id);
        if !self.watchers[index].handle(polled) {
            self.watchers.remove(index);
        }
    }

    /// What holds at all times.
    fn check(&mut self) {
        let snapshot = self.store.read(self.now, &Range::All);
        assert!(snapshot.entries.is_sorted_by(|one, next| one.key < next.key));
        let leases = self.store.leases();
        for entry in &snapshot.entries {
            assert!(entry.modified <= snapshot.revision);
            assert!(entry.lease.is_none_or(|lease| leases.iter().any(|held| held.id == lease)));
        }
        assert!(self.store.next_deadline().is_none_or(|deadline| deadline > self.now));
        assert_eq!(self.store.next_deadline().is_none(), leases.is_empty());
        assert_eq!(self.store.watches(), self.watchers.len());
        for watcher in &self.watchers {
            watcher.check(&mut self.store, self.now);
        }
    }
}

/// One watch, and the range as it shows it.
struct Watcher {
    id: WatchId,
    range: Range,
    revision: Revision,
    /// None if it resumed: it was never told what was there.
    entries: Option<BTreeMap<Key, Entry>>,
}

impl Watcher {
    fn new(id: WatchId, range: Range, base: Base) -> Self {
        match base {
            Base::Resumed(revision) => Self { id, range, revision, entries: None },
            Base::Snapshot(snapshot) => {
                let entries = snapshot.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
                Self { id, range, revision: snapshot.revision, entries: Some(entries) }
            }
        }
    }

    /// W1, W2, W7: revisions grow, and changes are of the range. Is the watch still open?
    fn handle(&mut self, polled: Result<Option<Batch>>) -> bool {
        let batch = match polled {
            Ok(Some(batch)) => batch,
            Ok(None) => return true,
            Err(error) => {
                assert_eq!(error.code(), "compacted");
                return false;
            }
        };
        assert!(batch.revision > self.revision);
        self.revision = batch.revision;
        assert!(!batch.changes.is_empty());
        for change in batch.changes {
            assert!(self.range.contains(change.key()));
            match (change, &mut self.entries) {
                (Change::Put(entry), Some(entries)) => drop(entries.insert(entry.key.clone(), entry)),
                (Change::Delete(key), Some(entries)) => {
                    assert!(entries.remove(&key).is_some(), "{key} was deleted, but never there");
                }
                (_, None) => {}
            }
        }
        true
    }

    /// W13: a watch that was given everything shows what a read shows.
    fn check(&self, store: &mut Store, now: Duration) {
        if let (Some(_), Some(entries)) = (store.progress(self.id), &self.entries) {
            assert!(entries.values().eq(&store.read(now, &self.range).entries));
        }
    }
}

/// One of eight keys, in two families.
fn name(number: u8) -> Key {
    let family = if number & 4 == 0 { "a" } else { "b" };
    Key::new(format!("{family}/{}", number & 3)).expect("it is a key")
}

fn range(number: u8) -> Range {
    match number % 4 {
        0 => Range::All,
        1 => Prefix::new("a/").expect("it is a prefix").into(),
        2 => Prefix::new("b/").expect("it is a prefix").into(),
        _ => name(number >> 2).into(),
    }
}
