use std::time::Duration;

use crate::fault::{Direction, Fault};
use crate::latency::Latency;
use crate::random::Streams;
use crate::schedule::Schedule;

/// What a schedule is drawn for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Shape {
    /// The nodes that may be struck, and asked; without any only the broker is struck.
    pub nodes: Vec<String>,
    /// The time to live of the leases, around which faults matter most.
    pub ttl: Duration,
    /// The time within which faults strike and operations are given.
    pub length: Duration,
    /// How many drawn faults there are at most, those that are sure aside.
    pub faults_max: usize,
    /// What may go wrong.
    pub faults: Choice,
    /// May also go wrong what not every program and broker can bear?
    pub unusual: bool,
    /// What goes wrong once at least: one fault for each choice.
    pub sure: Vec<Choice>,
    /// What nodes may be asked to do.
    pub verbs: Vec<String>,
    /// How many operations there are at most.
    pub operations_max: usize,
}

/// Is this fault one of those that are meant?
pub type Choice = fn(&Fault) -> bool;

impl Shape {
    /// Faults of all kinds for these nodes within this time, up to 12 of them, and no operations.
    pub fn new(nodes: impl IntoIterator<Item = impl Into<String>>, ttl: Duration, length: Duration) -> Self {
        Self {
            nodes: nodes.into_iter().map(Into::into).collect(),
            ttl,
            length,
            faults_max: 12,
            faults: |_| true,
            unusual: false,
            sure: Vec::new(),
            verbs: Vec::new(),
            operations_max: 0,
        }
    }

    /// With this many drawn faults at most. With 0 nothing goes wrong but what is [sure](Self::with_sure).
    #[must_use]
    pub fn with_faults_max(mut self, faults: usize) -> Self {
        self.faults_max = faults;
        self
    }

    /// With these faults alone, such as `|fault| matches!(fault, Fault::Crash { .. })`.
    #[must_use]
    pub fn with_faults(mut self, faults: Choice) -> Self {
        self.faults = faults;
        self
    }

    /// With the faults too that are never drawn otherwise: [`Fault::StaleReads`] needs a profile that allows it,
    /// [`Fault::Cancel`] a program with [cancellable](crate::Node::cancellable) parts, and [`Fault::EndLease`]
    /// judges who know that it breaks a promise of the store.
    #[must_use]
    pub fn with_unusual(mut self, unusual: bool) -> Self {
        self.unusual = unusual;
        self
    }

    /// With one such fault in each schedule, whatever else goes wrong.
    #[must_use]
    pub fn with_sure(mut self, fault: Choice) -> Self {
        self.sure.push(fault);
        self
    }

    /// With up to this many operations, out of these words. Each is given to a node of its own drawing.
    #[must_use]
    pub fn with_operations(
        mut self,
        verbs: impl IntoIterator<Item = impl Into<String>>,
        operations_max: usize,
    ) -> Self {
        self.verbs = verbs.into_iter().map(Into::into).collect();
        self.operations_max = operations_max;
        self
    }
}

impl Schedule {
    /// The schedule of a seed. Each seed takes a random part of the kinds of faults only (a swarm: rare kinds
    /// are not drowned by frequent ones), and its times are close to those at which something is decided:
    /// a third of the time to live, just before and after its end, and the time of a failover.
    pub fn generate(seed: u64, shape: &Shape) -> Self {
        let mut dice = Dice { streams: Streams::new(seed, "schedule"), shape };
        let schedule = dice.faults(Self::new());
        let schedule = dice.sure_faults(schedule);
        dice.operations(schedule)
    }
}

/// How often a fault is drawn until it is one of those that are meant.
const DRAWS_MAX: usize = 16;

/// Draws a fault of its kind.
type Kind = fn(&mut Dice<'_>) -> Fault;

const OF_NODES: [Kind; 18] = [
    |dice| Fault::Cut { node: dice.node(), lasts: dice.span() },
    |dice| {
        let lost = [Direction::Both, Direction::ToBroker, Direction::FromBroker][dice.below("direction", 3)];
        Fault::Partition { node: dice.node(), lost, lasts: dice.span() }
    },
    |dice| {
        let latency = Latency::between(Duration::ZERO, dice.up_to(dice.shape.ttl / 6));
        Fault::Latency { node: dice.node(), latency }
    },
    |dice| Fault::Delay { node: dice.node(), by: dice.span(), lasts: dice.span() },
    |dice| Fault::LoseRequest { node: dice.node() },
    |dice| Fault::LoseReply { node: dice.node() },
    |dice| Fault::StallWatches { node: dice.node(), lasts: dice.span() },
    |dice| Fault::Crash { node: dice.node(), down: dice.down() },
    |dice| Fault::PowerLoss { node: dice.node(), down: dice.down() },
    |dice| Fault::Pause { node: dice.node(), lasts: dice.span(), suspended: dice.one_in("suspended", 2) },
    |dice| {
        let ahead_ms = i64::try_from(dice.span().as_millis()).unwrap_or(i64::MAX);
        Fault::WallClock {
            node: dice.node(),
            ahead_ms: if dice.one_in("back", 2) { -ahead_ms } else { ahead_ms },
        }
    },
    |dice| Fault::Isolate { node: dice.node(), lasts: dice.span() },
    |dice| dice.between_nodes(),
    |dice| Fault::LoseHeartbeats {
        node: dice.node(),
        beats: 1 + u32::try_from(dice.below("beats", 3)).expect("it is below 3"),
        executed: dice.one_in("executed", 2),
    },
    |dice| Fault::LosePublish { node: dice.node() },
    |dice| Fault::Overload { node: dice.node(), lasts: dice.span() },
    |dice| Fault::ResetWatches { node: dice.node() },
    |dice| Fault::ResetBus { node: dice.node() },
];

/// Those that are not for every program and every broker.
const UNUSUAL: [Kind; 3] = [
    |dice| Fault::StaleReads { node: dice.node(), lasts: dice.span() },
    |dice| Fault::Cancel {
        node: dice.node(),
        waits: u32::try_from(dice.below("waits", 32)).expect("it is below 32"),
    },
    |dice| Fault::EndLease { from: format!("{:x}", dice.below("key", 16)) },
];

const OF_BROKER: [Kind; 11] = [
    |dice| Fault::CutAll { lasts: dice.span() },
    |dice| {
        let off = u32::try_from(dice.below("rate", 2 * DRIFT_PPM_MAX + 1)).expect("it is below a thousandth");
        Fault::ClockRate { ppm: 1_000_000 - 500 + off }
    },
    |dice| Fault::PauseStore { lasts: dice.span() },
    |dice| Fault::RestartStore { down: dice.span(), ready: dice.up_to(FAILOVER_MAX) },
    |dice| Fault::LeaderChange { lasts: FAILOVER_MIN + dice.up_to(FAILOVER_MAX - FAILOVER_MIN) },
    |dice| Fault::RestartBus { down: dice.span() },
    |_| Fault::Compact,
    |_| Fault::Save,
    |_| Fault::Restore,
    |_| Fault::Empty,
    |dice| Fault::DeleteKey { from: format!("{:x}", dice.below("key", 16)) },
];

/// How far the rates of two clocks are apart at most, in millionths: more than machines' are.
const DRIFT_PPM_MAX: usize = 500;

/// How long etcd was measured to be without a leader.
const FAILOVER_MIN: Duration = Duration::from_millis(1_000);
const FAILOVER_MAX: Duration = Duration::from_millis(1_900);

/// How close to a decision "just before" and "just after" are.
const EPSILON_MAX: Duration = Duration::from_millis(100);

/// The kinds that can strike somebody.
fn all_kinds(shape: &Shape) -> Vec<Kind> {
    let (of_nodes, unusual): (&[Kind], &[Kind]) =
        if shape.nodes.is_empty() { (&[], &[]) } else { (&OF_NODES, &UNUSUAL) };
    let unusual = if shape.unusual { unusual } else { &[] };
    of_nodes.iter().chain(&OF_BROKER).chain(unusual).copied().collect()
}

/// At least 1.
fn whole_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

struct Dice<'a> {
    streams: Streams,
    shape: &'a Shape,
}

impl Dice<'_> {
    fn faults(&mut self, mut schedule: Schedule) -> Schedule {
        let mut kinds: Vec<Kind> = all_kinds(self.shape);
        kinds.retain(|kind| self.draw(*kind, self.shape.faults).is_some());
        if kinds.is_empty() || self.shape.faults_max == 0 {
            return schedule;
        }
        let sure = self.below("kind", kinds.len());
        let mut number = 0;
        kinds.retain(|_| {
            number += 1;
            number == sure + 1 || self.one_in("swarm", 3)
        });
        let faults = 1 + self.below("faults", self.shape.faults_max);
        let mut last = Duration::ZERO;
        for _ in 0..faults {
            last = self.strike_after(last);
            let kind = kinds[self.below("kind", kinds.len())];
            if let Some(fault) = self.draw(kind, self.shape.faults) {
                schedule = schedule.with(last, fault);
            }
        }
        schedule
    }

    fn sure_faults(&mut self, mut schedule: Schedule) -> Schedule {
        for choice in &self.shape.sure {
            let fault = all_kinds(self.shape).into_iter().find_map(|kind| self.draw(kind, *choice));
            if let Some(fault) = fault {
                let at = self.strike_after(Duration::ZERO);
                schedule = schedule.with(at, fault);
            }
        }
        schedule
    }

    fn operations(&mut self, mut schedule: Schedule) -> Schedule {
        let Shape { nodes, verbs, operations_max, length, .. } = self.shape;
        if nodes.is_empty() || verbs.is_empty() {
            return schedule;
        }
        for _ in 0..self.below("operations", operations_max + 1) {
            let at = Duration::from_millis(self.streams.next("operation") % whole_millis(*length));
            let (node, verb) = (self.below("asked", nodes.len()), self.below("verb", verbs.len()));
            schedule = schedule.with_operation(at, &nodes[node], &verbs[verb]);
        }
        schedule
    }

    /// A fault of a kind that is one of those that are meant, if there is one.
    fn draw(&mut self, kind: Kind, meant: Choice) -> Option<Fault> {
        (0..DRAWS_MAX).map(|_| kind(self)).find(meant)
    }

    fn below(&mut self, label: &'static str, end: usize) -> usize {
        usize::try_from(self.streams.next(label) % end.max(1) as u64).expect("it is below a usize")
    }

    fn one_in(&mut self, label: &'static str, cases: usize) -> bool {
        self.below(label, cases) == 0
    }

    fn up_to(&mut self, max: Duration) -> Duration {
        Duration::from_millis(self.streams.next("duration") % whole_millis(max))
    }

    fn node(&mut self) -> String {
        let number = self.below("node", self.shape.nodes.len());
        self.shape.nodes[number].clone()
    }

    /// Something between two nodes; of a single one, with everybody.
    fn between_nodes(&mut self) -> Fault {
        let nodes = self.shape.nodes.len();
        if nodes < 2 {
            return Fault::Isolate { node: self.node(), lasts: self.span() };
        }
        let from = self.below("node", nodes);
        let to = (from + 1 + self.below("other", nodes - 1)) % nodes;
        let [from, to] = [from, to].map(|number| self.shape.nodes[number].clone());
        match self.below("between", 3) {
            0 => {
                let (both_ways, lasts) = (self.one_in("both ways", 2), self.span());
                Fault::PartitionNodes { from, to, both_ways, lasts }
            }
            1 => Fault::CutNodes { from, to, lasts: self.span() },
            _ => Fault::DelayNodes { from, to, by: self.span(), lasts: self.span() },
        }
    }

    /// A time after which something is decided.
    fn moment(&mut self) -> Duration {
        let (ttl, epsilon) = (self.shape.ttl, self.up_to(EPSILON_MAX));
        match self.below("moment", 5) {
            0 => ttl / 3,
            1 => ttl.saturating_sub(epsilon),
            2 => ttl,
            3 => ttl + epsilon,
            _ => FAILOVER_MIN + self.up_to(FAILOVER_MAX - FAILOVER_MIN),
        }
    }

    fn span(&mut self) -> Duration {
        match self.below("span", 4) {
            0 => self.up_to(EPSILON_MAX),
            1 => self.up_to(3 * self.shape.ttl),
            _ => self.moment(),
        }
    }

    /// Mostly it comes back.
    fn down(&mut self) -> Option<Duration> {
        (!self.one_in("for good", 8)).then(|| self.span())
    }

    /// When the next fault strikes: soon after the last one, or at any time.
    fn strike_after(&mut self, last: Duration) -> Duration {
        let at = if self.one_in("related", 2) { last + self.moment() } else { self.up_to(self.shape.length) };
        at.min(self.shape.length)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const TTL: Duration = Duration::from_secs(6);

    fn shape() -> Shape {
        Shape::new(["a", "b"], TTL, 10 * TTL)
    }

    /// The name of a kind, as in a file.
    fn kind(fault: &Fault) -> String {
        let json = serde_json::to_string(fault).unwrap();
        json.split('"').nth(1).unwrap().to_owned()
    }

    fn kinds(schedule: &Schedule) -> BTreeSet<String> {
        schedule.faults().iter().map(|timed| kind(&timed.fault)).collect()
    }

    /// A seed has one schedule, which is within its shape and reads back from a file.
    #[test]
    fn a_seed_has_one_schedule() {
        for seed in 0..200 {
            let schedule = Schedule::generate(seed, &shape());
            assert_eq!(schedule, Schedule::generate(seed, &shape()));
            assert_eq!(Schedule::from_json(&schedule.to_json()), Ok(schedule.clone()));
            assert!((1..=12).contains(&schedule.faults().len()));
            assert!(schedule.faults().iter().all(|timed| timed.at <= 10 * TTL));
        }
        assert_ne!(Schedule::generate(1, &shape()), Schedule::generate(2, &shape()));
    }

    /// All kinds occur, each seed has a part of them only, and without nodes the broker alone is struck.
    #[test]
    fn each_seed_has_a_part_of_the_kinds() {
        let of_seed: Vec<_> = (0..500).map(|seed| kinds(&Schedule::generate(seed, &shape()))).collect();
        let all: BTreeSet<&String> = of_seed.iter().flatten().collect();
        // What goes wrong between two nodes is one of three.
        assert_eq!(all.len(), OF_NODES.len() + 2 + OF_BROKER.len());
        assert!(of_seed.iter().any(|kinds| kinds.len() == 1));
        assert!(of_seed.iter().any(|kinds| kinds.len() > 6));
        let unusual = (0..500).flat_map(|seed| kinds(&Schedule::generate(seed, &shape().with_unusual(true))));
        assert_eq!(unusual.collect::<BTreeSet<_>>().len(), all.len() + UNUSUAL.len());
        let nobody = Shape::new([""; 0], TTL, TTL);
        let broker: BTreeSet<_> =
            (0..500).flat_map(|seed| kinds(&Schedule::generate(seed, &nobody))).collect();
        assert_eq!(broker.len(), OF_BROKER.len());
    }

    /// Faults are those that were chosen, one of a sure kind is in every schedule, and nothing goes wrong where
    /// nothing may.
    #[test]
    fn a_shape_chooses_its_faults() {
        let suspended = |fault: &Fault| matches!(fault, Fault::Pause { suspended: true, .. });
        let crashes = shape().with_faults(|fault| matches!(fault, Fault::Crash { .. })).with_sure(suspended);
        for seed in 0..100 {
            let schedule = Schedule::generate(seed, &crashes);
            let faults: Vec<_> = schedule.faults().iter().map(|timed| &timed.fault).collect();
            assert_eq!(faults.iter().filter(|fault| suspended(fault)).count(), 1, "{schedule}");
            assert!(faults.iter().all(|fault| suspended(fault) || matches!(fault, Fault::Crash { .. })));
            assert!(faults.len() > 1, "{schedule}");
            assert_eq!(Schedule::generate(seed, &shape().with_faults_max(0)), Schedule::new());
            assert_eq!(Schedule::generate(seed, &shape().with_faults(|_| false)), Schedule::new());
        }
    }

    /// Operations are drawn out of the verbs for the nodes, and change nothing of what goes wrong.
    #[test]
    fn operations_are_drawn_beside_the_faults() {
        let busy = shape().with_operations(["serve", "stop"], 6);
        let mut counts = BTreeSet::new();
        for seed in 0..100 {
            let schedule = Schedule::generate(seed, &busy);
            assert_eq!(schedule.faults(), Schedule::generate(seed, &shape()).faults());
            counts.insert(schedule.operations().len());
            for operation in schedule.operations() {
                assert!(["serve", "stop"].contains(&&*operation.what) && operation.at <= 10 * TTL);
                assert!(["a", "b"].contains(&&*operation.node));
            }
        }
        assert_eq!(counts, (0..=6).collect());
    }

    /// Many times are close to where a lease is decided, on both sides of it.
    #[test]
    fn times_are_close_to_decisions() {
        let faults = (0..500).flat_map(|seed| Schedule::generate(seed, &shape()).faults().to_vec());
        let lasts: Vec<Duration> = faults
            .flat_map(|mut timed| timed.fault.times().into_iter().map(|time| *time).collect::<Vec<_>>())
            .collect();
        let share = |hit: &dyn Fn(Duration) -> bool| {
            lasts.iter().filter(|time| hit(**time)).count() * 100 / lasts.len()
        };
        assert!(share(&|time| time == TTL / 3) > 4);
        assert!(share(&|time| time == TTL) > 4);
        assert!(share(&|time| time < TTL && time + EPSILON_MAX >= TTL) > 4);
        assert!(share(&|time| time > TTL && time <= TTL + EPSILON_MAX) > 4);
        assert!(share(&|time| (FAILOVER_MIN..=FAILOVER_MAX).contains(&time)) > 4);
    }
}
