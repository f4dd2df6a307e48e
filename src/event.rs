use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use slipring_core::{Error, Headers, Message, Pattern, Result, Subject, Subscriber, Subscription};

use crate::DistributedRuntime;
use crate::codec::Codec;
use crate::name::EventPath;
use crate::plane::wire;

/// Who published an event: one number for each publisher.
const PUBLISHER: &str = "Slipring-Publisher";
/// Which of its events on this subject it is, from 1.
const SEQUENCE: &str = "Slipring-Sequence";
/// How many publishers a subscriber keeps count of; the one that was silent longest is forgotten first.
const PUBLISHERS_MAX: usize = 4096;

/// The events of one name of a namespace or component: anybody may publish, anybody may subscribe.
///
/// Delivery is at most once. Events of one publisher arrive in order; what is missing between two of them is
/// reported with its exact number. The payload is JSON.
pub struct Events<T> {
    runtime: DistributedRuntime,
    path: EventPath,
    event: PhantomData<fn(T) -> T>,
}

/// An event that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event<T> {
    /// What was published.
    pub data: T,
    /// Who published it; none if it was no slipring program, whose losses cannot be seen.
    pub publisher: Option<u64>,
    /// Which of the publisher's events it is, from 1; 0 without a publisher.
    pub sequence: u64,
}

impl<T> Events<T> {
    pub(crate) fn new(runtime: &DistributedRuntime, path: EventPath) -> Self {
        Self { runtime: runtime.clone(), path, event: PhantomData }
    }

    /// Where the events go, such as `namespace.dynamo.component.a.kv_events`.
    pub fn subject(&self) -> Subject {
        self.path.subject()
    }

    /// Publishes an event. `Ok` means that the broker has taken it, not that anybody got it.
    ///
    /// # Errors
    /// `Draining` once the runtime has stopped; `PayloadTooLarge`, `Unavailable`: effect none.
    pub async fn publish(&self, event: &T) -> Result<()>
    where
        T: Serialize,
    {
        self.runtime.check_open()?;
        let payload = Codec::Json.encode(event)?;
        let subject = self.subject();
        let publisher = self.runtime.publishers().of(&subject);
        // Held while publishing: numbers go out in their order.
        let mut published = publisher.lock().await;
        let number = *published + 1;
        let mut headers = wire::headers([(SEQUENCE, number)]);
        headers.append(PUBLISHER, format!("{:x}", self.runtime.instance_id()))?;
        let message = Message::new(subject, payload).with_headers(headers);
        let platform = self.runtime.platform();
        let sent = platform.within("publishing an event", platform.publish(message)).await;
        // A number that may have gone out is never used again; a gap of one is then reported, which is true.
        if sent.as_ref().map_or_else(|error| error.effect() != slipring_core::Effect::None, |()| true) {
            *published = number;
        }
        sent
    }

    /// Subscribes: what is published after it resolves arrives.
    ///
    /// # Errors
    /// `Draining` once the runtime has stopped; those of [`Messaging::subscribe`](crate::Messaging::subscribe).
    pub async fn subscribe(&self) -> Result<EventStream<T>>
    where
        T: DeserializeOwned,
    {
        self.runtime.check_open()?;
        let subscription = Subscription::new(Pattern::from(self.subject()));
        let platform = self.runtime.platform();
        let subscribing = platform.messaging.subscribe(subscription);
        let subscriber = platform.within("subscribing to events", subscribing).await?;
        Ok(EventStream { subscriber, seen: Seen::default(), held: None, event: PhantomData })
    }
}

impl<T> Clone for Events<T> {
    fn clone(&self) -> Self {
        Self::new(&self.runtime, self.path.clone())
    }
}

impl<T> fmt::Debug for Events<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Events({})", self.subject())
    }
}

/// The events of a subscription. Dropping it unsubscribes.
///
/// [`Error::Lagged`] stands where events of one publisher are missing, with their number;
/// [`Error::Invalid`] in place of one that could not be read. Neither is the end; any other error is.
pub struct EventStream<T> {
    subscriber: Subscriber,
    seen: Seen,
    /// What stands behind a gap that was just reported.
    held: Option<Result<Event<T>>>,
    event: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned + Unpin> Stream for EventStream<T> {
    type Item = Result<Event<T>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(event) = self.held.take() {
            return Poll::Ready(Some(event));
        }
        loop {
            let message = match ready!(Pin::new(&mut self.subscriber).poll_next(cx)) {
                Some(Ok(message)) => message,
                // The numbers behind the gap say what was lost, and of whom; this is only that it was.
                Some(Err(Error::Lagged { .. })) => continue,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            let (publisher, sequence) = match origin(&message.headers) {
                Ok(origin) => origin.map_or((None, 0), |(publisher, sequence)| (Some(publisher), sequence)),
                Err(error) => return Poll::Ready(Some(Err(error))),
            };
            let missed = publisher.map_or(0, |publisher| self.seen.missed(publisher, sequence));
            let data = Codec::Json.decode(&message.payload);
            let event = data.map(|data| Event { data, publisher, sequence });
            if missed == 0 {
                return Poll::Ready(Some(event));
            }
            self.held = Some(event);
            return Poll::Ready(Some(Err(Error::lagged(missed))));
        }
    }
}

impl<T> fmt::Debug for EventStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("publishers", &self.seen.last.len()).finish_non_exhaustive()
    }
}

/// Who sent an event and as its how many-th; `None` if it was no slipring program.
fn origin(headers: &Headers) -> Result<Option<(u64, u64)>> {
    let Some(publisher) = headers.first(PUBLISHER) else { return Ok(None) };
    let publisher = u64::from_str_radix(publisher, 16)
        .map_err(|_| Error::invalid(PUBLISHER, publisher, "allowed: a hexadecimal number"))?;
    Ok(wire::number(headers, SEQUENCE)?.map(|sequence| (publisher, sequence)))
}

/// The last number seen of each publisher.
#[derive(Debug, Default)]
struct Seen {
    last: BTreeMap<u64, Last>,
    /// Grows with every event: who was heard when.
    clock: u64,
}

#[derive(Debug)]
struct Last {
    sequence: u64,
    heard: u64,
}

impl Seen {
    /// How many events of this publisher are missing before this one. Before the first one that is seen
    /// nothing is.
    fn missed(&mut self, publisher: u64, sequence: u64) -> u64 {
        self.clock += 1;
        let heard = self.clock;
        if self.last.len() >= PUBLISHERS_MAX && !self.last.contains_key(&publisher) {
            let silent = self.last.iter().min_by_key(|(_, last)| last.heard).map(|(publisher, _)| *publisher);
            self.last.remove(&silent.unwrap_or_default());
        }
        let before = self.last.insert(publisher, Last { sequence, heard });
        before.map_or(0, |before| sequence.saturating_sub(before.sequence + 1))
    }
}

/// How many events this runtime has published, by subject.
pub(crate) struct Publishers {
    counts: Mutex<BTreeMap<Subject, Arc<tokio::sync::Mutex<u64>>>>,
}

impl Publishers {
    pub(crate) fn new() -> Self {
        Self { counts: Mutex::default() }
    }

    fn of(&self, subject: &Subject) -> Arc<tokio::sync::Mutex<u64>> {
        // A map of counters: whole whatever panics elsewhere.
        let mut counts = self.counts.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        counts.entry(subject.clone()).or_default().clone()
    }
}
