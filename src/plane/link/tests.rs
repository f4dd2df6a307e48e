//! Links between two ends in one process.

mod cut;
mod flood;
mod flow;
mod format;
mod handshake;
mod hostile;
mod life;
mod log;
mod model;
mod peer;
mod streams;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use slipring_core::{ByteStream, Headers, Result, Secret, SystemEnvironment};
use tokio::sync::{Notify, mpsc};

use super::*;

/// A host that hands requests to its test.
#[derive(Debug)]
pub(super) struct Desk {
    requests: mpsc::UnboundedSender<Inbound>,
    calls: Mutex<BTreeMap<(u64, u64), Arc<dyn Sink>>>,
    adopted: Mutex<Vec<Inflow>>,
}

impl Host for Desk {
    fn handle_request(&self, request: Inbound) {
        // A test that wants none has dropped the other end.
        let _ = self.requests.send(request);
    }

    fn adopt(&self, call: u64, token: u64, inflow: Inflow) -> Option<Arc<dyn Sink>> {
        let sink = self.calls.lock().unwrap().remove(&(call, token))?;
        self.adopted.lock().unwrap().push(inflow);
        Some(sink)
    }
}

/// A sink that keeps all that it is given.
#[derive(Debug, Default)]
pub(super) struct Kept {
    state: Mutex<State>,
    changed: Notify,
    /// When it was woken.
    pub(super) woken: Mutex<Vec<Instant>>,
}

#[derive(Debug, Default, Clone)]
struct State {
    arrivals: Vec<Arrival>,
    deliveries: usize,
    load: Option<u64>,
}

impl Sink for Kept {
    fn deliver(&self, arrivals: &mut Vec<Arrival>, load: Option<u64>) {
        assert!(!arrivals.is_empty(), "an empty delivery");
        let mut state = self.state.lock().unwrap();
        assert!(!state.arrivals.last().is_some_and(is_end), "something after the end");
        state.arrivals.append(arrivals);
        state.deliveries += 1;
        state.load = load.or(state.load);
        drop(state);
        self.changed.notify_waiters();
    }

    fn wake(&self) {
        self.woken.lock().unwrap().push(Instant::now());
    }
}

fn is_end(arrival: &Arrival) -> bool {
    !matches!(arrival, Arrival::Item { last: false, .. })
}

impl Kept {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn arrivals(&self) -> Vec<Arrival> {
        self.state.lock().unwrap().arrivals.clone()
    }

    pub(super) fn items(&self) -> Vec<Bytes> {
        let items = self.arrivals().into_iter().filter_map(|arrival| match arrival {
            Arrival::Item { payload, .. } => Some(payload),
            _ => None,
        });
        items.collect()
    }

    /// Waits until this many items, or an end, came.
    pub(super) async fn reach(&self, items: usize) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let ended = self.state.lock().unwrap().arrivals.last().is_some_and(is_end);
            if ended || self.items().len() >= items {
                return;
            }
            changed.await;
        }
    }

    /// Waits for the end: the items, and the error if that is how it ended.
    pub(super) async fn end(&self) -> (Vec<Bytes>, Option<Error>) {
        self.reach(usize::MAX).await;
        let items = self.items();
        let error = match self.arrivals().pop() {
            Some(Arrival::Failed(error)) => Some(error),
            Some(Arrival::End { count }) => {
                assert_eq!(count, items.len() as u64);
                None
            }
            _ => None,
        };
        (items, error)
    }
}

/// One end of a link, and the requests that come to it.
pub(super) struct End {
    pub(super) link: Link,
    pub(super) requests: mpsc::UnboundedReceiver<Inbound>,
    pub(super) desk: Arc<Desk>,
    pub(super) local: Arc<Local>,
}

/// Sends a request like any other.
pub(super) fn open(link: &Link, payload: impl Into<Bytes>, sink: &Arc<Kept>) -> Result<Inflow> {
    let (deadline, headers, payload) = (Duration::from_secs(10), &Headers::new(), &payload.into());
    link.open(Outbound { target: "a/b/c", deadline, headers, payload, wake_at: None }, sink.clone())
}

impl End {
    pub(super) async fn request(&mut self) -> Inbound {
        self.requests.recv().await.expect("the link lives")
    }

    pub(super) fn open(&self, payload: impl Into<Bytes>, sink: &Arc<Kept>) -> Result<Inflow> {
        open(&self.link, payload, sink)
    }

    pub(super) fn adopts(&self, call: u64, token: u64) -> Arc<Kept> {
        let sink = Kept::new();
        self.desk.calls.lock().unwrap().insert((call, token), sink.clone());
        sink
    }
}

pub(super) fn local(
    instance: u64,
    limits: LinkLimits,
    secret: Option<&str>,
) -> (Arc<Local>, Arc<Desk>, mpsc::UnboundedReceiver<Inbound>) {
    let (sender, requests) = mpsc::unbounded_channel();
    let desk = Arc::new(Desk { requests: sender, calls: Mutex::default(), adopted: Mutex::default() });
    let local = Local {
        environment: Arc::new(SystemEnvironment),
        instance,
        epoch: Arc::new(AtomicU64::new(1)),
        limits,
        secret: secret.map(Secret::new),
        host: desk.clone(),
        counters: Arc::default(),
    };
    (Arc::new(local), desk, requests)
}

pub(super) const DIALLED: Peer = Peer { instance: 2, epoch: 1 };

/// Two ends of a link over this connection.
pub(super) async fn pair_over(
    near: Box<dyn ByteStream>,
    far: Box<dyn ByteStream>,
    limits: [LinkLimits; 2],
) -> (End, End) {
    let (dialler, desk, requests) = local(1, limits[0], None);
    let (dialled, other_desk, other_requests) = local(2, limits[1], None);
    let (link, other) =
        tokio::join!(Link::dial(dialler.clone(), near, DIALLED), Link::accept(dialled.clone(), far));
    (
        End { link: link.unwrap(), requests, desk, local: dialler },
        End { link: other.unwrap(), requests: other_requests, desk: other_desk, local: dialled },
    )
}

/// Two ends of a link over a pipe.
pub(super) async fn pair() -> (End, End) {
    pair_with(LinkLimits::default()).await
}

pub(super) async fn pair_with(limits: LinkLimits) -> (End, End) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    pair_over(Box::new(near), Box::new(far), [limits; 2]).await
}

pub(super) fn bytes(length: usize, seed: u8) -> Bytes {
    (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect::<Vec<_>>().into()
}
