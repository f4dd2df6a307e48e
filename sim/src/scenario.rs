//! A story that is told under many seeds, and judged.

use std::fmt;
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;

use crate::check::{Terms, Violation, check};
use crate::pulse::Pulse;
use crate::run::{Failure, attempt};
use crate::{Report, Schedule, Setup, Shape, World};

/// A story of some nodes in a [`World`], with all that it takes to run it under any seed, to judge the run, and
/// to make a failing run small. Clones are the same; threads may run one at once.
///
/// ```
/// use std::time::Duration;
///
/// use slipring_sim::{Scenario, Shape, World};
///
/// const TTL: Duration = Duration::from_secs(3);
/// let shape = Shape::new(["worker"], TTL, 10 * TTL).with_operations(["leave"], 1);
/// let scenario = Scenario::new("a_lease_is_kept", "A worker keeps its lease until it leaves", shape, async |world: World| {
///     world.spawn_node("worker", async |node| {
///         let Ok(lease) = node.discovery().grant(TTL).await else { return };
///         let beats = async { while node.discovery().keep_alive(lease.id).await.is_ok() { tokio::time::sleep(TTL / 3).await } };
///         tokio::select! { biased; _ = node.operation() => {}, () = beats => {} }
///     });
///     world.calm().await;
/// });
/// let outcome = scenario.run(7);
/// assert!(outcome.violations.is_empty());
/// assert_eq!(scenario.replay(7, outcome.schedule.clone()).hash, outcome.hash);
/// ```
#[derive(Clone)]
pub struct Scenario {
    name: String,
    shows: String,
    setup: Setup,
    shape: Shape,
    story: Story,
    terms: Option<Terms>,
    judges: Vec<Judge>,
    probes: Vec<String>,
    engines: Vec<Engine>,
}

type Story = Arc<dyn Fn(World) -> LocalBoxFuture<'static, ()> + Send + Sync>;
type Judge = Arc<dyn Fn(&Report) -> Vec<Violation> + Send + Sync>;

/// What a world runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Engine {
    /// Tier T1: one runtime, driven by events.
    Fast,
    /// Tier T2: a host of turmoil for each node, and a real protocol between them.
    #[cfg(feature = "turmoil")]
    Turmoil,
}

/// One run of a scenario, judged.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What was asked of the nodes, and what went wrong.
    pub schedule: Schedule,
    /// What happened.
    pub report: Report,
    /// What is wrong with it, in the order in which it went wrong.
    pub violations: Vec<Violation>,
    /// A hash of all that happened: equal for equal runs, in all processes and builds.
    pub hash: u64,
}

impl Scenario {
    /// A scenario with the default setup, on the fast engine, judged by the standard checkers alone.
    ///
    /// `name` is in snake_case; `shows` is a sentence. The schedule of a seed is drawn for `shape`, and plays
    /// from the beginning of the story. The story ends the run; [`World::calm`] waits for the end of the
    /// schedule. It may be told any number of times, and keeps nothing from one time to the next. A panic in it
    /// is a violation, and so is that time stands still, because somebody wakes himself for ever.
    pub fn new(
        name: impl Into<String>,
        shows: impl Into<String>,
        shape: Shape,
        story: impl AsyncFn(World) + Send + Sync + 'static,
    ) -> Self {
        let story = Arc::new(story);
        Self {
            name: name.into(),
            shows: shows.into(),
            setup: Setup::new(),
            shape,
            story: Arc::new(move |world| {
                let story = story.clone();
                Box::pin(async move { story(world).await })
            }),
            terms: None,
            judges: Vec::new(),
            probes: Vec::new(),
            engines: vec![Engine::Fast],
        }
    }

    /// In a world like this.
    #[must_use]
    pub fn with_setup(mut self, setup: impl Into<Setup>) -> Self {
        self.setup = setup.into();
        self
    }

    /// With these bounds in the place of the default ones, which follow from the broker's profile.
    #[must_use]
    pub fn with_terms(mut self, terms: Terms) -> Self {
        self.terms = Some(terms);
        self
    }

    /// Judged by this function too. It gives what is wrong with a run, and the same for the same run.
    #[must_use]
    pub fn with_judge(mut self, judge: impl Fn(&Report) -> Vec<Violation> + Send + Sync + 'static) -> Self {
        self.judges.push(Arc::new(judge));
        self
    }

    /// With rare situations, by their names, that some of its seeds should meet.
    #[must_use]
    pub fn with_probes(mut self, probes: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.probes.extend(probes.into_iter().map(Into::into));
        self
    }

    /// On this engine too.
    #[must_use]
    pub fn with_engine(mut self, engine: Engine) -> Self {
        self.engines.push(engine);
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it shows, in a sentence.
    pub fn shows(&self) -> &str {
        &self.shows
    }

    /// What its world is like.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// What its schedules are drawn for.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The rare situations that some of its seeds should meet.
    pub fn probes(&self) -> &[String] {
        &self.probes
    }

    /// On what it runs.
    pub fn engines(&self) -> &[Engine] {
        &self.engines
    }

    /// The schedule of a seed.
    pub fn schedule(&self, seed: u64) -> Schedule {
        Schedule::generate(seed, &self.shape)
    }

    /// Runs a seed with its schedule.
    pub fn run(&self, seed: u64) -> Outcome {
        self.replay(seed, self.schedule(seed))
    }

    /// Runs a seed with another schedule: a smaller one, or one from a file.
    pub fn replay(&self, seed: u64, schedule: Schedule) -> Outcome {
        self.replay_on(Engine::Fast, seed, schedule)
    }

    /// [`replay`](Self::replay) on an engine.
    pub fn replay_on(&self, engine: Engine, seed: u64, schedule: Schedule) -> Outcome {
        self.replay_watched(engine, seed, schedule, Pulse::default())
    }

    /// [`replay_on`](Self::replay_on) for somebody who looks how it gets on.
    pub(crate) fn replay_watched(
        &self,
        engine: Engine,
        seed: u64,
        schedule: Schedule,
        pulse: Pulse,
    ) -> Outcome {
        let (report, violations) = self.judged(engine, seed, schedule.clone(), pulse);
        let hash = report.hash();
        Outcome { seed, schedule, report, violations, hash }
    }

    /// [`replay_watched`](Self::replay_watched) without a hash, which takes a fifth of the time.
    pub(crate) fn judged(
        &self,
        engine: Engine,
        seed: u64,
        schedule: Schedule,
        pulse: Pulse,
    ) -> (Report, Vec<Violation>) {
        let (played, story, setup) = (schedule, self.story.clone(), self.setup.clone());
        let tell = move |world: World| {
            world.play(played);
            story(world)
        };
        let (report, failure) = match engine {
            Engine::Fast => attempt(seed, setup, pulse, tell),
            #[cfg(feature = "turmoil")]
            Engine::Turmoil => crate::turmoil::attempt(seed, setup, pulse, tell),
        };
        let violations = self.judge(&report, failure);
        (report, violations)
    }

    /// The smallest schedule found under which a seed still breaks `invariant`; see [`Schedule::shrink`].
    pub fn shrink(&self, seed: u64, schedule: &Schedule, invariant: &str) -> Schedule {
        self.shrink_on(Engine::Fast, seed, schedule, invariant)
    }

    /// [`shrink`](Self::shrink) on an engine.
    pub fn shrink_on(&self, engine: Engine, seed: u64, schedule: &Schedule, invariant: &str) -> Schedule {
        schedule.shrink(|schedule| self.replay_on(engine, seed, schedule.clone()).breaks(invariant))
    }

    /// For a test: runs each of these seeds twice on the fast engine.
    ///
    /// # Panics
    /// At the first seed that breaks a promise, with the promise and the smallest schedule found that breaks it;
    /// at the first that is not the same run twice, with the first event in which the two differ.
    pub fn test(&self, seeds: impl IntoIterator<Item = u64>) {
        for seed in seeds {
            let (outcome, again) = (self.run(seed), self.run(seed));
            if let Some(difference) = outcome.report.history.first_difference(&again.report.history) {
                panic!(
                    "{}: seed {seed} does not decide the run: it was run twice, and {difference}",
                    self.name
                );
            }
            if let Some(violation) = outcome.violations.first() {
                let smallest = self.shrink(seed, &outcome.schedule, violation.invariant);
                let small = self.replay(seed, smallest);
                let violation = small.violations.first().unwrap_or(violation);
                panic!("{}: seed {seed}: {violation}\nunder this schedule:\n{}", self.name, small.schedule);
            }
        }
    }

    /// What its runs are judged by.
    pub fn terms(&self) -> Terms {
        self.terms.clone().unwrap_or_else(|| Terms::from(&self.setup.profile))
    }

    fn judge(&self, report: &Report, failure: Option<Failure>) -> Vec<Violation> {
        let mut violations = check(&report.history, self.terms());
        violations.extend(self.judges.iter().flat_map(|judge| judge(report)));
        violations.extend(failure.map(|failure| Violation::new(failure.promise, failure.at, failure.what)));
        violations.sort_by_key(|violation| violation.at);
        violations
    }
}

impl Outcome {
    /// Does it break this invariant?
    pub fn breaks(&self, invariant: &str) -> bool {
        self.violations.iter().any(|violation| violation.invariant == invariant)
    }
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scenario").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Engine {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Fast,
        #[cfg(feature = "turmoil")]
        Self::Turmoil,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            #[cfg(feature = "turmoil")]
            Self::Turmoil => "turmoil",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Fault, Node};

    const TTL: Duration = Duration::from_secs(3);

    fn shape() -> Shape {
        Shape::new(["a", "b"], TTL, 10 * TTL).with_operations(["work"], 8)
    }

    /// Two nodes that note what they are asked to do.
    fn workers() -> Scenario {
        Scenario::new("workers", "Nodes do what they are asked", shape(), async |world: World| {
            for name in ["a", "b"] {
                world.spawn_node(name, async |node: Node| {
                    loop {
                        let what = node.operation().await;
                        node.note(what);
                    }
                });
            }
            world.calm().await;
        })
    }

    fn lines(outcome: &Outcome, kind: &str) -> usize {
        outcome.report.history.moments().iter().filter(|moment| moment.event.kind() == kind).count()
    }

    /// A seed is one run, and so is its schedule from a file; each operation reaches its node.
    #[test]
    fn a_seed_replays() {
        let scenario = workers();
        for seed in 0..50 {
            let outcome = scenario.run(seed);
            assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
            let saved = Schedule::from_json(&outcome.schedule.to_json()).unwrap();
            assert_eq!(scenario.replay(seed, saved).hash, outcome.hash);
            assert_ne!(scenario.run(seed + 1).hash, outcome.hash);
        }
    }

    /// A node that is up does what it is asked, once; what a node is asked that is down, or unknown, is a note.
    #[test]
    fn operations_reach_living_nodes() {
        let crash = Fault::Crash { node: "a".to_owned(), down: Some(2 * TTL) };
        let schedule = Schedule::new()
            .with_operation(Duration::ZERO, "a", "one")
            .with(TTL, crash)
            .with_operation(2 * TTL, "a", "lost")
            .with_operation(2 * TTL, "nobody", "never")
            .with_operation(4 * TTL, "a", "two");
        let outcome = workers().replay(7, schedule);
        let text = outcome.report.history.to_string();
        for expected in [
            "a                note     one",
            "this node is down",
            "node nobody",
            "a#2              note     two",
        ] {
            assert!(text.contains(expected), "no {expected:?} in\n{text}");
        }
        assert_eq!((lines(&outcome, "ask"), lines(&outcome, "note")), (2, 4));
    }

    /// A panic of the story or of a task is a violation, and what a judge says is one.
    #[test]
    fn what_fails_is_a_violation() {
        let judge = |report: &Report| {
            assert!(!report.history.moments().is_empty());
            vec![Violation::new("order", TTL, "out of order")]
        };
        let scenario = Scenario::new("broken", "All goes wrong", shape(), async |world: World| {
            world.spawn_node("a", async |_| panic!("no luck"));
            tokio::time::sleep(2 * TTL).await;
            panic!("the end");
        });
        let outcome = scenario.with_judge(judge).replay(7, Schedule::new());
        let found: Vec<_> = outcome.violations.iter().map(|v| (v.invariant, v.what.as_str())).collect();
        let expected =
            [("N2", "task program of a: no luck"), ("order", "out of order"), ("story", "the end")];
        assert_eq!(found, expected);
    }

    /// Whoever wakes himself for ever ends the run, and not the patience of who waits for it: a task, or the story.
    #[test]
    fn time_does_not_stand_still() {
        let spin = async || loop {
            tokio::task::yield_now().await;
        };
        let by_a_task = Scenario::new("task", "A task wakes itself", shape(), async move |world: World| {
            world.spawn_node("a", move |_| async move {
                tokio::time::sleep(TTL).await;
                spin().await;
            });
            tokio::time::sleep(2 * TTL).await;
        });
        let by_the_story =
            Scenario::new("story", "The story wakes itself", shape(), async move |_| spin().await);
        for (scenario, who, at) in
            [(by_a_task, "task program of a took", TTL), (by_the_story, "the story took", Duration::ZERO)]
        {
            let violations = scenario.replay(7, Schedule::new()).violations;
            let [violation] = &violations[..] else { panic!("{violations:?}") };
            assert_eq!((violation.invariant, violation.at), ("standstill", at));
            assert!(violation.what.contains(who), "{violation}");
        }
    }

    /// A failing run shrinks to the operation that it takes.
    #[test]
    fn a_failure_shrinks() {
        let scenario = workers().with_judge(|report| {
            let noted = |node: &str| {
                report.history.moments().iter().any(|m| &*m.node == node && m.event.kind() == "note")
            };
            Vec::from_iter(noted("b").then(|| Violation::new("order", TTL, "b worked")))
        });
        let failing = (0..).map(|seed| scenario.run(seed)).find(|outcome| outcome.breaks("order")).unwrap();
        let smallest = scenario.shrink(failing.seed, &failing.schedule, "order");
        assert_eq!(smallest, Schedule::new().with_operation(Duration::ZERO, "b", "work"));
    }
}
