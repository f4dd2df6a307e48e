use std::fmt;

use slipring_core::{
    BoxFuture, DiscoveryCapabilities, MessagingCapabilities, ReadConsistency, WatchFidelity,
};

use crate::{Action, Fixture, Trial, Verdict};

/// One case of the table.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Case {
    /// Its name, unique in the table.
    pub name: &'static str,
    /// The part of the contracts that it is about.
    pub group: &'static str,
    /// What the backend has to declare for it; else it is skipped.
    pub needs: &'static [Need],
    /// Must nobody else write to the store meanwhile?
    pub(crate) alone: bool,
    pub(crate) run: for<'a> fn(&'a Trial) -> BoxFuture<'a, Verdict>,
}

impl Case {
    pub(crate) const fn new(
        name: &'static str,
        group: &'static str,
        needs: &'static [Need],
        run: for<'a> fn(&'a Trial) -> BoxFuture<'a, Verdict>,
    ) -> Self {
        Self { name, group, needs, alone: false, run }
    }

    pub(crate) const fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    /// What it asks the fixture to do to the server.
    pub fn actions(&self) -> impl Iterator<Item = Action> {
        self.needs.iter().filter_map(|need| match need {
            Need::Action(action) => Some(*action),
            _ => None,
        })
    }

    /// Must it run alone? Because it acts on the server that others may be using, or because it looks at what
    /// others would change.
    pub fn is_exclusive(&self) -> bool {
        self.alone || self.actions().next().is_some()
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).field("needs", &self.needs).finish_non_exhaustive()
    }
}

/// Something that a backend may or may not declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Need {
    /// It has a store.
    Discovery,
    /// Transactions over at least so many keys.
    AtomicKeys(usize),
    /// Watches that show every write.
    EveryRevision,
    /// Reads that miss nothing that was acknowledged.
    Linearizable,
    /// Watches that go on after a revision.
    Resume,
    /// Keys of a lease that vanish at one revision.
    ExpiryAtomic,
    /// It has a broker.
    Messaging,
    /// Subscriptions that share a subject.
    QueueGroups,
    /// Patterns with `*` and `>`.
    Wildcards,
    /// Headers that arrive.
    Headers,
    /// An answer at once where nobody is subscribed.
    NoResponders,
    /// A fixture that can do this to its server.
    Action(Action),
}

impl Need {
    /// Is it there?
    pub(crate) fn is_met(
        self,
        store: Option<&DiscoveryCapabilities>,
        broker: Option<&MessagingCapabilities>,
        fixture: &dyn Fixture,
    ) -> bool {
        match self {
            Self::Discovery => store.is_some(),
            Self::AtomicKeys(keys) => store.is_some_and(|can| can.atomic_keys_max >= keys),
            Self::EveryRevision => store.is_some_and(|can| can.watch == WatchFidelity::EveryRevision),
            Self::Linearizable => store.is_some_and(|can| can.read == ReadConsistency::Linearizable),
            Self::Resume => store.is_some_and(|can| can.resume),
            Self::ExpiryAtomic => store.is_some_and(|can| can.expiry_atomic),
            Self::Messaging => broker.is_some(),
            Self::QueueGroups => broker.is_some_and(|can| can.queue_groups),
            Self::Wildcards => broker.is_some_and(|can| can.wildcards),
            Self::Headers => broker.is_some_and(|can| can.headers),
            Self::NoResponders => broker.is_some_and(|can| can.no_responders),
            Self::Action(action) => fixture.can(action),
        }
    }
}

/// As the capability is called.
impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Discovery => f.write_str("discovery"),
            Self::AtomicKeys(keys) => write!(f, "atomic_keys_max >= {keys}"),
            Self::EveryRevision => f.write_str("watch: EveryRevision"),
            Self::Linearizable => f.write_str("read: Linearizable"),
            Self::Resume => f.write_str("resume"),
            Self::ExpiryAtomic => f.write_str("expiry_atomic"),
            Self::Messaging => f.write_str("messaging"),
            Self::QueueGroups => f.write_str("queue_groups"),
            Self::Wildcards => f.write_str("wildcards"),
            Self::Headers => f.write_str("headers"),
            Self::NoResponders => f.write_str("no_responders"),
            Self::Action(action) => write!(f, "a fixture that can {action:?}"),
        }
    }
}
