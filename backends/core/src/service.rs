//! Services, written once over publish and subscribe: who serves what, and how much it did.
//!
//! The discovery half of the NATS micro protocol is spoken on every broker: `$SRV.PING`, `$SRV.INFO` and
//! `$SRV.STATS`, each also with `.name` and `.name.id`, answered with the protocol's JSON.

mod protocol;
mod stats;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use tokio::time::Instant;

use self::protocol::Verb;
pub use self::protocol::{EndpointReport, ServiceReport};
pub use self::stats::{EndpointStats, InFlight};
use crate::key::text;
use crate::parse::{check, reject_at};
use crate::{
    Effect, Environment, Error, Message, Messaging, Pattern, QueueGroup, Result, Subject, Subscriber,
    Subscription, Task,
};

/// Between two attempts to open a service's own subscriptions anew.
const RESUBSCRIBE_PAUSE: Duration = Duration::from_secs(1);

/// A service's name: 1 to 200 of `A-Z a-z 0-9 _ -`, as the NATS micro protocol has it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the position.
    pub fn new(text: impl AsRef<str>) -> Result<Self> {
        let text = text.as_ref();
        let allowed = "letters, digits, '_' and '-'";
        check("service name", text, 200, allowed, |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))?;
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

text!(ServiceName);

/// What a service says of itself.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServiceSpec {
    /// Its name; the instances of one service share it.
    pub name: ServiceName,
    /// This instance; one subject token, unique among the instances.
    pub id: String,
    /// A full semantic version.
    pub version: String,
    /// For people.
    pub description: String,
    /// Free text by name.
    pub metadata: BTreeMap<String, String>,
}

impl ServiceSpec {
    /// A service of this name and instance id, version 0.0.0.
    pub fn new(name: ServiceName, id: impl Into<String>) -> Self {
        Self {
            name,
            id: id.into(),
            version: "0.0.0".to_owned(),
            description: String::new(),
            metadata: BTreeMap::new(),
        }
    }

    /// With this version.
    #[must_use]
    pub fn with_version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// With this description.
    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// With one more piece of metadata.
    #[must_use]
    pub fn with_metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(name.into(), value.into());
        self
    }
}

/// Makes the free `data` of an endpoint's statistics. Called for every report; must return at once.
pub type StatsHandler = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// An endpoint of a service.
#[derive(Clone)]
#[non_exhaustive]
pub struct EndpointSpec {
    /// Its name in reports, unique in the service.
    pub name: String,
    /// Where it is reached.
    pub subject: Subject,
    /// Share the requests with other instances; none if the subject is this instance's own.
    pub queue: Option<QueueGroup>,
    /// How many requests wait for the reader before the newest are dropped.
    pub messages_max: usize,
    /// Free text by name.
    pub metadata: BTreeMap<String, String>,
    /// Makes the free part of its statistics.
    pub stats: Option<StatsHandler>,
}

impl EndpointSpec {
    /// An endpoint of this name at this subject.
    pub fn new(name: impl Into<String>, subject: Subject) -> Self {
        Self {
            name: name.into(),
            subject,
            queue: None,
            messages_max: Subscription::MESSAGES_MAX,
            metadata: BTreeMap::new(),
            stats: None,
        }
    }

    /// As a member of a queue group.
    #[must_use]
    pub fn with_queue(mut self, queue: QueueGroup) -> Self {
        self.queue = Some(queue);
        self
    }

    /// With one more piece of metadata.
    #[must_use]
    pub fn with_metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(name.into(), value.into());
        self
    }

    /// With statistics of its own.
    #[must_use]
    pub fn with_stats(mut self, stats: StatsHandler) -> Self {
        self.stats = Some(stats);
        self
    }
}

impl fmt::Debug for EndpointSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointSpec")
            .field("name", &self.name)
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}

/// A running service. Dropping it stops answering for it; its endpoints end with their [`Requests`].
pub struct Service {
    shared: Arc<Shared>,
    _monitor: Task,
}

struct Shared {
    spec: ServiceSpec,
    started: String,
    messaging: Arc<dyn Messaging>,
    endpoints: Mutex<Endpoints>,
}

#[derive(Default)]
struct Endpoints {
    served: BTreeMap<String, Served>,
    /// Of endpoints that are gone while requests of theirs are still in flight.
    left: Vec<Arc<EndpointStats>>,
}

struct Served {
    spec: EndpointSpec,
    stats: Arc<EndpointStats>,
}

impl Service {
    /// Starts answering for a service. [`MessagingExt::serve`](crate::MessagingExt::serve) is the usual way.
    ///
    /// # Errors
    /// Those of [`Messaging::subscribe`]; [`Error::Invalid`] if the id is no subject token.
    pub async fn start(
        messaging: Arc<dyn Messaging>,
        environment: Arc<dyn Environment>,
        spec: ServiceSpec,
    ) -> Result<Self> {
        if let Some(position) = spec.id.find('.') {
            return Err(reject_at("service id", &spec.id, position, "it must be one token of a subject"));
        }
        let mut questions = Vec::new();
        for verb in Verb::ALL {
            for subject in verb.subjects(&spec)? {
                let subscription = Subscription::new(subject).with_messages_max(1024);
                let messages = resubscribing(messaging.clone(), subscription).await?;
                questions.push(messages.map(move |message| (verb, message)).boxed());
            }
        }
        let started = protocol::rfc3339(environment.wall_time());
        let shared = Arc::new(Shared { spec, started, messaging, endpoints: Mutex::default() });
        let monitor = environment.spawn("service monitor", Box::pin(monitor(shared.clone(), questions)));
        Ok(Self { shared, _monitor: monitor })
    }

    /// Adds an endpoint: when it resolves, requests are routed to it.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] if the service has one of this name; those of [`Messaging::subscribe`].
    pub async fn add(&self, spec: EndpointSpec) -> Result<Requests> {
        let stats = Arc::new(EndpointStats::default());
        // Listed first: a second endpoint of this name must not take a single request from the first.
        let listing = self.list(spec.clone(), &stats)?;
        let mut subscription =
            Subscription::new(Pattern::from(&spec.subject)).with_messages_max(spec.messages_max);
        subscription.queue = spec.queue;
        let subscriber = self.shared.messaging.subscribe(subscription.clone()).await?;
        Ok(Requests { subscriber, subscription, stats, listing })
    }

    fn list(&self, spec: EndpointSpec, stats: &Arc<EndpointStats>) -> Result<Listing> {
        match self.shared.lock().served.entry(spec.name.clone()) {
            Entry::Occupied(_) => {
                let what = format!("endpoint {:?} of service {}", spec.name, self.shared.spec.name);
                Err(Error::already_exists(what))
            }
            Entry::Vacant(place) => {
                let name = spec.name.clone();
                place.insert(Served { spec, stats: stats.clone() });
                Ok(Listing { shared: self.shared.clone(), name })
            }
        }
    }

    /// What the service did so far: the same as `$SRV.STATS` answers.
    pub fn report(&self) -> ServiceReport {
        self.shared.report()
    }

    /// How many endpoints it has.
    pub fn endpoints(&self) -> usize {
        self.shared.lock().served.len()
    }

    /// Waits until no request is in flight in any endpoint, nor of one that is gone. Refusing new ones, and
    /// reading those that were already accepted, is the endpoints' part ([`Requests::stop`]). Cancel-safe.
    ///
    /// # Errors
    /// [`Error::DeadlineExceeded`] with the number still in flight after `grace`.
    pub async fn drain(&self, grace: Duration) -> Result<()> {
        let deadline = Instant::now() + grace;
        let all = self.shared.lock().stats();
        for stats in &all {
            if tokio::time::timeout_at(deadline, stats.idle()).await.is_err() {
                let left: u64 = all.iter().map(|stats| stats.in_flight()).sum();
                let what = format!("draining service {} ({left} in flight)", self.shared.spec.name);
                return Err(Error::deadline_exceeded(what, grace, Effect::Unknown));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("spec", &self.shared.spec).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Endpoints> {
        // A panic while it is held cannot leave the lists half-changed.
        self.endpoints.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn report(&self) -> ServiceReport {
        let served: Vec<_> = self.lock().served.values().map(|s| (s.spec.clone(), s.stats.clone())).collect();
        // User code (the stats handlers) runs without the lock.
        let endpoints = served.iter().map(|(spec, stats)| EndpointReport::of(spec, stats)).collect();
        ServiceReport::of(&self.spec, &self.started, endpoints)
    }
}

impl Endpoints {
    /// Of all whose requests count.
    fn stats(&self) -> Vec<Arc<EndpointStats>> {
        self.served.values().map(|served| &served.stats).chain(&self.left).cloned().collect()
    }

    fn remove(&mut self, name: &str) -> Option<Served> {
        let gone = self.served.remove(name)?;
        self.left.push(gone.stats.clone());
        self.left.retain(|stats| stats.in_flight() > 0);
        Some(gone)
    }
}

/// The messages of a subscription that is opened anew whenever it breaks, until its handle is closed.
async fn resubscribing(
    messaging: Arc<dyn Messaging>,
    subscription: Subscription,
) -> Result<impl Stream<Item = Message>> {
    let first = messaging.subscribe(subscription.clone()).await?;
    Ok(stream::unfold((messaging, subscription, first), |(messaging, subscription, mut subscriber)| async {
        let message = loop {
            match subscriber.next().await? {
                Ok(message) => break message,
                Err(Error::Lagged { .. }) => {}
                Err(error) => {
                    tracing::debug!(pattern = %subscription.pattern, %error, "a service's subscription broke");
                    subscriber = loop {
                        match messaging.subscribe(subscription.clone()).await {
                            Ok(anew) => break anew,
                            Err(_) => tokio::time::sleep(RESUBSCRIBE_PAUSE).await,
                        }
                    };
                }
            }
        };
        Some((message, (messaging, subscription, subscriber)))
    }))
}

async fn monitor(shared: Arc<Shared>, questions: Vec<stream::BoxStream<'static, (Verb, Message)>>) {
    let mut questions = stream::select_all(questions);
    while let Some((verb, message)) = questions.next().await {
        let Message { reply: Some(reply), .. } = message else { continue };
        let answer = protocol::answer(verb, &shared.report());
        if let Err(error) = shared.messaging.publish(Message::new(reply, answer)).await {
            tracing::warn!(service = %shared.spec.name, %error, "could not answer for a service");
        }
    }
}

/// The requests of one endpoint, as a stream of messages. Dropping it unsubscribes and takes the endpoint off
/// the service's list.
pub struct Requests {
    subscriber: Subscriber,
    subscription: Subscription,
    stats: Arc<EndpointStats>,
    listing: Listing,
}

impl Requests {
    /// The counters of this endpoint; [`EndpointStats::begin`] counts a request.
    pub fn stats(&self) -> &Arc<EndpointStats> {
        &self.stats
    }

    /// Subscribes again after the stream ended in an error. The endpoint stays on the list, and its counters go
    /// on. Cancel-safe; may be tried again.
    ///
    /// # Errors
    /// Those of [`Messaging::subscribe`].
    pub async fn reopen(&mut self) -> Result<()> {
        self.subscriber = self.listing.shared.messaging.subscribe(self.subscription.clone()).await?;
        Ok(())
    }

    /// Unsubscribes; what was already accepted is still yielded, then the stream ends.
    pub fn stop(&mut self) {
        self.subscriber.stop();
    }
}

impl Stream for Requests {
    type Item = Result<Message>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.subscriber).poll_next(cx)
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").field("endpoint", &self.listing.name).finish_non_exhaustive()
    }
}

/// An endpoint's place in its service's list.
struct Listing {
    shared: Arc<Shared>,
    name: String,
}

impl Drop for Listing {
    fn drop(&mut self) {
        // The user's part of it, the statistics handler, is dropped without the lock.
        let _gone = self.shared.lock().remove(&self.name);
    }
}

pub(crate) async fn inspect(
    messaging: &(impl Messaging + ?Sized),
    inbox: Subject,
    name: Option<&ServiceName>,
    window: Duration,
) -> Result<Vec<ServiceReport>> {
    let mut answers = messaging.subscribe(Subscription::new(Pattern::from(&inbox))).await?;
    let question = Message::new(Verb::Stats.subject(name)?, "").with_reply(inbox);
    messaging.publish(question).await?;
    let until = Instant::now() + window;
    let mut reports = Vec::new();
    while let Ok(Some(message)) = tokio::time::timeout_at(until, answers.next()).await {
        let message = match message {
            Ok(message) => message,
            Err(Error::Lagged { missed, .. }) => {
                tracing::warn!(missed, "answers to $SRV.STATS were lost");
                continue;
            }
            Err(error) => return Err(error),
        };
        if message.no_responders {
            break;
        }
        match serde_json::from_slice(&message.payload) {
            Ok(report) => reports.push(report),
            Err(error) => tracing::warn!(%error, "an unreadable answer to $SRV.STATS was skipped"),
        }
    }
    reports.sort_by(|a: &ServiceReport, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    Ok(reports)
}
