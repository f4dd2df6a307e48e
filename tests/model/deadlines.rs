//! When calls end, and what travels along with them.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{WORK, register_dead, runtime, seconds};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use slipring::{
    Client, Context, DistributedRuntime, Effect, Fault, MemoryWorld, SystemEnvironment, TraceContext,
};
use slipring_core::{BoxStream, Message, Messaging, Subscription};
use slipring_sim::Link;
use tokio::sync::mpsc;
use tokio::time::Instant;

async fn client<Resp>(runtime: &DistributedRuntime, endpoint: &str) -> Client<u64, Resp> {
    let client = runtime.endpoint(endpoint).unwrap().client().await.unwrap();
    client.wait_for_instances(1, seconds(5)).await.unwrap();
    client
}

/// Says when it is dropped.
struct Told(mpsc::UnboundedSender<&'static str>, &'static str);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.send(self.1);
    }
}

/// D22: nobody has to set a limit. A call that is never answered ends after 10 s, a stream that falls silent
/// after 30 s, each with a typed error that says how far it came.
#[tokio::test(start_paused = true)]
async fn d22_the_defaults_are_finite() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let silent =
        |items: u64, _: Context| async move { Ok(stream::iter((0..items).map(Ok)).chain(stream::pending())) };
    let _serving = worker.endpoint(WORK).unwrap().serve(silent).await.unwrap();
    let client = client::<u64>(&runtime(&world).await, WORK).await;

    let began = Instant::now();
    let error = client.generate(&0).await.unwrap_err();
    assert_eq!((error.code(), error.effect()), ("deadline_exceeded", Effect::Unknown));
    assert_eq!(began.elapsed().as_millis(), 10_000);

    let began = Instant::now();
    let mut responses = client.request(&1).deadline(seconds(3600)).generate().await.unwrap();
    assert_eq!(responses.next().await.unwrap().unwrap(), 0);
    let error = responses.next().await.unwrap().unwrap_err();
    assert_eq!((error.code(), error.effect()), ("deadline_exceeded", Effect::Applied));
    assert!(error.to_string().contains("the next item (after 1 of them)"), "{error}");
    assert_eq!(began.elapsed().as_secs(), 30);
}

/// The inactivity limit counts from item to item, not from the beginning.
#[tokio::test(start_paused = true)]
async fn inactivity_is_counted_from_item_to_item() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let slower = |_: u64, _: Context| async {
        Ok(stream::iter([3, 4, 4, 6]).then(|pause| async move {
            tokio::time::sleep(seconds(pause)).await;
            Ok(pause)
        }))
    };
    let _serving = worker.endpoint(WORK).unwrap().serve(slower).await.unwrap();
    let client = client::<u64>(&runtime(&world).await, WORK).await;
    let mut responses =
        client.request(&0).deadline(seconds(100)).inactivity(seconds(5)).generate().await.unwrap();
    for pause in [3, 4, 4] {
        assert_eq!(responses.next().await.unwrap().unwrap(), pause);
    }
    let waited = Instant::now();
    assert_eq!(responses.next().await.unwrap().unwrap_err().code(), "deadline_exceeded");
    assert_eq!(waited.elapsed().as_secs(), 5);
}

/// A deadline is for the whole stream: items that come in time do not extend it, and a worker that ignores it
/// and floods its caller does not either.
#[tokio::test(start_paused = true)]
async fn a_flood_does_not_outlive_its_deadline() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let often = |_: u64, _: Context| async {
        Ok(stream::iter(0_u64..).then(|item| async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok(item)
        }))
    };
    let _serving = worker.endpoint(WORK).unwrap().serve(often).await.unwrap();
    let client = client::<u64>(&runtime(&world).await, WORK).await;
    let began = Instant::now();
    let responses = client.request(&0).deadline(seconds(2)).generate().await.unwrap();
    let last = responses.collect::<Vec<_>>().await.pop().unwrap();
    assert_eq!(last.unwrap_err().code(), "deadline_exceeded");
    assert_eq!(began.elapsed().as_secs(), 2);
}

/// A worker of another make that knows no deadlines and never stops sending: the call ends all the same.
#[tokio::test(start_paused = true)]
async fn a_deadline_holds_against_a_worker_that_ignores_it() {
    let world = MemoryWorld::new();
    let caller = runtime(&world).await;
    let endpoint = caller.endpoint(WORK).unwrap();
    register_dead(&world, &endpoint, 7).await;
    let foreign = world.messaging();
    let subject = endpoint.path().instance(7).subject();
    let mut requests = foreign.subscribe(Subscription::new(subject)).await.unwrap();
    let flood = async {
        let request = requests.next().await.unwrap().unwrap();
        let reply = request.reply.unwrap();
        let ticket = reply.tokens().last().unwrap();
        let call = ticket.split('~').next().unwrap();
        let mut credit = 256;
        for item in 1_u64.. {
            while item > credit {
                let control = requests.next().await.unwrap().unwrap();
                let allowed = control.headers.first("Slipring-Credit").unwrap().parse().unwrap();
                credit = credit.max(allowed);
            }
            if item % 100 == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let answer = format!("{call} 0 items {item} 1\n1");
            foreign.publish(Message::new(reply.clone(), answer)).await.unwrap();
        }
    };
    let client = client::<u64>(&caller, WORK).await;
    let began = Instant::now();
    let call = async {
        let mut responses = client.request(&0).deadline(seconds(2)).generate().await.unwrap();
        loop {
            // A reader that is slower than the flood: there is always something to read.
            tokio::time::sleep(Duration::from_millis(1)).await;
            if let Err(error) = responses.next().await.unwrap() {
                return error;
            }
        }
    };
    let error = tokio::select! {
        biased;
        error = call => error,
        () = flood => panic!("it never ends"),
    };
    assert_eq!((error.code(), error.effect()), ("deadline_exceeded", Effect::Applied));
    assert!(began.elapsed() <= Duration::from_millis(2_002), "{:?}", began.elapsed());
}

/// A response that was complete by the deadline may be read at leisure.
#[tokio::test(start_paused = true)]
async fn what_is_complete_is_read_at_leisure() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let count = |n: u64, _: Context| async move { Ok(stream::iter((0..n).map(Ok))) };
    let _serving = worker.endpoint(WORK).unwrap().serve(count).await.unwrap();
    let client = client::<u64>(&runtime(&world).await, WORK).await;
    let mut responses = client.request(&100).deadline(seconds(2)).generate().await.unwrap();
    for item in 0..100 {
        tokio::time::sleep(seconds(1)).await;
        assert_eq!(responses.next().await.unwrap().unwrap(), item);
    }
    assert!(responses.next().await.is_none());
}

#[derive(Debug, Serialize, Deserialize)]
struct Seen {
    remaining_ms: u64,
    tenant: Option<String>,
    step: Option<String>,
    trace: String,
    state: String,
}

/// The last hop: says what came along.
async fn look(_: u64, cx: Context) -> Result<Seen, Fault> {
    Ok(Seen {
        remaining_ms: cx.remaining().as_millis() as u64,
        tenant: cx.metadata("tenant").map(str::to_owned),
        step: cx.metadata("step").map(str::to_owned),
        trace: cx.trace().map(ToString::to_string).unwrap_or_default(),
        state: cx.trace().map(|trace| trace.state().to_owned()).unwrap_or_default(),
    })
}

/// Through a gateway that makes its call part of the request it works on, the deadline shrinks by what the
/// gateway took, metadata travels on (its own wins), and the trace is one, each hop with an id of its own.
#[tokio::test(start_paused = true)]
async fn what_travels_travels_over_every_hop() {
    let world = MemoryWorld::new();
    let (worker, gateway) = (runtime(&world).await, runtime(&world).await);
    let _worker = worker.endpoint(WORK).unwrap().serve_unary(look).await.unwrap();
    let inner = client::<Seen>(&gateway, WORK).await;
    let pass_on = move |n: u64, cx: Context| {
        let inner = inner.clone();
        async move {
            tokio::time::sleep(seconds(3)).await;
            let request = inner.request(&n).deadline(seconds(60)).metadata("step", "inner").within(&cx);
            Ok::<_, Fault>((cx.trace().unwrap().to_string(), request.call().await?))
        }
    };
    let _gateway = gateway.endpoint("fleet/gateway/ask").unwrap().serve_unary(pass_on).await.unwrap();
    let outer = client::<(String, Seen)>(&runtime(&world).await, "fleet/gateway/ask").await;
    let trace = TraceContext::start(&SystemEnvironment::new()).with_state("vendor=1").unwrap();
    let request = outer.request(&1).deadline(seconds(8)).trace(trace.clone());
    let (middle, seen) = request.metadata("tenant", "blue").metadata("step", "outer").call().await.unwrap();
    assert!((4_900..=5_000).contains(&seen.remaining_ms), "{seen:?}");
    assert_eq!((seen.tenant.as_deref(), seen.step.as_deref()), (Some("blue"), Some("inner")));
    assert_eq!(seen.state, "vendor=1");
    let hops = [trace.to_string(), middle, seen.trace];
    assert!(hops.iter().all(|hop| hop[3..35] == *trace.trace_id()), "{hops:?}");
    assert!(hops[0] != hops[1] && hops[1] != hops[2] && hops[0] != hops[2], "{hops:?}");
}

/// A call whose own deadline is shorter keeps it, whatever it is part of; and a call without a trace starts
/// none.
#[tokio::test(start_paused = true)]
async fn a_shorter_deadline_of_its_own_wins() {
    let world = MemoryWorld::new();
    let (worker, gateway) = (runtime(&world).await, runtime(&world).await);
    let _worker = worker.endpoint(WORK).unwrap().serve_unary(look).await.unwrap();
    let inner = client::<Seen>(&gateway, WORK).await;
    let pass_on = move |n: u64, cx: Context| {
        let inner = inner.clone();
        async move { Ok::<_, Fault>(inner.request(&n).deadline(seconds(1)).within(&cx).call().await?) }
    };
    let _gateway = gateway.endpoint("fleet/gateway/ask").unwrap().serve_unary(pass_on).await.unwrap();
    let seen = client::<Seen>(&runtime(&world).await, "fleet/gateway/ask").await.call(&1).await.unwrap();
    assert!((900..=1_000).contains(&seen.remaining_ms), "{seen:?}");
    assert_eq!(seen.trace, "");
}

/// Metadata and options that cannot be sent are refused with the reason, and nothing is sent.
#[tokio::test(start_paused = true)]
async fn bad_options_are_refused() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let serving = worker.endpoint(WORK).unwrap().serve_unary(look).await.unwrap();
    let client = client::<Seen>(&runtime(&world).await, WORK).await;
    let long = "x".repeat(5_000);
    for (name, value) in [("a b", "1"), ("a", "line\nbreak"), ("a", long.as_str())] {
        let error = client.request(&1).metadata(name, value).call().await.unwrap_err();
        assert_eq!((error.code(), error.effect()), ("invalid", Effect::None), "{error}");
    }
    assert_eq!(serving.stop().await.requests, 0);
}

/// Giving a call up cancels the work at the far end, over every hop: before the first item, and after it;
/// also the tasks that a handler started are told.
#[tokio::test(start_paused = true)]
async fn giving_up_cancels_over_every_hop() {
    let world = MemoryWorld::new();
    let (worker, gateway) = (runtime(&world).await, runtime(&world).await);
    let (tell, mut told) = mpsc::unbounded_channel();
    let tell_worker = tell.clone();
    let hang = move |items: u64, cx: Context| {
        let held = Told(tell_worker.clone(), "worker");
        let task = Told(tell_worker.clone(), "its task");
        async move {
            let mut tasks = tokio::task::JoinSet::new();
            tasks.spawn(async move {
                cx.cancelled().await;
                drop(task);
            });
            tasks.detach_all();
            let items: BoxStream<'static, _> = if items == 0 {
                pending().await
            } else {
                stream::iter((0..items).map(Ok)).chain(stream::pending()).boxed()
            };
            Ok::<_, Fault>(items.inspect(move |_| {
                let _ = &held;
            }))
        }
    };
    let serving = worker.endpoint(WORK).unwrap().serve(hang).await.unwrap();
    let inner = client::<u64>(&gateway, WORK).await;
    let pass_on = move |items: u64, cx: Context| {
        let (inner, held) = (inner.clone(), Told(tell.clone(), "gateway"));
        async move {
            let responses = inner.request(&items).within(&cx).generate().await?;
            Ok(responses.map(move |item| {
                let _ = &held;
                Ok(item?)
            }))
        }
    };
    let _gateway = gateway.endpoint("fleet/gateway/ask").unwrap().serve(pass_on).await.unwrap();
    let caller = runtime(&world).await;
    let outer = client::<u64>(&caller, "fleet/gateway/ask").await;
    for items in [0, 3] {
        {
            let call = outer.request(&items).deadline(seconds(60)).generate();
            match tokio::time::timeout(seconds(1), call).await {
                Err(_) => assert_eq!(items, 0),
                Ok(responses) => assert_eq!(responses.unwrap().take(3).count().await, 3),
            }
        }
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(tokio::time::timeout(seconds(1), told.recv()).await.unwrap().unwrap());
        }
        all.sort_unstable();
        assert_eq!(all, ["gateway", "its task", "worker"], "{items} items");
        tokio::time::sleep(seconds(1)).await;
        assert_eq!(serving.in_flight(), 0);
        assert_eq!((caller.calls_in_flight(), gateway.calls_in_flight()), (0, 0));
    }
}

/// A handler that works past its caller's deadline is stopped there, also if the caller cannot say so.
#[tokio::test(start_paused = true)]
async fn a_handler_stops_at_the_deadline() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let steps = Arc::new(AtomicU64::new(0));
    let counter = steps.clone();
    let work = move |steps: u64, _: Context| {
        let counter = counter.clone();
        async move {
            for _ in 0..steps {
                tokio::time::sleep(Duration::from_millis(100)).await;
                counter.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, Fault>(steps)
        }
    };
    let _serving = worker.endpoint(WORK).unwrap().serve_unary(work).await.unwrap();
    let link = Link::new();
    let builder = DistributedRuntime::builder().discovery(world.discovery());
    let caller = builder.messaging(link.messaging(Arc::new(world.messaging()))).build().await.unwrap();
    let client = client::<u64>(&caller, WORK).await;
    let cut = async {
        tokio::time::sleep(seconds(1)).await;
        link.silence();
        tokio::time::sleep(seconds(20)).await;
    };
    let (answer, ()) = tokio::join!(client.request(&1_000).deadline(seconds(5)).call(), cut);
    assert_eq!(answer.unwrap_err().code(), "deadline_exceeded");
    assert!((45..=51).contains(&steps.load(Ordering::Relaxed)), "{steps:?}");
}
