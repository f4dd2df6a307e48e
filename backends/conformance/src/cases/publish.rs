//! Publish and subscribe.

use bytes::Bytes;
use futures_util::StreamExt;
use slipring_core::{Error, Headers, Message, Messaging, Pattern, Subject, Subscription};

use crate::failure::{ensure, ensure_eq};
use crate::trial::{
    broker_can, drained, ensure_numbers, fails, next, number, publish_numbers, subscribe, too_large, within,
};
use crate::{Failure, Trial, Verdict};

/// M3: once `subscribe` has resolved, what anybody publishes arrives, from another handle too, every time.
pub async fn m3_subscribed_means_routed(trial: &Trial) -> Verdict {
    let (subscriber, publisher) = (trial.messaging().await?, trial.messaging().await?);
    for round in 0..100 {
        let subject = trial.subject(round);
        let mut messages = subscribe(&*subscriber, &subject).await?;
        publisher.publish(Message::new(subject.clone(), "hello")).await?;
        let message = next(&mut messages, format!("the message of round {round}")).await?;
        ensure_eq!(message, Message::new(subject, "hello"), "the message");
    }
    Ok(())
}

/// M3: what was published before nobody gets later.
pub async fn m3_nothing_from_before(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    let subject = trial.subject("s");
    publish_numbers(&*broker, &subject, 0..10).await?;
    let messages = subscribe(&*broker, &subject).await?;
    publish_numbers(&*broker, &subject, 10..11).await?;
    ensure_numbers(&drained(messages).await?, 10..11, "the late subscriber")
}

/// M1, M2: what one handle publishes arrives once each, in order.
pub async fn m2_one_publisher_is_in_order(trial: &Trial) -> Verdict {
    const MESSAGES: u32 = 5000;
    let (subscriber, publisher) = (trial.messaging().await?, trial.messaging().await?);
    let subject = trial.subject("s");
    let messages = subscribe(&*subscriber, &subject).await?;
    publish_numbers(&*publisher, &subject, 0..MESSAGES).await?;
    ensure_numbers(&drained(messages).await?, 0..MESSAGES, "the subscriber")
}

/// M2: of several publishers each is in order, and none is lost.
pub async fn m2_each_publisher_is_in_order(trial: &Trial) -> Verdict {
    const PUBLISHERS: u32 = 4;
    const MESSAGES: u32 = 250;
    let subject = trial.subject("s");
    let messages = subscribe(&*trial.messaging().await?, &subject).await?;
    let publish = async |publisher: u32| {
        let own = trial.messaging().await?;
        for message in 0..MESSAGES {
            own.publish(Message::new(subject.clone(), (publisher * MESSAGES + message).to_string())).await?;
            tokio::task::yield_now().await;
        }
        own.flush().await?;
        Ok::<_, Failure>(())
    };
    futures_util::future::try_join_all((0..PUBLISHERS).map(publish)).await?;
    let messages = drained(messages).await?;
    for publisher in 0..PUBLISHERS {
        let all = publisher * MESSAGES..(publisher + 1) * MESSAGES;
        let is_its = |message: &&Message| number(message).is_ok_and(|number| all.contains(&number));
        let its: Vec<_> = messages.iter().filter(is_its).cloned().collect();
        ensure_numbers(&its, all.clone(), "from one of the publishers")?;
    }
    ensure_eq!(messages.len(), (PUBLISHERS * MESSAGES) as usize, "the number of messages");
    Ok(())
}

/// M4: each subscription gets its own copy: several of one handle, those of other handles, and those of the
/// publisher itself.
pub async fn m4_everybody_gets_a_copy(trial: &Trial) -> Verdict {
    let (one, other) = (trial.messaging().await?, trial.messaging().await?);
    let subject = trial.subject("s");
    let mut subscribers = Vec::new();
    for broker in [&one, &one, &other, &other] {
        subscribers.push(subscribe(&**broker, &subject).await?);
    }
    publish_numbers(&*one, &subject, 0..20).await?;
    for messages in subscribers {
        ensure_numbers(&drained(messages).await?, 0..20, "one of the subscribers")?;
    }
    Ok(())
}

/// Publishing where nobody listens is no error.
pub async fn nobody_needs_to_listen(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    broker.publish(Message::new(trial.subject("nobody"), "x")).await?;
    Ok(broker.flush().await?)
}

/// A payload is bytes, each of the 256, or none; the reply subject arrives too.
pub async fn messages_arrive_whole(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    let subject = trial.subject("s");
    let mut messages = subscribe(&*broker, &subject).await?;
    let all: Bytes = (0..=u8::MAX).collect();
    let inbox = subscribe(&*broker, &trial.subject("inbox")).await?;
    for sent in [
        Message::new(subject.clone(), all.clone()),
        Message::new(subject.clone(), Bytes::new()),
        Message::new(subject.clone(), all).with_reply(trial.subject("inbox")),
        Message::new(subject.clone(), Bytes::new()).with_reply(trial.subject("inbox")),
    ] {
        broker.publish(sent.clone()).await?;
        ensure_eq!(next(&mut messages, "a message").await?, sent, "the message");
    }
    ensure_eq!(drained(inbox).await?, vec![], "what came to the inbox although there is a subscriber");
    Ok(())
}

/// Headers arrive: the values of each name in the order they were added, names as they are written.
pub async fn headers_arrive(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    let subject = trial.subject("s");
    let mut messages = subscribe(&*broker, &subject).await?;
    let mut headers = Headers::new();
    for (name, value) in [
        ("slipring-deadline", "250"),
        ("Case", "upper"),
        ("case", "lower"),
        ("twice", "b"),
        ("twice", "a"),
        ("empty", ""),
        ("text", "ünï: cödé, 名前"),
        ("punct!#$%&'*+-.^_`|~", "x; y=\"z\""),
    ] {
        headers.append(name, value)?;
    }
    let sent = Message::new(subject.clone(), "body").with_headers(headers);
    broker.publish(sent.clone()).await?;
    let got = next(&mut messages, "the message").await?;
    let by_name = |message: &Message| {
        let mut all: Vec<_> = message.headers.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        // Stable: names are sorted, the values of one name stay as they are.
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    };
    ensure_eq!(by_name(&got), by_name(&sent), "the headers");
    ensure_eq!(got.payload, sent.payload, "the payload");
    broker.publish(Message::new(subject, "bare")).await?;
    ensure!(next(&mut messages, "the bare message").await?.headers.is_empty(), "headers out of nothing");
    Ok(())
}

/// M11: a payload of exactly the limit arrives whole; one byte more is refused with both figures, for a
/// request too, and nothing is sent.
pub async fn m11_payload_limit_is_exact(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    let limit = broker_can(&*broker).await?.payload_bytes_max;
    let subject = trial.subject("s");
    let mut messages = subscribe(&*broker, &subject).await?;
    let of = |bytes: usize| Message::new(subject.clone(), vec![b'x'; bytes]);
    too_large(broker.publish(of(limit + 1)).await, limit, limit + 1)?;
    too_large(broker.request(of(limit + 1), std::time::Duration::from_secs(5)).await, limit, limit + 1)?;
    broker.publish(of(limit)).await?;
    let got = next(&mut messages, "the message of the largest size").await?;
    ensure_eq!(got.payload.len(), limit, "the size of the first message that arrives");
    Ok(())
}

/// M11: headers count against the limit.
pub async fn m11_headers_count(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    let limit = broker_can(&*broker).await?.payload_bytes_max;
    let subject = trial.subject("s");
    let mut messages = subscribe(&*broker, &subject).await?;
    let mut headers = Headers::new();
    headers.append("name", "value")?;
    let room = limit - headers.wire_bytes();
    let of = |bytes| Message::new(subject.clone(), vec![b'x'; bytes]).with_headers(headers.clone());
    too_large(broker.publish(of(room + 1)).await, limit, limit + 1)?;
    too_large(broker.publish(of(limit)).await, limit, limit + headers.wire_bytes())?;
    broker.publish(of(room)).await?;
    let got = next(&mut messages, "the message of the largest size").await?;
    ensure_eq!(got.wire_bytes(), limit, "the size of the first message that arrives");
    Ok(())
}

/// Whatever a subject may be called, its messages reach it and no other.
pub async fn odd_subjects_are_kept_apart(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    let longest = broker_can(&*broker).await?.subject_bytes_max.min(Subject::BYTES_MAX);
    let long = "l".repeat(longest - trial.scoped("").len());
    let odd = [
        "a|b",
        "a/b",
        "a:b",
        "a.b",
        "a.B",
        "a",
        "a*b",
        "a>b",
        "$x",
        "#",
        "@",
        "名前.é",
        "e\u{301}",
        "a-b_c",
        "%2F",
        "{}",
        "\"q\"",
        &long,
    ];
    let mut subscribers = Vec::new();
    for name in odd {
        subscribers.push((name, subscribe(&*broker, &trial.subject(name)).await?));
    }
    for name in odd {
        broker.publish(Message::new(trial.subject(name), name.to_owned())).await?;
    }
    broker.flush().await?;
    for (name, messages) in subscribers {
        let got = drained(messages).await?;
        ensure_eq!(got, vec![Message::new(trial.subject(name), name.to_owned())], "what came to {name:?}");
    }
    Ok(())
}

/// M3: a dropped subscription gets nothing more, and the others get all.
pub async fn dropping_unsubscribes_alone(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    let subject = trial.subject("s");
    let stays = subscribe(&*broker, &subject).await?;
    let dropped = subscribe(&*broker, &subject).await?;
    publish_numbers(&*broker, &subject, 0..5).await?;
    drop(dropped);
    publish_numbers(&*broker, &subject, 5..10).await?;
    ensure_numbers(&drained(stays).await?, 0..10, "the other subscriber")
}

/// M3: when the last subscription was dropped, the broker soon knows that nobody is there.
pub async fn dropping_ends_the_interest(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    let subject = trial.subject("s");
    drop(subscribe(&*broker, &subject).await?);
    let asked = async {
        loop {
            let request = Message::new(subject.clone(), "anybody?");
            match broker.request(request, std::time::Duration::from_millis(200)).await {
                Err(Error::NoResponders { .. }) => return,
                _ => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
    };
    within("the broker to know that nobody is subscribed", asked).await
}

/// M12: after `stop` the stream yields what had been routed to it, and nothing that came later; then it
/// ends. Stopping again is no-op.
pub async fn m12_stop_yields_what_was_accepted(trial: &Trial) -> Verdict {
    let (subscriber, publisher) = (trial.messaging().await?, trial.messaging().await?);
    let subject = trial.subject("s");
    let mut messages = subscribe(&*subscriber, &subject).await?;
    publish_numbers(&*publisher, &subject, 0..100).await?;
    let first = next(&mut messages, "the first message").await?;
    messages.stop();
    messages.stop();
    let mut got = vec![first];
    got.extend(drained(messages).await?);
    ensure_numbers(&got, 0..100, "the stopped subscription")
}

/// M12: a stopped subscription without messages ends; later messages do not reach it.
pub async fn m12_stop_ends_the_stream(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    let subject = trial.subject("s");
    let witness = subscribe(&*broker, &subject).await?;
    let mut messages = subscribe(&*broker, &subject).await?;
    messages.stop();
    let end = within("the stopped subscription to end", messages.next()).await?;
    ensure!(end.is_none(), "expected the end, got {end:?}");
    publish_numbers(&*broker, &subject, 0..1).await?;
    let end = within("the stopped subscription to end", messages.next()).await?;
    ensure!(end.is_none(), "expected the end to stay the end, got {end:?}");
    ensure_numbers(&drained(witness).await?, 0..1, "the witness")
}

/// M10: a full buffer keeps the oldest messages, and reports exactly how many it lost where it lost them;
/// others lose nothing; and the subscription goes on.
pub async fn m10_loss_is_counted_exactly(trial: &Trial) -> Verdict {
    const BUFFER: usize = 10;
    const MESSAGES: u32 = 500;
    let broker = trial.messaging().await?;
    let subject = trial.subject("s");
    let subscription = Subscription::new(&subject).with_messages_max(BUFFER);
    let mut slow = broker.subscribe(subscription).await?;
    let mut quick = subscribe(&*broker, &subject).await?;
    publish_numbers(&*broker, &subject, 0..MESSAGES).await?;
    // When one more has come to a neighbour of the same handle, all before it have come to both.
    publish_numbers(&*broker, &subject, MESSAGES..MESSAGES + 1).await?;
    for expected in 0..=MESSAGES {
        let got = number(&next(&mut quick, format!("message {expected}")).await?)?;
        ensure_eq!(got, expected, "the next message of the quick subscriber");
    }
    let mut seen = 0;
    let mut missed = 0;
    while seen + missed <= MESSAGES {
        match within("a message or a count of lost ones", slow.next()).await? {
            Some(Ok(message)) => {
                ensure_eq!(
                    number(&message)?,
                    seen + missed,
                    "with {missed} told to be lost, the next message"
                );
                seen += 1;
            }
            Some(Err(Error::Lagged { missed: some, .. })) => {
                ensure!(some > 0, "a loss of none");
                missed += u32::try_from(some).unwrap_or(u32::MAX);
            }
            other => return Err(Failure::new(format!("expected a message or a count, got {other:?}"))),
        }
    }
    ensure_eq!(seen + missed, MESSAGES + 1, "messages and losses together");
    ensure!(seen as usize >= BUFFER && missed > 0, "a buffer of {BUFFER} kept {seen} and lost {missed}");
    publish_numbers(&*broker, &subject, 0..5).await?;
    ensure_numbers(&drained(slow).await?, 0..5, "the slow subscriber, afterwards")
}

/// M5: where wildcards are declared they work, and elsewhere they are refused, never taken literally.
pub async fn m5_wildcards_are_declared_or_refused(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    for pattern in ["*", ">", "*.b", "a.>"] {
        let subscribed = broker.subscribe(Subscription::new(Pattern::new(trial.scoped(pattern))?)).await;
        if broker_can(&*broker).await?.wildcards {
            subscribed?;
        } else {
            fails(subscribed, "unsupported")?;
        }
    }
    Ok(())
}

/// M5: `*` is exactly one token, `>` is one or more at the end, and inside a token both are letters.
pub async fn m5_wildcards_are_exact(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    let subjects = ["a", "b", "a.b", "a.c", "b.b", "a.b.c", "a.b.c.d", "a*", "ab", "A.b", "a.>b"];
    let expected: [(&str, &[&str]); 9] = [
        ("*", &["a", "b", "a*", "ab"]),
        (">", &subjects),
        ("a.*", &["a.b", "a.c", "a.>b"]),
        ("a.>", &["a.b", "a.c", "a.b.c", "a.b.c.d", "a.>b"]),
        ("*.b", &["a.b", "b.b", "A.b"]),
        ("a.*.c", &["a.b.c"]),
        ("*.*.>", &["a.b.c", "a.b.c.d"]),
        ("a*", &["a*"]),
        ("a.>b", &["a.>b"]),
    ];
    let mut subscribers = Vec::new();
    for (pattern, matches) in expected {
        let subscription = Subscription::new(Pattern::new(trial.scoped(pattern))?);
        subscribers.push((pattern, matches, broker.subscribe(subscription).await?));
    }
    for subject in subjects {
        broker.publish(Message::new(trial.subject(subject), subject)).await?;
    }
    broker.flush().await?;
    for (pattern, matches, messages) in subscribers {
        let got: Vec<_> = drained(messages).await?.into_iter().map(|message| message.subject).collect();
        let expected: Vec<_> = matches.iter().map(|subject| trial.subject(subject)).collect();
        ensure_eq!(got, expected, "the subjects that match {pattern:?}");
    }
    Ok(())
}

/// M4: a message that matches several subscriptions comes to each of them once.
pub async fn m4_overlapping_patterns_get_one_each(trial: &Trial) -> Verdict {
    let broker: std::sync::Arc<dyn Messaging> = trial.messaging().await?;
    let mut subscribers = Vec::new();
    for pattern in ["a.b", "a.*", "a.>", "*.b", "a.b"] {
        let subscription = Subscription::new(Pattern::new(trial.scoped(pattern))?);
        subscribers.push(broker.subscribe(subscription).await?);
    }
    publish_numbers(&*broker, &trial.subject("a.b"), 0..10).await?;
    for messages in subscribers {
        ensure_numbers(&drained(messages).await?, 0..10, "one of the subscribers")?;
    }
    Ok(())
}
