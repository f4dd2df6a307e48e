//! Closed-loop load, its latencies, and the line that says what came of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};
use slipring_bench::usage::{Machine, Usage, rss_peak_kib};
use tokio::task::JoinSet;

use crate::args::Args;

/// What one request brought back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Answer {
    items: u32,
    bytes: usize,
    /// When the first item arrived, for streams.
    first: Option<Instant>,
}

impl Answer {
    /// The answer of the unary path.
    pub(crate) fn unary(bytes: usize) -> Self {
        Self { items: 1, bytes, first: None }
    }

    /// One more item of a stream.
    pub(crate) fn add_item(&mut self, bytes: usize) {
        self.first.get_or_insert_with(now);
        self.items += 1;
        self.bytes += bytes;
    }
}

/// Warms up, measures, and prints the result line. The server is a process of its own, or this one.
pub(crate) async fn run_load<F, Fut>(args: &Args, server: Option<u32>, call: F) -> Result<()>
where
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<Answer>> + Send,
{
    let warmup = Arc::new(Samples::new(args.warmup(), args.streaming()));
    closed_loop(args, warmup, call.clone()).await?;
    let samples = Arc::new(Samples::new(args.requests, args.streaming()));
    let meter = Meter::start(args, server);
    closed_loop(args, samples.clone(), call).await?;
    meter.finish(args, &samples);
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a load test measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// Fills the samples from as many callers as are asked for, each with one request in flight.
async fn closed_loop<F, Fut>(args: &Args, samples: Arc<Samples>, call: F) -> Result<()>
where
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<Answer>> + Send,
{
    let issued = Arc::new(AtomicU64::new(0));
    let (items, bytes) = (args.items(), args.payload * args.items() as usize);
    let mut callers = JoinSet::new();
    for _ in 0..args.concurrency {
        let (call, issued, samples) = (call.clone(), issued.clone(), samples.clone());
        callers.spawn(async move {
            loop {
                let index = issued.fetch_add(1, Ordering::Relaxed) as usize;
                if index >= samples.total_ns.len() {
                    return Ok(());
                }
                let started = now();
                let answer = call().await?;
                samples.record(index, started, now(), answer);
                ensure!(answer.items == items, "{} items instead of {items}", answer.items);
                ensure!(answer.bytes == bytes, "{} bytes instead of {bytes}", answer.bytes);
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    Ok(())
}

/// Nanoseconds; saturates at 4.29 s.
fn nanos(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos()).unwrap_or(u32::MAX)
}

/// A slot per request, allocated and touched before the clock starts: what the harness does inside the measured
/// section is one store per request.
struct Samples {
    total_ns: Vec<AtomicU32>,
    /// Empty on the unary path.
    first_ns: Vec<AtomicU32>,
}

impl Samples {
    fn new(requests: u64, streaming: bool) -> Self {
        // A fill that is not zero, so that the pages exist.
        let slots = |n: u64| (0..n).map(|_| AtomicU32::new(u32::MAX)).collect();
        Self { total_ns: slots(requests), first_ns: slots(if streaming { requests } else { 0 }) }
    }

    fn record(&self, index: usize, started: Instant, ended: Instant, answer: Answer) {
        self.total_ns[index].store(nanos(ended - started), Ordering::Relaxed);
        if let (Some(first), Some(slot)) = (answer.first, self.first_ns.get(index)) {
            slot.store(nanos(first - started), Ordering::Relaxed);
        }
    }
}

/// Sorted latencies, in nanoseconds.
struct Quantiles(Vec<u32>);

impl Quantiles {
    fn new(samples: &[AtomicU32]) -> Self {
        let mut sorted: Vec<u32> = samples.iter().map(|sample| sample.load(Ordering::Relaxed)).collect();
        sorted.sort_unstable();
        Self(sorted)
    }

    /// In microseconds; null without samples.
    fn at(&self, quantile: f64) -> Value {
        let last = self.0.len().checked_sub(1);
        let index = last.map(|last| (last as f64 * quantile).round() as usize);
        index.map_or(Value::Null, |index| json!(f64::from(self.0[index]) / 1000.0))
    }
}

/// Wall clock and CPU time around a measured section.
struct Meter {
    began: Instant,
    /// This one, the server, and the broker, as far as they are processes of their own.
    processes: [Option<u32>; 3],
    before: [Usage; 3],
    machine: Machine,
}

impl Meter {
    fn start(args: &Args, server: Option<u32>) -> Self {
        let processes = [Some(std::process::id()), server, args.broker_pid];
        Self { began: now(), processes, before: usages(processes), machine: Machine::now() }
    }

    fn finish(self, args: &Args, samples: &Samples) {
        let wall = (now() - self.began).as_secs_f64();
        let (machine, after) = (Machine::now(), usages(self.processes));
        let [client, server, broker] = [0, 1, 2].map(|index| after[index].since(self.before[index]));
        let own = client.total() + server.total() + broker.total();
        let foreign = (machine.busy_s - self.machine.busy_s - own).max(0.0);
        let [client_kib, server_kib, broker_kib] =
            self.processes.map(|process| process.map_or(0, rss_peak_kib));
        let (total, first) = (Quantiles::new(&samples.total_ns), Quantiles::new(&samples.first_ns));
        let requests = args.requests as f64;
        let variant = args.variant.to_possible_value().map(|value| value.get_name().to_owned());
        let line = json!({
            "name": "slipring", "variant": variant, "requests": args.requests,
            "concurrency": args.concurrency, "payload": args.payload,
            "stream_items": args.stream_items, "threads": args.threads,
            "wall_s": wall,
            "requests_per_s": requests / wall,
            "items_per_s": requests * f64::from(args.items()) / wall,
            "p50_us": total.at(0.5), "p99_us": total.at(0.99), "p999_us": total.at(0.999),
            "first_p50_us": first.at(0.5), "first_p99_us": first.at(0.99),
            "cpu_client_s": client.total(), "cpu_server_s": server.total(), "cpu_broker_s": broker.total(),
            "cpu_user_s": client.user_s + server.user_s + broker.user_s,
            "cpu_system_s": client.system_s + server.system_s + broker.system_s,
            "cores_used": own / wall,
            "cpu_us_per_request": own * 1e6 / requests,
            // What everybody else on the machine used meanwhile, in cores.
            "foreign_cores": foreign / wall,
            "steal_cores": (machine.stolen_s - self.machine.stolen_s) / wall,
            "rss_client_kib": client_kib, "rss_server_kib": server_kib, "rss_broker_kib": broker_kib,
        });
        print(args, &line);
    }
}

/// Nothing for what is no process of its own.
fn usages(processes: [Option<u32>; 3]) -> [Usage; 3] {
    processes.map(|process| process.map(Usage::of).unwrap_or_default())
}

#[expect(clippy::print_stdout, reason = "the result is for the terminal")]
fn print(args: &Args, line: &Value) {
    if args.json {
        println!("{line}");
        return;
    }
    let figure = |name: &str| line[name].as_f64().unwrap_or_default();
    println!(
        "{} c={} k={}: {:.0} requests/s, {:.0} items/s, p50 {:.1} p99 {:.1} p999 {:.1} us, {:.2} cores",
        line["variant"].as_str().unwrap_or_default(),
        args.concurrency,
        args.stream_items,
        figure("requests_per_s"),
        figure("items_per_s"),
        figure("p50_us"),
        figure("p99_us"),
        figure("p999_us"),
        figure("cores_used"),
    );
}
