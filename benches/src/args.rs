use clap::Parser;

use crate::variants::Variant;

/// What to measure.
#[derive(Parser, Clone, Debug)]
#[command(about = "A closed-loop load test of slipring")]
pub(crate) struct Args {
    /// Requests to measure, after the warm-up.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) requests: u64,
    /// Requests in flight.
    #[arg(long, default_value_t = 1)]
    pub(crate) concurrency: usize,
    /// Payload of a request and of each item of a response, in bytes.
    #[arg(long, default_value_t = 128)]
    pub(crate) payload: usize,
    /// Items per response; 0 asks for the unary path.
    #[arg(long, default_value_t = 0)]
    pub(crate) stream_items: u32,
    /// Worker threads; 0 is a current-thread runtime.
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: usize,
    /// Print one JSON line (otherwise a short line for people).
    #[arg(long)]
    pub(crate) json: bool,
    /// How requests are served. A broker and a store are a process each, and so are client and server.
    #[arg(long, value_enum, default_value_t = Variant::Memory)]
    pub(crate) variant: Variant,
    /// Where the NATS server listens, for the variants that need one.
    #[arg(long, env = "NATS_SERVER", default_value = "127.0.0.1:4222")]
    pub(crate) broker: String,
    /// The process id of the broker, for its CPU time.
    #[arg(long)]
    pub(crate) broker_pid: Option<u32>,
    /// Where etcd listens, for the variants that need it.
    #[arg(long, env = "ETCD_ENDPOINTS", default_value = "127.0.0.1:2379")]
    pub(crate) store: String,
    /// Serves as this instance of the load test, until its standard input ends. Set by the client, which
    /// starts its server.
    #[arg(long, hide = true)]
    pub(crate) serve: Option<u32>,
}

impl Args {
    /// Items that a request asks for: one on the unary path.
    pub(crate) fn items(&self) -> u32 {
        self.stream_items.max(1)
    }

    /// Do requests ask for streams?
    pub(crate) fn streaming(&self) -> bool {
        self.stream_items > 0
    }

    /// Requests before the measured ones: a tenth of them, at least two rounds.
    pub(crate) fn warmup(&self) -> u64 {
        (self.requests / 10).max(2 * self.concurrency as u64)
    }

    /// The payload: printable ASCII, so that text codecs are not punished for escaping.
    pub(crate) fn body(&self) -> String {
        ('a'..='z').cycle().take(self.payload).collect()
    }
}
