//! The way between a node and its broker, and how it breaks.

mod cable;
mod connection;
mod discovery;
mod flight;
mod messaging;
mod routed;
mod state;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use slipring_core::{Discovery, Effect, Messaging, Result, Snapshot};
use tokio::sync::Notify;

pub(crate) use self::cable::Cable;
use self::connection::{Connection, Severed};
use self::discovery::LinkedDiscovery;
use self::messaging::LinkedMessaging;
use self::state::{Flow, State, Way};
pub(crate) use self::state::{Server, Side};
use crate::environment::SimEnvironment;
use crate::history::{Death, Event};
use crate::latency::Latency;
use crate::random::Streams;
use crate::trace::Log;

/// Does a link carry anything?
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkMode {
    /// Everything gets through.
    #[default]
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
/// dropped while it waited is never executed, except in a world whose requests
/// [outlive their callers](crate::Setup::with_lasting_requests).
///
/// The timeout of [`Messaging::request`] and the grace of [`Messaging::close`] run on this side of the link:
/// they hold in silence too.
///
/// *Latency*: each message takes its time, and what is under way when the link falls silent arrives after it
/// opens. Calls overtake each other; the events of a watch, the messages of a subscription and the publishes
/// of a handle do not.
#[derive(Clone)]
pub struct Link(Arc<Switch>);

struct Switch {
    state: Mutex<State>,
    // Not a watch channel: that one wakes its waiters in a random order.
    changed: Notify,
    wiring: Wiring,
    streams: Mutex<Streams>,
}

/// What a link has from its world; one of its own has nothing.
#[derive(Default)]
pub(crate) struct Wiring {
    /// The seed of its latencies.
    pub(crate) seed: u64,
    /// Who is told what happens on it, and in whose name.
    pub(crate) log: Option<(Log, Arc<str>)>,
    /// Are messages told?
    pub(crate) messages: bool,
    /// Where requests live that outlive their callers.
    pub(crate) courier: Option<Weak<SimEnvironment>>,
    /// Each message lets other tasks run up to this many times.
    pub(crate) yields_max: u64,
    /// The network that it stands for, where that is not a part of the link itself.
    pub(crate) cable: Option<Arc<dyn Cable>>,
}

impl Link {
    /// An open link that takes no time.
    pub fn new() -> Self {
        Self::wired(Wiring::default())
    }

    /// An open link in a world.
    pub(crate) fn wired(wiring: Wiring) -> Self {
        let owner = wiring.log.as_ref().map_or("link", |(_, name)| name);
        let streams = Mutex::new(Streams::new(wiring.seed, owner));
        let state = Mutex::new(State::default());
        Self(Arc::new(Switch { state, changed: Notify::new(), wiring, streams }))
    }

    /// Lets everything through (again).
    pub fn open(&self) {
        self.set(LinkMode::Open, "opened");
    }

    /// Breaks the connection so that the node notices.
    pub fn cut(&self) {
        self.set(LinkMode::Cut, "cut");
    }

    /// Lets nothing through and tells nobody.
    pub fn silence(&self) {
        self.set(LinkMode::Silent, "silent");
    }

    /// What was last ordered with [`open`](Self::open), [`cut`](Self::cut) or [`silence`](Self::silence).
    pub fn mode(&self) -> LinkMode {
        self.state().mode
    }

    /// How long messages take from now on, in each direction. What is under way is not concerned.
    pub fn set_latency(&self, latency: Latency) {
        match &self.0.wiring.cable {
            Some(cable) => cable.set_latency(latency),
            None => self.state().latency = latency,
        }
    }

    /// The next `commit`, `grant`, `revoke` or `request` is executed, but its caller gets `Unavailable` with
    /// effect unknown. Adds up if called again. Heartbeats do not count, so that a loop in the background does
    /// not take what was meant for a write.
    pub fn lose_next_reply(&self) {
        self.state().replies_to_lose += 1;
        self.tell(|| Event::Link("will lose a reply"));
    }

    /// The next `commit`, `grant`, `revoke` or `request` is not executed, and its caller gets what it gets
    /// when the reply is lost: `Unavailable` with effect unknown. Adds up if called again.
    pub fn lose_next_request(&self) {
        self.state().requests_to_lose += 1;
        self.tell(|| Event::Link("will lose a request"));
    }

    /// A store as seen through this link.
    pub fn discovery(&self, inner: Arc<dyn Discovery>) -> Arc<dyn Discovery> {
        Arc::new(LinkedDiscovery::new(self.clone(), inner))
    }

    /// A broker as seen through this link. Each value that this returns is one handle of it.
    pub fn messaging(&self, inner: Arc<dyn Messaging>) -> Arc<dyn Messaging> {
        Arc::new(LinkedMessaging::new(self.clone(), inner))
    }

    /// The network around the link of the life before is still as it was.
    pub(crate) fn inherit(&self, before: &Self) {
        if let Some(cable) = &self.0.wiring.cable {
            // It has outlived the node; but nobody holds its switch any more.
            return cable::switch(&**cable, before.mode(), LinkMode::Open);
        }
        let network = {
            let State { refused, held, stalled, overloaded, latency, delay, .. } = *before.state();
            State { refused, held, stalled, overloaded, latency, delay, ..State::default() }
        };
        self.change(|state| *state = network);
    }

    /// A direction lets nothing through, or does again. Such windows may overlap.
    pub(crate) fn hold(&self, to_broker: bool, from_broker: bool, held: bool) {
        if let Some(cable) = &self.0.wiring.cable {
            return cable.hold(to_broker, from_broker, held);
        }
        self.change(|state| {
            for (way, concerned) in [(Way::ToBroker, to_broker), (Way::FromBroker, from_broker)] {
                if concerned {
                    count(&mut state.held[way as usize], held);
                }
            }
        });
    }

    /// The connection breaks, and cannot be made until the window ends. Such windows may overlap.
    pub(crate) fn refuse(&self, refused: bool) {
        if let Some(cable) = &self.0.wiring.cable {
            return cable.refuse(refused);
        }
        self.change(|state| {
            count(&mut state.refused, refused);
            state.cuts += u64::from(refused);
        });
    }

    /// Messages take this much longer, or no longer do. Such windows add up.
    pub(crate) fn delay(&self, by: Duration, delayed: bool) {
        if let Some(cable) = &self.0.wiring.cable {
            return cable.delay(by, delayed);
        }
        self.change(|state| {
            state.delay = if delayed { state.delay + by } else { state.delay.saturating_sub(by) };
        });
    }

    /// Nobody reads the watches, or somebody does again. Such windows may overlap.
    pub(crate) fn stall(&self, stalled: bool) {
        self.change(|state| count(&mut state.stalled, stalled));
    }

    /// The next heartbeats are lost, before or after they are executed.
    pub(crate) fn lose_heartbeats(&self, beats: u32, executed: bool) {
        self.state().beats_to_lose[usize::from(executed)] += beats;
    }

    /// The next message that is published does not arrive.
    pub(crate) fn lose_next_publish(&self) {
        self.state().publishes_to_lose += 1;
    }

    /// Calls to the store are refused, or no longer are. Such windows may overlap.
    pub(crate) fn overload(&self, overloaded: bool) {
        self.change(|state| count(&mut state.overloaded, overloaded));
    }

    /// All watches end.
    pub(crate) fn reset_watches(&self) {
        self.change(|state| state.watch_resets += 1);
    }

    /// The connection to the bus breaks; a new one can be made at once.
    pub(crate) fn reset_bus(&self) {
        self.change(|state| state.server_cuts[Side::Bus as usize] += 1);
    }

    /// Reads show this, and after a last call with nothing what there is. Such windows may overlap: the first
    /// one decides.
    pub(crate) fn go_stale(&self, content: Option<Snapshot>) {
        self.change(|state| {
            count(&mut state.stale_windows, content.is_some());
            match content {
                Some(content) => {
                    state.stale.get_or_insert_with(|| Arc::new(content));
                }
                None if state.stale_windows == 0 => state.stale = None,
                None => {}
            }
        });
    }

    /// What the far side does from now on. A server that goes down breaks its connections.
    pub(crate) fn set_server(&self, side: Side, server: Server) {
        let server = match &self.0.wiring.cable {
            Some(cable) => cable.set_server(side, server),
            None => server,
        };
        self.change(|state| {
            state.server_cuts[side as usize] += u64::from(server == Server::Down);
            state.servers[side as usize] = server;
        });
    }

    /// Nothing passes any more, for good: after a crash calls fail, and the broker knows; after a power loss
    /// they hang, and it does not.
    pub(crate) fn die(&self, death: Death) {
        if let Some(cable) = &self.0.wiring.cable {
            cable.die(death);
        }
        self.change(|state| {
            if state.death.is_none() {
                state.death = Some(death);
                state.cuts += u64::from(death == Death::Crash);
            }
        });
    }

    /// The broker gives up on a dead node: its subscriptions leave.
    pub(crate) fn bury(&self) {
        let (ghosts, lines) = {
            let mut state = self.state();
            (std::mem::take(&mut state.ghosts), std::mem::take(&mut state.subscriptions))
        };
        drop(ghosts);
        lines.iter().filter_map(Weak::upgrade).for_each(|line| line.cut());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no code panics while it holds the lock")
    }

    fn set(&self, mode: LinkMode, what: &'static str) {
        let before = std::mem::replace(&mut self.state().mode, mode);
        if before == mode {
            return;
        }
        self.tell(|| Event::Link(what));
        if let Some(cable) = &self.0.wiring.cable {
            return cable::switch(&**cable, before, mode);
        }
        self.change(|state| {
            state.kept = mode;
            state.cuts += u64::from(mode == LinkMode::Cut);
        });
    }

    /// Changes the state, takes subscriptions whose connection broke from the broker, and has everybody who
    /// waits look again.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let lines = {
            let mut state = self.state();
            let before = state.life(Side::Bus);
            change(&mut state);
            let broken = state.life(Side::Bus) != before;
            if broken { std::mem::take(&mut state.subscriptions) } else { Vec::new() }
        };
        lines.iter().filter_map(Weak::upgrade).for_each(|line| line.cut());
        self.0.changed.notify_waiters();
    }

    /// A connection over the link as it is now.
    fn connect(&self, side: Side) -> Result<Connection> {
        let state = self.state();
        if state.flow(side, Way::ToBroker) == Flow::Cut {
            return Err(Severed.with_effect(Effect::None));
        }
        Ok(Connection { link: self.clone(), side, born: state.life(side), watch: None })
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

    fn random(&self, label: &'static str) -> u64 {
        self.0.streams.lock().expect("no code panics while it holds the lock").next(label)
    }

    /// How long a message takes that is sent now.
    fn latency(&self) -> Duration {
        let (latency, delay) = {
            let state = self.state();
            (state.latency, state.delay)
        };
        if latency == Latency::NONE { delay } else { delay + latency.sample(self.random("latency")) }
    }

    fn tell(&self, event: impl FnOnce() -> Event) {
        if let Some((log, name)) = &self.0.wiring.log {
            log.add(name, event());
        }
    }

    /// A number that is unique in the log.
    fn number(&self) -> u64 {
        self.0.wiring.log.as_ref().map_or(0, |(log, _)| log.number())
    }

    /// The time in the log.
    fn now(&self) -> Duration {
        self.0.wiring.log.as_ref().map(|(log, _)| log.elapsed()).unwrap_or_default()
    }
}

/// A window begins or ends.
fn count(windows: &mut u32, begins: bool) {
    *windows = if begins { *windows + 1 } else { windows.saturating_sub(1) };
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
