//! A rolling restart under load: one worker after the other is replaced while callers go on calling, and not
//! a single request fails.
//!
//! ```text
//! cargo run -p examples --example stop_under_load
//! ```
#![expect(clippy::print_stdout, reason = "printing is what an example is for")]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures_util::future::join_all;
use slipring::{Client, Context, DistributedRuntime, MemoryWorld, Result, Serving};
use tokio::time::sleep;

const WORKERS: usize = 3;
const CALLERS: usize = 32;

#[tokio::main]
async fn main() -> Result<()> {
    let world = MemoryWorld::new();
    let mut workers = VecDeque::new();
    for _ in 0..WORKERS {
        workers.push_back(start(&world).await?);
    }
    let runtime = DistributedRuntime::builder().memory(&world).build().await?;
    let client = runtime.endpoint("demo/worker/work")?.client::<u64, u64>().await?;
    client.wait_for_instances(WORKERS, Duration::from_secs(5)).await?;

    let over = AtomicBool::new(false);
    let callers = join_all((0..CALLERS).map(|_| call_until(&client, &over)));
    let restart = async {
        let served = restart_all(&world, &mut workers).await;
        over.store(true, Relaxed);
        served
    };
    let (tallies, served) = tokio::join!(callers, restart);

    let served = served?;
    let answered: u64 = tallies.iter().map(|tally| tally.answered).sum();
    let failed: Vec<_> = tallies.into_iter().flat_map(|tally| tally.failed).collect();
    println!(
        "\n{answered} requests were answered ({served} by workers that are gone), {} failed",
        failed.len()
    );
    assert!(failed.is_empty(), "requests failed: {failed:?}");
    assert!(answered > 0 && served > 0, "nothing was asked of the workers");

    for (worker, _serving) in &workers {
        worker.stop().await;
    }
    runtime.stop().await;
    Ok(())
}

/// A worker: its runtime, and what it serves.
async fn start(world: &MemoryWorld) -> Result<(DistributedRuntime, Serving)> {
    let runtime = DistributedRuntime::builder().memory(world).build().await?;
    let work = |number: u64, _: Context| async move {
        sleep(Duration::from_millis(5 + number % 20)).await;
        Ok(number * number)
    };
    let serving = runtime.endpoint("demo/worker/work")?.serve_unary(work).await?;
    Ok((runtime, serving))
}

/// Replaces every worker, the new one first, and returns how many requests the old ones served.
async fn restart_all(
    world: &MemoryWorld,
    workers: &mut VecDeque<(DistributedRuntime, Serving)>,
) -> Result<u64> {
    let mut served = 0;
    for _ in 0..WORKERS {
        workers.push_back(start(world).await?);
        sleep(Duration::from_millis(200)).await;
        let Some((old, _serving)) = workers.pop_front() else { break };
        let report = old.stop().await;
        println!("worker {:x} stopped:\n{report}\n", old.instance_id());
        assert!(report.is_clean(), "a stop under load is a clean one");
        served += report.requests;
    }
    Ok(served)
}

/// What became of one caller's requests.
#[derive(Default)]
struct Tally {
    answered: u64,
    failed: Vec<slipring::Error>,
}

async fn call_until(client: &Client<u64, u64>, over: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    for number in 0.. {
        if over.load(Relaxed) {
            break;
        }
        match client.call(&number).await {
            Ok(_) => tally.answered += 1,
            Err(error) => tally.failed.push(error),
        }
    }
    tally
}
