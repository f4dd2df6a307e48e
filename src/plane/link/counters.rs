use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::reason::CloseReason;
use super::shared::Shared;

/// What one link, or many, did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Streams that this end opened, and that the peer opened.
    pub(crate) streams_opened: u64,
    pub(crate) streams_accepted: u64,
    /// Items sent and received.
    pub(crate) items_sent: u64,
    pub(crate) items_received: u64,
    /// Bytes on the wire, heads included.
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    /// How often an answer had to wait for credit.
    pub(crate) credit_stalls: u64,
    /// Streams that the asking end gave up, here and there.
    pub(crate) cancels_sent: u64,
    pub(crate) cancels_received: u64,
    /// Streams that the answering end broke off, here and there.
    pub(crate) resets_sent: u64,
    pub(crate) resets_received: u64,
    /// Requests refused because too much was being assembled.
    pub(crate) refused_overloaded: u64,
    /// Requests of the peer that came after this end had gone away.
    pub(crate) refused_draining: u64,
    pub(crate) pings_sent: u64,
    pub(crate) pings_received: u64,
}

/// One link, as it is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LinkSnapshot {
    /// Streams that are open, in both directions.
    pub(crate) streams_open: usize,
    /// Bytes that wait for the wire.
    pub(crate) queued_bytes: usize,
    /// Bytes of messages that arrive in chunks and are not whole yet.
    pub(crate) assembling_bytes: usize,
    pub(crate) totals: Totals,
}

/// All links of a runtime, as they are now, and what all of them did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PlaneSnapshot {
    pub(crate) links_open: usize,
    pub(crate) links_opened: u64,
    /// All links that are open, taken together; the totals are those of the closed ones too.
    pub(crate) links: LinkSnapshot,
    /// How many links were closed, by reason.
    pub(crate) closed: BTreeMap<&'static str, u64>,
    /// How many handshakes failed, by reason.
    pub(crate) refused: BTreeMap<&'static str, u64>,
}

/// The links of a runtime, for whoever wants to know what they do. Counting costs nothing until somebody asks:
/// each link counts for itself.
#[derive(Debug, Default)]
pub(crate) struct PlaneCounters {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    links: BTreeMap<u64, Weak<Shared>>,
    opened: u64,
    gone: Totals,
    closed: BTreeMap<&'static str, u64>,
    refused: BTreeMap<&'static str, u64>,
}

impl PlaneCounters {
    /// What there is to tell now.
    pub(crate) fn snapshot(&self) -> PlaneSnapshot {
        let state = self.lock();
        let links: Vec<_> = state.links.values().filter_map(Weak::upgrade).collect();
        let mut snapshot = PlaneSnapshot {
            links_open: links.len(),
            links_opened: state.opened,
            links: LinkSnapshot { totals: state.gone, ..LinkSnapshot::default() },
            closed: state.closed.clone(),
            refused: state.refused.clone(),
        };
        drop(state);
        for link in links {
            let one = link.snapshot();
            snapshot.links.streams_open += one.streams_open;
            snapshot.links.queued_bytes += one.queued_bytes;
            snapshot.links.assembling_bytes += one.assembling_bytes;
            snapshot.links.totals.add(&one.totals);
        }
        snapshot
    }

    /// Adds a link; returns its number.
    pub(super) fn opened(&self, link: &Arc<Shared>) -> u64 {
        let mut state = self.lock();
        state.opened += 1;
        let number = state.opened;
        state.links.insert(number, Arc::downgrade(link));
        number
    }

    pub(super) fn closed(&self, number: u64, reason: CloseReason, totals: &Totals) {
        let mut state = self.lock();
        state.links.remove(&number);
        state.gone.add(totals);
        *state.closed.entry(reason.code()).or_default() += 1;
    }

    pub(super) fn refused(&self, code: &'static str) {
        *self.lock().refused.entry(code).or_default() += 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Totals {
    fn add(&mut self, other: &Self) {
        // Taken apart, so that a counter that is added later is not forgotten here.
        let Self {
            streams_opened,
            streams_accepted,
            items_sent,
            items_received,
            bytes_sent,
            bytes_received,
            credit_stalls,
            cancels_sent,
            cancels_received,
            resets_sent,
            resets_received,
            refused_overloaded,
            refused_draining,
            pings_sent,
            pings_received,
        } = other;
        self.streams_opened += streams_opened;
        self.streams_accepted += streams_accepted;
        self.items_sent += items_sent;
        self.items_received += items_received;
        self.bytes_sent += bytes_sent;
        self.bytes_received += bytes_received;
        self.credit_stalls += credit_stalls;
        self.cancels_sent += cancels_sent;
        self.cancels_received += cancels_received;
        self.resets_sent += resets_sent;
        self.resets_received += resets_received;
        self.refused_overloaded += refused_overloaded;
        self.refused_draining += refused_draining;
        self.pings_sent += pings_sent;
        self.pings_received += pings_received;
    }
}
