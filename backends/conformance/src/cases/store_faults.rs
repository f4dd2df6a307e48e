//! The store goes away and comes back: what was acknowledged stands, and what failed is what its error says.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{join, join_all};
use slipring_core::{Change, Commit, Discovery, DiscoveryExt, Effect, Error, Range, Revision, Start, Txn};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::failure::{ensure, ensure_eq};
use crate::follower::Follower;
use crate::outage::{MOMENT, is_outage, restart, retried, store_is_back, store_is_missed};
use crate::trial::{applied, bytes, fails, refused, revision, within};
use crate::{Action, Failure, Trial, Verdict};

const LONG: Duration = Duration::from_secs(300);

/// K10: whatever was acknowledged is there after a restart, at its revision; guards go on to hold, and the
/// store goes on from where it was.
pub async fn k10_acknowledged_writes_survive_a_restart(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    for number in 0..50 {
        store.put(trial.key(number), bytes(number.to_string()), None).await?;
    }
    store.delete(trial.key(7)).await?;
    let before = store.read(trial.prefix().into()).await?;
    restart(trial).await?;
    store_is_back(&*store, trial).await?;
    let after = store.read(trial.prefix().into()).await?;
    ensure_eq!(after.entries, before.entries, "the entries after a restart");
    ensure!(after.revision >= before.revision, "it was at {} and is at {}", before.revision, after.revision);
    let last = before.entries[0].modified;
    let stale = Txn::new().unchanged(trial.key(0), Revision(last.0 + 1)).put(trial.key(0), "stale", None);
    refused(store.commit(stale).await?, "the key was written at another revision")?;
    let fresh = Txn::new().unchanged(trial.key(0), last).put(trial.key(0), "fresh", None);
    let moved = applied(store.commit(fresh).await?)?;
    ensure!(moved > after.revision, "the store was at {}, then wrote at {moved}", after.revision);
    Ok(())
}

/// K9: of the writes that were under way when the server went away, an acknowledged one happened once, one
/// that failed with effect none did not happen, and any other happened at most once.
pub async fn k9_writes_at_a_stop_happen_at_most_once(trial: &Trial) -> Verdict {
    writes_happen_at_most_once(trial, Action::Stop).await
}

/// K9: the same of writes that were under way when their connection ended.
pub async fn k9_writes_at_a_cut_happen_at_most_once(trial: &Trial) -> Verdict {
    writes_happen_at_most_once(trial, Action::Cut).await
}

async fn writes_happen_at_most_once(trial: &Trial, fault: Action) -> Verdict {
    const WRITERS: usize = 32;
    let store = trial.discovery().await?;
    let base = revision(&*store, trial).await?;
    // The fault comes when so many writes were acknowledged; each writer goes on until it fails, or has
    // written once more after the fault.
    let under_way = Notify::new();
    let struck = AtomicBool::new(false);
    let write = async |writer: usize| {
        let mut outcomes = Vec::new();
        loop {
            let last = struck.load(Ordering::Relaxed);
            let value = format!("{writer}.{}", outcomes.len());
            let outcome = store.put(trial.key(writer), bytes(value.clone()), None).await;
            let failed = outcome.is_err();
            outcomes.push((value, outcome));
            if failed || last {
                return outcomes;
            }
            if outcomes.len() == 5 {
                under_way.notify_one();
            }
            tokio::task::yield_now().await;
        }
    };
    let strike = async {
        under_way.notified().await;
        let verdict = trial.act(fault).await;
        struck.store(true, Ordering::Relaxed);
        verdict
    };
    let (written, verdict) = join(join_all((0..WRITERS).map(write)), strike).await;
    verdict?;
    if fault == Action::Stop {
        trial.act(Action::Start).await?;
    }
    store_is_back(&*store, trial).await?;
    let happened = history(&*store, trial, base).await?;
    let mut in_doubt = (0, 0);
    for (value, outcome) in written.into_iter().flatten() {
        let revisions = happened.get(&value).map_or(&[][..], Vec::as_slice);
        match outcome {
            Ok(at) => ensure_eq!(revisions, [at], "the revisions of {value:?}, acknowledged at {at}"),
            Err(error) => {
                ensure!(is_outage(&error), "expected what an outage is answered with, got {error:?}");
                let (min, max) = match error.effect() {
                    Effect::None => (0, 0),
                    Effect::Unknown => (0, 1),
                    Effect::Applied => (1, 1),
                };
                let times = revisions.len();
                ensure!(min <= times && times <= max, "{value:?} happened {times} times after {error:?}");
                in_doubt.0 += max;
                in_doubt.1 += times;
            }
        }
    }
    trial.note(format!("{} writes were in doubt, {} of them had happened", in_doubt.0, in_doubt.1));
    Ok(())
}

/// Every value that was written after a revision, and when.
async fn history(
    store: &dyn Discovery,
    trial: &Trial,
    after: Revision,
) -> Result<BTreeMap<String, Vec<Revision>>, Failure> {
    let last = trial.key("last");
    retried("the last write", || store.put(last.clone(), bytes("last"), None)).await?;
    let mut happened = BTreeMap::<_, Vec<_>>::new();
    for batch in Follower::resume(store, trial.prefix(), after).await?.until(&last).await? {
        for change in batch.changes {
            if let Change::Put(entry) = change {
                let value = String::from_utf8_lossy(&entry.value).into_owned();
                happened.entry(value).or_default().push(batch.revision);
            }
        }
    }
    Ok(happened)
}

/// While the server is away, every call is refused as unavailable, with nothing done; and what was refused is
/// not done when it is back.
pub async fn stopped_store_refuses(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let lease = store.grant(LONG).await?.id;
    store.put(trial.key("before"), bytes("before"), Some(lease)).await?;
    trial.act(Action::Stop).await?;
    store_is_missed(&*store, trial).await?;
    let began = Instant::now();
    let calls = async {
        for key in ["refused", "before"] {
            fails(store.put(trial.key(key), bytes("refused"), None).await, "unavailable")?;
        }
        fails(store.read(Range::All).await, "unavailable")?;
        fails(store.watch(Range::All, Start::Snapshot).await, "unavailable")?;
        fails(store.grant(LONG).await, "unavailable")?;
        fails(store.keep_alive(lease).await, "unavailable")?;
        fails(store.revoke(lease).await, "unavailable")?;
        Ok::<_, Failure>(())
    };
    within("seven calls to be refused", calls).await??;
    trial.note(format!("seven calls were refused in {:?}", began.elapsed()));
    trial.act(Action::Start).await?;
    store_is_back(&*store, trial).await?;
    // What somebody keeps to send it after all comes a moment later.
    sleep(MOMENT).await;
    retried("a heartbeat", || store.keep_alive(lease)).await?;
    let mut left = store.list(&trial.prefix()).await?;
    left.retain(|entry| entry.key != trial.key("probe"));
    let left: Vec<_> = left.into_iter().map(|entry| (entry.key, entry.value, entry.lease)).collect();
    ensure_eq!(left, vec![(trial.key("before"), bytes("before"), Some(lease))], "what is there");
    Ok(())
}

/// A server that stands still is noticed: every call ends, within a bound, as unavailable or over its time; and
/// when the server goes on, so do the calls. What failed with effect none did not happen.
pub async fn paused_store_is_noticed(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let lease = store.grant(LONG).await?.id;
    trial.act(Action::Pause).await?;
    let began = Instant::now();
    let calls = async {
        tokio::join!(
            ended(began, store.read(trial.prefix().into())),
            ended(began, store.put(trial.key("k"), bytes("v"), None)),
            ended(began, store.watch(trial.prefix().into(), Start::Snapshot)),
            ended(began, store.grant(LONG)),
            ended(began, store.keep_alive(lease)),
        )
    };
    let (read, put, watch, grant, beat) = within("calls to a server that stands still to end", calls).await?;
    let all = [("read", read), ("put", put.clone()), ("watch", watch), ("grant", grant), ("heartbeat", beat)];
    for (call, (after, error)) in all {
        ensure!(
            error.as_ref().is_some_and(is_outage),
            "{call}: expected the end of a call without answer, got {error:?}"
        );
        trial.note(format!("a {call} to a server that stands still ended after {after:?}"));
    }
    trial.act(Action::Resume).await?;
    store_is_back(&*store, trial).await?;
    sleep(MOMENT).await;
    let happened = store.entry(&trial.key("k")).await?.is_some();
    let effect = put.1.map(|error| error.effect());
    ensure!(!happened || effect != Some(Effect::None), "a write with effect none has happened");
    Ok(())
}

/// When a call ended, and with which error.
async fn ended<T>(
    began: Instant,
    call: impl Future<Output = slipring_core::Result<T>>,
) -> (Duration, Option<Error>) {
    let error = call.await.err();
    (began.elapsed(), error)
}

/// K8: over an outage too a race to create a key has at most one winner, and nobody is told that they won who
/// did not.
pub async fn k8_create_race_over_a_cut(trial: &Trial) -> Verdict {
    const ROUNDS: usize = 5;
    let handles = [trial.discovery().await?, trial.discovery().await?, trial.discovery().await?];
    for round in 0..ROUNDS {
        let key = trial.key(round);
        let race = async |who: usize| {
            let created = handles[who].create(key.clone(), bytes(who.to_string()), None).await;
            (who, created)
        };
        let cut = trial.act(Action::Cut);
        let (ran, verdict) = join(join_all((0..handles.len()).map(race)), cut).await;
        verdict?;
        let read = retried("the key to be read", || handles[0].entry(&key)).await?;
        let holder = read.map(|entry| entry.value);
        for (who, created) in ran {
            let is_holder = holder == Some(bytes(who.to_string()));
            match created {
                Ok(Commit::Applied(_)) => {
                    ensure!(is_holder, "{who} was told that it won, but {holder:?} is there")
                }
                Ok(Commit::Refused) => ensure!(!is_holder, "{who} was told that it lost, but it is there"),
                Err(error) => {
                    ensure!(is_outage(&error), "expected what an outage is answered with, got {error:?}");
                    ensure!(
                        !is_holder || error.effect() != Effect::None,
                        "{who} is there in spite of {error:?}"
                    );
                }
            }
        }
    }
    Ok(())
}
