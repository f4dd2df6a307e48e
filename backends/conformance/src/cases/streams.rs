//! Streams of answers, as the component model builds them: many messages to one inbox.

use futures_util::StreamExt;
use futures_util::future::{join, try_join_all};
use slipring_core::{Message, Messaging, Subject, Subscription};

use crate::failure::ensure_eq;
use crate::trial::{next, number, publish_numbers, subscribe, within};
use crate::{Failure, Trial, Verdict};

const END: &str = "end";

/// Asks for a stream of so many numbers, and reads it to its end.
async fn read_stream(broker: &dyn Messaging, ask: Message, items: u32) -> Verdict {
    let inbox = ask.reply.clone().ok_or_else(|| Failure::new("a stream needs an inbox"))?;
    let mut answers = broker.subscribe(Subscription::new(&inbox)).await?;
    broker.publish(ask).await?;
    for expected in 0..items {
        let item = next(&mut answers, format!("item {expected} at {inbox}")).await?;
        ensure_eq!(number(&item)?, expected, "the next item at {inbox}");
    }
    ensure_eq!(next(&mut answers, "the end").await?.payload, END, "what stands after the last item");
    Ok(())
}

/// Publishes a stream to the inbox of a request.
async fn write_stream(broker: &dyn Messaging, request: &Message, items: u32) -> Verdict {
    let inbox = request.reply.clone().ok_or_else(|| Failure::new("the request has lost its inbox"))?;
    publish_numbers(broker, &inbox, 0..items).await?;
    Ok(broker.publish(Message::new(inbox, END)).await?)
}

/// A stream of answers arrives whole, in order, and its end stands last.
pub async fn stream_of_answers_is_whole(trial: &Trial) -> Verdict {
    const ITEMS: u32 = 2000;
    let (client, server) = (trial.messaging().await?, trial.messaging().await?);
    let subject = trial.subject("s");
    let mut requests = subscribe(&*server, &subject).await?;
    let ask = Message::new(subject, "?").with_reply(trial.subject("inbox"));
    let serve = async {
        let request = next(&mut requests, "the request").await?;
        write_stream(&*server, &request, ITEMS).await
    };
    let (read, served) = join(read_stream(&*client, ask, ITEMS), serve).await;
    served.and(read)
}

/// Streams that run side by side over the same handles each come whole to their own reader.
pub async fn streams_do_not_mix(trial: &Trial) -> Verdict {
    const STREAMS: u32 = 20;
    const ITEMS: u32 = 100;
    let (client, server) = (trial.messaging().await?, trial.messaging().await?);
    let subject = trial.subject("s");
    let mut requests = subscribe(&*server, &subject).await?;
    let reads = (0..STREAMS).map(|stream| {
        let inbox = trial.subject(format_args!("inbox.{stream}"));
        read_stream(&*client, Message::new(subject.clone(), "?").with_reply(inbox), ITEMS)
    });
    let serve = async {
        let mut asked = Vec::new();
        for _ in 0..STREAMS {
            asked.push(next(&mut requests, "a request").await?);
        }
        try_join_all(asked.iter().map(|request| write_stream(&*server, request, ITEMS))).await
    };
    let (read, served) = join(try_join_all(reads), serve).await;
    served.and(read).map(drop)
}

/// Who writes a stream can notice that its reader has gone: an item with a reply subject is answered by the
/// broker.
pub async fn end_of_a_reader_is_noticed(trial: &Trial) -> Verdict {
    let (client, server) = (trial.messaging().await?, trial.messaging().await?);
    let (inbox, credit): (Subject, Subject) = (trial.subject("inbox"), trial.subject("credit"));
    let mut credits = subscribe(&*server, &credit).await?;
    let mut reader = subscribe(&*client, &inbox).await?;
    let item = || Message::new(inbox.clone(), "item").with_reply(credit.clone());
    server.publish(item()).await?;
    next(&mut reader, "the item").await?;
    drop(reader);
    let gone = async {
        // The broker may hear of the end a little later.
        loop {
            server.publish(item()).await?;
            match futures_util::future::poll_immediate(credits.next()).await {
                Some(Some(Ok(told))) if told.no_responders => return Ok::<_, Failure>(()),
                _ => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    };
    within("the writer to be told that nobody reads", gone).await?
}
