use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::arguments::{Explore, Run};
use super::sentry::{Post, Sentry};
use super::{Done, Verdict, account, now, quietly, write};
use crate::Scenario;
use crate::probes::Probes;

/// Runs seeds on several threads. How it goes is told on stderr; what was found, on `out`.
pub(super) fn explore(order: &Explore<'_>, out: &mut impl Write) -> Done {
    let (mut broken, mut hashes) = (false, String::new());
    for scenario in &order.scenarios {
        let (found, probes) = quietly(|| run_seeds(scenario, order, out))?;
        broken |= found.failed > 0;
        for (seed, hash) in &found.hashes {
            hashes += &format!("{} {seed} {hash:016x}\n", scenario.name());
        }
        writeln!(out, "{}: {found}", scenario.name())?;
        tell_probes(scenario, &probes, out)?;
        // The first one last, and at length: what is to be pasted is the last line.
        for seed in found.failures.iter().rev() {
            let run =
                Run { scenario, seed: *seed, engine: order.engine, schedule: None, patience: order.patience };
            let outcome = quietly(|| run.outcome(out))?;
            writeln!(out)?;
            if found.failures.first() == Some(seed) {
                account::tell(&run, &outcome, out)?;
            } else {
                account::tell_briefly(&run, &outcome, out)?;
            }
        }
    }
    order.hashes.as_ref().map_or(Ok(()), |path| write(path, &hashes))?;
    Ok(Verdict::of(broken))
}

/// How many failing seeds are told: those with the lowest numbers.
const FAILURES_MAX: usize = 3;

/// What came of one seed.
struct Ran {
    seed: u64,
    /// If it is wanted.
    hash: Option<u64>,
    failed: bool,
    simulated: Duration,
    events: usize,
}

/// In how many of the seeds each rare situation was met; and, in a line of their own, which were met in none.
fn tell_probes(scenario: &Scenario, probes: &Probes, out: &mut impl Write) -> io::Result<()> {
    let runs = probes.runs();
    writeln!(out, "Rare situations, and in how many of the {runs} seeds each was met:")?;
    for (name, met) in probes.all().filter(|(_, met)| *met > 0) {
        writeln!(out, "{met:>8} {name}")?;
    }
    let own = probes.missing(scenario.probes().iter().map(String::as_str));
    let never: Vec<_> = probes.never().into_iter().chain(own).collect();
    if never.is_empty() { Ok(()) } else { writeln!(out, "Never met: {}", never.join(", ")) }
}

fn run_seeds(scenario: &Scenario, order: &Explore<'_>, out: &mut impl Write) -> io::Result<(Found, Probes)> {
    let next = AtomicU64::new(order.seeds.start);
    let (sender, ran) = sync_channel(RESULTS_MAX);
    let posts: Vec<Post> = (0..order.jobs).map(|_| Post::default()).collect();
    std::thread::scope(|scope| {
        let jobs = posts.iter().map(|post| {
            let (next, sender) = (&next, sender.clone());
            scope.spawn(move || work(scenario, order, next, &sender, post))
        });
        let jobs: Vec<_> = jobs.collect();
        drop(sender);
        let found = gather(scenario, order, &ran, &posts, out)?;
        let mut probes = Probes::new();
        for job in jobs {
            probes.merge(&job.join().map_err(|_| io::Error::other("a checker panicked"))?);
        }
        Ok((found, probes))
    })
}

/// How many results may wait to be counted.
const RESULTS_MAX: usize = 1_024;

/// Runs one seed after the other until there is none left, or nobody listens. Returns what rare situations they met.
fn work(
    scenario: &Scenario,
    order: &Explore<'_>,
    next: &AtomicU64,
    sender: &SyncSender<Ran>,
    post: &Post,
) -> Probes {
    let mut probes = Probes::new();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if !order.seeds.contains(&seed) {
            return probes;
        }
        let pulse = post.begin(seed);
        let (report, violations) = scenario.judged(order.engine, seed, scenario.schedule(seed), pulse);
        post.end();
        probes.merge(&Probes::of(&report.history));
        let moments = report.history.moments();
        let ran = Ran {
            seed,
            hash: order.hashes.as_ref().map(|_| report.hash()),
            failed: !violations.is_empty(),
            simulated: moments.last().map(|moment| moment.at).unwrap_or_default(),
            events: moments.len(),
        };
        if sender.send(ran).is_err() {
            return probes;
        }
    }
}

/// Counts until all are done.
fn gather(
    scenario: &Scenario,
    order: &Explore<'_>,
    ran: &Receiver<Ran>,
    posts: &[Post],
    out: &mut impl Write,
) -> io::Result<Found> {
    let mut sentry = Sentry::new(scenario, order.engine, order.patience);
    let (mut progress, mut found) = (Progress::new(scenario, order), Found::new());
    loop {
        match ran.recv_timeout(PROGRESS_EVERY) {
            Ok(ran) => found.add(&ran),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        sentry.look(posts, out)?;
        progress.tell(&found)?;
    }
    progress.end()?;
    Ok(found)
}

/// How often the progress is told on a terminal, and how often elsewhere.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
const PROGRESS_IN_A_LOG_EVERY: Duration = Duration::from_secs(10);

/// What came of all seeds so far.
struct Found {
    began: Instant,
    seeds: u64,
    failed: u64,
    /// The failing seeds with the lowest numbers.
    failures: BTreeSet<u64>,
    /// The hash of each run, if they are wanted.
    hashes: BTreeMap<u64, u64>,
    simulated: Duration,
    events: usize,
}

impl Found {
    fn new() -> Self {
        let (failures, hashes, simulated) = Default::default();
        Self { began: now(), seeds: 0, failed: 0, failures, hashes, simulated, events: 0 }
    }

    fn add(&mut self, ran: &Ran) {
        self.seeds += 1;
        self.simulated += ran.simulated;
        self.events += ran.events;
        self.hashes.extend(ran.hash.map(|hash| (ran.seed, hash)));
        if ran.failed {
            self.failed += 1;
            self.failures.insert(ran.seed);
            if self.failures.len() > FAILURES_MAX {
                self.failures.pop_last();
            }
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = now().duration_since(self.began).as_secs_f64();
        let (seeds, failed) = (self.seeds, self.failed);
        let speed = seeds as f64 / took.max(f64::MIN_POSITIVE);
        let hours = self.simulated.as_secs_f64() / 3_600.0;
        let events = self.events as u64 / seeds.max(1);
        write!(
            f,
            "{seeds} seeds, {failed} of them break a promise; {took:.1} s, {speed:.0} seeds/s, \
             {hours:.1} h simulated, {events} events a seed"
        )
    }
}

/// How far it is, on stderr: on a terminal one line that changes, elsewhere a line now and then.
struct Progress<'a> {
    scenario: &'a Scenario,
    seeds: u64,
    terminal: bool,
    told: Instant,
}

impl<'a> Progress<'a> {
    fn new(scenario: &'a Scenario, order: &Explore<'_>) -> Self {
        let seeds = order.seeds.end - order.seeds.start;
        Self { scenario, seeds, terminal: io::stderr().is_terminal(), told: now() }
    }

    fn tell(&mut self, found: &Found) -> io::Result<()> {
        let every = if self.terminal { PROGRESS_EVERY } else { PROGRESS_IN_A_LOG_EVERY };
        if now().duration_since(self.told) < every {
            return Ok(());
        }
        self.told = now();
        let percent = found.seeds * 100 / self.seeds;
        let (begin, end) = if self.terminal { ("\r", "\x1b[K") } else { ("", "\n") };
        write!(io::stderr(), "{begin}{percent:>3} % {}: {found}{end}", self.scenario.name())
    }

    /// Leaves no line that changes behind.
    fn end(&self) -> io::Result<()> {
        if self.terminal { write!(io::stderr(), "\r\x1b[K") } else { Ok(()) }
    }
}
