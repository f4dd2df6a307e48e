//! What is dropped half-way, and what is dropped whole: nothing is left of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use crate::common::{echo, eventually, records, runtime, slow};
use futures_util::{FutureExt, StreamExt, stream};
use slipring::{Client, Context, DistributedRuntime, Fault, MemoryWorld, Settings, SystemEnvironment};
use slipring_core::{BoxFuture, ByteStream, Environment, Fact, Listener, Result, Task, async_trait};

const SECOND: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(1);

/// D16: a start that is dropped after any number of steps leaves no record, no subscription, no service and
/// no claim: the endpoint can be served again at once, and stopped without a wait.
#[tokio::test(start_paused = true)]
async fn d16_a_start_dropped_half_way_leaves_nothing() {
    let world = MemoryWorld::new();
    let worker = slow::runtime(&world, STEP).await;
    let endpoint = worker.endpoint("a/b/c").unwrap();
    let client: Client<String, String> = endpoint.client().await.unwrap();
    let baseline = world.messaging().subscriptions();
    for polls in 0.. {
        let mut start = Box::pin(echo(&endpoint).into_future());
        let mut done = false;
        for _ in 0..polls {
            done = start.as_mut().now_or_never().is_some();
            tokio::time::sleep(STEP).await;
        }
        drop(start);
        if done {
            assert!(polls > 20, "a start has more steps than {polls}");
            return;
        }
        assert_eq!(worker.registry().services(), 0, "after {polls} polls");
        assert_eq!(worker.registry().stats(), [], "after {polls} polls");
        eventually("nothing is subscribed", || world.messaging().subscriptions() == baseline).await;
        // What was under way may still arrive; the registrar takes it back.
        tokio::time::sleep(30 * SECOND).await;
        assert_eq!(records(&world), [], "after {polls} polls");

        let serving = echo(&endpoint).await.unwrap();
        assert_eq!(client.call(&"on".to_owned()).await.unwrap(), "on");
        let report = serving.stop().await;
        assert!(report.is_clean() && report.requests == 1, "after {polls} polls: {report}");
    }
}

/// D16: a runtime that is dropped while it is built leaves at most a lease that runs out.
#[tokio::test(start_paused = true)]
async fn d16_a_runtime_dropped_half_way_leaves_nothing() {
    let world = MemoryWorld::new();
    for polls in 0.. {
        let mut build = Box::pin(slow::runtime(&world, STEP));
        let mut done = false;
        for _ in 0..polls {
            done = build.as_mut().now_or_never().is_some();
            tokio::time::sleep(STEP).await;
        }
        drop(build);
        tokio::time::sleep(2 * Settings::default().lease_ttl).await;
        let left = (world.leases().len(), world.messaging().subscriptions(), world.watches());
        assert_eq!(left, (0, 0, 0), "after {polls} polls");
        if done {
            assert!(polls > 4, "{polls}");
            return;
        }
    }
}

/// D19: of a runtime that is dropped nothing is left, in the middle of everything that it can do: no task, no
/// subscription, no watch, and soon no lease and no record; its neighbour in the same process goes on.
#[tokio::test(start_paused = true)]
async fn d19_a_dropped_runtime_leaves_nothing() {
    let world = MemoryWorld::new();
    let neighbour = runtime(&world).await;
    let _serving = echo(&neighbour.endpoint("a/b/echo").unwrap()).await.unwrap();
    let own: Client<String, String> = neighbour.endpoint("a/b/echo").unwrap().client().await.unwrap();
    own.call(&"x".to_owned()).await.unwrap();
    let left = || (world.messaging().subscriptions(), world.watches(), world.leases().len(), records(&world));
    let baseline = left();

    let tasks = Arc::new(AtomicUsize::new(0));
    let environment = Counting { tasks: tasks.clone(), inner: SystemEnvironment::new() };
    let dropped =
        DistributedRuntime::builder().memory(&world).environment(environment).build().await.unwrap();
    let endless = |(): (), _: Context| async {
        Ok(stream::repeat(()).then(|()| async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok::<_, Fault>(1)
        }))
    };
    let endpoint = dropped.endpoint("a/b/endless").unwrap();
    let serving = endpoint.serve(endless).await.unwrap();
    let client: Client<(), u64> = endpoint.client().await.unwrap();
    let other: Client<String, String> = dropped.endpoint("a/b/echo").unwrap().client().await.unwrap();
    let mut items = client.generate(&()).await.unwrap();
    items.next().await.unwrap().unwrap();
    other.call(&"x".to_owned()).await.unwrap();
    assert!(tasks.load(Ordering::SeqCst) >= 8);

    drop((dropped, endpoint, serving, client, other, items));
    eventually("no task is left", || tasks.load(Ordering::SeqCst) == 0).await;
    eventually("nothing is left", || left() == baseline).await;
    assert_eq!(own.call(&"x".to_owned()).await.unwrap(), "x");
}

/// D19: a stopped runtime has nothing at the broker but the watches of clients that are still held, and these
/// and the last task go with the last of them.
#[tokio::test(start_paused = true)]
async fn d19_a_stopped_runtime_leaves_nothing() {
    let world = MemoryWorld::new();
    let tasks = Arc::new(AtomicUsize::new(0));
    let environment = Counting { tasks: tasks.clone(), inner: SystemEnvironment::new() };
    let worker = DistributedRuntime::builder().memory(&world).environment(environment).build().await.unwrap();
    let endpoint = worker.endpoint("a/b/c").unwrap();
    let serving = echo(&endpoint).await.unwrap();
    let client: Client<String, String> = endpoint.client().await.unwrap();
    client.call(&"x".to_owned()).await.unwrap();
    worker.stop().await;
    assert_eq!((world.messaging().subscriptions(), world.leases().len(), records(&world).len()), (0, 0, 0));
    drop((serving, client, endpoint, worker));
    eventually("no task is left", || tasks.load(Ordering::SeqCst) == 0).await;
    assert_eq!(world.watches(), 0);
}

/// The machine, with its tasks counted.
#[derive(Debug)]
struct Counting {
    tasks: Arc<AtomicUsize>,
    inner: SystemEnvironment,
}

impl Counting {
    fn counted(&self) -> Counted {
        self.tasks.fetch_add(1, Ordering::SeqCst);
        Counted(self.tasks.clone())
    }
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Environment for Counting {
    fn wall_time(&self) -> SystemTime {
        self.inner.wall_time()
    }

    fn random(&self, purpose: &'static str) -> u64 {
        self.inner.random(purpose)
    }

    async fn listen(&self, address: &str) -> Result<Box<dyn Listener>> {
        self.inner.listen(address).await
    }

    async fn connect(&self, address: &str) -> Result<Box<dyn ByteStream>> {
        self.inner.connect(address).await
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> Task {
        let counted = self.counted();
        self.inner.spawn(
            name,
            Box::pin(async move {
                let _counted = counted;
                task.await;
            }),
        )
    }

    fn spawn_vital(
        &self,
        name: &'static str,
        start: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>,
    ) -> Task {
        let counted = self.counted();
        let start = || -> BoxFuture<'static, ()> {
            Box::pin(async move {
                let _counted = counted;
                start().await;
            })
        };
        self.inner.spawn_vital(name, Box::new(start))
    }

    fn is_observed(&self) -> bool {
        true
    }

    fn observe(&self, fact: &Fact) {
        self.inner.observe(fact);
    }
}
