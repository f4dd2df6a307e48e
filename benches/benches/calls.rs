//! Calls in one process, from a runtime to another in the same world: the time for each, at one in flight and
//! at 64.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::{StreamExt, stream};
use slipring::{Client, Context, DistributedRuntime, MemoryWorld, Serving};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const IN_FLIGHT: [usize; 2] = [1, 64];
const PAYLOAD_BYTES: usize = 128;
const ITEMS: usize = 100;

/// One request, one response.
fn unary(criterion: &mut Criterion) {
    let tokio = tokio();
    let world = tokio.block_on(Served::start(false));
    let mut group = criterion.benchmark_group("calls/unary");
    for in_flight in IN_FLIGHT {
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("in flight", in_flight), |bencher| {
            let call = |client: Client<String, String>, body: String| async move {
                client.call(&body).await.expect("it is served").len()
            };
            bencher.to_async(&tokio).iter_custom(|calls| world.closed_loop(calls, in_flight, call));
        });
    }
    group.finish();
}

/// One request, a stream of items.
fn streaming(criterion: &mut Criterion) {
    let tokio = tokio();
    let world = tokio.block_on(Served::start(true));
    let mut group = criterion.benchmark_group("calls/streaming");
    for in_flight in IN_FLIGHT {
        group.throughput(Throughput::Elements(ITEMS as u64));
        group.bench_function(BenchmarkId::new("in flight", in_flight), |bencher| {
            let call = |client: Client<String, String>, body: String| async move {
                let items = client.generate(&body).await.expect("it is served");
                items.fold(0, async |items, item| items + usize::from(item.is_ok())).await
            };
            bencher.to_async(&tokio).iter_custom(|calls| world.closed_loop(calls, in_flight, call));
        });
    }
    group.finish();
}

/// An endpoint that echoes, and a client of it in another runtime.
struct Served {
    client: Client<String, String>,
    answer: usize,
    _serving: Serving,
}

impl Served {
    async fn start(streaming: bool) -> Self {
        let world = MemoryWorld::new();
        let runtime = || DistributedRuntime::builder().memory(&world).build();
        let (worker, caller) = (runtime().await.expect("memory"), runtime().await.expect("memory"));
        let endpoint = worker.endpoint("bench/worker/echo").expect("a legal name");
        let serve = if streaming {
            endpoint.serve(|text: String, _: Context| async move {
                Ok(stream::iter((0..ITEMS).map(move |_| Ok(text.clone()))))
            })
        } else {
            endpoint.serve_unary(async |text: String, _: Context| Ok(text))
        };
        let serving = serve.await.expect("the first of its name");
        let endpoint = caller.endpoint("bench/worker/echo").expect("a legal name");
        let client = endpoint.client().await.expect("it is not stopping");
        Self { client, answer: if streaming { ITEMS } else { PAYLOAD_BYTES }, _serving: serving }
    }

    /// The time for so many calls by so many callers, each with one in flight.
    #[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
    async fn closed_loop<Fut>(
        &self,
        calls: u64,
        callers: usize,
        call: impl Fn(Client<String, String>, String) -> Fut + Copy + Send + 'static,
    ) -> Duration
    where
        Fut: Future<Output = usize> + Send,
    {
        let begun = Arc::new(AtomicU64::new(0));
        let body: String = ('a'..='z').cycle().take(PAYLOAD_BYTES).collect();
        let mut running = JoinSet::new();
        let started = Instant::now();
        for _ in 0..callers {
            let (client, body, begun, answer) =
                (self.client.clone(), body.clone(), begun.clone(), self.answer);
            running.spawn(async move {
                while begun.fetch_add(1, Ordering::Relaxed) < calls {
                    assert_eq!(call(client.clone(), body.clone()).await, answer);
                }
            });
        }
        running.join_all().await;
        started.elapsed()
    }
}

fn tokio() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("threads")
}

criterion_group!(benches, unary, streaming);
criterion_main!(benches);
