use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::Stream;
use futures_util::future::{self, Either};
use slipring_core::{Effect, EnvironmentExt, Error, Result};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::flight::Flight;
use super::messaging::Line;
use super::state::{Flow, Server, Side, Way};
use super::{Link, State};

/// After how long etcd tells a caller that its request was lost with the last leader, as measured.
const LOST_WITH_LEADER_AFTER: Duration = Duration::from_secs(7);

/// The connection is gone.
pub(super) struct Severed;

impl Severed {
    pub(super) fn with_effect(self, effect: Effect) -> Error {
        Error::unavailable("the broker", "the link is cut", effect)
    }
}

/// One life of the way to one of the servers, between two cuts.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) link: Link,
    pub(super) side: Side,
    pub(super) born: u64,
    /// For a watch: how often watches had been reset when it was opened.
    pub(super) watch: Option<u64>,
}

impl Connection {
    /// Carries a call over and its answer back. `effect` is the error's if the connection goes meanwhile.
    pub(super) async fn carry<T>(&self, effect: Effect, call: impl Future<Output = Result<T>>) -> Result<T> {
        let answer = self.execute(effect, call).await?;
        self.travel(Way::FromBroker).await.map_err(|severed| severed.with_effect(effect))?;
        answer
    }

    /// [`carry`](Self::carry) for a call that has an effect, and whose request or reply may be lost.
    pub(super) async fn carry_write<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let link = self.link.clone();
        let call = async move {
            let lost = |what| Err(Error::unavailable("the broker", what, Effect::Unknown));
            if link.lose(|state| &mut state.requests_to_lose) {
                return lost("the request was lost");
            }
            let answer = call.await;
            if link.lose(|state| &mut state.replies_to_lose) {
                return lost("the reply was lost");
            }
            answer
        };
        let Some(courier) = self.link.0.wiring.courier.as_ref().and_then(Weak::upgrade) else {
            return self.carry(Effect::Unknown, call).await;
        };
        let (tell, told) = oneshot::channel();
        let connection = self.clone();
        let journey = async move {
            let executed = pin!(connection.execute(Effect::Unknown, call));
            let died = pin!(connection.link.until(|state| state.death.map(|_| ())));
            if let Either::Right((executed, _)) = future::select(died, executed).await {
                // Whoever gave up does not want to know.
                let _ = tell.send(executed);
            }
        };
        courier.start("request", journey).detach();
        match told.await {
            Ok(executed) => {
                let arrived = self.travel(Way::FromBroker).await;
                arrived.map_err(|severed| severed.with_effect(Effect::Unknown))?;
                executed?
            }
            // The node is dead: what still runs there learns nothing, or that the link is cut.
            Err(_) => Err(self.severed().await.with_effect(Effect::Unknown)),
        }
    }

    /// [`carry`](Self::carry) for a heartbeat, which may be lost.
    pub(super) async fn carry_beat<T>(&self, beat: impl Future<Output = Result<T>>) -> Result<T> {
        let lost = || Err(Error::unavailable("the broker", "the heartbeat was lost", Effect::Unknown));
        let beat = async {
            if self.link.lose(|state| &mut state.beats_to_lose[0]) {
                return lost();
            }
            let answer = beat.await;
            if self.link.lose(|state| &mut state.beats_to_lose[1]) { lost() } else { answer }
        };
        self.carry(Effect::Unknown, beat).await
    }

    /// This connection as a watch has it.
    pub(super) fn for_watch(mut self) -> Self {
        self.watch = Some(self.link.state().watch_resets);
        self
    }

    /// Carries a call over; the answer is still at the far side.
    async fn execute<T>(&self, effect: Effect, call: impl Future<Output = Result<T>>) -> Result<Result<T>> {
        if self.is_lost_with_leader() {
            let failed = pin!(sleep(LOST_WITH_LEADER_AFTER));
            return Err(match future::select(pin!(self.severed()), failed).await {
                Either::Left((severed, _)) => severed.with_effect(effect),
                Either::Right(_) => Error::unavailable("the broker", "its leader was lost", effect),
            });
        }
        self.travel(Way::ToBroker).await.map_err(|severed| severed.with_effect(effect))?;
        if self.side == Side::Store && self.link.state().overloaded > 0 {
            return Ok(Err(Error::overloaded("the broker")));
        }
        match future::select(pin!(self.severed()), pin!(call)).await {
            Either::Left((severed, _)) => Err(severed.with_effect(effect)),
            Either::Right((answer, _)) => Ok(answer),
        }
    }

    /// The next item of a stream from the other side.
    pub(super) async fn next<S: Stream + Unpin>(
        &self,
        flight: &mut Flight<S::Item>,
        mut items: S,
    ) -> Result<Option<S::Item>, Severed> {
        loop {
            self.link.until(|state| self.item_passes(state)).await?;
            let blocked = |state: &State| match self.item_passes(state) {
                Some(Ok(())) => None,
                _ => Some(()),
            };
            let arrival = pin!(flight.next(&mut items, || self.link.latency()));
            if let Either::Right((item, _)) = future::select(pin!(self.link.until(blocked)), arrival).await {
                return Ok(item);
            }
        }
    }

    /// A message on its way: it takes its time, and arrives when it may.
    pub(super) async fn travel(&self, way: Way) -> Result<(), Severed> {
        for _ in 0..self.yields() {
            yield_now().await;
        }
        let takes = self.link.latency();
        if !takes.is_zero() {
            let arrives = pin!(sleep(takes));
            if let Either::Left((severed, _)) = future::select(pin!(self.severed()), arrives).await {
                return Err(severed);
            }
        }
        self.passable(way).await
    }

    pub(super) async fn passable(&self, way: Way) -> Result<(), Severed> {
        self.link.until(|state| self.passes(state, way)).await
    }

    pub(super) fn is_alive(&self) -> bool {
        self.lives(&self.link.state())
    }

    /// Ties a subscription to this connection: a cut closes it at once, read or not.
    pub(super) fn tie(&self, line: &Arc<Line>) {
        let mut state = self.link.state();
        state.subscriptions.retain(|line| line.strong_count() > 0);
        if self.lives(&state) {
            state.subscriptions.push(Arc::downgrade(line));
        } else {
            drop(state);
            line.cut();
        }
    }

    async fn severed(&self) -> Severed {
        self.link.until(|state| (!self.lives(state)).then_some(Severed)).await
    }

    fn lives(&self, state: &State) -> bool {
        let reset = self.watch.is_some_and(|resets| resets != state.watch_resets);
        state.life(self.side) == self.born && !reset
    }

    fn passes(&self, state: &State, way: Way) -> Option<Result<(), Severed>> {
        match state.flow(self.side, way) {
            _ if !self.lives(state) => Some(Err(Severed)),
            Flow::Open => Some(Ok(())),
            Flow::Cut | Flow::Held => None,
        }
    }

    /// A watch that nobody reads stays behind; a subscription is not concerned.
    fn item_passes(&self, state: &State) -> Option<Result<(), Severed>> {
        let stalled = self.side == Side::Store && state.stalled > 0;
        self.passes(state, Way::FromBroker).filter(|passes| passes.is_err() || !stalled)
    }

    /// Does a call that is made now go to a leader that is no more?
    fn is_lost_with_leader(&self) -> bool {
        let electing = self.link.state().servers[self.side as usize] == Server::Electing;
        electing && self.link.random("election").is_multiple_of(2)
    }

    fn yields(&self) -> u64 {
        match self.link.0.wiring.yields_max {
            0 => 0,
            max => self.link.random("yields") % (max + 1),
        }
    }
}

impl Link {
    pub(super) fn lose(&self, losses: impl FnOnce(&mut State) -> &mut u32) -> bool {
        let mut state = self.state();
        let left = losses(&mut state);
        let lose = *left > 0;
        *left -= u32::from(lose);
        lose
    }
}
