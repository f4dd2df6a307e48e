//! slipring beside the raw clients that its backends are built on, in one run: both sides take turns, lap after
//! lap, against servers that this program starts. Prints a line for each figure, as JSON with `--json`.

mod calls;
mod figures;
mod registry;
mod silence;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use slipring_servers::Version;

/// What to compare, and how often.
#[derive(Parser, Clone, Debug)]
#[command(about = "slipring beside raw etcd and NATS clients, in one run")]
struct Args {
    /// What is compared; everything if nothing is named.
    #[arg(value_enum)]
    what: Vec<What>,
    /// How often each side takes its turn.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    laps: u32,
    /// Which servers: those of the distribution, or the newer ones.
    #[arg(long, value_enum, default_value_t = Servers::Debian)]
    servers: Servers,
    /// Instances to be registered and found.
    #[arg(long, default_value_t = 10_000)]
    instances: u64,
    /// Puts in a lap of which each is waited for.
    #[arg(long, default_value_t = 300)]
    puts: u32,
    /// Requests in a lap of unary calls; streams are a tenth of that.
    #[arg(long, default_value_t = 60_000)]
    requests: u64,
    /// Requests that nobody answers.
    #[arg(long, default_value_t = 300_000)]
    unanswered: u64,
    /// Print JSON lines (otherwise lines for people).
    #[arg(long)]
    json: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Calls and streams over NATS.
    Calls,
    /// Instances put, registered and found in etcd.
    Registry,
    /// Memory over requests that nobody answers.
    Silence,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Servers {
    Debian,
    Newer,
}

impl Args {
    fn wants(&self, what: What) -> bool {
        self.what.is_empty() || self.what.contains(&what)
    }

    fn version(&self) -> Version {
        match self.servers {
            Servers::Debian => Version::Debian,
            Servers::Newer => Version::Newer,
        }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        if args.wants(What::Calls) {
            calls::compare(&args).await?;
        }
        if args.wants(What::Registry) {
            registry::compare(&args).await?;
        }
        if args.wants(What::Silence) {
            silence::compare(&args).await?;
        }
        Ok(())
    })
}
