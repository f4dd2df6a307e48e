//! The broker goes away and comes back: nothing is sent late, nothing comes twice, and whoever missed something
//! is told.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::{join, poll_immediate};
use futures_util::{Stream, StreamExt};
use slipring_core::service::{EndpointSpec, ServiceName, ServiceSpec};
use slipring_core::{
    Effect, Error, Message, Messaging, MessagingExt, QueueGroup, Subject, Subscriber, Subscription,
};
use tokio::time::{Instant, sleep, timeout};

use crate::failure::{ensure, ensure_eq};
use crate::outage::{
    Heard, MOMENT, broker_is_back, broker_is_missed, heard, is_outage, retried, until_heard,
};
use crate::trial::{bytes, fails, next, publish_numbers, subscribe, within};
use crate::{Action, Failure, Trial, Verdict};

/// How long a request may take that gets no answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// M9: after a restart a subscription goes on by itself, and tells that something may be missing before it
/// shows the first message.
pub async fn m9_restored_after_a_restart(trial: &Trial) -> Verdict {
    let (subscriber, publisher) = (trial.messaging().await?, trial.messaging().await?);
    let subject = trial.subject("s");
    let mut messages = subscribe(&*subscriber, &subject).await?;
    publish_numbers(&*publisher, &subject, 0..3).await?;
    for number in 0..3 {
        let heard = within("a message", heard(&mut messages)).await??;
        ensure_eq!(heard, Heard::Text(number.to_string()), "what comes before the stop");
    }
    trial.act(Action::Stop).await?;
    broker_is_missed(&*publisher, trial).await?;
    trial.act(Action::Start).await?;
    let began = Instant::now();
    let shown = until_heard(&*publisher, &subject, &mut messages, "after").await?;
    trial.note(format!("a subscription went on {:?} after the start", began.elapsed()));
    ensure_eq!(shown.first(), Some(&Heard::Lagged), "what the subscription goes on with, of {shown:?}");
    Ok(())
}

/// M1, M2, M9: connections end again and again under a publisher. What arrives comes once and in order; and
/// where something that was with the broker did not arrive, the subscription tells of a loss there.
pub async fn m9_gaps_are_told(trial: &Trial) -> Verdict {
    const MESSAGES: u32 = 90;
    const MESSAGES_PER_CUT: u32 = 15;
    let (subscriber, publisher) = (trial.messaging().await?, trial.messaging().await?);
    let subject = trial.subject("s");
    let mut messages = subscribe(&*subscriber, &subject).await?;
    let (mut accepted, mut shown) = (Vec::new(), Vec::new());
    for number in 0..MESSAGES {
        if number % MESSAGES_PER_CUT == MESSAGES_PER_CUT / 2 {
            trial.act(Action::Cut).await?;
        }
        let message = Message::new(subject.clone(), number.to_string());
        let sent = async { publisher.publish(message).await.and(publisher.flush().await) };
        match sent.await {
            Ok(()) => accepted.push(number),
            Err(error) => {
                ensure!(is_outage(&error), "a publish ended with {error:?}");
                retried("the publisher to be back", || publisher.flush()).await?;
            }
        }
        tokio::task::yield_now().await;
        while let Some(next) = poll_immediate(heard(&mut messages)).await {
            shown.push(next?);
        }
    }
    shown.extend(until_heard(&*publisher, &subject, &mut messages, "last").await?);
    ensure_nothing_is_missing(&accepted, &shown)?;
    let arrived = shown.iter().filter(|heard| **heard != Heard::Lagged).count() - 1;
    trial.note(format!("of {MESSAGES}, {} were with the broker, {arrived} arrived", accepted.len()));
    Ok(())
}

/// Checks that what was shown is in order and once, and that whatever was accepted and is not shown would have
/// stood where a loss is told.
fn ensure_nothing_is_missing(accepted: &[u32], shown: &[Heard]) -> Verdict {
    let (mut at, mut told) = (0, false);
    for heard in shown {
        let Heard::Text(text) = heard else {
            told = true;
            continue;
        };
        let number = if text == "last" { u32::MAX } else { text.parse().unwrap_or(u32::MAX) };
        ensure!(number >= at, "out of order, or twice: {text:?} in {shown:?}");
        let missing: Vec<_> = accepted.iter().filter(|sent| (at..number).contains(*sent)).collect();
        ensure!(
            told || missing.is_empty(),
            "missing without a word before {text:?}: {missing:?} of {shown:?}"
        );
        (at, told) = (number.saturating_add(1), false);
    }
    Ok(())
}

/// M4, M9: members of a queue group are members again after their connections ended: each message comes to
/// exactly one of them, and each of them gets some.
pub async fn m4_members_are_restored_as_members(trial: &Trial) -> Verdict {
    const MESSAGES: u32 = 200;
    let publisher = trial.messaging().await?;
    let subject = trial.subject("s");
    let group = Subscription::new(&subject).with_queue(QueueGroup::new("group")?);
    let handles = [trial.messaging().await?, trial.messaging().await?];
    let mut members = [handles[0].subscribe(group.clone()).await?, handles[1].subscribe(group).await?];
    trial.act(Action::Cut).await?;
    // Each is back when something comes to it.
    let mut back = [false, false];
    let all_back = async {
        while back != [true, true] {
            match publisher.publish(Message::new(subject.clone(), "probe")).await {
                Err(error) if !is_outage(&error) => return Err(error.into()),
                _ => {}
            }
            for (member, back) in members.iter_mut().zip(&mut back) {
                while let Ok(next) = timeout(Duration::from_millis(20), heard(member)).await {
                    *back |= next? != Heard::Lagged;
                }
            }
        }
        Ok::<_, Failure>(())
    };
    within("both members to get something again", all_back).await??;
    broker_is_back(&*publisher, trial).await?;
    publish_numbers(&*publisher, &subject, 0..MESSAGES).await?;
    let mut times = BTreeMap::<String, u32>::new();
    for mut member in members {
        member.stop();
        while let Some(message) = within("a stopped subscription to end", member.next()).await? {
            if let Ok(message) = message {
                *times.entry(String::from_utf8_lossy(&message.payload).into_owned()).or_default() += 1;
            }
        }
    }
    times.remove("probe");
    let once = (0..MESSAGES).all(|number| times.get(&number.to_string()) == Some(&1));
    ensure!(once && times.len() == MESSAGES as usize, "expected each of {MESSAGES} once, got {times:?}");
    Ok(())
}

/// While the broker is away, publishes, requests and subscriptions are refused as unavailable, with nothing
/// done; and nothing of it is sent when the broker is back.
pub async fn stopped_broker_refuses(trial: &Trial) -> Verdict {
    let (subscriber, publisher) = (trial.messaging().await?, trial.messaging().await?);
    let subject = trial.subject("s");
    let mut messages = subscribe(&*subscriber, &subject).await?;
    trial.act(Action::Stop).await?;
    broker_is_missed(&*publisher, trial).await?;
    let began = Instant::now();
    let calls = async {
        for _ in 0..10 {
            fails(publisher.publish(Message::new(subject.clone(), "refused")).await, "unavailable")?;
        }
        fails(publisher.request(Message::new(subject.clone(), "refused"), PATIENCE).await, "unavailable")?;
        fails(publisher.subscribe(Subscription::new(&subject)).await, "unavailable")?;
        let flushed = publisher.flush().await.map_err(|error| error.code());
        ensure_eq!(flushed, Err("unavailable"), "a flush without a broker");
        Ok(())
    };
    within("calls to be refused", calls).await??;
    trial.note(format!("thirteen calls were refused in {:?}", began.elapsed()));
    trial.act(Action::Start).await?;
    let mut shown = until_heard(&*publisher, &subject, &mut messages, "after").await?;
    // What was kept to be sent later may come later still.
    while let Ok(next) = timeout(MOMENT, heard(&mut messages)).await {
        shown.push(next?);
    }
    let late = shown.iter().filter(|heard| **heard == Heard::Text("refused".to_owned())).count();
    ensure_eq!(late, 0, "messages that were refused and delivered all the same");
    Ok(())
}

/// A request that is under way when the broker goes away ends, at the latest when its time is over, and may
/// have been executed.
pub async fn requests_in_flight_at_a_stop_end(trial: &Trial) -> Verdict {
    in_flight_ends(trial, Action::Stop).await
}

/// A request that is under way when its connection ends does so too, if nobody answers.
pub async fn requests_in_flight_at_a_cut_end(trial: &Trial) -> Verdict {
    in_flight_ends(trial, Action::Cut).await
}

async fn in_flight_ends(trial: &Trial, fault: Action) -> Verdict {
    let (client, server) = (trial.messaging().await?, trial.messaging().await?);
    let subject = trial.subject("s");
    let mut requests = subscribe(&*server, &subject).await?;
    let began = Instant::now();
    let asked = within("a request to end", client.request(Message::new(subject, "?"), PATIENCE));
    let strike = async {
        next(&mut requests, "the request").await?;
        trial.act(fault).await
    };
    let (ended, struck) = join(asked, strike).await;
    struck?;
    let (ended, took) = (ended?, began.elapsed());
    let Err(error) = ended else {
        return Err(Failure::new(format!("nobody answered, and the request ended with {ended:?}")));
    };
    ensure!(is_outage(&error), "expected the end of a request without answer, got {error:?}");
    ensure_eq!(error.effect(), Effect::Unknown, "the effect of a request that has arrived");
    ensure!(error.code() == "unavailable" || took >= PATIENCE, "its time was over after {took:?}");
    trial.note(format!("a request in flight ended after {took:?} with {:?}", error.code()));
    Ok(())
}

/// A broker that stands still is noticed: requests end when their time is over, and what waits for the broker
/// ends within a bound. When the broker goes on, so does everything.
pub async fn paused_broker_is_noticed(trial: &Trial) -> Verdict {
    let (client, server) = (trial.messaging().await?, trial.messaging().await?);
    let subject = trial.subject("s");
    let mut requests = subscribe(&*server, &subject).await?;
    trial.act(Action::Pause).await?;
    let began = Instant::now();
    let calls = async {
        let request = client.request(Message::new(subject.clone(), "?"), PATIENCE);
        let new = async { client.subscribe(Subscription::new(trial.subject("new"))).await.map(drop) };
        let publish = client.publish(Message::new(trial.subject("other"), ""));
        tokio::join!(async { request.await.map(drop) }, client.flush(), new, publish)
    };
    let (request, flush, new, publish) = within("calls to a broker that stands still to end", calls).await?;
    trial.note(format!("calls to a broker that stands still ended after {:?}", began.elapsed()));
    for (call, ended) in [("request", request), ("flush", flush), ("subscribe", new)] {
        let ended = ended.err();
        ensure!(
            ended.as_ref().is_some_and(is_outage),
            "{call}: expected the end of a call without answer, got {ended:?}"
        );
    }
    // A publish is not answered, so it may go well.
    ensure!(publish.as_ref().err().is_none_or(is_outage), "a publish ended with {publish:?}");
    trial.act(Action::Resume).await?;
    ensure_answered(&*client, &subject, &*server, &mut requests).await
}

/// Checks that requests to this subject are answered (again): its subscription goes on, over any loss.
async fn ensure_answered(
    client: &dyn Messaging,
    subject: &Subject,
    server: &dyn Messaging,
    requests: &mut (impl Stream<Item = slipring_core::Result<Message>> + Unpin),
) -> Verdict {
    let serve = async {
        loop {
            match requests.next().await {
                // The caller asks again if this does not reach it.
                Some(Ok(request)) => drop(server.respond(&request, bytes("here")).await),
                Some(Err(Error::Lagged { .. })) => {}
                ended => return Failure::new(format!("the subscription ended with {ended:?}")),
            }
        }
    };
    let ask = async {
        loop {
            match client.request(Message::new(subject.clone(), "!"), MOMENT).await {
                Err(error) if is_outage(&error) || matches!(error, Error::NoResponders { .. }) => {
                    sleep(Duration::from_millis(20)).await;
                }
                answer => return answer,
            }
        }
    };
    tokio::select! {
        biased;
        failure = serve => Err(failure),
        reply = within("a reply", ask) => {
            ensure_eq!(reply??.payload, "here", "the reply");
            Ok(())
        }
    }
}

/// Closing a handle while the broker is away takes no longer than its grace; the handle is closed, and another
/// one is not disturbed.
pub async fn close_without_a_broker_keeps_its_grace(trial: &Trial) -> Verdict {
    let (closed, other) = (trial.messaging().await?, trial.messaging().await?);
    let subject = trial.subject("s");
    let mut its = subscribe(&*closed, &trial.subject("its")).await?;
    let mut messages = subscribe(&*other, &subject).await?;
    trial.act(Action::Stop).await?;
    ensure_closes(trial, &*closed, &mut its).await?;
    trial.act(Action::Start).await?;
    until_heard(&*other, &subject, &mut messages, "after").await?;
    fails(closed.publish(Message::new(subject, "x")).await, "unavailable")?;
    Ok(())
}

/// Closing a handle while the broker stands still takes no longer than its grace.
pub async fn close_of_a_silent_broker_keeps_its_grace(trial: &Trial) -> Verdict {
    let closed = trial.messaging().await?;
    let mut its = subscribe(&*closed, &trial.subject("its")).await?;
    trial.act(Action::Pause).await?;
    ensure_closes(trial, &*closed, &mut its).await
}

async fn ensure_closes(trial: &Trial, closed: &dyn Messaging, its: &mut Subscriber) -> Verdict {
    const GRACE: Duration = Duration::from_secs(1);
    let began = Instant::now();
    let close = within("a handle to be closed", closed.close(GRACE)).await?;
    trial.note(format!("closing with a grace of {GRACE:?} took {:?}: {close:?}", began.elapsed()));
    ensure!(close.as_ref().err().is_none_or(is_outage), "closing ended with {close:?}");
    fails(closed.publish(Message::new(trial.subject("s"), "x")).await, "unavailable")?;
    let ends = async { while its.next().await.is_some() {} };
    within("the subscription of a closed handle to end", ends).await
}

/// M12: a subscription that is stopped while the broker is away ends, after what it had, in order.
pub async fn m12_stop_ends_the_stream_without_a_broker(trial: &Trial) -> Verdict {
    let (subscriber, publisher) = (trial.messaging().await?, trial.messaging().await?);
    let subject = trial.subject("s");
    let mut messages = subscribe(&*subscriber, &subject).await?;
    publish_numbers(&*publisher, &subject, 0..10).await?;
    let first = within("the first message", heard(&mut messages)).await??;
    ensure_eq!(first, Heard::Text("0".to_owned()), "the first message");
    trial.act(Action::Stop).await?;
    broker_is_missed(&*publisher, trial).await?;
    messages.stop();
    let rest = async {
        let mut rest = Vec::new();
        while let Some(item) = messages.next().await {
            // It may know or not that something was lost.
            rest.extend(item.ok().map(|message| String::from_utf8_lossy(&message.payload).into_owned()));
        }
        rest
    };
    let rest = within("a stopped subscription to end", rest).await?;
    ensure!((1..10).map(|number| number.to_string()).take(rest.len()).eq(rest.iter().cloned()), "{rest:?}");
    Ok(())
}

/// A service is found again after a restart, and its endpoints answer, though nobody started it anew.
pub async fn services_are_back_after_a_restart(trial: &Trial) -> Verdict {
    let (server, client) = (trial.messaging().await?, trial.messaging().await?);
    let name = ServiceName::new(format!("conformance-{}", trial.tag()))?;
    let spec = ServiceSpec::new(name.clone(), "i1").with_version("1.2.3");
    let service = server.serve(trial.environment(), spec).await?;
    let subject = trial.subject("generate");
    let mut requests = service.add(EndpointSpec::new("generate", subject.clone())).await?;
    trial.act(Action::Stop).await?;
    broker_is_missed(&*client, trial).await?;
    trial.act(Action::Start).await?;
    let began = Instant::now();
    let find = async {
        loop {
            let inbox = trial.subject(format_args!("found.{:x}", trial.environment().random("found")));
            match client.inspect(inbox, Some(&name), MOMENT).await {
                Ok(found) if found.iter().any(|report| report.id == "i1") => return Ok(()),
                Err(error) if !is_outage(&error) => return Err(error),
                _ => sleep(Duration::from_millis(20)).await,
            }
        }
    };
    within("the service to be found again", find).await??;
    trial.note(format!("the service was found again {:?} after the start", began.elapsed()));
    ensure_answered(&*client, &subject, &*server, &mut requests).await
}
