//! Responses of any number of items, over a broker that may lose messages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::common::{Lossy, WORK, runtime, seconds};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use slipring::codec::Codec;
use slipring::{Client, Context, DistributedRuntime, Effect, Error, Fault, MemoryWorld, Messaging, Serving};
use slipring_core::{Bytes, Message};
use tokio::time::Instant;

/// Serves [`WORK`]: asked for n, it answers with 1 to n, each when the one before was sent, and then the end.
async fn count(runtime: &DistributedRuntime) -> Serving {
    let count = |n: u64, _: Context| async move {
        let paced = stream::iter((1..=n).map(Some).chain([None])).then(|item| async move {
            tokio::task::yield_now().await;
            item
        });
        Ok(paced.filter_map(|item| async move { item.map(Ok) }))
    };
    runtime.endpoint(WORK).unwrap().serve(count).await.unwrap()
}

async fn client(runtime: &DistributedRuntime) -> Client<u64, u64> {
    let client = runtime.endpoint(WORK).unwrap().client().await.unwrap();
    client.wait_for_instances(1, seconds(5)).await.unwrap();
    client
}

/// A runtime whose messages are lost where `loses` says so.
async fn losing(
    world: &MemoryWorld,
    loses: impl Fn(&Message) -> bool + Send + Sync + 'static,
) -> DistributedRuntime {
    let messaging = Lossy::new(world.messaging(), loses);
    DistributedRuntime::builder().discovery(world.discovery()).messaging(messaging).build().await.unwrap()
}

/// The items of a response, and the error behind them, if there is one.
async fn read(client: &Client<u64, u64>, n: u64) -> (Vec<u64>, Option<Error>) {
    let mut responses = match client.request(&n).deadline(seconds(3600)).generate().await {
        Ok(responses) => responses,
        Err(error) => return (Vec::new(), Some(error)),
    };
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

/// The words of an answer's line, behind its call and load.
fn words(message: &Message) -> String {
    let text = String::from_utf8_lossy(&message.payload);
    let line = text.split_once('\n').map_or("", |(line, _)| line);
    line.splitn(3, ' ').nth(2).unwrap_or_default().to_owned()
}

/// Is it the answer with the item of this number?
fn is_item(message: &Message, number: u64) -> bool {
    words(message).starts_with(&format!("items {number} "))
}

/// Is it the end of a stream, or the whole answer of a unary call?
fn is_end(message: &Message) -> bool {
    let words = words(message);
    words.starts_with("end ") || words.ends_with(" end")
}

/// A request, as opposed to an answer and to what is said about a request.
fn is_request(message: &Message) -> bool {
    message.reply.is_some() && message.headers.first("Slipring-Control").is_none()
}

/// Streams of no, one, many and very many items bring each of them, in order, and then end.
#[tokio::test(start_paused = true)]
async fn streams_of_every_length_arrive_whole() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let _serving = count(&worker).await;
    let client = client(&runtime(&world).await).await;
    for n in [0, 1, 2, 255, 256, 257, 10_000] {
        let (items, error) = read(&client, n).await;
        assert_eq!(error, None, "{n}");
        assert_eq!(items, (1..=n).collect::<Vec<_>>());
    }
}

/// Items that are ready at the same time travel together, with the end, in messages that are well below the
/// broker's limit; what is not ready is not waited for.
#[tokio::test(start_paused = true)]
async fn items_that_are_ready_travel_together() {
    let world = MemoryWorld::new();
    let (seen, all) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)));
    let (lines, messages) = (seen.clone(), all.clone());
    let worker = losing(&world, move |message| {
        lines.lock().unwrap().push(words(message));
        messages.fetch_add(1, Ordering::Relaxed);
        assert!(message.payload.len() < 40_000, "{}", message.payload.len());
        false
    })
    .await;
    let ready = |n: u64, _: Context| async move { Ok(stream::iter((1..=n).map(Ok))) };
    let _serving = worker.endpoint(WORK).unwrap().serve(ready).await.unwrap();
    let client = client(&runtime(&world).await).await;
    assert_eq!(read(&client, 3).await, (vec![1, 2, 3], None));
    assert_eq!(seen.lock().unwrap().last().unwrap(), "items 1 1 1 1 end");
    let before = all.load(Ordering::Relaxed);
    assert_eq!(read(&client, 100).await.0.len(), 100);
    // tokio lets no task go on for ever, which may split them once.
    assert!(all.load(Ordering::Relaxed) - before <= 2, "{seen:?}");

    let large = worker.endpoint("a/b/large").unwrap();
    let kilobytes =
        |n: u64, _: Context| async move { Ok(stream::iter((0..n).map(|_| Ok("x".repeat(1000))))) };
    let _large = large.serve(kilobytes).await.unwrap();
    let client = runtime(&world).await.endpoint("a/b/large").unwrap().client::<u64, String>().await.unwrap();
    let items: Vec<_> = client.generate(&100).await.unwrap().collect().await;
    assert!(items.len() == 100 && items.iter().all(|item| item.as_ref().unwrap().len() == 1000));
}

/// A producer that never ends is held back by a reader that does not read: what waits is bounded, and reading
/// lets it go on.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_stops_the_producer() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let produced = Arc::new(AtomicU64::new(0));
    let counter = produced.clone();
    let endless = move |_: u64, _: Context| {
        let counter = counter.clone();
        async move { Ok(stream::repeat_with(move || Ok(counter.fetch_add(1, Ordering::Relaxed)))) }
    };
    let _serving = worker.endpoint(WORK).unwrap().serve(endless).await.unwrap();
    let client = client(&runtime(&world).await).await;
    let mut responses = client.request(&0).deadline(seconds(3600)).generate().await.unwrap();
    let mut read = 0;
    for pause in 1..=20 {
        tokio::time::sleep(seconds(pause)).await;
        // The window of 256, and the one item that the producer has in hand.
        assert!(produced.load(Ordering::Relaxed) <= read + 257, "{produced:?} after {read}");
        for _ in 0..100 {
            assert_eq!(responses.next().await.unwrap().unwrap(), read);
            read += 1;
        }
    }
    drop(responses);
    tokio::time::sleep(seconds(1)).await;
    let at_drop = produced.load(Ordering::Relaxed);
    tokio::time::sleep(seconds(10)).await;
    assert_eq!(produced.load(Ordering::Relaxed), at_drop, "nobody reads, and nobody produces");
}

/// Credit is cumulative and repeated: a stream goes on although every second message that carries it is lost.
#[tokio::test(start_paused = true)]
async fn credit_survives_lost_messages() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let _serving = count(&worker).await;
    let (told, lost) = (AtomicU64::new(0), Arc::new(AtomicU64::new(0)));
    let losses = lost.clone();
    let caller = losing(&world, move |message| {
        let is_control = message.headers.first("Slipring-Control").is_some();
        let lose = is_control && told.fetch_add(1, Ordering::Relaxed) % 2 == 0;
        losses.fetch_add(lose.into(), Ordering::Relaxed);
        lose
    })
    .await;
    let (items, error) = read(&client(&caller).await, 5_000).await;
    assert_eq!((items.len(), error), (5_000, None));
    assert!(lost.load(Ordering::Relaxed) > 10, "{lost:?}");
}

/// A lost item is a hole: the stream ends there with the number of items delivered, and nothing behind the
/// hole is shown.
#[tokio::test(start_paused = true)]
async fn a_hole_interrupts_the_stream() {
    let world = MemoryWorld::new();
    let worker = losing(&world, |message| is_item(message, 3)).await;
    let _serving = count(&worker).await;
    let (items, error) = read(&client(&runtime(&world).await).await, 10).await;
    assert_eq!(items, [1, 2]);
    let Some(Error::StreamInterrupted { items_delivered: 2, effect: Effect::Applied, .. }) = error else {
        panic!("{error:?}")
    };
}

/// A lost end is found out by asking, within seconds, and is no finished stream.
#[tokio::test(start_paused = true)]
async fn a_lost_end_is_found_by_the_probe() {
    let world = MemoryWorld::new();
    let worker = losing(&world, is_end).await;
    let _serving = count(&worker).await;
    let began = Instant::now();
    let (items, error) = read(&client(&runtime(&world).await).await, 3).await;
    assert_eq!(items, [1, 2, 3]);
    let Some(Error::StreamInterrupted { items_delivered: 3, effect: Effect::Applied, .. }) = error else {
        panic!("{error:?}")
    };
    assert!(began.elapsed() < seconds(4), "{:?}", began.elapsed());
}

/// A lost request is found out by asking, within seconds; it is sent again only if that does no harm.
#[tokio::test(start_paused = true)]
async fn a_lost_request_is_found_by_the_probe() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let serving = count(&worker).await;
    let lost = AtomicU64::new(0);
    // The first and the second.
    let caller =
        losing(&world, move |message| is_request(message) && lost.fetch_add(1, Ordering::Relaxed) < 2).await;
    let client = client(&caller).await;
    let began = Instant::now();
    let error = client.call(&1).await.unwrap_err();
    assert!(matches!(error, Error::StreamInterrupted { items_delivered: 0, effect: Effect::Unknown, .. }));
    assert!(began.elapsed() < seconds(4), "{:?}", began.elapsed());
    assert_eq!(client.request(&1).idempotent().call().await.unwrap(), 1);
    assert_eq!(serving.stop().await.requests, 1);
}

/// A lost answer to a unary call is found out by asking; only a call that is declared idempotent is made again.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_found_by_the_probe() {
    let world = MemoryWorld::new();
    let lost = AtomicU64::new(0);
    // The first and the second.
    let worker =
        losing(&world, move |message| is_end(message) && lost.fetch_add(1, Ordering::Relaxed) < 2).await;
    let echo = |n: u64, _: Context| async move { Ok::<_, Fault>(n) };
    let serving = worker.endpoint(WORK).unwrap().serve_unary(echo).await.unwrap();
    let client = client(&runtime(&world).await).await;
    let error = client.call(&7).await.unwrap_err();
    assert_eq!((error.code(), error.effect()), ("stream_interrupted", Effect::Unknown));
    assert_eq!(client.request(&7).idempotent().call().await.unwrap(), 7);
    assert_eq!(serving.stop().await.requests, 3);
}

/// A producer that fails half-way: its items arrive, then its own fault, and the call is not tried again.
#[tokio::test(start_paused = true)]
async fn a_producer_may_fail_midway() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let break_off = |_: u64, _: Context| async {
        Ok(stream::iter([Ok(1), Ok(2), Err(Fault::new("out-of-ideas", "no third")), Ok(4)]))
    };
    let serving = worker.endpoint(WORK).unwrap().serve(break_off).await.unwrap();
    let (items, error) = read(&client(&runtime(&world).await).await, 0).await;
    assert_eq!(items, [1, 2]);
    let Some(Error::Fault { fault, message, effect: Effect::Applied }) = error else { panic!("{error:?}") };
    assert_eq!((fault.as_str(), message.as_str()), ("out-of-ideas", "no third"));
    assert_eq!(serving.stop().await.requests, 1);
}

/// A producer that panics half-way is a fault too, and the worker goes on.
#[tokio::test(start_paused = true)]
async fn a_producer_may_panic_midway() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let panic_at = |n: u64, _: Context| async move {
        Ok(stream::iter(1..=3_u64).map(move |item| if item == n { panic!("item {n}") } else { Ok(item) }))
    };
    let _serving = worker.endpoint(WORK).unwrap().serve(panic_at).await.unwrap();
    let client = client(&runtime(&world).await).await;
    let (items, error) = read(&client, 2).await;
    assert_eq!(items, [1]);
    assert!(
        matches!(error, Some(Error::Fault { fault, message, .. }) if fault == "panic" && message.contains("item 2"))
    );
    assert_eq!(read(&client, 9).await, (vec![1, 2, 3], None));
}

/// U9734: a payload over the broker's limit is said at once, typed, with limit and size, in both directions;
/// it is never a timeout, and what was executed is said.
#[tokio::test(start_paused = true)]
async fn u9734_an_oversize_payload_is_typed_both_ways() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let endpoint = worker.endpoint(WORK).unwrap();
    let repeat = |text: String, _: Context| async move {
        let times = if text.len() < 10 { 2 << 20 } else { 1 };
        Ok(stream::iter([Ok("first".to_owned()), Ok(text.repeat(times))]))
    };
    let _serving = endpoint.serve(repeat).await.unwrap();
    let client = runtime(&world).await.endpoint(WORK).unwrap().client::<String, String>().await.unwrap();
    let began = Instant::now();
    let limit = 1 << 20;

    let error = client.generate(&"x".repeat(2 << 20)).await.unwrap_err();
    let Error::PayloadTooLarge { limit: said, actual, effect: Effect::None } = error else {
        panic!("{error:?}")
    };
    assert_eq!(said, limit);
    assert!(actual > 2 << 20);

    let mut responses = client.generate(&"x".to_owned()).await.unwrap();
    assert_eq!(responses.next().await.unwrap().unwrap(), "first");
    let error = responses.next().await.unwrap().unwrap_err();
    let Error::PayloadTooLarge { limit: said, actual, effect: Effect::Applied } = error else {
        panic!("{error:?}")
    };
    assert_eq!(said, limit);
    assert!(actual > 2 << 20);
    assert!(began.elapsed() < seconds(1));
}

/// An item that the caller cannot read is the last thing it sees of the stream, and the producer is told.
#[tokio::test(start_paused = true)]
async fn an_unreadable_item_ends_the_stream() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let mixed = |_: Bytes, _: Context| async {
        let items = ["1", "2", "\"three\"", "4"].map(|item| Ok(Bytes::from(item)));
        Ok(stream::iter(items).chain(stream::pending()))
    };
    let serving = worker.endpoint(WORK).unwrap().serve_bytes(mixed).await.unwrap();
    let caller = runtime(&world).await;
    let client = client(&caller).await;
    let (items, error) = read(&client, 0).await;
    assert_eq!(items, [1, 2]);
    let error = error.unwrap();
    assert_eq!((error.code(), error.effect()), ("invalid", Effect::Applied));
    tokio::time::sleep(seconds(1)).await;
    assert_eq!((serving.in_flight(), caller.calls_in_flight()), (0, 0));
}

/// A unary call of a stream that has not exactly one item says what is wrong, and that the work was done.
#[tokio::test(start_paused = true)]
async fn a_unary_call_wants_one_item() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let _serving = count(&worker).await;
    let client = client(&runtime(&world).await).await;
    assert_eq!(client.call(&1).await.unwrap(), 1);
    for n in [0, 2] {
        let error = client.call(&n).await.unwrap_err();
        assert_eq!((error.code(), error.effect()), ("invalid", Effect::Applied), "{error}");
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Tensor {
    name: String,
    values: Vec<f64>,
    bytes: Bytes,
}

/// Every codec carries the same values there and back; the record says which one it is, and clients follow.
#[tokio::test(start_paused = true)]
async fn every_codec_carries_values() {
    let tensor =
        Tensor { name: "é".to_owned(), values: vec![0.1, f64::MIN_POSITIVE], bytes: vec![0, 255].into() };
    for codec in Codec::ALL {
        let world = MemoryWorld::new();
        let worker = runtime(&world).await;
        let echo = |tensor: Tensor, _: Context| async { Ok::<_, Fault>(tensor) };
        let _serving = worker.endpoint(WORK).unwrap().serve_unary(echo).codec(codec).await.unwrap();
        let client = runtime(&world).await.endpoint(WORK).unwrap().client::<Tensor, Tensor>().await.unwrap();
        assert_eq!(client.call(&tensor).await.unwrap(), tensor);
        assert_eq!(client.instances().all()[0].record().codec, codec);
    }
}

/// The bytes form hands over what was sent, untouched, and any client of the broker may ask without our
/// headers: it gets a plain answer.
#[tokio::test(start_paused = true)]
async fn bytes_travel_bare() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let reverse = |bytes: Bytes, _: Context| async move {
        let reversed: Bytes = bytes.iter().rev().copied().collect();
        Ok(stream::iter([Ok(reversed)]))
    };
    let serving = worker.endpoint(WORK).unwrap().serve_bytes(reverse).await.unwrap();
    let client = client(&runtime(&world).await).await;
    assert_eq!(client.call(&123).await.unwrap(), 321);

    let echo = |text: String, _: Context| async move { Ok::<_, Fault>(text) };
    let other = worker.endpoint("fleet/worker/echo").unwrap().serve_unary(echo).await.unwrap();
    let request = Message::new(other.path().subject(), "\"hi\"");
    let answer = world.messaging().request(request, seconds(1)).await.unwrap();
    assert_eq!((&answer.payload[..], answer.headers.is_empty()), (&b"\"hi\""[..], true));
    let request = Message::new(serving.path().subject(), "abc");
    let answer = world.messaging().request(request, seconds(1)).await.unwrap();
    assert_eq!(&answer.payload[..], b"cba");
}
