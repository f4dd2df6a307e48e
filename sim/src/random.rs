use std::collections::BTreeMap;
use std::fmt;

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

/// FNV-1a: stable over releases of the compiler, unlike the standard library's hashes. What is written to it
/// is hashed, piece by piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fnv(u64);

impl Fnv {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0 = bytes
            .iter()
            .fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    }

    pub(crate) fn value(self) -> u64 {
        self.0
    }
}

/// Of nothing.
impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.add(text.as_bytes());
        Ok(())
    }
}

pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = Fnv::default();
    hash.add(bytes);
    hash.value()
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

    /// The hash is FNV-1a: the published values for no text, and for "foobar", whole and in pieces.
    #[test]
    fn the_hash_is_fnv1a() {
        assert_eq!(hash_bytes(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash_bytes(b"foobar"), 0x8594_4171_f739_67e8);
        let mut pieces = Fnv::default();
        fmt::Write::write_str(&mut pieces, "foo").unwrap();
        fmt::Write::write_str(&mut pieces, "bar").unwrap();
        assert_eq!(pieces.value(), hash_bytes(b"foobar"));
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
