use std::collections::BTreeMap;
use std::hash::Hasher;
use std::sync::Arc;

use indexmap::IndexMap;
use slipring_core::Environment;
use tokio::time::Instant;

use crate::registry::{Instance, Members};

/// How a client chooses among the instances of an endpoint.
///
/// Instances that are ready come first, and those that could not be reached are skipped until they show life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Routing {
    /// One after the other. O(1).
    #[default]
    RoundRobin,
    /// Any. O(1).
    Random,
    /// The less loaded of two at random. O(1).
    PowerOfTwoChoices,
    /// The one with the least load: the larger of this runtime's calls at it and what it reported within the
    /// last second. O(instances).
    LeastLoaded,
    /// By the call's key ([`Request::key`](crate::Request::key)): the same key goes to the same instance, and
    /// when instances come or go only the keys of those move. A call without a key goes round robin.
    /// O(instances).
    ConsistentHash,
}

impl Routing {
    /// The random numbers that a choice takes.
    pub(crate) fn draw(self, environment: &dyn Environment) -> [u64; 2] {
        match self {
            Self::Random | Self::PowerOfTwoChoices => std::array::from_fn(|_| environment.random("route")),
            Self::RoundRobin | Self::LeastLoaded | Self::ConsistentHash => [0; 2],
        }
    }
}

/// What a choice depends on.
pub(crate) struct Choice<'a> {
    pub(crate) routing: Routing,
    pub(crate) labels: &'a BTreeMap<String, String>,
    pub(crate) key: Option<&'a str>,
    /// Only this instance will do.
    pub(crate) direct: Option<u64>,
    /// Instances that this call was at already: others first.
    pub(crate) tried: &'a [u64],
    /// Grows by one with every call of the client.
    pub(crate) turn: u64,
    pub(crate) random: [u64; 2],
    pub(crate) now: Instant,
}

impl Choice<'_> {
    /// The instance to send to; `None` if there is none.
    pub(crate) fn among(&self, members: &Members) -> Option<Arc<Instance>> {
        if let Some(id) = self.direct {
            return members.get(id).filter(|instance| instance.is_reachable()).cloned();
        }
        let all = members.candidates();
        if self.labels.is_empty()
            && self.tried.is_empty()
            && let Some(instance) = self.at_once(all)
        {
            return Some(instance.clone());
        }
        let fit: Vec<_> = all.values().filter(|instance| self.fits(instance)).collect();
        // Those in reach and not yet tried; else those in reach; else the one out of reach for longest.
        let reachable: Vec<_> =
            fit.iter().copied().filter(|instance| instance.aside_since().is_none()).collect();
        let fresh: Vec<_> =
            reachable.iter().copied().filter(|instance| !self.tried.contains(&instance.id())).collect();
        let from = if fresh.is_empty() { &reachable } else { &fresh };
        let chosen = self.pick(from.len(), |at| from[at]);
        chosen
            .or_else(|| fit.into_iter().min_by_key(|instance| (instance.aside_since(), instance.id())))
            .cloned()
    }

    /// The choice where nothing is excluded, if it falls on an instance in reach: the usual case, without a
    /// copy of the set.
    fn at_once<'m>(&self, all: &'m IndexMap<u64, Arc<Instance>>) -> Option<&'m Arc<Instance>> {
        let chosen = self.pick(all.len(), |at| &all[at])?;
        (self.fits(chosen) && chosen.aside_since().is_none()).then_some(chosen)
    }

    fn pick<'m>(&self, count: usize, at: impl Fn(usize) -> &'m Arc<Instance>) -> Option<&'m Arc<Instance>> {
        if count == 0 {
            return None;
        }
        let index = |number: u64| (number % count as u64) as usize;
        let load = |instance: &Arc<Instance>| instance.standing().load(self.now);
        Some(match (self.routing, self.key) {
            (Routing::RoundRobin, _) | (Routing::ConsistentHash, None) => at(index(self.turn)),
            (Routing::Random, _) => at(index(self.random[0])),
            (Routing::PowerOfTwoChoices, _) => {
                let first = index(self.random[0]);
                // Another one, where there is another one.
                let step = 1 + (self.random[1] % (count as u64 - 1).max(1)) as usize;
                let (a, b) = (at(first), at((first + step) % count));
                if load(b) < load(a) { b } else { a }
            }
            (Routing::LeastLoaded, _) => {
                // Begins at another place each time, so that equals share the work.
                let start = index(self.turn);
                (0..count).map(|step| at((start + step) % count)).min_by_key(|instance| load(instance))?
            }
            (Routing::ConsistentHash, Some(key)) => {
                (0..count).map(&at).max_by_key(|instance| (affinity(key, instance.id()), instance.id()))?
            }
        })
    }

    fn fits(&self, instance: &Instance) -> bool {
        let labels = &instance.record().labels;
        let fits = |(name, wanted): (&String, &String)| labels.value(name) == Some(wanted.as_str());
        instance.is_reachable() && self.labels.iter().all(fits)
    }
}

/// Rendezvous hashing: every instance bids for the key, the highest bid wins. The same in every process:
/// SipHash with its fixed keys would do, but the standard library does not promise that it stays the same, so
/// this is FNV-1a with a finisher.
fn affinity(key: &str, instance: u64) -> u64 {
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    hash.write(key.as_bytes());
    hash.write(&instance.to_le_bytes());
    hash.finish()
}

struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Spreads the last bytes over the whole, which FNV alone does badly.
    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ (mixed >> 32)
    }
}
