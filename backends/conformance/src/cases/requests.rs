//! Requests and their replies.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{join, try_join_all};
use slipring_core::{Effect, Environment, Error, Headers, Message, Messaging, MessagingExt, Subject, Task};
use tokio::time::{Instant, timeout};

use crate::failure::{ensure, ensure_eq};
use crate::trial::{broker_can, drained, fails, next, subscribe};
use crate::{Failure, Trial, Verdict};

const ENOUGH: Duration = Duration::from_secs(20);

/// Starts answering: each request with its own payload, after `prefix`. Ends when dropped.
async fn answer(trial: &Trial, subject: &Subject, prefix: &'static str) -> Result<Task, Failure> {
    let broker = trial.messaging().await?;
    let mut requests = subscribe(&*broker, subject).await?;
    let environment = trial.environment();
    Ok(environment.spawn(
        "answers",
        Box::pin(async move {
            while let Some(Ok(request)) = requests.next().await {
                let answer = [prefix.as_bytes(), &request.payload].concat();
                if broker.respond(&request, answer.into()).await.is_err() {
                    return;
                }
            }
        }),
    ))
}

fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.payload).into_owned()
}

/// Checks that a request ended because its time was over, and may have been executed.
fn ensure_deadline(result: slipring_core::Result<Message>) -> Verdict {
    match result {
        Err(error @ Error::DeadlineExceeded { .. }) => {
            ensure_eq!(error.effect(), Effect::Unknown, "the effect of a request that may have arrived");
            Ok(())
        }
        other => Err(Failure::new(format!("expected the deadline to be exceeded, got {other:?}"))),
    }
}

/// A request gets its reply, from another handle.
pub async fn request_gets_its_reply(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    let subject = trial.subject("s");
    let _answers = answer(trial, &subject, "to ").await?;
    for payload in ["hello", "", "again"] {
        let reply = broker.request(Message::new(subject.clone(), payload), ENOUGH).await?;
        ensure_eq!(text(&reply), format!("to {payload}"), "the reply");
        ensure!(!reply.no_responders, "a reply that says that nobody is there");
    }
    Ok(())
}

/// Requests and replies carry headers, and payloads up to the limit.
pub async fn requests_carry_all(trial: &Trial) -> Verdict {
    let (client, server) = (trial.messaging().await?, trial.messaging().await?);
    let limit = broker_can(&*client).await?.payload_bytes_max;
    let subject = trial.subject("s");
    let mut requests = subscribe(&*server, &subject).await?;
    let mut headers = Headers::new();
    headers.append("question", "1")?;
    let asked = Message::new(subject, vec![7; limit - headers.wire_bytes()]).with_headers(headers.clone());
    let serve = async {
        let request = next(&mut requests, "the request").await?;
        ensure_eq!(request.headers, headers, "the headers of the request");
        ensure_eq!(request.payload.len(), asked.payload.len(), "the size of the request");
        let reply = request.reply.clone().ok_or_else(|| Failure::new("the request has no reply subject"))?;
        let mut headers = Headers::new();
        headers.append("reply-no", "2")?;
        let payload = vec![8; limit - headers.wire_bytes()];
        Ok::<_, Failure>(server.publish(Message::new(reply, payload).with_headers(headers)).await?)
    };
    let (reply, served) = join(client.request(asked.clone(), ENOUGH), serve).await;
    served?;
    let reply = reply?;
    ensure_eq!(reply.headers.first("reply-no"), Some("2"), "the header of the reply");
    ensure_eq!(reply.wire_bytes(), limit, "the size of the reply");
    Ok(())
}

/// M6: the first reply is the reply; what comes after it, from the same or another responder, is dropped and
/// never taken for the reply to something else.
pub async fn m6_first_reply_wins(trial: &Trial) -> Verdict {
    let (client, server) = (trial.messaging().await?, trial.messaging().await?);
    let subject = trial.subject("s");
    let mut requests = subscribe(&*server, &subject).await?;
    for round in 0..20 {
        let serve = async {
            let request = next(&mut requests, "the request").await?;
            for answer in ["first", "second", "third"] {
                server.respond(&request, Bytes::from(format!("{answer} {round}"))).await?;
            }
            Ok::<_, Failure>(())
        };
        let (reply, served) = join(client.request(Message::new(subject.clone(), "?"), ENOUGH), serve).await;
        served?;
        ensure_eq!(text(&reply?), format!("first {round}"), "the reply");
    }
    Ok(())
}

/// With several subscribers a request comes to each of them, and one reply comes back.
pub async fn several_responders_one_reply(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    let subject = trial.subject("s");
    let _one = answer(trial, &subject, "").await?;
    let _two = answer(trial, &subject, "").await?;
    let witness = subscribe(&*broker, &subject).await?;
    for round in 0..20 {
        let reply = broker.request(Message::new(subject.clone(), round.to_string()), ENOUGH).await?;
        ensure_eq!(text(&reply), round.to_string(), "the reply");
    }
    ensure_eq!(drained(witness).await?.len(), 20, "the requests that came to the third subscriber");
    Ok(())
}

/// M6: a reply that comes after its request has timed out is dropped.
pub async fn m6_late_reply_is_dropped(trial: &Trial) -> Verdict {
    let (client, server) = (trial.messaging().await?, trial.messaging().await?);
    let subject = trial.subject("s");
    let mut requests = subscribe(&*server, &subject).await?;
    let early = client.request(Message::new(subject.clone(), "1"), Duration::from_millis(100)).await;
    ensure_deadline(early)?;
    let late = next(&mut requests, "the first request").await?;
    let serve = async {
        let request = next(&mut requests, "the second request").await?;
        server.respond(&late, Bytes::from("late")).await?;
        Ok::<_, Failure>(server.respond(&request, Bytes::from("in time")).await?)
    };
    let (reply, served) = join(client.request(Message::new(subject.clone(), "2"), ENOUGH), serve).await;
    served?;
    ensure_eq!(text(&reply?), "in time", "the reply to the second request");
    Ok(())
}

/// M6: a hundred requests at once each get their own reply, though the replies come in another order.
pub async fn m6_concurrent_requests_do_not_cross(trial: &Trial) -> Verdict {
    const REQUESTS: usize = 100;
    let (client, server) = (trial.messaging().await?, trial.messaging().await?);
    let subject = trial.subject("s");
    let mut requests = subscribe(&*server, &subject).await?;
    let ask = (0..REQUESTS).map(|n| client.request(Message::new(subject.clone(), n.to_string()), ENOUGH));
    let serve = async {
        let mut waiting = Vec::new();
        while waiting.len() < REQUESTS {
            waiting.push(next(&mut requests, "all requests").await?);
        }
        // Backwards, then every other one.
        waiting.reverse();
        let (odd, even): (Vec<_>, Vec<_>) = waiting.into_iter().enumerate().partition(|(n, _)| n % 2 == 1);
        for (_, request) in odd.into_iter().chain(even) {
            server.respond(&request, request.payload.clone()).await?;
        }
        Ok::<_, Failure>(())
    };
    let (replies, served) = join(try_join_all(ask), serve).await;
    served?;
    for (number, reply) in replies?.iter().enumerate() {
        ensure_eq!(text(reply), number.to_string(), "the reply to request {number}");
    }
    Ok(())
}

/// M7: a request where nobody is subscribed ends at once, with nothing executed; without that capability it
/// ends at its deadline.
pub async fn m7_nobody_there(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    let request = |after| broker.request(Message::new(trial.subject("nobody"), "?"), after);
    if !broker_can(&*broker).await?.no_responders {
        return ensure_deadline(request(Duration::from_millis(100)).await);
    }
    let began = Instant::now();
    let error = fails(request(ENOUGH).await, "no_responders")?;
    let took = began.elapsed();
    ensure!(took < ENOUGH / 2, "nobody was there, and it took {took:?} of {ENOUGH:?} to say so");
    ensure!(error.to_string().contains(trial.tag()), "the error does not name the subject: {error}");
    Ok(())
}

/// M7: a message with a reply subject that nobody is subscribed to is answered there, by the broker, with
/// `no_responders`; one without a reply subject is not answered; and one that somebody gets is not either.
pub async fn m7_no_responders_arrives_at_the_inbox(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    let (nobody, inbox) = (trial.subject("nobody"), trial.subject("inbox"));
    let mut replies = subscribe(&*broker, &inbox).await?;
    broker.publish(Message::new(nobody.clone(), "without")).await?;
    broker.publish(Message::new(nobody, "with").with_reply(inbox.clone())).await?;
    let told = next(&mut replies, "the broker's answer").await?;
    ensure!(told.no_responders, "expected the broker to say that nobody is there, got {told:?}");
    ensure_eq!(told.subject, inbox, "where the answer came");
    ensure_eq!(told.payload, Bytes::new(), "the payload of the answer");

    let somebody = trial.subject("somebody");
    let got = subscribe(&*broker, &somebody).await?;
    broker.publish(Message::new(somebody, "with").with_reply(inbox)).await?;
    broker.flush().await?;
    ensure_eq!(drained(got).await?.len(), 1, "what somebody got");
    ensure_eq!(drained(replies).await?, vec![], "further answers");
    Ok(())
}

/// A request that nobody answers ends at its deadline, never before, and may have been executed.
pub async fn deadline_is_never_early(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    let subject = trial.subject("s");
    let _silent = subscribe(&*broker, &subject).await?;
    for after in [1, 50, 300].map(Duration::from_millis) {
        let began = Instant::now();
        let result = broker.request(Message::new(subject.clone(), "?"), after).await;
        let took = began.elapsed();
        ensure_deadline(result)?;
        ensure!(took >= after, "given {after:?}, ended after {took:?}");
    }
    Ok(())
}

/// The reply subject of a request is the broker's own, whatever the message said.
pub async fn own_reply_is_replaced(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    let (subject, mine) = (trial.subject("s"), trial.subject("mine"));
    let diverted = subscribe(&*broker, &mine).await?;
    let _answers = answer(trial, &subject, "").await?;
    let reply = broker.request(Message::new(subject, "x").with_reply(mine), ENOUGH).await?;
    ensure_eq!(text(&reply), "x", "the reply");
    broker.flush().await?;
    ensure_eq!(drained(diverted).await?, vec![], "what came to the message's own reply subject");
    Ok(())
}

/// F37: requests that are dropped while they wait disturb nothing that comes after.
pub async fn dropped_requests_leave_nothing(trial: &Trial) -> Verdict {
    let (client, server) = (trial.messaging().await?, trial.messaging().await?);
    let subject = trial.subject("s");
    let mut requests = subscribe(&*server, &subject).await?;
    let mut abandoned = Vec::new();
    for round in 0..20 {
        let request = client.request(Message::new(subject.clone(), round.to_string()), ENOUGH);
        // Dropped once the far end has it.
        let arrived = next(&mut requests, "the request");
        tokio::select! {
            biased;
            reply = request => return Err(Failure::new(format!("a reply out of nothing: {reply:?}"))),
            request = arrived => abandoned.push(request?),
        }
    }
    for request in &abandoned {
        server.respond(request, Bytes::from("too late")).await?;
    }
    server.flush().await?;
    let _answers = answer(trial, &trial.subject("t"), "").await?;
    let reply = client.request(Message::new(trial.subject("t"), "in time"), ENOUGH).await?;
    ensure_eq!(text(&reply), "in time", "the reply to the next request");
    Ok(())
}

/// A request does not hold up its handle: others are answered while it waits.
pub async fn waiting_requests_block_nobody(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    let (silent, lively) = (trial.subject("silent"), trial.subject("lively"));
    let _silent = subscribe(&*broker, &silent).await?;
    let _answers = answer(trial, &lively, "").await?;
    let waits = broker.request(Message::new(silent, "?"), ENOUGH * 100);
    let others = async {
        for round in 0..20 {
            let reply = broker.request(Message::new(lively.clone(), round.to_string()), ENOUGH).await?;
            ensure_eq!(text(&reply), round.to_string(), "the reply");
        }
        Ok::<_, Failure>(())
    };
    tokio::select! {
        biased;
        others = timeout(ENOUGH, others) => match others {
            Ok(others) => others,
            Err(_) => Err(Failure::new("the others waited for the one that nobody answers")),
        },
        reply = waits => Err(Failure::new(format!("a reply out of nothing: {reply:?}"))),
    }
}
