use std::time::Duration;

use anyhow::Result;
use slipring::{Client, DistributedRuntime};
use slipring_bench::{discovery, messaging};

use super::model;
use crate::args::Args;
use crate::load::run_load;
use crate::server::{Server, until_closed};

/// A worker and a caller, a process each: requests and items over NATS, discovery on etcd.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let runtime = DistributedRuntime::builder()
        .discovery(discovery(&args.store)?)
        .messaging(messaging(&args.broker)?)
        .build()
        .await?;
    if let Some(run) = args.serve {
        let _serving = model::serve(&runtime, &endpoint(run), args).await?;
        until_closed().await?;
        runtime.stop().await;
        return Ok(());
    }
    let server = Server::start().await?;
    let client: Client<String, String> = runtime.endpoint(&endpoint(std::process::id()))?.client().await?;
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

/// Runs side by side do not meet.
fn endpoint(run: u32) -> String {
    format!("bench/worker/echo-{run}")
}
