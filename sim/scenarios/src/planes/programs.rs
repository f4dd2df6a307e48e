//! What workers and callers do.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use slipring::{
    Client, Context, DistributedRuntime, Error, Fault as Refusal, Outcome, Plane, Responses, Serving,
    Settings, TcpPlane,
};
use slipring_core::Environment;
use slipring_sim::{Meter, Metered, Node};
use tokio::time::{Instant, sleep};

use super::ledger::Ledger;
use super::{Caller, Fleet, Worker, first_name};
use crate::fleet::TTL;

/// The endpoint of unary calls, and that of streams.
pub(super) const UNARY: &str = "fleet/worker/unary";
pub(super) const ITEMS: &str = "fleet/worker/items";

/// A call's number, and how many milliseconds it takes.
pub(super) type Unary = (u64, u64);
/// A call's number, how many items it has, and how many milliseconds each takes.
pub(super) type Items = (u64, u64, u64);

/// What some seeds should meet.
pub(super) const PROBES: [&str; 5] = [
    "tcp_interrupted",
    "nats_tcp_interrupted",
    "failed_without_effect",
    "deadline_in_a_stream",
    "slow_reader",
];

/// How many calls a caller has under way.
const CALLS: usize = 3;
/// Between two calls, at most.
const PAUSE_MS_MAX: u64 = 400;
/// An answer, or an item, takes so long at most.
const WORK_MS_MAX: u64 = 250;
const ITEMS_MAX: u64 = 400;
/// Deadlines are between these.
const DEADLINE_MS_MIN: u64 = 500;
const DEADLINE_MS_MAX: u64 = 9_000;
/// How long a program waits before it tries again what failed.
const RETRY: Duration = Duration::from_millis(500);

/// Serves both endpoints, over connections and over the broker. Asked to `leave` it stops serving, asked to `join`
/// it serves again, asked to `quit` it stops.
pub(super) async fn work(fleet: Fleet, node: Node) {
    let name = first_name(&node).to_owned();
    let runtime = start(&fleet, &node).await;
    let mut servings = serve(&fleet, &node, &runtime).await;
    let worker = Worker { node: node.clone(), runtime: runtime.clone(), serves: true, joins: false };
    fleet.state().workers.insert(name.clone(), worker);
    let tell = |serves, joins| {
        if let Some(worker) = fleet.state().workers.get_mut(&name) {
            (worker.serves, worker.joins) = (serves, joins);
        }
    };
    loop {
        match &*node.operation().await {
            "leave" if !servings.is_empty() => {
                tell(false, false);
                for serving in servings.drain(..) {
                    serving.stop().await;
                }
            }
            "join" if servings.is_empty() => {
                tell(false, true);
                servings = serve(&fleet, &node, &runtime).await;
                tell(true, false);
            }
            "quit" => {
                quit(&node, &runtime).await;
                fleet.state().workers.remove(&name);
                return;
            }
            _ => {}
        }
    }
}

/// Calls whoever there is, a few calls at a time, on planes that the seed decides.
pub(super) async fn call(fleet: Fleet, node: Node) {
    let name = first_name(&node).to_owned();
    let runtime = start(&fleet, &node).await;
    let planes = match node.environment().random("planes") % 3 {
        0 => vec![Plane::Tcp],
        1 => vec![Plane::NatsTcp],
        _ => Plane::ALL.to_vec(),
    };
    let unary = client(&node, &runtime, UNARY).await.with_planes(planes.clone());
    let items = client(&node, &runtime, ITEMS).await.with_planes(planes.clone());
    let caller = Caller { node: node.clone(), unary: unary.clone(), items: items.clone() };
    fleet.state().callers.insert(name.clone(), caller);
    let calls = Calls { ledger: fleet.ledger.clone(), node: node.clone(), plane: planes[0], unary, items };
    let quits = async { while node.operation().await != "quit" {} };
    tokio::select! {
        biased;
        () = quits => {}
        _ = join_all((0..CALLS).map(|_| calls.keep_calling())) => {}
    }
    drop(calls);
    let left = runtime.calls_in_flight();
    assert_eq!(left, 0, "{} has calls under way that were dropped", node.name());
    quit(&node, &runtime).await;
    fleet.state().callers.remove(&name);
}

struct Calls {
    ledger: Ledger,
    node: Node,
    /// The first of its planes.
    plane: Plane,
    unary: Client<Unary, u64>,
    items: Client<Items, u64>,
}

impl Calls {
    async fn keep_calling(&self) {
        loop {
            sleep(Duration::from_millis(self.random("pause", PAUSE_MS_MAX))).await;
            let number = self.ledger.ask();
            let outcome = match self.random("kind", 2) {
                0 => self.call(number).await,
                _ => self.stream(number).await,
            };
            match outcome {
                Ok(()) => self.ledger.done(number),
                Err(error) => {
                    self.meet(&error);
                    self.ledger.failed(number, &error);
                }
            }
        }
    }

    async fn call(&self, number: u64) -> Result<(), Error> {
        let request = (number, self.random("work", WORK_MS_MAX));
        let answer = self.unary.request(&request).deadline(self.deadline()).call().await?;
        assert_eq!(answer, number, "another call was answered");
        Ok(())
    }

    async fn stream(&self, number: u64) -> Result<(), Error> {
        let request = (number, self.random("items", ITEMS_MAX), self.random("work", WORK_MS_MAX));
        let deadline = self.deadline();
        let until = Instant::now() + deadline;
        let responses = match self.items.request(&request).deadline(deadline).generate().await {
            Ok(responses) => responses,
            Err(error) => {
                check_interruption(number, 0, &error);
                return Err(error);
            }
        };
        self.read(request, responses, until).await
    }

    /// Reads all items, sometimes slowly; past the deadline, when all that may still be read is there, at once.
    async fn read(
        &self,
        (number, count, _): Items,
        mut responses: Responses<u64>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let slow = self.random("slow", 4) == 0;
        let mut read = 0;
        while let Some(item) = responses.next().await {
            match item {
                Ok(item) => {
                    read += 1;
                    assert_eq!(item, read, "call {number}: another item was to come");
                }
                Err(error) => {
                    check_interruption(number, read, &error);
                    let is_last = responses.next().await.is_none();
                    assert!(is_last, "call {number}: something follows {error}");
                    return Err(error);
                }
            }
            if slow && Instant::now() < deadline {
                self.node.sometimes("slow_reader");
                sleep(Duration::from_millis(self.random("reading", WORK_MS_MAX))).await;
            }
        }
        assert_eq!(read, count, "call {number}: it ended well, and not all items came");
        Ok(())
    }

    fn meet(&self, error: &Error) {
        use slipring_core::Effect;
        let met = match (error, self.plane) {
            (Error::StreamInterrupted { .. }, Plane::Tcp) => "tcp_interrupted",
            (Error::StreamInterrupted { .. }, Plane::NatsTcp) => "nats_tcp_interrupted",
            (Error::DeadlineExceeded { .. }, _) if error.effect() == Effect::Applied => {
                "deadline_in_a_stream"
            }
            _ if error.effect() == Effect::None => "failed_without_effect",
            _ => return,
        };
        self.node.sometimes(met);
    }

    fn deadline(&self) -> Duration {
        let above = self.random("deadline", DEADLINE_MS_MAX - DEADLINE_MS_MIN);
        Duration::from_millis(DEADLINE_MS_MIN + above)
    }

    /// Below `end`.
    fn random(&self, purpose: &'static str, end: u64) -> u64 {
        self.node.environment().random(purpose) % end
    }
}

/// A stream that is interrupted says how many items it delivered: exactly those that were read.
fn check_interruption(number: u64, read: u64, error: &Error) {
    if let Error::StreamInterrupted { items_delivered, .. } = error {
        assert_eq!(*items_delivered, read, "call {number}: {error}");
    }
}

/// A runtime on a node; whatever happens, it comes to be once the broker is there. Each life listens where the one
/// before did.
async fn start(fleet: &Fleet, node: &Node) -> DistributedRuntime {
    let meter = Meter::new();
    fleet.state().meters.push((node.name().to_owned(), meter.clone()));
    let tcp = TcpPlane::new().with_listen(format!("{}:7000", first_name(node))).with_call_home(true);
    let mut settings = Settings::default();
    settings.lease_ttl = TTL;
    settings.mutation = fleet.mutation;
    loop {
        let builder = DistributedRuntime::builder().discovery(node.discovery()).messaging(node.messaging());
        let builder = builder.environment(Metered::new(node.environment(), &meter));
        match builder.tcp(tcp.clone()).settings(settings).build().await {
            Ok(runtime) => return runtime,
            Err(error) => failed(node, "start", &error).await,
        }
    }
}

async fn serve(fleet: &Fleet, node: &Node, runtime: &DistributedRuntime) -> Vec<Serving> {
    let (one, many) = (fleet.ledger.clone(), fleet.ledger.clone());
    let answer = move |(number, takes_ms): Unary, _: Context| {
        let ledger = one.clone();
        async move {
            ledger.execute(number);
            sleep(Duration::from_millis(takes_ms)).await;
            Ok::<_, Refusal>(number)
        }
    };
    let items = move |(number, count, takes_ms): Items, _: Context| {
        many.execute(number);
        async move {
            Ok(stream::iter(1..=count).then(move |item| async move {
                sleep(Duration::from_millis(takes_ms)).await;
                Ok::<_, Refusal>(item)
            }))
        }
    };
    let endpoint = |name: &str| runtime.endpoint(name).expect("it is a reference");
    let mut servings = Vec::new();
    for name in [UNARY, ITEMS] {
        servings.push(loop {
            let served = match name {
                UNARY => endpoint(name).serve_unary(answer.clone()).await,
                _ => endpoint(name).serve(items.clone()).await,
            };
            match served {
                Ok(serving) => break serving,
                Err(error) => failed(node, "serve", &error).await,
            }
        });
    }
    servings
}

async fn client<Req, Resp>(node: &Node, runtime: &DistributedRuntime, endpoint: &str) -> Client<Req, Resp> {
    loop {
        match runtime.endpoint(endpoint).expect("it is a reference").client().await {
            Ok(client) => return client,
            Err(error) => failed(node, "client", &error).await,
        }
    }
}

/// Stops in order. By now nothing is wrong any more, but that an answer of the store may be lost yet.
async fn quit(node: &Node, runtime: &DistributedRuntime) {
    let report = runtime.stop().await;
    let asks_the_store = |name: &str| name == "revoke" || name.ends_with("deregister");
    let mut phases = report.phases.iter().filter(|phase| !asks_the_store(&phase.name));
    let is_clean = phases.all(|phase| phase.outcome == Outcome::Done);
    assert!(is_clean && report.abandoned == 0, "{} stopped: {report}", node.name());
}

async fn failed(node: &Node, what: &str, error: &Error) {
    node.note(format_args!("{what}: {}", error.code()));
    sleep(RETRY).await;
}
