use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::Port;

/// Stands on loopback between clients and a server, and makes the network between them fail.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    network: Arc<watch::Sender<Network>>,
    /// When each connection was made: after how many cuts.
    connections: Arc<watch::Sender<Vec<u64>>>,
    accepted: Arc<AtomicUsize>,
    accepting: AbortHandle,
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// What clients send.
    ToServer,
    /// What the server sends.
    ToClient,
}

#[derive(Debug, Clone, Copy, Default)]
struct Network {
    /// A connection lives as long as this stands still.
    cuts: u64,
    /// Nobody listens.
    refuses: bool,
    holds_to_server: bool,
    holds_to_client: bool,
}

impl Network {
    fn holds(&mut self, direction: Direction) -> &mut bool {
        match direction {
            Direction::ToServer => &mut self.holds_to_server,
            Direction::ToClient => &mut self.holds_to_client,
        }
    }
}

impl Proxy {
    /// A proxy before a server at `host:port`.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start(server: String) -> Self {
        let (port, listener) = loop {
            let [port] = Port::claim();
            if let Ok(listener) = TcpListener::bind(port.address()).await {
                break (port, listener);
            }
        };
        let network = Arc::new(watch::Sender::new(Network::default()));
        let connections = Arc::new(watch::Sender::new(Vec::new()));
        let accepted = Arc::new(AtomicUsize::new(0));
        let accepting = Accepting {
            server,
            network: network.clone(),
            connections: connections.clone(),
            accepted: accepted.clone(),
        };
        let accepting = tokio::spawn(accepting.run(listener));
        Self { port, network, connections, accepted, accepting: accepting.abort_handle() }
    }

    /// Where it listens, as `127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        self.port.address()
    }

    /// How many connections go through it.
    pub fn connections(&self) -> usize {
        self.connections.borrow().len()
    }

    /// How many connections were ever made to it.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Ends all connections, and refuses new ones, until [`mend`](Self::mend).
    pub fn cut(&self) {
        self.network.send_modify(|network| {
            network.cuts += 1;
            network.refuses = true;
        });
    }

    /// Ends all connections once; resolves when they have ended. New ones get through.
    pub async fn reset(&self) {
        self.network.send_modify(|network| network.cuts += 1);
        let cuts = self.network.borrow().cuts;
        let mut connections = self.connections.subscribe();
        let ended = connections.wait_for(|open| open.iter().all(|born| *born >= cuts)).await;
        ended.expect("this value holds the other end");
    }

    /// Lets nothing through, in neither direction, until [`mend`](Self::mend); connections stay open, and
    /// nothing is lost.
    pub fn silence(&self) {
        self.silence_towards(Direction::ToServer);
        self.silence_towards(Direction::ToClient);
    }

    /// [`silence`](Self::silence) in one direction.
    pub fn silence_towards(&self, direction: Direction) {
        self.network.send_modify(|network| *network.holds(direction) = true);
    }

    /// Lets everything through again, also what was held back in a silence.
    pub fn mend(&self) {
        self.network.send_modify(|network| *network = Network { cuts: network.cuts, ..Network::default() });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

/// Accepts connections, unless they are refused.
struct Accepting {
    server: String,
    network: Arc<watch::Sender<Network>>,
    connections: Arc<watch::Sender<Vec<u64>>>,
    accepted: Arc<AtomicUsize>,
}

impl Accepting {
    async fn run(self, mut listener: TcpListener) {
        let mut network = self.network.subscribe();
        let address = listener.local_addr().expect("it was bound");
        loop {
            tokio::select! {
                biased;
                _ = network.wait_for(|network| network.refuses) => drop(listener),
                () = self.accept(&listener) => {}
            }
            let _ = network.wait_for(|network| !network.refuses).await;
            listener = loop {
                match TcpListener::bind(address).await {
                    Ok(listener) => break listener,
                    // Another connection of this machine may have the port for its own end for a moment.
                    Err(_) => sleep(Duration::from_millis(5)).await,
                }
            };
        }
    }

    async fn accept(&self, listener: &TcpListener) {
        // Out of file descriptors, most likely, if it fails: somebody has to close one first.
        while let Ok((client, _)) = listener.accept().await {
            let network = self.network.subscribe();
            self.accepted.fetch_add(1, Ordering::Relaxed);
            let counted = Counted::new(self.connections.clone(), network.borrow().cuts);
            tokio::spawn(forward(client, self.server.clone(), network, counted));
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// One of the connections.
struct Counted {
    connections: Arc<watch::Sender<Vec<u64>>>,
    born: u64,
}

impl Counted {
    fn new(connections: Arc<watch::Sender<Vec<u64>>>, born: u64) -> Self {
        connections.send_modify(|open| open.push(born));
        Self { connections, born }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let is_this = |open: &u64| *open == self.born;
        self.connections.send_modify(|open| {
            let at = open.iter().position(is_this).expect("it was counted");
            open.swap_remove(at);
        });
    }
}

async fn forward(client: TcpStream, server: String, network: watch::Receiver<Network>, counted: Counted) {
    let born = counted.born;
    let mut cuts = network.clone();
    tokio::select! {
        biased;
        _ = cuts.wait_for(|network| network.cuts != born) => {}
        _ = carry(client, server, network) => {}
    }
}

async fn carry(client: TcpStream, server: String, mut network: watch::Receiver<Network>) -> io::Result<()> {
    // In a silence nobody learns whether there is a server.
    for direction in [Direction::ToServer, Direction::ToClient] {
        passes(&mut network, direction).await;
    }
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(
        copy(from_client, to_server, Direction::ToServer, network.clone()),
        copy(from_server, to_client, Direction::ToClient, network),
    )?;
    Ok(())
}

/// Copies until the end. What was read before a silence waits for its end, and so does the news of an end.
async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    mut network: watch::Receiver<Network>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await;
        passes(&mut network, direction).await;
        match read? {
            0 => return to.shutdown().await,
            bytes => to.write_all(&buffer[..bytes]).await?,
        }
    }
}

/// Waits until the network lets this direction through.
async fn passes(network: &mut watch::Receiver<Network>, direction: Direction) {
    // An error says that the proxy is gone, and the connection with it.
    let _ = network.wait_for(|network| !*network.clone().holds(direction)).await;
}
