use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Stands on loopback between clients and a server, and makes the network between them fail.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    state: Arc<watch::Sender<State>>,
    accepting: AbortHandle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Connections are reset, also new ones.
    Cut,
    /// Connections stay open, and nothing goes through.
    Silent,
}

impl Proxy {
    /// A proxy before a server at `host:port`.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start(server: String) -> Self {
        let [port] = crate::free_ports();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port was free");
        let state = Arc::new(watch::Sender::new(State::Open));
        let states = state.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, server.clone(), states.subscribe()));
            }
        });
        Self { port, state, accepting: accepting.abort_handle() }
    }

    /// Where it listens, as `127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends all connections, and every new one at once, until [`mend`](Self::mend).
    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Lets nothing through, in neither direction, until [`mend`](Self::mend); connections stay open.
    pub fn silence(&self) {
        self.state.send_replace(State::Silent);
    }

    /// Lets everything through again, also what was held back in a silence.
    pub fn mend(&self) {
        self.state.send_replace(State::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn forward(mut client: TcpStream, server: String, mut states: watch::Receiver<State>) {
    let mut upstream = None;
    loop {
        let state = *states.borrow_and_update();
        match (state, &mut upstream) {
            (State::Cut, _) => return,
            (State::Silent, _) => {
                if states.changed().await.is_err() {
                    return;
                }
            }
            (State::Open, None) => match TcpStream::connect(&server).await {
                Ok(stream) => upstream = Some(stream),
                Err(_) => return,
            },
            (State::Open, Some(server)) => tokio::select! {
                biased;
                changed = states.changed() => if changed.is_err() { return },
                _ = copy_bidirectional(&mut client, server) => return,
            },
        }
    }
}
