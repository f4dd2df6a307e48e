//! Handles: flushing, closing, pointers, and what they declare.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use slipring_core::{Discovery, DiscoveryExt, Message, Messaging, MessagingExt, Subscription};

use crate::failure::{ensure, ensure_eq};
use crate::trial::{bytes, drained, ensure_numbers, fails, next, publish_numbers, subscribe, within};
use crate::{Failure, Trial, Verdict};

const GRACE: Duration = Duration::from_secs(10);

/// What a store declares makes sense, and is the same for every handle at any time.
pub async fn store_declares_what_it_can(trial: &Trial) -> Verdict {
    let (one, other) = (trial.discovery().await?, trial.discovery().await?);
    let can = one.capabilities().await?;
    ensure!(can.atomic_keys_max >= 1, "atomic_keys_max is {}", can.atomic_keys_max);
    ensure!(!can.fencing || can.atomic_keys_max >= 2, "fencing with one atomic key");
    ensure!(!can.ttl_min.is_zero() && !can.watch_silence_max.is_zero(), "a time of zero in {can:?}");
    ensure!(can.value_bytes_max >= 1024, "values of {} bytes cannot hold a record", can.value_bytes_max);
    ensure_eq!(other.capabilities().await?, can, "what another handle declares");
    ensure_eq!(one.capabilities().await?, can, "what it declares the second time");
    Ok(())
}

/// What a broker declares makes sense, and is the same for every handle at any time.
pub async fn broker_declares_what_it_can(trial: &Trial) -> Verdict {
    let (one, other) = (trial.messaging().await?, trial.messaging().await?);
    let can = one.capabilities().await?;
    ensure!(can.payload_bytes_max >= 1024, "payloads of {} bytes", can.payload_bytes_max);
    ensure!(can.subject_bytes_max >= 128, "subjects of {} bytes", can.subject_bytes_max);
    ensure_eq!(other.capabilities().await?, can, "what another handle declares");
    ensure_eq!(one.capabilities().await?, can, "what it declares the second time");
    Ok(())
}

/// A store works behind any pointer.
pub async fn store_works_behind_pointers(trial: &Trial) -> Verdict {
    async fn write(store: impl Discovery, trial: &Trial, name: &str) -> Verdict {
        store.put(trial.key(name), bytes(name), None).await?;
        let value = store.entry(&trial.key(name)).await?.map(|entry| entry.value);
        ensure_eq!(value, Some(bytes(name)), "the value");
        Ok(())
    }
    let shared: Arc<dyn Discovery> = trial.discovery().await?;
    write(shared.clone(), trial, "arc").await?;
    write(Box::new(shared) as Box<dyn Discovery>, trial, "box").await
}

/// A broker works behind any pointer.
pub async fn broker_works_behind_pointers(trial: &Trial) -> Verdict {
    async fn echo(broker: impl Messaging, trial: &Trial, name: &'static str) -> Verdict {
        let mut messages = broker.subscribe(Subscription::new(trial.subject(name))).await?;
        let sent = Message::new(trial.subject(name), name);
        broker.publish(sent.clone()).await?;
        ensure_eq!(next(&mut messages, "the message").await?, sent, "the message");
        Ok(())
    }
    let shared: Arc<dyn Messaging> = trial.messaging().await?;
    echo(shared.clone(), trial, "arc").await?;
    echo(Box::new(shared) as Box<dyn Messaging>, trial, "box").await
}

/// What was flushed is with the broker: it arrives though the handle is closed at once.
pub async fn flushed_is_with_the_broker(trial: &Trial) -> Verdict {
    let (subscriber, publisher) = (trial.messaging().await?, trial.messaging().await?);
    let subject = trial.subject("s");
    let messages = subscribe(&*subscriber, &subject).await?;
    publish_numbers(&*publisher, &subject, 0..1000).await?;
    publisher.close(Duration::ZERO).await.or_else(|error| match error.code() {
        "deadline_exceeded" => Ok(()),
        _ => Err(error),
    })?;
    drop(publisher);
    ensure_numbers(&drained(messages).await?, 0..1000, "the subscriber")
}

/// Flushing with nothing to flush resolves.
pub async fn flush_of_nothing_resolves(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    for _ in 0..3 {
        within("an empty flush", broker.flush()).await??;
    }
    Ok(())
}

/// What was published before `close` arrives, without a flush.
pub async fn close_delivers_what_was_published(trial: &Trial) -> Verdict {
    let (subscriber, publisher) = (trial.messaging().await?, trial.messaging().await?);
    let subject = trial.subject("s");
    let messages = subscribe(&*subscriber, &subject).await?;
    for number in 0..1000 {
        publisher.publish(Message::new(subject.clone(), number.to_string())).await?;
    }
    publisher.close(GRACE).await?;
    ensure_numbers(&drained(messages).await?, 0..1000, "the subscriber")
}

/// The subscriptions of a closed handle yield what they had accepted, and end.
pub async fn close_ends_its_subscriptions(trial: &Trial) -> Verdict {
    let (subscriber, publisher) = (trial.messaging().await?, trial.messaging().await?);
    let subject = trial.subject("s");
    let mut messages = subscribe(&*subscriber, &subject).await?;
    publish_numbers(&*publisher, &subject, 0..50).await?;
    subscriber.close(GRACE).await?;
    publish_numbers(&*publisher, &subject, 50..60).await?;
    let all = async {
        let mut all = Vec::new();
        while let Some(message) = messages.next().await {
            all.push(message?);
        }
        Ok::<_, Failure>(all)
    };
    let all = within("the subscription of a closed handle to end", all).await??;
    ensure_numbers(&all, 0..50, "the subscription of the closed handle")
}

/// A closed handle refuses every call as unavailable, with nothing done; closing it again is no-op.
pub async fn closed_is_unavailable(trial: &Trial) -> Verdict {
    let (closed, other) = (trial.messaging().await?, trial.messaging().await?);
    let subject = trial.subject("s");
    let messages = subscribe(&*other, &subject).await?;
    closed.close(GRACE).await?;
    fails(closed.publish(Message::new(subject.clone(), "x")).await, "unavailable")?;
    fails(closed.request(Message::new(subject.clone(), "x"), GRACE).await, "unavailable")?;
    fails(closed.subscribe(Subscription::new(&subject)).await, "unavailable")?;
    fails(closed.flush().await, "unavailable")?;
    closed.close(GRACE).await?;
    closed.close(Duration::ZERO).await?;
    other.flush().await?;
    ensure_eq!(drained(messages).await?, vec![], "what a closed handle published");
    Ok(())
}

/// Closing one handle disturbs no other: its subscriptions, its requests, its publishes go on.
pub async fn close_disturbs_no_other(trial: &Trial) -> Verdict {
    let (closed, other) = (trial.messaging().await?, trial.messaging().await?);
    let subject = trial.subject("s");
    let _its = subscribe(&*closed, &subject).await?;
    let mut requests = subscribe(&*other, &subject).await?;
    closed.close(GRACE).await?;
    let serve = async {
        let request = next(&mut requests, "the request").await?;
        Ok::<_, Failure>(other.respond(&request, bytes("here")).await?)
    };
    let asked = other.request(Message::new(subject, "?"), GRACE);
    let (reply, served) = futures_util::future::join(asked, serve).await;
    served?;
    ensure_eq!(reply?.payload, "here", "the reply");
    Ok(())
}
