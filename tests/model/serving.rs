//! Serving: plain requests, faults, limits, statistics, health.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::{
    echo, eventually, linked, records, runtime, runtime_on, runtime_with, serve_id, settings,
};
use futures_util::future::{join_all, pending};
use futures_util::{StreamExt, stream};
use slipring::{
    Client, Context, Effect, Error, Fault, HealthCheck, Lifecycle, MemoryWorld, Routing, Settings,
};
use slipring_core::{Fact, Message, Messaging, Subscription};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// A request without our headers is a plain call: bare bytes in, bare bytes out.
#[tokio::test(start_paused = true)]
async fn a_plain_request_gets_a_bare_answer() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let serving = echo(&worker.endpoint("a/b/echo").unwrap()).await.unwrap();
    let request = Message::new(serving.path().subject(), "\"hi\"");
    let answer = world.messaging().request(request, SECOND).await.unwrap();
    assert_eq!(&answer.payload[..], b"\"hi\"");
    assert!(answer.headers.is_empty(), "{:?}", answer.headers);
}

/// A stream that is asked for plainly comes as numbered items and an end with their count.
#[tokio::test(start_paused = true)]
async fn a_plain_request_gets_numbered_items_and_an_end() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let endpoint = worker.endpoint("a/b/count").unwrap();
    let count = |to: u64, _: Context| async move { Ok(stream::iter((1..=to).map(Ok::<_, Fault>))) };
    let serving = endpoint.serve(count).await.unwrap();
    let messaging = world.messaging();
    let inbox: slipring_core::Subject = "here".parse().unwrap();
    let answers = messaging.subscribe(Subscription::new(&inbox)).await.unwrap();
    messaging.publish(Message::new(serving.path().subject(), "3").with_reply(inbox)).await.unwrap();
    let answers: Vec<_> = answers.take(4).map(Result::unwrap).collect().await;
    let items: Vec<_> = answers.iter().map(|item| item.headers.first("Slipring-Item")).collect();
    assert_eq!(items, [Some("1"), Some("2"), Some("3"), None]);
    let bodies: Vec<_> = answers.iter().map(|item| &item.payload[..]).collect();
    assert_eq!(bodies, [&b"1"[..], b"2", b"3", b""]);
    assert_eq!(answers[3].headers.first("Slipring-End"), Some("3"));
}

/// An error that answers a plain request is marked as clients of NATS services expect it.
#[tokio::test(start_paused = true)]
async fn a_plain_request_gets_its_error_in_headers() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let endpoint = worker.endpoint("a/b/bad").unwrap();
    let bad = |(): (), _: Context| async { Err::<(), _>(Fault::new("odd", "line one\nline two\n")) };
    let serving = endpoint.serve_unary(bad).await.unwrap();
    let request = Message::new(serving.path().subject(), "null");
    let answer = world.messaging().request(request, SECOND).await.unwrap();
    let text = answer.headers.first("Nats-Service-Error").unwrap();
    assert!(text.contains("line one line two"), "{text}");
    assert_eq!(answer.headers.first("Nats-Service-Error-Code"), Some("500"));
    assert_eq!(answer.headers.first("Slipring-Error"), Some("fault"));
}

/// A request that arrives past its deadline is answered with that, and its handler is never called.
#[tokio::test(start_paused = true)]
async fn a_request_past_its_deadline_is_not_begun() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let begun = Arc::new(AtomicUsize::new(0));
    let counted = begun.clone();
    let endpoint = worker.endpoint("a/b/late").unwrap();
    let count = move |(): (), _: Context| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Ok(()) }
    };
    let serving = endpoint.serve_unary(count).await.unwrap();
    for (ticket, answer, calls) in [
        ("7~0~1", "7 0 error\n{\"code\":\"deadline_exceeded\"", 0),
        ("8~1000~1", "8 0 items 1 4 end\nnull", 1),
    ] {
        let mut request = Message::new(serving.path().subject(), "null");
        request.headers.append("Slipring-Call", ticket).unwrap();
        let answered = world.messaging().request(request, SECOND).await.unwrap();
        let text = String::from_utf8_lossy(&answered.payload);
        assert!(text.starts_with(answer), "{text}");
        assert_eq!(begun.load(Ordering::Relaxed), calls);
    }
}

/// A request that cannot be read is answered with an error, and the next one is served.
#[tokio::test(start_paused = true)]
async fn d28_an_unreadable_request_is_answered() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let serving = echo(&worker.endpoint("a/b/echo").unwrap()).await.unwrap();
    let (messaging, subject) = (world.messaging(), serving.path().subject());
    let answer = messaging.request(Message::new(subject.clone(), &b"\xff"[..]), SECOND).await.unwrap();
    assert_eq!(answer.headers.first("Slipring-Error"), Some("invalid"));
    let answer = messaging.request(Message::new(subject, "\"on\""), SECOND).await.unwrap();
    assert_eq!(&answer.payload[..], b"\"on\"");
}

/// D17: of three calls one panics at once, one in its stream; they alone get a fault, the counters are right,
/// and nothing is left to drain.
#[tokio::test(start_paused = true)]
async fn d17_a_panicking_handler_harms_its_caller_only() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let endpoint = worker.endpoint("a/b/c").unwrap();
    let handler = |kind: String, _: Context| {
        assert_ne!(kind, "at once", "it panics at once");
        async move {
            Ok(stream::iter(0..2).then(move |at| {
                let kind = kind.clone();
                async move {
                    assert!(kind != "late" || at == 0, "it panics late");
                    Ok::<_, Fault>(at)
                }
            }))
        }
    };
    let serving = endpoint.serve(handler).await.unwrap();
    let client: Client<String, u64> = endpoint.client().await.unwrap();
    let all = ["at once", "late", "well"].map(|kind| {
        let client = client.clone();
        async move {
            let mut items = client.generate(&kind.to_owned()).await?;
            let mut seen = Vec::new();
            while let Some(item) = items.next().await {
                seen.push(item?);
            }
            slipring::Result::Ok(seen)
        }
    });
    let [at_once, late, well] = <[_; 3]>::try_from(join_all(all).await).unwrap();
    for panicked in [at_once, late] {
        let error = panicked.unwrap_err();
        assert!(matches!(&error, Error::Fault { fault, .. } if fault == "panic"), "{error}");
        assert_eq!(error.effect(), Effect::Applied);
    }
    assert_eq!(well.unwrap(), [0, 1]);
    let report = worker.registry().stats().remove(0).endpoints.remove(0);
    assert_eq!((report.num_requests, report.num_errors), (3, 2));
    assert_eq!(serving.in_flight(), 0);
    let report = serving.stop().await;
    let drain = report.phases.iter().find(|phase| phase.name == "drain").unwrap();
    assert_eq!((drain.took, report.requests, report.is_clean()), (Duration::ZERO, 3, true));
}

/// D18: so many requests are worked on at a time, so many wait, and the rest is refused as overloaded without
/// having been executed.
#[tokio::test(start_paused = true)]
async fn d18_concurrency_is_bounded() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let (gate, running, most) =
        (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let serve = worker.endpoint("a/b/c").unwrap().serve_unary({
        let (gate, running, most) = (gate.clone(), running.clone(), most.clone());
        move |(): (), _: Context| {
            let (gate, running, most) = (gate.clone(), running.clone(), most.clone());
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                gate.acquire().await?.forget();
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        }
    });
    let serving = serve.concurrency(2).queue(3).await.unwrap();
    let (messaging, subject) = (world.messaging(), serving.path().subject());
    let calls = (0..9).map(|_| messaging.request(Message::new(subject.clone(), "null"), 10 * SECOND));
    let release = async {
        eventually("five are accepted", || running.load(Ordering::SeqCst) == 2).await;
        assert_eq!(serving.in_flight(), 5);
        gate.add_permits(5);
    };
    let (answers, ()) = tokio::join!(join_all(calls), release);
    let refused: Vec<_> = answers
        .iter()
        .filter_map(|answer| answer.as_ref().unwrap().headers.first("Slipring-Error"))
        .collect();
    assert_eq!(refused, ["overloaded"; 4]);
    assert_eq!(most.load(Ordering::SeqCst), 2);
    let body: serde_json::Value = serde_json::from_slice(&answers[8].as_ref().unwrap().payload).unwrap();
    assert_eq!(body["effect"], "none");
}

/// D20: two components with an endpoint of the same name have nothing in common: health, statistics, stop.
#[tokio::test(start_paused = true)]
async fn d20_two_components_with_the_same_endpoint_do_not_meet() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let (one, two) = (worker.endpoint("a/one/generate").unwrap(), worker.endpoint("a/two/generate").unwrap());
    let ill = HealthCheck::new(|| async { Err(Fault::new("ill", "always")) });
    let serving_one = echo(&one).health(ill).stats(|| 1.into()).await.unwrap();
    let serving_two = echo(&two).stats(|| 2.into()).await.unwrap();
    let client_two: Client<String, String> = two.client().await.unwrap();
    client_two.call(&"x".to_owned()).await.unwrap();
    let ready: Vec<_> = records(&world).iter().map(|record| record.ready).collect();
    assert_eq!(ready, [false, true]);
    let reports = worker.registry().stats();
    let figures = |at: usize| (&reports[at].endpoints[0].data, reports[at].endpoints[0].num_requests);
    assert_eq!((figures(0), figures(1)), ((&1.into(), 0), (&2.into(), 1)));
    assert!(serving_one.stop().await.is_clean());
    assert_eq!(records(&world).len(), 1);
    assert_eq!(client_two.call(&"y".to_owned()).await.unwrap(), "y");
    assert_eq!(serving_two.lifecycle().get(), Lifecycle::Healthy);
}

/// Every step of an endpoint's life is told, in order, and can be followed from before it is served; what could
/// not be served ends the observation.
#[tokio::test(start_paused = true)]
async fn every_step_of_a_life_is_told() {
    let world = slipring_sim::World::new(7);
    let node = world.node("worker");
    let worker = runtime_on(&node).await;
    let serve = echo(&worker.endpoint("a/b/c").unwrap());
    let mut lifecycle = serve.lifecycle();
    assert_eq!(lifecycle.get(), Lifecycle::Created);
    let serving = serve.await.unwrap();
    assert_eq!(lifecycle.wait_for(|now| *now == Lifecycle::Healthy).await, Some(Lifecycle::Healthy));
    let again = echo(&worker.endpoint("a/b/c").unwrap());
    let mut refused = again.lifecycle();
    assert_eq!(again.await.unwrap_err().code(), "already_exists");
    assert_eq!(refused.changed().await, None);
    serving.stop().await;
    let steps: Vec<_> = node.environment().facts().into_iter().filter_map(step).collect();
    assert_eq!(steps, ["created", "registered", "running", "healthy", "stopping", "deregistered"]);
}

fn step(fact: Fact) -> Option<&'static str> {
    match fact {
        Fact::LifecycleChanged { endpoint, step, .. } if &*endpoint == "a/b/c" => Some(step),
        _ => None,
    }
}

/// The record is not ready before the check first succeeds, and is again not ready when it fails; each step
/// shows in the lifecycle.
#[tokio::test(start_paused = true)]
async fn health_shows_in_the_record_and_in_the_lifecycle() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let well = Arc::new(AtomicBool::new(false));
    let check = HealthCheck::new({
        let well = well.clone();
        move || {
            let well = well.load(Ordering::SeqCst);
            async move { if well { Ok(()) } else { Err(Fault::new("ill", "for now")) } }
        }
    })
    .with_interval(SECOND);
    let serving = echo(&worker.endpoint("a/b/c").unwrap()).health(check).await.unwrap();
    let mut lifecycle = serving.lifecycle();
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!((lifecycle.get(), records(&world)[0].ready), (Lifecycle::Running, false));
    for (answer, expected) in
        [(true, Lifecycle::Healthy), (false, Lifecycle::Running), (true, Lifecycle::Healthy)]
    {
        well.store(answer, Ordering::SeqCst);
        lifecycle.wait_for(|now| *now == expected).await.unwrap();
        eventually("the record follows", || records(&world)[0].ready == answer).await;
    }
    serving.stop().await;
    assert_eq!(lifecycle.get(), Lifecycle::Deregistered);
}

/// A check that hangs, or panics, is a check that failed: the endpoint does not stay ready.
#[tokio::test(start_paused = true)]
async fn d17_a_broken_health_check_is_a_failed_one() {
    for panics in [false, true] {
        let world = MemoryWorld::new();
        let worker = runtime(&world).await;
        let broken = Arc::new(AtomicBool::new(false));
        let check = HealthCheck::new({
            let broken = broken.clone();
            move || {
                let broken = broken.load(Ordering::SeqCst);
                async move {
                    assert!(!broken || !panics, "a check panics");
                    if broken { pending().await } else { Ok(()) }
                }
            }
        })
        .with_interval(SECOND)
        .with_timeout(SECOND);
        let serving = echo(&worker.endpoint("a/b/c").unwrap()).health(check).await.unwrap();
        eventually("it is ready", || records(&world)[0].ready).await;
        broken.store(true, Ordering::SeqCst);
        eventually("it is not ready", || !records(&world)[0].ready).await;
        broken.store(false, Ordering::SeqCst);
        eventually("it is ready again", || records(&world)[0].ready).await;
        drop(serving);
    }
}

/// Routing goes to ready instances as long as there is one, and to the others when there is none.
#[tokio::test(start_paused = true)]
async fn u5038_routing_prefers_ready_instances() {
    let world = MemoryWorld::new();
    let (one, two, caller) = (runtime(&world).await, runtime(&world).await, runtime(&world).await);
    let ill = HealthCheck::new(|| async { Err(Fault::new("ill", "always")) });
    let _unready = serve_id(&one.endpoint("a/b/c").unwrap()).health(ill).await.unwrap();
    let client: Client<(), u64> = caller.endpoint("a/b/c").unwrap().client().await.unwrap();
    client.instances().wait_until(|all| all.len() == 1).await;
    assert_eq!(client.call(&()).await.unwrap(), one.instance_id());
    let ready = serve_id(&two.endpoint("a/b/c").unwrap()).await.unwrap();
    client.wait_for_instances(1, SECOND).await.unwrap();
    for routing in [
        Routing::RoundRobin,
        Routing::Random,
        Routing::PowerOfTwoChoices,
        Routing::LeastLoaded,
        Routing::ConsistentHash,
    ] {
        let client = client.with_routing(routing);
        for key in 0..10 {
            let chosen = client.request(&()).key(format!("{key}")).call().await.unwrap();
            assert_eq!(chosen, two.instance_id(), "{routing:?}");
        }
    }
    ready.stop().await;
    assert_eq!(client.call(&()).await.unwrap(), one.instance_id());
}

/// All endpoints of a component are in one report, each with its own statistics, here and in the answers to
/// `$SRV.STATS`; a statistics handler that panics harms nobody.
#[tokio::test(start_paused = true)]
async fn statistics_are_aggregated_by_component() {
    let world = MemoryWorld::new();
    let (worker, observer) = (runtime(&world).await, runtime(&world).await);
    let component = worker.namespace("a").unwrap().component("Worker").unwrap();
    let _servings = [
        echo(&component.endpoint("chat/completions").unwrap()).stats(|| "mine".into()).await.unwrap(),
        echo(&component.endpoint("generate").unwrap()).stats(|| panic!("no figures")).await.unwrap(),
        echo(&worker.endpoint("a/other/generate").unwrap()).await.unwrap(),
    ];
    let client: Client<String, String> = component.endpoint("generate").unwrap().client().await.unwrap();
    client.call(&"x".to_owned()).await.unwrap();
    let own = worker.registry().stats();
    assert_eq!(own.len(), 2);
    let observed = observer.namespace("a").unwrap().component("Worker").unwrap();
    let asked = observer.inspect(&observed, SECOND).await.unwrap();
    assert_eq!(asked.len(), 1);
    let report = own.iter().find(|report| report.name == asked[0].name).unwrap();
    assert_eq!(report.metadata["slipring.component"], "a/Worker");
    for report in [report, &asked[0]] {
        let figures: Vec<_> =
            report.endpoints.iter().map(|e| (e.name.as_str(), e.num_requests, &e.data)).collect();
        assert_eq!(figures, [("chat/completions", 0, &"mine".into()), ("generate", 1, &().into())]);
        assert_eq!(report.id, format!("{:x}", worker.instance_id()));
    }
}

/// The handler learns who was called, by when, and with which metadata; past the deadline the handler is
/// dropped, and what it started is told.
#[tokio::test(start_paused = true)]
async fn the_context_says_what_the_caller_said() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let endpoint = worker.endpoint("a.b.c").unwrap();
    let (contexts, mut seen) = mpsc::unbounded_channel();
    let handler = move |hang: bool, context: Context| {
        let contexts = contexts.clone();
        async move {
            assert_eq!(context.remaining(), 3 * SECOND);
            let about = (context.endpoint().to_string(), context.metadata("tenant").map(str::to_owned));
            contexts.send(context)?;
            if hang {
                pending().await
            }
            Ok(about)
        }
    };
    let serving = endpoint.serve_unary(handler).await.unwrap();
    let client: Client<bool, (String, Option<String>)> = endpoint.client().await.unwrap();
    let request = client.request(&false).deadline(3 * SECOND).metadata("tenant", "blue");
    assert_eq!(request.call().await.unwrap(), ("a/b/c".to_owned(), Some("blue".to_owned())));
    assert_eq!(seen.recv().await.unwrap().instance(), worker.instance_id());
    let began = Instant::now();
    let error = client.request(&true).deadline(3 * SECOND).call().await.unwrap_err();
    assert_eq!((error.code(), began.elapsed()), ("deadline_exceeded", 3 * SECOND));
    seen.recv().await.unwrap().cancelled().await;
    eventually("nothing is in flight", || serving.in_flight() == 0).await;
}

/// A request whose caller is gone is cancelled, and its place is free again.
#[tokio::test(start_paused = true)]
async fn a_dropped_call_cancels_the_work() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let endpoint = worker.endpoint("a/b/c").unwrap();
    let hang = |(): (), _: Context| async { pending::<Result<(), Fault>>().await };
    let serving = endpoint.serve_unary(hang).concurrency(1).await.unwrap();
    let client: Client<(), ()> = endpoint.client().await.unwrap();
    client.wait_for_instances(1, SECOND).await.unwrap();
    let call = tokio::time::timeout(SECOND, client.call(&()));
    assert!(call.await.is_err());
    eventually("it is cancelled", || serving.in_flight() == 0).await;
    assert_eq!(worker.calls_in_flight(), 0);
}

/// A start over a bus that says nothing ends in time, and leaves nothing that would be in the way later.
#[tokio::test(start_paused = true)]
async fn a_start_over_a_silent_bus_ends_in_time() {
    let world = MemoryWorld::new();
    let (worker, _store, bus) = linked(&world, Settings::default()).await;
    let endpoint = worker.endpoint("a/b/c").unwrap();
    bus.silence();
    let began = Instant::now();
    let error = echo(&endpoint).await.unwrap_err();
    assert_eq!((error.code(), error.effect()), ("deadline_exceeded", Effect::None));
    assert_eq!(began.elapsed(), Settings::default().register_timeout);
    bus.open();
    echo(&endpoint).await.unwrap().stop().await;
}

/// U10798: a start over a store that says nothing ends in time, with the cause.
#[tokio::test(start_paused = true)]
async fn u10798_a_start_over_a_silent_store_ends_in_time() {
    let world = MemoryWorld::new();
    let (worker, store, _bus) = linked(&world, Settings::default()).await;
    let endpoint = worker.endpoint("a/b/c").unwrap();
    store.cut();
    let error = echo(&endpoint).await.unwrap_err();
    assert_eq!(error.code(), "deadline_exceeded");
    assert!(error.to_string().contains("the link is cut"), "{error}");
    let late = async { echo(&endpoint).await };
    let (serving, ()) = tokio::join!(late, async {
        tokio::time::sleep(5 * SECOND).await;
        store.open();
    });
    assert_eq!(records(&world).len(), 1);
    serving.unwrap().stop().await;
    assert_eq!(records(&world).len(), 0);
}

/// A handler that refuses sends the caller elsewhere.
#[tokio::test(start_paused = true)]
async fn a_refusing_handler_sends_the_caller_elsewhere() {
    let world = MemoryWorld::new();
    let (full, free) = (runtime(&world).await, runtime(&world).await);
    let refuse = |(): (), _: Context| async { Err::<u64, _>(Fault::refuse(Error::overloaded("this one"))) };
    let _full = full.endpoint("a/b/c").unwrap().serve_unary(refuse).await.unwrap();
    let _free = serve_id(&free.endpoint("a/b/c").unwrap()).await.unwrap();
    let client: Client<(), u64> = free.endpoint("a/b/c").unwrap().client().await.unwrap();
    client.wait_for_instances(2, SECOND).await.unwrap();
    for _ in 0..4 {
        assert_eq!(client.call(&()).await.unwrap(), free.instance_id());
    }
}

/// D21: nothing blocks: a runtime is built, served, called and stopped on a single thread...
#[tokio::test(flavor = "current_thread")]
async fn d21_a_current_thread_runtime_will_do() {
    start_call_stop().await;
}

/// ...and on several.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d21_a_multi_thread_runtime_will_do() {
    start_call_stop().await;
}

async fn start_call_stop() {
    let world = MemoryWorld::new();
    let settings = settings(|settings| settings.watcher_grace = Duration::from_millis(1));
    let worker = runtime_with(&world, settings).await;
    let endpoint = worker.endpoint("a/b/c").unwrap();
    let _serving = echo(&endpoint).await.unwrap();
    let client: Client<String, String> = endpoint.client().await.unwrap();
    let texts: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    let answers = join_all(texts.iter().map(|text| client.call(text))).await;
    assert!(answers.into_iter().map(Result::unwrap).eq(texts));
    let report = worker.stop().await;
    assert!(report.is_clean() && report.requests == 100, "{report}");
    assert_eq!((world.leases().len(), records(&world).len()), (0, 0));
}
