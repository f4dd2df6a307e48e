use std::time::Duration;

use crate::fault::{Direction, Fault};
use crate::latency::Latency;
use crate::random::Streams;
use crate::schedule::Schedule;

/// What a schedule is drawn for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shape {
    /// The nodes that may be struck; without any only the broker is.
    pub nodes: Vec<String>,
    /// The time to live of the leases, around which faults matter most.
    pub ttl: Duration,
    /// The time within which faults strike.
    pub length: Duration,
    /// How many faults there are at most, at least 1.
    pub faults_max: usize,
}

impl Shape {
    /// Faults for these nodes within this time; up to 12 of them.
    pub fn new(nodes: impl IntoIterator<Item = impl Into<String>>, ttl: Duration, length: Duration) -> Self {
        Self { nodes: nodes.into_iter().map(Into::into).collect(), ttl, length, faults_max: 12 }
    }

    /// With this many faults at most, at least 1.
    #[must_use]
    pub fn with_faults_max(mut self, faults: usize) -> Self {
        self.faults_max = faults.max(1);
        self
    }
}

impl Schedule {
    /// The schedule of a seed. Each seed takes a random part of the kinds of faults only (a swarm: rare kinds
    /// are not drowned by frequent ones), and its times are close to those at which something is decided:
    /// a third of the time to live, just before and after its end, and the time of a failover.
    pub fn generate(seed: u64, shape: &Shape) -> Self {
        let mut dice = Dice { streams: Streams::new(seed, "schedule"), shape };
        let mut kinds: Vec<Kind> = if shape.nodes.is_empty() { Vec::new() } else { OF_NODES.to_vec() };
        kinds.extend(OF_BROKER);
        let sure = dice.below("kind", kinds.len());
        let mut number = 0;
        kinds.retain(|_| {
            number += 1;
            number == sure + 1 || dice.one_in("swarm", 3)
        });
        let faults = 1 + dice.below("faults", shape.faults_max);
        let (mut schedule, mut last) = (Self::new(), Duration::ZERO);
        for _ in 0..faults {
            last = dice.strike_after(last);
            let kind = kinds[dice.below("kind", kinds.len())];
            schedule = schedule.with(last, kind(&mut dice));
        }
        schedule
    }
}

/// Draws a fault of its kind.
type Kind = fn(&mut Dice<'_>) -> Fault;

const OF_NODES: [Kind; 11] = [
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
];

const OF_BROKER: [Kind; 9] = [
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

/// How long etcd was measured to be without a leader.
const FAILOVER_MIN: Duration = Duration::from_millis(1_000);
const FAILOVER_MAX: Duration = Duration::from_millis(1_900);

/// How close to a decision "just before" and "just after" are.
const EPSILON_MAX: Duration = Duration::from_millis(100);

struct Dice<'a> {
    streams: Streams,
    shape: &'a Shape,
}

impl Dice<'_> {
    fn below(&mut self, label: &'static str, end: usize) -> usize {
        usize::try_from(self.streams.next(label) % end.max(1) as u64).expect("it is below a usize")
    }

    fn one_in(&mut self, label: &'static str, cases: usize) -> bool {
        self.below(label, cases) == 0
    }

    fn up_to(&mut self, max: Duration) -> Duration {
        let millis = u64::try_from(max.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        Duration::from_millis(self.streams.next("duration") % millis)
    }

    fn node(&mut self) -> String {
        let number = self.below("node", self.shape.nodes.len());
        self.shape.nodes[number].clone()
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
        assert_eq!(all.len(), OF_NODES.len() + OF_BROKER.len());
        assert!(of_seed.iter().any(|kinds| kinds.len() == 1));
        assert!(of_seed.iter().any(|kinds| kinds.len() > 6));
        let nobody = Shape::new([""; 0], TTL, TTL);
        let broker: BTreeSet<_> =
            (0..500).flat_map(|seed| kinds(&Schedule::generate(seed, &nobody))).collect();
        assert_eq!(broker.len(), OF_BROKER.len());
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
