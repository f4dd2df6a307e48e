//! Leases: never ended early, never revived, and what their end takes with it.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use slipring_core::{Batch, Change, Discovery, DiscoveryExt, Lease, LeaseId, Txn};
use tokio::time::{Instant, sleep, sleep_until};

use crate::failure::{ensure, ensure_eq};
use crate::follower::Follower;
use crate::trial::{bytes, can, fails, within};
use crate::{Failure, Trial, Verdict};

/// The shortest lease that leaves time to do something with it, on a real server too.
pub(super) async fn short(store: &dyn Discovery) -> Result<Duration, Failure> {
    Ok(can(store).await?.ttl_min.max(Duration::from_millis(500)))
}

/// Long enough that no case sees it end.
const LONG: Duration = Duration::from_secs(300);

/// Waits until no key of the run is left.
async fn all_gone(store: &dyn Discovery, trial: &Trial) -> Verdict {
    let gone = async {
        while !store.list(&trial.prefix()).await?.is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    };
    within("the keys of an ended lease to be gone", gone).await?
}

/// Checks that these changes are the deletions of these keys.
fn ensure_deleted(changes: &[Change], names: &[&str], trial: &Trial) -> Verdict {
    let expected: Vec<_> = names.iter().map(|name| Change::Delete(trial.key(name))).collect();
    ensure_eq!(changes, expected, "the changes at the end of the lease");
    Ok(())
}

/// L8: a lease is granted for at least what was asked, and at least `ttl_min`.
pub async fn l8_ttl_is_at_least_what_was_asked(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let ttl_min = can(&*store).await?.ttl_min;
    for asked in [Duration::from_millis(1), ttl_min, ttl_min * 3 / 2, Duration::from_millis(2500), LONG] {
        let granted = store.grant(asked).await?.ttl;
        ensure!(granted >= asked && granted >= ttl_min, "asked for {asked:?}, granted {granted:?}");
    }
    Ok(())
}

/// L9: lease ids are fresh at every grant, never 0, and below 2^53, which JSON readers need. The end of a
/// lease does not give its id back.
pub async fn l9_lease_ids_are_fresh(trial: &Trial) -> Verdict {
    let handles = [trial.discovery().await?, trial.discovery().await?];
    let mut seen = BTreeSet::new();
    for round in 0..50 {
        let store = &handles[round % handles.len()];
        let Lease { id, .. } = store.grant(LONG).await?;
        ensure!((1..1 << 53).contains(&id.0), "a lease id of {}", id.0);
        ensure!(seen.insert(id), "the lease id {id} was granted twice");
        if round % 2 == 0 {
            store.revoke(id).await?;
        }
    }
    Ok(())
}

/// A lease without time to live is no lease.
pub async fn zero_ttl_is_invalid(trial: &Trial) -> Verdict {
    fails(trial.discovery().await?.grant(Duration::ZERO).await, "invalid")?;
    Ok(())
}

/// A leased entry names its lease, an unleased one none.
pub async fn entries_name_their_lease(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let lease = store.grant(LONG).await?.id;
    store.put(trial.key("leased"), Bytes::new(), Some(lease)).await?;
    store.put(trial.key("unleased"), Bytes::new(), None).await?;
    let leases: Vec<_> = store.list(&trial.prefix()).await?.into_iter().map(|entry| entry.lease).collect();
    ensure_eq!(leases, vec![Some(lease), None], "the leases of the two entries");
    Ok(())
}

/// L1, L2: nobody sees a leased key vanish before its time to live has passed since the grant was sent; and
/// it does vanish. The report says how late.
pub async fn l1_never_early(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let sent = Instant::now();
    let lease = store.grant(short(&*store).await?).await?;
    store.put(trial.key("k"), Bytes::new(), Some(lease.id)).await?;
    let mut follower = Follower::open(&*store, trial.prefix()).await?;
    ensure_eq!(follower.view().len(), 1, "the number of keys at first");
    let changes = follower.changes().await?.changes;
    let lived = sent.elapsed();
    ensure_deleted(&changes, &["k"], trial)?;
    ensure!(lived >= lease.ttl, "granted for {:?}, ended after {lived:?}", lease.ttl);
    trial.note(format!("a lease of {:?} ended {:?} after its time", lease.ttl, lived - lease.ttl));
    ensure_eq!(store.entry(&trial.key("k")).await?, None, "what is read after the end");
    Ok(())
}

/// L1: a reader who keeps looking finds the key for all of its time to live.
pub async fn l1_readers_find_it_to_the_end(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let sent = Instant::now();
    let lease = store.grant(short(&*store).await?).await?;
    store.put(trial.key("k"), Bytes::new(), Some(lease.id)).await?;
    let looking = async {
        while store.entry(&trial.key("k")).await?.is_some() {
            sleep(lease.ttl / 50).await;
        }
        Ok::<_, Failure>(sent.elapsed())
    };
    let lived = within("the lease to end", looking).await??;
    ensure!(lived >= lease.ttl, "granted for {:?}, but gone after {lived:?}", lease.ttl);
    Ok(())
}

/// L3: the end of a lease deletes its keys and no others.
pub async fn l3_expiry_takes_its_keys_alone(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let (ending, lasting) = (store.grant(short(&*store).await?).await?, store.grant(LONG).await?);
    let leases = [("a", Some(ending.id)), ("b", Some(lasting.id)), ("c", Some(ending.id)), ("d", None)];
    for (name, lease) in leases {
        store.put(trial.key(name), Bytes::new(), lease).await?;
    }
    let left = async {
        loop {
            let keys: Vec<_> =
                store.list(&trial.prefix()).await?.into_iter().map(|entry| entry.key).collect();
            ensure!(
                keys.contains(&trial.key("b")) && keys.contains(&trial.key("d")),
                "only {keys:?} are left"
            );
            if keys.len() == 2 {
                return Ok(());
            }
            sleep(ending.ttl / 20).await;
        }
    };
    within("the keys of the ended lease to be gone", left).await?
}

/// L3: the keys of an expired lease vanish at one revision, in key order.
pub async fn l3_expiry_is_one_revision(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let lease = store.grant(short(&*store).await?).await?;
    for name in ["c", "a", "e", "b", "d"] {
        store.put(trial.key(name), Bytes::new(), Some(lease.id)).await?;
    }
    let mut follower = Follower::open(&*store, trial.prefix()).await?;
    ensure_eq!(follower.view().len(), 5, "the number of keys at first");
    ensure_deleted(&follower.changes().await?.changes, &["a", "b", "c", "d", "e"], trial)
}

/// L3: the keys of a revoked lease vanish at one revision, in key order.
pub async fn l3_revoke_is_one_revision(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let lease = store.grant(LONG).await?;
    for name in ["b", "c", "a"] {
        store.put(trial.key(name), Bytes::new(), Some(lease.id)).await?;
    }
    let mut follower = Follower::open(&*store, trial.prefix()).await?;
    store.revoke(lease.id).await?;
    let Batch { revision, changes } = follower.changes().await?;
    ensure_deleted(&changes, &["a", "b", "c"], trial)?;
    let read = store.read(trial.prefix().into()).await?;
    ensure!(read.entries.is_empty() && read.revision >= revision, "after the end at {revision}: {read:?}");
    Ok(())
}

/// Many leases that end together all end, each with all its keys, none early.
pub async fn many_leases_end_together(trial: &Trial) -> Verdict {
    const LEASES: usize = 40;
    let store = trial.discovery().await?;
    let (store, ttl) = (&*store, short(&*store).await?);
    let sent = Instant::now();
    let granted = (0..LEASES).map(|number| async move {
        let lease = store.grant(ttl).await?;
        for part in ["a", "b"] {
            store.put(trial.key(format!("{number}/{part}")), Bytes::new(), Some(lease.id)).await?;
        }
        Ok::<_, Failure>(lease.ttl)
    });
    let shortest = try_join_all(granted).await?.into_iter().min().unwrap_or_default();
    all_gone(store, trial).await?;
    ensure!(sent.elapsed() >= shortest, "all gone after {:?}", sent.elapsed());
    Ok(())
}

/// L5: revoking deletes the keys of the lease at once, and no others; the second time it is lost.
pub async fn l5_revoke_ends_it_once(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let (first, second) = (store.grant(LONG).await?.id, store.grant(LONG).await?.id);
    for (name, lease) in [("a", Some(first)), ("b", Some(second)), ("c", Some(first)), ("d", None)] {
        store.put(trial.key(name), Bytes::new(), lease).await?;
    }
    store.revoke(first).await?;
    let left: Vec<_> = store.list(&trial.prefix()).await?.into_iter().map(|entry| entry.key).collect();
    ensure_eq!(left, vec![trial.key("b"), trial.key("d")], "the keys that are left");
    fails(store.revoke(first).await, "lease_lost")?;
    store.keep_alive(second).await?;
    Ok(())
}

/// A lease without keys can be revoked; one that was never granted cannot.
pub async fn revoke_knows_its_leases(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let lease = store.grant(LONG).await?.id;
    store.revoke(lease).await?;
    fails(store.revoke(lease).await, "lease_lost")?;
    fails(store.revoke(LeaseId((1 << 52) + 77)).await, "lease_lost")?;
    Ok(())
}

/// A lease belongs to the store, not to the handle that got it.
pub async fn leases_are_known_to_all_handles(trial: &Trial) -> Verdict {
    let (one, other) = (trial.discovery().await?, trial.discovery().await?);
    let lease = one.grant(LONG).await?.id;
    other.put(trial.key("k"), Bytes::new(), Some(lease)).await?;
    other.keep_alive(lease).await?;
    other.revoke(lease).await?;
    fails(one.keep_alive(lease).await, "lease_lost")?;
    Ok(())
}

/// L1: a heartbeat extends: with one every third of its time a lease outlives its time to live, and it ends
/// no earlier than the last heartbeat said.
pub async fn l1_heartbeats_extend(trial: &Trial) -> Verdict {
    const BEATS: u32 = 9;
    let store = trial.discovery().await?;
    let began = Instant::now();
    let lease = store.grant(short(&*store).await?).await?;
    store.put(trial.key("k"), Bytes::new(), Some(lease.id)).await?;
    let mut lives_until = began + lease.ttl;
    for beat in 1..=BEATS {
        sleep_until(began + lease.ttl / 3 * beat).await;
        let sent = Instant::now();
        let lives = store.keep_alive(lease.id).await?;
        ensure!(lives >= lease.ttl, "beat {beat}: granted for {:?}, renewed for {lives:?}", lease.ttl);
        lives_until = sent + lives;
        ensure!(store.entry(&trial.key("k")).await?.is_some(), "gone in spite of heartbeat {beat}");
    }
    let mut follower = Follower::open(&*store, trial.prefix()).await?;
    let changes = follower.changes().await?.changes;
    let early = lives_until.checked_duration_since(Instant::now());
    ensure_deleted(&changes, &["k"], trial)?;
    ensure!(early.unwrap_or_default().is_zero(), "ended {early:?} before what the last heartbeat said");
    Ok(())
}

/// L5: a heartbeat of a lease that was never granted, or was revoked, finds it lost, and the error names it.
pub async fn l5_heartbeat_of_the_dead_is_lost(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let revoked = store.grant(LONG).await?.id;
    store.put(trial.key("k"), Bytes::new(), Some(revoked)).await?;
    store.revoke(revoked).await?;
    for dead in [revoked, LeaseId((1 << 52) + 99)] {
        let error = fails(store.keep_alive(dead).await, "lease_lost")?;
        let named = matches!(error, slipring_core::Error::LeaseLost { lease, .. } if lease == dead);
        ensure!(named, "the error does not name the lease {dead}: {error:?}");
    }
    ensure_eq!(store.entry(&trial.key("k")).await?, None, "the key of the revoked lease");
    Ok(())
}

/// L9: once a lease has expired, no heartbeat and no write brings it or its keys back.
pub async fn l9_expired_is_never_revived(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let lease = store.grant(short(&*store).await?).await?.id;
    store.put(trial.key("k"), Bytes::new(), Some(lease)).await?;
    all_gone(&*store, trial).await?;
    for _ in 0..3 {
        fails(store.keep_alive(lease).await, "lease_lost")?;
        fails(store.put(trial.key("k"), Bytes::new(), Some(lease)).await, "lease_lost")?;
        ensure_eq!(store.list(&trial.prefix()).await?, vec![], "the keys after the end");
    }
    fails(store.revoke(lease).await, "lease_lost")?;
    Ok(())
}

/// L5: around its end a heartbeat either extends or finds the lease lost: what it extended lives on as long
/// as it said, and what it found lost stays lost, also while its keys still stand.
pub async fn l5_heartbeat_at_the_end_is_decided(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    for attempt in 0..4_u32 {
        let key = trial.key(attempt);
        let began = Instant::now();
        let lease = store.grant(short(&*store).await?).await?;
        store.put(key.clone(), Bytes::new(), Some(lease.id)).await?;
        // From a little before the end to a little after it.
        sleep_until(began + lease.ttl * (98 + attempt) / 100).await;
        let sent = Instant::now();
        match store.keep_alive(lease.id).await {
            Ok(lives) => {
                sleep(lease.ttl / 2).await;
                let there = store.entry(&key).await?.is_some();
                ensure!(there || sent.elapsed() >= lives, "a heartbeat was accepted, but the key is gone");
            }
            lost => {
                fails(lost, "lease_lost")?;
                fails(store.keep_alive(lease.id).await, "lease_lost")?;
            }
        }
    }
    all_gone(&*store, trial).await
}

/// L4: writing a leased key without a lease detaches it: it survives the end of the lease.
pub async fn l4_put_without_lease_detaches(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let lease = store.grant(LONG).await?.id;
    store.put(trial.key("a"), bytes("leased"), Some(lease)).await?;
    store.put(trial.key("b"), bytes("leased"), Some(lease)).await?;
    store.put(trial.key("a"), bytes("free"), None).await?;
    let entry = store.entry(&trial.key("a")).await?;
    ensure_eq!(entry.and_then(|entry| entry.lease), None, "the lease of the key written without one");
    store.revoke(lease).await?;
    let left: Vec<_> = store.list(&trial.prefix()).await?.into_iter().map(|entry| entry.key).collect();
    ensure_eq!(left, vec![trial.key("a")], "what survives the lease");
    Ok(())
}

/// L4: a key that is detached survives the expiry of the lease it had.
pub async fn l4_detached_survives_expiry(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let lease = store.grant(short(&*store).await?).await?.id;
    store.put(trial.key("a"), Bytes::new(), Some(lease)).await?;
    store.put(trial.key("b"), Bytes::new(), Some(lease)).await?;
    store.put(trial.key("a"), Bytes::new(), None).await?;
    let ended = async {
        while store.entry(&trial.key("b")).await?.is_some() {
            sleep(Duration::from_millis(20)).await;
        }
        Ok::<_, Failure>(())
    };
    within("the lease to end", ended).await??;
    ensure!(store.entry(&trial.key("a")).await?.is_some(), "the detached key went with its old lease");
    Ok(())
}

/// L4: writing a key with another lease moves it there: only the new lease's end deletes it.
pub async fn l4_put_with_other_lease_moves(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let (old, new) = (store.grant(LONG).await?.id, store.grant(LONG).await?.id);
    let key = trial.key("k");
    store.put(key.clone(), bytes("1"), Some(old)).await?;
    store.put(key.clone(), bytes("2"), Some(new)).await?;
    store.revoke(old).await?;
    let entry = store.entry(&key).await?;
    ensure_eq!(
        entry.map(|e| (e.value, e.lease)),
        Some((bytes("2"), Some(new))),
        "the key after its old lease"
    );
    store.revoke(new).await?;
    ensure_eq!(store.entry(&key).await?, None, "the key after its new lease");
    Ok(())
}

/// L4: a key that was deleted and created anew without a lease has nothing to do with the old lease.
pub async fn l4_deletion_detaches(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let lease = store.grant(LONG).await?.id;
    store.put(trial.key("k"), bytes("leased"), Some(lease)).await?;
    store.delete(trial.key("k")).await?;
    store.put(trial.key("k"), bytes("anew"), None).await?;
    store.revoke(lease).await?;
    let value = store.entry(&trial.key("k")).await?.map(|entry| entry.value);
    ensure_eq!(value, Some(bytes("anew")), "the key created anew");
    Ok(())
}

/// A refused transaction attaches nothing to its lease.
pub async fn refused_attaches_nothing(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let lease = store.grant(LONG).await?.id;
    store.put(trial.key("k"), bytes("free"), None).await?;
    let txn = Txn::new().absent(trial.key("k")).put(trial.key("k"), "leased", Some(lease));
    crate::trial::refused(store.commit(txn).await?, "the key exists")?;
    store.revoke(lease).await?;
    ensure!(store.entry(&trial.key("k")).await?.is_some(), "the key went with a lease that it never had");
    Ok(())
}
