use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Met;
use crate::fault::Fault;
use crate::history::{Event, History};

/// Two elections this close have to do with each other.
const STORM: Duration = Duration::from_secs(10);

pub(super) fn look(history: &History, met: &mut Met) {
    let mut open: Vec<&Fault> = Vec::new();
    let mut paused: BTreeSet<Arc<str>> = BTreeSet::new();
    let mut elected: Option<Duration> = None;
    for moment in history.moments() {
        match &moment.event {
            Event::Struck(fault) => {
                met.add_if(!open.is_empty(), "faults_overlapped");
                if let Fault::LeaderChange { .. } = fault {
                    let soon = elected.replace(moment.at).is_some_and(|before| moment.at <= before + STORM);
                    met.add_if(soon, "leader_changed_twice");
                }
                met.add_if(
                    matches!(fault, Fault::WallClock { ahead_ms, .. } if *ahead_ms < 0),
                    "clock_went_back",
                );
                met.add_if(matches!(fault, Fault::Pause { suspended: true, .. }), "machine_suspended");
                let stands_still = fault.node().is_some_and(|node| paused.contains(node));
                met.add_if(cuts_off(fault) && stands_still, "cut_off_while_paused");
                let dies = matches!(fault, Fault::Crash { .. } | Fault::PowerLoss { .. });
                if !dies && !fault.clone().times().is_empty() {
                    open.push(fault);
                }
            }
            Event::Healed(fault) => {
                if let Some(ended) = open.iter().position(|open| *open == fault) {
                    open.swap_remove(ended);
                }
            }
            Event::Paused => drop(paused.insert(moment.node.clone())),
            Event::Resumed => drop(paused.remove(&moment.node)),
            Event::Died(_) => {
                let place = moment.node.split_once('#').map_or(&*moment.node, |(place, _)| place);
                let cut = open.iter().any(|fault| cuts_off(fault) && fault.node() == Some(place));
                met.add_if(cut, "died_while_cut_off");
            }
            _ => {}
        }
    }
}

fn cuts_off(fault: &Fault) -> bool {
    matches!(fault, Fault::Cut { .. } | Fault::Partition { .. })
}
