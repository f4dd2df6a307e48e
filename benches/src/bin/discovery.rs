//! What it costs a client to know its instances: time, and memory. Prints a line for each figure, as JSON with
//! `--json`.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use serde_json::{Value, json};
use slipring::{Client, DistributedRuntime, MemoryWorld};
use slipring_bench::usage::{Usage, rss_kib};
use slipring_bench::{ENDPOINT, records};
use slipring_core::DiscoveryExt;

/// What to measure.
#[derive(Parser, Clone, Debug)]
#[command(about = "What it costs a client of slipring to know its instances, in memory")]
struct Args {
    /// Instances whose arrival is timed.
    #[arg(long, default_value_t = 10_000)]
    instances: u64,
    /// How often it is timed: CPU time is counted in ticks of 10 ms.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    laps: u32,
    /// Clients whose memory is measured.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    clients: u64,
    /// Instances that those clients see, beside the case of one.
    #[arg(long, default_value_t = 1_000)]
    seen: u64,
    /// Print JSON lines (otherwise lines for people).
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    // One thread, so that CPU time is that of the work and not of waking threads.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(&args))
}

async fn measure(args: &Args) -> Result<()> {
    // Memory first: what the others leave behind would be used again, and not be seen.
    for instances in [1, args.seen] {
        let bytes = memory_per_client(args.clients, instances).await?;
        args.print(
            &format!("{} clients of {instances} instances: {bytes:.0} bytes each", args.clients),
            json!({ "figure": "memory", "clients": args.clients, "instances": instances, "bytes_per_client": bytes }),
        );
    }
    for (figure, told, run) in [
        ("puts", "puts alone", Run::Puts),
        ("live", "puts, and a client that sees them one by one", Run::Live),
        ("cold", "a client that finds them all", Run::Cold),
    ] {
        let spent = run.measure(args).await?;
        args.print(
            &format!(
                "{} instances, {told}: {:.4} s CPU, {:.4} s wall",
                args.instances, spent.cpu_s, spent.wall_s
            ),
            json!({
                "figure": figure, "instances": args.instances, "laps": args.laps,
                "cpu_s": spent.cpu_s, "wall_s": spent.wall_s,
            }),
        );
    }
    Ok(())
}

impl Args {
    #[expect(clippy::print_stdout, reason = "the result is for the terminal")]
    fn print(&self, line: &str, figure: Value) {
        if self.json {
            println!("{figure}");
        } else {
            println!("{line}");
        }
    }
}

/// What is timed.
#[derive(Clone, Copy)]
enum Run {
    /// Records written one by one, and nobody looking.
    Puts,
    /// The same with a client, until it has seen them all.
    Live,
    /// A client of records that are there, until it has seen them all.
    Cold,
}

/// The mean of some laps.
#[derive(Default)]
struct Spent {
    cpu_s: f64,
    wall_s: f64,
}

impl Run {
    async fn measure(self, args: &Args) -> Result<Spent> {
        let mut all = Spent::default();
        for _ in 0..args.laps {
            let world = MemoryWorld::new();
            let records = records(args.instances)?;
            let put_all = async {
                for (key, value) in records {
                    world.discovery().put(key, value, None).await?;
                }
                anyhow::Ok(())
            };
            let runtime = DistributedRuntime::builder().memory(&world).build().await?;
            let seen = async {
                let client = client(&runtime).await?;
                client.wait_for_instances(args.instances as usize, Duration::from_secs(600)).await?;
                anyhow::Ok(client)
            };
            let _client = match self {
                Self::Puts => all.add(put_all).await.map(|()| None)?,
                Self::Live => {
                    all.add(async { tokio::try_join!(seen, put_all) }).await.map(|(c, ())| Some(c))?
                }
                Self::Cold => {
                    put_all.await?;
                    all.add(seen).await.map(Some)?
                }
            };
        }
        let laps = f64::from(args.laps);
        Ok(Spent { cpu_s: all.cpu_s / laps, wall_s: all.wall_s / laps })
    }
}

impl Spent {
    /// Adds what a piece of work takes.
    #[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
    async fn add<T>(&mut self, work: impl Future<Output = T>) -> T {
        let (before, began) = (Usage::of(std::process::id()), Instant::now());
        let result = work.await;
        self.wall_s += began.elapsed().as_secs_f64();
        self.cpu_s += Usage::of(std::process::id()).since(before).total();
        result
    }
}

/// What each of so many clients of one endpoint adds to the memory of a process that has one already.
async fn memory_per_client(clients: u64, instances: u64) -> Result<f64> {
    let world = MemoryWorld::new();
    for (key, value) in records(instances)? {
        world.discovery().put(key, value, None).await?;
    }
    let runtime = DistributedRuntime::builder().memory(&world).build().await?;
    let first = client(&runtime).await?;
    first.wait_for_instances(instances as usize, Duration::from_secs(60)).await?;
    let mut all = Vec::with_capacity(clients as usize);
    let before = rss_kib(std::process::id());
    for _ in 0..clients {
        all.push(client(&runtime).await?);
    }
    let after = rss_kib(std::process::id());
    Ok(after.saturating_sub(before) as f64 * 1024.0 / clients as f64)
}

async fn client(runtime: &DistributedRuntime) -> Result<Client<String, String>> {
    Ok(runtime.endpoint(ENDPOINT)?.client().await?)
}
