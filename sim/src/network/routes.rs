use std::sync::Arc;
use std::time::Duration;

use crate::latency::Latency;
use crate::random::Streams;

/// The ways between nodes, and what is wrong with them: windows that may overlap. A node reaches itself at once
/// and always.
#[derive(Debug)]
pub(super) struct Routes {
    latency: Latency,
    streams: Streams,
    windows: Vec<Window>,
    last: u64,
}

/// What is wrong with a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing passes; it arrives later.
    Held,
    /// Connections are reset, and new ones refused, whichever side made them.
    Refused,
    /// Everything takes longer.
    Delayed(Duration),
}

#[derive(Debug)]
struct Window {
    number: u64,
    trouble: Trouble,
    /// Nobody in particular is everybody.
    from: Option<Arc<str>>,
    to: Option<Arc<str>>,
}

impl Window {
    fn concerns(&self, from: &str, to: &str) -> bool {
        let is = |who: &Option<Arc<str>>, name: &str| who.as_deref().is_none_or(|who| who == name);
        from != to && is(&self.from, from) && is(&self.to, to)
    }
}

impl Routes {
    pub(super) fn new(seed: u64, latency: Latency) -> Self {
        Self { latency, streams: Streams::new(seed, "network"), windows: Vec::new(), last: 0 }
    }

    pub(super) fn open(&mut self, trouble: Trouble, from: Option<&str>, to: Option<&str>) -> u64 {
        self.last += 1;
        let [from, to] = [from, to].map(|name| name.map(Arc::from));
        self.windows.push(Window { number: self.last, trouble, from, to });
        self.last
    }

    pub(super) fn close(&mut self, number: u64) {
        self.windows.retain(|window| window.number != number);
    }

    pub(super) fn is_held(&self, from: &str, to: &str) -> bool {
        self.has(Trouble::Held, from, to)
    }

    pub(super) fn is_refused(&self, from: &str, to: &str) -> bool {
        self.has(Trouble::Refused, from, to) || self.has(Trouble::Refused, to, from)
    }

    /// How long something takes that is sent now.
    pub(super) fn latency(&mut self, from: &str, to: &str) -> Duration {
        if from == to {
            return Duration::ZERO;
        }
        let delays = self.windows.iter().filter(|window| window.concerns(from, to));
        let delay: Duration = delays
            .map(|window| match window.trouble {
                Trouble::Delayed(by) => by,
                _ => Duration::ZERO,
            })
            .sum();
        if self.latency == Latency::NONE {
            return delay;
        }
        delay + self.latency.sample(self.streams.next("latency"))
    }

    fn has(&self, trouble: Trouble, from: &str, to: &str) -> bool {
        self.windows.iter().any(|window| window.trouble == trouble && window.concerns(from, to))
    }
}

impl Default for Routes {
    fn default() -> Self {
        Self::new(0, Latency::NONE)
    }
}
