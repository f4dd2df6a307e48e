//! Memory over requests that somebody gets and nobody answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use slipring::{Client, DistributedRuntime, MemoryWorld};
use slipring_bench::usage::rss_kib;
use slipring_bench::{ENDPOINT, messaging, records};
use slipring_core::{Bytes, DiscoveryExt, Message, Messaging, Subject};
use slipring_servers::Nats;
use tokio::task::JoinSet;

use crate::Args;
use crate::figures::print;

/// How long each is waited for.
const TIMEOUT: Duration = Duration::from_millis(20);
/// How many wait at a time.
const IN_FLIGHT: usize = 500;
/// A growth below this is none: the allocator's own doing.
const GROWTH_BYTES_MAX: f64 = 8.0;

pub(crate) async fn compare(args: &Args) -> Result<()> {
    let nats = Nats::start(args.version()).await;
    // The client that is known to keep something of each comes last.
    requests(args, &nats).await?;
    calls(args, &nats).await?;
    raw(args, &nats).await
}

/// The adapter's requests.
async fn requests(args: &Args, nats: &Nats) -> Result<()> {
    let subject = Subject::new("mute.requests")?;
    let _mute = mute(nats, subject.as_str()).await?;
    let broker = Arc::new(messaging(&nats.endpoint())?);
    broker.capabilities().await?;
    let ask = async || {
        let request = Message::new(subject.clone(), Bytes::from_static(b"is anybody there?"));
        broker.request(request, TIMEOUT).await.err().map(|error| error.code())
    };
    measure(args, "requests of the adapter", Some("deadline_exceeded"), ask).await
}

/// The component model's calls, to an instance that takes every request.
async fn calls(args: &Args, nats: &Nats) -> Result<()> {
    let world = MemoryWorld::new();
    let (key, record) = records(1)?.pop().context("one record")?;
    world.discovery().put(key, record, None).await?;
    let builder = DistributedRuntime::builder().discovery(world.discovery());
    let runtime = builder.messaging(messaging(&nats.endpoint())?).build().await?;
    let client: Client<String, String> = runtime.endpoint(ENDPOINT)?.client().await?;
    client.wait_for_instances(1, Duration::from_secs(10)).await?;
    let instance = client.instances().all().pop().context("one instance")?;
    let transports = serde_json::from_slice::<serde_json::Value>(&instance.record().encode())?;
    let subject = transports["transport"]["broker"].as_str().context("a subject")?.to_owned();
    let _mute = mute(nats, &subject).await?;
    let body = "is anybody there?".to_owned();
    let ask = async || client.request(&body).deadline(TIMEOUT).call().await.err().map(|error| error.code());
    measure(args, "calls", Some("deadline_exceeded"), ask).await?;
    runtime.stop().await;
    Ok(())
}

/// NATS's own client.
async fn raw(args: &Args, nats: &Nats) -> Result<()> {
    let _mute = mute(nats, "mute.raw").await?;
    let client = async_nats::connect(nats.endpoint()).await?;
    let ask = async || {
        let request = async_nats::Request::new().payload("is anybody there?".into()).timeout(Some(TIMEOUT));
        client.send_request("mute.raw", request).await.err().map(|_| "failed")
    };
    measure(args, "requests of the raw client", Some("failed"), ask).await
}

/// Takes every message of a subject, and keeps none.
async fn mute(nats: &Nats, subject: &str) -> Result<JoinSet<()>> {
    let client = async_nats::connect(nats.endpoint()).await?;
    let mut requests = client.subscribe(subject.to_owned()).await?;
    let (ready, heard) = tokio::sync::oneshot::channel();
    let mut task = JoinSet::new();
    let own = subject.to_owned();
    task.spawn(async move {
        let mut ready = Some(ready);
        while requests.next().await.is_some() {
            if let Some(ready) = ready.take() {
                let _ = ready.send(());
            }
        }
    });
    client.publish(own, "heard by the subscription itself".into()).await?;
    heard.await?;
    // The task keeps the subscription, which keeps the connection.
    Ok(task)
}

/// What the process grows by over so many, after a tenth of them to warm up.
async fn measure(
    args: &Args,
    what: &str,
    expected: Option<&str>,
    ask: impl AsyncFn() -> Option<&'static str>,
) -> Result<()> {
    let run = async |requests: u64| {
        let wrong = AtomicU64::new(0);
        let all = stream::iter(0..requests).map(Ok::<_, anyhow::Error>);
        all.try_for_each_concurrent(IN_FLIGHT, async |_| {
            wrong.fetch_add(u64::from(ask().await != expected), Ordering::Relaxed);
            Ok(())
        })
        .await?;
        let wrong = wrong.into_inner();
        ensure!(wrong == 0, "{wrong} of {requests} {what} did not end at their deadline");
        anyhow::Ok(())
    };
    run(args.unanswered / 10).await?;
    let before = rss_kib(std::process::id());
    run(args.unanswered).await?;
    let after = rss_kib(std::process::id());
    let each = (after as f64 - before as f64) * 1024.0 / args.unanswered as f64;
    let flat = each < GROWTH_BYTES_MAX;
    print(
        args.json,
        &format!(
            "{} {what} that nobody answers: resident {before} KiB before, {after} KiB after, {each:.1} bytes each ({})",
            args.unanswered,
            if flat { "flat" } else { "growing" },
        ),
        &json!({
            "figure": format!("memory of unanswered {what}"), "requests": args.unanswered,
            "before_kib": before, "after_kib": after, "bytes_each": each, "flat": flat,
        }),
    );
    Ok(())
}
