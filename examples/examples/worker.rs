//! A worker: serves an endpoint until it is told to stop, and says on standard output what becomes of it.
//!
//! ```text
//! cargo run -p examples --example worker -- --demo
//!
//! export SLIPRING_DISCOVERY=etcd://127.0.0.1:2379 SLIPRING_MESSAGING=nats://127.0.0.1:4222
//! cargo run --release -p examples --features etcd,nats --example worker -- --endpoint dynamo.processor.generate
//! ```
//!
//! Standard output is one line for each change: `registered`, `lost` (its lease), `re-registered epoch=2`,
//! `stopping`, `stopped requests=1000 failed=0`. Everything else goes to standard error. It answers any JSON
//! with that JSON and its own instance id, so any client of the broker can call it.
//!
//! Exit code: 0 after a clean stop, 1 if it could not start or a part of the stop was not confirmed, 2 for
//! arguments that it does not understand.

use std::convert::Infallible;
use std::process::ExitCode;
use std::time::Duration;

use examples::{Arguments, fail, log_to_stderr, refuse, say};
use futures_util::FutureExt;
use futures_util::future::try_join;
use serde_json::{Value, json};
use slipring::name::Reference;
use slipring::{
    Context, Discovery, DistributedRuntime, Instances, LeaseState, MemoryWorld, Result, Settings,
};
use tokio::time::sleep;

const USAGE: &str = "usage: worker --endpoint NAMESPACE.COMPONENT.ENDPOINT [--delay-ms N] [--demo]

  --endpoint  what to serve
  --delay-ms  how long each request takes (default 0)
  --demo      no servers: memory, with a caller in this process and a lease that is lost once

The backends come from SLIPRING_DISCOVERY, SLIPRING_MESSAGING and SLIPRING_DEPLOYMENT.";

#[tokio::main]
async fn main() -> ExitCode {
    log_to_stderr();
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => return refuse(&problem, USAGE),
    };
    let worked = if options.demo { demonstrate(options).await } else { work(options).await };
    worked.unwrap_or_else(fail)
}

struct Options {
    endpoint: Reference,
    delay: Duration,
    demo: bool,
}

impl Options {
    fn read(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let arguments = Arguments::read(arguments, &["endpoint", "delay-ms"], &["demo"])?;
        Ok(Self {
            endpoint: arguments.endpoint()?,
            delay: Duration::from_millis(arguments.value("delay-ms")?.unwrap_or(0)),
            demo: arguments.flag("demo"),
        })
    }
}

async fn work(options: Options) -> Result<ExitCode> {
    let runtime = DistributedRuntime::from_env().await?;
    serve(&runtime, &options).await
}

/// Serves until a signal comes, then stops in order.
async fn serve(runtime: &DistributedRuntime, options: &Options) -> Result<ExitCode> {
    let endpoint = runtime.endpoint(&options.endpoint.to_string())?;
    let (instance, delay) = (format!("{:x}", runtime.instance_id()), options.delay);
    let handler = move |request: Value, _: Context| {
        let instance = instance.clone();
        async move {
            sleep(delay).await;
            Ok(json!({ "instance": instance, "request": request }))
        }
    };
    let _serving = endpoint.serve_unary(handler).await?;
    let instances = endpoint.client::<Value, Value>().await?.instances();

    // Polled in this order: signals are listened for before anybody is told that the worker is there.
    let (report, ()) = try_join(runtime.run_until_signal(), tell(runtime, instances).map(Ok)).await?;
    say(format!("stopped requests={} failed={}", report.requests, report.errors));
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { fail(report) })
}

/// Says what becomes of the instance until it is stopped.
async fn tell(runtime: &DistributedRuntime, instances: Instances) {
    say("registered");
    let mut stopping = runtime.stopping();
    tokio::select! {
        biased;
        _ = stopping.wait_for(|stopping| *stopping) => say("stopping"),
        never = tell_losses(runtime, instances) => match never {},
    }
}

/// Says when the lease is lost, and when callers see the instance under its next one.
async fn tell_losses(runtime: &DistributedRuntime, mut instances: Instances) -> Infallible {
    let mut lease = runtime.lease();
    let mut told = 1;
    loop {
        lease.wait_for(|now| !matches!(now, LeaseState::Held { epoch, .. } if *epoch == told)).await;
        say("lost");
        told = loop {
            match instances.by_id(runtime.instance_id()).map(|instance| instance.epoch()) {
                Some(epoch) if epoch > told => break epoch,
                _ => instances.changed().await,
            }
        };
        say(format!("re-registered epoch={told}"));
    }
}

/// The worker in a world of its own, in which all its lines can be seen.
async fn demonstrate(options: Options) -> Result<ExitCode> {
    let world = MemoryWorld::new();
    let mut settings = Settings::default();
    settings.lease_ttl = Duration::from_secs(2);
    let runtime = DistributedRuntime::builder().memory(&world).settings(settings).build().await?;
    tokio::select! {
        biased;
        served = serve(&runtime, &options) => served,
        never = disturb(&world, &runtime, &options) => match never? {},
    }
}

/// Calls the worker now and then, and takes its lease away once.
async fn disturb(world: &MemoryWorld, worker: &DistributedRuntime, options: &Options) -> Result<Infallible> {
    let runtime = DistributedRuntime::builder().memory(world).build().await?;
    let client = runtime.endpoint(&options.endpoint.to_string())?.client::<u64, Value>().await?;
    let mut number = 0;
    loop {
        client.call(&number).await?;
        sleep(Duration::from_millis(100)).await;
        number += 1;
        if number == 10
            && let LeaseState::Held { lease, .. } = worker.lease().get()
        {
            world.discovery().revoke(lease).await?;
        }
    }
}
