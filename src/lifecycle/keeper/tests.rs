use proptest::prelude::*;

use super::*;

const TTL: Duration = Duration::from_secs(12);
const SECOND: Duration = Duration::from_secs(1);
const WALL: SystemTime = SystemTime::UNIX_EPOCH;

fn keeper(now: Instant) -> Keeper {
    Keeper::new(LeaseId(7), TTL, now, WALL)
}

/// Obeys the keeper until it says that the lease is lost, with this fate for every beat, and returns when
/// beats were sent, in seconds from the start.
fn beats_until_lost(fate: impl Fn(&mut Keeper, Instant, Beat) -> Duration) -> Vec<f64> {
    let start = Instant::now();
    let (mut keeper, mut now, mut beats) = (keeper(start), start, Vec::new());
    loop {
        match keeper.poll(now) {
            Step::Beat { timeout } => {
                assert!(timeout > Duration::ZERO && timeout <= TTL / 6);
                beats.push((now - start).as_secs_f64());
                assert!(beats.len() < 100, "a hot loop");
                let beat = keeper.handle_sent(now);
                let answered = now + fate(&mut keeper, now, beat).min(timeout);
                keeper.handle_failure(answered, beat);
                now = answered;
            }
            Step::Wait(until) => {
                assert!(until > now, "a wait that does not wait is a hot loop");
                now = until;
            }
            Step::Lost => return beats,
        }
    }
}

/// Beats come every third of the TTL, and two retries fit before the deadline even if every beat times out.
#[test]
fn l11_two_retries_fit_before_expiry() {
    let beats = beats_until_lost(|_, _, _| Duration::MAX);
    assert_eq!(beats, [4.0, 7.0, 10.0]);
}

/// Beats that fail at once neither speed up nor outlive the lease.
#[test]
fn d03_failing_beats_do_not_become_a_hot_loop() {
    let beats = beats_until_lost(|_, _, _| Duration::ZERO);
    assert_eq!(beats, [4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
}

/// The deadline counts from the sending of the last acknowledged beat, however late its answer comes.
#[test]
fn l10_the_deadline_counts_from_the_sending() {
    let start = Instant::now();
    let mut keeper = keeper(start);
    assert_eq!(keeper.deadline(), start + TTL * 19 / 20);
    let beat = keeper.handle_sent(start + 4 * SECOND);
    keeper.handle_ack(start + 6 * SECOND, beat, TTL);
    assert_eq!(keeper.deadline(), start + 4 * SECOND + TTL * 19 / 20);
    assert!(matches!(keeper.poll(start + 8 * SECOND), Step::Beat { .. }));
    assert!(keeper.alive(keeper.deadline() - Duration::from_nanos(1)));
    assert!(!keeper.alive(keeper.deadline()));
}

/// The answered TTL is what holds, also when it differs from the granted one.
#[test]
fn the_answered_ttl_holds() {
    let start = Instant::now();
    let mut keeper = keeper(start);
    let beat = keeper.handle_sent(start + SECOND);
    keeper.handle_ack(start + SECOND, beat, TTL * 10);
    assert_eq!(keeper.deadline(), start + SECOND + TTL * 10 * 19 / 20);
}

/// Nothing revives a lease past its deadline, nor one that the store denied.
#[test]
fn l10_a_late_ack_revives_nothing() {
    let start = Instant::now();
    let mut expired = keeper(start);
    let (beat, deadline) = (expired.handle_sent(start + SECOND), expired.deadline());
    expired.handle_ack(deadline, beat, TTL);
    assert_eq!(expired.deadline(), deadline);
    assert_eq!(expired.poll(start + TTL), Step::Lost);
    assert!(!expired.alive(start + 2 * SECOND), "not even for a reader whose clock is behind");

    let mut denied = keeper(start);
    let beat = denied.handle_sent(start + SECOND);
    denied.handle_lost();
    denied.handle_ack(start + SECOND, beat, TTL);
    assert_eq!(denied.poll(start + SECOND), Step::Lost);
    assert!(!denied.alive(start + SECOND));
}

/// After a suspension the keeper beats at once and believes only a beat that was sent afterwards.
#[test]
fn f41_a_suspended_machine_beats_before_it_believes() {
    let start = Instant::now();
    let mut keeper = keeper(start);
    let before = keeper.handle_sent(start + SECOND);
    keeper.handle_wall(start + SECOND, WALL + SECOND + TTL);
    assert!(!keeper.alive(start + SECOND));
    assert!(matches!(keeper.poll(start + SECOND), Step::Beat { .. }));
    let after = keeper.handle_sent(start + SECOND);
    keeper.handle_ack(start + SECOND, before, TTL);
    assert!(!keeper.alive(start + SECOND), "that beat may have been answered before the machine slept");
    keeper.handle_ack(start + 2 * SECOND, after, TTL);
    assert!(keeper.alive(start + 2 * SECOND));
    assert!(matches!(keeper.poll(start + 2 * SECOND), Step::Wait(_)));
}

/// A clock that is set back, or drifts by less than the margin, raises no doubt.
#[test]
fn small_or_backward_jumps_of_wall_time_mean_nothing() {
    let start = Instant::now();
    let mut keeper = keeper(start);
    keeper.handle_wall(start + SECOND, WALL);
    keeper.handle_wall(start + 2 * SECOND, WALL + SECOND + TTL / 20);
    assert!(keeper.alive(start + 2 * SECOND));
    keeper.handle_wall(start + 3 * SECOND, WALL + 3 * SECOND + TTL / 20);
    assert!(!keeper.alive(start + 3 * SECOND), "but drifts add up until a beat is acknowledged");
}

/// The longest TTL there can be overflows nothing.
#[test]
fn an_endless_ttl_is_bounded() {
    let start = Instant::now();
    let keeper = Keeper::new(LeaseId(1), Duration::MAX, start, WALL);
    assert!(keeper.alive(start + TTL));
    assert!(matches!(keeper.poll(start), Step::Wait(_)));
}

#[derive(Debug, Clone)]
enum Operation {
    /// Time passes.
    Pass(u64),
    /// The machine sleeps: only wall time passes.
    Sleep(u64),
    /// Wall time is set back.
    SetBack(u64),
    /// What the keeper asks for is done; the beat reaches the store or not.
    Obey { arrives: bool },
    /// An answer that is under way arrives (and stays under way, to arrive again).
    Answer(prop::sample::Index),
    /// The same, but as a failure.
    Fail(prop::sample::Index),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (0..2_500_u64).prop_map(Operation::Pass),
        1 => prop_oneof![0..400_u64, 0..20_000_u64].prop_map(Operation::Sleep),
        1 => (0..20_000_u64).prop_map(Operation::SetBack),
        8 => prop::bool::weighted(0.8).prop_map(|arrives| Operation::Obey { arrives }),
        4 => any::<prop::sample::Index>().prop_map(Operation::Answer),
        2 => any::<prop::sample::Index>().prop_map(Operation::Fail),
    ]
}

/// A store with one lease, and the true time that passes for it also while the machine sleeps.
struct World {
    keeper: Keeper,
    now: Instant,
    wall: SystemTime,
    slept: Duration,
    ends: Instant,
    /// The beats sent: what the keeper knows, and whether the store renewed the lease.
    beats: Vec<(Beat, bool)>,
    acked: Option<usize>,
    /// When the last beat was sent, unless the machine slept since.
    last: Option<Instant>,
    lost: bool,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let (beats, ends) = (Vec::new(), now + TTL);
        let (keeper, slept) = (keeper(now), Duration::ZERO);
        Self { keeper, now, wall: WALL, slept, ends, beats, acked: None, last: None, lost: false }
    }

    fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Pass(millis) => {
                self.now += Duration::from_millis(*millis);
                self.wall += Duration::from_millis(*millis);
            }
            Operation::Sleep(millis) => {
                self.slept += Duration::from_millis(*millis);
                self.wall += Duration::from_millis(*millis);
                self.last = None;
            }
            Operation::SetBack(millis) => {
                // Seen before more time passes: what a single look cannot tell apart is not asked for.
                self.look();
                self.wall = self.wall.checked_sub(Duration::from_millis(*millis)).unwrap_or(self.wall);
            }
            Operation::Obey { arrives } => self.obey(*arrives),
            Operation::Answer(index) => {
                if let Some(at) = self.pick(index)
                    && self.beats[at].1
                {
                    self.keeper.handle_ack(self.now, self.beats[at].0, TTL);
                    self.acked = self.acked.max(Some(at));
                }
            }
            Operation::Fail(index) => {
                if let Some(at) = self.pick(index) {
                    self.keeper.handle_failure(self.now, self.beats[at].0);
                }
            }
        }
    }

    fn pick(&self, index: &prop::sample::Index) -> Option<usize> {
        // Late answers are as likely as fresh ones, but none is older than a few beats.
        let from = self.beats.len().saturating_sub(4);
        (from < self.beats.len()).then(|| from + index.index(self.beats.len() - from))
    }

    fn look(&mut self) {
        self.keeper.handle_wall(self.now, self.wall);
    }

    fn obey(&mut self, arrives: bool) {
        self.look();
        if !matches!(self.keeper.poll(self.now), Step::Beat { .. }) {
            return;
        }
        if let Some(last) = self.last {
            assert!(self.now - last >= TTL / 12, "beats follow each other too closely");
        }
        self.last = Some(self.now);
        let true_now = self.now + self.slept;
        let renewed = arrives && true_now < self.ends;
        if renewed {
            self.ends = true_now + TTL;
        }
        self.beats.push((self.keeper.handle_sent(self.now), renewed));
    }

    fn check(&mut self) {
        self.look();
        let (step, alive) = (self.keeper.poll(self.now), self.keeper.alive(self.now));
        assert!(!alive || self.now + self.slept < self.ends, "alive, though the store let the lease go");
        assert!(!alive || self.now < self.keeper.deadline(), "alive past its own deadline");
        assert!(!self.lost || step == Step::Lost, "a lost lease came back");
        self.lost = step == Step::Lost;
        assert!(!self.lost || !alive);
        match step {
            Step::Wait(until) => {
                assert!(until > self.now && until <= self.now + TTL / 12);
                let acked_last = self.acked.is_some_and(|at| at + 1 == self.beats.len());
                if acked_last || self.beats.is_empty() {
                    assert!(until <= self.keeper.deadline() - TTL * 19 / 20 + TTL / 3, "a beat is late");
                }
            }
            Step::Beat { timeout } => assert!(self.now + timeout <= self.keeper.deadline()),
            Step::Lost => {}
        }
    }
}

proptest! {
    /// Whatever is lost, late, doubled or slept through: the keeper never believes longer than the store, a
    /// lost lease stays lost, beats are never late and never a hot loop.
    #[test]
    fn l10_never_alive_without_a_lease(operations in prop::collection::vec(operation(), 1..200)) {
        let mut world = World::new();
        for operation in &operations {
            world.apply(operation);
            world.check();
        }
    }
}
