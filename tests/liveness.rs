//! What ends a response, and what does not: the worker's life decides, not its record.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod faulty;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use faulty::{Lossy, WORK, runtime_on, seconds, who};
use futures_util::{StreamExt, stream};
use slipring::{Client, Context, Discovery, DistributedRuntime, Effect, Error, Fault, Responses, Serving};
use slipring_core::{BoxStream, DiscoveryExt, LeaseId};
use slipring_sim::{Link, Node, World};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Serves [`WORK`]: asked for n, it answers with 1 to n, a second apart, and then says nothing more.
async fn tick(runtime: &DistributedRuntime) -> Serving {
    let tick = |n: u64, _: Context| async move {
        let ticks = stream::iter(1..=n).then(|item| async move {
            tokio::time::sleep(seconds(1)).await;
            Ok(item)
        });
        let ticks: BoxStream<'static, _> = ticks.chain(stream::pending()).boxed();
        Ok(ticks)
    };
    runtime.endpoint(WORK).unwrap().serve(tick).await.unwrap()
}

/// A worker and a caller on nodes of their own.
async fn pair(world: &World) -> (Node, DistributedRuntime, Serving, DistributedRuntime, Client<u64, u64>) {
    let node = world.node("worker");
    let worker = runtime_on(&node).await;
    let serving = tick(&worker).await;
    let caller = runtime_on(&world.node("caller")).await;
    let client = caller.endpoint(WORK).unwrap().client().await.unwrap();
    client.wait_for_instances(1, seconds(5)).await.unwrap();
    (node, worker, serving, caller, client)
}

async fn take(responses: &mut Responses<u64>, items: std::ops::RangeInclusive<u64>) {
    for item in items {
        assert_eq!(responses.next().await.unwrap().unwrap(), item);
    }
}

/// The error that a response ends with, and how long that took.
async fn end(responses: &mut Responses<u64>) -> (Error, Duration) {
    let began = Instant::now();
    let error = responses.next().await.unwrap().unwrap_err();
    (error, began.elapsed())
}

/// A worker that crashes ends its responses within seconds, whatever deadline they have: with the number of
/// items delivered, and never as a finished stream.
#[tokio::test(start_paused = true)]
async fn a_crash_ends_responses_within_seconds() {
    for items in [0, 1, 5] {
        let world = World::new(7);
        let (node, _worker, _serving, caller, client) = pair(&world).await;
        let asked = if items == 0 { 0 } else { 100 };
        let request = client.request(&asked).deadline(seconds(3600));
        let crash = async {
            tokio::time::sleep(Duration::from_millis(items * 1_000 + 500)).await;
            node.crash();
            Instant::now()
        };
        let call = async {
            let mut responses = request.generate().await?;
            take(&mut responses, 1..=items).await;
            Err::<(), _>(end(&mut responses).await.0)
        };
        let (answer, crashed) = tokio::join!(call, crash);
        let error = answer.unwrap_err();
        assert!(crashed.elapsed() < seconds(3), "{:?}", crashed.elapsed());
        let Error::StreamInterrupted { items_delivered, effect, .. } = error else { panic!("{error:?}") };
        assert_eq!(items_delivered, items);
        assert_eq!(effect, if items == 0 { Effect::Unknown } else { Effect::Applied });
        assert_eq!(caller.calls_in_flight(), 0);
    }
}

/// A worker that crashes while its caller reads fast, and so gives credit often, ends the response as
/// interrupted too, not as if nobody had got the request.
#[tokio::test(start_paused = true)]
async fn a_crash_in_a_fast_stream_is_an_interruption() {
    let world = World::new(7);
    let node = world.node("worker");
    let worker = runtime_on(&node).await;
    let count = |_: u64, _: Context| async { Ok(stream::iter(1_u64..).map(Ok)) };
    let _serving = worker.endpoint(WORK).unwrap().serve(count).await.unwrap();
    let caller = runtime_on(&world.node("caller")).await;
    let client = caller.endpoint(WORK).unwrap().client::<u64, u64>().await.unwrap();
    let mut responses = client.request(&0).deadline(seconds(3600)).generate().await.unwrap();
    node.crash();
    let mut delivered = 0;
    let error = loop {
        match responses.next().await.unwrap() {
            Ok(_) => delivered += 1,
            Err(error) => break error,
        }
    };
    let Error::StreamInterrupted { items_delivered, effect: Effect::Applied, .. } = error else {
        panic!("{error:?}")
    };
    assert!(items_delivered == delivered && delivered > 100, "{delivered}");
}

/// Dropping a worker's runtime tells its callers at once.
#[tokio::test(start_paused = true)]
async fn a_dropped_worker_ends_responses_at_once() {
    let world = World::new(7);
    let (_node, worker, serving, _caller, client) = pair(&world).await;
    let mut responses = client.request(&100).deadline(seconds(3600)).generate().await.unwrap();
    take(&mut responses, 1..=2).await;
    drop((serving, worker));
    let (error, took) = end(&mut responses).await;
    assert_eq!((error.code(), error.effect()), ("cancelled", Effect::Applied));
    assert!(took < seconds(1), "{took:?}");
}

/// A worker that vanishes without a sign (its broker still routes to it, nothing comes back) is given up soon
/// after its record is gone, long before the deadline.
#[tokio::test(start_paused = true)]
async fn a_silent_worker_is_given_up_once_its_record_is_gone() {
    let world = World::new(7);
    let (node, _worker, _serving, _caller, client) = pair(&world).await;
    let request = client.request(&100).deadline(seconds(3600)).inactivity(seconds(3600));
    let mut responses = request.generate().await.unwrap();
    take(&mut responses, 1..=2).await;
    node.link().silence();
    let (error, took) = end(&mut responses).await;
    assert!(matches!(error, Error::StreamInterrupted { items_delivered: 2, .. }), "{error:?}");
    // The lease of 10 s runs out first.
    assert!((6..15).contains(&took.as_secs()), "{took:?}");
}

/// While the record of a silent worker stands, nothing but the call's own limits ends it: it may come back.
#[tokio::test(start_paused = true)]
async fn a_silent_worker_whose_record_stands_may_come_back() {
    let world = World::new(7);
    let (node, messaging) = (world.node("worker"), Link::new());
    let worker = DistributedRuntime::builder()
        .discovery(node.discovery())
        .messaging(messaging.messaging(Arc::new(world.memory().messaging())))
        .environment(node.environment());
    let worker = worker.build().await.unwrap();
    let _serving = tick(&worker).await;
    let caller = runtime_on(&world.node("caller")).await;
    let client = caller.endpoint(WORK).unwrap().client::<u64, u64>().await.unwrap();
    let mut responses = client.request(&100).deadline(seconds(3600)).generate().await.unwrap();
    take(&mut responses, 1..=2).await;
    messaging.silence();
    // Shorter than what a worker bears of its caller's silence.
    tokio::time::sleep(seconds(12)).await;
    messaging.open();
    take(&mut responses, 3..=100).await;
}

/// A vanished record never fails a response: deleted by hand, its lease revoked, or expired while the worker
/// could not reach the store for a minute, the items go on.
#[tokio::test(start_paused = true)]
async fn a_vanished_record_fails_no_response() {
    for how in ["deleted", "revoked", "expired"] {
        let world = World::new(7);
        let (node, discovery) = (world.node("worker"), Link::new());
        let worker = DistributedRuntime::builder()
            .discovery(discovery.discovery(Arc::new(world.memory().discovery())))
            .messaging(node.messaging())
            .environment(node.environment());
        let worker = worker.build().await.unwrap();
        let serving = tick(&worker).await;
        let caller = runtime_on(&world.node("caller")).await;
        let client = caller.endpoint(WORK).unwrap().client::<u64, u64>().await.unwrap();
        let mut responses = client.request(&60).deadline(seconds(3600)).generate().await.unwrap();
        take(&mut responses, 1..=2).await;
        let store = world.memory().discovery();
        match how {
            "deleted" => store.delete(serving.path().key()).await.unwrap(),
            "revoked" => store.revoke(LeaseId(worker.instance_id())).await.unwrap(),
            _ => discovery.cut(),
        }
        let mut instances = client.instances();
        let gone = instances.wait_until(|all| all.is_empty());
        tokio::time::timeout(seconds(15), gone).await.unwrap();
        take(&mut responses, 3..=60).await;
    }
}

/// A quiet response of a worker whose record is gone goes on as well: it is asked, and answers.
#[tokio::test(start_paused = true)]
async fn a_quiet_response_without_a_record_goes_on() {
    let world = World::new(7);
    let (discovery, node) = (Link::new(), world.node("worker"));
    let worker = DistributedRuntime::builder()
        .discovery(discovery.discovery(Arc::new(world.memory().discovery())))
        .messaging(node.messaging())
        .environment(node.environment());
    let worker = worker.build().await.unwrap();
    let slow = |pause: u64, cx: Context| async move {
        tokio::time::sleep(seconds(pause)).await;
        Ok::<u64, Fault>(cx.instance())
    };
    let _serving = worker.endpoint(WORK).unwrap().serve_unary(slow).await.unwrap();
    let caller = runtime_on(&world.node("caller")).await;
    let client = caller.endpoint(WORK).unwrap().client::<u64, u64>().await.unwrap();
    client.wait_for_instances(1, seconds(5)).await.unwrap();
    discovery.cut();
    let call = client.request(&100).deadline(seconds(3600)).inactivity(seconds(3600)).call();
    assert_eq!(call.await.unwrap(), worker.instance_id());
    assert!(client.instances().is_empty());
}

/// A worker whose caller says nothing any more cancels the handler, although the deadline is far away.
#[tokio::test(start_paused = true)]
async fn a_worker_gives_up_on_a_silent_caller() {
    for crash in [true, false] {
        let world = World::new(7);
        let worker = runtime_on(&world.node("worker")).await;
        let dropped = CancellationToken::new();
        let token = dropped.clone();
        let hang = move |_: u64, _: Context| {
            let guard = token.clone().drop_guard();
            async move {
                pending::<()>().await;
                drop(guard);
                Ok::<u64, Fault>(0)
            }
        };
        let serving = worker.endpoint(WORK).unwrap().serve_unary(hang).await.unwrap();
        let node = world.node("caller");
        let caller = runtime_on(&node).await;
        let client = caller.endpoint(WORK).unwrap().client::<u64, u64>().await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            let request = client.request(&0).deadline(seconds(3600)).inactivity(seconds(3600));
            request.call().await.map(drop)
        });
        tokio::time::sleep(seconds(60)).await;
        assert_eq!(serving.in_flight(), 1, "its caller speaks");
        if crash {
            node.crash();
        } else {
            node.link().silence();
        }
        tokio::time::sleep(seconds(16)).await;
        assert_eq!(serving.in_flight(), 0);
        assert!(dropped.is_cancelled());
    }
}

/// A caller whose runtime stops gets an end for each of its responses, and the worker is told.
#[tokio::test(start_paused = true)]
async fn a_callers_stop_ends_its_responses() {
    let world = World::new(7);
    let (_node, _worker, serving, caller, client) = pair(&world).await;
    let mut responses = client.request(&100).deadline(seconds(3600)).generate().await.unwrap();
    take(&mut responses, 1..=2).await;
    let began = Instant::now();
    assert!(caller.stop().await.is_clean());
    let (error, _) = end(&mut responses).await;
    assert!(matches!(error, Error::StreamInterrupted { items_delivered: 2, .. }), "{error:?}");
    assert!(began.elapsed() < seconds(2));
    assert_eq!(client.call(&1).await.unwrap_err().code(), "draining");
    tokio::time::sleep(seconds(16)).await;
    assert_eq!(serving.in_flight(), 0);
}

/// A caller whose connection to the broker was away for a moment: what was lost is told, what was not goes on.
#[tokio::test(start_paused = true)]
async fn a_blink_of_the_callers_connection_fails_only_what_was_lost() {
    for lost in [false, true] {
        let world = World::new(7);
        let (_node, _worker, _serving, _caller, client) = pair(&world).await;
        let mut responses = client.request(&10).deadline(seconds(60)).generate().await.unwrap();
        take(&mut responses, 1..=2).await;
        let link = world.node("caller").link().clone();
        link.cut();
        tokio::time::sleep(Duration::from_millis(if lost { 1_500 } else { 500 })).await;
        link.open();
        if lost {
            let (error, took) = end(&mut responses).await;
            assert!(matches!(error, Error::StreamInterrupted { items_delivered: 2, .. }), "{error:?}");
            assert!(took < seconds(3), "{took:?}");
        } else {
            take(&mut responses, 3..=10).await;
        }
    }
}

/// A unary call that a worker is still at survives the death of every other worker.
#[tokio::test(start_paused = true)]
async fn others_deaths_are_no_concern() {
    let world = World::new(7);
    let (_node, _worker, _serving, _caller, client) = pair(&world).await;
    let other = world.node("other");
    let neighbour = runtime_on(&other).await;
    let _neighbour = neighbour.endpoint("fleet/worker/other").unwrap().serve_unary(who).await.unwrap();
    let mut responses = client.request(&30).deadline(seconds(60)).generate().await.unwrap();
    other.crash();
    take(&mut responses, 1..=30).await;
}

/// While nothing gets through to the broker, what a caller has to say piles up to a bound: calls end by their
/// deadlines, and afterwards the broker is not flooded.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_silent_broker_is_bounded() {
    let world = World::new(7);
    let worker = runtime_on(&world.node("worker")).await;
    let _serving = worker.endpoint(WORK).unwrap().serve_unary(who).await.unwrap();
    let (link, node) = (Link::new(), world.node("caller"));
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let counted = Lossy::new(world.memory().messaging(), move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        false
    });
    let caller = DistributedRuntime::builder()
        .discovery(node.discovery())
        .messaging(link.messaging(Arc::new(counted)))
        .environment(node.environment());
    let caller = caller.build().await.unwrap();
    let client = caller.endpoint(WORK).unwrap().client::<(), u64>().await.unwrap();
    client.wait_for_instances(1, seconds(5)).await.unwrap();
    link.silence();
    let calls = (0..10_000).map(|_| client.request(&()).deadline(seconds(1)).call());
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.unwrap_err().code(), "deadline_exceeded");
    }
    link.open();
    tokio::time::sleep(seconds(5)).await;
    assert!((1_000..5_000).contains(&sent.load(Ordering::Relaxed)), "{sent:?}");
    assert_eq!(client.call(&()).await.unwrap(), worker.instance_id());
    assert_eq!(caller.calls_in_flight(), 0);
}
