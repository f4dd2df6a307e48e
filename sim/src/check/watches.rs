use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use slipring_core::{Base, Batch, Change, Range, Revision, WatchFidelity};
use slipring_memory::store::StoreEvent;

use super::calm::Calm;
use super::ledger::{Commits, Ledger};
use super::{Findings, Terms};
use crate::history::{Event, History, Moment};

/// W1 to W7 and W10 to W15; most of them only where watches show every revision.
pub(super) fn check(history: &History, terms: &Terms, ledger: &Ledger<'_>, found: &mut Findings<'_>) {
    let whole = terms.profile.discovery.watch == WatchFidelity::EveryRevision;
    let mut watches = Watches {
        terms,
        ledger,
        whole,
        calm: Calm::default(),
        compacted: Revision(0),
        open: BTreeMap::new(),
        ended: BTreeMap::new(),
        given_up: BTreeMap::new(),
    };
    for (place, moment) in history.moments().iter().enumerate() {
        watches.calm.follow(moment);
        if let Err((watch, invariant, places, what)) = watches.step(place, moment) {
            watches.open.remove(&watch);
            watches.given_up.insert(watch, place);
            found.add(invariant, places, format!("watch {watch} {what}"));
        }
    }
    watches.end(history.moments(), found);
}

/// What is wrong with which watch: the invariant, the places that matter, and how.
type Broken = (u64, &'static str, Vec<usize>, String);

struct Watches<'a> {
    terms: &'a Terms,
    ledger: &'a Ledger<'a>,
    whole: bool,
    calm: Calm<'a>,
    compacted: Revision,
    open: BTreeMap<u64, Watching<'a>>,
    ended: BTreeMap<u64, usize>,
    /// What was found broken, and is not looked at any more.
    given_up: BTreeMap<u64, usize>,
}

/// A watch of one of the stores. What is under way when a store is replaced belongs to the one before, so all
/// of them count with which everything agrees that it has shown.
struct Watching<'a> {
    node: Arc<str>,
    range: &'a Range,
    stores: Vec<usize>,
    opened: usize,
    opened_at: Duration,
    resumed: bool,
    base: Revision,
    /// All up to here was shown.
    shown: Revision,
    /// The last revision that was shown with changes.
    last: Option<Revision>,
    /// What was committed in its range and not shown yet, since when.
    pending: VecDeque<(Revision, Duration)>,
}

impl<'a> Watches<'a> {
    fn step(&mut self, place: usize, moment: &'a Moment) -> Result<(), Broken> {
        match &moment.event {
            Event::Store { event: StoreEvent::Committed(batch), .. } => self.commit(place, batch, moment.at),
            Event::Store { event: StoreEvent::Compacted(revision), .. } => self.compacted = *revision,
            // Watches of the store before owe nothing any more.
            Event::Store { event: StoreEvent::Replaced { .. }, .. } => {
                self.compacted = Revision(0);
                self.open.values_mut().for_each(|watch| watch.pending.clear());
            }
            Event::WatchOpened { watch, range, base } => {
                return self.open(place, *watch, moment, range, base);
            }
            Event::WatchDelivered { watch, batch } => return self.deliver(place, moment.at, *watch, batch),
            Event::WatchEnded { watch, .. } | Event::WatchDropped { watch } => {
                let silent = self.silent(*watch, moment.at, place);
                self.open.remove(watch);
                self.ended.insert(*watch, place);
                return silent.map_or(Ok(()), Err);
            }
            Event::Died(_) => {
                let dead = self.open.iter().filter(|(_, watch)| watch.node == moment.node);
                let dead: Vec<u64> = dead.map(|(number, _)| *number).collect();
                for number in dead {
                    self.open.remove(&number);
                    self.given_up.insert(number, place);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn commit(&mut self, place: usize, batch: &Batch, at: Duration) {
        let current = self.ledger.current(place);
        for watch in self.open.values_mut() {
            let concerned = batch.changes.iter().any(|change| watch.range.contains(change.key()));
            if concerned && watch.stores.contains(&current) {
                watch.pending.push_back((batch.revision, at));
            }
        }
    }

    fn open(
        &mut self,
        place: usize,
        watch: u64,
        moment: &Moment,
        range: &'a Range,
        base: &'a Base,
    ) -> Result<(), Broken> {
        let (shown, entries) = match base {
            Base::Resumed(revision) => (*revision, None),
            Base::Snapshot(snapshot) => (snapshot.revision, Some(&snapshot.entries)),
        };
        let fits = |store: &Commits<'_>| {
            store.reaches(shown, place)
                && entries.is_none_or(|entries| store.at(shown, range).into_iter().eq(entries))
        };
        let stores = self.ledger.stores.iter().enumerate().filter(|(_, store)| fits(store));
        let stores: Vec<usize> = stores.map(|(number, _)| number).collect();
        if stores.is_empty() {
            let what = format!("begins at revision {shown} with what was never there");
            return Err((watch, "W13", vec![place], what));
        }
        let current = &self.ledger.stores[self.ledger.current(place)];
        let after = current
            .between(shown, current.head(place))
            .iter()
            .filter(|(_, batch)| batch.changes.iter().any(|change| range.contains(change.key())));
        let opened_at = moment.at;
        let watching = Watching {
            node: moment.node.clone(),
            range,
            stores,
            opened: place,
            opened_at,
            resumed: entries.is_none(),
            base: shown,
            shown,
            last: None,
            pending: after.map(|(_, batch)| (batch.revision, opened_at)).collect(),
        };
        self.open.insert(watch, watching);
        Ok(())
    }

    fn deliver(&mut self, place: usize, at: Duration, name: u64, batch: &Batch) -> Result<(), Broken> {
        if self.given_up.contains_key(&name) {
            return Ok(());
        }
        let Some(mut watch) = self.open.remove(&name) else {
            return Err(match self.ended.get(&name) {
                Some(ended) => (name, "W15", vec![*ended, place], "shows something after its end".to_owned()),
                None => (name, "W12", vec![place], "shows something, and was never open".to_owned()),
            });
        };
        let broken = |(invariant, what)| (name, invariant, vec![watch.opened, place], what);
        if !self.whole {
            self.open.insert(name, watch);
            return Ok(());
        }
        watch.goes_forward(batch).map_err(broken)?;
        watch.keeps_to_its_range(batch).map_err(broken)?;
        let mut first_broken = None;
        let resumed = watch.resumed && watch.last.is_none() && watch.shown == watch.base;
        let follows = Follows { range: watch.range, shown: watch.shown, resumed, compacted: self.compacted };
        let stores: Vec<usize> = watch
            .stores
            .iter()
            .copied()
            .filter(|store| {
                let allowed = follows.allows(&self.ledger.stores[*store], batch, place);
                first_broken = first_broken.take().or(allowed.clone().err());
                allowed.is_ok()
            })
            .collect();
        if let (true, Some(what)) = (stores.is_empty(), first_broken) {
            return Err(broken(what));
        }
        watch.stores = stores;
        watch.shown = batch.revision;
        watch.last = if batch.changes.is_empty() { watch.last } else { Some(batch.revision) };
        self.open.insert(name, watch);
        let silent = self.silent(name, at, place);
        if let Some(watch) = self.open.get_mut(&name) {
            while watch.pending.front().is_some_and(|(revision, _)| *revision <= batch.revision) {
                watch.pending.pop_front();
            }
        }
        silent.map_or(Ok(()), Err)
    }

    /// W14: has a watch kept something back for too long?
    fn silent(&self, name: u64, now: Duration, place: usize) -> Option<Broken> {
        let watch = self.open.get(&name).filter(|_| !self.terms.slow_readers)?;
        let current = self.ledger.current(place + 1);
        let (revision, since) = watch.pending.front().filter(|_| watch.stores.contains(&current))?;
        let calm = self.calm.since()?;
        let bound = self.terms.seen_within;
        (now > calm.max(*since).max(watch.opened_at) + bound).then(|| {
            let what = format!("has not shown revision {revision} {bound:?} after the last disturbance");
            (name, "W14", vec![watch.opened, place], what)
        })
    }

    /// W14 at the end of the history.
    fn end(mut self, moments: &[Moment], found: &mut Findings<'_>) {
        // What is counted then is the end of all nodes.
        let last = moments.iter().rposition(|moment| !matches!(moment.event, Event::Counted(_)));
        let Some(last) = last else { return };
        let names: Vec<u64> = self.open.keys().copied().collect();
        for name in names {
            if let Some((_, invariant, places, what)) = self.silent(name, moments[last].at, last) {
                self.open.remove(&name);
                found.add(invariant, places, format!("watch {name} {what}"));
            }
        }
    }
}

impl Watching<'_> {
    fn goes_forward(&self, batch: &Batch) -> Result<(), (&'static str, String)> {
        let (revision, shown) = (batch.revision, self.shown);
        let what = |before| format!("shows revision {revision} after {before}");
        if batch.changes.is_empty() {
            return if revision < shown { Err(("W6", what(shown))) } else { Ok(()) };
        }
        match self.last {
            Some(last) if revision == last => Err(("W2", what(last))),
            Some(last) if revision < last => Err(("W1", what(last))),
            _ if revision <= self.base => Err(("W10", what(self.base))),
            _ if revision <= shown => Err(("W1", what(shown))),
            _ => Ok(()),
        }
    }

    fn keeps_to_its_range(&self, batch: &Batch) -> Result<(), (&'static str, String)> {
        let beyond = batch.changes.iter().find(|change| !self.range.contains(change.key()));
        let what = |change: &Change| format!("shows {}, which is beyond its range", change.key());
        beyond.map_or(Ok(()), |change| Err(("W7", what(change))))
    }
}

/// What may come next.
struct Follows<'a> {
    range: &'a Range,
    shown: Revision,
    /// It went on after a revision, and this is the first that it shows.
    resumed: bool,
    compacted: Revision,
}

impl Follows<'_> {
    fn allows(&self, store: &Commits<'_>, next: &Batch, place: usize) -> Result<(), (&'static str, String)> {
        let revision = next.revision;
        if next.changes.is_empty() && !store.reaches(revision, place) {
            return Err(("W6", format!("has all up to revision {revision}, which was never there")));
        }
        let pending = store.between(self.shown, revision).iter().take_while(|(at, _)| *at < place);
        let mut pending = pending.map(|(_, batch)| (batch.revision, within(self.range, batch)));
        let committed = pending.find(|(_, changes)| !changes.is_empty());
        match committed {
            Some((left, _)) if left < revision || next.changes.is_empty() => {
                let invariant = match left {
                    left if left <= self.compacted => "W11",
                    _ if self.resumed => "W5",
                    _ if next.changes.is_empty() => "W6",
                    _ => "W3",
                };
                Err((invariant, format!("leaves out revision {left} and shows {revision}")))
            }
            Some((_, changes)) if changes.iter().copied().eq(&next.changes) => Ok(()),
            None if next.changes.is_empty() => Ok(()),
            _ => Err(("W4", format!("shows other changes at revision {revision} than were committed"))),
        }
    }
}

fn within<'b>(range: &Range, batch: &'b Batch) -> Vec<&'b Change> {
    batch.changes.iter().filter(|change| range.contains(change.key())).collect()
}
