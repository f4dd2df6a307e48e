//! What a runtime tells of its planes: a report, and events.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use slipring::{
    Client, Context, DistributedRuntime, Fault, MemoryWorld, Plane, PlaneTraffic, Serving, TcpPlane,
};
use slipring_core::Secret;
use tracing::Level;
use tracing::subscriber::DefaultGuard;

use crate::ground::{Ground, eventually};

/// The counters of the one endpoint on the plane, as it is served or called.
fn traffic(ground: &Ground, runtime: &DistributedRuntime, served: bool) -> PlaneTraffic {
    let endpoint = runtime.planes().endpoints.remove("fleet/worker/work").unwrap_or_default();
    let mut planes = if served { endpoint.served } else { endpoint.called };
    let traffic = planes.remove(&ground.plane).unwrap_or_default();
    assert!(planes.is_empty(), "it went another way: {planes:?}");
    traffic
}

/// Asked for n, it sends 1 to n and then waits for ever; asked for 0, it fails.
async fn serve(ground: &Ground, worker: &DistributedRuntime) -> Serving {
    let items = |n: u64, _: Context| async move {
        if n == 0 {
            return Err(Fault::new("empty", "nothing to send"));
        }
        let items = stream::iter((1..=n).map(|item| Ok(item % 10)));
        Ok(items.chain(stream::once(std::future::pending::<Result<u64, Fault>>())))
    };
    ground.work(worker).serve(items).await.unwrap()
}

/// Both ends report what an endpoint brings to the plane: streams that are open and that were, their items and
/// bytes, and why streams did not come to their end.
pub(crate) async fn what_travels_is_reported(ground: &Ground) {
    let (worker, caller) = (ground.worker().await, ground.caller().await);
    let _serving = serve(ground, &worker).await;
    let client: Client<u64, u64> = ground.client(&caller).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut responses = client.generate(&5).await.unwrap();
        for item in 1..=5 {
            assert_eq!(responses.next().await.unwrap().unwrap(), item);
        }
        open.push(responses);
    }
    for served in [true, false] {
        let traffic = traffic(ground, if served { &worker } else { &caller }, served);
        assert_eq!((traffic.streams, traffic.streams_open, traffic.resets.len()), (3, 3, 0), "{traffic:?}");
        // At the caller they are counted when the call is over. In JSON each is a digit.
        let moved = if served { (15, 15) } else { (0, 0) };
        assert_eq!((traffic.items, traffic.bytes), moved);
    }
    let on_wire = matches!(ground.plane, Plane::Tcp | Plane::NatsTcp);
    for runtime in [&worker, &caller] {
        let report = runtime.planes();
        assert_eq!((report.connections.len(), report.streams_open()), if on_wire { (1, 3) } else { (0, 0) });
    }
    drop(open);
    client.generate(&0).await.unwrap_err();
    for (runtime, served) in [(&worker, true), (&caller, false)] {
        eventually("all are over", || traffic(ground, runtime, served).streams_open == 0).await;
        let traffic = traffic(ground, runtime, served);
        assert_eq!((traffic.streams, traffic.items, traffic.bytes), (4, 15, 15), "{traffic:?}");
        let reasons: Vec<_> = traffic.resets.into_iter().collect();
        assert_eq!(reasons, [("cancelled", 3), ("fault", 1)]);
    }
}

/// A connection reports who is at its other end and what it did; when it is gone that is in the totals, with the
/// reason why it was closed.
#[tokio::test(start_paused = true)]
async fn connections_are_reported() {
    let ground = Ground::tcp().on_pipes();
    let (worker, caller) = (ground.worker().await, ground.caller().await);
    let serving = serve(&ground, &worker).await;
    let client: Client<u64, u64> = ground.client(&caller).await;
    let mut responses = client.generate(&5).await.unwrap();
    for _ in 0..5 {
        responses.next().await.unwrap().unwrap();
    }
    client.generate(&0).await.unwrap_err();
    let (here, there) = (caller.planes(), worker.planes());
    let [near] = &here.connections[..] else { panic!("{here:?}") };
    let [far] = &there.connections[..] else { panic!("{there:?}") };
    assert_eq!((near.peer, far.peer), (worker.instance_id(), caller.instance_id()));
    assert_eq!((near.epoch, near.is_dialled, far.is_dialled, near.is_encrypted), (1, true, false, false));
    assert_eq!((&*near.address, &*far.address), ("pipe:1", "pipe"));
    assert_eq!((near.streams_open, near.queued_bytes, near.assembling_bytes), (1, 0, 0));
    assert_eq!((near.totals.streams_opened, far.totals.streams_accepted), (2, 2));
    assert_eq!((near.totals.items_received, far.totals.items_sent), (5, 5));
    assert_eq!((near.totals.failures_received, far.totals.failures_sent), (1, 1));
    assert_eq!(near.totals.bytes_received, far.totals.bytes_sent);
    assert_eq!(near.totals.bytes_sent, far.totals.bytes_received);
    assert_eq!((here.dials, there.dials, here.totals, here.dials_failed.len()), (1, 0, near.totals, 0));
    // The worker's process is gone.
    drop((serving, worker));
    let error = responses.next().await.unwrap().unwrap_err();
    let cut = error.code();
    eventually("the connection is gone", || caller.planes().connections.is_empty()).await;
    let report = caller.planes();
    assert_eq!((report.connections_opened, report.totals.items_received), (1, 5));
    assert_eq!(report.closed.values().sum::<u64>(), 1, "{report:?}");
    let reasons = &report.endpoints["fleet/worker/work"].called[&Plane::Tcp].resets;
    assert_eq!(reasons.iter().collect::<Vec<_>>(), [(&cut, &1), (&"fault", &1)]);
}

/// A connection that nobody uses is closed by the end that dialled, which reports it as idle.
#[tokio::test(start_paused = true)]
async fn an_idle_close_is_reported() {
    let ground = Ground::tcp().in_the_simulator();
    let (worker, caller) = (ground.worker().await, ground.caller().await);
    let _serving = serve(&ground, &worker).await;
    let client: Client<u64, u64> = ground.client(&caller).await;
    client.generate(&0).await.unwrap_err();
    assert_eq!(caller.planes().connections.len(), 1);
    tokio::time::sleep(Duration::from_secs(70)).await;
    let closed = |runtime: &DistributedRuntime| runtime.planes().closed.into_iter().collect::<Vec<_>>();
    assert_eq!(closed(&caller), [("idle", 1)]);
    assert_eq!(closed(&worker), [("drained", 1)]);
}

/// A reader that does not read stops its stream, and that is counted where it is served, for the endpoint and for
/// the connection; so is it on the other planes, for the endpoint.
#[tokio::test(start_paused = true)]
async fn credit_stalls_are_reported() {
    for ground in [Ground::tcp().on_pipes(), Ground::nats_tcp().on_pipes(), Ground::broker(), Ground::local()]
    {
        let log = Log::capture();
        let (worker, caller) = (ground.worker().await, ground.caller().await);
        let _serving = serve(&ground, &worker).await;
        let client: Client<u64, u64> = ground.client(&caller).await;
        let slow = client.request(&200_000).deadline(Duration::from_secs(600)).generate().await.unwrap();
        eventually("it stalls", || traffic(&ground, &worker, true).credit_stalls > 0).await;
        let on_wire = matches!(ground.plane, Plane::Tcp | Plane::NatsTcp);
        assert_eq!(worker.planes().totals.credit_stalls > 0, on_wire, "{:?}", worker.planes());
        let words = format!("a stream waits for its reader plane={}", ground.plane);
        assert_eq!(log.lines("TRACE", &words).len() as u64, traffic(&ground, &worker, true).credit_stalls);
        assert!(traffic(&ground, &worker, true).items < 100_000);
        assert_eq!(slow.take(200_000).count().await, 200_000);
    }
}

/// A dial that is refused is counted at both ends with its reason, and told as a warning by the one who dialled:
/// who it was for, and what to do.
#[tokio::test]
async fn refused_connections_are_reported_and_told() {
    let log = Log::capture();
    let world = MemoryWorld::new();
    let build =
        async |tcp: TcpPlane| DistributedRuntime::builder().memory(&world).tcp(tcp).build().await.unwrap();
    let plane = |secret: &str| TcpPlane::new().with_secret(Secret::new(secret));
    let worker = build(plane("open sesame").with_listen("127.0.0.1:0")).await;
    let caller = build(plane("hocus pocus")).await;
    let endpoint = worker.endpoint("a/b/c").unwrap();
    let _serving = endpoint.serve_unary(async |(): (), _: Context| Ok(())).await.unwrap();
    let client: Client<(), ()> = caller.endpoint("a/b/c").unwrap().client().await.unwrap();
    client.wait_for_instances(1, Duration::from_secs(10)).await.unwrap();
    let error = client.with_planes([Plane::Tcp]).call(&()).await.unwrap_err();
    assert_eq!(error.code(), "unauthorized", "{error}");
    eventually("the worker counts it", || !worker.planes().refused.is_empty()).await;
    let (here, there) = (caller.planes(), worker.planes());
    assert_eq!((here.refused["secret"], there.refused["secret"]), (1, 1));
    assert_eq!((here.dials, here.dials_failed["unauthorized"], here.connections_opened), (1, 1, 0));
    let id = format!("{:x}", worker.instance_id());
    let told = log.lines("WARN", "dialling failed");
    assert!(told.len() == 1 && told[0].contains(&id) && told[0].contains("secret"), "{told:?}");
    let told = log.lines("INFO", "reason=\"secret\"");
    assert!(told.iter().any(|line| line.contains("accept{from=\"127.0.0.1:")), "{told:?}");
    let all = format!("{}{here:?}{there:?}{error:?}", log.text());
    assert!(!all.contains("sesame") && !all.contains("pocus"), "it shows a secret");
}

/// The life of a connection is told: opened, going away at either end, closed and why. What travels on it is not,
/// however closely somebody listens.
#[tokio::test(start_paused = true)]
async fn the_life_of_a_connection_is_told_and_its_items_are_not() {
    let ground = Ground::tcp().on_pipes();
    let (worker, caller) = (ground.worker().await, ground.caller().await);
    let _serving = serve(&ground, &worker).await;
    let client: Client<u64, u64> = ground.client(&caller).await;
    let log = Log::capture();
    client.generate(&0).await.unwrap_err();
    assert_eq!(log.lines("DEBUG", "a link was opened").len(), 2, "{}", log.text());
    let before = log.text().lines().count();
    let items = client.generate(&10_000).await.unwrap();
    assert_eq!(items.take(10_000).count().await, 10_000);
    let told = log.text().lines().count() - before;
    assert!(told < 20, "{told} lines");
    caller.stop().await;
    for (words, least) in [
        (": going away peer=", 1),
        (": the peer goes away peer=", 1),
        ("a link was closed", 2),
        ("reason=\"requested\"", 1),
    ] {
        eventually(words, || log.lines("DEBUG", words).len() >= least).await;
    }
    assert_eq!(log.lines("WARN", "").len(), 0, "{}", log.text());
}

/// Everything that this thread logs until it is dropped.
struct Log {
    written: Written,
    _guard: DefaultGuard,
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn capture() -> Self {
        let written = Written::default();
        let into = written.clone();
        let everything = tracing_subscriber::fmt().with_max_level(Level::TRACE).with_ansi(false);
        let subscriber = everything.with_writer(move || into.clone()).finish();
        Self { written, _guard: tracing::subscriber::set_default(subscriber) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.written.0.lock().unwrap()).into_owned()
    }

    /// The lines of slipring's own at a level, with these words.
    fn lines(&self, level: &str, words: &str) -> Vec<String> {
        let text = self.text();
        let own = text.lines().filter(|line| line.contains(level) && line.contains("slipring::plane"));
        own.filter(|line| line.contains(words)).map(str::to_owned).collect()
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
