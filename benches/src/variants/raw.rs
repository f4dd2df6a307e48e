use anyhow::{Context, Result};
use async_nats::{Client, Message};
use futures_util::StreamExt;
use slipring_bench::server::{Server, until_closed};
use slipring_core::Bytes;
use tokio::task::JoinSet;

use crate::args::Args;
use crate::load::{Answer, run_load};

/// What a program would write against NATS's client: a queue subscription that echoes, a request for a unary
/// call, and for each stream a subscription of its own, which an empty message ends.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let client = async_nats::connect(&args.broker).await?;
    if let Some(run) = args.serve {
        return serve(client, &subject(run), args.streaming()).await;
    }
    let server = Server::start().await?;
    let subject = subject(std::process::id());
    let (streaming, items) = (args.streaming(), args.items());
    let mut body = if streaming { items.to_be_bytes().to_vec() } else { Vec::new() };
    body.extend_from_slice(args.body().as_bytes());
    let body = Bytes::from(body);
    let call = move || {
        let (client, subject, body) = (client.clone(), subject.clone(), body.clone());
        async move {
            if streaming {
                return stream(&client, subject, body).await;
            }
            let reply = client.request(subject, body).await?;
            Ok(Answer::unary(reply.payload.len()))
        }
    };
    run_load(args, Some(server.pid), call).await?;
    server.stop().await
}

fn subject(run: u32) -> String {
    format!("bench.raw.{run}")
}

async fn serve(client: Client, subject: &str, streaming: bool) -> Result<()> {
    let mut requests = client.queue_subscribe(subject.to_owned(), "echo".to_owned()).await?;
    barrier(&client).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut streams = JoinSet::new();
        while let Some(request) = requests.next().await {
            while streams.try_join_next().is_some() {}
            if streaming {
                streams.spawn(items(client.clone(), request));
            } else if let Some(reply) = request.reply {
                client.publish(reply, request.payload).await?;
            }
        }
        anyhow::Ok(())
    });
    until_closed().await
}

/// Sends as many items as the request's first four bytes say, and the end.
async fn items(client: Client, request: Message) -> Result<()> {
    let reply = request.reply.context("no reply subject")?;
    let items = request.payload.first_chunk().context("no number of items")?;
    let body = request.payload.slice(4..);
    for _ in 0..u32::from_be_bytes(*items) {
        client.publish(reply.clone(), body.clone()).await?;
    }
    client.publish(reply, Bytes::new()).await?;
    Ok(())
}

async fn stream(client: &Client, subject: String, body: Bytes) -> Result<Answer> {
    let inbox = client.new_inbox();
    let mut replies = client.subscribe(inbox.clone()).await?;
    client.publish_with_reply(subject, inbox, body).await?;
    let mut answer = Answer::default();
    while let Some(message) = replies.next().await {
        if message.payload.is_empty() {
            break;
        }
        answer.add_item(message.payload.len());
    }
    replies.unsubscribe().await?;
    Ok(answer)
}

/// Waits until the broker has processed everything sent so far: flushing empties the socket's buffer only.
async fn barrier(client: &Client) -> Result<()> {
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await?;
    client.publish(inbox, "sync".into()).await?;
    echo.next().await.context("the barrier was lost")?;
    Ok(())
}
