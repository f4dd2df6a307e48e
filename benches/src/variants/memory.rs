use anyhow::Result;
use slipring::{Client, DistributedRuntime, LocalPlane, MemoryWorld};

use super::model;
use crate::args::Args;
use crate::load::run_load;

const ENDPOINT: &str = "bench/worker/echo";

/// A worker and a caller, each with a runtime of its own, in one process and one world in memory.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let (world, local) = (MemoryWorld::new(), LocalPlane::new());
    let runtime = || DistributedRuntime::builder().memory(&world).local(&local).build();
    let (worker, caller) = (runtime().await?, runtime().await?);
    let serving = model::serve(&worker, ENDPOINT, args).await?;
    let client: Client<String, String> = caller.endpoint(ENDPOINT)?.client().await?;
    let (body, streaming) = (args.body(), args.streaming());
    let call = move || {
        let (client, body) = (client.clone(), body.clone());
        async move { model::call(&client, &body, streaming).await }
    };
    run_load(args, None, call).await?;
    drop(serving);
    caller.stop().await;
    worker.stop().await;
    Ok(())
}
