//! Health and statistics: an instance that is not well says so in its record, and routing prefers the others;
//! what each instance counts is asked for from anywhere.
//!
//! ```text
//! cargo run -p examples --example health
//! ```
#![expect(clippy::print_stdout, reason = "printing is what an example is for")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use slipring::{
    Client, Context, DistributedRuntime, Effect, Error, Fault, HealthCheck, MemoryWorld, Result, Serving,
};
use tokio::time::timeout;

/// A worker with a model that has to be loaded before it can answer well.
struct Worker {
    runtime: DistributedRuntime,
    loaded: Arc<AtomicBool>,
    _serving: Serving,
}

impl Worker {
    async fn start(world: &MemoryWorld, name: &'static str) -> Result<Self> {
        let runtime = DistributedRuntime::builder().memory(world).build().await?;
        let (loaded, letters) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));

        let model = loaded.clone();
        let check = HealthCheck::new(move || {
            let loaded = model.load(Relaxed);
            async move { if loaded { Ok(()) } else { Err(Fault::new("loading", "the model is not loaded")) } }
        });
        let counted = letters.clone();
        let handler = move |text: String, _: Context| {
            counted.fetch_add(text.len() as u64, Relaxed);
            async move { Ok(format!("{name} says {}", text.to_uppercase())) }
        };
        let serving = runtime
            .endpoint("demo/shouter/shout")?
            .serve_unary(handler)
            .label("name", name)
            .health(check.with_interval(Duration::from_millis(50)))
            .stats(move || serde_json::json!({ "letters": letters.load(Relaxed) }))
            .await?;
        Ok(Self { runtime, loaded, _serving: serving })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let world = MemoryWorld::new();
    let workers = [Worker::start(&world, "anna").await?, Worker::start(&world, "bert").await?];
    let runtime = DistributedRuntime::builder().memory(&world).build().await?;
    let client = runtime.endpoint("demo/shouter/shout")?.client::<String, String>().await?;

    println!("nobody is ready: better somebody than nobody");
    ready(&client, 0).await?;
    shout(&client).await?;

    println!("\nanna is ready, and gets all the work");
    workers[0].loaded.store(true, Relaxed);
    ready(&client, 1).await?;
    shout(&client).await?;

    println!("\nboth are ready");
    workers[1].loaded.store(true, Relaxed);
    ready(&client, 2).await?;
    shout(&client).await?;

    println!("\nwhat the instances count:");
    let component = runtime.namespace("demo")?.component("shouter")?;
    for service in runtime.inspect(&component, Duration::from_millis(200)).await? {
        for endpoint in &service.endpoints {
            let (requests, errors) = (endpoint.num_requests, endpoint.num_errors);
            println!("  {}: {requests} requests, {errors} errors, {}", service.id, endpoint.data);
        }
    }
    for worker in &workers {
        worker.runtime.stop().await;
    }
    runtime.stop().await;
    Ok(())
}

/// Waits until so many of the two instances are ready, and lists them.
async fn ready(client: &Client<String, String>, count: usize) -> Result<()> {
    let limit = Duration::from_secs(5);
    let mut instances = client.instances();
    let seen = instances.wait_until(|all| {
        all.len() == 2 && all.iter().filter(|instance| instance.is_ready()).count() == count
    });
    let late = |_| Error::deadline_exceeded(format!("waiting for {count} ready"), limit, Effect::None);
    timeout(limit, seen).await.map_err(late)?;
    for instance in instances.all() {
        let name = instance.record().labels.value("name").unwrap_or("?");
        println!("  {name}: {}", if instance.is_ready() { "ready" } else { "not ready" });
    }
    Ok(())
}

async fn shout(client: &Client<String, String>) -> Result<()> {
    for text in ["hear", "me", "now", "please"] {
        println!("  {}", client.call(&text.to_owned()).await?);
    }
    Ok(())
}
