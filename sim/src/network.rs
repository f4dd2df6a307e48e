mod routes;
mod sockets;
mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use slipring_core::{ByteStream, Effect, Error, Listener, Result, async_trait};
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use self::routes::Routes;
pub(crate) use self::routes::Trouble;
pub(crate) use self::sockets::Sockets;
use self::wire::{Ends, Wire};
use crate::history::Death;
use crate::latency::Latency;

/// Where the connections of a node go.
#[derive(Debug, Clone)]
pub(crate) enum Net {
    /// Between the nodes of a world, in memory.
    Memory(Network),
    /// Between the hosts of the simulation on turmoil that is running.
    #[cfg(feature = "turmoil")]
    Turmoil,
}

impl From<Network> for Net {
    fn from(network: Network) -> Self {
        Self::Memory(network)
    }
}

impl Net {
    /// The network between the nodes that faults can strike, if there is one.
    pub(crate) fn between_nodes(&self) -> Option<&Network> {
        match self {
            Self::Memory(network) => Some(network),
            #[cfg(feature = "turmoil")]
            Self::Turmoil => None,
        }
    }

    /// Listens as `host`.
    #[cfg_attr(not(feature = "turmoil"), allow(unused_variables, reason = "in memory all hosts are one"))]
    pub(crate) async fn listen(
        &self,
        sockets: &Sockets,
        host: &str,
        address: &str,
    ) -> Result<Box<dyn Listener>> {
        match self {
            Self::Memory(network) => network.listen(sockets, host, address),
            #[cfg(feature = "turmoil")]
            Self::Turmoil => crate::turmoil::net::listen(sockets, host, address).await,
        }
    }

    /// Connects from the node of this name.
    pub(crate) async fn connect(
        &self,
        sockets: &Sockets,
        from: &str,
        address: &str,
    ) -> Result<Box<dyn ByteStream>> {
        match self {
            Self::Memory(network) => network.connect(sockets, from, address).await,
            #[cfg(feature = "turmoil")]
            Self::Turmoil => crate::turmoil::net::connect(sockets, address).await,
        }
    }
}

/// Byte streams between the nodes of a world, by address. Clones are the same network.
///
/// A host is a name only: all nodes share all ports, and who listens decides where a connection goes. Bytes arrive
/// whole and in order, and the end of one direction after them; what is under way between two nodes that cannot
/// hear each other arrives when they can. An attempt to connect waits as well. Of a machine without power nobody
/// learns anything: who connects to it waits until somebody listens there again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Network(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Somebody listens, or a window ended.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    listeners: BTreeMap<String, Door>,
    last_port: u16,
    routes: Routes,
    wires: Vec<Weak<Wire>>,
}

/// Where connections arrive, and whose it is.
#[derive(Debug)]
struct Door {
    arrivals: mpsc::Sender<Arrival>,
    sockets: Sockets,
    place: Arc<str>,
}

impl Door {
    fn is_open(&self) -> bool {
        self.sockets.death().is_none() && !self.arrivals.is_closed()
    }
}

/// The wires of a new connection, and the address of its other end.
type Arrival = (Ends, String);

/// Connections that wait to be accepted before further ones are refused.
const BACKLOG_MAX: usize = 128;

/// The first of the ports that the network chooses.
const PORT_CHOSEN_MIN: u16 = 40_000;

impl Network {
    /// A network in which bytes take this long.
    pub(crate) fn new(seed: u64, latency: Latency) -> Self {
        let network = Self::default();
        network.state().routes = Routes::new(seed, latency);
        network
    }

    /// From now on there is this trouble between two nodes, or one and all others; the number of its window.
    pub(crate) fn open(&self, trouble: Trouble, from: Option<&str>, to: Option<&str>) -> u64 {
        let (number, broken) = {
            let mut state = self.state();
            let number = state.routes.open(trouble, from, to);
            state.wires.retain(|wire| wire.strong_count() > 0);
            let wires: Vec<_> = state.wires.iter().filter_map(Weak::upgrade).collect();
            (number, wires.into_iter().filter(|wire| state.routes.is_refused(&wire.from, &wire.to)).collect())
        };
        let broken: Vec<Arc<Wire>> = broken;
        broken.iter().for_each(|wire| wire.reset());
        number
    }

    /// A window ends.
    pub(crate) fn close(&self, number: u64) {
        let wires: Vec<Arc<Wire>> = {
            let mut state = self.state();
            state.routes.close(number);
            state.wires.iter().filter_map(Weak::upgrade).collect()
        };
        wires.iter().for_each(|wire| wire.look_again());
        self.0.changed.notify_waiters();
    }

    pub(crate) fn listen(&self, sockets: &Sockets, host: &str, address: &str) -> Result<Box<dyn Listener>> {
        let (named, port) = parse(address)?;
        let mut state = self.state();
        let port = if port == 0 { state.free_port(named)? } else { port };
        let address = format!("{named}:{port}");
        if !state.is_free(&address) {
            return Err(Error::unavailable(address, "the address is taken", Effect::None));
        }
        let (sender, arrivals) = mpsc::channel(BACKLOG_MAX);
        let door = Door { arrivals: sender, sockets: sockets.clone(), place: place(host) };
        state.listeners.insert(address.clone(), door);
        drop(state);
        self.0.changed.notify_waiters();
        Ok(Box::new(SimListener { address, arrivals, sockets: sockets.clone() }))
    }

    pub(crate) async fn connect(
        &self,
        sockets: &Sockets,
        from: &str,
        address: &str,
    ) -> Result<Box<dyn ByteStream>> {
        parse(address)?;
        let near = place(from);
        let peer = format!("{from}:{}", self.state().free_port(from)?);
        let refused = |cause| Error::unavailable(address, cause, Effect::None);
        loop {
            let changed = self.0.changed.notified();
            let far = self.state().listeners.get(address).map(|door| door.place.clone());
            let far = far.ok_or_else(|| refused("nobody listens"))?;
            self.travel(&near, &far).await;
            let answer = self.state().answer(&near, address);
            if let Answer::Silence = answer {
                changed.await;
                continue;
            }
            self.travel(&far, &near).await;
            return match answer {
                Answer::Refused(cause) => Err(refused(cause)),
                _ => self.enter(sockets, [near, far], address, peer).map_err(refused),
            };
        }
    }

    /// The connection is made: its two ends.
    fn enter(
        &self,
        sockets: &Sockets,
        [near, far]: [Arc<str>; 2],
        address: &str,
        peer: String,
    ) -> Result<Box<dyn ByteStream>, &'static str> {
        let there = Arc::new(Wire::new(self.clone(), near.clone(), far.clone()));
        let back = Arc::new(Wire::new(self.clone(), far, near));
        let ends = Ends { outgoing: back.clone(), incoming: there.clone() };
        {
            let mut state = self.state();
            let door = state.listeners.get(address).ok_or("nobody listens")?;
            door.arrivals.try_send((ends, peer)).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => "too many connections wait to be accepted",
                mpsc::error::TrySendError::Closed(_) => "nobody listens",
            })?;
            state.wires.retain(|wire| wire.strong_count() > 0);
            state.wires.extend([&there, &back].map(Arc::downgrade));
        }
        Ok(Box::new(sockets.open(Ends { outgoing: there, incoming: back })))
    }

    /// A message without content goes its way.
    async fn travel(&self, from: &str, to: &str) {
        let takes = self.latency(from, to);
        if !takes.is_zero() {
            sleep(takes).await;
        }
        loop {
            let changed = self.0.changed.notified();
            if !self.is_held(from, to) {
                return;
            }
            changed.await;
        }
    }

    fn latency(&self, from: &str, to: &str) -> Duration {
        self.state().routes.latency(from, to)
    }

    fn is_held(&self, from: &str, to: &str) -> bool {
        self.state().routes.is_held(from, to)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no code panics while it holds the lock")
    }
}

/// What becomes of an attempt to connect.
enum Answer {
    Welcome,
    Refused(&'static str),
    /// Of a machine without power.
    Silence,
}

impl State {
    fn answer(&self, from: &str, address: &str) -> Answer {
        match self.listeners.get(address) {
            Some(door) if self.routes.is_refused(from, &door.place) => Answer::Refused("the way is cut"),
            Some(door) if door.sockets.death() == Some(Death::PowerLoss) => Answer::Silence,
            Some(door) if door.is_open() => Answer::Welcome,
            _ => Answer::Refused("nobody listens"),
        }
    }

    /// The next port of a host that nobody listens on; they are handed out in turn.
    fn free_port(&mut self, host: &str) -> Result<u16> {
        for _ in PORT_CHOSEN_MIN..=u16::MAX {
            self.last_port = self.last_port.checked_add(1).unwrap_or_default().max(PORT_CHOSEN_MIN);
            if self.is_free(&format!("{host}:{}", self.last_port)) {
                return Ok(self.last_port);
            }
        }
        Err(Error::unavailable(host, "all ports are taken", Effect::None))
    }

    /// Is nobody listening there (any more)?
    fn is_free(&self, address: &str) -> bool {
        !self.listeners.get(address).is_some_and(Door::is_open)
    }
}

/// A node without the number of its life.
fn place(node: &str) -> Arc<str> {
    node.split_once('#').map_or(node, |(place, _)| place).into()
}

/// The host and the port of an address.
pub(crate) fn parse(address: &str) -> Result<(&str, u16)> {
    let parsed = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    parsed.filter(|(host, _)| !host.is_empty()).ok_or_else(|| {
        Error::invalid("address", address, "allowed: a host and a port number, such as 127.0.0.1:0")
    })
}

#[derive(Debug)]
struct SimListener {
    address: String,
    arrivals: mpsc::Receiver<Arrival>,
    sockets: Sockets,
}

#[async_trait]
impl Listener for SimListener {
    fn local_address(&self) -> String {
        self.address.clone()
    }

    async fn accept(&mut self) -> Result<(Box<dyn ByteStream>, String)> {
        match self.arrivals.recv().await {
            Some((ends, peer)) => Ok((Box::new(self.sockets.open(ends)), peer)),
            None => Err(Error::unavailable(&self.address, "the network is gone", Effect::None)),
        }
    }
}

/// Who waits to be accepted learns that nobody will.
impl Drop for SimListener {
    fn drop(&mut self) {
        while let Ok((ends, _)) = self.arrivals.try_recv() {
            drop(self.sockets.open(ends));
        }
    }
}
