use std::collections::BTreeMap;
use std::time::Duration;

use slipring_core::{Range, ReadConsistency, Revision, Snapshot};

use super::ledger::{Commits, Ledger};
use super::{Findings, Terms};
use crate::history::{Event, History};

/// K1, K6, K7, K11, as far as reads show them.
pub(super) fn check(history: &History, terms: &Terms, ledger: &Ledger<'_>, found: &mut Findings<'_>) {
    let linearizable = terms.profile.discovery.read == ReadConsistency::Linearizable;
    let mut clients: BTreeMap<&str, Vec<Answer>> = BTreeMap::new();
    for (place, moment) in history.moments().iter().enumerate() {
        let Event::Read { sent, range, snapshot } = &moment.event else { continue };
        if let Some(what) = misshapen(range, snapshot) {
            found.add("K7", [place], what);
            continue;
        }
        let since = history.moments().partition_point(|moment| moment.at < *sent);
        let read = Read { range, snapshot, since, place };
        let shown = ledger.stores.iter().enumerate().filter(|(_, store)| read.fits(store));
        let shown: Vec<usize> = shown.map(|(number, _)| number).collect();
        let Some(store) = shown.last().copied() else {
            let what = format!("a read at revision {} shows what was not there", snapshot.revision);
            found.add("K6", [place], what);
            continue;
        };
        let oldest = |store: &usize| ledger.stores[*store].head(since);
        if linearizable && !shown.iter().any(|store| snapshot.revision >= oldest(store)) {
            let what = format!(
                "a read at revision {} was sent when {} was committed",
                snapshot.revision,
                oldest(&store)
            );
            found.add("K1", [since.saturating_sub(1), place], what);
            continue;
        }
        let answers = clients.entry(&moment.node).or_default();
        let before = answers.iter().rev().find(|answer| answer.at < *sent && answer.store == store);
        if let Some(before) = before.filter(|before| before.revision > snapshot.revision) {
            let what = format!("a read at revision {} follows one at {}", snapshot.revision, before.revision);
            found.add("K11", [before.place, place], what);
        }
        let newest = answers.last().filter(|last| last.store == store && last.revision > snapshot.revision);
        let (revision, place) = newest.map_or((snapshot.revision, place), |last| (last.revision, last.place));
        answers.push(Answer { at: moment.at, store, revision, place });
    }
}

/// The newest revision that a client was told until then.
struct Answer {
    at: Duration,
    store: usize,
    revision: Revision,
    place: usize,
}

struct Read<'a> {
    range: &'a Range,
    snapshot: &'a Snapshot,
    /// It was sent before this place.
    since: usize,
    place: usize,
}

impl Read<'_> {
    /// Was this in the store, while the read was under way?
    fn fits(&self, store: &Commits<'_>) -> bool {
        let revision = self.snapshot.revision;
        store.ends >= self.since
            && store.reaches(revision, self.place)
            && store.at(revision, self.range).into_iter().eq(&self.snapshot.entries)
    }
}

fn misshapen(range: &Range, snapshot: &Snapshot) -> Option<String> {
    let beyond = snapshot.entries.iter().find(|entry| !range.contains(&entry.key));
    if let Some(entry) = beyond {
        return Some(format!("a read shows {}, which is beyond its range", entry.key));
    }
    let mut pairs = snapshot.entries.windows(2);
    let wrong = pairs.find(|pair| pair[0].key >= pair[1].key)?;
    Some(format!("a read shows {} before {}", wrong[0].key, wrong[1].key))
}
