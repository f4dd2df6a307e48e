//! The broker is not there, and the connections are.

use slipring::{Effect, Error, LeasePolicy, LeaseState, Plane};
use slipring_sim::{Direction, Fault};
use tokio::time::{Instant, sleep};

use super::scene::{Caller, Scene};
use super::{SECOND, on, on_both};
use crate::ground::eventually;

const NODES: [&str; 2] = ["worker", "caller"];

/// Both nodes lose the broker, store and bus, by connections that are reset or by silence.
fn lose_the_broker(scene: &Scene, silently: bool, lasts: std::time::Duration) {
    for node in NODES.map(str::to_owned) {
        scene.strike(match silently {
            true => Fault::Partition { node, lost: Direction::Both, lasts },
            false => Fault::Cut { node, lasts },
        });
    }
}

/// While the broker cannot be reached the streams under way go on, on both planes; direct calls are made as before,
/// and calls that need the broker fail and say whether they were sent.
#[test]
fn f5_who_is_connected_needs_no_broker() {
    on_both(async |scene| {
        let worker = scene.worker("worker").await;
        let caller = scene.caller("caller", 1).await;
        for silently in [false, true] {
            let readings = [caller.reading(1, 500, 10).await, caller.reading(2, 200, 25).await];
            lose_the_broker(scene, silently, 12 * SECOND);
            let since = Instant::now();
            while since.elapsed() < 8 * SECOND {
                let called = caller.who.request(&10).deadline(SECOND).call().await;
                match scene.plane {
                    Plane::Tcp => assert_eq!(called, Ok(worker.runtime.instance_id())),
                    _ => drop(called.unwrap_err()),
                }
                sleep(SECOND / 50).await;
            }
            for reading in readings {
                let read = reading.ended().await;
                assert!(matches!(read.ended, Some((at, None)) if at <= since + 8 * SECOND), "{read:?}");
            }
            sleep((since + 13 * SECOND).saturating_duration_since(Instant::now())).await;
            is_well_again(&caller, worker.runtime.instance_id()).await;
        }
    });
}

async fn is_well_again(caller: &Caller, instance: u64) {
    let limit = Instant::now() + 10 * SECOND;
    while caller.who.request(&0).idempotent().deadline(2 * SECOND).call().await != Ok(instance) {
        assert!(Instant::now() < limit, "the worker is not reached any more");
    }
}

/// The store alone is gone for longer than any lease: what was known is called all the same, if the owner goes on
/// without a lease; an exclusive owner refuses, with effect none, until it has one again.
#[test]
fn f14_calls_go_on_without_discovery() {
    for policy in [LeasePolicy::KeepServing, LeasePolicy::Fence] {
        on(Plane::Tcp, async |scene| goes_on_without_discovery(scene, policy).await);
        on(Plane::NatsTcp, async |scene| goes_on_without_discovery(scene, policy).await);
    }
}

async fn goes_on_without_discovery(scene: &Scene, policy: LeasePolicy) {
    let worker = scene.worker_at("worker", "worker:7000", policy).await;
    let caller = scene.caller("caller", 1).await;
    let reading = caller.reading(1, 1_000, 10).await;
    scene.strike(Fault::PauseStore { lasts: 20 * SECOND });
    let lost = || matches!(worker.runtime.lease().get(), LeaseState::Lost { .. });
    let mut refused = 0;
    for number in 100..200 {
        let request = caller.who.request(&0).metadata("number", number.to_string());
        let fenced = lost() && policy == LeasePolicy::Fence;
        match request.deadline(SECOND).fail_fast().call().await {
            Ok(instance) => assert_eq!(instance, worker.runtime.instance_id()),
            Err(error) => {
                assert!(fenced || lost(), "{error}");
                assert!(
                    policy == LeasePolicy::Fence && matches!(error, Error::LeaseLost { .. }),
                    "{error:?}"
                );
                assert_eq!((error.effect(), scene.executed(number)), (Effect::None, 0));
                refused += 1;
            }
        }
        sleep(SECOND / 10).await;
    }
    assert!(lost(), "the lease lived on: the test shows nothing");
    assert_eq!(refused > 0, policy == LeasePolicy::Fence);
    let read = reading.ended().await;
    assert!(matches!(read.ended, Some((_, None))) && read.items == 1_000, "{read:?}");
    eventually("there is a lease again", || !lost()).await;
    is_well_again(&caller, worker.runtime.instance_id()).await;
}
