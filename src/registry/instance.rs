use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use slipring_core::{Revision, Subject};
use tokio::time::Instant;

use crate::codec::Codec;
use crate::plane::Plane;
use crate::record::Record;

/// How long a load that an instance reported is believed.
const REPORT_AGE_MAX: Duration = Duration::from_secs(1);

/// One instance of an endpoint, as its record says.
#[derive(Debug)]
pub struct Instance {
    record: Record,
    modified: Revision,
    subject: Option<Subject>,
    /// Where it is dialled.
    address: Option<String>,
    /// How it is called on a connection.
    target: Subject,
    standing: Arc<Standing>,
}

impl Instance {
    pub(crate) fn new(record: Record, modified: Revision, standing: Arc<Standing>) -> Self {
        // A record without a way in that we know is listed, but never routed to.
        let way = |name| record.transport.get(name);
        let subject =
            way(Record::BROKER).or(way(Record::NATS_TCP)).and_then(|subject| Subject::new(subject).ok());
        let address = way(Record::TCP).cloned();
        let target = record.instance.subject();
        Self { record, modified, subject, address, target, standing }
    }

    /// Its id: that of its runtime, unchanged through lost leases.
    pub fn id(&self) -> u64 {
        self.record.instance.id()
    }

    /// How often its runtime has had a lease, from 1.
    pub fn epoch(&self) -> u64 {
        self.record.epoch
    }

    /// Does it say of itself that it is well?
    pub fn is_ready(&self) -> bool {
        self.record.ready
    }

    /// The whole record.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The revision of its last change.
    pub fn modified(&self) -> Revision {
        self.modified
    }

    /// Calls of this runtime that it is working on.
    pub fn in_flight(&self) -> u64 {
        self.standing.in_flight.load(Ordering::Relaxed)
    }

    /// Is it skipped because it could not be reached?
    pub fn is_set_aside(&self) -> bool {
        self.standing.set_aside_for(self.modified).is_some()
    }

    /// Does its record list this plane? Within the process it need not.
    pub fn lists(&self, plane: Plane) -> bool {
        self.record.transport.contains_key(plane.name())
    }

    /// Is there a way in that we know?
    pub(crate) fn is_reachable(&self) -> bool {
        self.subject.is_some() || self.address.is_some()
    }

    /// How it is called within the process and on a connection: its subject, whatever else leads to it.
    pub(crate) fn target(&self) -> &str {
        self.target.as_str()
    }

    /// Where it is dialled, if its record says so.
    pub(crate) fn address(&self) -> Option<&str> {
        self.address.as_deref()
    }

    pub(crate) fn subject(&self) -> Option<&Subject> {
        self.subject.as_ref()
    }

    pub(crate) fn codec(&self) -> Codec {
        self.record.codec
    }

    pub(crate) fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// Since when it is set aside, if it is.
    pub(crate) fn aside_since(&self) -> Option<Instant> {
        self.standing.set_aside_for(self.modified)
    }

    /// Skips it until a newer put, or an answered probe.
    pub(crate) fn set_aside(&self, now: Instant) {
        self.standing.set_aside(now, self.modified);
    }
}

/// What one runtime knows of an instance beyond its record; it outlives changes of the record.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    in_flight: AtomicU64,
    is_aside: AtomicBool,
    reported: Mutex<Option<(Instant, u64)>>,
    aside: Mutex<Option<(Instant, Revision)>>,
}

impl Standing {
    /// The instance said how many requests it has in flight.
    pub(crate) fn report(&self, now: Instant, load: u64) {
        *lock(&self.reported) = Some((now, load));
    }

    /// The larger of our own calls and what it reported lately: an old report says nothing, so that an
    /// instance that was overloaded once is tried again.
    pub(crate) fn load(&self, now: Instant) -> u64 {
        let own = self.in_flight.load(Ordering::Relaxed);
        match *lock(&self.reported) {
            Some((at, load)) if now.saturating_duration_since(at) < REPORT_AGE_MAX => own.max(load),
            _ => own,
        }
    }

    fn set_aside(&self, now: Instant, modified: Revision) {
        let mut aside = lock(&self.aside);
        if aside.is_none_or(|(_, seen)| seen < modified) {
            *aside = Some((now, modified));
            self.is_aside.store(true, Ordering::Release);
        }
    }

    /// It answered: it can be reached.
    pub(crate) fn reached(&self) {
        if self.is_aside.load(Ordering::Acquire) {
            *lock(&self.aside) = None;
            self.is_aside.store(false, Ordering::Release);
        }
    }

    /// Since when the instance with this last change is set aside; a newer put ends it.
    fn set_aside_for(&self, modified: Revision) -> Option<Instant> {
        if !self.is_aside.load(Ordering::Acquire) {
            return None;
        }
        let aside = *lock(&self.aside);
        aside.filter(|(_, seen)| modified <= *seen).map(|(since, _)| since)
    }
}

/// A call under way at an instance.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Instance>);

impl Busy {
    /// Counts a call in; dropping it counts it out.
    pub(crate) fn begin(instance: Arc<Instance>) -> Self {
        instance.standing.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(instance)
    }

    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.standing.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Plain values: a panic while one is held leaves it whole.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
