//! A thousand callers while everything around them starts, stops, hangs, panics and dies.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::common::{WORK, seconds};
use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use slipring::{Client, Context, Discovery, DistributedRuntime, Error, Fault, Routing, Serving};
use slipring_core::{BoxFuture, BoxStream, ByteStream, Environment, Fact, LeaseId, Listener, Task};
use slipring_sim::{Node, SimEnvironment, World};
use tokio::task::JoinSet;
use tokio::time::Instant;

const CALLERS: usize = 1_000;
const INSTANCES: usize = 12;
/// How long the storm lasts.
const STORM: Duration = Duration::from_secs(60);
/// What a call may take beyond its deadline: the pause of its reader.
const EPSILON: Duration = Duration::from_millis(51);

/// The environment of a node, which counts what goes on in it.
#[derive(Debug, Clone)]
struct Counted {
    inner: Arc<SimEnvironment>,
    going_on: GoingOn,
}

/// Tasks that run, by name, and calls that began and did not end.
type GoingOn = Arc<Mutex<BTreeMap<&'static str, i64>>>;

impl Counted {
    fn change(going_on: &GoingOn, what: &'static str, by: i64) {
        let mut counts = going_on.lock().unwrap();
        let count = counts.entry(what).or_default();
        *count += by;
        if *count == 0 {
            counts.remove(what);
        }
    }

    fn counted(&self, name: &'static str, task: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
        struct Running(GoingOn, &'static str);
        impl Drop for Running {
            fn drop(&mut self) {
                Counted::change(&self.0, self.1, -1);
            }
        }
        Self::change(&self.going_on, name, 1);
        let running = Running(self.going_on.clone(), name);
        Box::pin(async move {
            let _running = running;
            task.await;
        })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Environment for Counted {
    fn wall_time(&self) -> SystemTime {
        self.inner.wall_time()
    }

    fn random(&self, purpose: &'static str) -> u64 {
        self.inner.random(purpose)
    }

    async fn listen(&self, address: &str) -> Result<Box<dyn Listener>, Error> {
        self.inner.listen(address).await
    }

    async fn connect(&self, address: &str) -> Result<Box<dyn ByteStream>, Error> {
        self.inner.connect(address).await
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> Task {
        self.inner.spawn(name, self.counted(name, task))
    }

    fn spawn_vital(
        &self,
        name: &'static str,
        start: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>,
    ) -> Task {
        let task = self.counted(name, Box::pin(async move { start().await }));
        self.inner.spawn_vital(name, Box::new(move || task))
    }

    fn is_observed(&self) -> bool {
        true
    }

    fn observe(&self, fact: &Fact) {
        match fact {
            Fact::CallStarted { .. } => Self::change(&self.going_on, "a call", 1),
            Fact::CallEnded { .. } => Self::change(&self.going_on, "a call", -1),
            _ => {}
        }
    }
}

/// A runtime on a node, all of whose doings are counted.
async fn counted_runtime(node: &Node, going_on: &GoingOn) -> DistributedRuntime {
    let environment = Counted { inner: node.environment(), going_on: going_on.clone() };
    let builder = DistributedRuntime::builder().discovery(node.discovery()).messaging(node.messaging());
    builder.environment(environment).build().await.unwrap()
}

/// An instance of the churn, and what it takes to keep it alive.
struct Worker {
    node: Node,
    runtime: DistributedRuntime,
    serving: Serving,
}

impl Worker {
    async fn start(world: &World, slot: usize, going_on: &GoingOn) -> Self {
        let node = world.node(&format!("worker-{slot}"));
        let runtime = counted_runtime(&node, going_on).await;
        let serving = runtime.endpoint(WORK).unwrap().serve(behave).concurrency(64).queue(16).await.unwrap();
        Self { node, runtime, serving }
    }
}

/// Answers, streams, faults, panics, hangs, falls silent or floods, as it is told.
async fn behave(how: u64, _: Context) -> Result<BoxStream<'static, Result<u64, Fault>>, Fault> {
    Ok(match how % 16 {
        0..=8 => stream::iter([Ok(how)]).boxed(),
        9 => stream::iter(0..9).map(Ok).boxed(),
        10 => return Err(Fault::new("refused", "on purpose")),
        // A panic without the message that a hook would print.
        11 => std::panic::resume_unwind(Box::new("on purpose")),
        12 | 13 => std::future::pending().await,
        14 => stream::iter([Ok(1)]).chain(stream::pending()).boxed(),
        _ => stream::repeat(how).map(Ok).boxed(),
    })
}

/// How the calls of the storm ended, by code, and how many took longer than they may.
#[derive(Debug, Default)]
struct Tally {
    outcomes: BTreeMap<&'static str, u64>,
    late: Vec<(Duration, Duration, &'static str)>,
}

/// Calls again and again until the storm is over.
async fn call_on(client: Client<u64, u64>, dice: Arc<SimEnvironment>, until: Instant) -> Tally {
    let mut tally = Tally::default();
    while Instant::now() < until {
        let how = dice.random("how");
        let deadline = Duration::from_millis(200 + dice.random("deadline") % 4_000);
        let routing = match dice.random("routing") % 5 {
            0 => Routing::RoundRobin,
            1 => Routing::Random,
            2 => Routing::PowerOfTwoChoices,
            3 => Routing::LeastLoaded,
            _ => Routing::ConsistentHash,
        };
        let client = client.with_routing(routing);
        let mut request = client.request(&how).deadline(deadline).key(how.to_string());
        if how.is_multiple_of(3) {
            request = request.idempotent();
        }
        let began = Instant::now();
        // Some lose patience, some stop reading half-way.
        let patience = if how.is_multiple_of(11) { deadline / 2 } else { deadline * 2 };
        let code = match tokio::time::timeout(patience, read(request, how.is_multiple_of(13))).await {
            Ok(Ok(())) => "ok",
            Ok(Err(error)) => error.code(),
            Err(_) => "dropped",
        };
        let took = began.elapsed();
        if took > deadline + EPSILON {
            tally.late.push((deadline, took, code));
        }
        *tally.outcomes.entry(code).or_default() += 1;
        let pause = Duration::from_millis(dice.random("pause") % 4_000);
        tokio::time::sleep(pause).await;
    }
    tally
}

async fn read(request: slipring::Request<'_, u64, u64>, part: bool) -> Result<(), Error> {
    let mut responses = request.generate().await?;
    let mut read = 0;
    while let Some(item) = responses.next().await {
        item?;
        read += 1;
        // A flood is read at a finite speed, or a paused clock would never move on.
        if read % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if part && read == 50 {
            break;
        }
    }
    Ok(())
}

/// Starts, stops, kills and cuts workers, and takes leases away, until the storm is over.
async fn churn(
    world: &World,
    workers: &mut BTreeMap<usize, Worker>,
    going_on: &GoingOn,
    until: Instant,
) -> BTreeMap<&'static str, u64> {
    let dice = SimEnvironment::new(99);
    let mut events = BTreeMap::new();
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50 + dice.random("pause") % 350)).await;
        let slot = dice.random("slot") as usize % INSTANCES;
        let Some(worker) = workers.remove(&slot) else {
            workers.insert(slot, Worker::start(world, slot, going_on).await);
            *events.entry("started").or_default() += 1;
            continue;
        };
        let event = match dice.random("event") % 6 {
            0 => {
                let report = tokio::time::timeout(seconds(40), worker.runtime.stop()).await;
                report.expect("a stop is bounded");
                worker.node.crash();
                "stopped"
            }
            1 => {
                worker.node.crash();
                "crashed"
            }
            2 => {
                drop(worker.serving);
                drop(worker.runtime);
                worker.node.crash();
                "dropped"
            }
            3 => {
                let lease = LeaseId(worker.runtime.instance_id());
                let _ = world.memory().discovery().revoke(lease).await;
                workers.insert(slot, worker);
                "lease revoked"
            }
            4 => {
                worker.node.link().cut();
                tokio::time::sleep(Duration::from_millis(300)).await;
                worker.node.link().open();
                workers.insert(slot, worker);
                "link cut"
            }
            _ => {
                worker.node.link().silence();
                tokio::time::sleep(seconds(3)).await;
                worker.node.link().open();
                workers.insert(slot, worker);
                "link silent"
            }
        };
        *events.entry(event).or_default() += 1;
    }
    events
}

/// Promise 2, U13088: whatever happens to the workers and whatever they do, every one of a thousand callers'
/// calls ends by its own deadline with a typed outcome, and afterwards nothing is left: no call, no watch, no
/// subscription, no lease, no task.
#[tokio::test(start_paused = true)]
async fn u13088_no_call_outlives_its_deadline() {
    let world = World::new(7);
    let baseline = (world.memory().watches(), world.memory().messaging().subscriptions());
    let (mut workers, going_on) = (BTreeMap::new(), GoingOn::default());
    for slot in 0..INSTANCES {
        workers.insert(slot, Worker::start(&world, slot, &going_on).await);
    }
    let caller = counted_runtime(&world.node("caller"), &going_on).await;
    let client = caller.endpoint(WORK).unwrap().client::<u64, u64>().await.unwrap();
    client.wait_for_instances(INSTANCES, seconds(5)).await.unwrap();

    let until = Instant::now() + STORM;
    let dice = Arc::new(SimEnvironment::new(1));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(call_on(client.clone(), dice.clone(), until));
    }
    let events = churn(&world, &mut workers, &going_on, until).await;
    let mut total = Tally::default();
    // The longest deadline, a pause, and no more: a call that hangs fails here.
    let ended = tokio::time::timeout(seconds(10), async {
        while let Some(tally) = callers.join_next().await {
            let tally = tally.expect("no caller panics");
            total.late.extend(tally.late);
            tally.outcomes.into_iter().for_each(|(code, n)| *total.outcomes.entry(code).or_default() += n);
        }
    });
    ended.await.expect("no call hangs");
    let calls: u64 = total.outcomes.values().sum();
    println!("{calls} calls of {CALLERS} callers in {STORM:?}: {:?}", total.outcomes);
    println!("what happened to {INSTANCES} workers: {events:?}");
    assert!(total.late.is_empty(), "{} calls were late: {:?}", total.late.len(), &total.late[..1]);
    assert!(calls > 20_000 && total.outcomes["ok"] > calls / 4, "{total:?}");
    assert!(events.len() == 7 && events.values().all(|times| *times > 1), "{events:?}");

    assert_eq!(caller.calls_in_flight(), 0);
    tokio::time::sleep(seconds(1)).await;
    assert!(client.instances().all().iter().all(|instance| instance.in_flight() == 0));
    for worker in workers.values() {
        assert_eq!(worker.serving.in_flight(), 0, "{}", worker.node.name());
    }
    drop(client);
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(world.memory().watches(), baseline.0);
    // The leases of the dead run out.
    tokio::time::sleep(seconds(20)).await;
    assert_eq!(world.memory().leases().len(), workers.len() + 1);
    for worker in workers.into_values() {
        let report = worker.runtime.stop().await;
        assert!(report.is_clean(), "{}: {report}", worker.node.name());
    }
    caller.stop().await;
    drop(caller);
    tokio::task::yield_now().await;
    assert_eq!(world.memory().leases(), []);
    assert_eq!(world.memory().messaging().subscriptions(), baseline.1);
    assert_eq!(*going_on.lock().unwrap(), BTreeMap::new(), "nothing goes on");
}
