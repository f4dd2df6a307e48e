//! Guards, races and refusals.

use bytes::Bytes;
use futures_util::future::try_join_all;
use slipring_core::{Commit, Discovery, DiscoveryExt, LeaseId, Txn};

use crate::failure::{ensure, ensure_eq};
use crate::trial::{applied, bytes, can, fails, refused, too_large};
use crate::{Failure, Trial, Verdict};

async fn value(store: &dyn Discovery, trial: &Trial, name: &str) -> Result<Option<Bytes>, Failure> {
    Ok(store.entry(&trial.key(name)).await?.map(|entry| entry.value))
}

/// A lease that no store has granted to anybody.
const UNKNOWN: LeaseId = LeaseId((1 << 52) + 0x0bad_1ea5e);

/// `Absent` holds for what never was and for what was deleted, and not for what exists, however empty.
pub async fn absent_guard(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let key = trial.key("k");
    applied(store.create(key.clone(), Bytes::new(), None).await?)?;
    refused(store.create(key.clone(), bytes("2"), None).await?, "the key exists")?;
    ensure_eq!(value(&*store, trial, "k").await?, Some(Bytes::new()), "the value after the refusal");
    store.delete(key.clone()).await?;
    applied(store.create(key, bytes("3"), None).await?)?;
    ensure_eq!(value(&*store, trial, "k").await?, Some(bytes("3")), "the value after creating it anew");
    Ok(())
}

/// `Unchanged` holds for the revision of the last write alone: not for an older one, nor after a deletion,
/// nor after the key was created anew.
pub async fn unchanged_guard(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let key = trial.key("k");
    let guarded = |at| Txn::new().unchanged(key.clone(), at).put(key.clone(), "guarded", None);
    let first = store.put(key.clone(), bytes("1"), None).await?;
    let second = applied(store.commit(guarded(first)).await?)?;
    refused(store.commit(guarded(first)).await?, "it was written since")?;
    let third = store.put(key.clone(), bytes("guarded"), None).await?;
    refused(store.commit(guarded(second)).await?, "it was written since, with the same value")?;
    store.delete(key.clone()).await?;
    refused(store.commit(guarded(third)).await?, "it was deleted")?;
    let anew = store.put(key.clone(), bytes("anew"), None).await?;
    refused(store.commit(guarded(third)).await?, "it was deleted and created anew")?;
    applied(store.commit(guarded(anew)).await?)?;
    Ok(())
}

/// A deletion can be guarded too.
pub async fn deletions_are_guarded(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let key = trial.key("k");
    let old = store.put(key.clone(), bytes("1"), None).await?;
    let now = store.put(key.clone(), bytes("2"), None).await?;
    let guarded = |at| Txn::new().unchanged(key.clone(), at).delete(key.clone());
    refused(store.commit(guarded(old)).await?, "it was written since")?;
    ensure_eq!(value(&*store, trial, "k").await?, Some(bytes("2")), "the value after the refusal");
    applied(store.commit(guarded(now)).await?)?;
    ensure_eq!(value(&*store, trial, "k").await?, None, "the value after the deletion");
    Ok(())
}

/// Fencing: a write can depend on another key being unchanged.
pub async fn writes_are_fenced_by_another_key(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let (anchor, record) = (trial.key("anchor"), trial.key("record"));
    let first = store.put(anchor.clone(), bytes("epoch 1"), None).await?;
    let write =
        |at, text: &'static str| Txn::new().unchanged(anchor.clone(), at).put(record.clone(), text, None);
    applied(store.commit(write(first, "by epoch 1")).await?)?;
    let second = store.put(anchor.clone(), bytes("epoch 2"), None).await?;
    applied(store.commit(write(second, "by epoch 2")).await?)?;
    refused(store.commit(write(first, "late, by epoch 1")).await?, "the anchor has changed")?;
    ensure_eq!(value(&*store, trial, "record").await?, Some(bytes("by epoch 2")), "the record");
    Ok(())
}

/// One guard that does not hold is enough, wherever it stands, and then nothing at all is written.
pub async fn refused_changes_nothing(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let there = store.put(trial.key("there"), bytes("old"), None).await?;
    let before = store.list(&trial.prefix()).await?;
    let absent = || Txn::new().absent(trial.key("new"));
    for guards in [
        absent().absent(trial.key("there")),
        Txn::new().absent(trial.key("there")).absent(trial.key("new")),
        absent().unchanged(trial.key("there"), slipring_core::Revision(there.0 - 1)),
    ] {
        let txn = guards.put(trial.key("new"), "1", None).delete(trial.key("there"));
        refused(store.commit(txn).await?, "one of its guards does not hold")?;
        ensure_eq!(store.list(&trial.prefix()).await?, before, "the keys after the refusal");
    }
    let txn = absent().unchanged(trial.key("there"), there);
    applied(store.commit(txn.put(trial.key("new"), "1", None).delete(trial.key("there"))).await?)?;
    ensure_eq!(value(&*store, trial, "new").await?, Some(bytes("1")), "the new key");
    ensure_eq!(value(&*store, trial, "there").await?, None, "the deleted key");
    Ok(())
}

/// K8: of fifty who create the same key at once, exactly one wins, and its value is there.
pub async fn k8_create_race_has_one_winner(trial: &Trial) -> Verdict {
    const RACERS: usize = 50;
    let handles = [trial.discovery().await?, trial.discovery().await?];
    let race = (0..RACERS).map(|racer| {
        let store = &handles[racer % handles.len()];
        store.create(trial.key("k"), bytes(racer.to_string()), None)
    });
    let commits = try_join_all(race).await?;
    let winners: Vec<_> = (0..RACERS).filter(|racer| commits[*racer] != Commit::Refused).collect();
    ensure_eq!(winners.len(), 1, "the number of winners (they are {winners:?})");
    let winner = &handles[winners[0] % handles.len()];
    let stored = value(&**winner, trial, "k").await?;
    ensure_eq!(stored, Some(bytes(winners[0].to_string())), "the value of the winner");
    Ok(())
}

/// K8: compare and set loses no update: counters that many increment at once end at the sum.
pub async fn k8_compare_and_set_loses_nothing(trial: &Trial) -> Verdict {
    const WRITERS: u32 = 4;
    const INCREMENTS: u32 = 25;
    let key = trial.key("counter");
    let first = trial.discovery().await?;
    first.put(key.clone(), bytes("0"), None).await?;
    let writer = async || {
        let store = trial.discovery().await?;
        let mut done = 0;
        while done < INCREMENTS {
            // A read may be behind the first write, where that is declared.
            let Some(entry) = store.entry(&key).await? else { continue };
            let count: u32 = String::from_utf8_lossy(&entry.value).parse().unwrap_or_default();
            tokio::task::yield_now().await;
            let next = (count + 1).to_string();
            let txn = Txn::new().unchanged(key.clone(), entry.modified).put(key.clone(), next, None);
            done += u32::from(store.commit(txn).await? != Commit::Refused);
            tokio::task::yield_now().await;
        }
        Ok::<_, Failure>(())
    };
    try_join_all((0..WRITERS).map(|_| writer())).await?;
    // A write on this handle comes after all others, so a read behind it has seen them.
    first.put(trial.key("last"), Bytes::new(), None).await?;
    let count = value(&*first, trial, "counter").await?;
    ensure_eq!(count, Some(bytes((WRITERS * INCREMENTS).to_string())), "the counter");
    Ok(())
}

/// K4: a transaction that writes a key twice is refused as invalid, and nothing is written.
pub async fn k4_key_twice_is_invalid(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let key = || trial.key("k");
    for txn in [
        Txn::new().put(key(), "1", None).put(key(), "2", None),
        Txn::new().put(key(), "1", None).delete(key()),
        Txn::new().delete(key()).put(key(), "1", None),
        Txn::new().delete(key()).delete(key()),
    ] {
        fails(store.commit(txn).await, "invalid")?;
    }
    ensure_eq!(value(&*store, trial, "k").await?, None, "what the refused transactions left behind");
    Ok(())
}

/// A transaction of exactly `atomic_keys_max` keys is applied at one revision; guards count, and a key that
/// is guarded and written counts once. One key more is unsupported, and nothing is written.
pub async fn atomic_keys_limit_is_exact(trial: &Trial) -> Verdict {
    /// More than anybody needs: from there on a declared limit is taken on trust.
    const KEYS_MAX: usize = 10_000;
    let store = trial.discovery().await?;
    let declared = can(&*store).await?.atomic_keys_max;
    let limit = declared.min(KEYS_MAX);
    let key = |number| trial.key(format!("{number:05}"));
    let whole = (0..limit).fold(Txn::new(), |txn, n| txn.absent(key(n)).put(key(n), "1", None));
    let at = applied(store.commit(whole.clone()).await?)?;
    let entries = store.list(&trial.prefix()).await?;
    ensure_eq!(entries.len(), limit, "the number of keys written");
    ensure!(entries.iter().all(|entry| entry.modified == at), "not all keys were written at {at}");
    if limit < declared {
        trial.note(format!("atomic_keys_max is {declared}; checked up to {limit}"));
        return Ok(());
    }
    for over in [
        (0..=limit).fold(Txn::new(), |txn, number| txn.put(key(number), "2", None)),
        (0..limit).fold(Txn::new().absent(key(limit)), |txn, number| txn.put(key(number), "2", None)),
    ] {
        fails(store.commit(over).await, "unsupported")?;
    }
    ensure_eq!(store.list(&trial.prefix()).await?, entries, "the keys after the refusals");
    Ok(())
}

/// A value over the limit refuses the transaction as a whole.
pub async fn large_value_refuses_the_whole(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let limit = can(&*store).await?.value_bytes_max;
    let txn = Txn::new().put(trial.key("a"), "1", None).put(trial.key("b"), vec![b'x'; limit + 7], None);
    too_large(store.commit(txn).await, limit, limit + 7)?;
    ensure_eq!(store.list(&trial.prefix()).await?, vec![], "what the refused transaction left behind");
    Ok(())
}

/// Deleting what does not exist does not stop the rest of a transaction.
pub async fn missing_deletion_is_no_obstacle(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let txn = Txn::new().delete(trial.key("absent")).put(trial.key("k"), "1", None);
    applied(store.commit(txn).await?)?;
    ensure_eq!(value(&*store, trial, "k").await?, Some(bytes("1")), "the key that was written");
    Ok(())
}

/// Writing with a lease that does not exist fails with `LeaseLost` that names it, and writes nothing.
pub async fn unknown_lease_is_lost(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    store.put(trial.key("k"), bytes("old"), None).await?;
    let error = fails(store.put(trial.key("k"), bytes("new"), Some(UNKNOWN)).await, "lease_lost")?;
    let named = matches!(error, slipring_core::Error::LeaseLost { lease, .. } if lease == UNKNOWN);
    ensure!(named, "the error does not name the lease {UNKNOWN}: {error:?}");
    ensure_eq!(value(&*store, trial, "k").await?, Some(bytes("old")), "the value");
    Ok(())
}

/// A lease that does not exist refuses the transaction as a whole.
pub async fn unknown_lease_refuses_the_whole(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let txn = Txn::new().put(trial.key("a"), "1", None).put(trial.key("b"), "2", Some(UNKNOWN));
    fails(store.commit(txn).await, "lease_lost")?;
    ensure_eq!(store.list(&trial.prefix()).await?, vec![], "what the refused transaction left behind");
    Ok(())
}
