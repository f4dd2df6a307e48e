//! Calls: where they go, what they bring, how they end.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use slipring::{Client, Context, DistributedRuntime, Effect, Error, Fault, Routing, Serving};
use tokio::time::{Instant, timeout};

use crate::backends::{Backends, WORK, eventually};

const SECOND: Duration = Duration::from_secs(1);
/// Far more than a call takes on a busy machine, far less than the default deadline.
const SOON: Duration = Duration::from_secs(5);

/// A worker that answers with the id of its instance.
async fn worker(backends: &Backends, zone: &str) -> (DistributedRuntime, Serving) {
    let runtime = backends.runtime().await;
    let who = |(): (), cx: Context| async move { Ok::<_, Fault>(cx.instance()) };
    let serving = runtime.endpoint(WORK).unwrap().serve_unary(who).label("zone", zone).await.unwrap();
    (runtime, serving)
}

/// How many of `calls` calls, one after the other, each instance answered.
async fn shares(client: &Client<(), u64>, calls: usize) -> BTreeMap<u64, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..calls {
        *shares.entry(client.call(&()).await.unwrap()).or_default() += 1;
    }
    shares
}

/// Calls reach the instances that they should: in turn, by id, by label, by key; a call that finds none waits
/// for the first, and one for which none comes says so at its deadline.
pub(crate) async fn route(backends: &Backends) {
    let caller = backends.runtime().await;
    let client: Client<(), u64> = caller.endpoint(WORK).unwrap().client().await.unwrap();
    let nobody = client.request(&()).deadline(SECOND / 5).call().await.unwrap_err();
    assert_eq!((nobody.code(), nobody.effect()), ("no_instances", Effect::None), "{nobody}");

    let (first, (one, _serving)) = tokio::join!(client.call(&()), worker(backends, "east"));
    assert_eq!(first.unwrap(), one.instance_id());
    let (two, _second) = worker(backends, "east").await;
    let (three, _third) = worker(backends, "west").await;
    client.wait_for_instances(3, SOON).await.unwrap();

    let in_turn = shares(&client, 30).await;
    let expected = [&one, &two, &three].map(|worker| (worker.instance_id(), 10));
    assert_eq!(in_turn, BTreeMap::from(expected));
    for worker in [&one, &two, &three] {
        let id = worker.instance_id();
        assert_eq!(client.request(&()).instance(id).call().await.unwrap(), id);
    }
    let west = client.with_label("zone", "west");
    assert_eq!(shares(&west, 5).await, BTreeMap::from([(three.instance_id(), 5)]));
    let by_key = client.with_routing(Routing::ConsistentHash);
    for key in ["a", "b", "c"] {
        let home = by_key.request(&()).key(key).call().await.unwrap();
        assert_eq!(by_key.request(&()).key(key).call().await.unwrap(), home);
    }
    let stranger = client.request(&()).instance(1).fail_fast().call().await.unwrap_err();
    assert_eq!(stranger.code(), "no_instances", "{stranger}");
}

/// Streams bring every item in order and then their end, far beyond what may wait at the caller, many at a
/// time; one that ends in a fault brings what came before it; a payload over the limit says so at once.
pub(crate) async fn stream(backends: &Backends) {
    const ITEMS: u64 = 2_000;
    let worker = backends.runtime().await;
    let count = |to: u64, _: Context| async move {
        let items = stream::iter(0..to).map(|item| match item {
            3_000 => Err(Fault::new("enough", "it counts no further")),
            item => Ok(item),
        });
        Ok(items)
    };
    let _serving = worker.endpoint(WORK).unwrap().serve(count).await.unwrap();
    let caller = backends.runtime().await;
    let client: Client<u64, u64> = caller.endpoint(WORK).unwrap().client().await.unwrap();
    let read = async |to: u64| client.generate(&to).await.unwrap().collect::<Vec<_>>().await;

    let all = timeout(SOON * 4, async { tokio::join!(read(ITEMS), read(1), read(0), read(ITEMS)) });
    let (one, two, three, four) = all.await.unwrap();
    for (items, count) in [(one, ITEMS), (two, 1), (three, 0), (four, ITEMS)] {
        let items: Vec<_> = items.into_iter().map(Result::unwrap).collect();
        assert_eq!(items, (0..count).collect::<Vec<_>>());
    }
    let mut broken = read(4_000).await;
    let fault = broken.pop().unwrap().unwrap_err();
    assert!(matches!(&fault, Error::Fault { fault, .. } if fault == "enough"), "{fault}");
    assert_eq!((broken.len(), fault.effect()), (3_000, Effect::Applied));
    assert!(broken.iter().all(Result::is_ok));

    let echo = |text: String, _: Context| async move { Ok::<_, Fault>(text.len()) };
    let _echo = worker.endpoint("fleet/worker/length").unwrap().serve_unary(echo).await.unwrap();
    let client: Client<String, usize> =
        caller.endpoint("fleet/worker/length").unwrap().client().await.unwrap();
    assert_eq!(client.call(&"x".repeat(500_000)).await.unwrap(), 500_000);
    let huge = client.call(&"x".repeat(2 << 20)).await.unwrap_err();
    assert!(matches!(huge, Error::PayloadTooLarge { limit: 1_048_576, .. }), "{huge}");
}

/// Giving a call up ends the work at the far end: a call that is dropped, a stream that is dropped, a call
/// whose deadline passes; and that one ends at its deadline.
pub(crate) async fn cancel(backends: &Backends) {
    let running = Arc::new(AtomicUsize::new(0));
    let worker = backends.runtime().await;
    let hang = {
        let running = running.clone();
        move |first: bool, _: Context| {
            let busy = Busy::begin(&running);
            async move {
                let item = stream::iter(first.then_some(Ok(())));
                if !first {
                    pending::<()>().await;
                }
                Ok::<_, Fault>(item.chain(stream::once(async move {
                    let _busy = busy;
                    pending().await
                })))
            }
        }
    };
    let _serving = worker.endpoint(WORK).unwrap().serve(hang).await.unwrap();
    let caller = backends.runtime().await;
    let client: Client<bool, ()> = caller.endpoint(WORK).unwrap().client().await.unwrap();
    let is = async |count: usize| {
        eventually("so many handlers are at work", async || running.load(Ordering::SeqCst) == count).await;
    };

    let mut items = client.generate(&true).await.unwrap();
    items.next().await.unwrap().unwrap();
    is(1).await;
    drop(items);
    is(0).await;

    let call = client.clone();
    let call = async move { call.generate(&false).await.map(drop) };
    let dropped = timeout(SECOND / 2, call).await;
    assert!(dropped.is_err(), "the handler never answers: {dropped:?}");
    is(0).await;

    let began = Instant::now();
    let late = client.request(&false).deadline(SECOND / 2).generate().await.unwrap_err();
    let took = began.elapsed();
    assert_eq!((late.code(), late.effect()), ("deadline_exceeded", Effect::Unknown), "{late}");
    assert!(took >= SECOND / 2 && took < SECOND * 3 / 2, "{took:?}");
    is(0).await;
    eventually("no call is left", async || caller.calls_in_flight() == 0).await;
}

/// Counts a handler for as long as it lives.
struct Busy(Arc<AtomicUsize>);

impl Busy {
    fn begin(running: &Arc<AtomicUsize>) -> Self {
        running.fetch_add(1, Ordering::SeqCst);
        Self(running.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
