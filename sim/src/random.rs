use std::collections::BTreeMap;

/// Independent streams of numbers by label, all from one seed: drawing one more number from one of them
/// changes no other.
#[derive(Debug)]
pub(crate) struct Streams {
    seed: u64,
    streams: BTreeMap<&'static str, SplitMix>,
}

impl Streams {
    /// The streams of an owner: the same seed gives each owner streams of its own.
    pub(crate) fn new(seed: u64, owner: &str) -> Self {
        Self { seed: mix(seed ^ hash(owner)), streams: BTreeMap::new() }
    }

    /// The next number under a label.
    pub(crate) fn next(&mut self, label: &'static str) -> u64 {
        let seed = self.seed;
        self.streams.entry(label).or_insert_with(|| SplitMix(mix(seed ^ hash(label)))).next()
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): every number once per period of 2^64.
#[derive(Debug)]
pub(crate) struct SplitMix(u64);

impl SplitMix {
    /// The numbers of this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a: stable over releases of the compiler, unlike the standard library's hashes.
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn hash(text: &str) -> u64 {
    hash_bytes(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The generator is SplitMix64: its first numbers for seed 1234567 are the published ones.
    #[test]
    fn the_generator_is_splitmix64() {
        let mut generator = SplitMix(1_234_567);
        let drawn = [generator.next(), generator.next(), generator.next()];
        assert_eq!(drawn, [6457827717110365317, 3203168211198807973, 9817491932198370423]);
    }

    /// A stream does not depend on what was drawn from others.
    #[test]
    fn streams_are_independent() {
        let (mut one, mut other) = (Streams::new(7, "a"), Streams::new(7, "a"));
        other.next("jitter");
        other.next("jitter");
        assert_eq!(one.next("route"), other.next("route"));
    }

    /// Seeds, owners and labels all make a difference.
    #[test]
    fn streams_differ() {
        let first = |seed, owner, label| Streams::new(seed, owner).next(label);
        let drawn = [first(7, "a", "x"), first(8, "a", "x"), first(7, "b", "x"), first(7, "a", "y")];
        let distinct: std::collections::BTreeSet<u64> = drawn.into();
        assert_eq!(distinct.len(), drawn.len());
    }
}
