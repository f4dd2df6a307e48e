use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::arguments::line;
use super::now;
use crate::pulse::Pulse;
use crate::run::STANDSTILL;
use crate::{Engine, Scenario};

/// Where one thread says which seed it runs.
#[derive(Default)]
pub(super) struct Post(Mutex<Option<(u64, Pulse)>>);

impl Post {
    /// It begins a seed.
    pub(super) fn begin(&self, seed: u64) -> Pulse {
        let pulse = Pulse::default();
        *self.state() = Some((seed, pulse.clone()));
        pulse
    }

    /// It has run it, and judges what happened.
    pub(super) fn end(&self) {
        *self.state() = None;
    }

    fn state(&self) -> MutexGuard<'_, Option<(u64, Pulse)>> {
        self.0.lock().expect("no code panics while it holds the lock")
    }
}

/// Looks for runs that get on no more, and that nothing within them can end: a task keeps its thread, or tasks that
/// no environment knows wake themselves for ever.
pub(super) struct Sentry<'a> {
    scenario: &'a Scenario,
    engine: Engine,
    patience: Duration,
    looked: Instant,
    /// For each post the seed and its steps, and since when there are no more.
    seen: Vec<Option<(u64, u64, Instant)>>,
}

/// How often it looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(200);

impl<'a> Sentry<'a> {
    pub(super) fn new(scenario: &'a Scenario, engine: Engine, patience: Duration) -> Self {
        Self { scenario, engine, patience, looked: now(), seen: Vec::new() }
    }

    /// Looks at the posts, now and then. If one of them stands still it says so, and ends the process: that thread
    /// cannot be had back.
    pub(super) fn look(&mut self, posts: &[Post], out: &mut impl Write) -> io::Result<()> {
        let now = now();
        if now.duration_since(self.looked) < LOOK_EVERY {
            return Ok(());
        }
        self.looked = now;
        self.seen.resize(posts.len(), None);
        for (post, seen) in posts.iter().zip(&mut self.seen) {
            let runs = post.state().as_ref().map(|(seed, pulse)| (*seed, pulse.steps()));
            *seen = runs.map(|(seed, steps)| match *seen {
                Some((same, before, since)) if (same, before) == (seed, steps) => (seed, steps, since),
                _ => (seed, steps, now),
            });
        }
        let late = |since: Instant| now.duration_since(since) >= self.patience;
        match self.seen.iter().flatten().find(|(.., since)| late(*since)) {
            None => Ok(()),
            Some((seed, ..)) => self.tell(*seed, out),
        }
    }

    fn tell(&self, seed: u64, out: &mut impl Write) -> io::Result<()> {
        let (name, patience) = (self.scenario.name(), self.patience);
        writeln!(out, "{name}, seed {seed}, breaks a promise:")?;
        writeln!(
            out,
            "  {STANDSTILL} (time passes, and the run comes to an end): for {patience:?} no task of a node took a \
             step: one of them does not give its thread back, or one that no environment knows wakes itself for ever"
        )?;
        writeln!(out, "\nTo see it again:\n{}", line(self.scenario, self.engine, seed, None))?;
        out.flush()?;
        std::process::exit(1)
    }
}
