//! Calls and streams over NATS: `slipring-bench` as a child process, its two variants in turn.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde_json::Value;
use slipring_servers::{Etcd, Nats};
use tokio::process::Command;

use crate::Args;
use crate::figures::{Figure, Goal};

/// A load: what `slipring-bench` is asked for.
struct Load {
    concurrency: u32,
    payload: u32,
    stream_items: u32,
    /// Of the requests that are asked for, so many thousandths.
    per_mille: u64,
    rate: Figure,
    processor: Figure,
}

impl Load {
    fn all() -> [Self; 4] {
        let told = Goal::Told;
        [
            Self::unary(
                64,
                1000,
                "unary, 64 in flight, requests/s",
                Goal::AtLeast(0.9),
                "unary, 64 in flight, CPU us/request",
            ),
            Self::streams(
                64,
                100,
                "100-item streams, 64 in flight, items/s",
                Goal::AtLeast(0.8),
                "100-item streams, 64 in flight, CPU us/stream",
            ),
            Self::unary(1, 100, "unary, 1 in flight, requests/s", told, "unary, 1 in flight, CPU us/request"),
            Self::streams(
                1,
                30,
                "100-item streams, 1 in flight, items/s",
                told,
                "100-item streams, 1 in flight, CPU us/stream",
            ),
        ]
    }

    fn unary(
        concurrency: u32,
        per_mille: u64,
        rate: &'static str,
        goal: Goal,
        processor: &'static str,
    ) -> Self {
        let (rate, processor) = (Figure::new(rate, goal), Figure::new(processor, Goal::Told));
        Self { concurrency, payload: 128, stream_items: 0, per_mille, rate, processor }
    }

    fn streams(
        concurrency: u32,
        per_mille: u64,
        rate: &'static str,
        goal: Goal,
        processor: &'static str,
    ) -> Self {
        Self { payload: 64, stream_items: 100, ..Self::unary(concurrency, per_mille, rate, goal, processor) }
    }

    async fn run(&self, args: &Args, variant: &str, nats: &Nats, etcd: &Etcd) -> Result<Value> {
        let requests = (args.requests * self.per_mille / 1000).max(u64::from(self.concurrency) * 4);
        let output = Command::new(load_test()?)
            .args(["--json", "--variant", variant, "--broker", &nats.endpoint(), "--store", &etcd.endpoint()])
            .args(["--broker-pid", &nats.id().to_string(), "--requests", &requests.to_string()])
            .args(["--concurrency", &self.concurrency.to_string(), "--payload", &self.payload.to_string()])
            .args(["--stream-items", &self.stream_items.to_string()])
            .kill_on_drop(true)
            .output()
            .await?;
        ensure!(output.status.success(), "{variant}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn add(&mut self, ours: &Value, raw: &Value) {
        let figure = |line: &Value, name: &str| line[name].as_f64().unwrap_or_default();
        let foreign = figure(ours, "foreign_cores").max(figure(raw, "foreign_cores"));
        for (name, to) in [("items_per_s", &mut self.rate), ("cpu_us_per_request", &mut self.processor)] {
            to.add(figure(ours, name), figure(raw, name), foreign);
        }
    }
}

/// The load test was built beside this program.
fn load_test() -> Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name("slipring-bench");
    ensure!(program.is_file(), "{} is missing: cargo build --release -p slipring-bench", program.display());
    Ok(program)
}

pub(crate) async fn compare(args: &Args) -> Result<()> {
    let (nats, etcd) = tokio::join!(Nats::start(args.version()), Etcd::start(args.version()));
    for mut load in Load::all() {
        for lap in 0..args.laps {
            // Each begins every other lap.
            let (ours, raw) = if lap % 2 == 0 {
                let ours = load.run(args, "broker/etcd", &nats, &etcd).await?;
                (ours, load.run(args, "raw/nats", &nats, &etcd).await?)
            } else {
                let raw = load.run(args, "raw/nats", &nats, &etcd).await?;
                (load.run(args, "broker/etcd", &nats, &etcd).await?, raw)
            };
            load.add(&ours, &raw);
        }
        load.rate.print(args.json);
        load.processor.print(args.json);
    }
    Ok(())
}
