//! A caller: makes a number of calls, so many at a time, and says on standard output what became of them.
//!
//! ```text
//! cargo run -p examples --example caller -- --demo --requests 1000 --concurrency 16
//!
//! export SLIPRING_DISCOVERY=etcd://127.0.0.1:2379 SLIPRING_MESSAGING=nats://127.0.0.1:4222
//! cargo run --release -p examples --features etcd,nats --example caller -- \
//!     --endpoint dynamo.processor.generate --requests 1000 --concurrency 16 --mode round-robin
//! ```
//!
//! Standard output is one line of JSON; everything else goes to standard error:
//!
//! ```text
//! {"requests":1000,"ok":1000,"failed":{},"hung":0,"p50_us":410,"p99_us":1380}
//! ```
//!
//! `failed` counts by the code of the error. `hung` counts calls that had no answer 1 s after their own
//! deadline, which is a defect. The latencies are those of the calls that went well, from their start, in
//! microseconds; 0 if there are none.
//!
//! Exit code: 0 once the line is written, 1 if the caller could not start, 2 for arguments that it does not
//! understand.

use std::process::ExitCode;
use std::time::Duration;

use examples::{Arguments, Outcome, Tally, fail, log_to_stderr, refuse, say};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use slipring::name::Reference;
use slipring::{Client, Context, DistributedRuntime, MemoryWorld, Result, Routing};
use tokio::time::{Instant, sleep_until, timeout};

const USAGE: &str = "usage: caller --endpoint NAMESPACE.COMPONENT.ENDPOINT [--requests N] [--concurrency C]
              [--mode MODE] [--deadline-ms N] [--rate N] [--demo]

  --endpoint     what to call
  --requests     how many calls to make (default 1000)
  --concurrency  how many of them at a time, at most (default 16)
  --mode         round-robin (default), random, power-of-two-choices or least-loaded
  --deadline-ms  how long each call may take (default 10000)
  --rate         how many calls to start per second, at most (default: as many as the concurrency allows)
  --demo         no servers: memory, with three workers in this process

The backends come from SLIPRING_DISCOVERY, SLIPRING_MESSAGING and SLIPRING_DEPLOYMENT.";

/// How long after its own deadline a call counts as hung.
const HUNG_AFTER: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> ExitCode {
    log_to_stderr();
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => return refuse(&problem, USAGE),
    };
    let called = if options.demo { demonstrate(options).await } else { call(options).await };
    match called {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error),
    }
}

struct Options {
    endpoint: Reference,
    requests: u64,
    concurrency: usize,
    routing: Routing,
    deadline: Duration,
    rate: Option<u64>,
    demo: bool,
}

impl Options {
    fn read(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let values = ["endpoint", "requests", "concurrency", "mode", "deadline-ms", "rate"];
        let arguments = Arguments::read(arguments, &values, &["demo"])?;
        let routing = match arguments.value::<String>("mode")?.as_deref() {
            None | Some("round-robin") => Routing::RoundRobin,
            Some("random") => Routing::Random,
            Some("power-of-two-choices") => Routing::PowerOfTwoChoices,
            Some("least-loaded") => Routing::LeastLoaded,
            Some(mode) => return Err(format!("--mode {mode:?}: there is no such mode")),
        };
        let concurrency = arguments.count("concurrency")?.unwrap_or(16);
        Ok(Self {
            endpoint: arguments.endpoint()?,
            requests: arguments.count("requests")?.unwrap_or(1000),
            concurrency: usize::try_from(concurrency).map_err(|error| format!("--concurrency: {error}"))?,
            routing,
            deadline: Duration::from_millis(arguments.count("deadline-ms")?.unwrap_or(10_000)),
            rate: arguments.count("rate")?,
            demo: arguments.flag("demo"),
        })
    }
}

async fn call(options: Options) -> Result<()> {
    let runtime = DistributedRuntime::from_env().await?;
    load(&runtime, &options).await?;
    runtime.stop().await;
    Ok(())
}

/// Makes the calls and says what became of them.
async fn load(runtime: &DistributedRuntime, options: &Options) -> Result<()> {
    let endpoint = runtime.endpoint(&options.endpoint.to_string())?;
    let client = endpoint.client().await?.with_routing(options.routing);

    let began = Instant::now();
    let outcomes = stream::iter(0..options.requests)
        .then(|number| async move {
            if let Some(rate) = options.rate {
                sleep_until(began + Duration::from_secs_f64(number as f64 / rate as f64)).await;
            }
            number
        })
        .map(|number| call_once(&client, number, options.deadline))
        .buffer_unordered(options.concurrency);
    let tally = outcomes.fold(Tally::default(), |tally, outcome| async { tally.with(outcome) }).await;
    say(tally.report());
    Ok(())
}

async fn call_once(client: &Client<Value, Value>, number: u64, deadline: Duration) -> Outcome {
    let (request, began) = (json!({ "number": number }), Instant::now());
    let limit = deadline + HUNG_AFTER;
    let answer = timeout(limit, client.request(&request).deadline(deadline).call()).await;
    let took = began.elapsed();
    match answer {
        // The time-out polls the call once more, which may end only for that.
        _ if took >= limit => Outcome::Hung,
        Err(_) => Outcome::Hung,
        Ok(Ok(_)) => Outcome::Ok(took),
        Ok(Err(error)) => Outcome::Failed(error.code()),
    }
}

/// The caller in a world of its own, with workers to call.
async fn demonstrate(options: Options) -> Result<()> {
    let world = MemoryWorld::new();
    let mut workers = Vec::new();
    for _ in 0..3 {
        let worker = DistributedRuntime::builder().memory(&world).build().await?;
        let endpoint = worker.endpoint(&options.endpoint.to_string())?;
        let serving = endpoint.serve_unary(|request: Value, _: Context| async { Ok(request) }).await?;
        workers.push((worker, serving));
    }
    let runtime = DistributedRuntime::builder().memory(&world).build().await?;
    load(&runtime, &options).await
}
