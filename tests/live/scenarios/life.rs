//! The life of an instance: it starts, loses its lease, stops, and is replaced.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use slipring::{Client, Context, DistributedRuntime, Fault, LeaseState, Lifecycle, Serving};
use slipring_core::{Key, LeaseId};
use tokio::sync::mpsc;

use super::load::Load;
use crate::backends::{Backends, WORK, eventually};

const SOON: Duration = Duration::from_secs(5);

/// A worker that counts to what it is asked for, with a pause before each number.
async fn counting(backends: &Backends, pause: Duration) -> (DistributedRuntime, Serving) {
    let runtime = backends.runtime().await;
    let count = move |to: u64, _: Context| async move {
        Ok(stream::iter(1..=to).then(move |item| async move {
            tokio::time::sleep(pause).await;
            Ok::<_, Fault>(item)
        }))
    };
    let serving = runtime.endpoint(WORK).unwrap().serve(count).await.unwrap();
    (runtime, serving)
}

fn lease(runtime: &DistributedRuntime) -> (LeaseId, u64) {
    let LeaseState::Held { lease, epoch } = runtime.lease().get() else { panic!("it has no lease") };
    (lease, epoch)
}

/// Ready means registered and subscribed: the steps of the life come in order, the record stands under its key
/// with the runtime's lease, the very first call succeeds, and the statistics know of it.
pub(crate) async fn start(backends: &Backends) {
    let (caller, worker) = (backends.runtime().await, backends.runtime().await);
    let endpoint = worker.endpoint(WORK).unwrap();
    let double = |number: u64, _: Context| async move { Ok::<_, Fault>(number * 2) };
    let starting = endpoint.serve_unary(double);
    let mut life = starting.lifecycle();
    assert_eq!(life.get(), Lifecycle::Created);
    let serving = starting.await.unwrap();
    assert_eq!(life.changed().now_or_never().flatten(), Some(Lifecycle::Healthy));

    let records = backends.records().await;
    let [record] = &records[..] else { panic!("one record, not {records:?}") };
    let id = worker.instance_id();
    assert_eq!(record.key(), Key::new(format!("fleet/components/worker/work:{id:x}")).unwrap());
    assert_eq!((record.lease, record.epoch, record.instance.id()), (LeaseId(id), 1, id));
    assert_eq!(record.transport["broker"], serving.path().subject().as_str());
    assert_eq!(lease(&worker), (LeaseId(id), 1));

    let client: Client<u64, u64> = caller.endpoint(WORK).unwrap().client().await.unwrap();
    assert_eq!(client.call(&21).await.unwrap(), 42);
    let again = endpoint.serve_unary(double).await.unwrap_err();
    assert_eq!(again.code(), "already_exists");
    let component = caller.namespace("fleet").unwrap().component("worker").unwrap();
    let reports = caller.inspect(&component, Duration::from_millis(500)).await.unwrap();
    let [report] = &reports[..] else { panic!("one report, not {reports:?}") };
    assert_eq!((report.endpoints.len(), report.endpoints[0].num_requests), (1, 1));
}

/// A lease that ends is no end of the process: the same instance is back on a new lease in its second epoch,
/// callers go on calling it, and a stream in flight does not notice.
pub(crate) async fn lost_lease(backends: &Backends) {
    let (worker, _serving) = counting(backends, Duration::from_millis(20)).await;
    let caller = backends.runtime().await;
    let client: Client<u64, u64> = caller.endpoint(WORK).unwrap().client().await.unwrap();
    let mut items = client.generate(&100).await.unwrap();
    assert_eq!(items.next().await.unwrap().unwrap(), 1);
    let mut instances = client.instances();
    for epoch in 2..4 {
        let (old, _) = lease(&worker);
        backends.discovery().revoke(old).await.unwrap();
        let call = client.call(&1);
        let seen = instances.wait_until(|all| all.iter().any(|instance| instance.epoch() == epoch));
        let (answer, seen) = tokio::join!(call, tokio::time::timeout(SOON, seen));
        assert_eq!((answer.unwrap(), seen), (1, Ok(())));
        let records = backends.records().await;
        let [record] = &records[..] else { panic!("one record, not {records:?}") };
        assert_eq!(record.instance.id(), worker.instance_id());
        assert_eq!((record.lease, record.epoch), lease(&worker));
        assert_ne!(record.lease, old);
    }
    let rest: Vec<_> = items.map(Result::unwrap).collect().await;
    assert_eq!(rest, (2..=100).collect::<Vec<_>>());
    assert!(!worker.stopping().get());
}

/// A stop answers what is in flight, takes the record and the lease away, is seen by the callers, and says of
/// each phase that it was done; what was told to stop serves nothing more.
pub(crate) async fn stop(backends: &Backends) {
    let worker = backends.runtime().await;
    let (began, mut begun) = mpsc::channel(1);
    let slow = {
        let worker = worker.clone();
        move |(): (), _: Context| {
            let (began, mut stopping) = (began.clone(), worker.stopping());
            async move {
                began.send(()).await?;
                stopping.wait_for(|stopping| *stopping).await;
                // Past the grace for watchers: it is drained, not just served as before.
                tokio::time::sleep(Duration::from_millis(500)).await;
                Ok::<_, Fault>("in time".to_owned())
            }
        }
    };
    let endpoint = worker.endpoint(WORK).unwrap();
    let serving = endpoint.serve_unary(slow).await.unwrap();
    let caller = backends.runtime().await;
    let client: Client<(), String> = caller.endpoint(WORK).unwrap().client().await.unwrap();
    let mut instances = client.instances();
    let (lease, _) = lease(&worker);
    let stopping = async {
        begun.recv().await.unwrap();
        worker.stop().await
    };
    let (answer, report) = tokio::join!(client.call(&()), stopping);
    assert_eq!(answer.unwrap(), "in time");
    assert!(report.is_clean() && (report.requests, report.abandoned) == (1, 0), "{report}");
    tokio::time::timeout(SOON, instances.wait_until(|all| all.is_empty())).await.unwrap();
    assert_eq!(backends.records().await, []);
    assert_eq!(backends.discovery().keep_alive(lease).await.unwrap_err().code(), "lease_lost");
    assert_eq!(serving.lifecycle().get(), Lifecycle::Deregistered);
    let late = client.request(&()).deadline(Duration::from_millis(300)).call().await.unwrap_err();
    assert_eq!(late.code(), "no_instances", "{late}");
    let quick = |(): (), _: Context| async { Ok::<_, Fault>(()) };
    assert_eq!(endpoint.serve_unary(quick).await.unwrap_err().code(), "draining");
}

/// Instances are replaced one after another under load: no call fails, none is executed twice, every stop is
/// clean, and nothing is left in the store of those that went.
pub(crate) async fn rolling_restart(backends: &Backends) {
    const INSTANCES: usize = 3;
    const ROUNDS: usize = 2;
    let pause = Duration::from_millis(5);
    let mut workers = Vec::new();
    for _ in 0..INSTANCES {
        workers.push(counting(backends, pause).await);
    }
    let caller = backends.runtime().await;
    let client: Client<u64, u64> = caller.endpoint(WORK).unwrap().client().await.unwrap();
    client.wait_for_instances(INSTANCES, SOON).await.unwrap();
    let load = Load::start(&client, 8);
    let mut served = 0;
    for _ in 0..ROUNDS {
        for worker in &mut workers {
            load.more_calls(20).await;
            let replacement = counting(backends, pause).await;
            let (old, _serving) = std::mem::replace(worker, replacement);
            let report = old.stop().await;
            assert!(report.is_clean() && report.abandoned == 0, "{report}");
            served += report.requests;
        }
    }
    let calls = load.stop().await;
    for (worker, _) in &workers {
        served += worker.stop().await.requests;
    }
    assert_eq!(served, calls, "every call was executed once");
    eventually("no record is left", async || backends.records().await.is_empty()).await;
}
