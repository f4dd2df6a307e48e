//! F37: calls, starts and stops are dropped at each of their await points, in simulated worlds, and nothing is left
//! of them.

use std::cell::Cell;
use std::time::Duration;

use crate::common::{WORK, eventually, records, runtime_on, seconds, who};
use futures_util::{StreamExt, stream};
use slipring::{Client, Context, DistributedRuntime, Endpoint, Fault, Serving};
use slipring_memory::Profile;
use slipring_sim::check::{Terms, check};
use slipring_sim::{Latency, Setup, World, cancelled_after, simulate};

/// More await points than anything here has.
const WAITS_MAX: u32 = 400;

/// A worker, and a caller that has found it.
struct Scene {
    world: World,
    worker: DistributedRuntime,
    caller: DistributedRuntime,
}

impl Scene {
    async fn begin(world: World) -> Self {
        let worker = runtime_on(&world.node("worker")).await;
        let caller = runtime_on(&world.node("caller")).await;
        Self { world, worker, caller }
    }

    fn endpoint(&self) -> Endpoint {
        self.worker.endpoint(WORK).unwrap()
    }

    async fn serve(&self) -> Serving {
        self.endpoint().serve_unary(who).await.unwrap()
    }

    async fn client(&self) -> Client<(), u64> {
        let client = self.caller.endpoint(WORK).unwrap().client().await.unwrap();
        client.wait_for_instances(1, seconds(10)).await.unwrap();
        client
    }

    /// Nobody is registered, nothing is served, and no call is under way.
    async fn is_empty(&self) {
        eventually("nobody is registered", || records(self.world.memory()).is_empty()).await;
        eventually("nothing is served", || self.worker.registry().services() == 0).await;
        eventually("no call is under way", || self.caller.calls_in_flight() == 0).await;
    }

    async fn end(self) {
        for runtime in [&self.caller, &self.worker] {
            let report = runtime.stop().await;
            assert!(report.is_clean(), "{report}");
        }
        drop((self.worker, self.caller));
        let memory = self.world.memory();
        eventually("no lease is left", || memory.leases().is_empty()).await;
        eventually("nothing is subscribed", || memory.messaging().subscriptions() == 0).await;
    }
}

/// Does it with one wait more each time, in a world of its own, until nothing is dropped any more; each history keeps
/// all promises. At least so many waits were tried.
fn at_each_wait(waits_min: u32, act: impl AsyncFn(&Scene, u32) -> bool) {
    let latency = Latency::between(Duration::ZERO, Duration::from_millis(20));
    let setup = Setup::from(Profile::etcd()).with_latency(latency).with_shuffling(true);
    for waits in 0..WAITS_MAX {
        let done = Cell::new(false);
        let report = simulate(u64::from(waits), setup.clone(), async |world| {
            let scene = Scene::begin(world).await;
            done.set(act(&scene, waits).await);
            scene.end().await;
        });
        assert_eq!(check(&report.history, Terms::new(Profile::etcd())), [], "after {waits} waits");
        if done.get() {
            assert!(waits >= waits_min, "it has {waits} await points only");
            return;
        }
    }
    panic!("it has more than {WAITS_MAX} await points");
}

/// A call that is dropped leaves nothing under way, neither here nor there, and the next one is answered.
#[test]
fn f37_a_call_is_dropped_at_each_await_point() {
    at_each_wait(2, async |scene, waits| {
        let serving = scene.serve().await;
        let client = scene.client().await;
        let answer = cancelled_after(waits, client.call(&())).await;
        eventually("no call is under way", || scene.caller.calls_in_flight() == 0).await;
        eventually("no request is worked on", || serving.in_flight() == 0).await;
        let instance = Ok(scene.worker.instance_id());
        assert_eq!(client.call(&()).await, instance);
        answer.inspect(|answer| assert_eq!(*answer, instance)).is_some()
    });
}

/// A stream that is dropped at any item, or between two, ends its handler; what came until then came in order.
#[test]
fn f37_a_stream_is_dropped_at_each_await_point() {
    const ITEMS: u64 = 5;
    let count = |(): (), _: Context| async {
        let item = |number| async move {
            tokio::time::sleep(Duration::from_millis(30)).await;
            Ok::<_, Fault>(number)
        };
        Ok(stream::iter(0..ITEMS).then(item))
    };
    at_each_wait(2 + ITEMS as u32, async |scene, waits| {
        let serving = scene.endpoint().serve(count).await.unwrap();
        let client = scene.client().await;
        let mut came = 0;
        let read = cancelled_after(waits, async {
            let mut items = client.generate(&()).await.unwrap();
            while let Some(item) = items.next().await {
                assert_eq!(item, Ok(came));
                came += 1;
            }
        });
        let done = read.await.is_some();
        assert!(!done || came == ITEMS, "{came} items");
        eventually("no call is under way", || scene.caller.calls_in_flight() == 0).await;
        eventually("no request is worked on", || serving.in_flight() == 0).await;
        done
    });
}

/// A start that is dropped leaves no record, no service and no claim: the endpoint is served again at once.
#[test]
fn f37_a_start_is_dropped_at_each_await_point() {
    at_each_wait(4, async |scene, waits| {
        let starting = scene.endpoint().serve_unary(who).into_future();
        let serving = cancelled_after(waits, starting).await;
        if let Some(serving) = serving {
            assert!(serving.unwrap().stop().await.is_clean());
            return true;
        }
        let again = scene.serve().await;
        assert_eq!(scene.client().await.call(&()).await, Ok(scene.worker.instance_id()));
        assert!(again.stop().await.is_clean());
        drop(again);
        scene.is_empty().await;
        false
    });
}

/// A stop that is dropped has begun all the same, from its first await point on: nothing brings the endpoint back. A
/// further stop ends what the first one began; and so does dropping the endpoint.
#[test]
fn f37_a_stop_is_dropped_at_each_await_point() {
    for stops_again in [true, false] {
        at_each_wait(3, async |scene, waits| {
            let serving = scene.serve().await;
            let client = scene.client().await;
            let mut under_way = Box::pin(client.call(&()));
            let _not_yet = cancelled_after(1, under_way.as_mut()).await;
            let report = cancelled_after(waits, serving.stop()).await;
            let done = report.inspect(|report| assert!(report.is_clean(), "{report}")).is_some();
            if stops_again {
                let report = serving.stop().await;
                assert!(report.is_clean(), "{report}");
            }
            drop((under_way, serving));
            scene.is_empty().await;
            done
        });
    }
}

/// A runtime's stop that is dropped has begun all the same, and is ended by the next one, which is clean.
#[test]
fn f37_a_runtimes_stop_is_dropped_at_each_await_point() {
    at_each_wait(4, async |scene, waits| {
        let serving = scene.serve().await;
        let _client = scene.client().await;
        let report = cancelled_after(waits, scene.worker.stop()).await;
        assert!(scene.worker.stopping().get() || waits == 0);
        let again = scene.worker.stop().await;
        assert!(again.is_clean(), "after {waits} waits: {again}");
        drop(serving);
        scene.is_empty().await;
        report.is_some()
    });
}
