//! What the tests share.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use slipring_core::{Message, Messaging, Result, Subject, Subscriber, Subscription, SystemEnvironment};
use slipring_nats::{Config, ConnectionState, NatsMessaging};
use slipring_servers::{Nats, NatsOptions, Version};
use tokio::time::{Instant, timeout};

/// How long a test waits for something that has to come.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(30);

/// A handle on a connection of its own to this server.
pub(crate) fn connect(server: &Nats) -> NatsMessaging {
    with(Config::new([server.endpoint()]))
}

/// A handle on a connection with this configuration.
pub(crate) fn with(config: Config) -> NatsMessaging {
    NatsMessaging::new(config, Arc::new(SystemEnvironment)).unwrap()
}

/// A server with this configuration file.
pub(crate) async fn configured(version: Version, configuration: String) -> Nats {
    let mut options = NatsOptions::default();
    options.configuration = configuration;
    Nats::start_with(version, options).await
}

pub(crate) fn subject(text: &str) -> Subject {
    Subject::new(text).unwrap()
}

pub(crate) async fn subscribe(broker: &NatsMessaging, text: &str) -> Subscriber {
    broker.subscribe(Subscription::new(subject(text))).await.unwrap()
}

pub(crate) async fn publish(broker: &NatsMessaging, text: &str, payload: impl ToString) -> Result<()> {
    broker.publish(Message::new(subject(text), payload.to_string())).await
}

/// Waits for something that has to come.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(WAIT_MAX, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Looks until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, wait).await;
}

/// The payload of the next message, as a text.
pub(crate) async fn next(messages: &mut Subscriber) -> String {
    let message = within("a message", messages.next()).await.expect("the stream goes on").unwrap();
    String::from_utf8(message.payload.to_vec()).unwrap()
}

/// All payloads until the end.
pub(crate) async fn rest(mut messages: Subscriber) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(message) = within("the end of the stream", messages.next()).await {
        all.push(String::from_utf8(message.unwrap().payload.to_vec()).unwrap());
    }
    all
}

pub(crate) async fn connected(broker: &NatsMessaging) -> Duration {
    let began = Instant::now();
    within("a connection", broker.wait_for(|state| matches!(state, ConnectionState::Connected { .. }))).await;
    began.elapsed()
}

pub(crate) async fn disconnected(broker: &NatsMessaging) -> Duration {
    let began = Instant::now();
    let lost = broker.wait_for(|state| matches!(state, ConnectionState::Disconnected { .. }));
    within("the loss of the connection", lost).await;
    began.elapsed()
}
