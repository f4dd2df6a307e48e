use std::fmt::{self, Debug};
use std::future::Future;
use std::panic::Location;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use slipring_core::{
    Commit, Discovery, DiscoveryCapabilities, Effect, Environment, Error, Key, Message, Messaging,
    MessagingCapabilities, Prefix, Range, Revision, Subject, Subscriber, Subscription,
};
use tokio::time::timeout;

use crate::failure::{ensure, ensure_eq};
use crate::{Action, Failure, Fixture, Need, Verdict};

/// One run of one case on one backend: handles, names that no other run has, and a place for notes.
#[derive(Debug)]
pub struct Trial {
    fixture: Arc<dyn Fixture>,
    tag: String,
    notes: Mutex<Vec<String>>,
}

impl Trial {
    pub(crate) fn new(fixture: Arc<dyn Fixture>) -> Self {
        let tag = format!("{:016x}", fixture.environment().random("conformance case"));
        Self { fixture, tag, notes: Mutex::default() }
    }

    /// The environment of the backend.
    pub fn environment(&self) -> Arc<dyn Environment> {
        self.fixture.environment()
    }

    /// A fresh handle to the store.
    ///
    /// # Errors
    /// The fixture's; a failure if it has no store.
    pub async fn discovery(&self) -> Result<Arc<dyn Discovery>, Failure> {
        self.fixture.discovery().await?.ok_or_else(|| Failure::new("the fixture has no discovery"))
    }

    /// A fresh handle to the broker.
    ///
    /// # Errors
    /// The fixture's; a failure if it has no broker.
    pub async fn messaging(&self) -> Result<Arc<dyn Messaging>, Failure> {
        self.fixture.messaging().await?.ok_or_else(|| Failure::new("the fixture has no messaging"))
    }

    /// Does something to the server.
    ///
    /// # Errors
    /// The fixture's.
    pub async fn act(&self, action: Action) -> Verdict {
        Ok(self.fixture.act(action).await?)
    }

    /// Undoes what a case did to the server that others will use.
    pub(crate) async fn heal(&self) -> Verdict {
        for action in [Action::Resume, Action::Start] {
            if self.fixture.can(action) {
                within(format!("{action:?}"), self.act(action)).await??;
            }
        }
        Ok(())
    }

    /// Leaves a line in the report, such as a time that was measured.
    pub fn note(&self, note: impl Into<String>) {
        self.notes.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(note.into());
    }

    /// The prefix that holds all keys of this run.
    pub fn prefix(&self) -> Prefix {
        Prefix::new(format!("conformance/{}/", self.tag)).expect("it is short and ends in '/'")
    }

    /// A key of this run.
    pub fn key(&self, rest: impl fmt::Display) -> Key {
        self.prefix().key(rest).expect("the names in the cases are names of keys")
    }

    /// A subject of this run.
    pub fn subject(&self, rest: impl fmt::Display) -> Subject {
        Subject::new(self.scoped(rest)).expect("the names in the cases are subjects")
    }

    /// The text of a subject or pattern of this run.
    pub fn scoped(&self, rest: impl fmt::Display) -> String {
        format!("conformance.{}.{rest}", self.tag)
    }

    /// A text that no other run has; letters and digits.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The first need that the backend does not meet. Asks only the half that the case is about, so that a
    /// broken broker fails no case of the store.
    pub(crate) async fn unmet(&self, needs: &[Need]) -> Result<Option<Need>, Failure> {
        let (mut store, mut broker) = (None, None);
        if needs.contains(&Need::Discovery)
            && let Some(handle) = self.fixture.discovery().await?
        {
            store = Some(handle.capabilities().await?);
        }
        if needs.contains(&Need::Messaging)
            && let Some(handle) = self.fixture.messaging().await?
        {
            broker = Some(handle.capabilities().await?);
        }
        let met = |need: &Need| need.is_met(store.as_ref(), broker.as_ref(), &*self.fixture);
        Ok(needs.iter().copied().find(|need| !met(need)))
    }

    pub(crate) fn into_notes(self) -> Vec<String> {
        self.notes.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// How long a case waits for something that has to come.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(30);

/// Waits for something that has to come.
#[track_caller]
pub(crate) fn within<T>(
    what: impl Into<String>,
    future: impl Future<Output = T>,
) -> impl Future<Output = Result<T, Failure>> {
    let here = Location::caller();
    let late = format!("waited {WAIT_MAX:?} in vain for {}", what.into());
    async move { timeout(WAIT_MAX, future).await.map_err(|_| Failure::at(here, late)) }
}

/// The next item of a stream that must not end yet.
#[track_caller]
pub(crate) fn next<T>(
    stream: &mut (impl Stream<Item = slipring_core::Result<T>> + Unpin),
    what: impl Into<String>,
) -> impl Future<Output = Result<T, Failure>> {
    let (here, what) = (Location::caller(), what.into());
    let item = within(what.clone(), stream.next());
    async move {
        match item.await? {
            Some(Ok(item)) => Ok(item),
            Some(Err(error)) => Err(Failure::at(here, format!("expected {what}, got the error {error:?}"))),
            None => Err(Failure::at(here, format!("the stream ended before {what}"))),
        }
    }
}

/// The store's current revision, as this handle sees it.
pub(crate) async fn revision(store: &dyn Discovery, trial: &Trial) -> Result<Revision, Failure> {
    Ok(store.read(Range::Key(trial.key("revision"))).await?.revision)
}

/// The revision of a transaction that had to be applied.
#[track_caller]
pub(crate) fn applied(commit: Commit) -> Result<Revision, Failure> {
    match commit {
        Commit::Applied(revision) => Ok(revision),
        Commit::Refused => Err(Failure::new("expected the transaction to be applied, it was refused")),
    }
}

/// Checks that a transaction was refused.
#[track_caller]
pub(crate) fn refused(commit: Commit, why: &str) -> Verdict {
    match commit {
        Commit::Refused => Ok(()),
        Commit::Applied(at) => Err(Failure::new(format!("applied at {at} although {why}"))),
    }
}

/// Checks that a call failed with this code and had no effect.
#[track_caller]
pub(crate) fn fails<T: Debug>(result: slipring_core::Result<T>, code: &str) -> Result<Error, Failure> {
    match result {
        Err(error) if error.code() == code && error.effect() == Effect::None => Ok(error),
        other => Err(Failure::new(format!("expected the error {code:?} with effect none, got {other:?}"))),
    }
}

/// Checks that a call was refused for its size, with both figures.
#[track_caller]
pub(crate) fn too_large<T: Debug>(
    result: slipring_core::Result<T>,
    bytes_max: usize,
    bytes: usize,
) -> Verdict {
    let error = fails(result, "payload_too_large")?;
    let Error::PayloadTooLarge { limit, actual, .. } = error else {
        return Err(Failure::new(format!("the code of another error: {error:?}")));
    };
    ensure_eq!((limit, actual), (bytes_max, bytes), "limit and actual size in the error");
    Ok(())
}

/// What was routed to a subscription so far: stops it, and reads to the end.
pub(crate) async fn drained(mut subscriber: Subscriber) -> Result<Vec<Message>, Failure> {
    subscriber.stop();
    let all = async {
        let mut messages = Vec::new();
        while let Some(message) = subscriber.next().await {
            messages.push(message?);
        }
        Ok::<_, Error>(messages)
    };
    Ok(within("a stopped subscription to end", all).await??)
}

/// Subscribes to one subject.
pub(crate) async fn subscribe(broker: &dyn Messaging, subject: &Subject) -> Result<Subscriber, Failure> {
    Ok(broker.subscribe(Subscription::new(subject)).await?)
}

/// Publishes numbered messages, in order, and makes sure that the broker has them.
pub(crate) async fn publish_numbers(
    broker: &dyn Messaging,
    subject: &Subject,
    numbers: std::ops::Range<u32>,
) -> Verdict {
    for number in numbers {
        broker.publish(Message::new(subject.clone(), number.to_string())).await?;
    }
    Ok(broker.flush().await?)
}

/// The number that a message carries.
pub(crate) fn number(message: &Message) -> Result<u32, Failure> {
    let text = String::from_utf8_lossy(&message.payload);
    text.parse().map_err(|_| Failure::new(format!("expected a number, got {text:?}")))
}

/// Checks that a subscription got exactly these numbers, in this order.
pub(crate) fn ensure_numbers(messages: &[Message], expected: std::ops::Range<u32>, who: &str) -> Verdict {
    let got = messages.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    ensure!(
        got.iter().copied().eq(expected.clone()),
        "{who}: expected the messages {expected:?} in order, got {got:?}"
    );
    Ok(())
}

/// The capabilities that a store declares.
pub(crate) async fn can(store: &dyn Discovery) -> Result<DiscoveryCapabilities, Failure> {
    Ok(store.capabilities().await?)
}

/// The capabilities that a broker declares.
pub(crate) async fn broker_can(broker: &dyn Messaging) -> Result<MessagingCapabilities, Failure> {
    Ok(broker.capabilities().await?)
}

/// A text as bytes.
pub(crate) fn bytes(text: impl Into<String>) -> Bytes {
    Bytes::from(text.into())
}
