use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::reason::CloseReason;
use super::shared::Shared;
use crate::plane::report::{ConnectionTotals, PlanesReport};

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
    gone: ConnectionTotals,
    closed: BTreeMap<&'static str, u64>,
    refused: BTreeMap<&'static str, u64>,
    dials: u64,
    dials_failed: BTreeMap<&'static str, u64>,
}

impl PlaneCounters {
    /// What there is to tell now of all links together.
    pub(crate) fn snapshot(&self) -> PlanesReport {
        let state = self.lock();
        let links: Vec<_> = state.links.values().filter_map(Weak::upgrade).collect();
        let mut report = PlanesReport {
            connections_opened: state.opened,
            closed: state.closed.clone(),
            dials: state.dials,
            dials_failed: state.dials_failed.clone(),
            refused: state.refused.clone(),
            totals: state.gone,
            ..PlanesReport::default()
        };
        drop(state);
        links.iter().for_each(|link| report.totals.add(&link.snapshot().totals));
        report
    }

    /// A peer is dialled.
    pub(crate) fn dialling(&self) {
        self.lock().dials += 1;
    }

    /// That led to nothing but an error with this code.
    pub(crate) fn dialling_failed(&self, code: &'static str) {
        *self.lock().dials_failed.entry(code).or_default() += 1;
    }

    /// Adds a link; returns its number.
    pub(super) fn opened(&self, link: &Arc<Shared>) -> u64 {
        let mut state = self.lock();
        state.opened += 1;
        let number = state.opened;
        state.links.insert(number, Arc::downgrade(link));
        number
    }

    pub(super) fn closed(&self, number: u64, reason: CloseReason, totals: &ConnectionTotals) {
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
