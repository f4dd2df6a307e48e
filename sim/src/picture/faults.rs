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
