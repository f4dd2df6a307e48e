//! A closed-loop load test: a number of callers, each with one request in flight, over one of several ways to
//! be served. Prints one line, as JSON with `--json`.

mod args;
mod load;
mod variants;

use clap::Parser;

use crate::args::Args;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut runtime = match args.threads {
        0 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    runtime.worker_threads(args.threads.max(1)).enable_all().build()?.block_on(args.variant.run(&args))
}
