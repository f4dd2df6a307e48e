//! What moves the store forward, and what does not.

use std::time::Duration;

use slipring_core::{BoxFuture, Discovery, DiscoveryExt, Start, Txn};

use crate::failure::{ensure, ensure_eq};
use crate::trial::{applied, bytes, refused, revision};
use crate::{Failure, Trial, Verdict};

/// Checks that something leaves the revision alone. Others may write meanwhile, so one undisturbed attempt
/// of many is enough; a store that moves fails all of them.
async fn moves_nothing<'a>(
    store: &dyn Discovery,
    trial: &Trial,
    what: &str,
    act: impl Fn() -> BoxFuture<'a, Verdict>,
) -> Verdict {
    const ATTEMPTS: usize = 50;
    for _ in 0..ATTEMPTS {
        let before = revision(store, trial).await?;
        act().await?;
        if revision(store, trial).await? == before {
            return Ok(());
        }
    }
    Err(Failure::new(format!("{what} moved the revision, {ATTEMPTS} times of {ATTEMPTS}")))
}

/// K2: every transaction that changes something moves the store forward: a put, the same put again, a
/// deletion; and a read afterwards is at that revision or later.
pub async fn k2_changes_move_forward(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let key = trial.key("k");
    let mut last = revision(&*store, trial).await?;
    let put = || Txn::new().put(key.clone(), "same", None);
    for txn in [put(), put(), Txn::new().delete(key.clone()), put()] {
        let at = applied(store.commit(txn.clone()).await?)?;
        ensure!(at > last, "{txn:?} was applied at {at}, after {last}");
        let read = revision(&*store, trial).await?;
        ensure!(read >= at, "a read at {read} after a write at {at}");
        last = at;
    }
    Ok(())
}

/// K4: all writes of a transaction are at one revision, which is the one that the commit returns.
pub async fn k4_transaction_is_one_revision(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    store.put(trial.key("b"), bytes("old"), None).await?;
    let txn = Txn::new().put(trial.key("a"), "1", None).put(trial.key("b"), "2", None).put(
        trial.key("c"),
        "3",
        None,
    );
    let at = applied(store.commit(txn).await?)?;
    let modified: Vec<_> =
        store.list(&trial.prefix()).await?.into_iter().map(|entry| entry.modified).collect();
    ensure_eq!(modified, vec![at; 3], "the revisions of the three entries");
    Ok(())
}

/// K3: deleting what does not exist, and a transaction without operations, are applied at the current
/// revision and do not move it.
pub async fn k3_no_ops_do_not_move(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let store = &*store;
    for txn in [Txn::new(), Txn::new().delete(trial.key("absent")), Txn::new().absent(trial.key("absent"))] {
        let what = format!("{txn:?}");
        let act = || -> BoxFuture<'_, Verdict> {
            let txn = txn.clone();
            Box::pin(async move {
                let before = revision(store, trial).await?;
                let at = applied(store.commit(txn).await?)?;
                ensure!(at >= before, "a no-op was applied at {at}, before the current revision {before}");
                ensure!(at <= revision(store, trial).await?, "a no-op was applied in the future, at {at}");
                Ok(())
            })
        };
        moves_nothing(store, trial, &what, act).await?;
    }
    Ok(())
}

/// K3: a refused transaction does not move the store.
pub async fn k3_refused_does_not_move(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let store = &*store;
    store.put(trial.key("k"), bytes("there"), None).await?;
    let act = || -> BoxFuture<'_, Verdict> {
        Box::pin(async move {
            refused(store.create(trial.key("k"), bytes("again"), None).await?, "the key exists")
        })
    };
    moves_nothing(store, trial, "a refused transaction", act).await
}

/// K3: a grant and a heartbeat do not move the store.
pub async fn k3_leases_do_not_move(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let store = &*store;
    let act = || -> BoxFuture<'_, Verdict> {
        Box::pin(async move {
            let lease = store.grant(Duration::from_secs(30)).await?;
            store.keep_alive(lease.id).await?;
            Ok(())
        })
    };
    moves_nothing(store, trial, "a grant or a heartbeat", act).await
}

/// K3: reading and watching do not move the store.
pub async fn k3_readers_do_not_move(trial: &Trial) -> Verdict {
    let store = trial.discovery().await?;
    let store = &*store;
    let act = || -> BoxFuture<'_, Verdict> {
        Box::pin(async move {
            store.read(trial.prefix().into()).await?;
            drop(store.watch(trial.prefix().into(), Start::Snapshot).await?);
            Ok(())
        })
    };
    moves_nothing(store, trial, "a read or a watch", act).await
}
