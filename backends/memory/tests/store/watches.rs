//! W: what the store promises of watches.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use slipring_core::{
    Base, Batch, Change, Entry, Error, Key, Range, Revision, Snapshot, Start, Txn, WatchFidelity,
};
use slipring_memory::store::{Saved, Store};
use slipring_memory::{OnRestore, Profile};

use crate::model::is_in;
use crate::run::*;

/// What a watch should have seen of the whole history.
fn expected(run: &Run, watch: &Watched) -> Vec<Batch> {
    let concerns = |change: &&Change| is_in(&watch.range, change.key().as_str());
    let due = run.history().filter(|batch| batch.revision > watch.start() && batch.revision <= watch.until);
    let due = due.map(|batch| Batch {
        revision: batch.revision,
        changes: batch.changes.iter().filter(concerns).cloned().collect(),
    });
    due.filter(|batch| !batch.changes.is_empty()).collect()
}

fn materialise(entries: &mut BTreeMap<Key, Entry>, batch: &Batch) {
    for change in &batch.changes {
        match change {
            Change::Put(entry) => entries.insert(entry.key.clone(), entry.clone()),
            Change::Delete(key) => entries.remove(key),
        };
    }
}

fn put(store: &mut Store, text: &str) {
    let _ = store.commit(Duration::ZERO, Txn::new().put(key(text), "", None)).unwrap();
}

fn open(store: &mut Store, range: Range, start: Start) -> slipring_memory::store::WatchId {
    store.watch(Duration::ZERO, range, start).unwrap().0
}

proptest! {
    #![proptest_config(config())]

    /// W1: the revisions of a watch's events only ever rise.
    #[test]
    fn w1_ordered(run in a_run()) {
        for watch in &run.watches {
            prop_assert!(watch.batches.is_sorted_by_key(|batch| batch.revision));
        }
    }

    /// W2: no revision comes twice.
    #[test]
    fn w2_unique(run in a_run()) {
        for watch in &run.watches {
            prop_assert!(watch.batches.windows(2).all(|pair| pair[0].revision != pair[1].revision));
        }
    }

    /// W3, W14: a watch that was read to its end has seen all that concerns it; one that was closed, or was
    /// told that history is compacted, has seen all up to some point.
    #[test]
    fn w3_reliable(run in a_run()) {
        for watch in &run.watches {
            let expected = expected(&run, watch);
            prop_assert_eq!(&watch.batches[..], &expected[..watch.batches.len().min(expected.len())]);
            if watch.closed_at.is_none() {
                prop_assert_eq!(watch.batches.len(), expected.len());
            }
        }
    }

    /// W4: all changes of a revision come in one batch, in the order of the operations.
    #[test]
    fn w4_atomic(run in a_run()) {
        for call in &run.calls {
            let (Input::Commit(txn), [batch]) = (&call.input, &call.made[..]) else { continue };
            let wrote = txn.ops.iter().map(|op| op.key());
            let existed = |key: &&Key| call.before.entries.iter().any(|entry| entry.key == **key);
            let exists = |key: &&Key| call.after.entries.iter().any(|entry| entry.key == **key);
            let wrote: Vec<&Key> = wrote.filter(|key| existed(key) || exists(key)).collect();
            prop_assert_eq!(batch.changes.iter().map(Change::key).collect::<Vec<_>>(), wrote.clone());
            for seen in run.watches.iter().flat_map(|watch| &watch.batches) {
                if seen.revision == batch.revision {
                    let place = |key: &Key| wrote.iter().position(|wrote| *wrote == key);
                    prop_assert!(seen.changes.iter().is_sorted_by_key(|change| place(change.key())));
                }
            }
        }
    }

    /// W5: a watch that starts after any revision goes on with exactly what followed.
    #[test]
    fn w5_resumable(writes in prop::collection::vec(a_key(), 0..40), range in a_range(), back in 0_usize..40) {
        let mut store = Store::new(Profile::exact(), 1);
        let whole = open(&mut store, range.clone(), Start::After(Revision(1)));
        writes.iter().for_each(|key| put(&mut store, key.as_str()));
        let start = Revision(store.revision().0.saturating_sub(back as u64).max(1));
        let resumed = open(&mut store, range, Start::After(start));
        while let Some(batch) = store.poll(whole).unwrap() {
            if batch.revision > start {
                prop_assert_eq!(store.poll(resumed).unwrap(), Some(batch));
            }
        }
        prop_assert_eq!(store.poll(resumed).unwrap(), None);
    }

    /// W6: progress at a revision means that all up to there was delivered, and it never goes back.
    #[test]
    fn w6_bookmarkable(run in a_run()) {
        for watch in &run.watches {
            prop_assert!(watch.progress.is_sorted());
            for (batches, revision) in &watch.progress {
                prop_assert!(watch.batches[..*batches].iter().all(|batch| batch.revision <= *revision));
                prop_assert!(watch.batches[*batches..].iter().all(|batch| batch.revision > *revision));
            }
        }
    }

    /// W7: only keys of the range are seen, and never an event without any.
    #[test]
    fn w7_filter(run in a_run()) {
        for watch in &run.watches {
            for batch in &watch.batches {
                prop_assert!(!batch.changes.is_empty());
                prop_assert!(batch.changes.iter().all(|change| is_in(&watch.range, change.key().as_str())));
            }
        }
    }

    /// W10, W12: nothing is seen of the revision that a watch starts with, or of older ones; the base comes first.
    #[test]
    fn w10_nothing_from_before_the_start(run in a_run()) {
        for watch in &run.watches {
            prop_assert!(watch.batches.iter().all(|batch| batch.revision > watch.start()));
        }
    }

    /// W11: a watch ends with `Compacted` if and only if it lost a change that concerns it.
    #[test]
    fn w11_compaction_is_told(run in a_run()) {
        for watch in &run.watches {
            let Some(error) = &watch.failed else { continue };
            let missed = &expected(&run, watch)[watch.batches.len()];
            let Error::Compacted { oldest, .. } = error else { panic!("{error}") };
            prop_assert!(missed.revision <= *oldest, "{missed:?} was still there");
        }
    }

    /// W13: a snapshot and the events after it give the store's own content at every revision.
    #[test]
    fn w13_snapshot_and_events_are_the_content(run in a_run()) {
        for watch in run.watches.iter().filter(|watch| watch.closed_at.is_none()) {
            let Base::Snapshot(snapshot) = &watch.base else { continue };
            let mut entries: BTreeMap<Key, Entry> =
                snapshot.entries.iter().map(|entry| (entry.key.clone(), entry.clone())).collect();
            let mut batches = watch.batches.iter().peekable();
            for call in run.calls.iter().filter(|call| call.after.revision >= snapshot.revision) {
                while let Some(batch) = batches.next_if(|batch| batch.revision <= call.after.revision) {
                    materialise(&mut entries, batch);
                }
                let inside = call.after.entries.iter().filter(|entry| is_in(&watch.range, entry.key.as_str()));
                prop_assert!(entries.values().eq(inside), "at revision {}", call.after.revision);
            }
        }
    }

    /// W15: a watch that was closed, or that failed, yields nothing more.
    #[test]
    fn w15_closed_is_closed(run in a_run()) {
        for watch in &run.watches {
            prop_assert_eq!(watch.closed_at.unwrap_or(watch.batches.len()), watch.batches.len());
        }
    }

    /// A coalesced watch may skip what was overwritten, but it ends with the store's own content.
    #[test]
    fn a_coalesced_watch_ends_with_the_content(
        run in a_run_with(|world| world.watch = WatchFidelity::Coalesced)
    ) {
        for watch in run.watches.iter().filter(|watch| watch.closed_at.is_none()) {
            let Base::Snapshot(snapshot) = &watch.base else { continue };
            let mut entries: BTreeMap<Key, Entry> =
                snapshot.entries.iter().map(|entry| (entry.key.clone(), entry.clone())).collect();
            watch.batches.iter().for_each(|batch| materialise(&mut entries, batch));
            let last = &run.calls.last().unwrap().after;
            let inside = last.entries.iter().filter(|entry| is_in(&watch.range, entry.key.as_str()));
            prop_assert!(entries.values().eq(inside));
            prop_assert!(watch.batches.windows(2).all(|pair| pair[0].revision < pair[1].revision));
        }
    }
}

/// Several writes of a key are one change for a coalesced watch whose reader was behind.
#[test]
fn a_coalesced_watch_merges_what_its_reader_missed() {
    let exact = Profile::exact();
    let discovery = exact.discovery.with_watch(WatchFidelity::Coalesced);
    let mut store = Store::new(exact.with_discovery(discovery), 1);
    let watch = open(&mut store, Range::All, Start::Snapshot);
    for text in ["b", "a", "b", "b"] {
        put(&mut store, text);
    }
    let batch = store.poll(watch).unwrap().unwrap();
    let seen: Vec<(&str, Revision)> = batch
        .changes
        .iter()
        .map(|change| match change {
            Change::Put(entry) => (entry.key.as_str(), entry.modified),
            Change::Delete(key) => panic!("{key} was not deleted"),
        })
        .collect();
    assert_eq!(seen, [("a", Revision(3)), ("b", Revision(5))]);
    assert_eq!(batch.revision, Revision(5));
    assert_eq!(store.poll(watch), Ok(None));
}

/// W11: the bound on history compacts by itself, and only the watch that lost something is told.
#[test]
fn w11_a_narrow_watch_is_not_compacted_for_other_keys() {
    let mut store = Store::new(Profile::exact().with_history_revisions_max(3), 1);
    let narrow = open(&mut store, Range::Key(key("narrow")), Start::Snapshot);
    let slow = open(&mut store, Range::All, Start::Snapshot);
    put(&mut store, "narrow");
    assert_eq!(store.poll(narrow).unwrap().unwrap().revision, Revision(2));
    for _ in 0..100 {
        put(&mut store, "other");
    }
    put(&mut store, "narrow");
    assert_eq!(store.poll(narrow).unwrap().unwrap().revision, Revision(103));
    assert_eq!(store.poll(slow), Err(Error::compacted(Revision(100))));
    assert_eq!((store.watches(), store.poll(slow)), (1, Ok(None)));
}

/// A watch that has something to poll is named once, and again only after it has polled all.
#[test]
fn a_slow_watch_is_woken_once() {
    let mut store = Store::new(Profile::exact(), 1);
    let watch = open(&mut store, Range::All, Start::Snapshot);
    let other = open(&mut store, Range::Key(key("b")), Start::Snapshot);
    put(&mut store, "a");
    assert!(store.take_woken().into_iter().eq([watch]));
    put(&mut store, "a");
    assert!(store.take_woken().is_empty());
    while store.poll(watch).unwrap().is_some() {}
    put(&mut store, "b");
    assert!(store.take_woken().into_iter().eq([watch, other]));
}

/// F39: an old watch sees nothing of a store that was emptied, nor of what happens in it later.
#[test]
fn f39_an_old_watch_stays_silent_when_the_store_is_emptied() {
    let mut store = Store::new(Profile::exact(), 1);
    let old = open(&mut store, Range::All, Start::Snapshot);
    put(&mut store, "a");
    store.import(Duration::ZERO, Saved::empty());
    put(&mut store, "b");
    assert_eq!((store.poll(old), store.progress(old)), (Ok(None), None));
    assert_eq!(store.revision(), Revision(2));
    let beyond = store.watch(Duration::ZERO, Range::All, Start::After(Revision(3)));
    assert_eq!(beyond, Err(Error::compacted(Revision(0))));
}

/// F39: where the profile says so, an old watch ends with an error instead; it is woken to hear it.
#[test]
fn f39_an_old_watch_is_told_when_the_store_is_restored() {
    let mut store = Store::new(Profile::exact().with_on_restore(OnRestore::End), 1);
    put(&mut store, "a");
    let saved = store.export();
    put(&mut store, "b");
    let old = open(&mut store, Range::All, Start::Snapshot);
    store.import(Duration::ZERO, saved);
    assert!(store.take_woken().into_iter().eq([old]));
    let error = store.poll(old).unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert_eq!((store.watches(), store.poll(old)), (0, Ok(None)));
    let Snapshot { revision, entries } = store.read(Duration::ZERO, &Range::All);
    assert_eq!((revision, entries.len()), (Revision(2), 1));
}
