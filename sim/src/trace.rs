use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use slipring_core::Fact;
use tokio::time::Instant;

use crate::history::{Event, History, Moment};
use crate::pulse::Pulse;

/// What happened in a run, a line each: virtual seconds, who, the kind of event, and the rest. The same seed
/// gives the same bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Trace(String);

impl Trace {
    /// The lines, each with its line break.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The lines that hold this text, in order.
    pub fn matching<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.lines().filter(move |line| line.contains(text))
    }

    /// Its last lines.
    pub(crate) fn tail(&self, lines: usize) -> &str {
        let start = self.0.rmatch_indices('\n').nth(lines).map_or(0, |(end, _)| end + 1);
        &self.0[start..]
    }
}

impl From<&History> for Trace {
    fn from(history: &History) -> Self {
        Self(history.to_string())
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// As it is printed, so that a failed comparison can be read.
impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{self}")
    }
}

/// A history while it is written; clones write to the same one.
#[derive(Clone)]
pub(crate) struct Log {
    clock: Clock,
    watches: Arc<AtomicU64>,
    numbers: Arc<AtomicU64>,
    history: Arc<Mutex<History>>,
    /// When the last event happened, in nanoseconds.
    last: Arc<AtomicU64>,
    pulse: Pulse,
}

/// What tells the time.
#[derive(Clone)]
enum Clock {
    /// The one runtime of a world; it began then.
    Tokio(Instant),
    /// The simulation around the hosts, each of which has a runtime of its own.
    #[cfg(feature = "turmoil")]
    Turmoil,
}

impl Log {
    /// An empty log that begins now.
    pub(crate) fn new() -> Self {
        Self::of(Pulse::default())
    }

    /// An empty log that begins now, of a run that gets on so.
    pub(crate) fn of(pulse: Pulse) -> Self {
        Self::timed(Clock::Tokio(Instant::now()), pulse)
    }

    /// An empty log of a simulation on turmoil.
    #[cfg(feature = "turmoil")]
    pub(crate) fn on_turmoil(pulse: Pulse) -> Self {
        Self::timed(Clock::Turmoil, pulse)
    }

    fn timed(clock: Clock, pulse: Pulse) -> Self {
        let (watches, numbers, history, last) = Default::default();
        Self { clock, watches, numbers, history, last, pulse }
    }

    /// How the run gets on.
    pub(crate) fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Somebody is about to take a step. Is that one too many for the time that has passed?
    pub(crate) fn is_one_too_many(&self) -> bool {
        self.pulse.is_one_too_many(|| self.elapsed())
    }

    /// The time since the log began.
    pub(crate) fn elapsed(&self) -> Duration {
        match &self.clock {
            Clock::Tokio(began) => began.elapsed(),
            // Outside of all hosts no time passes.
            #[cfg(feature = "turmoil")]
            Clock::Turmoil => turmoil::sim_elapsed().unwrap_or_else(|| self.last_time()),
        }
    }

    /// Adds an event at the present time.
    pub(crate) fn add(&self, node: &Arc<str>, event: Event) {
        // Hosts on turmoil take turns of a tick each, so that the next one begins before the last one ended.
        let at = self.elapsed().max(self.last_time());
        self.last.store(u64::try_from(at.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.history().push(Moment { at, node: node.clone(), event });
    }

    fn last_time(&self) -> Duration {
        Duration::from_nanos(self.last.load(Ordering::Relaxed))
    }

    /// A number for a watch.
    pub(crate) fn name_watch(&self) -> u64 {
        self.watches.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A number for anything else.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What was written so far.
    pub(crate) fn snapshot(&self) -> History {
        self.history().clone()
    }

    /// The facts of a node among it, in order.
    pub(crate) fn facts(&self, of: &str) -> Vec<Fact> {
        let history = self.history();
        let here = history.moments().iter().filter(|moment| &*moment.node == of);
        let facts = here.filter_map(|moment| match &moment.event {
            Event::Fact(fact) => Some(fact.clone()),
            _ => None,
        });
        facts.collect()
    }

    /// What was written so far; the log is empty then, and goes on.
    pub(crate) fn take(&self) -> History {
        self.history().take()
    }

    /// The end of the log.
    pub(crate) fn finish(&self) -> History {
        std::mem::take(&mut self.history())
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("no code panics while it holds the lock")
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("moments", &self.history().moments().len()).finish_non_exhaustive()
    }
}
