//! Stopping: the order, the bounds, the report, and what a stop must not break.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{echo, eventually, linked, records, runtime, runtime_with, settings, slow};
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt, stream};
use slipring::{
    Client, Context, Effect, Fault, InstanceChange, Lifecycle, MemoryWorld, Outcome, Settings, StopReport,
};
use slipring_core::{Message, Messaging};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn phase<'a>(report: &'a StopReport, name: &str) -> &'a slipring::PhaseReport {
    report.phases.iter().find(|phase| phase.name.ends_with(name)).unwrap()
}

/// D14: a stop runs every phase in order, and says of each how it went.
#[tokio::test(start_paused = true)]
async fn d14_a_stop_runs_every_phase() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let serving = echo(&worker.endpoint("a/b/c").unwrap()).await.unwrap();
    let report = worker.stop().await;
    let names: Vec<_> = report.phases.iter().map(|phase| phase.name.as_str()).collect();
    let own = ["deregister", "watcher grace", "drain", "unsubscribe"].map(|name| format!("a/b/c: {name}"));
    assert_eq!(names[..4], own);
    assert_eq!(names[4..], ["revoke", "close"]);
    assert!(report.is_clean(), "{report}");
    assert_eq!(phase(&report, "grace").took, Settings::default().watcher_grace);
    assert_eq!(serving.lifecycle().get(), Lifecycle::Deregistered);
    assert!(worker.stopping().get());
    assert_eq!((world.leases().len(), records(&world).len()), (0, 0));
    assert_eq!(report.to_string().lines().count(), 7);
}

/// M14: the record goes first; while watchers learn of it requests are still served; then new ones are refused
/// as draining while those in flight go on; the lease goes last.
#[tokio::test(start_paused = true)]
async fn m14_the_record_goes_first_and_the_lease_last() {
    let world = MemoryWorld::new();
    let worker = runtime_with(&world, settings(|settings| settings.watcher_grace = SECOND)).await;
    let gate = Arc::new(Semaphore::new(0));
    let handler = {
        let gate = gate.clone();
        move |wait: bool, _: Context| {
            let gate = gate.clone();
            async move {
                if wait {
                    gate.acquire().await?.forget();
                }
                Ok(wait)
            }
        }
    };
    let serving = worker.endpoint("a/b/c").unwrap().serve_unary(handler).await.unwrap();
    let (messaging, subject) = (world.messaging(), serving.path().subject());
    let ask = async |body: &'static str| {
        let request = Message::new(subject.clone(), body);
        let answer = messaging.request(request, 20 * SECOND).await.unwrap();
        answer.headers.first("Slipring-Error").map(str::to_owned)
    };
    let script = async {
        eventually("the long request is in", || serving.in_flight() == 1).await;
        let stop = worker.stop();
        let steps = async {
            eventually("the record is gone", || records(&world).is_empty()).await;
            assert_eq!(ask("false").await, None);
            tokio::time::sleep(SECOND).await;
            assert_eq!(ask("false").await.as_deref(), Some("draining"));
            assert_eq!((serving.in_flight(), world.leases().len()), (1, 1));
            gate.add_permits(1);
        };
        tokio::join!(stop, steps).0
    };
    let (long, report) = tokio::join!(ask("true"), script);
    assert_eq!(long, None);
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.requests, report.errors, world.leases().len()), (2, 0, 0));
}

/// U11173: what did not end within the drain's bound is cancelled, counted and reported; its caller is told
/// that the effect is unknown.
#[tokio::test(start_paused = true)]
async fn u11173_what_is_abandoned_is_reported() {
    let world = MemoryWorld::new();
    let drain = 5 * SECOND;
    let worker = runtime_with(&world, settings(|settings| settings.drain_timeout = drain)).await;
    let caller = runtime(&world).await;
    let hang = |(): (), _: Context| pending::<Result<(), Fault>>();
    let _serving = worker.endpoint("a/b/c").unwrap().serve_unary(hang).await.unwrap();
    let client: Client<(), ()> = caller.endpoint("a/b/c").unwrap().client().await.unwrap();
    let request = client.request(&()).deadline(60 * SECOND);
    let stop = async {
        eventually("it is in flight", || caller.calls_in_flight() == 1).await;
        tokio::time::sleep(SECOND).await;
        worker.stop().await
    };
    let (answer, report) = tokio::join!(request.call(), stop);
    let error = answer.unwrap_err();
    assert_eq!((error.code(), error.effect()), ("cancelled", Effect::Unknown));
    assert_eq!((report.abandoned, report.requests, report.errors, report.is_clean()), (1, 1, 1, false));
    let drained = phase(&report, "drain");
    assert_eq!((drained.took, &drained.outcome), (drain, &Outcome::Abandoned(1)));
    assert!(report.to_string().contains("1 abandoned"), "{report}");
}

/// D14: with a request in flight and nothing getting through to store or bus, a stop ends within its bounds
/// and says what is unconfirmed.
#[tokio::test(start_paused = true)]
async fn d14_a_stop_is_bounded_when_nobody_answers() {
    let world = MemoryWorld::new();
    let own = settings(|settings| settings.drain_timeout = 5 * SECOND);
    let (worker, store, bus) = linked(&world, own).await;
    let caller = runtime(&world).await;
    let hang = |(): (), _: Context| pending::<Result<(), Fault>>();
    let _serving = worker.endpoint("a/b/c").unwrap().serve_unary(hang).await.unwrap();
    let client: Client<(), ()> = caller.endpoint("a/b/c").unwrap().client().await.unwrap();
    client.wait_for_instances(1, SECOND).await.unwrap();
    let mut call = Box::pin(client.call(&()));
    assert!(futures_util::poll!(&mut call).is_pending());
    tokio::time::sleep(SECOND).await;
    store.silence();
    bus.silence();
    let began = Instant::now();
    let report = worker.stop().await;
    let bounds = own.deregister_timeout + own.watcher_grace + own.drain_timeout + 5 * own.close_timeout;
    assert!(began.elapsed() <= bounds, "{:?} of {bounds:?}: {report}", began.elapsed());
    for unconfirmed in ["deregister", "revoke", "close"] {
        assert!(matches!(phase(&report, unconfirmed).outcome, Outcome::Unconfirmed(_)), "{report}");
    }
    assert_eq!(report.abandoned, 1);
}

/// A handler that never comes back to its await points cannot be cancelled; the stop does not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d14_a_stop_does_not_wait_for_a_blocked_thread() {
    let world = MemoryWorld::new();
    let worker = runtime_with(
        &world,
        settings(|settings| {
            settings.drain_timeout = Duration::from_millis(10);
            settings.close_timeout = Duration::from_millis(10);
            settings.watcher_grace = Duration::ZERO;
        }),
    )
    .await;
    let (started, blocked) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicBool::new(true)));
    let handler = {
        let (started, blocked) = (started.clone(), blocked.clone());
        move |(): (), _: Context| {
            let (started, blocked) = (started.clone(), blocked.clone());
            async move {
                started.add_permits(1);
                while blocked.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                Ok(())
            }
        }
    };
    let serving = worker.endpoint("a/b/c").unwrap().serve_unary(handler).await.unwrap();
    world
        .messaging()
        .publish(Message::new(serving.path().subject(), "null").with_reply("x".parse().unwrap()))
        .await
        .unwrap();
    started.acquire().await.unwrap().forget();
    let report = tokio::time::timeout(60 * SECOND, worker.stop()).await.unwrap();
    assert_eq!(report.abandoned, 1, "{report}");
    blocked.store(false, Ordering::SeqCst);
}

/// D18: a stop is heard at once, whatever the load, and none of the requests that were accepted fails.
#[tokio::test(start_paused = true)]
async fn d18_load_does_not_starve_a_stop() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let serving = echo(&worker.endpoint("a/b/c").unwrap()).await.unwrap();
    let (messaging, subject) = (world.messaging(), serving.path().subject());
    let enough = AtomicBool::new(false);
    let flood = async |number: usize| {
        let mut outcomes = [0_usize; 3];
        while !enough.load(Ordering::SeqCst) {
            let request = Message::new(subject.clone(), format!("\"{number}\""));
            match messaging.request(request, SECOND).await {
                Ok(answer) if answer.headers.is_empty() => outcomes[0] += 1,
                Ok(answer) => {
                    assert_eq!(answer.headers.first("Slipring-Error"), Some("draining"));
                    outcomes[1] += 1;
                }
                Err(error) => {
                    assert_eq!(error.code(), "no_responders");
                    outcomes[2] += 1;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        outcomes
    };
    let stop = async {
        tokio::time::sleep(SECOND).await;
        let report = serving.stop().await;
        tokio::time::sleep(SECOND).await;
        enough.store(true, Ordering::SeqCst);
        report
    };
    let (outcomes, report) = tokio::join!(join_all((0..64).map(flood)), stop);
    assert!(report.is_clean(), "{report}");
    let [served, refused, unheard] =
        [0, 1, 2].map(|kind| outcomes.iter().map(|outcomes| outcomes[kind]).sum::<usize>());
    assert_eq!(report.requests, served as u64);
    assert!(served > 1000 && unheard > 1000, "{served} served, {refused} refused, {unheard} unheard");
    assert!(phase(&report, "drain").took < SECOND && phase(&report, "unsubscribe").took < SECOND, "{report}");
}

/// U12304: a request in flight during a stop may still call others through the same runtime, and a watcher is
/// never shown an empty set that isn't one.
#[tokio::test(start_paused = true)]
async fn u12304_a_draining_request_succeeds() {
    let world = MemoryWorld::new();
    let (back, front) = (runtime(&world).await, runtime(&world).await);
    let caller = runtime(&world).await;
    let _back = echo(&back.endpoint("a/back/echo").unwrap()).await.unwrap();
    let onward: Client<String, String> = front.endpoint("a/back/echo").unwrap().client().await.unwrap();
    let mut seen = onward.instances();
    let handler = {
        let onward = onward.clone();
        move |text: String, context: Context| {
            let onward = onward.clone();
            async move {
                tokio::time::sleep(3 * SECOND).await;
                let late: Client<String, String> = onward.endpoint().client().await?;
                let first = onward.request(&text).within(&context).call().await?;
                Ok(late.call(&first).await?)
            }
        }
    };
    let _front = front.endpoint("a/front/echo").unwrap().serve_unary(handler).await.unwrap();
    let client: Client<String, String> = caller.endpoint("a/front/echo").unwrap().client().await.unwrap();
    client.wait_for_instances(1, SECOND).await.unwrap();
    let stop = async {
        eventually("it is in flight", || caller.calls_in_flight() == 1).await;
        tokio::time::sleep(SECOND).await;
        front.stop().await
    };
    let text = "on".to_owned();
    let (answer, report) = tokio::join!(client.call(&text), stop);
    assert_eq!(answer.unwrap(), "on");
    assert!(report.is_clean(), "{report}");
    while let Some(change) = seen.next().now_or_never() {
        let shown = match change {
            InstanceChange::Snapshot(all) => all.len(),
            InstanceChange::Put(_) => 1,
            _ => 0,
        };
        assert_eq!(shown, 1, "an empty set was shown");
    }
    let error = onward.call(&text).await.unwrap_err();
    assert_eq!((error.code(), error.effect()), ("draining", Effect::None));
    assert_eq!(onward.instances().len(), 1);
}

/// A stream in flight is delivered whole.
#[tokio::test(start_paused = true)]
async fn a_stream_in_flight_is_delivered_whole() {
    let world = MemoryWorld::new();
    let (worker, caller) = (runtime(&world).await, runtime(&world).await);
    let slow = |count: u64, _: Context| async move {
        Ok(stream::iter(0..count).then(|at| async move {
            tokio::time::sleep(SECOND).await;
            Ok::<_, Fault>(at)
        }))
    };
    let _serving = worker.endpoint("a/b/c").unwrap().serve(slow).await.unwrap();
    let client: Client<u64, u64> = caller.endpoint("a/b/c").unwrap().client().await.unwrap();
    let items = client.generate(&8).await.unwrap();
    let (items, report) = tokio::join!(items.map(Result::unwrap).collect::<Vec<_>>(), worker.stop());
    assert_eq!(items, (0..8).collect::<Vec<_>>());
    assert!(report.is_clean(), "{report}");
}

/// Any number of stops, at the same time or one after the other, of an endpoint or of its runtime, are one.
#[tokio::test(start_paused = true)]
async fn a_stop_is_one_stop() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let serving = echo(&worker.endpoint("a/b/c").unwrap()).await.unwrap();
    let (one, two, all, again) = tokio::join!(serving.stop(), serving.stop(), worker.stop(), worker.stop());
    assert_eq!((&one, &all), (&two, &again));
    assert!(all.is_clean(), "{all}");
    assert_eq!(phase(&all, "grace").took, phase(&one, "grace").took);
    assert_eq!((serving.stop().await, worker.stop().await), (one, all));
}

/// A stop that was dropped half-way, at any await point, is finished by the next: nothing is left either way.
#[tokio::test(start_paused = true)]
async fn d16_a_stop_dropped_half_way_is_finished_by_the_next() {
    let world = MemoryWorld::new();
    let baseline = world.messaging().subscriptions();
    for polls in 0.. {
        let worker = slow::runtime(&world, Duration::from_millis(10)).await;
        let serving = echo(&worker.endpoint("a/b/c").unwrap()).await.unwrap();
        let mut stop = Box::pin(worker.stop());
        let mut done = false;
        for _ in 0..polls {
            done = futures_util::poll!(&mut stop).is_ready();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(stop);
        let report = worker.stop().await;
        assert!(report.is_clean(), "after {polls} polls: {report}");
        assert_eq!((world.leases().len(), records(&world).len()), (0, 0), "after {polls} polls");
        assert_eq!(world.messaging().subscriptions(), baseline, "after {polls} polls");
        drop((serving, worker));
        if done {
            assert!(polls > 20, "{polls}");
            return;
        }
    }
}

/// After a stop nothing is served, called or opened any more, each with the reason.
#[tokio::test(start_paused = true)]
async fn nothing_begins_after_a_stop() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let endpoint = worker.endpoint("a/b/c").unwrap();
    let client: Client<String, String> = endpoint.client().await.unwrap();
    worker.stop().await;
    assert_eq!(echo(&endpoint).await.unwrap_err().code(), "draining");
    assert_eq!(endpoint.client::<(), ()>().await.unwrap_err().code(), "draining");
    assert_eq!(client.call(&String::new()).await.unwrap_err().code(), "draining");
}

/// A serving that begins while the runtime stops is either stopped with it or refused; it never outlives it.
#[tokio::test(start_paused = true)]
async fn a_serving_that_meets_a_stop_is_refused() {
    let world = MemoryWorld::new();
    let (worker, store, _bus) = linked(&world, Settings::default()).await;
    let endpoint = worker.endpoint("a/b/c").unwrap();
    store.silence();
    let serve = async { echo(&endpoint).await };
    let stop = async {
        tokio::time::sleep(SECOND).await;
        let (report, ()) = tokio::join!(worker.stop(), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            store.open();
        });
        report
    };
    let (served, report) = tokio::join!(serve, stop);
    assert_eq!(served.unwrap_err().code(), "draining");
    assert!(report.is_clean(), "{report}");
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!((records(&world).len(), world.leases().len()), (0, 0));
}

/// U14271: stopping one endpoint leaves all others of its name: of another component in the same runtime, and
/// of the same endpoint in another runtime.
#[tokio::test(start_paused = true)]
async fn u14271_stopping_one_endpoint_leaves_its_namesakes() {
    let world = MemoryWorld::new();
    let (one, two) = (runtime(&world).await, runtime(&world).await);
    let stopped = echo(&one.endpoint("a/b/c").unwrap()).await.unwrap();
    let others = [
        echo(&one.endpoint("a/b2/c").unwrap()).await.unwrap(),
        echo(&one.endpoint("a/b/c/c").unwrap()).await.unwrap(),
        echo(&one.endpoint("a.a/b/c").unwrap()).await.unwrap(),
        echo(&two.endpoint("a/b/c").unwrap()).await.unwrap(),
    ];
    stopped.stop().await;
    tokio::time::sleep(30 * SECOND).await;
    let mut left: Vec<_> = records(&world).iter().map(|record| record.key()).collect();
    let mut expected: Vec<_> = others.iter().map(|serving| serving.path().key()).collect();
    left.sort();
    expected.sort();
    assert_eq!(left, expected);
}

/// Dropping a serving withdraws it and cancels its requests; the runtime goes on, and may serve it again.
#[tokio::test(start_paused = true)]
async fn a_dropped_serving_is_withdrawn() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let endpoint = worker.endpoint("a/b/c").unwrap();
    let baseline = world.messaging().subscriptions();
    let (told, dropped) = oneshot::channel::<()>();
    let told = Arc::new(std::sync::Mutex::new(Some(told)));
    let hang = move |(): (), _: Context| {
        let told = told.lock().unwrap().take();
        async move {
            let _told = told;
            pending::<Result<(), Fault>>().await
        }
    };
    let serving = endpoint.serve_unary(hang).await.unwrap();
    let client: Client<(), ()> = endpoint.client().await.unwrap();
    client.wait_for_instances(1, SECOND).await.unwrap();
    let request = client.request(&()).deadline(60 * SECOND);
    let stop = async {
        eventually("it is in flight", || worker.calls_in_flight() == 1).await;
        tokio::time::sleep(SECOND).await;
        drop(serving);
    };
    let (answer, ()) = tokio::join!(request.call(), stop);
    assert_eq!(answer.unwrap_err().effect(), Effect::Unknown);
    assert!(dropped.await.is_err());
    eventually("the record is gone", || records(&world).is_empty()).await;
    eventually("nothing is subscribed", || world.messaging().subscriptions() == baseline).await;
    let again = echo(&endpoint).await.unwrap();
    assert_eq!(records(&world).len(), 1);
    assert!(again.stop().await.is_clean());
}

/// A dropped serving makes way at once, also while its component's service lives on for another endpoint.
#[tokio::test(start_paused = true)]
async fn a_dropped_serving_makes_way_at_once() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let _other = echo(&worker.endpoint("a/b/other").unwrap()).await.unwrap();
    let endpoint = worker.endpoint("a/b/c").unwrap();
    let client: Client<String, String> = endpoint.client().await.unwrap();
    for _ in 0..3 {
        let serving = echo(&endpoint).await.unwrap();
        assert_eq!(client.call(&"x".to_owned()).await.unwrap(), "x");
        drop(serving);
    }
    let _again = echo(&endpoint).await.unwrap();
    assert_eq!(client.call(&"x".to_owned()).await.unwrap(), "x");
}

/// How many requests an endpoint has in flight can be seen while it drains.
#[tokio::test(start_paused = true)]
async fn u13559_the_drain_can_be_watched() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let slow = |(): (), _: Context| async {
        tokio::time::sleep(5 * SECOND).await;
        Ok(())
    };
    let endpoint = worker.endpoint("a/b/c").unwrap();
    let serving = endpoint.serve_unary(slow).await.unwrap();
    let client: Client<(), ()> = endpoint.client().await.unwrap();
    let seen = AtomicU64::new(0);
    let look = async {
        eventually("it is in flight", || worker.calls_in_flight() == 1).await;
        let watch = async {
            tokio::time::sleep(2 * SECOND).await;
            seen.store(serving.in_flight(), Ordering::SeqCst);
        };
        tokio::join!(serving.stop(), watch).0
    };
    let (answer, report) = tokio::join!(client.call(&()), look);
    answer.unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}
