use std::time::Duration;

use slipring_memory::Profile;

use crate::Latency;

/// What a world is like before anything goes wrong in it. The default is a broker with the default
/// [`Profile`] that answers at once, and runs that check themselves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Setup {
    /// What the broker can do and how exactly it keeps time.
    pub profile: Profile,
    /// How long messages take between a node and the broker, and bytes between two nodes, in each direction.
    pub latency: Latency,
    /// How far the wall time of a node is from the others' at most, ahead or behind.
    pub wall_offset_max: Duration,
    /// Is a request executed that was sent, even if its caller gives up meanwhile?
    pub lasting_requests: bool,
    /// Are messages a part of the history? Those of a program under load are many.
    pub messages: bool,
    /// Does the seed decide in which order tasks run that could run at the same moment?
    pub shuffled: bool,
    /// How many of a million messages the network loses, on turmoil: there a connection that lost one is lost.
    pub losses_ppm: u32,
    /// Does a run happen twice, to see that the seed decides everything? It costs a second run.
    pub self_check: bool,
}

impl Setup {
    /// The default.
    pub fn new() -> Self {
        Self {
            profile: Profile::default(),
            latency: Latency::NONE,
            wall_offset_max: Duration::ZERO,
            lasting_requests: false,
            messages: false,
            shuffled: false,
            losses_ppm: 0,
            self_check: true,
        }
    }

    /// With a broker of this profile.
    #[must_use]
    pub fn with_profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// With messages that take this long.
    #[must_use]
    pub fn with_latency(mut self, latency: Latency) -> Self {
        self.latency = latency;
        self
    }

    /// With nodes whose wall time is off by up to this much, ahead or behind: F15. The seed says by how much for
    /// each life of a node.
    #[must_use]
    pub fn with_wall_offset_max(mut self, max: Duration) -> Self {
        self.wall_offset_max = max;
        self
    }

    /// With requests that are executed once they are sent, even if their callers give up, so that an old write
    /// may come after a new one; or with requests that end with their callers.
    #[must_use]
    pub fn with_lasting_requests(mut self, lasting: bool) -> Self {
        self.lasting_requests = lasting;
        self
    }

    /// With messages in the history, or without.
    #[must_use]
    pub fn with_messages(mut self, messages: bool) -> Self {
        self.messages = messages;
        self
    }

    /// With a network that loses so many of a million messages, where the world runs on turmoil. A connection that
    /// lost one carries nothing any more, and its ends are not told.
    #[must_use]
    pub fn with_losses_ppm(mut self, losses: u32) -> Self {
        self.losses_ppm = losses;
        self
    }

    /// With an order of tasks that the seed decides: a task that is ready sometimes lets others go first, and
    /// so does a message that arrives.
    #[must_use]
    pub fn with_shuffling(mut self, shuffled: bool) -> Self {
        self.shuffled = shuffled;
        self
    }

    /// With a second run to compare with, or without: for those who run many seeds.
    #[must_use]
    pub fn with_self_check(mut self, self_check: bool) -> Self {
        self.self_check = self_check;
        self
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Profile> for Setup {
    fn from(profile: Profile) -> Self {
        Self::new().with_profile(profile)
    }
}
