//! The way between a caller and a worker.

use std::time::Duration;

use slipring::{Effect, Error};
use slipring_sim::Fault;
use tokio::time::{Instant, sleep};

use super::scene::{Caller, Reading, Scene, Worker};
use super::{LATENCY_MAX, NOTICED_WITHIN, SECOND, on_both};
use crate::ground::eventually;

/// A worker and a caller, with streams of different paces and unary calls under way.
struct UnderWay {
    worker: Worker,
    caller: Caller,
    readings: Vec<Reading>,
    calls: Vec<super::scene::Calling>,
}

const STREAMS: u64 = 5;
const CALLS: u64 = 3;

async fn under_way(scene: &Scene) -> UnderWay {
    let worker = scene.worker("worker").await;
    let caller = scene.caller("caller", 1).await;
    let mut readings = Vec::new();
    for number in 0..STREAMS {
        readings.push(caller.reading(number, 100_000, 7 + 13 * number).await);
    }
    let calls = (0..CALLS).map(|number| caller.calling(100 + number, 50_000)).collect();
    let handlers = STREAMS + CALLS;
    eventually("all is under way", || worker.inside.count() == handlers).await;
    sleep(SECOND).await;
    UnderWay { worker, caller, readings, calls }
}

fn partition(from: &str, to: &str, both_ways: bool) -> Fault {
    Fault::PartitionNodes { from: from.to_owned(), to: to.to_owned(), both_ways, lasts: 15 * SECOND }
}

/// Streams are interrupted with exactly what they delivered, calls end with effect unknown and none is executed
/// twice, handlers are dropped; all within the bound.
async fn all_is_interrupted(scene: &Scene, way: &UnderWay, since: Instant, within: Duration) {
    for reading in &way.readings {
        reading.interrupted(since, within).await;
        assert!(reading.so_far().items > 0);
    }
    for (number, call) in way.calls.iter().enumerate() {
        let (at, answer) = call.ended().await;
        let error = answer.unwrap_err();
        assert!(matches!(error, Error::StreamInterrupted { items_delivered: 0, .. }), "{error:?}");
        assert_eq!(error.effect(), Effect::Unknown, "{error}");
        assert!(at <= since + within, "it took {:?}", at - since);
        assert_eq!(scene.executed(100 + number as u64), 1);
    }
    assert_eq!(way.caller.runtime.calls_in_flight(), 0);
    eventually("the handlers are dropped", || way.worker.inside.count() == 0).await;
    assert!(Instant::now() <= since + within + NOTICED_WITHIN, "handlers outlive their streams");
}

fn a_partition(from: &str, to: &str, both_ways: bool) {
    on_both(async |scene| {
        let way = under_way(scene).await;
        let since = Instant::now();
        scene.strike(partition(from, to, both_ways));
        all_is_interrupted(scene, &way, since, NOTICED_WITHIN + LATENCY_MAX).await;
        // Once the way is there again, so is the connection.
        sleep((since + 17 * SECOND).saturating_duration_since(Instant::now())).await;
        let answer = way.caller.who.request(&0).deadline(SECOND).call().await;
        assert_eq!(answer, Ok(way.worker.runtime.instance_id()));
    });
}

/// Nothing passes in either direction: both ends notice the silence within the bound of the ping.
#[test]
fn f5_a_partition_is_noticed() {
    a_partition("worker", "caller", true);
}

/// The caller hears nothing, though it is heard: it notices within the bound of the ping.
#[test]
fn f6_a_caller_that_hears_nothing_notices() {
    a_partition("worker", "caller", false);
}

/// The worker hears nothing, though its items arrive: it notices within the bound of the ping, and says so.
#[test]
fn f6_a_worker_that_hears_nothing_notices() {
    a_partition("caller", "worker", false);
}

/// Connections that are reset end all that is under way at once, and what follows goes over a new one.
#[test]
fn f1_a_reset_is_noticed_at_once() {
    on_both(async |scene| {
        let way = under_way(scene).await;
        let since = Instant::now();
        let (from, to) = ("caller".to_owned(), "worker".to_owned());
        scene.strike(Fault::CutNodes { from, to, lasts: Duration::from_millis(1) });
        all_is_interrupted(scene, &way, since, 2 * LATENCY_MAX).await;
        sleep(SECOND / 4).await;
        let answer = way.caller.who.request(&0).deadline(SECOND).call().await;
        assert_eq!(answer, Ok(way.worker.runtime.instance_id()));
    });
}

/// A partition that is shorter than a pinged peer may take to answer delays the items, and breaks nothing.
#[test]
fn f8_a_short_silence_breaks_nothing() {
    on_both(async |scene| {
        let worker = scene.worker("worker").await;
        let caller = scene.caller("caller", 1).await;
        let reading = caller.reading(0, 400, 10).await;
        sleep(SECOND).await;
        let (from, to) = ("worker".to_owned(), "caller".to_owned());
        scene.strike(Fault::PartitionNodes { from, to, both_ways: true, lasts: SECOND * 19 / 10 });
        let read = reading.ended().await;
        assert!(matches!(read.ended, Some((_, None))), "{read:?}");
        assert_eq!((read.items, worker.inside.count()), (400, 0));
    });
}

/// Calls made while nothing passes, on a connection that is not known to be dead, end within the bound with effect
/// unknown; those made after that cannot be sent, and say so with effect none. None of them is executed twice.
#[test]
fn calls_in_a_partition_say_what_became_of_them() {
    super::on(slipring::Plane::Tcp, async |scene| {
        let _worker = scene.worker("worker").await;
        let caller = scene.caller("caller", 1).await;
        caller.who.call(&0).await.unwrap();
        let since = Instant::now();
        scene.strike(partition("worker", "caller", true));
        let (at, answer) = caller.calling(1, 0).ended().await;
        assert_eq!(answer.unwrap_err().effect(), Effect::Unknown);
        assert!(at <= since + NOTICED_WITHIN, "{:?}", at - since);
        let began = Instant::now();
        let request = caller.who.request(&0).metadata("number", "2").deadline(5 * SECOND);
        let error = request.call().await.unwrap_err();
        assert_eq!(error.effect(), Effect::None, "{error}");
        assert!(began.elapsed() <= 5 * SECOND + LATENCY_MAX, "{:?}", began.elapsed());
        sleep((since + 20 * SECOND).saturating_duration_since(Instant::now())).await;
        assert!(scene.executed(1) <= 1 && scene.executed(2) == 0);
    });
}
