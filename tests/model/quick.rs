//! An endpoint whose answers are quick is worked on where its requests arrive: what it promises stays the same.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{eventually, runtime};
use futures_util::future::join_all;
use slipring::{Client, Context, DistributedRuntime, Error, Fault, MemoryWorld, Serving};
use tokio::sync::Semaphore;

const SECOND: Duration = Duration::from_secs(1);
/// After so many quick answers an endpoint is a quick one.
const WARM_UP: usize = 400;

/// Tells whether a handler was dropped before its end.
#[derive(Clone, Default)]
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A quick endpoint, which says in which task it works; and pauses, panics or waits if it is asked to.
struct Quick {
    worker: DistributedRuntime,
    serving: Serving,
    client: Client<String, String>,
    /// What `wait` waits for.
    gate: Arc<Semaphore>,
    /// Set when a handler that waits ends.
    ended: Arc<AtomicBool>,
}

impl Quick {
    async fn start() -> Self {
        let world = MemoryWorld::new();
        let worker = runtime(&world).await;
        let endpoint = worker.endpoint("a/b/quick").unwrap();
        let (gate, ended) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicBool::new(false)));
        let (opened, told) = (gate.clone(), ended.clone());
        let handler = move |what: String, _: Context| {
            let (opened, told) = (opened.clone(), told.clone());
            async move {
                match what.as_str() {
                    "pause" => tokio::task::yield_now().await,
                    "panic" => panic!("as it was asked to"),
                    "wait" => {
                        let _dropped = Dropped(told);
                        opened.acquire().await.unwrap().forget();
                    }
                    _ => {}
                }
                Ok::<_, Fault>(tokio::task::id().to_string())
            }
        };
        let serving = endpoint.serve_unary(handler).await.unwrap();
        // Of another runtime: within one, calls do not arrive anywhere.
        let client = runtime(&world).await.endpoint("a/b/quick").unwrap().client().await.unwrap();
        let quick = Self { worker, serving, client, gate, ended };
        quick.tasks("hi", WARM_UP).await;
        assert_eq!(quick.tasks("hi", WARM_UP).await, 1, "it works where requests arrive");
        quick
    }

    async fn call(&self, what: &str) -> Result<String, Error> {
        self.client.call(&what.to_owned()).await
    }

    /// In how many tasks so many calls were worked on, one after the other.
    async fn tasks(&self, what: &str, calls: usize) -> usize {
        let mut tasks = BTreeSet::new();
        for _ in 0..calls {
            tasks.insert(self.call(what).await.unwrap());
        }
        tasks.len()
    }
}

/// An endpoint gets a task for each request until it has shown that it is quick, and again when it pauses.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_pauses_gets_a_task_for_each_request() {
    let quick = Quick::start().await;
    assert!(quick.tasks("pause", WARM_UP).await > WARM_UP - 10);
    assert!(quick.tasks("hi", 10).await == 10, "it has to show again that it is quick");
    quick.tasks("hi", WARM_UP).await;
    assert_eq!(quick.tasks("hi", 10).await, 1);
}

/// D18: requests that come faster than one task takes them are spread over many, where their number is bounded.
#[tokio::test(start_paused = true)]
async fn d18_a_flood_of_quick_requests_is_spread_over_tasks() {
    let quick = Quick::start().await;
    let few = join_all((0..500).map(|_| quick.call("hi"))).await;
    assert_eq!(few.into_iter().map(Result::unwrap).collect::<BTreeSet<_>>().len(), 1);
    let many = join_all((0..1500).map(|_| quick.call("hi"))).await;
    let tasks = many.into_iter().map(Result::unwrap).collect::<BTreeSet<_>>().len();
    assert!(tasks > 400, "{tasks}");
}

/// D17: a panic where requests arrive is a fault for its caller, and the next request finds everything as it was.
#[tokio::test(start_paused = true)]
async fn d17_a_panic_where_requests_arrive_harms_its_caller_only() {
    let quick = Quick::start().await;
    let error = quick.call("panic").await.unwrap_err();
    assert!(matches!(&error, Error::Fault { fault, .. } if fault == "panic"), "{error}");
    assert_eq!(quick.tasks("hi", 10).await, 1);
    let report = quick.worker.registry().stats().remove(0).endpoints.remove(0);
    assert_eq!((report.num_requests, report.num_errors), (2 * WARM_UP as u64 + 11, 1));
    assert_eq!(quick.serving.in_flight(), 0);
}

/// A request that has to wait after all holds up no other, is counted while it waits, and is answered when it is
/// done.
#[tokio::test(start_paused = true)]
async fn a_request_that_waits_holds_up_no_other() {
    let quick = Quick::start().await;
    let waiting = quick.call("wait");
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    quick.call("hi").await.unwrap();
    assert!(futures_util::poll!(&mut waiting).is_pending());
    assert_eq!(quick.serving.in_flight(), 1);
    quick.gate.add_permits(1);
    waiting.await.unwrap();
    assert_eq!(quick.serving.in_flight(), 0);
}

/// A call that is given up while its request waits is cancelled where it is worked on, and at its deadline too.
#[tokio::test(start_paused = true)]
async fn a_request_that_waits_is_cancelled() {
    let quick = Quick::start().await;
    {
        let waiting = quick.call("wait");
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        eventually("it is worked on", || quick.serving.in_flight() == 1).await;
    }
    eventually("it is cancelled", || quick.ended.swap(false, Ordering::SeqCst)).await;
    let late = quick.client.request(&"wait".to_owned()).deadline(SECOND).call().await.unwrap_err();
    assert_eq!(late.code(), "deadline_exceeded");
    eventually("it is over", || quick.ended.load(Ordering::SeqCst)).await;
    assert_eq!(quick.serving.in_flight(), 0);
}

/// Stopping waits for a request that began where it arrived.
#[tokio::test(start_paused = true)]
async fn stopping_waits_for_a_request_that_waits() {
    let quick = Quick::start().await;
    let Quick { serving, client, gate, .. } = quick;
    let what = "wait".to_owned();
    let waiting = client.call(&what);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    eventually("it is worked on", || serving.in_flight() == 1).await;
    let stopping = serving.stop();
    tokio::pin!(stopping);
    assert!(futures_util::poll!(&mut stopping).is_pending());
    gate.add_permits(1);
    let (answer, report) = tokio::join!(waiting, stopping);
    answer.unwrap();
    assert!(report.is_clean(), "{report:?}");
}
