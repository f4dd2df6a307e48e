#[cfg(feature = "turmoil")]
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::pace::Paced;

/// The tasks of one life of a node. Dropped, they are aborted.
pub(super) struct Tasks {
    running: JoinSet<()>,
    place: Place,
}

/// Where they run.
enum Place {
    /// On the runtime that they are started on: there is one only.
    Here,
    /// On a host of its own, which is not there yet.
    #[cfg(feature = "turmoil")]
    Expected(Vec<Paced>),
    /// On this host, wherever they are started.
    #[cfg(feature = "turmoil")]
    Host(Handle),
}

impl Tasks {
    pub(super) fn here() -> Self {
        Self { running: JoinSet::new(), place: Place::Here }
    }

    pub(super) fn spawn(&mut self, task: Paced) {
        while self.running.try_join_next().is_some() {}
        match &mut self.place {
            Place::Here => drop(self.running.spawn(task)),
            #[cfg(feature = "turmoil")]
            Place::Expected(waiting) => waiting.push(task),
            #[cfg(feature = "turmoil")]
            Place::Host(host) => drop(self.running.spawn_on(task, host)),
        }
    }

    /// Those that are not over.
    pub(super) fn count(&mut self) -> usize {
        while self.running.try_join_next().is_some() {}
        match &self.place {
            #[cfg(feature = "turmoil")]
            Place::Expected(waiting) => waiting.len(),
            _ => self.running.len(),
        }
    }
}

#[cfg(feature = "turmoil")]
impl Tasks {
    /// Tasks that wait for their host.
    pub(super) fn on_a_host() -> Self {
        Self { running: JoinSet::new(), place: Place::Expected(Vec::new()) }
    }

    /// The host is there; what waited for it begins, in order.
    pub(super) fn arrive(&mut self, host: Handle) {
        if let Place::Expected(waiting) = std::mem::replace(&mut self.place, Place::Host(host)) {
            waiting.into_iter().for_each(|task| self.spawn(task));
        }
    }
}
