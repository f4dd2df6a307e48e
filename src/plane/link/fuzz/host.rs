use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use slipring_core::Error;

use crate::plane::link::taking::cost;
use crate::plane::link::{Arrival, Host, Inbound, Inflow, LinkLimits, Outflow, Sink};

/// A host that answers each request as the first byte of its payload says.
#[derive(Debug)]
pub(super) struct Desk {
    limits: LinkLimits,
    held: Mutex<Vec<Outflow>>,
    adopted: Mutex<Vec<(Arc<Reader>, Inflow)>>,
}

impl Desk {
    pub(super) fn new(limits: LinkLimits) -> Self {
        Self { limits, held: Mutex::default(), adopted: Mutex::default() }
    }

    /// Answers in one of the ways that there are.
    pub(super) fn answer(&self, way: u8, answers: Outflow) {
        // Whether anybody still takes it is not its business.
        match way % 6 {
            0 => drop(answers.items(&[Bytes::from_static(b"echo")], true, 0)),
            1 => answers.fail(&Error::fault("bad", "it failed"), 0),
            2 => drop(answers.items(&[Bytes::from(vec![7; 70_000])], true, 0)),
            3 => {}
            4 => {
                let items: Vec<_> = (0..10).map(|at| Bytes::from(vec![at; usize::from(at) * 10])).collect();
                let _ = answers.items(&items, false, 0).and_then(|()| answers.end(0));
                lock(&self.held).push(answers);
            }
            _ => lock(&self.held).push(answers),
        }
    }

    /// How many answers are kept that the peer waits for.
    pub(super) fn held(&self) -> usize {
        let mut held = lock(&self.held);
        held.retain(|answers| !answers.is_closed());
        held.len()
    }

    /// Reads what arrived on streams that were adopted.
    pub(super) fn read(&self) {
        lock(&self.adopted).iter().for_each(|(reader, inflow)| reader.read(inflow));
    }

    /// The link is closed: every stream has been told.
    pub(super) async fn ended(&self) {
        let adopted = std::mem::take(&mut *lock(&self.adopted));
        assert!(adopted.iter().all(|(reader, _)| reader.is_ended()));
        let held = std::mem::take(&mut *lock(&self.held));
        for answers in held {
            assert!(answers.room().await.is_err());
        }
    }
}

impl Host for Desk {
    fn handle_request(&self, request: Inbound) {
        assert!(request.payload.len() <= self.limits.message_bytes_max);
        self.answer(request.payload.first().copied().unwrap_or_default(), request.answers);
    }

    fn adopt(&self, call: u64, token: u64, inflow: Inflow) -> Option<Arc<dyn Sink>> {
        if call & 1 == 0 || token != 3 {
            return None;
        }
        let reader = Arc::new(Reader::new(self.limits));
        lock(&self.adopted).push((reader.clone(), inflow));
        Some(reader)
    }
}

/// Takes the items of a stream, and checks that they come as they may.
#[derive(Debug)]
pub(super) struct Reader {
    window: i64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    items: u64,
    unread_bytes: usize,
    unread_items: usize,
    /// What those cost.
    unread: i64,
    is_ended: bool,
}

impl Reader {
    pub(super) fn new(limits: LinkLimits) -> Self {
        let window = i64::try_from(limits.stream_window_bytes).expect("a window is small");
        Self { window, state: Mutex::default() }
    }

    /// Gives credit back for all that came.
    pub(super) fn read(&self, inflow: &Inflow) {
        let mut state = lock(&self.state);
        let (bytes, items) = (state.unread_bytes, state.unread_items);
        (state.unread_bytes, state.unread_items, state.unread) = (0, 0, 0);
        drop(state);
        inflow.consumed(bytes, items);
    }

    pub(super) fn is_ended(&self) -> bool {
        lock(&self.state).is_ended
    }
}

impl Sink for Reader {
    fn deliver(&self, arrivals: &mut Vec<Arrival>, _: Option<u64>) {
        let mut state = lock(&self.state);
        assert!(!arrivals.is_empty(), "nothing was delivered");
        for arrival in arrivals.drain(..) {
            assert!(!state.is_ended, "something follows the end");
            match arrival {
                Arrival::Item { payload, last } => {
                    assert!(state.unread < self.window, "there was no credit for it");
                    state.unread += cost(payload.len());
                    state.unread_bytes += payload.len();
                    state.unread_items += 1;
                    state.items += 1;
                    state.is_ended = last;
                }
                Arrival::End { count } => {
                    assert_eq!(count, state.items);
                    state.is_ended = true;
                }
                Arrival::Failed(_) => state.is_ended = true,
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
