//! The life of a runtime's lease, and of a served endpoint.

mod holder;
pub mod keeper;
mod stop;

pub(crate) use self::holder::LeaseHolder;
pub use self::holder::LeaseState;
pub(crate) use self::stop::Phases;
pub use self::stop::{Outcome, PhaseReport, StopReport};

/// Where a served endpoint is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Lifecycle {
    /// It is about to be subscribed and registered; nobody knows of it yet.
    Created,
    /// Its record is in the store.
    Registered,
    /// It takes requests; its health check has not succeeded, or does not now.
    Running,
    /// It takes requests and is well. Without a health check it is taken to be.
    Healthy,
    /// It is on its way out and never comes back.
    Stopping,
    /// Its record is gone and it takes no requests.
    Deregistered,
}

impl Lifecycle {
    /// Its name in lower case, as in facts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Registered => "registered",
            Self::Running => "running",
            Self::Healthy => "healthy",
            Self::Stopping => "stopping",
            Self::Deregistered => "deregistered",
        }
    }
}
