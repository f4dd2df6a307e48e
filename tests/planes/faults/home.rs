//! Call-home: the ways to lose a request, or the way back.

use std::time::Duration;

use slipring::{Effect, Error, Plane};
use slipring_sim::Fault;
use tokio::time::{Instant, sleep};

use super::scene::Scene;
use super::{LATENCY_MAX, SECOND, on};
use crate::ground::eventually;

/// How long a caller waits before it asks after a call, and a sweep, and the way there and back.
const ASKED_WITHIN: Duration = Duration::from_millis(2_500);
/// How long the worker tries to dial before it takes another way.
const DIALLED_WITHIN: Duration = Duration::from_millis(2_100);

/// A request that is lost on its way is noticed by asking after it, long before the deadline; whoever may is tried
/// again.
#[test]
fn f10_a_lost_request_is_noticed() {
    on(Plane::NatsTcp, async |scene| {
        let worker = scene.worker("worker").await;
        let caller = scene.caller("caller", 1).await;
        for is_connected in [false, true] {
            let lose = || scene.strike(Fault::LosePublish { node: "caller".to_owned() });
            lose();
            let began = Instant::now();
            let (at, answer) = caller.calling(1, 0).ended().await;
            let error = answer.unwrap_err();
            assert!(matches!(error, Error::StreamInterrupted { items_delivered: 0, .. }), "{error:?}");
            assert_eq!((error.effect(), scene.executed(1)), (Effect::Unknown, 0));
            assert!(at - began <= ASKED_WITHIN, "{is_connected}: {:?}", at - began);
            lose();
            let again = caller.who.request(&0).idempotent().call().await;
            assert_eq!(again, Ok(worker.runtime.instance_id()));
        }
    });
}

/// A worker that dies with a request that it had taken, before anything came back: the call ends when the record is
/// gone and nobody answers for it, and does not wait for its deadline.
#[test]
fn f34_a_worker_that_dies_with_the_request_is_noticed() {
    on(Plane::NatsTcp, async |scene| {
        let worker = scene.worker("worker").await;
        let caller = scene.caller("caller", 1).await;
        // What it says to the caller takes longer than it lives.
        let (from, to) = ("worker".to_owned(), "caller".to_owned());
        scene.strike(Fault::DelayNodes { from, to, by: 60 * SECOND, lasts: SECOND });
        let began = Instant::now();
        let call = caller.calling(1, 50_000);
        sleep(SECOND / 2).await;
        scene.strike(Fault::PowerLoss { node: "worker".to_owned(), down: None });
        scene.forget(&worker.runtime);
        let (at, answer) = call.ended().await;
        let error = answer.unwrap_err();
        assert!(error.effect() == Effect::Unknown && at - began <= 12 * SECOND, "{:?}: {error}", at - began);
        assert_eq!(caller.runtime.calls_in_flight(), 0);
    });
}

/// A caller whose listener cannot be reached is answered over the broker: after the time to dial if nothing passes,
/// at once if it is refused, and at once as long as it need not be dialled again.
#[test]
fn f7_a_caller_that_cannot_be_dialled_is_answered_all_the_same() {
    for is_refused in [false, true] {
        on(Plane::NatsTcp, async |scene| is_answered(scene, is_refused).await);
    }
}

async fn is_answered(scene: &Scene, is_refused: bool) {
    let worker = scene.worker("worker").await;
    let caller = scene.caller("caller", 1).await;
    let (from, to, lasts) = ("worker".to_owned(), "caller".to_owned(), 30 * SECOND);
    scene.strike(match is_refused {
        true => Fault::CutNodes { from, to, lasts },
        false => Fault::PartitionNodes { from, to, both_ways: true, lasts },
    });
    let within = if is_refused { 6 * LATENCY_MAX } else { DIALLED_WITHIN };
    let began = Instant::now();
    let mut soon = 0;
    for number in 0..20 {
        let began = Instant::now();
        let responses = caller.stream(number, 40, 1).await.unwrap();
        let first = began.elapsed();
        assert!(first <= within, "the first item took {first:?}");
        soon += u32::from(first <= 6 * LATENCY_MAX);
        let read = super::scene::Reading::start(&caller.node, responses).ended().await;
        assert!(read.items == 40 && matches!(read.ended, Some((_, None))), "{read:?}");
        assert_eq!(scene.executed(number), 1);
    }
    assert!(soon >= 10, "{soon} of 20 were answered soon");
    eventually("nothing is worked on", || worker.inside.count() == 0).await;
    // And home again, once that can be.
    sleep((began + 32 * SECOND).saturating_duration_since(Instant::now())).await;
    assert_eq!(caller.meter.connections(), 0);
    caller.who.call(&0).await.unwrap();
    caller.who.call(&0).await.unwrap();
    assert_eq!(caller.meter.connections(), 1, "it is answered over the broker still");
}

/// A request that arrives just before the worker stops, and whose caller has to be dialled first, is worked on and
/// answered: the stop waits for it.
#[test]
fn m14_a_stop_waits_for_who_is_being_dialled() {
    on(Plane::NatsTcp, async |scene| {
        let worker = scene.worker("worker").await;
        let caller = scene.caller("caller", 1).await;
        // It takes the whole time to dial, and more than the rest of the stop.
        let (from, to) = ("worker".to_owned(), "caller".to_owned());
        scene.strike(Fault::PartitionNodes { from, to, both_ways: true, lasts: 30 * SECOND });
        let call = caller.calling(1, 100);
        sleep(3 * LATENCY_MAX).await;
        let report = worker.runtime.stop().await;
        scene.forget(&worker.runtime);
        assert!(report.is_clean() && report.requests == 1, "{report}");
        let (_, answer) = call.ended().await;
        assert_eq!(answer, Ok(worker.runtime.instance_id()));
        assert_eq!(scene.executed(1), 1);
    });
}
