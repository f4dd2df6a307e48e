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
use tokio::sync;
use tokio::time::{Instant, sleep_until, timeout};

use super::connection::{Connection, Severed};
use super::flight::Flight;
use super::routed::Routed;
use super::state::{Flow, Way};
use super::{Link, Side, State};
use crate::history::{Call, Death, Event, Failure, Letter, RequestStep};
use crate::random::hash_bytes;

/// A broker behind a link: one handle of it.
#[derive(Debug)]
pub(super) struct LinkedMessaging {
    link: Link,
    inner: Arc<dyn Messaging>,
    /// Its number in the history.
    number: u64,
    closed: Arc<AtomicBool>,
    /// Publishes go one after the other, in the order in which they were begun.
    turn: sync::Mutex<()>,
    /// When the last one arrives.
    arrives: Mutex<Option<Instant>>,
}

impl LinkedMessaging {
    pub(super) fn new(link: Link, inner: Arc<dyn Messaging>) -> Self {
        let number = link.number();
        let (closed, turn, arrives) = Default::default();
        Self { link, inner, number, closed, turn, arrives }
    }

    /// When a publish that begins now arrives, if that takes any time: not before those that began earlier.
    fn arrival(&self) -> Option<Instant> {
        let mut last = self.arrives.lock().expect("no code panics while it holds the lock");
        let now = Instant::now();
        *last = Some(now + self.link.latency()).max(*last).filter(|arrives| *arrives > now);
        *last
    }

    fn connect(&self) -> Result<Connection> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::unavailable("the broker", "this handle is closed", Effect::None));
        }
        self.link.connect(Side::Bus)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Messaging for LinkedMessaging {
    async fn capabilities(&self) -> Result<MessagingCapabilities> {
        self.connect()?.carry(Effect::None, self.inner.capabilities()).await
    }

    async fn publish(&self, message: Message) -> Result<()> {
        let connection = self.connect()?;
        let arrival = self.arrival();
        // Waiting for a lock costs a task a part of its budget; a publish that need not wait is free.
        let _turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(_) => self.turn.lock().await,
        };
        if let Some(arrival) = arrival {
            sleep_until(arrival).await;
        }
        let severed = |severed: Severed| severed.with_effect(Effect::None);
        connection.passable(Way::ToBroker).await.map_err(severed)?;
        if self.link.lose(|state| &mut state.publishes_to_lose) {
            return Ok(());
        }
        let letter = self.link.0.wiring.messages.then(|| Letter::of(&message, self.number));
        self.inner.publish(message).await?;
        if let Some(letter) = letter {
            self.link.tell(|| Event::Published(letter));
        }
        Ok(())
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Subscriber> {
        let connection = self.connect()?;
        let line = Arc::new(Line::new(self.link.clone()));
        let route = Route {
            inner: self.inner.clone(),
            number: self.link.number(),
            subscription,
            connection,
            closed: self.closed.clone(),
            line: line.clone(),
            flight: Flight::new(),
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
        let inner = self.inner.clone();
        let (link, number, handle) = (self.link.clone(), self.link.number(), self.number);
        let work = async move {
            let letter = link.0.wiring.messages.then(|| Letter::of(&message, handle));
            let tell = |step| link.tell(|| Event::Request { request: number, step });
            let told = letter.map(RequestStep::Arrived).map(&tell).is_some();
            let answer = inner.request(message, within).await;
            if told {
                let end = answer.as_ref().map(|reply| Letter::of(reply, handle)).map_err(Failure::from);
                tell(RequestStep::Executed(end));
            }
            answer
        };
        let answer = connection.carry_write(work);
        let answer = async {
            timeout(within, answer).await.unwrap_or_else(|_| {
                Err(Error::deadline_exceeded(format!("a request to {subject}"), within, Effect::Unknown))
            })
        };
        self.link.answered(Call::Request, |_| None, answer).await
    }

    async fn flush(&self) -> Result<()> {
        self.connect()?.carry(Effect::Unknown, self.inner.flush()).await
    }

    async fn close(&self, grace: Duration) -> Result<()> {
        if self.closed.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        self.link.wake();
        let silent = match self.link.connect(Side::Bus) {
            Ok(connection) => timeout(grace, connection.passable(Way::ToBroker)).await.is_err(),
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
    /// Its number in the history.
    number: u64,
    subscription: Subscription,
    connection: Connection,
    closed: Arc<AtomicBool>,
    line: Arc<Line>,
    flight: Flight<Result<Message>>,
}

impl Route {
    async fn subscribe(&self) -> Result<()> {
        let wiring = &self.connection.link.0.wiring;
        let log = wiring.log.as_ref().filter(|_| wiring.messages).cloned();
        let subscribe = async {
            let subscriber = self.inner.subscribe(self.subscription.clone()).await?;
            Ok(Routed::new(subscriber, self.number, &self.subscription, log))
        };
        let subscriber = self.connection.carry(Effect::None, subscribe).await?;
        self.line.open(subscriber);
        self.connection.tie(&self.line);
        Ok(())
    }

    /// The next item, and what to go on with; nothing after an error that ends the stream.
    async fn next(route: Option<Self>) -> Option<(Result<Message>, Option<Self>)> {
        let mut route = route?;
        let item = {
            let Self { connection, flight, line, closed, .. } = &mut route;
            let next = pin!(connection.next(flight, &**line));
            let closed = pin!(closed_in_silence(&connection.link, closed));
            match future::select(next, closed).await {
                Either::Left((item, _)) => item,
                Either::Right(((), _)) => return None,
            }
        };
        match item {
            Ok(item) => {
                let item = item?;
                let link = &route.connection.link;
                match &item {
                    _ if !link.0.wiring.messages => {}
                    Ok(message) => link.tell(|| Event::Delivered(Letter::of(message, route.number))),
                    Err(Error::Lagged { missed, .. }) => route.tell_lagged(*missed),
                    Err(_) => {}
                }
                Some((item, Some(route)))
            }
            Err(Severed) => match route.restore().await? {
                Ok(()) => {
                    route.tell_lagged(0);
                    Some((Err(Error::lagged(0)), Some(route)))
                }
                Err(error) => Some((Err(error), None)),
            },
        }
    }

    fn tell_lagged(&self, missed: u64) {
        let link = &self.connection.link;
        if link.0.wiring.messages {
            link.tell(|| Event::Lagged { line: self.number, missed });
        }
    }

    /// Subscribes again as soon as the link is open. Nothing if the subscription was ended meanwhile.
    async fn restore(&mut self) -> Option<Result<()>> {
        loop {
            let ended = || self.line.is_stopped() || self.closed.load(Ordering::Relaxed);
            let reopened = |state: &State| match state.flow(Side::Bus, Way::ToBroker) {
                _ if ended() => Some(None),
                Flow::Open => Some(Some(state.life(Side::Bus))),
                Flow::Cut | Flow::Held => None,
            };
            self.connection.born = self.connection.link.until(reopened).await?;
            self.flight = Flight::new();
            let restored = self.subscribe().await;
            if restored.is_ok() || self.connection.is_alive() {
                return Some(restored);
            }
        }
    }
}

/// A closed handle does not wait for a silent link.
async fn closed_in_silence(link: &Link, closed: &AtomicBool) {
    let closed = |state: &State| {
        let open = state.flow(Side::Bus, Way::FromBroker) == Flow::Open;
        (!open && closed.load(Ordering::Relaxed)).then_some(())
    };
    link.until(closed).await;
}

/// The broker's end of a subscription: empty after a cut.
pub(super) struct Line {
    link: Link,
    state: Mutex<LineState>,
}

#[derive(Default)]
struct LineState {
    subscriber: Option<Routed>,
    stopped: bool,
}

impl Line {
    fn new(link: Link) -> Self {
        Self { link, state: Mutex::default() }
    }

    /// Leaves the broker.
    pub(super) fn cut(&self) {
        let subscriber = self.state().subscriber.take();
        drop(subscriber);
    }

    fn open(&self, mut subscriber: Routed) {
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
        self.state.lock().expect("no code panics while it holds the lock")
    }
}

/// Of a node that lost power the broker is not told that it left.
impl Drop for Line {
    fn drop(&mut self) {
        let subscriber = self.state().subscriber.take();
        let mut state = self.link.state();
        if state.death == Some(Death::PowerLoss) {
            state.ghosts.extend(subscriber);
            return;
        }
        drop(state);
        drop(subscriber);
    }
}

/// How much of a payload tells messages apart.
const DIGESTED_BYTES_MAX: usize = 256;

impl Letter {
    fn of(message: &Message, line: u64) -> Self {
        let mut digested = Vec::new();
        for (name, value) in message.headers.iter() {
            digested.extend_from_slice(name.as_bytes());
            digested.extend_from_slice(value.as_bytes());
        }
        digested.extend_from_slice(&message.payload[..message.payload.len().min(DIGESTED_BYTES_MAX)]);
        Self {
            subject: message.subject.clone(),
            bytes: message.payload.len(),
            digest: hash_bytes(&digested),
            reply: message.reply.clone(),
            no_responders: message.no_responders,
            line,
        }
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
