use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use futures_util::{StreamExt, stream};
use slipring::{
    Client, Context, DistributedRuntime, Fault, InstanceChange, LeaseState, MemoryWorld, Outcome, Serving,
    WatchState,
};
use slipring_core::Range;
use slipring_servers::{Proxy, Version};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::backends::{Backends, TTL, WORK, etcd_at, eventually, nats_at, settings};

const SECOND: Duration = Duration::from_secs(1);
/// Within this all is well again, once the cause is gone.
const SOON: Duration = Duration::from_secs(7);

async fn real(version: Version) -> Backends {
    Backends::memory().with_etcd(version).await.with_nats(version).await
}

/// A worker that answers with the id of its instance.
async fn worker(backends: &Backends) -> (DistributedRuntime, Serving) {
    let runtime = backends.runtime().await;
    let serving = serve(&runtime, WORK).await;
    (runtime, serving)
}

async fn serve(runtime: &DistributedRuntime, endpoint: &str) -> Serving {
    let who = |(): (), cx: Context| async move { Ok::<_, Fault>(cx.instance()) };
    runtime.endpoint(endpoint).unwrap().serve_unary(who).await.unwrap()
}

async fn client(runtime: &DistributedRuntime) -> Client<(), u64> {
    runtime.endpoint(WORK).unwrap().client().await.unwrap()
}

/// A caller who reaches etcd through a proxy, and the bus directly.
async fn distant_caller(backends: &Backends) -> (DistributedRuntime, Proxy) {
    let proxy = Proxy::start(backends.etcd.as_ref().unwrap().endpoint()).await;
    let builder = DistributedRuntime::builder().settings(settings(|_| {}));
    let builder = builder.discovery(etcd_at([proxy.endpoint()])).messaging(backends.messaging());
    (builder.build().await.unwrap(), proxy)
}

/// D04, U3493: etcd is away for longer than the lease lives. The process goes on, a stream in flight is answered
/// to its end, new calls succeed all the while, and then the same instance is registered on a new lease.
pub(super) async fn d04_u3493_an_outage_longer_than_the_lease_heals(version: Version) {
    let mut backends = real(version).await;
    let worker = backends.runtime().await;
    let count = |to: u64, _: Context| async move {
        Ok(stream::iter(0..to).then(|item| async move {
            sleep(Duration::from_millis(100)).await;
            Ok::<_, Fault>(item)
        }))
    };
    let _serving = worker.endpoint(WORK).unwrap().serve(count).await.unwrap();
    let caller = backends.runtime().await;
    let client: Client<u64, u64> = caller.endpoint(WORK).unwrap().client().await.unwrap();
    let mut lease = worker.lease();
    let items = client.request(&80).deadline(Duration::from_secs(30)).generate().await.unwrap();
    let outage = async {
        backends.etcd.as_ref().unwrap().pause();
        timeout(TTL * 2, lease.wait_for(|lease| *lease == LeaseState::Lost { epoch: 1 })).await.unwrap();
        assert_eq!(client.generate(&1).await.unwrap().count().await, 1);
        sleep(TTL).await;
        backends.etcd.as_ref().unwrap().resume();
        let held = lease.wait_for(|lease| matches!(lease, LeaseState::Held { epoch: 2, .. }));
        timeout(SOON, held).await.unwrap();
    };
    let (items, ()) = tokio::join!(items.map(Result::unwrap).collect::<Vec<_>>(), outage);
    assert_eq!(items, (0..80).collect::<Vec<_>>());
    let registered = async || {
        let records = backends.records().await;
        records.iter().any(|record| record.epoch == 2 && record.instance.id() == worker.instance_id())
    };
    eventually("the record is back", registered).await;
    assert_eq!(client.generate(&1).await.unwrap().count().await, 1);
    // Gone for good, and without its data: once more the same.
    let etcd = backends.etcd.as_mut().unwrap();
    etcd.kill();
    etcd.wipe();
    etcd.restart().await.unwrap();
    eventually("the record is in the new store", async || backends.records().await.len() == 1).await;
    assert_eq!(client.generate(&1).await.unwrap().count().await, 1);
}

/// U7932: an etcd that is restarted, or hangs, for less than the lease lives changes nothing: the same lease,
/// and a record that nobody touched.
pub(super) async fn u7932_a_blink_of_etcd_changes_nothing(version: Version) {
    let mut backends = Backends::memory().with_etcd(version).await;
    let (worker, _serving) = worker(&backends).await;
    let before = backends.records().await;
    let held = worker.lease().get();
    let etcd = backends.etcd.as_mut().unwrap();
    etcd.kill();
    etcd.restart().await.unwrap();
    sleep(TTL * 2).await;
    etcd.pause();
    sleep(TTL / 4).await;
    etcd.resume();
    sleep(TTL * 2).await;
    assert_eq!((backends.records().await, worker.lease().get()), (before, held));
}

/// U10798: a process that is started before etcd waits for it, instead of ending and being started again.
pub(super) async fn u10798_etcd_may_start_later(version: Version) {
    let mut backends = Backends::memory().with_etcd(version).await;
    backends.etcd.as_mut().unwrap().kill();
    let builder = DistributedRuntime::builder()
        .discovery(backends.discovery())
        .messaging(MemoryWorld::new().messaging())
        .settings(settings(|_| {}));
    let later = async {
        sleep(TTL).await;
        backends.etcd.as_mut().unwrap().restart().await.unwrap();
    };
    let (runtime, ()) = tokio::join!(builder.build(), later);
    let _serving = serve(&runtime.unwrap(), WORK).await;
    assert_eq!(backends.records().await.len(), 1);
}

/// U10798: and so it is with NATS.
pub(super) async fn u10798_nats_may_start_later(version: Version) {
    let mut backends = Backends::memory().with_nats(version).await;
    backends.nats.as_mut().unwrap().kill();
    let builder = DistributedRuntime::builder()
        .discovery(MemoryWorld::new().discovery())
        .messaging(backends.messaging())
        .settings(settings(|_| {}));
    let later = async {
        sleep(TTL).await;
        backends.nats.as_mut().unwrap().restart().await.unwrap();
    };
    let (runtime, ()) = tokio::join!(builder.build(), later);
    let runtime = runtime.unwrap();
    let _serving = serve(&runtime, WORK).await;
    assert_eq!(client(&runtime).await.call(&()).await.unwrap(), runtime.instance_id());
}

/// U11144: an instance that went away while a caller could not see it is not called after it can see again;
/// until then the caller keeps what it saw, and says how old that is.
pub(super) async fn u11144_an_instance_that_went_during_an_outage_does_not_stay(version: Version) {
    let backends = Backends::memory().with_etcd(version).await;
    let (stays, _one) = worker(&backends).await;
    let (goes, _two) = worker(&backends).await;
    let (caller, proxy) = distant_caller(&backends).await;
    let client = client(&caller).await;
    client.wait_for_instances(2, SOON).await.unwrap();
    proxy.cut();
    let mut instances = client.instances();
    let stale = async || matches!(instances.state(), WatchState::Stale { .. });
    eventually("the view is known to be stale", stale).await;
    assert!(goes.stop().await.is_clean());
    assert_eq!(instances.len(), 2);
    for _ in 0..4 {
        assert_eq!(client.call(&()).await.unwrap(), stays.instance_id());
    }
    proxy.mend();
    timeout(SOON, instances.wait_until(|all| all.len() == 1)).await.unwrap();
    assert_eq!(instances.all()[0].id(), stays.instance_id());
}

/// U11144: neither a component nor an endpoint matches one whose name begins in the same way.
pub(super) async fn u11144_a_component_does_not_match_a_longer_name(version: Version) {
    let backends = Backends::memory().with_etcd(version).await;
    let worker = backends.runtime().await;
    let mut servings = Vec::new();
    for endpoint in ["fleet/worker2/work", "fleet/worker/work2", "fleet/worker/work/more", WORK] {
        servings.push(serve(&worker, endpoint).await);
    }
    let caller = backends.runtime().await;
    let client = client(&caller).await;
    client.wait_for_instances(1, SOON).await.unwrap();
    let other = backends.runtime().await;
    let _second = serve(&other, "fleet/worker2/work").await;
    let _third = serve(&other, WORK).await;
    client.wait_for_instances(2, SOON).await.unwrap();
    let seen: BTreeSet<_> = client.instances().all().iter().map(|one| one.record().key()).collect();
    let work = caller.endpoint(WORK).unwrap();
    let expected = [&worker, &other].map(|runtime| work.path().instance(runtime.instance_id()).key());
    assert_eq!(seen, BTreeSet::from(expected));
}

/// U13206: who follows the changes is told of an instance that died while etcd was away, once, and is not told
/// that those that live were gone.
pub(super) async fn u13206_a_removal_during_an_outage_is_reported(version: Version) {
    removal_during_an_outage(version, async |_| {}).await;
}

/// D05: and so it is when the history of the outage was compacted, and a watch cannot go on where it was.
pub(super) async fn d05_a_removal_that_was_compacted_is_reported(version: Version) {
    let compact = async |backends: &Backends| {
        let revision = backends.discovery().read(Range::All).await.unwrap().revision.to_string();
        let endpoint = backends.etcd.as_ref().unwrap().endpoint();
        let mut etcdctl = Command::new(version.program("etcdctl"));
        etcdctl.env("ETCDCTL_API", "3").args(["--endpoints", &endpoint, "compact", &revision]);
        assert!(etcdctl.status().await.unwrap().success());
    };
    removal_during_an_outage(version, compact).await;
}

async fn removal_during_an_outage(version: Version, meanwhile: impl AsyncFn(&Backends)) {
    let backends = Backends::memory().with_etcd(version).await;
    let (stays, _one) = worker(&backends).await;
    let (dies, two) = worker(&backends).await;
    let (caller, proxy) = distant_caller(&backends).await;
    let client = client(&caller).await;
    client.wait_for_instances(2, SOON).await.unwrap();
    let mut changes = client.instances();
    assert!(matches!(changes.next().await, InstanceChange::Snapshot(all) if all.len() == 2));
    proxy.cut();
    drop(two);
    eventually("it is gone from the store", async || backends.records().await.len() == 1).await;
    meanwhile(&backends).await;
    assert_eq!(changes.len(), 2);
    proxy.mend();
    let change = timeout(SOON, changes.next()).await.unwrap();
    let is_told = matches!(&change, InstanceChange::Removed(gone) if gone.id() == dies.instance_id());
    assert!(is_told, "{change:?}");
    let quiet = timeout(TTL, changes.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    assert_eq!(client.call(&()).await.unwrap(), stays.instance_id());
}

/// U1592: a watch whose connection falls silent, and is never closed, is noticed; what was missed is made up
/// for as soon as there is a way again.
pub(super) async fn u1592_a_watch_that_falls_silent_is_noticed(version: Version) {
    let backends = Backends::memory().with_etcd(version).await;
    let (_one, _serving) = worker(&backends).await;
    let (caller, proxy) = distant_caller(&backends).await;
    let client = client(&caller).await;
    client.wait_for_instances(1, SOON).await.unwrap();
    proxy.silence();
    let (two, _second) = worker(&backends).await;
    let mut instances = client.instances();
    let stale = async || matches!(instances.state(), WatchState::Stale { .. });
    eventually("the silence is noticed", stale).await;
    assert_eq!(instances.len(), 1);
    proxy.mend();
    let seen = instances.wait_until(|all| all.iter().any(|instance| instance.id() == two.instance_id()));
    timeout(SOON, seen).await.unwrap();
    client.wait_for_instances(2, SOON).await.unwrap();
}

/// U4904: a caller that is restarted finds every one of many instances, time after time, also while etcd is
/// restarted, and reaches each.
pub(super) async fn u4904_a_caller_that_is_restarted_finds_all(version: Version) {
    const INSTANCES: usize = 24;
    let mut backends = real(version).await;
    let workers = join_all((0..INSTANCES).map(|_| worker(&backends))).await;
    let ids: BTreeSet<_> = workers.iter().map(|(worker, _)| worker.instance_id()).collect();
    for round in 0..4 {
        let caller = backends.runtime().await;
        let client = client(&caller).await;
        if round % 2 == 1 {
            let etcd = backends.etcd.as_mut().unwrap();
            etcd.kill();
            etcd.restart().await.unwrap();
        }
        client.wait_for_instances(INSTANCES, SOON).await.unwrap();
        let answers = try_join_all((0..INSTANCES).map(|_| client.call(&()))).await.unwrap();
        assert_eq!(answers.into_iter().collect::<BTreeSet<_>>(), ids, "round {round}");
        assert!(caller.stop().await.is_clean());
    }
}

/// CURATOR-638: after the loss of a session every registration is back, not just the first, on one new lease.
pub(super) async fn curator638_every_registration_is_back_after_a_lost_session(version: Version) {
    const ENDPOINTS: usize = 20;
    let mut backends = Backends::memory().with_etcd(version).await;
    let worker = backends.runtime().await;
    let names = (0..ENDPOINTS).map(|number| format!("fleet/worker/work{number}"));
    let names: Vec<_> = names.collect();
    let _servings = join_all(names.iter().map(|name| serve(&worker, name))).await;
    let back = async |epoch| {
        let LeaseState::Held { lease, epoch: held } = worker.lease().get() else { return false };
        let records = backends.records().await;
        let good = records.iter().filter(|record| (record.lease, record.epoch) == (lease, epoch));
        held == epoch && good.count() == ENDPOINTS && records.len() == ENDPOINTS
    };
    eventually("all are registered", async || back(1).await).await;
    for epoch in 2..5 {
        let LeaseState::Held { lease, .. } = worker.lease().get() else { panic!("it has no lease") };
        backends.discovery().revoke(lease).await.unwrap();
        eventually("all are registered again", async || back(epoch).await).await;
    }
    let etcd = backends.etcd.as_mut().unwrap();
    etcd.kill();
    etcd.wipe();
    etcd.restart().await.unwrap();
    let LeaseState::Held { epoch, .. } = worker.lease().get() else { panic!("nothing was noticed yet") };
    let moved = async || {
        let records = backends.records().await;
        records.len() == ENDPOINTS && records.iter().all(|record| record.epoch == epoch + 1)
    };
    eventually("all are registered in the new store", moved).await;
}

/// D14: a process that is told to stop while its servers hang, or are gone, takes every phase of the way, says of
/// each what was not confirmed, and ends within the bounds that its settings name.
pub(super) async fn d14_a_stop_without_servers_is_bounded(version: Version) {
    for hangs in [true, false] {
        let mut backends = real(version).await;
        let bounds = settings(|settings| {
            settings.deregister_timeout = TTL;
            settings.close_timeout = TTL / 2;
        });
        let worker = backends.runtime_with(bounds).await;
        let _serving = serve(&worker, WORK).await;
        let (etcd, nats) = (backends.etcd.as_mut().unwrap(), backends.nats.as_mut().unwrap());
        if hangs {
            etcd.pause();
            nats.pause();
        } else {
            etcd.kill();
            nats.kill();
        }
        // Deregister, grace, drain and unsubscribe, revoke, close; each close may take its bound twice.
        let limit = bounds.deregister_timeout + bounds.watcher_grace + bounds.close_timeout * 5;
        let report = timeout(limit + SECOND, worker.stop()).await.expect("a stop is bounded");
        let unconfirmed = |name: &str| {
            let phase = report.phases.iter().find(|phase| phase.name.ends_with(name));
            assert!(matches!(phase.unwrap().outcome, Outcome::Unconfirmed(_)), "{name}: {report}");
        };
        unconfirmed("deregister");
        unconfirmed("revoke");
    }
}

/// D19: runtimes that share their connections do not share their ends: when one stops, calls of the other go on,
/// and its lease lives.
pub(super) async fn d19_runtimes_on_one_connection_do_not_disturb_each_other(version: Version) {
    let backends = real(version).await;
    let discovery = etcd_at([backends.etcd.as_ref().unwrap().endpoint()]);
    let messaging = nats_at(backends.nats.as_ref().unwrap().endpoint());
    let runtime = async || {
        let builder = DistributedRuntime::builder().settings(settings(|_| {}));
        builder.discovery(discovery.clone()).messaging(messaging.handle()).build().await.unwrap()
    };
    let (one, two, caller) = (runtime().await, runtime().await, runtime().await);
    let (first, _second) = (serve(&one, WORK).await, serve(&two, WORK).await);
    let client = client(&caller).await;
    client.wait_for_instances(2, SOON).await.unwrap();
    let calls = async {
        for _ in 0..200 {
            client.call(&()).await.unwrap();
            sleep(Duration::from_millis(5)).await;
        }
    };
    let ((), report) = tokio::join!(calls, one.stop());
    assert!(report.is_clean(), "{report}");
    drop((one, first));
    sleep(TTL * 2).await;
    assert_eq!(client.call(&()).await.unwrap(), two.instance_id());
    assert!(matches!(two.lease().get(), LeaseState::Held { epoch: 1, .. }));
    assert_eq!(backends.records().await.len(), 1);
}

/// D15: with every thread of the pool blocked for longer than two leases, the heartbeats go on, over a
/// connection that does not need the pool.
#[expect(clippy::disallowed_methods, reason = "it blocks real threads for real time")]
pub(super) fn d15_a_busy_pool_does_not_lose_the_lease(version: Version) {
    const THREADS: usize = 2;
    let outside = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let backends = outside.block_on(Backends::memory().with_etcd(version));
    let mut pool = tokio::runtime::Builder::new_multi_thread();
    let pool = pool.worker_threads(THREADS).enable_all().build().unwrap();
    let (runtime, _serving) = pool.block_on(async {
        // On the pool, where an application would build it.
        let (discovery, messaging) = (backends.discovery(), backends.messaging());
        let building = async move {
            let builder = DistributedRuntime::builder().discovery(discovery).messaging(messaging);
            let runtime = builder.settings(settings(|_| {})).build().await.unwrap();
            let serving = serve(&runtime, WORK).await;
            (runtime, serving)
        };
        tokio::spawn(building).await.unwrap()
    });
    let before = outside.block_on(backends.records());
    let blocked = Arc::new(AtomicUsize::new(0));
    for _ in 0..THREADS {
        let blocked = blocked.clone();
        pool.spawn(async move {
            blocked.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(TTL * 3);
            blocked.fetch_sub(1, Ordering::SeqCst);
        });
    }
    while blocked.load(Ordering::SeqCst) < THREADS {
        std::thread::yield_now();
    }
    outside.block_on(async { sleep(TTL * 5 / 2).await });
    assert_eq!(blocked.load(Ordering::SeqCst), THREADS, "the pool was not blocked");
    assert_eq!(outside.block_on(backends.records()), before);
    assert!(matches!(runtime.lease().get(), LeaseState::Held { epoch: 1, .. }));
    assert_eq!(before.len(), 1);
    assert!(pool.block_on(runtime.stop()).is_clean());
}

/// A worker that has lost the bus for a moment is registered, alive, and about to subscribe again: calls that
/// begin meanwhile are answered then, however many they are; one that is to fail fast fails at once.
pub(super) async fn a_worker_that_subscribes_again_is_waited_for(version: Version) {
    let backends = real(version).await;
    let proxy = Proxy::start(backends.nats.as_ref().unwrap().endpoint()).await;
    let builder = DistributedRuntime::builder().settings(settings(|_| {}));
    let builder = builder.discovery(backends.discovery()).messaging(nats_at(proxy.endpoint()));
    let worker = builder.build().await.unwrap();
    let _serving = serve(&worker, WORK).await;
    let caller = backends.runtime().await;
    let client = client(&caller).await;
    assert_eq!(client.call(&()).await.unwrap(), worker.instance_id());
    proxy.cut();
    eventually("the server has noticed", async || {
        let answer = client.request(&()).fail_fast().call().await;
        answer.is_err_and(|error| error.code() == "no_responders")
    })
    .await;
    let calls = join_all((0..50).map(|_| client.call(&())));
    let outage = async {
        sleep(SECOND).await;
        proxy.mend();
    };
    let (answers, ()) = tokio::join!(calls, outage);
    for answer in answers {
        assert_eq!(answer.unwrap(), worker.instance_id());
    }
}
