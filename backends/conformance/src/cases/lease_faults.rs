//! Leases while the store goes away and comes back: none ends early, and none is given out again.

use std::collections::BTreeSet;
use std::time::Duration;

use slipring_core::{Discovery, DiscoveryExt, Key, Lease};
use tokio::time::{Instant, sleep};

use crate::failure::{ensure, ensure_eq};
use crate::outage::{answered, restart, retried, store_is_back};
use crate::trial::{bytes, can, fails, within};
use crate::{Action, Failure, Trial, Verdict};

const LONG: Duration = Duration::from_secs(300);

/// How long a key lives after `since`; outages are waited out.
async fn lifetime(store: &dyn Discovery, key: &Key, since: Instant) -> Result<Duration, Failure> {
    let gone = async {
        loop {
            let entry = retried("the key to be read", || store.entry(key)).await?;
            if entry.is_none() {
                return Ok(since.elapsed());
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    within("the key of a lease that nobody keeps alive to vanish", gone).await?
}

/// A lease that outlives a short fault, and the key that it holds.
async fn leased(store: &dyn Discovery, key: &Key) -> Result<(Instant, Lease), Failure> {
    let ttl = can(store).await?.ttl_min.max(Duration::from_secs(2));
    let sent = Instant::now();
    let lease = store.grant(ttl).await?;
    store.put(key.clone(), bytes("leased"), Some(lease.id)).await?;
    Ok((sent, lease))
}

/// L1: a restart ends no lease before its time; and one that nobody keeps alive does end.
pub async fn l1_restart_ends_no_lease_early(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let key = trial.key("k");
    let (sent, lease) = leased(&*store, &key).await?;
    restart(trial).await?;
    let lived = lifetime(&*store, &key, sent).await?;
    ensure!(lived >= lease.ttl, "granted for {:?}, gone {lived:?} after the grant", lease.ttl);
    trial.note(format!("over a restart, a lease of {:?} lived {lived:?}", lease.ttl));
    Ok(())
}

/// L1: a server that stands still for less than the time to live ends no lease before its time.
pub async fn l1_pause_ends_no_lease_early(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let key = trial.key("k");
    let (sent, lease) = leased(&*store, &key).await?;
    trial.act(Action::Pause).await?;
    sleep(lease.ttl / 4).await;
    trial.act(Action::Resume).await?;
    let lived = lifetime(&*store, &key, sent).await?;
    ensure!(lived >= lease.ttl, "granted for {:?}, gone {lived:?} after the grant", lease.ttl);
    trial.note(format!("over a pause, a lease of {:?} lived {lived:?}", lease.ttl));
    Ok(())
}

/// L9: after a pause that was longer than the time to live a heartbeat is decided: either the lease is lost,
/// and its key goes and it stays lost; or it lives, and for all of the time that it is given.
pub async fn l9_heartbeat_after_a_long_pause_is_decided(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let key = trial.key("k");
    let (_, lease) = leased(&*store, &key).await?;
    trial.act(Action::Pause).await?;
    sleep(lease.ttl + Duration::from_secs(1)).await;
    trial.act(Action::Resume).await?;
    let mut sent = Instant::now();
    let beat = || {
        sent = Instant::now();
        store.keep_alive(lease.id)
    };
    let answer = answered("a heartbeat to be answered", beat).await?;
    let lived = lifetime(&*store, &key, sent).await?;
    if let Ok(ttl) = answer {
        ensure!(lived >= ttl, "a heartbeat gave {ttl:?}, the key was gone after {lived:?}");
    } else {
        fails(answer, "lease_lost")?;
    }
    let again = || store.keep_alive(lease.id);
    fails(answered("a heartbeat to be answered", again).await?, "lease_lost")?;
    Ok(())
}

/// A lease that was granted before a restart goes on after it: its keys stand, and heartbeats extend it.
pub async fn leases_go_on_after_a_restart(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let key = trial.key("k");
    let (_, lease) = leased(&*store, &key).await?;
    restart(trial).await?;
    let mut sent = Instant::now();
    let beat = || {
        sent = Instant::now();
        store.keep_alive(lease.id)
    };
    let ttl = retried("a heartbeat to be answered", beat).await?;
    let held = store.entry(&key).await?.and_then(|entry| entry.lease);
    ensure_eq!(held, Some(lease.id), "the lease of the key after a restart");
    let lived = lifetime(&*store, &key, sent).await?;
    ensure!(lived >= ttl, "a heartbeat gave {ttl:?}, the key was gone after {lived:?}");
    Ok(())
}

/// L9: a lease id is fresh after a restart too, whether the lease that had it lives or has ended.
pub async fn l9_lease_ids_are_fresh_after_a_restart(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let mut seen = BTreeSet::new();
    for round in 0..2 {
        for number in 0..10 {
            let grant = || store.grant(LONG);
            let lease = retried("a grant", grant).await?;
            ensure!(seen.insert(lease.id), "the lease id {} was granted before the restart", lease.id);
            if number % 2 == 0 {
                store.revoke(lease.id).await?;
            }
        }
        if round == 0 {
            restart(trial).await?;
        }
    }
    Ok(())
}

/// The end of a connection ends no lease: a lease belongs to whoever knows its id.
pub async fn cut_ends_no_lease(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let lease = store.grant(LONG).await?.id;
    store.put(trial.key("k"), bytes("v"), Some(lease)).await?;
    for _ in 0..3 {
        trial.act(Action::Cut).await?;
        store_is_back(&*store, trial).await?;
        let held = store.entry(&trial.key("k")).await?.and_then(|entry| entry.lease);
        ensure_eq!(held, Some(lease), "the lease of the key after its connection ended");
        retried("a heartbeat", || store.keep_alive(lease)).await?;
    }
    Ok(())
}
