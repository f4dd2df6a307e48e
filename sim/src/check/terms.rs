use std::time::Duration;

use slipring_memory::Profile;

/// What a history is judged by: what the broker can do, and within which bounds things have to happen. The
/// bounds follow from the broker's profile and from the component model's default settings; whoever changes
/// those, changes these.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Terms {
    /// What the broker can do, and how exactly it keeps time.
    pub profile: Profile,
    /// L7: what leases get beyond their time to live under a new leader, at most. Default 2 s; etcd gives its
    /// election timeout, 1 s.
    pub lease_extension_max: Duration,
    /// L12: how long after the last disturbance every registration is back. Default 30 s: a lease of 10 s is
    /// checked for once in its time to live, a hanging call is given up after 5 s, and a conflict is looked at
    /// again after 10 s.
    pub registered_within: Duration,
    /// W14: how long after the last disturbance a watch has shown what was committed. By default 5 s more than
    /// the silence after which a watch counts as broken.
    pub seen_within: Duration,
    /// C1: how much later than its deadline a call may end: a reader's pause. Default 1 s.
    pub call_slack: Duration,
    /// M14: how long a world has to be calm before calls in it have no excuse. Default 5 s.
    pub settled_within: Duration,
    /// SW3: how long two upstream watches may overlap, as one ends and the next begins. Default 1 s.
    pub handover_max: Duration,
    /// SW7: how many snapshots a shared watch takes within a minute, at most. Default 120.
    pub relists_per_minute_max: usize,
    /// M8: are there callers past the component model's client? Then what an instance accepts is not counted
    /// against what clients sent. Default: no.
    pub foreign_calls: bool,
    /// W14: do programs hold watches that they do not read? Then silence is no fault. Default: no.
    pub slow_readers: bool,
}

impl Terms {
    /// The default bounds, with a broker of this profile.
    pub fn new(profile: Profile) -> Self {
        let seconds = Duration::from_secs;
        Self {
            lease_extension_max: seconds(2),
            registered_within: seconds(30),
            seen_within: profile.discovery.watch_silence_max + seconds(5),
            call_slack: seconds(1),
            settled_within: seconds(5),
            handover_max: seconds(1),
            relists_per_minute_max: 120,
            foreign_calls: false,
            slow_readers: false,
            profile,
        }
    }

    /// With registrations back within this time.
    #[must_use]
    pub fn with_registered_within(mut self, bound: Duration) -> Self {
        self.registered_within = bound;
        self
    }

    /// With watches that have shown everything within this time.
    #[must_use]
    pub fn with_seen_within(mut self, bound: Duration) -> Self {
        self.seen_within = bound;
        self
    }

    /// With leases that get this much more under a new leader.
    #[must_use]
    pub fn with_lease_extension_max(mut self, bound: Duration) -> Self {
        self.lease_extension_max = bound;
        self
    }

    /// With calls that may end this late.
    #[must_use]
    pub fn with_call_slack(mut self, bound: Duration) -> Self {
        self.call_slack = bound;
        self
    }

    /// With this many snapshots a minute.
    #[must_use]
    pub fn with_relists_per_minute_max(mut self, snapshots: usize) -> Self {
        self.relists_per_minute_max = snapshots;
        self
    }

    /// With callers past the component model's client, or without.
    #[must_use]
    pub fn with_foreign_calls(mut self, foreign: bool) -> Self {
        self.foreign_calls = foreign;
        self
    }

    /// With programs that hold watches without reading them, or without.
    #[must_use]
    pub fn with_slow_readers(mut self, slow: bool) -> Self {
        self.slow_readers = slow;
        self
    }
}

impl From<Profile> for Terms {
    fn from(profile: Profile) -> Self {
        Self::new(profile)
    }
}

impl From<&Profile> for Terms {
    fn from(profile: &Profile) -> Self {
        Self::new(profile.clone())
    }
}

impl From<&Terms> for Terms {
    fn from(terms: &Terms) -> Self {
        terms.clone()
    }
}
