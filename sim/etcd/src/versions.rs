//! All versions of all keys, as etcd numbers and shows them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use etcd_client::proto::PbKeyValue;
use slipring_core::{Batch, Change, Entry};

/// A key with its value, as it was written once.
pub(crate) type Kv = Arc<PbKeyValue>;

/// What a store holds and held since its last compaction.
#[derive(Debug, Clone)]
pub(crate) struct Versions {
    head: i64,
    /// -1 before the first compaction.
    compacted: i64,
    /// Each key's versions, oldest first.
    keys: BTreeMap<Bytes, Vec<Version>>,
    /// The events of each revision that is not compacted, in the order of its operations.
    log: BTreeMap<i64, Vec<Event>>,
}

/// What a key was from one revision on.
#[derive(Debug, Clone)]
struct Version {
    at: i64,
    /// None if it was deleted then.
    kv: Option<Kv>,
}

/// One change of one key.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// What it is now. Of a deletion: the key and its revision alone.
    pub(crate) kv: Kv,
    pub(crate) is_deletion: bool,
    /// What it was before; none if it was not there, or if that is compacted.
    pub(crate) before: Option<Kv>,
}

/// Why a revision cannot be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    Compacted,
    Future,
}

/// A range of keys: from a key to another, to the last one, or the key alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    from: Vec<u8>,
    end: Vec<u8>,
}

impl Span {
    /// As requests write it: without an end it is the key alone, and the end `\0` is behind the last key.
    pub(crate) fn new(from: Vec<u8>, end: Vec<u8>) -> Self {
        Self { from, end }
    }

    /// Can no key be in it?
    pub(crate) fn is_empty(&self) -> bool {
        !self.end.is_empty() && self.end != [0] && self.end <= self.from
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        match self.end.as_slice() {
            [] => key == self.from,
            [0] => key >= self.from.as_slice(),
            end => key >= self.from.as_slice() && key < end,
        }
    }

    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let from = self.from.as_slice();
        let end = match self.end.as_slice() {
            [] => Bound::Included(from),
            [0] => Bound::Unbounded,
            end => Bound::Excluded(end.max(from)),
        };
        (Bound::Included(from), end)
    }
}

impl Versions {
    /// Those of a fresh store.
    pub(crate) fn new() -> Self {
        Self { head: 1, compacted: -1, keys: BTreeMap::new(), log: BTreeMap::new() }
    }

    /// The current revision.
    pub(crate) fn head(&self) -> i64 {
        self.head
    }

    /// The revision of the last compaction, the oldest that can be shown.
    pub(crate) fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Adds the next revision.
    pub(crate) fn append(&mut self, batch: &Batch) {
        self.head = batch.revision.0.cast_signed();
        let events = batch.changes.iter().map(|change| self.change(change)).collect();
        self.log.insert(self.head, events);
    }

    fn change(&mut self, change: &Change) -> Event {
        let at = self.head;
        let key = Bytes::copy_from_slice(change.key().as_str().as_bytes());
        let versions = self.keys.entry(key).or_default();
        let before = versions.last().and_then(|version| version.kv.clone());
        let kv = match change {
            Change::Put(entry) => Some(Arc::new(next_version(before.as_deref(), entry))),
            Change::Delete(_) => None,
        };
        versions.push(Version { at, kv: kv.clone() });
        let is_deletion = kv.is_none();
        let kv = kv.unwrap_or_else(|| {
            let key = change.key().as_str().into();
            Arc::new(PbKeyValue { key, mod_revision: at, ..PbKeyValue::default() })
        });
        Event { kv, is_deletion, before }
    }

    /// Forgets what is not needed to show this revision and later ones.
    ///
    /// # Errors
    /// If it was forgotten already, or is still to come.
    pub(crate) fn compact(&mut self, at: i64) -> Result<(), Gone> {
        if at <= self.compacted {
            return Err(Gone::Compacted);
        }
        if at > self.head {
            return Err(Gone::Future);
        }
        self.compacted = at;
        for versions in self.keys.values_mut() {
            let shown = versions.iter().rposition(|version| version.at <= at);
            versions.drain(..shown.unwrap_or(0));
            // What is deleted need not be remembered.
            if versions.first().is_some_and(|version| version.at <= at && version.kv.is_none()) {
                versions.remove(0);
            }
        }
        self.keys.retain(|_, versions| !versions.is_empty());
        self.log = self.log.split_off(&at);
        // A watch may start at the compacted revision, but is not shown the deletions of it any more.
        if let Some(events) = self.log.get_mut(&at) {
            events.retain(|event| !event.is_deletion);
            events.iter_mut().for_each(|event| event.before = None);
        }
        Ok(())
    }

    /// The revision that a request means: 0 and less is the current one.
    ///
    /// # Errors
    /// If there is nothing to show of it.
    pub(crate) fn resolve(&self, revision: i64) -> Result<i64, Gone> {
        match revision {
            ..=0 => Ok(self.head),
            at if at > self.head => Err(Gone::Future),
            at if at < self.compacted => Err(Gone::Compacted),
            at => Ok(at),
        }
    }

    /// What was in a range at a revision that can be shown, in the order of keys.
    pub(crate) fn range<'a>(&'a self, span: &'a Span, at: i64) -> impl Iterator<Item = &'a Kv> {
        let keys = self.keys.range::<[u8], _>(span.bounds());
        keys.filter_map(move |(_, versions)| {
            let newest = versions.iter().rfind(|version| version.at <= at)?;
            newest.kv.as_ref()
        })
    }

    /// The key as it is now.
    pub(crate) fn current(&self, key: &[u8]) -> Option<&Kv> {
        self.keys.get(key)?.last()?.kv.as_ref()
    }

    /// The events from a revision on, which is not compacted.
    pub(crate) fn events_from(&self, revision: i64) -> impl Iterator<Item = (i64, &[Event])> {
        self.log.range(revision..).map(|(at, events)| (*at, events.as_slice()))
    }
}

/// What a put makes of a key.
pub(crate) fn next_version(before: Option<&PbKeyValue>, entry: &Entry) -> PbKeyValue {
    let mod_revision = entry.modified.0.cast_signed();
    PbKeyValue {
        key: entry.key.as_str().into(),
        create_revision: before.map_or(mod_revision, |before| before.create_revision),
        mod_revision,
        version: before.map_or(0, |before| before.version) + 1,
        value: entry.value.to_vec(),
        lease: entry.lease.map_or(0, |lease| lease.0.cast_signed()),
    }
}

#[cfg(test)]
mod tests {
    use slipring_core::{Key, Revision};

    use super::*;

    fn put(name: &str, at: u64) -> Change {
        let key = Key::new(name).unwrap();
        Change::Put(Entry { key, value: at.to_string().into(), modified: Revision(at), lease: None })
    }

    fn delete(name: &str) -> Change {
        Change::Delete(Key::new(name).unwrap())
    }

    /// a and b are written at 2, b and c at 3, b is deleted at 4, a is written at 5.
    fn versions() -> Versions {
        let mut versions = Versions::new();
        let revisions = [
            vec![put("a", 2), put("b", 2)],
            vec![put("b", 3), put("c", 3)],
            vec![delete("b")],
            vec![put("a", 5)],
        ];
        for (changes, revision) in revisions.into_iter().zip(2..) {
            versions.append(&Batch { revision: Revision(revision), changes });
        }
        versions
    }

    fn shown(versions: &Versions, at: i64) -> String {
        let all = Span::new(vec![0], vec![0]);
        let kvs = versions.range(&all, at).map(|kv| {
            let [key, value] = [&kv.key, &kv.value].map(|bytes| String::from_utf8_lossy(bytes));
            format!("{key}{value}({},{})", kv.create_revision, kv.version)
        });
        kvs.collect::<Vec<_>>().join(" ")
    }

    /// Each revision is shown as it was, with the creation and the count of writes of each key.
    #[test]
    fn revisions_are_shown_as_they_were() {
        let versions = versions();
        assert_eq!(shown(&versions, 1), "");
        assert_eq!(shown(&versions, 2), "a2(2,1) b2(2,1)");
        assert_eq!(shown(&versions, 3), "a2(2,1) b3(2,2) c3(3,1)");
        assert_eq!(shown(&versions, 4), "a2(2,1) c3(3,1)");
        assert_eq!(shown(&versions, 5), "a5(2,2) c3(3,1)");
    }

    /// A compaction leaves what it takes to show its revision and later ones; of its own events the deletions
    /// are lost.
    #[test]
    fn a_compaction_leaves_its_revision() {
        let mut versions = versions();
        assert_eq!(versions.compact(6), Err(Gone::Future));
        versions.compact(4).unwrap();
        assert_eq!(versions.compact(4), Err(Gone::Compacted));
        assert_eq!((versions.resolve(3), versions.resolve(4)), (Err(Gone::Compacted), Ok(4)));
        assert_eq!((versions.resolve(0), versions.resolve(6)), (Ok(5), Err(Gone::Future)));
        assert_eq!(shown(&versions, 4), "a2(2,1) c3(3,1)");
        let events: Vec<_> = versions.events_from(4).map(|(at, events)| (at, events.len())).collect();
        assert_eq!(events, [(4, 0), (5, 1)]);
        assert!(versions.current(b"b").is_none() && versions.current(b"a").is_some());
    }

    /// A range is the key alone, a half-open interval, or all from the key on; a reversed one is empty.
    #[test]
    fn spans_are_as_etcd_means_them() {
        let span = |from: &str, end: &str| Span::new(from.into(), end.into());
        let versions = versions();
        let within = |span: Span| {
            let kvs = versions.range(&span, 3).map(|kv| String::from_utf8_lossy(&kv.key).into_owned());
            let kvs = kvs.collect::<String>();
            assert!(["a", "b", "c"].iter().all(|key| span.contains(key.as_bytes()) == kvs.contains(key)));
            assert!(!span.is_empty() || kvs.is_empty());
            kvs
        };
        assert_eq!(within(span("a", "")), "a");
        assert_eq!(within(span("a", "c")), "ab");
        assert_eq!(within(span("b", "\0")), "bc");
        assert_eq!(within(span("c", "a")), "");
        assert_eq!(within(span("b", "b")), "");
        assert!(span("c", "a").is_empty() && span("b", "b").is_empty() && !span("b", "").is_empty());
    }
}
