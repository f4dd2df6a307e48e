use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use slipring_core::{Base, Fact, Range, Revision, Told};
use slipring_memory::store::StoreEvent;

use super::Met;
use crate::fault::Fault;
use crate::history::{Event, History, Moment};

/// After so much silence nobody waits by chance.
const SILENCE: Duration = Duration::from_secs(10);

pub(super) fn look(history: &History, met: &mut Met) {
    let mut watches = Watches::default();
    for moment in history.moments() {
        watches.step(moment, met);
    }
}

#[derive(Default)]
struct Watches {
    /// The open watches: when they said something last, and of what they are.
    open: BTreeMap<u64, (Duration, Option<Name>)>,
    restarted: bool,
    head: Revision,
    /// Shared watches that had a watch of the store, and whether they have one now.
    upstream: BTreeMap<Name, bool>,
    /// Those that just began with a snapshot again, and when.
    relisted: BTreeMap<Name, Duration>,
    readers: BTreeSet<(Name, u64)>,
    gone: BTreeSet<(Name, u64)>,
}

/// A node, and a prefix of keys.
type Name = (Arc<str>, String);

impl Watches {
    fn step(&mut self, moment: &Moment, met: &mut Met) {
        let Moment { at, node, event } = moment;
        match event {
            Event::Struck(Fault::RestartStore { .. } | Fault::LeaderChange { .. }) => self.restarted = true,
            Event::Store { event: StoreEvent::Committed(batch), .. } => self.head = batch.revision,
            Event::Store { event: StoreEvent::Replaced { content, .. }, .. } => {
                met.add_if(content.revision < self.head, "store_revisions_went_back");
                self.head = content.revision;
            }
            Event::WatchOpened { watch, range, base } => {
                let name = match range {
                    Range::Prefix(prefix) => Some((node.clone(), prefix.as_str().to_owned())),
                    _ => None,
                };
                let resumed = matches!(base, Base::Resumed(_));
                met.add_if(resumed, "watch_resumed");
                met.add_if(resumed && self.restarted, "watch_resumed_across_restart");
                if let Some(name) = &name {
                    let again = self.upstream.insert(name.clone(), true).is_some();
                    if again && !resumed {
                        self.relisted.insert(name.clone(), *at);
                    }
                }
                self.open.insert(*watch, (*at, name));
            }
            Event::WatchRefused { code, .. } => met.add_if(*code == "compacted", "resume_met_compaction"),
            Event::WatchDelivered { watch, .. } => {
                if let Some((heard, _)) = self.open.get_mut(watch) {
                    *heard = *at;
                }
            }
            Event::WatchEnded { watch, code } => {
                met.add("watch_broke");
                met.add_if(*code == "compacted", "slow_watch_met_compaction");
                self.close(*watch);
            }
            Event::WatchDropped { watch } => {
                let silent = self.open.get(watch).is_some_and(|(heard, _)| *at >= *heard + SILENCE);
                met.add_if(silent, "silent_watch_given_up");
                self.close(*watch);
            }
            Event::Fact(fact) => self.fact(*at, node, fact, met),
            _ => {}
        }
    }

    fn close(&mut self, watch: u64) {
        if let Some((_, Some(name))) = self.open.remove(&watch) {
            self.upstream.insert(name, false);
        }
    }

    fn fact(&mut self, at: Duration, node: &Arc<str>, fact: &Fact, met: &mut Met) {
        match fact {
            Fact::ViewChanged { prefix, changes, .. } => {
                let name = (node.clone(), prefix.clone());
                met.add_if(self.relisted.get(&name) == Some(&at), "relist_found_changes");
                for (instance, modified) in changes {
                    let one = (name.clone(), *instance);
                    if modified.is_none() {
                        self.gone.insert(one);
                    } else {
                        met.add_if(self.gone.remove(&one), "instance_came_back");
                    }
                }
            }
            Fact::ViewRead { prefix, reader, told: Told::All(_) } => {
                let name = (node.clone(), prefix.clone());
                let broken = self.upstream.get(&name) == Some(&false);
                let first = self.readers.insert((name, *reader));
                met.add_if(first && broken, "joined_during_resync");
                met.add_if(!first, "reader_given_all_anew");
            }
            Fact::WatcherStarted { prefix } => {
                self.upstream.remove(&(node.clone(), prefix.clone()));
                self.readers.retain(|((owner, of), _)| owner != node || of != prefix);
            }
            _ => {}
        }
    }
}
