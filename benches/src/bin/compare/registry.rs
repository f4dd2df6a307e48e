//! Instances in etcd: put and seen, registered, and found.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp, WatchOptions, WatchStream};
use futures_util::{StreamExt, TryStreamExt, stream};
use slipring::{Client, Context, DistributedRuntime, InstanceChange, Instances, MemoryWorld};
use slipring_bench::{ENDPOINT, discovery, records};
use slipring_core::{Bytes, Commit, Discovery, DiscoveryExt, Key};
use slipring_servers::Etcd;

use crate::Args;
use crate::figures::{Figure, Goal, Neighbours, median, now, seconds_since, sorted};

/// What is under way at a time.
const IN_FLIGHT: usize = 64;
/// Between two puts, so that each finds both sides at rest.
const PAUSE: Duration = Duration::from_millis(3);
/// Until something counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn compare(args: &Args) -> Result<()> {
    put_to_seen(args).await?;
    register(args).await?;
    find(args).await
}

/// A put by one client until another has seen it: in its view of the instances, or from its watch.
async fn put_to_seen(args: &Args) -> Result<()> {
    let etcd = Etcd::start(args.version()).await;
    let mut figure = Figure::new("put to seen, us (p50 of a lap)", Goal::AtMost(1.25));
    let (mut ours, mut raw) = (Ours::open(&etcd).await?, Raw::open(&etcd).await?);
    let mut records = records(u64::from(args.puts) * u64::from(args.laps))?.into_iter();
    for _ in 0..args.laps {
        let neighbours = Neighbours::watch(&[etcd.id()]);
        let (mut ours_us, mut raw_us) = (Vec::new(), Vec::new());
        for (key, value) in records.by_ref().take(args.puts as usize) {
            ours_us.push(ours.put_and_see(key.clone(), value.clone()).await?);
            tokio::time::sleep(PAUSE).await;
            raw_us.push(raw.put_and_see(&key, &value).await?);
            tokio::time::sleep(PAUSE).await;
        }
        let p50 = |all: Vec<f64>| median(&sorted(all.into_iter()));
        figure.add(p50(ours_us), p50(raw_us), neighbours.cores());
    }
    figure.print(args.json);
    ours.runtime.stop().await;
    Ok(())
}

struct Ours {
    writer: Arc<dyn Discovery>,
    runtime: DistributedRuntime,
    seen: Instances,
}

impl Ours {
    async fn open(etcd: &Etcd) -> Result<Self> {
        let runtime = runtime(etcd).await?;
        let mut seen = runtime.endpoint(ENDPOINT)?.client::<String, String>().await?.instances();
        ensure!(matches!(seen.next().await, InstanceChange::Snapshot(_)), "a view begins with a snapshot");
        let writer = Arc::new(discovery(&etcd.endpoint())?);
        writer.capabilities().await?;
        Ok(Self { writer, runtime, seen })
    }

    async fn put_and_see(&mut self, key: Key, value: Bytes) -> Result<f64> {
        let began = now();
        let seen = async {
            let change = tokio::time::timeout(PATIENCE, self.seen.next()).await?;
            ensure!(matches!(change, InstanceChange::Put(_)), "{change:?} instead of a new instance");
            Ok(seconds_since(began) * 1e6)
        };
        let put = async { Ok(self.writer.put(key, value, None).await?) };
        let (us, _) = tokio::try_join!(seen, put)?;
        Ok(us)
    }
}

struct Raw {
    writer: etcd_client::KvClient,
    _watcher: etcd_client::Client,
    seen: WatchStream,
}

impl Raw {
    const PREFIX: &str = "raw/";

    async fn open(etcd: &Etcd) -> Result<Self> {
        let (writer, watcher) = (raw_client(etcd).await?, raw_client(etcd).await?);
        let options = WatchOptions::new().with_prefix();
        let mut seen = watcher.watch_client().watch(Self::PREFIX, Some(options)).await?;
        // The answer that it exists.
        seen.message().await?;
        Ok(Self { writer: writer.kv_client(), _watcher: watcher, seen })
    }

    async fn put_and_see(&mut self, key: &Key, value: &Bytes) -> Result<f64> {
        let began = now();
        let seen = async {
            let message = tokio::time::timeout(PATIENCE, self.seen.message()).await??;
            ensure!(message.is_some_and(|message| !message.events().is_empty()), "the watch ended");
            Ok(seconds_since(began) * 1e6)
        };
        let key = format!("{}{key}", Self::PREFIX);
        let put = async { Ok(self.writer.put(key, value.to_vec(), None).await?) };
        let (us, _) = tokio::try_join!(seen, put)?;
        Ok(us)
    }
}

/// So many instances, 64 of them under way at a time. Raw: as many transactions that create a key under one
/// lease. Ours: as many endpoints served by one runtime, and as many creations by the adapter alone.
async fn register(args: &Args) -> Result<()> {
    let mut served = Figure::new("registering instances (endpoints served), s", Goal::AtMost(1.5));
    let mut created = Figure::new("registering instances (the adapter alone), s", Goal::AtMost(1.5));
    for lap in 0..args.laps {
        let etcd = Etcd::start(args.version()).await;
        let neighbours = Neighbours::watch(&[etcd.id()]);
        let (raw, ours);
        if lap % 2 == 0 {
            raw = create_raw(args, &etcd).await?;
            ours = serve(args, &etcd).await?;
        } else {
            ours = serve(args, &etcd).await?;
            raw = create_raw(args, &etcd).await?;
        }
        let adapter = create(args, &etcd).await?;
        let foreign = neighbours.cores();
        served.add(ours, raw, foreign);
        created.add(adapter, raw, foreign);
    }
    served.print(args.json);
    created.print(args.json);
    Ok(())
}

async fn serve(args: &Args, etcd: &Etcd) -> Result<f64> {
    let runtime = runtime(etcd).await?;
    let began = now();
    let mut serving = stream::iter(0..args.instances)
        .map(|number| {
            let endpoint = runtime.endpoint(&format!("bench/worker/e{number}"));
            async move { endpoint?.serve_unary(async |text: String, _: Context| Ok(text)).await }
        })
        .buffer_unordered(IN_FLIGHT);
    let mut servings = Vec::new();
    while let Some(one) = serving.try_next().await? {
        servings.push(one);
    }
    let seconds = seconds_since(began);
    drop(serving);
    runtime.stop().await;
    Ok(seconds)
}

async fn create(args: &Args, etcd: &Etcd) -> Result<f64> {
    let store = Arc::new(discovery(&etcd.endpoint())?);
    let lease = store.grant(PATIENCE).await?;
    let records = records(args.instances)?;
    let began = now();
    let all = stream::iter(records).map(Ok::<_, anyhow::Error>);
    all.try_for_each_concurrent(IN_FLIGHT, async |(key, value)| {
        let commit = store.create(key, value, Some(lease.id)).await?;
        ensure!(matches!(commit, Commit::Applied(_)), "a key that existed already");
        Ok(())
    })
    .await?;
    Ok(seconds_since(began))
}

async fn create_raw(args: &Args, etcd: &Etcd) -> Result<f64> {
    let client = raw_client(etcd).await?;
    let lease = client.lease_client().grant(PATIENCE.as_secs() as i64, None).await?.id();
    let records = records(args.instances)?;
    let began = now();
    let all = stream::iter(records).map(Ok::<_, anyhow::Error>);
    all.try_for_each_concurrent(IN_FLIGHT, async |(key, value)| {
        let key = format!("{}{key}", Raw::PREFIX);
        let absent = Compare::version(key.clone(), CompareOp::Equal, 0);
        let put = TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)));
        let reply = client.kv_client().txn(Txn::new().when([absent]).and_then([put])).await?;
        ensure!(reply.succeeded(), "a key that existed already");
        Ok(())
    })
    .await?;
    Ok(seconds_since(began))
}

/// Instances that are there: from the start of a client until it has seen them all, and a raw read of their
/// prefix. Both connect anew.
async fn find(args: &Args) -> Result<()> {
    let etcd = Etcd::start(args.version()).await;
    let mut with_runtime = Figure::new("instances found, with the runtime's own start, s", Goal::Below(0.3));
    let mut client_only = Figure::new("instances found, from the client's start, s", Goal::Below(0.3));
    let store = Arc::new(discovery(&etcd.endpoint())?);
    let all = stream::iter(records(args.instances)?).map(Ok::<_, anyhow::Error>);
    all.try_for_each_concurrent(IN_FLIGHT, async |(key, value)| {
        store.put(key, value, None).await?;
        Ok(())
    })
    .await?;
    let (key, _) = records(1)?.pop().context("one record")?;
    let prefix = key.as_str().rsplit_once(':').context("the key of an instance")?.0.to_owned() + ":";
    for _ in 0..args.laps {
        let neighbours = Neighbours::watch(&[etcd.id()]);
        let began = now();
        let runtime = runtime(&etcd).await?;
        let built = seconds_since(began);
        let client: Client<String, String> = runtime.endpoint(ENDPOINT)?.client().await?;
        client.wait_for_instances(args.instances as usize, PATIENCE).await?;
        let found = seconds_since(began);
        runtime.stop().await;
        let began = now();
        let options = GetOptions::new().with_prefix();
        let read = raw_client(&etcd).await?.kv_client().get(prefix.clone(), Some(options)).await?;
        ensure!(read.kvs().len() as u64 == args.instances, "{} keys", read.kvs().len());
        let (raw, foreign) = (seconds_since(began), neighbours.cores());
        with_runtime.add(found, raw, foreign);
        client_only.add(found - built, raw, foreign);
    }
    with_runtime.print(args.json);
    client_only.print(args.json);
    Ok(())
}

/// On etcd, with messages in memory: nothing but the store is measured.
async fn runtime(etcd: &Etcd) -> Result<DistributedRuntime> {
    let builder = DistributedRuntime::builder().discovery(discovery(&etcd.endpoint())?);
    Ok(builder.messaging(MemoryWorld::new().messaging()).build().await?)
}

async fn raw_client(etcd: &Etcd) -> Result<etcd_client::Client> {
    Ok(etcd_client::Client::connect([etcd.endpoint()], None).await?)
}
