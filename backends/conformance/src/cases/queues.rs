//! Queue groups.

use std::time::Duration;

use futures_util::StreamExt;
use slipring_core::{
    Message, Messaging, MessagingExt, Pattern, QueueGroup, Subject, Subscriber, Subscription,
};

use crate::failure::{ensure, ensure_eq};
use crate::trial::{broker_can, drained, ensure_numbers, fails, number, publish_numbers, subscribe};
use crate::{Failure, Trial, Verdict};

async fn join(broker: &dyn Messaging, subject: &Subject, group: &str) -> Result<Subscriber, Failure> {
    Ok(broker.subscribe(Subscription::new(subject).with_queue(QueueGroup::new(group)?)).await?)
}

/// What all members got, sorted; each member's own has to be in order.
async fn shared(members: Vec<Subscriber>) -> Result<Vec<u32>, Failure> {
    let mut all = Vec::new();
    for member in members {
        let got = drained(member).await?.iter().map(number).collect::<Result<Vec<_>, _>>()?;
        ensure!(got.is_sorted(), "a member got them out of order: {got:?}");
        all.extend(got);
    }
    all.sort_unstable();
    Ok(all)
}

fn ensure_each_once(got: &[u32], expected: std::ops::Range<u32>) -> Verdict {
    ensure!(got.iter().copied().eq(expected.clone()), "expected each of {expected:?} once, got {got:?}");
    Ok(())
}

/// Where queue groups are declared they can be joined, and elsewhere they are refused: never is a member
/// silently made a plain subscriber.
pub async fn queue_groups_are_declared_or_refused(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    let subscription = Subscription::new(trial.subject("s")).with_queue(QueueGroup::new("group")?);
    let subscribed = broker.subscribe(subscription).await;
    if broker_can(&*broker).await?.queue_groups {
        subscribed?;
    } else {
        fails(subscribed, "unsupported")?;
    }
    Ok(())
}

/// M4: each message comes to exactly one member of the group, whichever handle it belongs to, in order.
pub async fn m4_one_member_gets_each(trial: &Trial) -> Verdict {
    const MESSAGES: u32 = 300;
    let (one, other) = (trial.messaging().await?, trial.messaging().await?);
    let subject = trial.subject("s");
    let mut members = Vec::new();
    for broker in [&one, &one, &other] {
        members.push(join(&**broker, &subject, "group").await?);
    }
    publish_numbers(&*one, &subject, 0..MESSAGES).await?;
    ensure_each_once(&shared(members).await?, 0..MESSAGES)
}

/// M4: a group of one gets all.
pub async fn m4_single_member_gets_all(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    let subject = trial.subject("s");
    let member = join(&*broker, &subject, "group").await?;
    publish_numbers(&*broker, &subject, 0..100).await?;
    ensure_numbers(&drained(member).await?, 0..100, "the only member")
}

/// M4: each group gets each message once, and each plain subscriber too.
pub async fn m4_groups_are_independent(trial: &Trial) -> Verdict {
    const MESSAGES: u32 = 100;
    let broker = trial.messaging().await?;
    let subject = trial.subject("s");
    let mut groups = [Vec::new(), Vec::new()];
    for _ in 0..2 {
        groups[0].push(join(&*broker, &subject, "first").await?);
        groups[1].push(join(&*broker, &subject, "second|x").await?);
    }
    let plain = subscribe(&*broker, &subject).await?;
    let elsewhere = join(&*broker, &trial.subject("other"), "first").await?;
    publish_numbers(&*broker, &subject, 0..MESSAGES).await?;
    for group in groups {
        ensure_each_once(&shared(group).await?, 0..MESSAGES)?;
    }
    ensure_numbers(&drained(plain).await?, 0..MESSAGES, "the plain subscriber")?;
    ensure_eq!(drained(elsewhere).await?, vec![], "what came to the group's name on another subject");
    Ok(())
}

/// M4: who has left a group gets nothing more, and nothing is lost: the others get it. What it had been given
/// before, it still has.
pub async fn m4_never_a_former_member(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    let subject = trial.subject("s");
    let stays = join(&*broker, &subject, "group").await?;
    let leaves = join(&*broker, &subject, "group").await?;
    publish_numbers(&*broker, &subject, 0..100).await?;
    // The end of its stream says that it has left.
    let mut all = shared(vec![leaves]).await?;
    publish_numbers(&*broker, &subject, 100..200).await?;
    all.extend(shared(vec![stays]).await?);
    all.sort_unstable();
    ensure_each_once(&all, 0..200)
}

/// M4: with a wildcard, a group's name on overlapping patterns is one group.
pub async fn m4_one_name_is_one_group(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    let group = QueueGroup::new("group")?;
    let mut members = Vec::new();
    for pattern in ["a.b", "a.*"] {
        let subscription = Subscription::new(Pattern::new(trial.scoped(pattern))?).with_queue(group.clone());
        members.push(broker.subscribe(subscription).await?);
    }
    publish_numbers(&*broker, &trial.subject("a.b"), 0..100).await?;
    ensure_each_once(&shared(members).await?, 0..100)
}

/// M4, M8: a request to a group is executed by one member.
pub async fn m8_one_member_answers(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    let subject = trial.subject("s");
    let mut members = futures_util::stream::select_all([
        join(&*broker, &subject, "group").await?,
        join(&*broker, &subject, "group").await?,
        join(&*broker, &subject, "group").await?,
    ]);
    let mut executed = 0;
    for round in 0..50 {
        let text = round.to_string();
        let request = broker.request(Message::new(subject.clone(), text.clone()), Duration::from_secs(10));
        let answer = async {
            // A second member would be found waiting in a later round.
            let Some(message) = members.next().await else { return Err(Failure::new("the group ended")) };
            let message = message?;
            executed += 1;
            ensure_eq!(message.payload, text, "the request in round {round}");
            Ok(broker.respond(&message, message.payload.clone()).await?)
        };
        let (reply, answered) = futures_util::future::join(request, answer).await;
        answered?;
        ensure_eq!(reply?.payload, text, "the reply");
    }
    ensure_eq!(executed, 50, "the number of executions");
    Ok(())
}
