use anyhow::{Context as _, Result};
use futures_util::{StreamExt, stream};
use slipring::{Client, Context, DistributedRuntime, MemoryWorld};

use crate::args::Args;
use crate::load::{Answer, run_load};

/// A worker and a caller, each with a runtime of its own, in one world in memory.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let world = MemoryWorld::new();
    let worker = DistributedRuntime::builder().memory(&world).build().await?;
    let caller = DistributedRuntime::builder().memory(&world).build().await?;

    let (streaming, items) = (args.streaming(), args.items() as usize);
    let endpoint = worker.endpoint(ENDPOINT)?;
    let serving = if streaming {
        let repeat = move |text: String, _: Context| async move { Ok(stream::iter(vec![Ok(text); items])) };
        endpoint.serve(repeat).await?
    } else {
        endpoint.serve_unary(async |text: String, _: Context| Ok(text)).await?
    };
    let client: Client<String, String> = caller.endpoint(ENDPOINT)?.client().await?;
    let body = args.body();
    let call = move || {
        let (client, body) = (client.clone(), body.clone());
        async move {
            if streaming {
                stream(&client, &body).await
            } else {
                Ok(Answer::unary(client.call(&body).await?.len()))
            }
        }
    };
    run_load(args, call).await?;
    drop(serving);
    caller.stop().await;
    worker.stop().await;
    Ok(())
}

const ENDPOINT: &str = "bench/worker/echo";

async fn stream(client: &Client<String, String>, body: &String) -> Result<Answer> {
    let mut responses = client.generate(body).await?;
    let mut answer = Answer::default();
    while let Some(item) = responses.next().await {
        answer.add_item(item.context("an item")?.len());
    }
    Ok(answer)
}
