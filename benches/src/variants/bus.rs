use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use slipring_core::{Bytes, Message, Messaging, Subject, Subscriber, Subscription};
use slipring_memory::{MemoryMessaging, MemoryWorld};
use tokio::task::JoinSet;

use crate::args::Args;
use crate::load::{Answer, run_load};

/// A responder on one subject of the bus; a stream is as many publishes to the reply subject.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let world = MemoryWorld::new();
    let subject = Subject::new("bench")?;
    let mut responder = JoinSet::new();
    let requests = world.messaging().subscribe(Subscription::new(&subject)).await?;
    let items = args.items();
    responder.spawn(respond(world.messaging(), requests, items));
    let (broker, body) = (world.messaging(), Bytes::from(args.body()));
    let (streaming, calls) = (args.streaming(), Arc::new(AtomicU64::new(0)));
    let call = move || {
        let (broker, calls) = (broker.clone(), calls.clone());
        let request = Message::new(subject.clone(), body.clone());
        async move {
            if streaming {
                return stream(&broker, request, calls.fetch_add(1, Ordering::Relaxed), items).await;
            }
            let reply = broker.request(request, Duration::from_secs(10)).await?;
            Ok(Answer::unary(reply.payload.len()))
        }
    };
    run_load(args, None, call).await
}

async fn respond(broker: MemoryMessaging, mut requests: Subscriber, items: u32) -> Result<()> {
    while let Some(request) = requests.next().await {
        let request = request?;
        let reply = request.reply.context("a request without a reply subject")?;
        for _ in 0..items {
            broker.publish(Message::new(reply.clone(), request.payload.clone())).await?;
        }
    }
    Ok(())
}

async fn stream(broker: &MemoryMessaging, request: Message, call: u64, items: u32) -> Result<Answer> {
    let inbox = Subject::new(format!("inbox.{call}"))?;
    let mut replies = broker.subscribe(Subscription::new(&inbox)).await?;
    broker.publish(request.with_reply(inbox)).await?;
    let mut answer = Answer::default();
    for _ in 0..items {
        let item = replies.next().await.context("the subscription ended")??;
        answer.add_item(item.payload.len());
    }
    Ok(answer)
}
