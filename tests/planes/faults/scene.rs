//! A worker or several, and callers, on the nodes of a simulated world; and what they did.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use slipring::{
    Client, Context, DistributedRuntime, Error, Fault, LeasePolicy, Plane, Responses, Serving, Settings,
    TcpPlane,
};
use slipring_core::EnvironmentExt;
use slipring_sim::{Fault as Wrong, Meter, Metered, Node, World};
use tokio::time::{Instant, sleep};

use super::SECOND;
use crate::ground::{Inside, eventually};

/// What is served: counting, and answering with one's id.
const ITEMS: &str = "fleet/worker/items";
const WHO: &str = "fleet/worker/who";

/// A number for the request, how many items, and how many milliseconds each takes, and how many letters it has.
pub(super) type Asked = (u64, u64, u64, usize);
/// The number of the item, and its letters.
pub(super) type Counted = (u64, String);

/// A world, and everybody in it.
pub(super) struct Scene {
    pub(super) world: World,
    pub(super) plane: Plane,
    /// Of everybody who ever was.
    meters: Mutex<Vec<(String, Meter)>>,
    /// Runtimes that have to stop in order.
    runtimes: Mutex<Vec<DistributedRuntime>>,
    /// How often each request was executed, by its number.
    executed: Arc<Mutex<Vec<u64>>>,
}

/// A worker.
pub(super) struct Worker {
    pub(super) node: Node,
    pub(super) runtime: DistributedRuntime,
    /// Handlers under way.
    pub(super) inside: Inside,
    /// Items made.
    pub(super) made: Arc<AtomicU64>,
    _servings: [Serving; 2],
}

/// A caller.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) node: Node,
    pub(super) runtime: DistributedRuntime,
    pub(super) meter: Meter,
    pub(super) items: Client<Asked, Counted>,
    pub(super) who: Client<u64, u64>,
}

/// A stream that is read by a task of its own: what came so far, and how it ended.
pub(super) struct Reading {
    state: Arc<Mutex<Read>>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Read {
    /// Items so far: 1 to this.
    pub(super) items: u64,
    /// When the last of them came, or the stream began.
    pub(super) heard: Option<Instant>,
    /// When it ended, and with what.
    pub(super) ended: Option<(Instant, Option<Error>)>,
}

impl Scene {
    pub(super) fn new(world: World, plane: Plane) -> Self {
        let (meters, runtimes, executed) = Default::default();
        Self { world, plane, meters, runtimes, executed }
    }

    /// A worker on this node, with leases of six seconds.
    pub(super) async fn worker(&self, name: &str) -> Worker {
        self.worker_at(name, &format!("{name}:7000"), LeasePolicy::KeepServing).await
    }

    /// A worker that listens there.
    pub(super) async fn worker_at(&self, name: &str, address: &str, policy: LeasePolicy) -> Worker {
        let node = self.world.node(name);
        let tcp = match self.plane {
            Plane::Tcp => TcpPlane::new().with_listen(address),
            _ => TcpPlane::new().with_call_home(true),
        };
        let (runtime, _) = self.runtime(&node, tcp, policy).await;
        let (inside, made) = (Inside::default(), Arc::<AtomicU64>::default());
        let count = {
            let (inside, made, executed) = (inside.clone(), made.clone(), self.executed.clone());
            move |(number, count, pace_ms, letters): Asked, _: Context| {
                note(&executed, number);
                let (entered, made) = (Arc::new(inside.enter()), made.clone());
                async move {
                    Ok(stream::iter(1..=count).then(move |item| {
                        let (entered, made) = (entered.clone(), made.clone());
                        async move {
                            let _entered = entered;
                            // The first comes at once.
                            if item > 1 && pace_ms > 0 {
                                sleep(Duration::from_millis(pace_ms)).await;
                            }
                            made.fetch_add(1, Ordering::Relaxed);
                            Ok::<_, Fault>((item, "x".repeat(letters)))
                        }
                    }))
                }
            }
        };
        let who = {
            let (inside, executed) = (inside.clone(), self.executed.clone());
            move |takes_ms: u64, context: Context| {
                if let Some(number) = context.metadata("number") {
                    note(&executed, number.parse().unwrap());
                }
                let entered = inside.enter();
                async move {
                    let _entered = entered;
                    sleep(Duration::from_millis(takes_ms)).await;
                    Ok::<_, Fault>(context.instance())
                }
            }
        };
        let items = runtime.endpoint(ITEMS).unwrap().serve(count).await.unwrap();
        let who = runtime.endpoint(WHO).unwrap().serve_unary(who).await.unwrap();
        Worker { node, runtime, inside, made, _servings: [items, who] }
    }

    /// A caller on this node that sees so many workers, on the scene's plane alone.
    pub(super) async fn caller(&self, name: &str, workers: usize) -> Caller {
        let node = self.world.node(name);
        let tcp = match self.plane {
            Plane::NatsTcp => TcpPlane::new().with_listen(format!("{name}:7000")),
            _ => TcpPlane::new(),
        };
        let (runtime, meter) = self.runtime(&node, tcp, LeasePolicy::KeepServing).await;
        let items = runtime.endpoint(ITEMS).unwrap().client::<Asked, Counted>().await.unwrap();
        items.wait_for_instances(workers, 10 * SECOND).await.unwrap();
        let who = runtime.endpoint(WHO).unwrap().client::<u64, u64>().await.unwrap();
        who.wait_for_instances(workers, 10 * SECOND).await.unwrap();
        let planes = [self.plane];
        Caller { node, runtime, meter, items: items.with_planes(planes), who: who.with_planes(planes) }
    }

    async fn runtime(&self, node: &Node, tcp: TcpPlane, policy: LeasePolicy) -> (DistributedRuntime, Meter) {
        let mut settings = Settings::default();
        settings.lease_ttl = 6 * SECOND;
        settings.lease_policy = policy;
        settings.drain_timeout = 5 * SECOND;
        let meter = Meter::new();
        lock(&self.meters).push((node.name().to_owned(), meter.clone()));
        let builder = DistributedRuntime::builder().discovery(node.discovery()).messaging(node.messaging());
        let builder = builder.environment(Metered::new(node.environment(), &meter));
        let runtime = builder.settings(settings).tcp(tcp).build().await.unwrap();
        lock(&self.runtimes).push(runtime.clone());
        (runtime, meter)
    }

    /// How often a request was executed.
    pub(super) fn executed(&self, number: u64) -> usize {
        lock(&self.executed).iter().filter(|executed| **executed == number).count()
    }

    /// Something goes wrong now.
    pub(super) fn strike(&self, wrong: Wrong) {
        self.world.apply(&wrong).unwrap();
    }

    /// A runtime that was stopped, or whose node died, needs no stop at the end.
    pub(super) fn forget(&self, runtime: &DistributedRuntime) {
        lock(&self.runtimes).retain(|kept| kept.instance_id() != runtime.instance_id());
    }

    /// Everybody stops in order, and nothing is left: no call, no request, no connection, no task.
    pub(super) async fn end(self) {
        let runtimes = std::mem::take(&mut *lock(&self.runtimes));
        // The callers came last.
        for runtime in runtimes.iter().rev() {
            eventually("no call is under way", || runtime.calls_in_flight() == 0).await;
            let report = runtime.stop().await;
            assert!(report.is_clean() && report.abandoned == 0, "{report}");
        }
        drop(runtimes);
        let meters = std::mem::take(&mut *lock(&self.meters));
        for (name, meter) in &meters {
            eventually(&format!("nothing of {name} is left"), || meter.is_zero()).await;
        }
    }
}

impl Caller {
    /// A stream of so many items, each of which takes so long.
    pub(super) async fn stream(
        &self,
        number: u64,
        count: u64,
        pace_ms: u64,
    ) -> Result<Responses<Counted>, Error> {
        self.items.request(&(number, count, pace_ms, 0)).deadline(60 * SECOND).generate().await
    }

    /// The same, read by a task of its own.
    pub(super) async fn reading(&self, number: u64, count: u64, pace_ms: u64) -> Reading {
        Reading::start(&self.node, self.stream(number, count, pace_ms).await.unwrap())
    }

    /// A unary call that takes so long; how it ended, and when.
    pub(super) fn calling(&self, number: u64, takes_ms: u64) -> Calling {
        let (caller, state) = (self.clone(), Arc::<Mutex<Option<(Instant, Result<u64, Error>)>>>::default());
        let told = state.clone();
        let call = async move {
            let request = caller.who.request(&takes_ms).metadata("number", number.to_string());
            let answer = request.deadline(60 * SECOND).call().await;
            *lock(&told) = Some((Instant::now(), answer));
        };
        self.node.environment().start("calling", call).detach();
        Calling { state }
    }
}

/// A unary call that a task of its own makes.
pub(super) struct Calling {
    state: Arc<Mutex<Option<(Instant, Result<u64, Error>)>>>,
}

impl Calling {
    /// How it ended, and when.
    pub(super) async fn ended(&self) -> (Instant, Result<u64, Error>) {
        eventually("the call ends", || lock(&self.state).is_some()).await;
        lock(&self.state).clone().unwrap()
    }
}

impl Reading {
    pub(super) fn start(node: &Node, mut responses: Responses<Counted>) -> Self {
        let state = Arc::new(Mutex::new(Read { heard: Some(Instant::now()), ..Read::default() }));
        let told = state.clone();
        let read = async move {
            loop {
                let next = responses.next().await;
                let (now, mut state) = (Instant::now(), lock(&told));
                match next {
                    Some(Ok((item, _))) => {
                        assert_eq!(item, state.items + 1, "items come in order, and none is left out");
                        (state.items, state.heard) = (item, Some(now));
                    }
                    Some(Err(error)) => return state.ended = Some((now, Some(error))),
                    None => return state.ended = Some((now, None)),
                }
            }
        };
        node.environment().start("reading", read).detach();
        Self { state }
    }

    pub(super) fn so_far(&self) -> Read {
        lock(&self.state).clone()
    }

    /// Waits until it ends.
    pub(super) async fn ended(&self) -> Read {
        eventually("the stream ends", || lock(&self.state).ended.is_some()).await;
        self.so_far()
    }

    /// Waits until it is interrupted: with exactly the items that were read, within this after `since`.
    pub(super) async fn interrupted(&self, since: Instant, within: Duration) {
        let read = self.ended().await;
        let (at, error) = read.ended.clone().unwrap();
        let Some(Error::StreamInterrupted { items_delivered, .. }) = &error else {
            panic!("{error:?}, after {} items", read.items)
        };
        assert_eq!(*items_delivered, read.items, "{error:?}");
        assert!(at <= since + within, "it took {:?}, and {within:?} is allowed: {error:?}", at - since);
    }
}

fn note(executed: &Mutex<Vec<u64>>, number: u64) {
    lock(executed).push(number);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}
