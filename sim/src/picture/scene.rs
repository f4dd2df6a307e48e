use std::time::Duration;

use serde::Serialize;

use super::faults::{self, Band};
use super::flows::{self, Flow};
use super::lanes::{Lane, Lanes, Life};
use super::leases::{self, LeaseBar};
use super::watches::{self, WatchStrip};
use super::{Picture, lanes};
use crate::check::Violation;
use crate::history::{History, Moment};

/// What the page draws, as data. Times are microseconds of virtual time; events are named by their index in
/// the history, lanes by theirs.
#[derive(Debug, Serialize)]
pub(super) struct Scene {
    /// Where the last column of a line of the trace begins.
    rest_from: usize,
    end: u64,
    reproduction: Option<String>,
    lanes: Vec<Lane>,
    lives: Vec<Life>,
    kinds: Vec<&'static str>,
    /// Time, lane and kind of each.
    events: Vec<(u64, usize, usize)>,
    /// All of each event.
    details: Vec<String>,
    flows: Vec<Flow>,
    leases: Vec<LeaseBar>,
    watches: Vec<WatchStrip>,
    faults: Vec<Band>,
    violations: Vec<Mark>,
}

/// A violation, and the events that matter for it.
#[derive(Debug, Serialize)]
struct Mark {
    at: u64,
    invariant: &'static str,
    promise: &'static str,
    what: String,
    events: Vec<usize>,
}

impl Scene {
    pub(super) fn of(picture: &Picture<'_>) -> Self {
        let Picture { history, violations, reproduction, .. } = picture;
        let moments = history.moments();
        let lanes = Lanes::of(history);
        let (kinds, events) = events(moments, &lanes);
        let ends = moments.iter().map(|moment| moment.at).chain(violations.iter().map(|v| v.at));
        let end = micros(ends.max().unwrap_or_default());
        let lives = lanes::lives(moments, &lanes, end);
        let mark = |violation: &Violation| Mark {
            at: micros(violation.at),
            invariant: violation.invariant,
            promise: violation.promise(),
            what: violation.what.clone(),
            events: events_of(violation, history),
        };
        Self {
            rest_from: crate::history::REST_FROM,
            end,
            reproduction: reproduction.clone(),
            details: moments.iter().map(|moment| format!("{:#?}", moment.event)).collect(),
            flows: flows::of(moments, &lanes),
            leases: leases::of(moments, &lanes, end),
            watches: watches::of(moments, &lanes, &lives, end),
            faults: faults::of(moments, &lanes, end),
            violations: violations.iter().map(mark).collect(),
            lanes: lanes.into_vec(),
            lives,
            kinds,
            events,
        }
    }
}

fn events(moments: &[Moment], lanes: &Lanes) -> (Vec<&'static str>, Vec<(u64, usize, usize)>) {
    let mut kinds = Vec::new();
    let events = moments.iter().map(|moment| {
        let kind = moment.event.kind();
        let number = kinds.iter().position(|known| *known == kind).unwrap_or_else(|| {
            kinds.push(kind);
            kinds.len() - 1
        });
        (micros(moment.at), lanes.number(&moment.node), number)
    });
    let events = events.collect();
    (kinds, events)
}

/// What the judge named; or else what happened last until then.
fn events_of(violation: &Violation, history: &History) -> Vec<usize> {
    let known = violation.moments.iter().copied().filter(|event| *event < history.moments().len());
    let known: Vec<usize> = known.collect();
    if !known.is_empty() {
        return known;
    }
    let until = history.moments().partition_point(|moment| moment.at <= violation.at);
    until.checked_sub(1).into_iter().collect()
}

/// Virtual time as the page counts it.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Gives each span, in the order of their beginnings, the first track that is free by then, so that none hides
/// another. There are [`TRACKS_MAX`]; what needs more shares the last.
#[derive(Debug, Default)]
pub(super) struct Tracks(Vec<u64>);

/// Tracks of a kind in a lane, so that a lane stays low.
const TRACKS_MAX: usize = 8;

impl Tracks {
    pub(super) fn place(&mut self, from: u64, to: u64) -> usize {
        let free = self.0.iter().position(|end| *end < from);
        let track = free.unwrap_or(self.0.len()).min(TRACKS_MAX - 1);
        match self.0.get_mut(track) {
            Some(end) => *end = to.max(*end),
            None => self.0.push(to),
        }
        track
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spans that overlap have tracks of their own, a track is used again, and beyond the last they share it.
    #[test]
    fn tracks_hide_nothing() {
        let mut tracks = Tracks::default();
        assert_eq!([(0, 5), (1, 2), (3, 9), (6, 7)].map(|(from, to)| tracks.place(from, to)), [0, 1, 1, 0]);
        let mut crowd = Tracks::default();
        let places: Vec<usize> = (0..10).map(|from| crowd.place(from, 100)).collect();
        assert_eq!(places, [0, 1, 2, 3, 4, 5, 6, 7, 7, 7]);
    }
}
