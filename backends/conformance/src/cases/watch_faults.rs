//! Watches while the store goes away and comes back: none hides that it missed something.

use futures_util::future::try_join;
use slipring_core::{Discovery, DiscoveryExt, Range, Revision, Start, Txn};
use tokio::time::Instant;

use crate::failure::ensure_eq;
use crate::follower::Follower;
use crate::outage::{answered, retried, store_is_back};
use crate::trial::{applied, bytes, can};
use crate::{Action, Failure, Trial, Verdict};

/// A watch tells that the server went away: its last item is an error. Afterwards a snapshot is to be had,
/// and it is what is read.
pub async fn stop_ends_a_watch_with_an_error(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    store.put(trial.key("k"), bytes("1"), None).await?;
    let mut follower = Follower::open(&*store, trial.prefix()).await?;
    trial.act(Action::Stop).await?;
    let began = Instant::now();
    let end = follower.end().await?;
    ensure_eq!(end.code(), "unavailable", "the end of the watch");
    trial.note(format!("the watch ended after {:?}", began.elapsed()));
    trial.act(Action::Start).await?;
    store_is_back(&*store, trial).await?;
    let mut follower = retried_open(&*store, trial).await?;
    ensure_eq!(follower.view(), store.list(&trial.prefix()).await?, "the fresh snapshot");
    store.put(trial.key("k"), bytes("2"), None).await?;
    follower.until(&trial.key("k")).await?;
    Ok(())
}

async fn retried_open(store: &dyn Discovery, trial: &Trial) -> Result<Follower, Failure> {
    let range = || Range::from(trial.prefix());
    retried("a watch", || store.watch(range(), Start::Snapshot)).await?;
    Follower::open(store, range()).await
}

/// W5: after a restart a watch goes on after what it showed last: it shows exactly what others wrote before it
/// was opened again, and then what happens next.
pub async fn w5_resumable_after_a_restart(trial: &Trial) -> Verdict {
    let (store, other) = (trial.discovery().await?, trial.discovery().await?);
    let mut follower = Follower::open(&*store, trial.prefix()).await?;
    for number in 0..5 {
        store.put(trial.key(number), bytes("before"), None).await?;
    }
    follower.until(&trial.key(4)).await?;
    trial.act(Action::Stop).await?;
    follower.end().await?;
    trial.act(Action::Start).await?;
    store_is_back(&*other, trial).await?;
    let mut expected = Vec::new();
    for number in 3..8 {
        expected.push(other.put(trial.key(number), bytes("meanwhile"), None).await?);
    }
    expected.push(applied(other.commit(Txn::new().delete(trial.key(0))).await?)?);
    follower.reopen(&*store).await?;
    expected.push(other.put(trial.key("last"), bytes("after"), None).await?);
    let shown = follower.until(&trial.key("last")).await?;
    let shown: Vec<_> = shown.into_iter().map(|batch| batch.revision).collect();
    ensure_eq!(shown, expected, "the revisions that the watch goes on with");
    ensure_eq!(follower.view(), other.list(&trial.prefix()).await?, "what it showed, put together");
    Ok(())
}

/// W3, W5, W14: connections end again and again under a writer. A watch that is opened anew after each end
/// shows every revision once and in order.
pub async fn w5_cuts_leave_no_gap(trial: &Trial) -> Verdict {
    const WRITES: u32 = 90;
    const WRITES_PER_CUT: u32 = 15;
    let (store, other) = (trial.discovery().await?, trial.discovery().await?);
    let mut follower = Follower::open(&*store, trial.prefix()).await?;
    let base = follower.revision();
    let last = trial.key("last");
    let write = async {
        for number in 0..WRITES {
            if number % WRITES_PER_CUT == WRITES_PER_CUT / 2 {
                trial.act(Action::Cut).await?;
            }
            let (key, value) = (trial.key(number % 10), bytes(number.to_string()));
            retried("a write", || other.put(key.clone(), value.clone(), None)).await?;
            tokio::task::yield_now().await;
        }
        retried("the last write", || other.put(last.clone(), bytes(""), None)).await?;
        Ok(())
    };
    let follow = async {
        let (mut shown, mut ends) = (Vec::new(), 0);
        while !follower.view().iter().any(|entry| entry.key == last) {
            match follower.changes_or_end().await? {
                Ok(batch) => shown.push(batch.revision),
                Err(error) => {
                    ensure_eq!(error.code(), "unavailable", "the end of a watch whose connection ended");
                    ends += 1;
                    follower.reopen(&*store).await?;
                }
            }
        }
        Ok::<_, Failure>((shown, ends))
    };
    let ((), (shown, ends)) = try_join(write, follow).await?;
    trial.note(format!("the watch ended {ends} times, and showed {} revisions", shown.len()));
    // The last write may have been made twice.
    let until = *shown.last().ok_or_else(|| Failure::new("nothing was shown"))?;
    let all = Follower::resume(&*other, trial.prefix(), base).await?.until(&last).await?;
    let all: Vec<_> = all.into_iter().map(|batch| batch.revision).filter(|at| *at <= until).collect();
    ensure_eq!(shown, all, "the revisions that the watch showed");
    Ok(())
}

/// W11, F26: history that was forgotten while a reader was cut off is told with `Compacted`; a snapshot is
/// always to be had.
pub async fn w11_compacted_while_cut_off(trial: &Trial) -> Verdict {
    let (store, other) = (trial.discovery().await?, trial.discovery().await?);
    let mut follower = Follower::open(&*store, trial.prefix()).await?;
    let old = store.put(trial.key("k"), bytes("1"), None).await?;
    follower.until(&trial.key("k")).await?;
    trial.act(Action::Cut).await?;
    store_is_back(&*other, trial).await?;
    for value in ["2", "3"] {
        retried("a write", || other.put(trial.key("k"), bytes(value), None)).await?;
    }
    trial.act(Action::Compact).await?;
    store_is_back(&*store, trial).await?;
    let resume = || store.watch(trial.prefix().into(), Start::After(old));
    let end = match answered("a watch to be answered", resume).await? {
        Err(error) => Some(error),
        Ok(_) => {
            let mut follower = Follower::resume(&*store, trial.prefix(), old).await?;
            follower.reach(Revision(u64::MAX)).await?
        }
    };
    ensure_eq!(end.map(|error| error.code()), Some("compacted"), "the answer to a compacted revision");
    let follower = retried_open(&*store, trial).await?;
    ensure_eq!(follower.view(), store.list(&trial.prefix()).await?, "the fresh snapshot");
    Ok(())
}

/// A watch on a server that stands still is not silent for longer than it declares: it ends. When the server
/// goes on, so does the watch, without a gap.
pub async fn w6_silence_of_a_paused_store_is_bounded(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let silence_max = can(&*store).await?.watch_silence_max;
    let mut follower = Follower::open(&*store, trial.prefix()).await?;
    trial.act(Action::Pause).await?;
    let began = Instant::now();
    let end = follower.end().await?;
    ensure_eq!(end.code(), "unavailable", "the end of the watch");
    trial.note(format!("the watch ended after {:?}, declared are {silence_max:?}", began.elapsed()));
    trial.act(Action::Resume).await?;
    store_is_back(&*store, trial).await?;
    let key = trial.key("k");
    retried("a write", || store.put(key.clone(), bytes("v"), None)).await?;
    if can(&*store).await?.resume {
        follower.reopen(&*store).await?;
        follower.until(&key).await?;
    } else {
        follower = retried_open(&*store, trial).await?;
    }
    ensure_eq!(follower.view(), store.list(&trial.prefix()).await?, "what the watch showed, put together");
    Ok(())
}
