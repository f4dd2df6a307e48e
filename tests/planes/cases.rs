//! The cases, a function each. Every one says in a sentence what a plane has to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use slipring::codec::Codec;
use slipring::{Client, Context, Effect, Error, Fault, Plane, Responses, Serving, TraceContext};
use slipring_core::Bytes;
use tokio::sync::Semaphore;

pub(crate) use crate::report::what_travels_is_reported;

use crate::ground::{Ground, Inside, MESSAGE_BYTES_MAX, eventually};

const SECOND: Duration = Duration::from_secs(1);

/// Asked for n, it answers with 1 to n.
async fn count(n: u64, _: Context) -> Result<impl futures_util::Stream<Item = Result<u64, Fault>>, Fault> {
    Ok(stream::iter((1..=n).map(Ok)))
}

/// The items of a response, and the error behind them, if there is one.
async fn read<T: serde::de::DeserializeOwned>(mut responses: Responses<T>) -> (Vec<T>, Option<Error>) {
    let mut items = Vec::new();
    while let Some(next) = responses.next().await {
        match next {
            Ok(item) => items.push(item),
            Err(error) => {
                assert!(responses.next().await.is_none(), "an error is the last item");
                return (items, Some(error));
            }
        }
    }
    (items, None)
}

/// A unary call is answered with what the handler returns, and leaves nothing behind.
pub(crate) async fn a_unary_call_is_answered(ground: &Ground) {
    let (worker, caller) = (ground.worker().await, ground.caller().await);
    let echo = async |text: String, _: Context| Ok(text);
    let serving = ground.work(&worker).serve_unary(echo).await.unwrap();
    let client: Client<String, String> = ground.client(&caller).await;
    for number in 0..100 {
        assert_eq!(client.call(&format!("text {number}")).await.unwrap(), format!("text {number}"));
    }
    eventually("nothing is in flight", || serving.in_flight() == 0 && caller.calls_in_flight() == 0).await;
    let report = serving.stop().await;
    assert!(report.is_clean() && report.requests == 100 && report.errors == 0, "{report}");
    assert!(caller.stop().await.is_clean());
    assert!(worker.stop().await.is_clean());
}

async fn counted(ground: &Ground, n: u64) {
    let (worker, caller) = (ground.worker().await, ground.caller().await);
    let _serving = ground.work(&worker).serve(count).await.unwrap();
    let client: Client<u64, u64> = ground.client(&caller).await;
    let (items, error) = read(client.generate(&n).await.unwrap()).await;
    assert_eq!(error, None);
    assert!(items.into_iter().eq(1..=n));
    eventually("nothing is in flight", || caller.calls_in_flight() == 0).await;
}

/// A stream without items is its end alone.
pub(crate) async fn a_stream_may_be_empty(ground: &Ground) {
    counted(ground, 0).await;
}

/// A stream of one item is that item and the end.
pub(crate) async fn a_stream_may_have_one_item(ground: &Ground) {
    counted(ground, 1).await;
}

/// Many more items than a caller holds at a time arrive all, in order.
pub(crate) async fn ten_thousand_items_arrive_in_order(ground: &Ground) {
    counted(ground, 10_000).await;
}

/// Items of any size up to the limit arrive byte by byte as they were sent, also beside small ones.
pub(crate) async fn large_items_arrive_whole(ground: &Ground) {
    let (worker, caller) = (ground.worker().await, ground.caller().await);
    let sized = |sizes: Vec<usize>, _: Context| async move {
        let items = sizes.into_iter().enumerate().map(|(at, size)| Ok(letters(at, size)));
        Ok(stream::iter(items.collect::<Vec<_>>()))
    };
    let _serving = ground.work(&worker).serve(sized).await.unwrap();
    let client: Client<Vec<usize>, String> = ground.client(&caller).await;
    let sizes = vec![0, 1, 65_530, 65_536, 65_537, 3, 200_000, 900_000, 2];
    let calls = (0..4).map(|_| async { read(client.generate(&sizes).await.unwrap()).await });
    for (items, error) in join_all(calls).await {
        assert_eq!(error, None);
        let expected = sizes.iter().enumerate().map(|(at, size)| letters(at, *size));
        assert!(items.into_iter().eq(expected));
    }
}

fn letters(seed: usize, count: usize) -> String {
    ('a'..='z').cycle().skip(seed).take(count).collect()
}

/// A handler that never ends, and says how many of it there are.
async fn serve_endless(ground: &Ground, worker: &slipring::DistributedRuntime) -> (Serving, Inside) {
    let inside = Inside::default();
    let counted = inside.clone();
    let endless = move |_: u64, _: Context| {
        let entered = counted.enter();
        async move {
            Ok(stream::iter([Ok(1_u64)]).chain(stream::once(async move {
                let _entered = entered;
                std::future::pending().await
            })))
        }
    };
    (ground.work(worker).serve(endless).await.unwrap(), inside)
}

/// Dropping a stream of responses ends the handler at the far end, and nothing is left of either.
pub(crate) async fn dropping_the_stream_cancels_the_handler(ground: &Ground) {
    let (worker, caller) = (ground.worker().await, ground.caller().await);
    let (serving, inside) = serve_endless(ground, &worker).await;
    let client: Client<u64, u64> = ground.client(&caller).await;
    let mut responses = client.request(&0).deadline(60 * SECOND).generate().await.unwrap();
    assert_eq!(responses.next().await.unwrap().unwrap(), 1);
    assert_eq!(inside.count(), 1);
    drop(responses);
    eventually("the handler is dropped", || inside.count() == 0 && serving.in_flight() == 0).await;
    assert_eq!(caller.calls_in_flight(), 0);
}

/// Dropping a call before it is answered ends the handler, and tasks that it started are told.
pub(crate) async fn dropping_the_call_cancels_the_handler(ground: &Ground) {
    let (worker, caller) = (ground.worker().await, ground.caller().await);
    let (inside, told) = (Inside::default(), Arc::new(Semaphore::new(0)));
    let (counted, tell) = (inside.clone(), told.clone());
    let waits = move |(): (), context: Context| {
        let (entered, tell) = (counted.enter(), tell.clone());
        async move {
            let _entered = entered;
            let started = context.clone();
            tokio::spawn(async move {
                started.cancelled().await;
                tell.add_permits(1);
            });
            std::future::pending::<Result<(), Fault>>().await
        }
    };
    let serving = ground.work(&worker).serve_unary(waits).await.unwrap();
    let client: Client<(), ()> = ground.client(&caller).await;
    let call = tokio::spawn(async move { client.request(&()).deadline(60 * SECOND).call().await });
    eventually("the handler runs", || inside.count() == 1).await;
    call.abort();
    eventually("the handler is dropped", || inside.count() == 0 && serving.in_flight() == 0).await;
    eventually("its task is told", || told.available_permits() == 1).await;
}

/// A producer that fails half-way: its items arrive, and then its own error with effect applied.
pub(crate) async fn a_producer_that_fails_is_told_behind_its_items(ground: &Ground) {
    let (worker, caller) = (ground.worker().await, ground.caller().await);
    let fails = |n: u64, _: Context| async move {
        let failure = stream::iter([Err(Fault::new("out_of_tokens", "no more"))]);
        Ok(stream::iter((1..=n).map(Ok)).chain(failure))
    };
    let serving = ground.work(&worker).serve(fails).await.unwrap();
    let client: Client<u64, u64> = ground.client(&caller).await;
    let (items, error) = read(client.generate(&3).await.unwrap()).await;
    assert_eq!(items, [1, 2, 3]);
    let Some(Error::Fault { fault, message, .. }) = &error else { panic!("{error:?}") };
    assert_eq!((fault.as_str(), message.as_str()), ("out_of_tokens", "no more"));
    assert_eq!(error.unwrap().effect(), Effect::Applied);
    eventually("it is over", || serving.in_flight() == 0).await;
}

/// A producer that panics half-way: its items arrive, and then that it panicked; the endpoint lives on.
pub(crate) async fn a_producer_that_panics_is_told_behind_its_items(ground: &Ground) {
    let (worker, caller) = (ground.worker().await, ground.caller().await);
    let panics = |n: u64, _: Context| async move {
        Ok(stream::iter(1..=u64::MAX).map(move |item| if item <= n { Ok(item) } else { panic!("as asked") }))
    };
    let _serving = ground.work(&worker).serve(panics).await.unwrap();
    let client: Client<u64, u64> = ground.client(&caller).await;
    for _ in 0..2 {
        let (items, error) = read(client.generate(&3).await.unwrap()).await;
        assert_eq!(items, [1, 2, 3]);
        let Some(Error::Fault { fault, message, .. }) = error else { panic!("{error:?}") };
        assert!(fault == "panic" && message.contains("as asked"), "{fault}: {message}");
    }
}

/// At the deadline the call ends and says so, and so does the handler.
pub(crate) async fn the_deadline_ends_both_sides(ground: &Ground) {
    let (worker, caller) = (ground.worker().await, ground.caller().await);
    let (serving, inside) = serve_endless(ground, &worker).await;
    let client: Client<u64, u64> = ground.client(&caller).await;
    let responses = client.request(&0).deadline(SECOND / 4).generate().await.unwrap();
    let (items, error) = read(responses).await;
    assert_eq!(items, [1]);
    assert!(matches!(error, Some(Error::DeadlineExceeded { .. })), "{error:?}");
    eventually("the handler is dropped", || inside.count() == 0 && serving.in_flight() == 0).await;
}

/// A stop waits until the stream under way is read to its end; a new call meets nobody.
pub(crate) async fn a_stop_waits_for_the_stream_under_way(ground: &Ground) {
    let (worker, caller) = (ground.worker().await, ground.caller().await);
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let gated = move |n: u64, _: Context| {
        let opened = opened.clone();
        async move {
            Ok(stream::iter(1..=n).then(move |item| {
                let opened = opened.clone();
                async move {
                    if item > 1 {
                        opened.acquire().await.unwrap().forget();
                    }
                    Ok(item)
                }
            }))
        }
    };
    let _serving = ground.work(&worker).serve(gated).await.unwrap();
    let client: Client<u64, u64> = ground.client(&caller).await;
    let responses = client.request(&10).deadline(60 * SECOND).generate().await.unwrap();
    let stopping = tokio::spawn({
        let worker = worker.clone();
        async move { worker.stop().await }
    });
    let mut stop = worker.stopping();
    stop.wait_for(|stopping| *stopping).await.unwrap();
    eventually("its record is gone", || client.instances().all().is_empty()).await;
    let error = client.request(&1).deadline(SECOND / 4).generate().await.unwrap_err();
    assert!(matches!(error, Error::NoInstances { .. }), "{error}");
    assert!(!stopping.is_finished());
    gate.add_permits(10);
    let (items, error) = read(responses).await;
    assert!(error.is_none() && items.into_iter().eq(1..=10), "{error:?}");
    let report = stopping.await.unwrap();
    assert!(report.is_clean() && report.abandoned == 0, "{report}");
}

/// A worker that is stopped and comes back as another instance is called again, however often.
pub(crate) async fn a_restarted_worker_is_called_again(ground: &Ground) {
    let caller = ground.caller().await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let worker = ground.worker().await;
        let who = async |(): (), context: Context| Ok(context.instance());
        let _serving = ground.work(&worker).serve_unary(who).await.unwrap();
        let client: Client<(), u64> = ground.client(&caller).await;
        assert_eq!(client.call(&()).await.unwrap(), worker.instance_id());
        seen.push(worker.instance_id());
        assert!(worker.stop().await.is_clean());
    }
    seen.dedup();
    assert_eq!(seen.len(), 3);
}

/// Nobody reads: the producer stops after a bounded number of items, and other streams go on meanwhile.
pub(crate) async fn a_slow_reader_stops_its_own_stream_only(ground: &Ground) {
    /// Larger than all windows and buffers on the way together.
    const ITEMS: u64 = 30_000;
    let (worker, caller) = (ground.worker().await, ground.caller().await);
    let made = Arc::new(AtomicU64::new(0));
    let making = made.clone();
    let kilobytes = move |n: u64, _: Context| {
        let making = making.clone();
        async move {
            Ok(stream::iter(1..=n).map(move |item| {
                making.fetch_add(1, Ordering::SeqCst);
                Ok((item, letters(0, 1000)))
            }))
        }
    };
    let _serving = ground.work(&worker).serve(kilobytes).await.unwrap();
    let client: Client<u64, (u64, String)> = ground.client(&caller).await;
    let slow = client.request(&ITEMS).deadline(60 * SECOND).generate().await.unwrap();
    // Until the producer makes no more.
    let mut before = 0;
    loop {
        tokio::time::sleep(SECOND / 4).await;
        let now = made.load(Ordering::SeqCst);
        if now == before && now > 0 {
            break;
        }
        before = now;
    }
    assert!(before < ITEMS / 2, "{before} items were made for nobody");
    let (items, error) = read(client.generate(&200).await.unwrap()).await;
    assert!(error.is_none() && items.len() == 200, "{error:?}");
    assert_eq!(made.load(Ordering::SeqCst), before + 200);
    let (items, error) = read(slow).await;
    assert!(error.is_none() && items.into_iter().map(|(item, _)| item).eq(1..=ITEMS), "{error:?}");
}

/// What is larger than the plane takes is refused before it is sent, as a request and as an item, with both
/// figures; what is just as large as it takes arrives.
pub(crate) async fn what_is_too_large_is_refused_with_both_figures(ground: &Ground) {
    let (worker, caller) = (ground.worker().await, ground.caller().await);
    let sized = async |(wanted, _): (usize, Bytes), _: Context| Ok(Bytes::from(vec![7; wanted]));
    // In which bytes are bytes, with a head of five before many of them.
    let serve = ground.work(&worker).serve_unary(sized).codec(Codec::MessagePack);
    const HEAD: usize = 5;
    let _serving = serve.await.unwrap();
    let client: Client<(usize, Bytes), Bytes> = ground.client(&caller).await;
    let call = async |wanted, given| {
        let request = (wanted, Bytes::from(vec![7; given]));
        client.request(&request).deadline(60 * SECOND).call().await.map(|bytes| bytes.len())
    };
    if ground.plane == Plane::Local {
        // Nothing is sent, so nothing is too large.
        assert_eq!(call(MESSAGE_BYTES_MAX + 1, 10).await, Ok(MESSAGE_BYTES_MAX + 1));
        return;
    }
    let bus = ground.bus_bytes_max().await;
    let (request_max, item_max) = match ground.plane {
        Plane::Tcp => (MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX),
        Plane::NatsTcp => (bus, MESSAGE_BYTES_MAX),
        _ => (bus, bus),
    };
    if ground.plane != Plane::Broker {
        assert_eq!(call(item_max - HEAD, 0).await, Ok(item_max - HEAD));
    }
    if ground.plane == Plane::Tcp {
        // The pair and the number take two more.
        assert_eq!(call(0, request_max - HEAD - 2).await, Ok(0));
    }
    for (wanted, given, limit, effect) in
        [(0, request_max + 1, request_max, Effect::None), (item_max + 1, 0, item_max, Effect::Applied)]
    {
        let error = call(wanted, given).await.unwrap_err();
        let Error::PayloadTooLarge { limit: told, actual, .. } = &error else { panic!("{error:?}") };
        assert!(*told == limit && *actual > limit, "{error}");
        assert_eq!(error.effect(), effect, "{error}");
    }
    assert_eq!(call(3, 3).await, Ok(3));
}

/// Ten thousand streams at a time end all, each with its own items.
pub(crate) async fn ten_thousand_streams_at_once(ground: &Ground) {
    const STREAMS: u64 = 10_000;
    let (worker, caller) = (ground.worker().await, ground.caller().await);
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let pair = move |number: u64, _: Context| {
        let opened = opened.clone();
        async move {
            let second = stream::once(async move {
                let _ = opened.acquire().await.unwrap();
                Ok(number + 1)
            });
            Ok(stream::iter([Ok(number)]).chain(second))
        }
    };
    let limit = STREAMS as usize;
    let serving = ground.work(&worker).serve(pair).concurrency(limit).queue(limit).await.unwrap();
    let client: Client<u64, u64> = ground.client(&caller).await;
    let streams = (0..STREAMS).map(|number| {
        let client = client.clone();
        async move {
            let responses = client.request(&number).deadline(120 * SECOND).generate().await.unwrap();
            (number, responses)
        }
    });
    let streams = join_all(streams).await;
    assert_eq!((serving.in_flight(), caller.calls_in_flight()), (STREAMS, STREAMS as usize));
    gate.add_permits(1);
    for (number, responses) in streams {
        let (items, error) = read(responses).await;
        assert!(error.is_none() && items == [number, number + 1], "{number}: {error:?}");
    }
    eventually("nothing is in flight", || serving.in_flight() == 0 && caller.calls_in_flight() == 0).await;
}

/// Metadata, the trace and the deadline reach the handler.
pub(crate) async fn what_travels_along_arrives(ground: &Ground) {
    let (worker, caller) = (ground.worker().await, ground.caller().await);
    let tell = async |(): (), context: Context| {
        let tenant = context.metadata("tenant").unwrap_or_default().to_owned();
        let trace = context.trace().map(|trace| trace.trace_id().to_owned()).unwrap_or_default();
        Ok((tenant, trace, context.remaining().as_millis() as u64))
    };
    let _serving = ground.work(&worker).serve_unary(tell).await.unwrap();
    let client: Client<(), (String, String, u64)> = ground.client(&caller).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let trace = TraceContext::parse(parent).unwrap();
    let request = client.request(&()).metadata("tenant", "blue é").trace(trace).deadline(7 * SECOND);
    let (tenant, trace, millis) = request.call().await.unwrap();
    assert_eq!((tenant.as_str(), trace.as_str()), ("blue é", &parent[3..35]));
    assert!((1..=7001).contains(&millis), "{millis}");
}

/// More requests than an endpoint takes are refused with `overloaded` and effect none; those it took are served.
pub(crate) async fn too_many_requests_are_refused(ground: &Ground) {
    let (worker, caller) = (ground.worker().await, ground.caller().await);
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let waits = move |(): (), _: Context| {
        let opened = opened.clone();
        async move {
            opened.acquire().await.unwrap().forget();
            Ok(())
        }
    };
    let serving = ground.work(&worker).serve_unary(waits).concurrency(1).queue(1).await.unwrap();
    let client: Client<(), ()> = ground.client(&caller).await;
    let taken: Vec<_> = (0..2)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.request(&()).deadline(60 * SECOND).call().await })
        })
        .collect();
    eventually("two are taken", || serving.in_flight() == 2).await;
    let error = client.request(&()).deadline(SECOND / 2).call().await.unwrap_err();
    assert!(matches!(error, Error::Overloaded { .. }) && error.effect() == Effect::None, "{error}");
    gate.add_permits(2);
    for call in taken {
        call.await.unwrap().unwrap();
    }
}

/// A worker that goes away without a word in the middle of a stream: what was delivered is counted.
pub(crate) async fn a_worker_that_goes_away_interrupts_the_stream(ground: &Ground) {
    let (worker, caller) = (ground.worker().await, ground.caller().await);
    let (serving, _) = serve_endless(ground, &worker).await;
    let client: Client<u64, u64> = ground.client(&caller).await;
    let mut responses = client.request(&0).deadline(60 * SECOND).generate().await.unwrap();
    assert_eq!(responses.next().await.unwrap().unwrap(), 1);
    drop(serving);
    drop(worker);
    let error = responses.next().await.unwrap().unwrap_err();
    match &error {
        Error::StreamInterrupted { items_delivered: 1, .. } => {}
        // Its last word, if it could still say it.
        Error::Cancelled { .. } => {}
        _ => panic!("{error:?}"),
    }
    assert!(responses.next().await.is_none());
    assert!(error.effect() > Effect::None, "{error}");
}
