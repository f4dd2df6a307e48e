//! Typed events on a namespace and on a component, and what a subscriber learns when it is too slow.
//!
//! ```text
//! cargo run -p examples --example events
//! ```
#![expect(clippy::print_stdout, reason = "printing is what an example is for")]

use std::time::Duration;

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use slipring::{DistributedRuntime, Error, Event, MemoryWorld, Result};
use tokio::time::timeout;

/// What a worker says about its cache.
#[derive(Debug, Serialize, Deserialize)]
enum Cache {
    Stored { block: u32 },
    Evicted { block: u32 },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let world = MemoryWorld::new();
    let worker = DistributedRuntime::builder().memory(&world).build().await?;
    let router = DistributedRuntime::builder().memory(&world).build().await?;

    // Whoever subscribes gets what is published from then on: here to all of a namespace ...
    let mut notices = router.namespace("demo")?.events::<String>("notices")?.subscribe().await?;
    worker.namespace("demo")?.events("notices")?.publish(&"maintenance at noon".to_owned()).await?;
    if let Some(notice) = notices.next().await {
        println!("a notice to the namespace: {}", notice?.data);
    }

    // ... and here to one component of it.
    let cache = worker.namespace("demo")?.component("worker")?.events::<Cache>("cache")?;
    let mut seen =
        router.namespace("demo")?.component("worker")?.events::<Cache>("cache")?.subscribe().await?;
    println!("\ncache events go to {}", cache.subject());
    cache.publish(&Cache::Stored { block: 1 }).await?;
    cache.publish(&Cache::Evicted { block: 1 }).await?;
    for _ in 0..2 {
        if let Some(event) = seen.next().await {
            let Event { data, publisher, sequence, .. } = event?;
            println!("{data:?}: number {sequence} of publisher {:x}", publisher.unwrap_or_default());
        }
    }

    // A subscriber that does not read in time loses the newest, because its buffer is bounded. Events are
    // numbered, so the next one that arrives shows how many are missing before it; the stream goes on.
    let burst = 70_000;
    for block in 0..burst {
        cache.publish(&Cache::Stored { block }).await?;
    }
    let mut read = 0;
    while let Ok(Some(event)) = timeout(Duration::from_millis(100), seen.next()).await {
        event?;
        read += 1;
    }
    println!("\n{burst} events were published while nobody read: {read} are still there");
    cache.publish(&Cache::Evicted { block: 0 }).await?;
    let Some(Err(Error::Lagged { missed, .. })) = seen.next().await else { panic!("a loss went unseen") };
    println!("{missed} were lost, says the next one");
    assert_eq!(read + missed, u64::from(burst), "an event is read, or counted as lost");
    if let Some(event) = seen.next().await {
        println!("{:?}", event?.data);
    }

    worker.stop().await;
    router.stop().await;
    Ok(())
}
