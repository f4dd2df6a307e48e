//! What the variants of the component model share: an endpoint that echoes, and a call of it.

use anyhow::{Context as _, Result};
use futures_util::{StreamExt, stream};
use slipring::{Client, Context, DistributedRuntime, Serving};

use crate::args::Args;
use crate::load::Answer;

/// Serves an endpoint that answers with the request, as often as items are asked for.
pub(super) async fn serve(worker: &DistributedRuntime, endpoint: &str, args: &Args) -> Result<Serving> {
    let endpoint = worker.endpoint(endpoint)?;
    let items = args.items() as usize;
    let serving = if args.streaming() {
        let repeat = move |text: String, _: Context| async move { Ok(stream::iter(vec![Ok(text); items])) };
        endpoint.serve(repeat).await?
    } else {
        endpoint.serve_unary(async |text: String, _: Context| Ok(text)).await?
    };
    Ok(serving)
}

/// One call, as a stream or not.
pub(super) async fn call(client: &Client<String, String>, body: &String, streaming: bool) -> Result<Answer> {
    if !streaming {
        return Ok(Answer::unary(client.call(body).await?.len()));
    }
    let mut responses = client.generate(body).await?;
    let mut answer = Answer::default();
    while let Some(item) = responses.next().await {
        answer.add_item(item.context("an item")?.len());
    }
    Ok(answer)
}
