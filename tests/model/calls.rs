//! Calls from a client to a worker, on the in-memory backend under a paused clock.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use slipring::{Context, DistributedRuntime, MemoryWorld};

/// A streamed call and a unary one bring what was sent, and a stop is clean.
#[tokio::test(start_paused = true)]
async fn a_call_brings_every_item() {
    let world = MemoryWorld::new();
    let worker = DistributedRuntime::builder().memory(&world).build().await.unwrap();
    let caller = DistributedRuntime::builder().memory(&world).build().await.unwrap();
    let words = worker.endpoint("a/b/words").unwrap();
    let serving = words
        .serve(|text: String, _: Context| async move {
            let words: Vec<_> = text.split(' ').map(|word| Ok(word.to_owned())).collect();
            Ok(stream::iter(words))
        })
        .await
        .unwrap();
    let echo = worker.endpoint("a/b/echo").unwrap();
    let echoing = echo.serve_unary(|text: String, _: Context| async move { Ok(text) }).await.unwrap();

    let client = caller.endpoint("a/b/words").unwrap().client::<String, String>().await.unwrap();
    let items: Vec<_> = client.generate(&"to be or not".to_owned()).await.unwrap().collect().await;
    let items: Vec<String> = items.into_iter().map(Result::unwrap).collect();
    assert_eq!(items, ["to", "be", "or", "not"]);

    let client = caller.endpoint("a.b.echo").unwrap().client::<String, String>().await.unwrap();
    assert_eq!(client.call(&"hi".to_owned()).await.unwrap(), "hi");
    let report = worker.stop().await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.requests, 2);
    drop((serving, echoing));
    let error = client.request(&"hi".to_owned()).deadline(Duration::from_secs(1)).call().await.unwrap_err();
    assert_eq!(error.code(), "no_instances", "{error}");
    caller.stop().await;
}
