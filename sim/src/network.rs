mod sockets;

use std::collections::BTreeMap;
use std::future;
use std::sync::{Arc, Mutex, MutexGuard};

use slipring_core::{ByteStream, Effect, Error, Listener, Result, async_trait};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

pub(crate) use self::sockets::Sockets;
use crate::history::Death;

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
    /// Listens as `host`.
    #[cfg_attr(not(feature = "turmoil"), expect(unused_variables, reason = "in memory all hosts are one"))]
    pub(crate) async fn listen(
        &self,
        sockets: &Sockets,
        host: &str,
        address: &str,
    ) -> Result<Box<dyn Listener>> {
        match self {
            Self::Memory(network) => network.listen(sockets, address),
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
/// A host is a name only: all nodes share all ports. Bytes arrive at once, whole and in order, and closing one
/// end closes the other. Of a machine without power nobody learns anything: who connects to it waits for ever.
#[derive(Debug, Clone, Default)]
pub(crate) struct Network(Arc<Mutex<Addresses>>);

#[derive(Debug, Default)]
struct Addresses {
    listeners: BTreeMap<String, Door>,
    last_port: u16,
}

/// Where connections arrive, and whose it is.
#[derive(Debug)]
struct Door {
    arrivals: mpsc::Sender<Arrival>,
    sockets: Sockets,
}

impl Door {
    fn is_open(&self) -> bool {
        self.sockets.death().is_none() && !self.arrivals.is_closed()
    }
}

/// One end of a connection, and the address of the other.
type Arrival = (DuplexStream, String);

/// Connections that wait to be accepted before further ones are refused.
const BACKLOG_MAX: usize = 128;

/// Bytes under way in each direction before a writer waits.
const WINDOW_BYTES: usize = 64 * 1024;

/// The first of the ports that the network chooses.
const PORT_CHOSEN_MIN: u16 = 40_000;

impl Network {
    pub(crate) fn listen(&self, sockets: &Sockets, address: &str) -> Result<Box<dyn Listener>> {
        let (host, port) = parse(address)?;
        let mut addresses = self.addresses();
        let port = if port == 0 { addresses.free_port(host)? } else { port };
        let address = format!("{host}:{port}");
        if !addresses.is_free(&address) {
            return Err(Error::unavailable(address, "the address is taken", Effect::None));
        }
        let (sender, arrivals) = mpsc::channel(BACKLOG_MAX);
        let door = Door { arrivals: sender, sockets: sockets.clone() };
        addresses.listeners.insert(address.clone(), door);
        Ok(Box::new(SimListener { address, arrivals, sockets: sockets.clone() }))
    }

    pub(crate) async fn connect(
        &self,
        sockets: &Sockets,
        from: &str,
        address: &str,
    ) -> Result<Box<dyn ByteStream>> {
        parse(address)?;
        match self.knock(from, address)? {
            Some(near) => Ok(Box::new(sockets.open(near))),
            None => future::pending().await,
        }
    }

    /// The near end of a new connection; none if the machine at the address has no power.
    fn knock(&self, from: &str, address: &str) -> Result<Option<DuplexStream>> {
        let mut addresses = self.addresses();
        let peer = format!("{from}:{}", addresses.free_port(from)?);
        let refused = |cause| Error::unavailable(address, cause, Effect::None);
        let door = addresses.listeners.get(address).ok_or_else(|| refused("nobody listens"))?;
        match door.sockets.death() {
            None => {}
            Some(Death::PowerLoss) => return Ok(None),
            Some(Death::Crash) => return Err(refused("nobody listens")),
        }
        let (near, far) = tokio::io::duplex(WINDOW_BYTES);
        door.arrivals.try_send((far, peer)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => refused("too many connections wait to be accepted"),
            mpsc::error::TrySendError::Closed(_) => refused("nobody listens"),
        })?;
        Ok(Some(near))
    }

    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        self.0.lock().expect("no code panics while it holds the lock")
    }
}

impl Addresses {
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
            Some((stream, peer)) => Ok((Box::new(self.sockets.open(stream)), peer)),
            None => Err(Error::unavailable(&self.address, "the network is gone", Effect::None)),
        }
    }
}
