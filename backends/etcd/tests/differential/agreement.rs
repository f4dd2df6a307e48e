//! What the comparisons of stores and of buses share: how a difference is told, and what was compared.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};

/// How often each kind of answer was given: what was not asked was not compared.
pub(crate) type Counts = BTreeMap<&'static str, u64>;

/// Where two sides differ.
#[derive(Debug)]
pub(crate) struct Divergence {
    what: String,
    said: [String; 2],
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, other] = &self.said;
        write!(f, "differ: {}\n  one:   {one}\n  other: {other}", self.what)
    }
}

/// Fails if the two are not the same.
pub(crate) fn differ<T: PartialEq + Debug>(what: &impl Debug, one: &T, other: &T) -> Result<(), Divergence> {
    if one == other {
        return Ok(());
    }
    let (one, other) = (format!("{one:?}"), format!("{other:?}"));
    let same = one.chars().zip(other.chars()).take_while(|(one, other)| one == other).count();
    let said = [&one, &other].map(|text| around(text, same));
    Err(Divergence { what: around(&format!("{what:?}"), 0), said })
}

/// A piece of a long text, around this place.
fn around(text: &str, place: usize) -> String {
    const CHARS_MAX: usize = 1500;
    let start = place.saturating_sub(CHARS_MAX / 2);
    let piece: String = text.chars().skip(start).take(CHARS_MAX).collect();
    let cut = |is_cut| if is_cut { "..." } else { "" };
    format!("{}{piece}{}", cut(start > 0), cut(text.chars().count() > start + CHARS_MAX))
}

/// Adds up what was compared.
pub(crate) fn add(all: &mut Counts, more: Counts) {
    more.into_iter().for_each(|(kind, count)| *all.entry(kind).or_default() += count);
}

/// Fails if nothing of one of these kinds was compared.
pub(crate) fn assert_compared(all: &Counts, kinds: &[&str]) {
    let missing: Vec<_> = kinds.iter().filter(|kind| !all.contains_key(*kind)).collect();
    assert!(missing.is_empty(), "nothing of this kind was compared: {missing:?}");
}
