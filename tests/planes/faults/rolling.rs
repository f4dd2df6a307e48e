//! Restarts under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::StreamExt;
use slipring::{Error, Plane};
use slipring_core::{EnvironmentExt, Fact};
use slipring_sim::Fault;
use tokio::time::sleep;

use super::scene::{Caller, Scene};
use super::{SECOND, on_both, on_seeds};
use crate::ground::eventually;

const WORKERS: [&str; 3] = ["one", "two", "three"];
const NODES: [&str; 4] = ["a", "b", "c", "d"];
/// On each node.
const CALLERS: u64 = 8;
const ROUNDS: usize = 4;
/// A restart under load takes long.
const ROLLING_SEEDS: u64 = 3;

/// Callers that call until they are told to stop.
#[derive(Clone, Default)]
struct Load {
    stop: Arc<AtomicBool>,
    next: Arc<AtomicU64>,
    running: Arc<AtomicU64>,
    errors: Arc<std::sync::Mutex<Vec<Error>>>,
}

impl Load {
    fn start(&self, caller: &Caller) {
        for _ in 0..CALLERS {
            self.running.fetch_add(1, Ordering::Relaxed);
            let (load, node, caller) = (self.clone(), caller.node.clone(), caller.clone());
            let calls = async move {
                while !load.stop.load(Ordering::Relaxed) {
                    let number = load.next.fetch_add(1, Ordering::Relaxed);
                    let outcome = match number % 2 {
                        0 => unary(&caller, number).await,
                        _ => stream(&caller, number).await,
                    };
                    if let Err(error) = outcome {
                        load.errors.lock().unwrap().push(error);
                    }
                }
                load.running.fetch_sub(1, Ordering::Relaxed);
            };
            node.environment().start("calls", calls).detach();
        }
    }

    /// Nothing failed, and every request was executed once.
    async fn end(&self, scene: &Scene, calls_min: u64) {
        self.stop.store(true, Ordering::Relaxed);
        eventually("the callers end", || self.running.load(Ordering::Relaxed) == 0).await;
        let calls = self.next.load(Ordering::Relaxed);
        let errors = self.errors.lock().unwrap();
        assert!(errors.is_empty(), "{} of {calls} failed: {}", errors.len(), errors[0]);
        assert!((0..calls).all(|number| scene.executed(number) == 1), "a request was not executed once");
        assert!(calls >= calls_min, "{calls}");
    }
}

async fn unary(caller: &Caller, number: u64) -> Result<(), Error> {
    let takes_ms = number % 90;
    caller.who.request(&takes_ms).metadata("number", number.to_string()).call().await.map(drop)
}

async fn stream(caller: &Caller, number: u64) -> Result<(), Error> {
    let mut responses = caller.items.request(&(number, 4, number % 40, 10)).generate().await?;
    let mut read = 0;
    while let Some(item) = responses.next().await {
        read += 1;
        assert_eq!(item?.0, read);
    }
    assert_eq!(read, 4);
    Ok(())
}

/// Promise 5 on connections: three workers are restarted one after another, round after round, under the load of 32
/// callers with calls and streams: not one fails, none is executed twice, and every stop is clean.
#[test]
fn zero_failed_requests_in_a_rolling_restart() {
    for plane in [Plane::Tcp, Plane::NatsTcp] {
        on_seeds(ROLLING_SEEDS, plane, restarts);
    }
}

async fn restarts(scene: &Scene) {
    let mut workers = Vec::new();
    for name in WORKERS {
        workers.push(scene.worker(name).await);
    }
    let load = Load::default();
    for name in NODES {
        load.start(&scene.caller(name, WORKERS.len()).await);
    }
    for round in 0..ROUNDS {
        for (at, name) in WORKERS.into_iter().enumerate() {
            sleep(SECOND / 2).await;
            let old = workers.remove(at);
            let report = old.runtime.stop().await;
            assert!(report.is_clean() && report.abandoned == 0, "round {round}, {name}: {report}");
            scene.forget(&old.runtime);
            old.node.crash();
            drop(old);
            workers.insert(at, scene.worker(name).await);
        }
    }
    load.end(scene, 2_000).await;
}

/// A caller that does not learn that a worker goes sends it requests to the last: they are refused with effect none,
/// by the endpoint or because the connection goes away, and answered elsewhere. Not one fails.
#[test]
fn f5_who_does_not_see_a_stop_is_sent_elsewhere() {
    on_both(async |scene| {
        let going = scene.worker("one").await;
        let _stays = scene.worker("two").await;
        let caller = scene.caller("a", 2).await;
        let load = Load::default();
        load.start(&caller);
        sleep(SECOND).await;
        scene.strike(Fault::StallWatches { node: "a".to_owned(), lasts: 3 * SECOND });
        let report = going.runtime.stop().await;
        assert!(report.is_clean() && report.abandoned == 0, "{report}");
        scene.forget(&going.runtime);
        going.node.crash();
        drop(going);
        eventually("it is seen to be gone", || caller.who.instances().all().len() == 1).await;
        load.end(scene, 200).await;
        let facts = caller.node.environment().facts();
        let routes = facts.iter().filter(|fact| matches!(fact, Fact::RouteChosen { .. })).count();
        let calls = usize::try_from(load.next.load(Ordering::Relaxed)).unwrap();
        assert!(routes > calls, "no call was sent to whoever refused it: the test shows nothing");
    });
}
