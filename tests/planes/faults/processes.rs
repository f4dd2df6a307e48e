//! Processes and machines that die, and come back.

use slipring::{Effect, Error, LeasePolicy, Plane};
use slipring_sim::Fault;
use tokio::time::{Instant, sleep};

use super::scene::{Caller, Scene, Worker};
use super::{LATENCY_MAX, NOTICED_WITHIN, SECOND, on, on_both};
use crate::ground::eventually;

/// The worker dies with streams and a call under way: they end within this, with exactly what was delivered.
async fn dies(scene: &Scene, dead: &Worker, caller: &Caller, how: Fault, within: std::time::Duration) {
    let readings = [caller.reading(1, 100_000, 10).await, caller.reading(2, 100_000, 35).await];
    let call = caller.calling(3, 50_000);
    eventually("all is under way", || dead.inside.count() == 3).await;
    sleep(SECOND).await;
    let since = Instant::now();
    scene.strike(how);
    scene.forget(&dead.runtime);
    for reading in readings {
        reading.interrupted(since, within).await;
        assert!(reading.so_far().items > 0);
    }
    let (at, answer) = call.ended().await;
    assert_eq!(answer.unwrap_err().effect(), Effect::Unknown);
    assert!(at <= since + within, "it took {:?}", at - since);
    assert_eq!(scene.executed(3), 1);
    assert_eq!(caller.runtime.calls_in_flight(), 0);
}

/// A process that dies takes its connections with it: its callers know at once. Who comes in its place, at its
/// address, is called.
#[test]
fn f1_a_crash_is_noticed_at_once() {
    on_both(async |scene| {
        let dead = scene.worker("worker").await;
        let caller = scene.caller("caller", 1).await;
        let crash = Fault::Crash { node: "worker".to_owned(), down: None };
        dies(scene, &dead, &caller, crash, 2 * LATENCY_MAX).await;
        comes_back(scene, &dead, &caller).await;
    });
}

/// Of a machine that lost its power nobody hears anything: the ping notices.
#[test]
fn f2_a_power_loss_is_noticed_by_the_ping() {
    on_both(async |scene| {
        let dead = scene.worker("worker").await;
        let caller = scene.caller("caller", 1).await;
        let loss = Fault::PowerLoss { node: "worker".to_owned(), down: None };
        dies(scene, &dead, &caller, loss, NOTICED_WITHIN).await;
        comes_back(scene, &dead, &caller).await;
    });
}

/// Another process starts on the node, where the dead one listened and while the dead one's record is still there.
async fn comes_back(scene: &Scene, dead: &Worker, caller: &Caller) {
    let worker = scene.worker("worker").await;
    caller.who.wait_for_instances(2, SECOND).await.unwrap();
    // It waits for whoever was asked for, and nobody else.
    let request = caller.who.request(&0).metadata("number", "10").instance(dead.runtime.instance_id());
    let error = request.deadline(SECOND).call().await.unwrap_err();
    assert!(scene.executed(10) == 0, "another process than the one that was asked for executed it");
    if scene.plane == Plane::Tcp {
        assert_eq!(error.effect(), Effect::None, "{error}");
    }
    // Whoever may be anybody is answered by the one that lives, at once or after the dead one is set aside.
    for number in 11..20 {
        let request = caller.who.request(&0).metadata("number", number.to_string());
        let answer = request.idempotent().deadline(5 * SECOND).call().await;
        assert_eq!(answer, Ok(worker.runtime.instance_id()));
        assert_eq!(scene.executed(number), 1);
    }
}

/// An address that leads to another instance now is refused in the hello, before anything is asked: the call goes to
/// who is known to be there under its own record, or fails with effect none.
#[test]
fn f35_a_recycled_address_never_reaches_the_wrong_process() {
    on(Plane::Tcp, async |scene| {
        let dead = scene.worker_at("one", "shared:7000", LeasePolicy::KeepServing).await;
        let caller = scene.caller("caller", 1).await;
        assert_eq!(caller.who.call(&0).await, Ok(dead.runtime.instance_id()));
        scene.strike(Fault::Crash { node: "one".to_owned(), down: None });
        scene.forget(&dead.runtime);
        let other = scene.worker_at("two", "shared:7000", LeasePolicy::KeepServing).await;
        caller.who.wait_for_instances(2, SECOND).await.unwrap();
        for number in 1..5 {
            let request = caller.who.request(&0).metadata("number", number.to_string());
            let error = request.instance(dead.runtime.instance_id()).deadline(2 * SECOND).call().await;
            let error = error.unwrap_err();
            assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
            assert_eq!((error.effect(), scene.executed(number)), (Effect::None, 0), "{error}");
        }
        for number in 5..20 {
            let request = caller.who.request(&0).metadata("number", number.to_string());
            assert_eq!(request.call().await, Ok(other.runtime.instance_id()));
            assert_eq!(scene.executed(number), 1);
        }
        // Refused once for each time that it was dialled, and no more often than the pauses between allow.
        assert!(caller.meter.dials() <= 12, "{}", caller.meter);
    });
}
