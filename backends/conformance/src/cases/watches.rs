//! Watches: what follows the base, whole, in order, and never silently ended.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{try_join, try_join_all};
use slipring_core::{Batch, Change, Discovery, DiscoveryExt, Entry, Prefix, Range, Revision, Start, Txn};
use tokio::time::{Instant, timeout};

use crate::failure::{ensure, ensure_eq};
use crate::follower::Follower;
use crate::trial::{applied, bytes, can, fails, revision};
use crate::{Action, Failure, Trial, Verdict};

const LONG: Duration = Duration::from_secs(300);

fn put(key: slipring_core::Key, value: &str, modified: Revision) -> Change {
    Change::Put(Entry { key, value: bytes(value), modified, lease: None })
}

/// A watch of an empty range begins with an empty snapshot, and then shows the first key.
pub async fn empty_range_has_an_empty_base(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let before = store.put(trial.key("other"), Bytes::new(), None).await?;
    let mut follower = Follower::open(&*store, Prefix::new(trial.key("empty/").as_str())?).await?;
    ensure_eq!(follower.view(), vec![], "the base of an empty range");
    ensure!(follower.revision() >= before, "a base at {} after a write at {before}", follower.revision());
    let key = trial.key("empty/1");
    let at = store.put(key.clone(), bytes("v"), None).await?;
    ensure_eq!(
        follower.changes().await?,
        Batch { revision: at, changes: vec![put(key, "v", at)] },
        "the event"
    );
    Ok(())
}

/// W13: the base is what a read returns, and the events are what follows.
pub async fn w13_base_then_what_follows(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    for name in ["b", "a", "c"] {
        store.put(trial.key(name), bytes(name), None).await?;
    }
    let before = store.list(&trial.prefix()).await?;
    let mut follower = Follower::open(&*store, trial.prefix()).await?;
    ensure_eq!(follower.view(), before, "the base");
    let at = store.put(trial.key("a"), bytes("again"), None).await?;
    let first = Batch { revision: at, changes: vec![put(trial.key("a"), "again", at)] };
    ensure_eq!(follower.changes().await?, first, "the first event");
    ensure_eq!(follower.view(), store.list(&trial.prefix()).await?, "base and events together");
    Ok(())
}

/// W13: under concurrent writers, whenever a watch is opened, base and events add up to what is read: no
/// gap, no overlap, no reordering.
pub async fn w13_handoff_under_writers(trial: &Trial) -> Verdict {
    const WRITERS: u32 = 4;
    const WRITES: u32 = 50;
    const WATCHERS: u32 = 12;
    let store = trial.discovery().await?;
    let write = async |writer: u32| {
        let own = trial.discovery().await?;
        for number in 0..WRITES {
            let value = bytes(format!("{writer}.{number}"));
            // Most keys are written once and some of them deleted once, so that any change that a watch
            // misses is missed for good.
            let key = |number| trial.key(format!("{writer}/{number}"));
            match number % 4 {
                1 => own.delete(key(number - 1)).await?,
                2 => drop(own.put(trial.key("shared"), value, None).await?),
                _ => drop(own.put(key(number), value, None).await?),
            }
            tokio::task::yield_now().await;
        }
        Ok::<_, Failure>(())
    };
    let last = trial.key("last");
    let write_all = async {
        try_join_all((0..WRITERS).map(write)).await?;
        store.put(last.clone(), Bytes::new(), None).await?;
        Ok(())
    };
    let watch = async |watcher: u32| {
        for _ in 0..watcher * 4 {
            tokio::task::yield_now().await;
        }
        let mut follower = Follower::open(&*store, trial.prefix()).await?;
        while !follower.view().iter().any(|entry| entry.key == last) {
            follower.changes().await?;
        }
        Ok::<_, Failure>(follower.view())
    };
    let ((), views) = try_join(write_all, try_join_all((0..WATCHERS).map(watch))).await?;
    // A write on this handle came after all others, so a read behind it has seen them.
    let read = store.list(&trial.prefix()).await?;
    for view in views {
        ensure_eq!(view, read, "base and events together");
    }
    Ok(())
}

/// W3: each write of a key is shown, in order, with its value, its revision and its lease.
pub async fn w3_every_write_is_shown(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let lease = store.grant(LONG).await?.id;
    let key = trial.key("k");
    let mut follower = Follower::open(&*store, key.clone()).await?;
    let mut expected = Vec::new();
    for number in 0..100 {
        let (value, lease) = (bytes(number.to_string()), (number % 3 == 0).then_some(lease));
        let modified = store.put(key.clone(), value.clone(), lease).await?;
        let changes = vec![Change::Put(Entry { key: key.clone(), value, modified, lease })];
        expected.push(Batch { revision: modified, changes });
    }
    for batch in expected {
        ensure_eq!(follower.changes().await?, batch, "the next event");
    }
    Ok(())
}

/// W3: a key that is deleted and created anew shows both, each at its own revision.
pub async fn w3_deletions_are_shown(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let key = trial.key("k");
    store.put(key.clone(), bytes("1"), None).await?;
    let mut follower = Follower::open(&*store, trial.prefix()).await?;
    let deleted = applied(store.commit(Txn::new().delete(key.clone())).await?)?;
    let expected = Batch { revision: deleted, changes: vec![Change::Delete(key.clone())] };
    ensure_eq!(follower.changes().await?, expected, "the deletion");
    let at = store.put(key.clone(), bytes("2"), None).await?;
    ensure_eq!(
        follower.changes().await?,
        Batch { revision: at, changes: vec![put(key, "2", at)] },
        "the put"
    );
    Ok(())
}

/// What changes nothing is not shown: a deletion of nothing, a refused transaction.
pub async fn no_ops_are_not_shown(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    store.put(trial.key("there"), Bytes::new(), None).await?;
    let mut follower = Follower::open(&*store, trial.prefix()).await?;
    store.delete(trial.key("absent")).await?;
    crate::trial::refused(store.create(trial.key("there"), bytes("2"), None).await?, "the key exists")?;
    let at = store.put(trial.key("marker"), bytes("m"), None).await?;
    let expected = Batch { revision: at, changes: vec![put(trial.key("marker"), "m", at)] };
    ensure_eq!(follower.changes().await?, expected, "the first event");
    Ok(())
}

/// W4: a transaction is shown whole, at one revision, in the order of its operations.
pub async fn w4_transactions_are_shown_whole(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    store.put(trial.key("m"), bytes("old"), None).await?;
    let mut follower = Follower::open(&*store, trial.prefix()).await?;
    let (z, m, a) = (trial.key("z"), trial.key("m"), trial.key("a"));
    let txn = Txn::new().put(z.clone(), "1", None).delete(m.clone()).put(a.clone(), "2", None);
    let at = applied(store.commit(txn).await?)?;
    let changes = vec![put(z, "1", at), Change::Delete(m), put(a, "2", at)];
    ensure_eq!(follower.changes().await?, Batch { revision: at, changes }, "the batch");
    Ok(())
}

/// W4, W7: of a transaction that also writes elsewhere, a watch shows its own keys, at the same revision.
pub async fn w7_transactions_are_filtered(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let mut left = Follower::open(&*store, Prefix::new(trial.key("l/").as_str())?).await?;
    let mut right = Follower::open(&*store, Prefix::new(trial.key("r/").as_str())?).await?;
    let (l, r) = (trial.key("l/1"), trial.key("r/1"));
    let at = applied(store.commit(Txn::new().put(l.clone(), "1", None).put(r.clone(), "2", None)).await?)?;
    ensure_eq!(
        left.changes().await?,
        Batch { revision: at, changes: vec![put(l, "1", at)] },
        "the left batch"
    );
    ensure_eq!(
        right.changes().await?,
        Batch { revision: at, changes: vec![put(r, "2", at)] },
        "the right batch"
    );
    Ok(())
}

/// W7: a watch of a prefix shows nothing that merely begins alike.
pub async fn w7_prefix_ends_where_a_name_ends(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let mut follower = Follower::open(&*store, Prefix::new(trial.key("a/b/").as_str())?).await?;
    for name in ["a/b", "a/bc", "a/b.", "a/b0", "a/bc/1", "a/", "a/b/1"] {
        store.put(trial.key(name), bytes(name), None).await?;
    }
    let expected = vec![trial.key("a/b/1")];
    let shown: Vec<_> = follower.changes().await?.changes.iter().map(|change| change.key().clone()).collect();
    ensure_eq!(shown, expected, "the keys of the first event");
    Ok(())
}

/// W7: a watch of one key shows that key alone.
pub async fn w7_key_range_is_one_key(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let mut follower = Follower::open(&*store, trial.key("k")).await?;
    for name in ["k/", "k:", "kk", "k/1", "j"] {
        store.put(trial.key(name), bytes(name), None).await?;
    }
    let at = store.put(trial.key("k"), bytes("k"), None).await?;
    let expected = Batch { revision: at, changes: vec![put(trial.key("k"), "k", at)] };
    ensure_eq!(follower.changes().await?, expected, "the first event");
    Ok(())
}

/// A watch of all keys shows what anybody writes.
pub async fn all_is_watched(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    store.put(trial.key("before"), Bytes::new(), None).await?;
    let mut follower = Follower::open(&*store, Range::All).await?;
    ensure!(follower.view().iter().any(|entry| entry.key == trial.key("before")), "the base lacks a key");
    store.put(trial.key("after"), bytes("v"), None).await?;
    follower.until(&trial.key("after")).await?;
    Ok(())
}

/// W5: a watch that goes on after a revision shows exactly what came after it, deletions too, and then what
/// happens next.
pub async fn w5_resumable(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let (a, b) = (trial.key("a"), trial.key("b"));
    let mut all = Vec::new();
    for value in ["1", "2", "3"] {
        let at = store.put(a.clone(), bytes(value), None).await?;
        all.push(Batch { revision: at, changes: vec![put(a.clone(), value, at)] });
    }
    let at = applied(store.commit(Txn::new().delete(a.clone())).await?)?;
    all.push(Batch { revision: at, changes: vec![Change::Delete(a)] });
    for skip in 0..all.len() {
        let mut follower = Follower::resume(&*store, trial.prefix(), all[skip].revision).await?;
        let at = store.put(b.clone(), bytes("live"), None).await?;
        all.push(Batch { revision: at, changes: vec![put(b.clone(), "live", at)] });
        for expected in &all[skip + 1..] {
            ensure_eq!(&follower.changes().await?, expected, "after {}, the next event", all[skip].revision);
        }
    }
    Ok(())
}

/// Where a watch can resume, it does so after the current revision; where it cannot, it refuses.
pub async fn resume_is_declared_or_refused(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let at = store.put(trial.key("k"), Bytes::new(), None).await?;
    if !can(&*store).await?.resume {
        fails(store.watch(trial.prefix().into(), Start::After(at)).await, "unsupported")?;
        return Ok(());
    }
    let mut follower = Follower::resume(&*store, trial.prefix(), at).await?;
    let at = store.put(trial.key("k"), bytes("2"), None).await?;
    let last = follower.until(&trial.key("k")).await?;
    ensure_eq!(last.last().map(|batch| batch.revision), Some(at), "the revision of the event");
    Ok(())
}

/// F29, F39: a revision beyond the store's own is answered with `Compacted`, never with silence.
pub async fn future_revision_is_compacted(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let future = Revision(revision(&*store, trial).await?.0 + (1 << 40));
    match store.watch(trial.prefix().into(), Start::After(future)).await {
        Err(error) => ensure_eq!(error.code(), "compacted", "the answer to a future revision"),
        Ok(_) => {
            let mut follower = Follower::resume(&*store, trial.prefix(), future).await?;
            let end = follower.reach(Revision(u64::MAX)).await?;
            ensure_eq!(end.map(|error| error.code()), Some("compacted"), "the end of the watch");
        }
    }
    Ok(())
}

/// W11: a revision whose history is gone is answered with `Compacted`; a snapshot is always to be had.
pub async fn w11_compaction_is_told(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let old = store.put(trial.key("k"), bytes("1"), None).await?;
    for value in ["2", "3"] {
        store.put(trial.key("k"), bytes(value), None).await?;
    }
    trial.act(Action::Compact).await?;
    match store.watch(trial.prefix().into(), Start::After(old)).await {
        Err(error) => ensure_eq!(error.code(), "compacted", "the answer to a compacted revision"),
        Ok(_) => {
            let mut follower = Follower::resume(&*store, trial.prefix(), old).await?;
            let end = follower.reach(Revision(u64::MAX)).await?;
            ensure_eq!(end.map(|error| error.code()), Some("compacted"), "the end of the watch");
        }
    }
    let mut follower = Follower::open(&*store, trial.prefix()).await?;
    ensure_eq!(follower.view(), store.list(&trial.prefix()).await?, "the fresh snapshot");
    store.put(trial.key("k"), bytes("4"), None).await?;
    follower.until(&trial.key("k")).await?;
    Ok(())
}

/// W6: an idle watch says something at least every `watch_silence_max`, and its progress never goes back.
pub async fn w6_silence_is_bounded(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let silence_max = can(&*store).await?.watch_silence_max;
    let mut follower = Follower::open(&*store, trial.prefix()).await?;
    let base = follower.revision();
    for _ in 0..2 {
        let began = Instant::now();
        let item = timeout(silence_max + Duration::from_secs(5), follower.item());
        let Ok(batch) = item.await else {
            return Err(Failure::new(format!("no item in {:?}", began.elapsed())));
        };
        let batch = batch?;
        ensure_eq!(batch.changes, vec![], "the changes in an idle range");
        trial.note(format!("an idle watch at {base} said {} after {:?}", batch.revision, began.elapsed()));
    }
    Ok(())
}

/// W6: progress is true: what was written before it was shown before it.
pub async fn w6_progress_is_true(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let key = trial.key("k");
    let mut follower = Follower::open(&*store, trial.prefix()).await?;
    let at = store.put(key.clone(), bytes("v"), None).await?;
    loop {
        let batch = follower.item().await?;
        if !batch.changes.is_empty() {
            ensure_eq!(batch, Batch { revision: at, changes: vec![put(key, "v", at)] }, "the event");
            return Ok(());
        }
        ensure!(batch.revision < at, "progress to {} without the write at {at}", batch.revision);
    }
}

/// SW4: dropping a watch ends it alone; other watches of the same range, and new ones, are not disturbed.
pub async fn dropping_a_watch_disturbs_no_other(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let mut stays = Follower::open(&*store, trial.prefix()).await?;
    for round in 0..20 {
        let dropped = Follower::open(&*store, trial.prefix()).await?;
        drop(dropped);
        let key = trial.key(round);
        store.put(key.clone(), Bytes::new(), None).await?;
        let shown = stays.until(&key).await?;
        ensure_eq!(shown.len(), 1, "the events of one write");
    }
    ensure_eq!(Follower::open(&*store, trial.prefix()).await?.view(), stays.view(), "a new watch's base");
    Ok(())
}

/// Two watches of one range, on one handle or on two, show the same.
pub async fn watches_are_independent(trial: &Trial) -> Verdict {
    let (store, other) = (trial.discovery().await?, trial.discovery().await?);
    let mut one = Follower::open(&*store, trial.prefix()).await?;
    let mut two = Follower::open(&*store, trial.prefix()).await?;
    let mut three = Follower::open(&*other, trial.prefix()).await?;
    let mut revisions = Vec::new();
    for number in 0..10 {
        revisions.push(store.put(trial.key(number), Bytes::new(), None).await?);
    }
    let last = trial.key(9);
    for follower in [&mut three, &mut one, &mut two] {
        let shown: Vec<_> = follower.until(&last).await?.iter().map(|batch| batch.revision).collect();
        ensure_eq!(shown, revisions, "the revisions that one of the watches shows");
    }
    Ok(())
}

/// SW4: who does not read delays nobody. When it reads at last it is given all, or `Compacted`, and never a
/// gap.
pub async fn sw4_slow_reader_is_isolated(trial: &Trial) -> Verdict {
    const WRITES: u32 = 3000;
    const IN_FLIGHT: usize = 50;
    let store = trial.discovery().await?;
    let mut slow = Follower::open(&*store, trial.prefix()).await?;
    let mut quick = Follower::open(&*store, Prefix::new(trial.key("quick/").as_str())?).await?;
    let numbers: Vec<_> = (0..WRITES).collect();
    for (round, some) in numbers.chunks(IN_FLIGHT).enumerate() {
        let writes = some.iter().map(|n| store.put(trial.key(n % 100), vec![b'x'; 256].into(), None));
        try_join_all(writes).await?;
        let key = trial.key(format!("quick/{round}"));
        store.put(key.clone(), Bytes::new(), None).await?;
        quick.until(&key).await?;
    }
    let last = trial.key("last");
    let end = store.put(last.clone(), Bytes::new(), None).await?;
    let read = store.list(&trial.prefix()).await?;
    match slow.reach(end).await? {
        None => ensure_eq!(slow.view(), read, "what the slow reader ends with"),
        Some(error) => ensure_eq!(error.code(), "compacted", "what the slow reader was told"),
    }
    ensure_eq!(Follower::open(&*store, trial.prefix()).await?.view(), read, "a fresh snapshot");
    Ok(())
}

/// The end of a lease is shown as the deletion of its keys.
pub async fn expiry_is_shown_as_deletion(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let lease = store.grant(super::leases::short(&*store).await?).await?;
    let mut follower = Follower::open(&*store, trial.prefix()).await?;
    let key = trial.key("k");
    store.put(key.clone(), Bytes::new(), Some(lease.id)).await?;
    follower.until(&key).await?;
    ensure_eq!(follower.changes().await?.changes, vec![Change::Delete(key)], "the changes at its end");
    ensure_eq!(follower.view(), store.list(&trial.prefix()).await?, "base and events together");
    Ok(())
}

/// Writing a leased key with a fresh lease is shown as an update; the end of the old lease is not shown.
pub async fn new_lease_is_an_update(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let (old, new) = (store.grant(LONG).await?.id, store.grant(LONG).await?.id);
    let key = trial.key("k");
    store.put(key.clone(), bytes("1"), Some(old)).await?;
    let mut follower = Follower::open(&*store, trial.prefix()).await?;
    let modified = store.put(key.clone(), bytes("2"), Some(new)).await?;
    store.revoke(old).await?;
    let marker = trial.key("marker");
    let at = store.put(marker.clone(), bytes("m"), None).await?;
    let shown = follower.until(&marker).await?;
    let mut changes = shown.iter().flat_map(|batch| &batch.changes);
    ensure!(changes.all(|change| matches!(change, Change::Put(_))), "a deletion among {shown:?}");
    let updated = Entry { key, value: bytes("2"), modified, lease: Some(new) };
    let marked = Entry { key: marker, value: bytes("m"), modified: at, lease: None };
    ensure_eq!(follower.view(), vec![updated, marked], "base and events together");
    Ok(())
}
