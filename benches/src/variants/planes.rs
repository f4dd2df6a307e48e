use std::time::Duration;

use anyhow::Result;
use slipring::{Client, DistributedRuntime, MemoryWorld, Plane, TcpPlane};
use slipring_bench::server::{Server, until_closed};
use slipring_bench::{discovery, messaging};

use super::model;
use crate::args::Args;
use crate::load::run_load;

/// A worker and a caller, a process each, on this plane; discovery on etcd.
pub(crate) async fn run(args: &Args, plane: Plane) -> Result<()> {
    let runtime = runtime(args, plane).await?;
    if let Some(run) = args.serve {
        let _serving = model::serve(&runtime, &endpoint(run), args).await?;
        until_closed().await?;
        runtime.stop().await;
        return Ok(());
    }
    let server = Server::start().await?;
    let client: Client<String, String> = runtime.endpoint(&endpoint(std::process::id()))?.client().await?;
    let client = client.with_planes([plane]);
    client.wait_for_instances(1, Duration::from_secs(10)).await?;
    let (body, streaming) = (args.body(), args.streaming());
    let call = move || {
        let (client, body) = (client.clone(), body.clone());
        async move { model::call(&client, &body, streaming).await }
    };
    run_load(args, Some(server.pid), call).await?;
    runtime.stop().await;
    server.stop().await
}

async fn runtime(args: &Args, plane: Plane) -> Result<DistributedRuntime> {
    let builder = DistributedRuntime::builder().discovery(discovery(&args.store)?);
    let builder = match plane {
        // Without a broker: it is not on the path.
        Plane::Tcp => builder.messaging(MemoryWorld::new().messaging()),
        _ => builder.messaging(messaging(&args.broker)?),
    };
    let is_worker = args.serve.is_some();
    let tcp = match plane {
        Plane::Tcp if is_worker => TcpPlane::new().with_listen("127.0.0.1:0"),
        Plane::NatsTcp if is_worker => TcpPlane::new().with_call_home(true),
        Plane::NatsTcp => TcpPlane::new().with_listen("127.0.0.1:0"),
        _ => TcpPlane::new(),
    };
    Ok(builder.tcp(tcp).build().await?)
}

/// Runs side by side do not meet.
fn endpoint(run: u32) -> String {
    format!("bench/worker/echo-{run}")
}
