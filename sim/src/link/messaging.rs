use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{self, Either};
use futures_util::{Stream, StreamExt, stream};
use slipring_core::{
    Effect, Error, Message, Messaging, MessagingCapabilities, Result, Subscriber, Subscription, async_trait,
};
use tokio::time::timeout;

use super::{Connection, Link, LinkMode, Severed, State};

/// A broker behind a link: one handle of it.
#[derive(Debug)]
pub(super) struct LinkedMessaging {
    link: Link,
    inner: Arc<dyn Messaging>,
    closed: Arc<AtomicBool>,
}

impl LinkedMessaging {
    pub(super) fn new(link: Link, inner: Arc<dyn Messaging>) -> Self {
        Self { link, inner, closed: Arc::default() }
    }

    fn connect(&self) -> Result<Connection> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::unavailable("the broker", "this handle is closed", Effect::None));
        }
        self.link.connect()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Messaging for LinkedMessaging {
    async fn capabilities(&self) -> Result<MessagingCapabilities> {
        self.connect()?.carry(Effect::None, self.inner.capabilities()).await
    }

    async fn publish(&self, message: Message) -> Result<()> {
        self.connect()?.carry(Effect::None, self.inner.publish(message)).await
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Subscriber> {
        let connection = self.connect()?;
        let line = Arc::new(Line::default());
        let route = Route {
            inner: self.inner.clone(),
            subscription,
            connection,
            closed: self.closed.clone(),
            line: line.clone(),
        };
        route.subscribe().await?;
        let link = self.link.clone();
        let stop = move || {
            line.stop();
            link.wake();
        };
        Ok(Subscriber::new(stream::unfold(Some(route), Route::next), stop))
    }

    async fn request(&self, message: Message, within: Duration) -> Result<Message> {
        let subject = message.subject.clone();
        let connection = self.connect()?;
        let answer = timeout(within, connection.carry_write(self.inner.request(message, within)));
        answer.await.unwrap_or_else(|_| {
            Err(Error::deadline_exceeded(format!("a request to {subject}"), within, Effect::Unknown))
        })
    }

    async fn flush(&self) -> Result<()> {
        self.connect()?.carry(Effect::Unknown, self.inner.flush()).await
    }

    async fn close(&self, grace: Duration) -> Result<()> {
        if self.closed.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        self.link.wake();
        let silent = match self.link.connect() {
            Ok(connection) => timeout(grace, connection.passable()).await.is_err(),
            Err(_) => false,
        };
        let closed = self.inner.close(grace).await;
        if silent {
            return Err(Error::deadline_exceeded("closing over a silent link", grace, Effect::Unknown));
        }
        closed
    }
}

/// A subscription over all lives of the link.
struct Route {
    inner: Arc<dyn Messaging>,
    subscription: Subscription,
    connection: Connection,
    closed: Arc<AtomicBool>,
    line: Arc<Line>,
}

impl Route {
    async fn subscribe(&self) -> Result<()> {
        let subscribe = self.inner.subscribe(self.subscription.clone());
        let subscriber = self.connection.carry(Effect::None, subscribe).await?;
        self.line.open(subscriber);
        self.connection.tie(&self.line);
        Ok(())
    }

    /// The next item, and what to go on with; nothing after an error that ends the stream.
    async fn next(route: Option<Self>) -> Option<(Result<Message>, Option<Self>)> {
        let mut route = route?;
        let item = {
            let next = pin!(route.connection.next(&*route.line));
            let closed = pin!(route.closed_in_silence());
            match future::select(next, closed).await {
                Either::Left((item, _)) => item,
                Either::Right(((), _)) => return None,
            }
        };
        match item {
            Ok(item) => Some((item?, Some(route))),
            Err(Severed) => match route.restore().await? {
                Ok(()) => Some((Err(Error::lagged(0)), Some(route))),
                Err(error) => Some((Err(error), None)),
            },
        }
    }

    /// Subscribes again as soon as the link is open. Nothing if the subscription was ended meanwhile.
    async fn restore(&mut self) -> Option<Result<()>> {
        loop {
            let ended = || self.line.is_stopped() || self.closed.load(Ordering::Relaxed);
            let reopened = |state: &State| match state.mode {
                _ if ended() => Some(None),
                LinkMode::Open => Some(Some(state.cuts)),
                LinkMode::Cut | LinkMode::Silent => None,
            };
            self.connection.born = self.connection.link.until(reopened).await?;
            let restored = self.subscribe().await;
            if restored.is_ok() || self.connection.is_alive() {
                return Some(restored);
            }
        }
    }

    /// A closed handle does not wait for a silent link.
    async fn closed_in_silence(&self) {
        let closed = |state: &State| {
            (state.mode != LinkMode::Open && self.closed.load(Ordering::Relaxed)).then_some(())
        };
        self.connection.link.until(closed).await;
    }
}

/// The broker's end of a subscription: empty after a cut.
#[derive(Default)]
pub(super) struct Line(Mutex<LineState>);

#[derive(Default)]
struct LineState {
    subscriber: Option<Subscriber>,
    stopped: bool,
}

impl Line {
    /// Leaves the broker.
    pub(super) fn cut(&self) {
        let subscriber = self.state().subscriber.take();
        drop(subscriber);
    }

    fn open(&self, mut subscriber: Subscriber) {
        let mut state = self.state();
        if state.stopped {
            subscriber.stop();
        }
        state.subscriber = Some(subscriber);
    }

    fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        if let Some(subscriber) = &mut state.subscriber {
            subscriber.stop();
        }
    }

    fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    fn state(&self) -> MutexGuard<'_, LineState> {
        self.0.lock().expect("no code panics while it holds the lock")
    }
}

impl Stream for &Line {
    type Item = Result<Message>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.state().subscriber {
            Some(subscriber) => subscriber.poll_next_unpin(cx),
            // A cut line; its connection says so.
            None => Poll::Pending,
        }
    }
}
