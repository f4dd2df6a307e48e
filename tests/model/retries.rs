//! What is tried again, and what never is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::common::{Lossy, WORK, register_dead, runtime, seconds, who, worker};
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use slipring::{Client, Context, DistributedRuntime, Effect, Error, Fault, MemoryWorld, Serving};
use slipring_core::LeaseId;
use slipring_sim::Link;
use tokio::time::Instant;

async fn client(runtime: &DistributedRuntime, instances: usize) -> Client<(), u64> {
    let client = runtime.endpoint(WORK).unwrap().client().await.unwrap();
    client.wait_for_instances(instances, seconds(5)).await.unwrap();
    client
}

/// A worker that refuses every request with this error, and how often it did.
async fn refusing(world: &MemoryWorld, error: Error) -> (DistributedRuntime, Serving, Arc<AtomicU64>) {
    let (runtime, asked) = (runtime(world).await, Arc::new(AtomicU64::new(0)));
    let counter = asked.clone();
    let refuse = move |(): (), _: Context| {
        counter.fetch_add(1, Ordering::Relaxed);
        let error = error.clone();
        async move { Err::<u64, _>(Fault::refuse(error)) }
    };
    let serving = runtime.endpoint(WORK).unwrap().serve_unary(refuse).await.unwrap();
    (runtime, serving, asked)
}

/// What was refused before anything was done is tried elsewhere, whatever the reason, and the caller notices
/// nothing; what may have been done, or will not be better elsewhere, is not.
#[tokio::test(start_paused = true)]
async fn refusals_are_tried_elsewhere() {
    let elsewhere = [
        Error::draining("a"),
        Error::overloaded("a"),
        Error::lease_lost(LeaseId(1)),
        Error::unavailable("a", "b", Effect::None),
    ];
    for error in elsewhere {
        let world = MemoryWorld::new();
        let (_runtime, _serving, asked) = refusing(&world, error.clone()).await;
        let (good, _good) = worker(&world).await;
        let client = client(&runtime(&world).await, 2).await;
        for _ in 0..10 {
            assert_eq!(client.call(&()).await.unwrap(), good.instance_id(), "{error}");
        }
        assert!(asked.load(Ordering::Relaxed) >= 1, "{error}");
    }
    let never = [
        Error::overloaded("a").raise(Effect::Unknown),
        Error::unavailable("a", "b", Effect::Unknown),
        Error::invalid("a", "b", "c"),
        Error::unauthorized("a", "b"),
        Error::fault("a", "b"),
    ];
    for error in never {
        let world = MemoryWorld::new();
        let (_runtime, _serving, asked) = refusing(&world, error.clone()).await;
        let (_good, _serving) = worker(&world).await;
        let client = client(&runtime(&world).await, 2).await;
        let answers = [client.call(&()).await, client.call(&()).await];
        let failed: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
        assert_eq!(asked.load(Ordering::Relaxed), 1, "{error}");
        assert_eq!(failed.iter().map(Error::code).collect::<Vec<_>>(), [error.code()]);
    }
}

/// A worker that stops sends its new callers elsewhere, even those who cannot see that it is gone: no call
/// fails, and what it had begun it finishes.
#[tokio::test(start_paused = true)]
async fn a_draining_worker_costs_nobody_a_call() {
    let world = MemoryWorld::new();
    let slow = runtime(&world).await;
    let work = |(): (), cx: Context| async move {
        tokio::time::sleep(seconds(8)).await;
        Ok::<u64, Fault>(cx.instance())
    };
    let _slow = slow.endpoint(WORK).unwrap().serve_unary(work).await.unwrap();
    let link = Link::new();
    let blind = DistributedRuntime::builder()
        .discovery(link.discovery(Arc::new(world.discovery())))
        .messaging(world.messaging());
    let blind = blind.build().await.unwrap();
    let client = client(&blind, 1).await;
    let begun = client.request(&()).instance(slow.instance_id());
    let (good, _good) = worker(&world).await;
    client.wait_for_instances(2, seconds(5)).await.unwrap();

    let later = async {
        tokio::time::sleep(seconds(1)).await;
        link.cut();
        let stop = slow.stop();
        let calls = async {
            // Past the grace for watchers, so that it refuses.
            tokio::time::sleep(seconds(1)).await;
            for _ in 0..100 {
                assert_eq!(client.call(&()).await.unwrap(), good.instance_id());
            }
        };
        tokio::join!(stop, calls).0
    };
    let (begun, report) = tokio::join!(begun.call(), later);
    assert_eq!(begun.unwrap(), slow.instance_id());
    assert!(report.is_clean(), "{report}");
}

/// U732, U1424: while a dead worker is still listed no call fails that any other worker could take, not even
/// of a hundred that begin at the same moment.
#[tokio::test(start_paused = true)]
async fn u732_u1424_a_dead_worker_that_is_still_listed_fails_no_call() {
    for dead in 1..=3 {
        let world = MemoryWorld::new();
        let _alive = [worker(&world).await, worker(&world).await];
        let client = client(&runtime(&world).await, 2).await;
        for id in 1..=dead {
            register_dead(&world, client.endpoint(), id).await;
        }
        client.wait_for_instances(2 + dead as usize, seconds(5)).await.unwrap();
        let began = Instant::now();
        let answers = join_all((0..100).map(|_| client.call(&()))).await;
        let failed: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
        assert!(failed.is_empty(), "{} of 100 with {dead} dead: {}", failed.len(), failed[0]);
        assert!(began.elapsed() < seconds(1));
    }
}

/// A worker with all the work it accepts sends callers elsewhere; where there is no elsewhere, the caller is
/// told with its limits that nothing was done.
#[tokio::test(start_paused = true)]
async fn an_overloaded_worker_sends_callers_elsewhere() {
    let world = MemoryWorld::new();
    let full = runtime(&world).await;
    let hang = |(): (), _: Context| std::future::pending::<Result<u64, Fault>>();
    let serve = full.endpoint(WORK).unwrap().serve_unary(hang).concurrency(1).queue(1);
    let serving = serve.await.unwrap();
    let client = client(&runtime(&world).await, 1).await;
    let long = || client.request(&()).deadline(seconds(100)).call();
    let busy = async { tokio::join!(long(), long()) };
    let others = async {
        while serving.in_flight() < 2 {
            tokio::task::yield_now().await;
        }
        let error = client.call(&()).await.unwrap_err();
        assert_eq!((error.code(), error.effect()), ("overloaded", Effect::None));
        assert!(error.to_string().contains("at most 1 requests at a time and 1 waiting"), "{error}");
        let (good, _good) = worker(&world).await;
        client.wait_for_instances(2, seconds(5)).await.unwrap();
        // Every second one is refused first, which is within the budget.
        for _ in 0..10 {
            assert_eq!(client.call(&()).await.unwrap(), good.instance_id());
        }
    };
    tokio::select! {
        biased;
        ended = busy => panic!("{ended:?}"),
        () = others => {}
    }
}

/// Retries never multiply the load of an overload: a fifth of the calls, and what time adds, beside the ten
/// that a budget begins with.
#[tokio::test(start_paused = true)]
async fn retries_have_a_budget() {
    let world = MemoryWorld::new();
    let (_a, _serving_a, first) = refusing(&world, Error::overloaded("a")).await;
    let (_b, _serving_b, second) = refusing(&world, Error::overloaded("b")).await;
    let client = client(&runtime(&world).await, 2).await;
    let began = Instant::now();
    for _ in 0..1_000 {
        assert_eq!(client.call(&()).await.unwrap_err().code(), "overloaded");
    }
    let asked = first.load(Ordering::Relaxed) + second.load(Ordering::Relaxed);
    let allowed = 1_000 + 200 + 10 + began.elapsed().as_secs() + 1;
    assert!(asked > 1_100 && asked <= allowed, "{asked} of at most {allowed}");
}

/// After the first item a call is never made again, not even an idempotent one: the error says that it was
/// executed.
#[tokio::test(start_paused = true)]
async fn nothing_is_retried_after_the_first_item() {
    let world = MemoryWorld::new();
    let runtime_ = runtime(&world).await;
    let item_then_refusal = |(): (), _: Context| async {
        Ok(stream::iter([Ok(1), Err(Fault::refuse(Error::draining("half-way")))]))
    };
    let serving = runtime_.endpoint(WORK).unwrap().serve(item_then_refusal).await.unwrap();
    let client = client(&runtime(&world).await, 1).await;
    let mut responses = client.request(&()).idempotent().generate().await.unwrap();
    assert_eq!(responses.next().await.unwrap().unwrap(), 1);
    let error = responses.next().await.unwrap().unwrap_err();
    assert_eq!((error.code(), error.effect()), ("draining", Effect::Applied));
    assert_eq!(serving.stop().await.requests, 1);
}

/// The error of a call with several attempts has the greatest effect of any: a refusal after a lost answer
/// does not say that nothing was done.
#[tokio::test(start_paused = true)]
async fn the_last_error_has_the_effect_of_the_worst() {
    let world = MemoryWorld::new();
    // The first answer is lost; from then on requests are refused.
    let answered = Arc::new(AtomicBool::new(false));
    let first = answered.clone();
    let lossy = Lossy::new(world.messaging(), move |message| {
        message.payload.ends_with(b" end\n1") && !first.swap(true, Ordering::Relaxed)
    });
    let builder = DistributedRuntime::builder().discovery(world.discovery()).messaging(lossy);
    let worker = builder.build().await.unwrap();
    let once = move |(): (), _: Context| {
        let refuse = answered.load(Ordering::Relaxed);
        async move { if refuse { Err(Fault::refuse(Error::overloaded("later"))) } else { Ok(1_u64) } }
    };
    let _serving = worker.endpoint(WORK).unwrap().serve_unary(once).await.unwrap();
    let client = client(&runtime(&world).await, 1).await;
    let error = client.request(&()).idempotent().call().await.unwrap_err();
    assert_eq!((error.code(), error.effect()), ("overloaded", Effect::Unknown));
}

/// D09: an instance that could not be reached is not put back by an unrelated event, nor by time alone.
#[tokio::test(start_paused = true)]
async fn d09_an_unrelated_event_puts_nothing_back() {
    let world = MemoryWorld::new();
    let _alive = worker(&world).await;
    let client = client(&runtime(&world).await, 1).await;
    register_dead(&world, client.endpoint(), 99).await;
    client.wait_for_instances(2, seconds(5)).await.unwrap();
    let dead = || client.instances().by_id(99).unwrap();
    for _ in 0..2 {
        client.call(&()).await.unwrap();
    }
    assert!(dead().is_set_aside());
    let _more = worker(&world).await;
    client.wait_for_instances(3, seconds(5)).await.unwrap();
    assert!(dead().is_set_aside(), "another instance came");
    tokio::time::sleep(seconds(60)).await;
    assert!(dead().is_set_aside(), "a minute passed");
}

/// D09: a newer put of an instance puts it back.
#[tokio::test(start_paused = true)]
async fn d09_a_newer_put_puts_it_back() {
    let world = MemoryWorld::new();
    let _alive = worker(&world).await;
    let client = client(&runtime(&world).await, 1).await;
    register_dead(&world, client.endpoint(), 99).await;
    client.wait_for_instances(2, seconds(5)).await.unwrap();
    for _ in 0..2 {
        client.call(&()).await.unwrap();
    }
    assert!(client.instances().by_id(99).unwrap().is_set_aside());
    let put = register_dead(&world, client.endpoint(), 99).await;
    let anew = |all: &[Arc<slipring::Instance>]| all.iter().any(|instance| instance.modified() == put);
    client.instances().wait_until(anew).await;
    assert!(!client.instances().by_id(99).unwrap().is_set_aside());
}

/// D09: an answered probe puts an instance back, within a second or two of its return and without a newer put.
#[tokio::test(start_paused = true)]
async fn d09_an_answered_probe_puts_it_back() {
    let world = MemoryWorld::new();
    let (_alive, link) = (worker(&world).await, Link::new());
    let builder = DistributedRuntime::builder().discovery(world.discovery());
    let flaky = builder.messaging(link.messaging(Arc::new(world.messaging()))).build().await.unwrap();
    let _flaky = flaky.endpoint(WORK).unwrap().serve_unary(who).await.unwrap();
    let client = client(&runtime(&world).await, 2).await;
    let instance = || client.instances().by_id(flaky.instance_id()).unwrap();
    let modified = instance().modified();
    link.cut();
    for _ in 0..10 {
        client.call(&()).await.unwrap();
    }
    assert!(instance().is_set_aside());
    tokio::time::sleep(seconds(20)).await;
    assert!(instance().is_set_aside());
    link.open();
    tokio::time::sleep(seconds(2)).await;
    assert!(!instance().is_set_aside());
    assert_eq!(instance().modified(), modified);
    assert_eq!(client.request(&()).instance(flaky.instance_id()).call().await.unwrap(), flaky.instance_id());
}

/// An instance that is set aside does not hold the watch open once the last client is gone.
#[tokio::test(start_paused = true)]
async fn an_instance_set_aside_holds_no_watch() {
    let world = MemoryWorld::new();
    let caller = runtime(&world).await;
    let endpoint = caller.endpoint(WORK).unwrap();
    register_dead(&world, &endpoint, 99).await;
    let client = client(&caller, 1).await;
    assert_eq!(client.call(&()).await.unwrap_err().code(), "no_responders");
    drop(client);
    tokio::time::sleep(seconds(1)).await;
    assert_eq!((world.watches(), caller.registry().watchers()), (0, 0));
}
