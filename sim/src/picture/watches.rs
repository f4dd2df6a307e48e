use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;
use slipring_core::{Base, Batch, Change, Range, Revision};
use slipring_memory::store::StoreEvent;

use super::lanes::{Lanes, Life};
use super::scene::{Tracks, micros};
use crate::history::{Event, Moment};

/// A watch: what it has shown, and whether the store has more for it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct WatchStrip {
    id: u64,
    lane: usize,
    track: usize,
    event: usize,
    range: String,
    steps: Vec<Step>,
    to: u64,
    /// The code of the error with which it ended, or `dropped`; none if it was there at the end.
    end: Option<&'static str>,
}

/// Time, the revision that was reached, and whether the store had committed more in the range by then.
type Step = (u64, u64, bool);

pub(super) fn of(moments: &[Moment], lanes: &Lanes, lives: &[Life], end: u64) -> Vec<WatchStrip> {
    let mut strips = Strips::default();
    for (event, moment) in moments.iter().enumerate() {
        let at = micros(moment.at);
        match &moment.event {
            Event::WatchOpened { watch, range, base } => {
                let (lane, to) = (lanes.number(&moment.node), death_of(&moment.node, lives, end));
                let (range, steps) = (range.clone(), Vec::new());
                let strip = WatchStrip {
                    id: *watch,
                    lane,
                    track: 0,
                    event,
                    range: shown(&range),
                    steps,
                    to,
                    end: None,
                };
                strips.open(at, strip, range, base);
            }
            Event::WatchDelivered { watch, batch } => strips.deliver(at, *watch, batch),
            Event::WatchEnded { watch, code } => strips.finish(at, *watch, code),
            Event::WatchDropped { watch } => strips.finish(at, *watch, "dropped"),
            Event::Store { event: StoreEvent::Committed(batch), .. } => strips.commit(at, batch),
            Event::Store { event: StoreEvent::Replaced { .. }, .. } => strips.begin_anew(),
            _ => {}
        }
    }
    strips.placed()
}

#[derive(Default)]
struct Strips<'a> {
    strips: Vec<WatchStrip>,
    open: BTreeMap<u64, Open>,
    /// What was committed of late: an answer that comes late opens a watch that lacks it.
    commits: VecDeque<&'a Batch>,
}

struct Open {
    strip: usize,
    range: Range,
    reached: Revision,
    pending: VecDeque<Revision>,
}

/// Commits that may happen while the answer to an open is under way; older ones are taken as seen.
const COMMITS_MAX: usize = 256;

impl<'a> Strips<'a> {
    fn open(&mut self, at: u64, mut strip: WatchStrip, range: Range, base: &Base) {
        let reached = match base {
            Base::Snapshot(snapshot) => snapshot.revision,
            Base::Resumed(revision) => *revision,
        };
        let missing = self.commits.iter().filter(|batch| batch.revision > reached && concerns(&range, batch));
        let pending: VecDeque<Revision> = missing.map(|batch| batch.revision).collect();
        strip.steps.push((at, reached.0, !pending.is_empty()));
        self.open.insert(strip.id, Open { strip: self.strips.len(), range, reached, pending });
        self.strips.push(strip);
    }

    fn deliver(&mut self, at: u64, watch: u64, batch: &Batch) {
        let Some(watch) = self.open.get_mut(&watch) else { return };
        watch.pending.retain(|revision| *revision > batch.revision);
        watch.reached = batch.revision;
        self.strips[watch.strip].steps.push((at, watch.reached.0, !watch.pending.is_empty()));
    }

    fn finish(&mut self, at: u64, watch: u64, code: &'static str) {
        if let Some(watch) = self.open.remove(&watch) {
            let strip = &mut self.strips[watch.strip];
            (strip.to, strip.end) = (at, Some(code));
        }
    }

    fn commit(&mut self, at: u64, batch: &'a Batch) {
        self.commits.push_back(batch);
        if self.commits.len() > COMMITS_MAX {
            self.commits.pop_front();
        }
        for watch in self.open.values_mut().filter(|watch| concerns(&watch.range, batch)) {
            if watch.pending.is_empty() {
                self.strips[watch.strip].steps.push((at, watch.reached.0, true));
            }
            watch.pending.push_back(batch.revision);
        }
    }

    /// The store counts anew: what was missing is not to be had any more.
    fn begin_anew(&mut self) {
        self.commits.clear();
        self.open.values_mut().for_each(|watch| watch.pending.clear());
    }

    fn placed(mut self) -> Vec<WatchStrip> {
        let mut tracks: BTreeMap<usize, Tracks> = BTreeMap::new();
        for strip in &mut self.strips {
            strip.steps.retain(|(at, ..)| *at <= strip.to);
            let from = strip.steps.first().map_or(0, |(at, ..)| *at);
            strip.track = tracks.entry(strip.lane).or_default().place(from, strip.to);
        }
        self.strips
    }
}

fn concerns(range: &Range, batch: &Batch) -> bool {
    batch.changes.iter().map(Change::key).any(|key| range.contains(key))
}

/// When the life ends that has opened a watch.
fn death_of(node: &str, lives: &[Life], end: u64) -> u64 {
    lives.iter().find(|life| life.name == node).map_or(end, |life| life.to)
}

fn shown(range: &Range) -> String {
    match range {
        Range::All => "all".to_owned(),
        Range::Key(key) => key.to_string(),
        Range::Prefix(prefix) => format!("{}*", prefix.as_str()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may")]
mod tests {
    use std::time::Duration;

    use slipring_core::{Entry, Key, Prefix};

    use super::*;
    use crate::history::History;

    fn batch(revision: u64, key: &str) -> Batch {
        let (key, modified) = (Key::new(key).unwrap(), Revision(revision));
        let entry = Entry { key, value: "".into(), modified, lease: None };
        Batch { revision: modified, changes: vec![Change::Put(entry)] }
    }

    /// A strip has each revision that its watch reached, and is behind while the store has more in its range,
    /// also if that was committed while the answer that opened it was under way.
    #[test]
    fn a_strip_is_behind_while_there_is_more() {
        let commit = |batch| Event::Store { clock: Duration::ZERO, event: StoreEvent::Committed(batch) };
        let (range, base) = (Range::Prefix(Prefix::new("a/").unwrap()), Base::Resumed(Revision(1)));
        let events = [
            commit(batch(2, "a/1")),
            Event::WatchOpened { watch: 1, range, base },
            Event::WatchDelivered { watch: 1, batch: batch(2, "a/1") },
            commit(batch(3, "b/1")),
            commit(batch(4, "a/2")),
            commit(batch(5, "a/2")),
            Event::WatchDelivered { watch: 1, batch: batch(4, "a/2") },
            Event::WatchDelivered { watch: 1, batch: batch(5, "a/2") },
            Event::WatchEnded { watch: 1, code: "unavailable" },
        ];
        let moment = |(second, event)| Moment { at: Duration::from_secs(second), node: "n".into(), event };
        let history = History::new((0..).zip(events).map(moment).collect());
        let strips = of(history.moments(), &Lanes::of(&history), &[], 20_000_000);
        let steps: Vec<_> =
            strips[0].steps.iter().map(|(at, r, behind)| (at / 1_000_000, *r, *behind)).collect();
        assert_eq!(steps, [(1, 1, true), (2, 2, false), (4, 2, true), (6, 4, true), (7, 5, false)]);
        assert_eq!((strips[0].to, strips[0].end), (8_000_000, Some("unavailable")));
        assert_eq!((strips[0].range.as_str(), strips[0].lane), ("a/*", 1));
    }
}
