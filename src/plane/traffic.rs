//! What the endpoints of a runtime bring to the planes, counted where they are served and where they are called.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::Plane;
use super::report::{EndpointTraffic, PlaneTraffic};

/// The counters of the endpoints that a runtime serves and calls, for as long as it does.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    served: Tallies,
    called: Tallies,
}

/// By endpoint, as `namespace/component/endpoint`.
type Tallies = Mutex<BTreeMap<Arc<str>, Weak<Tally>>>;

/// The counters of one endpoint: a flow for each plane.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    flows: [Flow; Plane::ALL.len()],
}

/// The counters of one endpoint on one plane. On the path of a request they are plain additions.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    begun: AtomicU64,
    ended: AtomicU64,
    items: AtomicU64,
    bytes: AtomicU64,
    credit_stalls: AtomicU64,
    resets: Mutex<BTreeMap<&'static str, u64>>,
}

impl Traffic {
    /// The counters of an endpoint that is served.
    pub(crate) fn served(&self, endpoint: &Arc<str>) -> Arc<Tally> {
        tally(&self.served, endpoint)
    }

    /// The counters of an endpoint that is called.
    pub(crate) fn called(&self, endpoint: &Arc<str>) -> Arc<Tally> {
        tally(&self.called, endpoint)
    }

    /// What there is to tell now.
    pub(crate) fn report(&self) -> BTreeMap<String, EndpointTraffic> {
        let mut report: BTreeMap<String, EndpointTraffic> = BTreeMap::new();
        for (endpoint, tally) in live(&self.served) {
            report.entry(endpoint.to_string()).or_default().served = tally.report();
        }
        for (endpoint, tally) in live(&self.called) {
            report.entry(endpoint.to_string()).or_default().called = tally.report();
        }
        report
    }
}

fn tally(tallies: &Tallies, endpoint: &Arc<str>) -> Arc<Tally> {
    let mut tallies = lock(tallies);
    if let Some(tally) = tallies.get(endpoint).and_then(Weak::upgrade) {
        return tally;
    }
    tallies.retain(|_, tally| tally.strong_count() > 0);
    let tally = Arc::new(Tally::default());
    tallies.insert(endpoint.clone(), Arc::downgrade(&tally));
    tally
}

fn live(tallies: &Tallies) -> Vec<(Arc<str>, Arc<Tally>)> {
    let tallies = lock(tallies);
    let live = tallies.iter().map(|(name, tally)| Some((name.clone(), tally.upgrade()?)));
    live.flatten().collect()
}

impl Tally {
    /// That of a plane.
    pub(crate) fn flow(&self, plane: Plane) -> &Flow {
        &self.flows[plane as usize]
    }

    fn report(&self) -> BTreeMap<Plane, PlaneTraffic> {
        let flows = Plane::ALL.into_iter().map(|plane| (plane, self.flow(plane).report()));
        flows.filter(|(_, traffic)| *traffic != PlaneTraffic::default()).collect()
    }
}

impl Flow {
    pub(crate) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn items(&self, items: u64, bytes: u64) {
        self.items.fetch_add(items, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn stalled(&self) {
        self.credit_stalls.fetch_add(1, Ordering::Relaxed);
    }

    /// A stream did not come to its end, for the reason that has this code.
    pub(crate) fn reset(&self, code: &'static str) {
        *lock(&self.resets).entry(code).or_default() += 1;
    }

    fn report(&self) -> PlaneTraffic {
        // In this order: what ends meanwhile was begun before.
        let ended = self.ended.load(Ordering::Relaxed);
        let begun = self.begun.load(Ordering::Relaxed);
        PlaneTraffic {
            streams_open: begun.saturating_sub(ended),
            streams: begun,
            items: self.items.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            credit_stalls: self.credit_stalls.load(Ordering::Relaxed),
            resets: lock(&self.resets).clone(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Single inserts and removals: whole whatever panics elsewhere.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each plane has counters of its own, which live as long as somebody counts.
    #[test]
    fn counters_live_with_those_who_count() {
        let (traffic, name) = (Traffic::default(), Arc::from("a/b/c"));
        let served = traffic.served(&name);
        for plane in Plane::ALL {
            served.flow(plane).begin();
            served.flow(plane).items(2, 10);
        }
        served.flow(Plane::Tcp).end();
        served.flow(Plane::Tcp).reset("cancelled");
        assert!(Arc::ptr_eq(&served, &traffic.served(&name)));
        let report = traffic.report().remove("a/b/c").unwrap();
        assert_eq!((report.served.len(), report.called.len()), (Plane::ALL.len(), 0));
        let tcp = &report.served[&Plane::Tcp];
        assert_eq!((tcp.streams, tcp.streams_open, tcp.items, tcp.bytes), (1, 0, 2, 10));
        assert_eq!((tcp.resets["cancelled"], report.served[&Plane::Broker].streams_open), (1, 1));
        drop(served);
        assert!(traffic.report().is_empty());
    }
}
