use std::collections::BTreeMap;

use serde::Serialize;

use super::lanes::Lanes;
use super::scene::{Tracks, micros};
use crate::Fault;
use crate::history::{Event, Moment};

/// A fault, from when it struck until it healed; at once if it does not last.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Band {
    lane: usize,
    track: usize,
    event: usize,
    from: u64,
    to: u64,
    text: String,
}

pub(super) fn of(moments: &[Moment], lanes: &Lanes, end: u64) -> Vec<Band> {
    let mut bands: Vec<(Band, &Fault)> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    for (event, moment) in moments.iter().enumerate() {
        let at = micros(moment.at);
        match &moment.event {
            Event::Struck(fault) => {
                let lane = fault.node().map_or(lanes.broker(), |node| lanes.number(node));
                open.push(bands.len());
                let band = Band { lane, track: 0, event, from: at, to: at, text: fault.to_string() };
                bands.push((band, fault));
            }
            Event::Healed(fault) => {
                if let Some(place) = open.iter().position(|band| bands[*band].1 == fault) {
                    bands[open.remove(place)].0.to = at;
                }
            }
            _ => {}
        }
    }
    for band in open {
        let (band, fault) = &mut bands[band];
        if outlasts_the_run(fault) {
            band.to = end;
        }
    }
    let mut tracks: BTreeMap<usize, Tracks> = BTreeMap::new();
    let place = |(band, _): (Band, &Fault)| {
        let track = tracks.entry(band.lane).or_default().place(band.from, band.to);
        Band { track, ..band }
    };
    bands.into_iter().map(place).collect()
}

/// Of a fault that did not heal: does it last? How long a node is dead its lane shows.
fn outlasts_the_run(fault: &Fault) -> bool {
    let dies = matches!(fault, Fault::Crash { .. } | Fault::PowerLoss { .. });
    !dies && !fault.clone().times().is_empty()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Direction;
    use crate::history::History;

    /// A band ends where its fault healed, the first with the first; what did not heal lasts to the end, if it
    /// lasts; and what overlaps has a track of its own.
    #[test]
    fn a_band_lasts_as_long_as_its_fault() {
        let lasts = Duration::from_secs(5);
        let cut = Fault::Partition { node: "a".to_owned(), lost: Direction::Both, lasts };
        let events = [
            (1, Event::Struck(cut.clone())),
            (2, Event::Struck(cut.clone())),
            (3, Event::Struck(Fault::Compact)),
            (6, Event::Healed(cut)),
            (8, Event::Struck(Fault::Crash { node: "a".to_owned(), down: Some(lasts) })),
        ];
        let moment =
            |(second, event)| Moment { at: Duration::from_secs(second), node: "broker".into(), event };
        let history = History::new(events.map(moment).into());
        let bands = of(history.moments(), &Lanes::of(&history), 9_000_000);
        let shown: Vec<_> =
            bands.iter().map(|b| (b.lane, b.track, b.from / 1_000_000, b.to / 1_000_000)).collect();
        assert_eq!(shown, [(1, 0, 1, 6), (1, 1, 2, 9), (0, 0, 3, 3), (1, 0, 8, 8)]);
    }
}
