//! Losing leases and records, and getting them back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{echo, eventually, linked, records, runtime, runtime_with, serve_id, settings};
use futures_util::{FutureExt, StreamExt, stream};
use slipring::name::Deployment;
use slipring::{
    Client, Context, DistributedRuntime, Effect, Fault, HealthCheck, LeasePolicy, LeaseState, MemoryWorld,
    Settings,
};
use slipring_core::{
    Commit, Discovery, DiscoveryCapabilities, DiscoveryExt, Environment, Error, Fact, Lease, LeaseId,
    Message, Messaging, Range, Result, Snapshot, Start, Txn, Watch, async_trait,
};
use slipring_memory::Profile;
use slipring_sim::SimEnvironment;

const SECOND: Duration = Duration::from_secs(1);

/// Until the one record is there again, at this epoch and on a lease that lives.
async fn healed(world: &MemoryWorld, worker: &DistributedRuntime, epoch: u64) {
    let healed = || {
        let records = records(world);
        let leases = world.leases();
        records.len() == 1 && records[0].epoch == epoch && leases.contains(&records[0].lease)
    };
    eventually("the record is back", healed).await;
    assert_eq!(records(world)[0].instance.id(), worker.instance_id());
    let LeaseState::Held { lease, epoch: held } = worker.lease().get() else { panic!("it has no lease") };
    assert_eq!((lease, held), (records(world)[0].lease, epoch));
    assert!(!worker.stopping().get());
}

/// D04, U3493: a lease that expires in a long silence is replaced; the process goes on, is the same instance
/// in its second epoch, and a stream in flight never notices.
#[tokio::test(start_paused = true)]
async fn d04_u3493_a_lost_lease_heals() {
    let world = MemoryWorld::with(Profile::etcd(), Arc::new(SimEnvironment::new(1)));
    let (worker, store, _bus) = linked(&world, Settings::default()).await;
    let caller = runtime(&world).await;
    let slow = |count: u64, _: Context| async move {
        Ok(stream::iter(0..count).then(|at| async move {
            tokio::time::sleep(SECOND).await;
            Ok::<_, Fault>(at)
        }))
    };
    let _serving = worker.endpoint("a/b/c").unwrap().serve(slow).await.unwrap();
    let client: Client<u64, u64> = caller.endpoint("a/b/c").unwrap().client().await.unwrap();
    let items = client.request(&60).deadline(120 * SECOND).generate().await.unwrap();
    let mut lease = worker.lease();
    let script = async {
        store.silence();
        lease.wait_for(|state| *state == LeaseState::Lost { epoch: 1 }).await.unwrap();
        eventually("the record is gone", || records(&world).is_empty()).await;
        tokio::time::sleep(10 * SECOND).await;
        store.open();
        healed(&world, &worker, 2).await;
    };
    let (items, ()) = tokio::join!(items.map(Result::unwrap).collect::<Vec<_>>(), script);
    assert_eq!(items, (0..60).collect::<Vec<_>>());
    let mut again = client.generate(&1).await.unwrap();
    assert_eq!(again.next().await.unwrap().unwrap(), 0);
}

/// D04: an outage that is shorter than the lease changes nothing at all.
#[tokio::test(start_paused = true)]
async fn u7932_a_short_outage_changes_nothing() {
    let world = MemoryWorld::new();
    let (worker, store, _bus) = linked(&world, Settings::default()).await;
    let _serving = echo(&worker.endpoint("a/b/c").unwrap()).await.unwrap();
    let before = world.entries();
    for outage in [slipring_sim::Link::silence, slipring_sim::Link::cut] {
        outage(&store);
        tokio::time::sleep(4 * SECOND).await;
        store.open();
        tokio::time::sleep(30 * SECOND).await;
    }
    assert_eq!(world.entries(), before);
    assert!(matches!(worker.lease().get(), LeaseState::Held { epoch: 1, .. }));
}

/// A store that answers later than the lease lives, because it hung, costs one epoch: a new lease that may be
/// over when it arrives is not held, but asked for again.
#[tokio::test(start_paused = true)]
async fn a_lease_that_comes_too_late_is_never_held() {
    let world = MemoryWorld::new();
    let (worker, store, _bus) = linked(&world, settings(|settings| settings.lease_ttl = 2 * SECOND)).await;
    let mut lease = worker.lease();
    store.silence();
    assert_eq!(lease.changed().await, Some(LeaseState::Lost { epoch: 1 }));
    tokio::time::sleep(3 * SECOND).await;
    store.open();
    assert!(matches!(lease.changed().await, Some(LeaseState::Held { epoch: 2, .. })));
    let next = tokio::time::timeout(20 * SECOND, lease.changed()).await;
    assert!(next.is_err(), "{next:?}");
}

/// A lease that somebody revokes is replaced.
#[tokio::test(start_paused = true)]
async fn a_revoked_lease_is_replaced() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let _serving = echo(&worker.endpoint("a/b/c").unwrap()).await.unwrap();
    for epoch in 2..5 {
        world.discovery().revoke(world.leases()[0]).await.unwrap();
        assert_eq!(records(&world), []);
        healed(&world, &worker, epoch).await;
    }
}

/// F40: a record that is deleted, or overwritten, behind its owner's back returns in the same epoch.
#[tokio::test(start_paused = true)]
async fn f40_a_record_that_was_tampered_with_returns() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let serving = echo(&worker.endpoint("a/b/c").unwrap()).await.unwrap();
    let key = serving.path().key();
    let before = records(&world);
    world.discovery().delete(key.clone()).await.unwrap();
    healed(&world, &worker, 1).await;
    assert_eq!(records(&world), before);
    world.discovery().put(key, "nonsense".into(), None).await.unwrap();
    healed(&world, &worker, 1).await;
    assert_eq!(records(&world), before);
}

/// F40: without its anchor a runtime still changes and keeps its records.
#[tokio::test(start_paused = true)]
async fn f40_a_deleted_anchor_does_no_harm() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let serving = echo(&worker.endpoint("a/b/c").unwrap()).await.unwrap();
    let anchor = Deployment::default().anchor_key(worker.instance_id());
    let delete = async || {
        assert!(world.discovery().entry(&anchor).await.unwrap().is_some());
        world.discovery().delete(anchor.clone()).await.unwrap();
    };
    delete().await;
    let second = echo(&worker.endpoint("a/b/d").unwrap()).await.unwrap();
    assert_eq!(records(&world).len(), 2);
    delete().await;
    assert!(second.stop().await.is_clean());
    healed(&world, &worker, 1).await;
    delete().await;
    world.discovery().delete(serving.path().key()).await.unwrap();
    healed(&world, &worker, 1).await;
}

/// F39: whatever becomes of the store, the registration returns: emptied (the lease is gone: epoch 2), put
/// back to before the lease (epoch 3), or to before the record (the lease lives: the same epoch).
#[tokio::test(start_paused = true)]
async fn f39_a_store_of_another_time_is_filled_again() {
    let world = MemoryWorld::new();
    let before_lease = world.export();
    let worker = runtime(&world).await;
    let client: Client<(), u64> = worker.endpoint("a/b/c").unwrap().client().await.unwrap();
    let before_record = world.export();
    let _serving = serve_id(&worker.endpoint("a/b/c").unwrap()).await.unwrap();
    world.import(before_record);
    assert_eq!(records(&world), []);
    healed(&world, &worker, 1).await;
    world.empty();
    healed(&world, &worker, 2).await;
    world.import(before_lease);
    healed(&world, &worker, 3).await;
    assert_eq!(client.call(&()).await.unwrap(), worker.instance_id());
}

/// L9: a write of an earlier epoch that the store executes late is refused by the anchor.
#[tokio::test(start_paused = true)]
async fn l9_a_delayed_write_of_an_earlier_epoch_is_refused() {
    let world = MemoryWorld::new();
    let held = Arc::new(Mutex::new(None));
    let delaying = Delaying { inner: world.discovery(), hold: held.clone() };
    let worker =
        DistributedRuntime::builder().discovery(delaying).messaging(world.messaging()).build().await.unwrap();
    let one = echo(&worker.endpoint("a/b/c").unwrap()).await.unwrap();
    *held.lock().unwrap() = Some(Vec::new());
    let two = echo(&worker.endpoint("a/b/d").unwrap());
    let (two, ()) = tokio::join!(async { two.await }, async {
        eventually("a write is held back", || held.lock().unwrap().iter().flatten().count() == 1).await;
        world.discovery().revoke(world.leases()[0]).await.unwrap();
        eventually("a new lease", || world.leases().len() == 1).await;
    });
    let (two, late) = (two.unwrap(), held.lock().unwrap().take().unwrap());
    eventually("both are back", || records(&world).iter().filter(|record| record.epoch == 2).count() == 2)
        .await;
    let before = world.entries();
    assert_eq!(late.len(), 1);
    for mut txn in late {
        // Its lease is gone too; even had it been put there without one, the anchor refuses it.
        for op in &mut txn.ops {
            if let slipring_core::Op::Put { lease, .. } = op {
                *lease = None;
            }
        }
        assert_eq!(world.discovery().commit(txn).await.unwrap(), Commit::Refused);
    }
    assert_eq!(world.entries(), before);
    assert!(one.stop().await.is_clean() && two.stop().await.is_clean());
}

/// A write whose reply is lost is found out about, not repeated blindly: the record is written once.
#[tokio::test(start_paused = true)]
async fn k9_a_lost_reply_is_looked_into() {
    let world = MemoryWorld::new();
    let (worker, store, _bus) = linked(&world, Settings::default()).await;
    store.lose_next_reply();
    let serving = echo(&worker.endpoint("a/b/c").unwrap()).await.unwrap();
    let written = world.entries().revision;
    store.lose_next_reply();
    let report = serving.stop().await;
    assert!(report.is_clean(), "{report}");
    assert_eq!((written.0, world.entries().revision.0), (2, 3));
}

/// A stopping endpoint never comes back: not with the next lease, not with a write that was delayed, and not
/// from a store that is put back to when it was there.
#[tokio::test(start_paused = true)]
async fn a_stopped_endpoint_never_comes_back() {
    let world = MemoryWorld::new();
    let (worker, store, _bus) = linked(&world, Settings::default()).await;
    let _other = echo(&worker.endpoint("a/b/other").unwrap()).await.unwrap();
    let serving = echo(&worker.endpoint("a/b/c").unwrap()).await.unwrap();
    let with_both = world.export();
    store.silence();
    let report = serving.stop().await;
    assert!(!report.is_clean(), "{report}");
    tokio::time::sleep(20 * SECOND).await;
    store.open();
    healed(&world, &worker, 2).await;
    let range = serving.path().endpoint().instances().into();
    let mut watch = world.discovery().watch(range, Start::Snapshot).await.unwrap();
    tokio::time::sleep(120 * SECOND).await;
    while let Some(batch) = watch.events.next().now_or_never() {
        assert_eq!(batch.unwrap().unwrap().changes, [], "it came back");
    }
    world.import(with_both);
    eventually("it is taken out again", || {
        let endpoints = records(&world);
        endpoints.len() == 1 && endpoints[0].endpoint().name().as_str() == "other"
    })
    .await;
}

/// An endpoint that is not well comes back as not ready.
#[tokio::test(start_paused = true)]
async fn an_unhealthy_endpoint_comes_back_unready() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let check = HealthCheck::new({
        let asked = asked.clone();
        move || {
            let first = asked.fetch_add(1, Ordering::SeqCst) == 0;
            async move { if first { Ok(()) } else { Err(Fault::new("ill", "from now on")) } }
        }
    });
    let _serving =
        echo(&worker.endpoint("a/b/c").unwrap()).health(check.with_interval(SECOND)).await.unwrap();
    eventually("it was well once", || records(&world)[0].ready).await;
    eventually("it is not ready", || !records(&world)[0].ready).await;
    for epoch in 2..4 {
        world.discovery().revoke(world.leases()[0]).await.unwrap();
        healed(&world, &worker, epoch).await;
        assert!(!records(&world)[0].ready);
    }
}

/// L10: under `Fence` a request is refused with `lease lost`, effect none, before anybody else can see the
/// lease gone, and served again with the next lease; what was accepted before goes on.
#[tokio::test(start_paused = true)]
async fn l10_fence_refuses_without_a_lease() {
    let world = MemoryWorld::new();
    let fenced = settings(|settings| settings.lease_policy = LeasePolicy::Fence);
    let (worker, store, _bus) = linked(&world, fenced).await;
    let (caller, view, _) = linked(&world, Settings::default()).await;
    let executed = Arc::new(AtomicUsize::new(0));
    let handler = {
        let executed = executed.clone();
        move |seconds: u32, _: Context| {
            executed.fetch_add(1, Ordering::SeqCst);
            async move {
                tokio::time::sleep(seconds * SECOND).await;
                Ok(seconds)
            }
        }
    };
    let _serving = worker.endpoint("a/b/c").unwrap().serve_unary(handler).await.unwrap();
    let client: Client<u32, u32> = caller.endpoint("a/b/c").unwrap().client().await.unwrap();
    client.wait_for_instances(1, SECOND).await.unwrap();
    // Its last view holds the worker's record, whatever becomes of that.
    view.cut();
    let script = async {
        tokio::time::sleep(SECOND).await;
        let mut lease = worker.lease();
        store.silence();
        lease.wait_for(|state| matches!(state, LeaseState::Lost { .. })).await.unwrap();
        assert_eq!(records(&world).len(), 1, "the loss is known before anybody can see it");
        for _ in 0..2 {
            let error = client.call(&0).await.unwrap_err();
            assert_eq!((error.code(), error.effect()), ("lease_lost", Effect::None), "{error}");
            eventually("the record is gone", || records(&world).is_empty()).await;
        }
        store.open();
        lease.wait_for(|state| matches!(state, LeaseState::Held { epoch: 2, .. })).await.unwrap();
        assert_eq!(client.call(&0).await.unwrap(), 0);
    };
    let (long, ()) = tokio::join!(client.request(&25).deadline(60 * SECOND).call(), script);
    assert_eq!((long.unwrap(), executed.load(Ordering::SeqCst)), (25, 2));
}

/// By default serving goes on without a lease.
#[tokio::test(start_paused = true)]
async fn keep_serving_serves_without_a_lease() {
    let world = MemoryWorld::new();
    let (worker, store, _bus) = linked(&world, Settings::default()).await;
    let serving = echo(&worker.endpoint("a/b/c").unwrap()).await.unwrap();
    store.cut();
    worker.lease().wait_for(|state| matches!(state, LeaseState::Lost { .. })).await.unwrap();
    let request = Message::new(serving.path().subject(), "\"on\"");
    let answer = world.messaging().request(request, SECOND).await.unwrap();
    assert_eq!(&answer.payload[..], b"\"on\"");
}

/// F41: a machine that slept past the end of its lease does not believe in it any more before it has asked.
#[tokio::test(start_paused = true)]
async fn f41_a_suspended_machine_does_not_trust_its_lease() {
    let world = MemoryWorld::new();
    let environment = Arc::new(SimEnvironment::new(7));
    let fenced = settings(|settings| settings.lease_policy = LeasePolicy::Fence);
    let worker = DistributedRuntime::builder()
        .memory(&world)
        .environment(environment.clone())
        .settings(fenced)
        .build()
        .await
        .unwrap();
    let serving = echo(&worker.endpoint("a/b/c").unwrap()).await.unwrap();
    let ask = async || {
        let request = Message::new(serving.path().subject(), "\"on\"");
        let answer = world.messaging().request(request, SECOND).await.unwrap();
        answer.headers.first("Slipring-Error").map(str::to_owned)
    };
    assert_eq!(ask().await, None);
    environment.jump_forward(60 * SECOND);
    assert_eq!(ask().await.as_deref(), Some("lease_lost"));
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(ask().await, None);
    let lost = |fact: &Fact| matches!(fact, Fact::LeaseLost { .. });
    assert!(!environment.facts().iter().any(lost), "the lease lives: it was not lost");
}

/// U12312: the time to live is a setting, and the lease as granted is what holds.
#[tokio::test(start_paused = true)]
async fn u12312_the_ttl_is_a_setting() {
    let world = MemoryWorld::with(Profile::etcd(), Arc::new(SimEnvironment::new(1)));
    for (asked, granted) in [(SECOND, 2 * SECOND), (5 * SECOND, 5 * SECOND)] {
        let own = settings(|settings| settings.lease_ttl = asked);
        let (worker, store, _bus) = linked(&world, own).await;
        tokio::time::sleep(60 * SECOND).await;
        assert!(matches!(worker.lease().get(), LeaseState::Held { epoch: 1, .. }));
        store.silence();
        let silent = tokio::time::Instant::now();
        worker.lease().wait_for(|state| matches!(state, LeaseState::Lost { .. })).await.unwrap();
        let took = silent.elapsed();
        assert!(took <= granted && took >= granted * 6 / 10, "{took:?} of {granted:?}");
    }
}

/// The runtime says what becomes of its lease, in order.
#[tokio::test(start_paused = true)]
async fn losses_and_returns_are_facts() {
    let world = MemoryWorld::new();
    let environment = Arc::new(SimEnvironment::new(7));
    let worker = DistributedRuntime::builder()
        .memory(&world)
        .environment(environment.clone() as Arc<dyn Environment>)
        .build()
        .await
        .unwrap();
    let first = world.leases()[0];
    world.discovery().revoke(first).await.unwrap();
    eventually("a new lease", || world.leases().len() == 1).await;
    let (instance, second) = (worker.instance_id(), world.leases()[0]);
    eventually("it is known", || environment.facts().len() == 3).await;
    assert_eq!(
        environment.facts(),
        [
            Fact::LeaseHeld { instance, lease: first, epoch: 1 },
            Fact::LeaseLost { instance, lease: first },
            Fact::LeaseHeld { instance, lease: second, epoch: 2 },
        ]
    );
    worker.stop().await;
    assert_eq!(worker.lease().get(), LeaseState::Released);
}

/// D06: a watch that ends, and a store that goes away for good, end neither the process nor its calls.
#[tokio::test(start_paused = true)]
async fn d06_a_dead_watch_ends_nothing_else() {
    let profile = Profile::exact().with_on_restore(slipring_memory::OnRestore::End);
    let world = MemoryWorld::with(profile, Arc::new(SimEnvironment::new(1)));
    let (worker, store, _bus) = linked(&world, Settings::default()).await;
    let endpoint = worker.endpoint("a/b/c").unwrap();
    let serving = echo(&endpoint).await.unwrap();
    let client: Client<String, String> = endpoint.client().await.unwrap();
    let call = async || client.call(&"on".to_owned()).await.unwrap();
    assert_eq!(call().await, "on");
    world.empty();
    store.cut();
    for _ in 0..10 {
        tokio::time::sleep(30 * SECOND).await;
        assert_eq!(call().await, "on");
        assert!(!worker.stopping().get());
    }
    store.open();
    healed(&world, &worker, 2).await;
    assert_eq!(call().await, "on");
    assert!(serving.stop().await.is_clean());
}

/// The leases of a fleet that is lost at once are replaced one by one, and everybody is back.
#[tokio::test(start_paused = true)]
async fn a_fleet_that_loses_its_leases_is_back() {
    let world = MemoryWorld::with(Profile::etcd(), Arc::new(SimEnvironment::new(1)));
    let mut fleet = Vec::new();
    for _ in 0..50 {
        let worker = runtime_with(&world, Settings::default()).await;
        let serving = echo(&worker.endpoint("a/b/c").unwrap()).await.unwrap();
        fleet.push((worker, serving));
    }
    let ids = |epoch: u64| {
        let records = records(&world);
        records.iter().filter(|record| record.epoch == epoch).map(|record| record.instance.id()).collect()
    };
    let before: Vec<u64> = ids(1);
    world.empty();
    eventually("all are back", || ids(2) == before).await;
    assert_eq!(before.len(), 50);
}

/// A store that holds back writes while it is told to, for ever.
#[derive(Debug)]
struct Delaying<D> {
    inner: D,
    /// What is held back, if anything is to be.
    hold: Arc<Mutex<Option<Vec<Txn>>>>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<D: Discovery> Discovery for Delaying<D> {
    async fn capabilities(&self) -> Result<DiscoveryCapabilities> {
        self.inner.capabilities().await
    }

    async fn read(&self, range: Range) -> Result<Snapshot> {
        self.inner.read(range).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit> {
        let first = match &mut *self.hold.lock().unwrap() {
            Some(held) if held.is_empty() => {
                held.push(txn.clone());
                true
            }
            _ => false,
        };
        if first {
            tokio::time::sleep(4 * SECOND).await;
            let cause = "the connection broke";
            return Err(Error::unavailable("the store", cause, Effect::Unknown));
        }
        self.inner.commit(txn).await
    }

    async fn watch(&self, range: Range, start: Start) -> Result<Watch> {
        self.inner.watch(range, start).await
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        self.inner.grant(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration> {
        self.inner.keep_alive(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.inner.revoke(lease).await
    }
}
