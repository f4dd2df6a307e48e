use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::time::Instant;

/// What happened in a run, a line each: virtual seconds, who, what. The same seed gives the same bytes.
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

/// A trace while it is written; clones write to the same one.
#[derive(Clone)]
pub(crate) struct Log {
    began: Instant,
    text: Arc<Mutex<String>>,
}

impl Log {
    /// An empty log that begins now.
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), text: Arc::default() }
    }

    /// When the log began.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// Adds a line at the present time.
    pub(crate) fn line(&self, who: &str, what: impl fmt::Display) {
        let at = self.began.elapsed();
        let (seconds, micros) = (at.as_secs(), at.subsec_micros());
        writeln!(self.text(), "{seconds:>6}.{micros:06} {who:<10} {what}").expect("a string takes all text");
    }

    /// What was written so far.
    pub(crate) fn trace(&self) -> Trace {
        Trace(self.text().clone())
    }

    fn text(&self) -> MutexGuard<'_, String> {
        self.text.lock().expect("no code panics while it holds the lock")
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("bytes", &self.text().len()).finish_non_exhaustive()
    }
}
