use std::collections::BTreeMap;

use slipring_core::{Fact, Key};

use super::Findings;
use super::ledger::Ledger;
use super::names::{bare, record_key};
use crate::history::{Event, History};

/// M13: is whom a call is sent to in the view that it was chosen from?
pub(super) fn check(history: &History, ledger: &Ledger<'_>, found: &mut Findings<'_>) {
    let chosen = |event: &Event| matches!(event, Event::Fact(Fact::RouteChosen { .. }));
    if !history.moments().iter().any(|moment| chosen(&moment.event)) {
        return;
    }
    // By name without their deployment, of which there may be several.
    let mut keys: BTreeMap<&str, Vec<&Key>> = BTreeMap::new();
    for key in ledger.keys() {
        if let Some(name) = bare(key.as_str()) {
            keys.entry(name).or_default().push(key);
        }
    }
    // A fleet has few instances, and calls are many.
    let mut names: BTreeMap<(&str, u64), String> = BTreeMap::new();
    for (place, moment) in history.moments().iter().enumerate() {
        let Event::Fact(Fact::RouteChosen { endpoint, instance, revision }) = &moment.event else { continue };
        let name = names.entry((endpoint, *instance)).or_insert_with(|| record_key(endpoint, *instance));
        let Some(keys) = keys.get(name.as_str()) else { continue };
        let mut reached = ledger.stores.iter().filter(|store| store.reaches(*revision, place)).peekable();
        if reached.peek().is_none() {
            continue;
        }
        let there = reached.any(|store| keys.iter().any(|key| store.entry(key, *revision).is_some()));
        if !there {
            let removed = ledger.stores.iter().flat_map(|store| store.removal(keys, *revision)).last();
            let places: Vec<usize> = removed.into_iter().chain([place]).collect();
            let what = format!("a call goes to {name}, which is not there at revision {revision}");
            found.add("M13", places, what);
        }
    }
}
