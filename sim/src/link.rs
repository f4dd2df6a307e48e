//! The way between a node and its broker, and how it breaks.

mod discovery;
mod messaging;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use futures_util::future::{self, Either};
use futures_util::{Stream, StreamExt};
use slipring_core::{Discovery, Effect, Error, Messaging, Result};
use tokio::sync::Notify;

use self::discovery::LinkedDiscovery;
use self::messaging::{Line, LinkedMessaging};

/// Does a link carry anything?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkMode {
    /// Everything gets through.
    Open,
    /// The connection is gone, and the node knows it: calls fail at once.
    Cut,
    /// Nothing gets through in either direction, and nobody says so.
    Silent,
}

/// A switch between a node and its broker. Clones are the same switch; it starts open.
///
/// # What breaks
/// *Cut*: a new call fails with `Unavailable`, effect none. A call under way fails with `Unavailable`; its
/// effect is unknown if it could have had one. Watches end with `Unavailable`. Subscriptions leave the broker
/// at once (so it may say that nobody is there); after the link opens they are restored, and
/// `Lagged { missed: 0 }` stands where they were gone. A cut that is over before anybody looks counts all the
/// same.
///
/// *Silent*: calls hang, watches and subscriptions say nothing, and leases run out. When the link opens again
/// without a cut in between, all of it goes on where it stood, as over a connection that sends its lost
/// packets again: a request that still waits is executed then, and a watch catches up. A call that was
/// dropped while it waited is never executed.
///
/// The timeout of [`Messaging::request`] and the grace of [`Messaging::close`] run on this side of the link:
/// they hold in silence too.
#[derive(Clone)]
pub struct Link(Arc<Switch>);

struct Switch {
    state: Mutex<State>,
    // Not a watch channel: that one wakes its waiters in a random order.
    changed: Notify,
    observer: Box<dyn Fn(&str) + Send + Sync>,
}

struct State {
    mode: LinkMode,
    /// How often the link was cut; a connection lives as long as this stands still.
    cuts: u64,
    replies_to_lose: u32,
    subscriptions: Vec<Weak<Line>>,
}

impl Link {
    /// An open link.
    pub fn new() -> Self {
        Self::observed(|_| {})
    }

    /// An open link that tells what is done to it.
    pub(crate) fn observed(observer: impl Fn(&str) + Send + Sync + 'static) -> Self {
        let state = State { mode: LinkMode::Open, cuts: 0, replies_to_lose: 0, subscriptions: Vec::new() };
        let observer = Box::new(observer);
        Self(Arc::new(Switch { state: Mutex::new(state), changed: Notify::new(), observer }))
    }

    /// Lets everything through (again).
    pub fn open(&self) {
        self.set(LinkMode::Open, "link opened");
    }

    /// Breaks the connection so that the node notices.
    pub fn cut(&self) {
        self.set(LinkMode::Cut, "link cut");
    }

    /// Lets nothing through and tells nobody.
    pub fn silence(&self) {
        self.set(LinkMode::Silent, "link silent");
    }

    /// What it does now.
    pub fn mode(&self) -> LinkMode {
        self.state().mode
    }

    /// The next `commit`, `grant`, `revoke` or `request` is executed, but its caller gets `Unavailable` with
    /// effect unknown. Adds up if called again. Heartbeats do not count, so that a loop in the background does
    /// not take what was meant for a write.
    pub fn lose_next_reply(&self) {
        self.state().replies_to_lose += 1;
        (self.0.observer)("link will lose a reply");
    }

    /// A store as seen through this link.
    pub fn discovery(&self, inner: Arc<dyn Discovery>) -> Arc<dyn Discovery> {
        Arc::new(LinkedDiscovery::new(self.clone(), inner))
    }

    /// A broker as seen through this link. Each value that this returns is one handle of it.
    pub fn messaging(&self, inner: Arc<dyn Messaging>) -> Arc<dyn Messaging> {
        Arc::new(LinkedMessaging::new(self.clone(), inner))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no code panics while it holds the lock")
    }

    fn set(&self, mode: LinkMode, what: &str) {
        let lines = {
            let mut state = self.state();
            if state.mode == mode {
                return;
            }
            state.mode = mode;
            if mode == LinkMode::Cut {
                state.cuts += 1;
                std::mem::take(&mut state.subscriptions)
            } else {
                Vec::new()
            }
        };
        (self.0.observer)(what);
        lines.iter().filter_map(Weak::upgrade).for_each(|line| line.cut());
        self.0.changed.notify_waiters();
    }

    /// A connection over the link as it is now.
    fn connect(&self) -> Result<Connection> {
        let state = self.state();
        if state.mode == LinkMode::Cut {
            return Err(Severed.with_effect(Effect::None));
        }
        Ok(Connection { link: self.clone(), born: state.cuts })
    }

    /// Waits until the state of the link (or what `wake` announces) answers the question.
    async fn until<T>(&self, mut answer: impl FnMut(&State) -> Option<T>) -> T {
        loop {
            let changed = self.0.changed.notified();
            if let Some(answer) = answer(&self.state()) {
                return answer;
            }
            changed.await;
        }
    }

    /// Has everybody who waits look again.
    fn wake(&self) {
        self.0.changed.notify_waiters();
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Link").field(&self.mode()).finish()
    }
}

/// The connection is gone.
struct Severed;

impl Severed {
    fn with_effect(self, effect: Effect) -> Error {
        Error::unavailable("the broker", "the link is cut", effect)
    }
}

/// One life of a link, between two cuts.
#[derive(Clone)]
struct Connection {
    link: Link,
    born: u64,
}

impl Connection {
    /// Carries a call over and its answer back. `effect` is the error's if the connection goes meanwhile.
    async fn carry<T>(&self, effect: Effect, call: impl Future<Output = Result<T>>) -> Result<T> {
        let severed = |severed: Severed| severed.with_effect(effect);
        self.passable().await.map_err(severed)?;
        let call = std::pin::pin!(call);
        let cut = std::pin::pin!(self.severed());
        let answer = match future::select(cut, call).await {
            Either::Left((gone, _)) => return Err(severed(gone)),
            Either::Right((answer, _)) => answer,
        };
        self.passable().await.map_err(severed)?;
        answer
    }

    /// [`carry`](Self::carry) for a call that has an effect, and whose reply may be lost.
    async fn carry_write<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let call = async {
            let answer = call.await;
            if self.lose_reply() {
                return Err(Error::unavailable("the broker", "the reply was lost", Effect::Unknown));
            }
            answer
        };
        self.carry(Effect::Unknown, call).await
    }

    /// The next item of a stream from the other side.
    async fn next<S: Stream + Unpin>(&self, mut items: S) -> Result<Option<S::Item>, Severed> {
        loop {
            self.passable().await?;
            let blocked =
                std::pin::pin!(self.link.until(|state| {
                    (state.mode != LinkMode::Open || state.cuts != self.born).then_some(())
                }));
            if let Either::Right((item, _)) = future::select(blocked, items.next()).await {
                return Ok(item);
            }
        }
    }

    async fn passable(&self) -> Result<(), Severed> {
        let passable = |state: &State| match state.mode {
            _ if state.cuts != self.born => Some(Err(Severed)),
            LinkMode::Open => Some(Ok(())),
            LinkMode::Cut | LinkMode::Silent => None,
        };
        self.link.until(passable).await
    }

    async fn severed(&self) -> Severed {
        self.link.until(|state| (state.cuts != self.born).then_some(Severed)).await
    }

    fn is_alive(&self) -> bool {
        self.link.state().cuts == self.born
    }

    fn lose_reply(&self) -> bool {
        let mut state = self.link.state();
        let lose = state.replies_to_lose > 0;
        state.replies_to_lose -= u32::from(lose);
        lose
    }

    /// Ties a subscription to this connection: a cut closes it at once, read or not.
    fn tie(&self, line: &Arc<Line>) {
        let mut state = self.link.state();
        state.subscriptions.retain(|line| line.strong_count() > 0);
        if state.cuts == self.born {
            state.subscriptions.push(Arc::downgrade(line));
        } else {
            drop(state);
            line.cut();
        }
    }
}
