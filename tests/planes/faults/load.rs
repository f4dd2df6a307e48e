//! Many who want the same connection: when it cannot be had, and when one of them does not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use slipring::{Effect, Plane};
use slipring_core::EnvironmentExt;
use slipring_sim::Fault;
use tokio::time::{Instant, sleep};

use super::scene::Scene;
use super::{SECOND, on, on_both};
use crate::ground::eventually;

/// A connection that cannot be had is dialled again after growing pauses, however many want it and however short
/// their deadlines are; calls end in time, with effect none; and once it can be had again, it is.
#[test]
fn f36_a_dead_link_is_dialled_with_pauses() {
    for (wrong, deadline) in [
        (refused as fn() -> Fault, Duration::from_millis(500)),
        (silent, Duration::from_millis(500)),
        (silent, 3 * SECOND),
    ] {
        on(Plane::Tcp, async |scene| is_dialled_with_pauses(scene, wrong(), deadline).await);
    }
}

const OUTAGE: Duration = Duration::from_secs(20);

fn refused() -> Fault {
    Fault::CutNodes { from: "caller".to_owned(), to: "worker".to_owned(), lasts: OUTAGE }
}

fn silent() -> Fault {
    let (from, to) = ("caller".to_owned(), "worker".to_owned());
    Fault::PartitionNodes { from, to, both_ways: true, lasts: OUTAGE }
}

async fn is_dialled_with_pauses(scene: &Scene, wrong: Fault, deadline: Duration) {
    const CALLERS: u64 = 8;
    /// Pauses of 50, 100, 200, 400, 800 ms, and then of a second.
    const DIALS_MAX: usize = 5 + 19;
    let worker = scene.worker("worker").await;
    let caller = scene.caller("caller", 1).await;
    caller.who.call(&0).await.unwrap();
    let began = Instant::now();
    scene.strike(wrong);
    let (ended, failed) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    for _ in 0..CALLERS {
        let (caller, ended, failed) = (caller.clone(), ended.clone(), failed.clone());
        let calls = async move {
            while began.elapsed() < OUTAGE - deadline {
                let called = Instant::now();
                if let Err(error) = caller.who.request(&0).deadline(deadline).call().await {
                    // The connection that was there took some with it.
                    assert!(error.effect() == Effect::None || began.elapsed() < 6 * SECOND, "{error}");
                    failed.fetch_add(1, Ordering::Relaxed);
                }
                assert!(called.elapsed() <= deadline + Duration::from_millis(1), "{:?}", called.elapsed());
                sleep(Duration::from_millis(5)).await;
            }
            ended.fetch_add(1, Ordering::Relaxed);
        };
        scene.world.node("caller").environment().start("calls", calls).detach();
    }
    eventually("the callers end", || ended.load(Ordering::Relaxed) == CALLERS).await;
    let (failed, dials) = (failed.load(Ordering::Relaxed), caller.meter.dials());
    assert!(dials > 2 && dials <= 1 + DIALS_MAX, "{dials} dials, {failed} calls failed");
    assert!(failed > CALLERS, "{failed}");
    sleep((began + OUTAGE).saturating_duration_since(Instant::now())).await;
    // Within the last pause, and the dialling that was under way.
    while caller.who.request(&0).deadline(4 * SECOND).call().await != Ok(worker.runtime.instance_id()) {
        assert!(began.elapsed() < OUTAGE + 4 * SECOND, "it is not dialled any more");
        sleep(SECOND / 10).await;
    }
    assert_eq!(caller.meter.connections(), 1, "one connection for all");
}

/// Whoever does not read stops its own stream alone: others on the same connection go on at their pace, what was
/// made for it is bounded by its window, and whatever waits comes when it reads again.
#[test]
fn f12_a_slow_reader_stops_its_own_stream_alone() {
    const LETTERS: usize = 1_000;
    /// A window of a mebibyte, what the connection takes, and what is being made.
    const UNREAD_MAX: u64 = 1_300;
    on_both(async |scene| {
        let worker = scene.worker("worker").await;
        let caller = scene.caller("caller", 1).await;
        let request = (1, 10_000, 0, LETTERS);
        let mut slow = caller.items.request(&request).deadline(50 * SECOND).generate().await.unwrap();
        let first = slow.next().await.unwrap().unwrap();
        assert_eq!(first.0, 1);
        sleep(SECOND).await;
        let made = worker.made.load(Ordering::Relaxed);
        assert!(made <= UNREAD_MAX, "{made} items were made for nobody");
        let began = Instant::now();
        let mut others = Vec::new();
        for number in 2..22 {
            others.push(caller.reading(number, 200, 10).await);
        }
        for other in others {
            let read = other.ended().await;
            assert!(read.items == 200 && matches!(read.ended, Some((_, None))), "{read:?}");
        }
        assert!(began.elapsed() < 4 * SECOND, "others were held up: {:?}", began.elapsed());
        assert_eq!(worker.made.load(Ordering::Relaxed), made + 20 * 200, "more was made for nobody");
        let mut read = 1;
        while let Some(item) = slow.next().await {
            read += 1;
            assert_eq!(item.unwrap().0, read);
        }
        assert_eq!(read, 10_000);
        assert_eq!(caller.meter.connections(), 1, "all went over one connection");
    });
}
