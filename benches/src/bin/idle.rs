//! What connections and streams cost that do nothing: memory, and CPU time. Prints a line for each figure, as JSON
//! with `--json`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use slipring::{Client, Context, DistributedRuntime, Instance, MemoryWorld, Plane, Responses, TcpPlane};
use slipring_bench::discovery;
use slipring_bench::server::{Server, until_closed};
use slipring_bench::usage::{Usage, rss_kib};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// So many streams are opened at a time.
const AT_ONCE: usize = 64;

/// What to measure.
#[derive(Parser, Clone, Debug)]
#[command(about = "What idle connections and streams of slipring cost")]
struct Args {
    /// Connections to one listener.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Streams of one connection, each after its first item.
    #[arg(long, default_value_t = 10_000)]
    streams: usize,
    /// For how long they are watched, in seconds. A connection without streams is closed after 60.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Print JSON lines (otherwise lines for people).
    #[arg(long)]
    json: bool,
    /// Where etcd listens.
    #[arg(long, env = "ETCD_ENDPOINTS", default_value = "127.0.0.1:2379")]
    store: String,
    /// Serves for this process. Set by the client, which starts its server.
    #[arg(long, hide = true)]
    serve: Option<u32>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(client) = args.serve {
        return serve(&args, client).await;
    }
    let server = Server::start().await?;
    let runtime = runtime(&args, TcpPlane::new()).await?;
    let client: Client<(), u64> = runtime.endpoint(&endpoint(std::process::id()))?.client().await?;
    let client = client.with_planes([Plane::Tcp]);
    client.wait_for_instances(1, Duration::from_secs(10)).await?;
    let instance = client.instances().all().pop().context("an instance")?;
    measure_connections(&args, &server, &instance).await?;
    measure_streams(&args, &server, &client).await?;
    runtime.stop().await;
    server.stop().await
}

async fn serve(args: &Args, client: u32) -> Result<()> {
    let runtime = runtime(args, TcpPlane::new().with_listen("127.0.0.1:0")).await?;
    let endless = |(): (), _: Context| async { Ok(stream::iter([Ok(0_u64)]).chain(stream::pending())) };
    let endpoint = runtime.endpoint(&endpoint(client))?;
    let _serving = endpoint.serve(endless).concurrency(2 * args.streams).await?;
    until_closed().await?;
    runtime.stop().await;
    Ok(())
}

async fn runtime(args: &Args, tcp: TcpPlane) -> Result<DistributedRuntime> {
    let builder = DistributedRuntime::builder().discovery(discovery(&args.store)?).tcp(tcp);
    Ok(builder.messaging(MemoryWorld::new().messaging()).build().await?)
}

/// Runs side by side do not meet.
fn endpoint(run: u32) -> String {
    format!("bench/worker/idle-{run}")
}

/// Connections of other processes: whoever is at the other end of each is played by a few lines here, so that only
/// the listening end is measured.
async fn measure_connections(args: &Args, server: &Server, instance: &Instance) -> Result<()> {
    let address = instance.record().transport.get("tcp").context("it listens")?;
    let before = rss_kib(server.pid);
    let mut open = Vec::with_capacity(args.connections);
    for number in 0..args.connections {
        open.push(shake_hands(address, instance, number as u64 + 1).await?);
    }
    let kib = rss_kib(server.pid).saturating_sub(before);
    let cpu = idle_cpu(args, server).await;
    let bytes = kib as f64 * 1024.0 / args.connections as f64;
    args.print(
        &format!(
            "{} idle connections: {bytes:.0} bytes each at the listening end, {:.1} ms of CPU time in {} s",
            args.connections,
            cpu * 1e3,
            args.seconds
        ),
        json!({ "figure": "connections", "connections": args.connections, "bytes_each": bytes,
            "cpu_s": cpu, "seconds": args.seconds }),
    );
    Ok(())
}

/// The dialling end of the handshake, without a secret: a hello, theirs, and a proof of nothing.
async fn shake_hands(address: &str, instance: &Instance, own: u64) -> Result<TcpStream> {
    let mut hello = Vec::with_capacity(88);
    hello.extend_from_slice(b"slipring");
    // The version, the least one, no flags, no verdict.
    for word in [1_u16, 1, 0, 0] {
        hello.extend_from_slice(&word.to_le_bytes());
    }
    for word in [own, 1, instance.id(), instance.epoch(), own, own] {
        hello.extend_from_slice(&word.to_le_bytes());
    }
    // A window, streams, the longest message, nothing; and how much is assembled.
    for word in [1 << 20, 1 << 10, 1 << 20, 0_u32] {
        hello.extend_from_slice(&word.to_le_bytes());
    }
    hello.extend_from_slice(&(1_u64 << 27).to_le_bytes());
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&hello).await?;
    stream.read_exact(&mut [0; 88]).await?;
    stream.write_all(&[0; 32]).await?;
    let mut verdict = [0; 34];
    stream.read_exact(&mut verdict).await?;
    ensure!(verdict[..2] == [0, 0], "refused: {}", verdict[0]);
    Ok(stream)
}

/// Streams of one connection, which wait for an item that never comes.
async fn measure_streams(args: &Args, server: &Server, client: &Client<(), u64>) -> Result<()> {
    // One before, so that the connection is there.
    let _first = client.generate(&()).await?;
    let own = std::process::id();
    let before = [rss_kib(own), rss_kib(server.pid)];
    let call = || async {
        let mut responses = client.request(&()).deadline(Duration::from_secs(3600)).generate().await?;
        responses.next().await.context("a first item")??;
        anyhow::Ok(responses)
    };
    let calls = stream::iter(0..args.streams).map(|_| call()).buffer_unordered(AT_ONCE);
    let open: Vec<Result<Responses<u64>>> = calls.collect().await;
    let open = open.into_iter().collect::<Result<Vec<_>>>()?;
    let after = [rss_kib(own), rss_kib(server.pid)];
    let cpu = idle_cpu(args, server).await;
    let each = |at: usize| after[at].saturating_sub(before[at]) as f64 * 1024.0 / open.len() as f64;
    args.print(
        &format!(
            "{} idle streams: {:.0} bytes each at the caller, {:.0} at the worker, whose CPU time is {:.1} ms in {} s",
            open.len(),
            each(0),
            each(1),
            cpu * 1e3,
            args.seconds
        ),
        json!({ "figure": "streams", "streams": open.len(), "bytes_caller": each(0), "bytes_worker": each(1),
            "cpu_s": cpu, "seconds": args.seconds }),
    );
    Ok(())
}

/// The CPU time that the server uses while nothing happens, in seconds.
async fn idle_cpu(args: &Args, server: &Server) -> f64 {
    let before = Usage::of(server.pid);
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    Usage::of(server.pid).since(before).total()
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
