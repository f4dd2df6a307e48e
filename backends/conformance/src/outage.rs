//! What cases do while a server is away, and when it is back.

use std::time::Duration;

use futures_util::StreamExt;
use slipring_core::{Discovery, DiscoveryExt, Effect, Error, Message, Messaging, Range, Subject, Subscriber};
use tokio::time::{Instant, sleep, timeout};

use crate::trial::within;
use crate::{Action, Failure, Trial, Verdict};

/// How long a case waits before it tries again.
const PAUSE: Duration = Duration::from_millis(20);

/// Takes the server away, and brings it back.
pub(crate) async fn restart(trial: &Trial) -> Verdict {
    trial.act(Action::Stop).await?;
    trial.act(Action::Start).await
}

/// More than it takes to carry something to a server that is there, or for somebody who keeps it to try again.
pub(crate) const MOMENT: Duration = Duration::from_secs(1);

/// Is this what a call may end with because the server is away?
pub(crate) fn is_outage(error: &Error) -> bool {
    matches!(error, Error::Unavailable { .. } | Error::DeadlineExceeded { .. })
}

/// Calls again and again until the server answers. The answer may be an error that is about something else.
pub(crate) async fn answered<T, F>(
    what: &str,
    mut call: impl FnMut() -> F,
) -> Result<slipring_core::Result<T>, Failure>
where
    F: Future<Output = slipring_core::Result<T>>,
{
    let answer = async {
        loop {
            match call().await {
                Err(error) if is_outage(&error) => sleep(PAUSE).await,
                answer => return answer,
            }
        }
    };
    within(what, answer).await
}

/// Calls again and again until it goes well.
pub(crate) async fn retried<T, F>(what: &str, call: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = slipring_core::Result<T>>,
{
    Ok(answered(what, call).await??)
}

/// Waits until the store answers this handle again. The report says how long that took.
pub(crate) async fn store_is_back(store: &dyn Discovery, trial: &Trial) -> Verdict {
    let began = Instant::now();
    retried("the store to answer again", || store.read(Range::Key(trial.key("back")))).await?;
    trial.note(format!("the store answered again after {:?}", began.elapsed()));
    Ok(())
}

/// Waits until the broker takes messages from this handle again. The report says how long that took.
pub(crate) async fn broker_is_back(broker: &dyn Messaging, trial: &Trial) -> Verdict {
    let began = Instant::now();
    retried("the broker to take messages again", || broker.flush()).await?;
    trial.note(format!("the broker took messages again after {:?}", began.elapsed()));
    Ok(())
}

/// Waits until this handle knows that the store is gone: from then on nothing that it refuses has left.
pub(crate) async fn store_is_missed(store: &dyn Discovery, trial: &Trial) -> Verdict {
    missed("store", trial, || store.put(trial.key("probe"), "".into(), None)).await
}

/// Waits until this handle knows that the broker is gone: from then on nothing that it refuses has left.
pub(crate) async fn broker_is_missed(broker: &dyn Messaging, trial: &Trial) -> Verdict {
    missed("broker", trial, || broker.publish(Message::new(trial.subject("probe"), ""))).await
}

async fn missed<T, F>(what: &str, trial: &Trial, mut probe: impl FnMut() -> F) -> Verdict
where
    F: Future<Output = slipring_core::Result<T>>,
{
    let began = Instant::now();
    let missed = async {
        loop {
            match probe().await {
                Err(Error::Unavailable { effect: Effect::None, .. }) => return Ok(()),
                Err(error) if !is_outage(&error) => return Err(error),
                _ => sleep(PAUSE).await,
            }
        }
    };
    within(format!("calls to a stopped {what} to be refused, with nothing done"), missed).await??;
    trial.note(format!("that the {what} is gone was known after {:?}", began.elapsed()));
    Ok(())
}

/// What a subscription yielded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Text(String),
    Lagged,
}

/// The next thing that a subscription yields; it must not end yet.
pub(crate) async fn heard(subscriber: &mut Subscriber) -> Result<Heard, Failure> {
    match subscriber.next().await {
        Some(Ok(message)) => Ok(Heard::Text(String::from_utf8_lossy(&message.payload).into_owned())),
        Some(Err(Error::Lagged { .. })) => Ok(Heard::Lagged),
        Some(Err(error)) => Err(Failure::new(format!("the subscription ended with {error:?}"))),
        None => Err(Failure::new("the subscription ended, though nobody stopped it")),
    }
}

/// Publishes this text again and again until it arrives. Returns all that the subscription yielded up to it.
pub(crate) async fn until_heard(
    broker: &dyn Messaging,
    subject: &Subject,
    subscriber: &mut Subscriber,
    text: &str,
) -> Result<Vec<Heard>, Failure> {
    let mut all = Vec::new();
    let arrives = async {
        loop {
            match broker.publish(Message::new(subject.clone(), text.to_owned())).await {
                Err(error) if !is_outage(&error) => return Err(Failure::from(error)),
                _ => {}
            }
            while let Ok(next) = timeout(PAUSE, heard(subscriber)).await {
                all.push(next?);
                if all.last() == Some(&Heard::Text(text.to_owned())) {
                    return Ok(());
                }
            }
        }
    };
    within(format!("{text:?} to arrive"), arrives).await??;
    Ok(all)
}
