use std::fmt;

use super::{History, Moment};

/// Where two histories part that should be the same. Printed, it shows both moments, and what went before.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The number of the first moment that differs, from 1.
    pub number: usize,
    /// What the first history has there; nothing if it ends before.
    pub first: Option<Moment>,
    /// What the second one has there.
    pub second: Option<Moment>,
    /// The moments before it, in order; empty if they were taken out.
    pub before: Vec<Moment>,
}

impl Difference {
    /// Moments that are shown before the first that differs.
    const BEFORE_MAX: usize = 5;

    pub(super) fn between(first: &History, second: &History) -> Option<Self> {
        if first == second {
            return None;
        }
        if (first.taken, first.hash_of_taken) != (second.taken, second.hash_of_taken) {
            let number = first.taken.min(second.taken);
            return Some(Self { number, first: None, second: None, before: Vec::new() });
        }
        let equal = first.moments.iter().zip(&second.moments).take_while(|(one, other)| one == other).count();
        Some(Self {
            number: first.taken + equal + 1,
            first: first.moments.get(equal).cloned(),
            second: second.moments.get(equal).cloned(),
            before: first.moments[equal.saturating_sub(Self::BEFORE_MAX)..equal].to_vec(),
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, first, second, before } = self;
        if first.is_none() && second.is_none() {
            return write!(
                f,
                "they differ at event {number} or before, in what was taken out of the history"
            );
        }
        writeln!(f, "they differ at event {number}")?;
        before.iter().try_for_each(|moment| writeln!(f, "  both:   {moment}"))?;
        writeln!(f, "  first:  {}", Shown(first))?;
        write!(f, "  second: {}", Shown(second))?;
        let lines = [first, second].map(|moment| Shown(moment).to_string());
        // A line leaves out the content of a snapshot.
        if lines[0] == lines[1] { write!(f, "\nin full:\n{first:?}\n{second:?}") } else { Ok(()) }
    }
}

struct Shown<'a>(&'a Option<Moment>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(moment) => write!(f, "{moment}"),
            None => f.write_str("(the end)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::history::Event;

    fn history(notes: &[&str]) -> History {
        let moments = notes.iter().map(|note| Moment {
            at: Duration::from_secs(1),
            node: "n".into(),
            event: Event::Note((*note).to_owned()),
        });
        History::new(moments.collect())
    }

    /// The first moment that differs is named with both its forms, also if one history is longer; equal
    /// histories have none.
    #[test]
    fn the_first_difference_is_named() {
        let one = history(&["a", "b", "c"]);
        assert_eq!(one.first_difference(&history(&["a", "b", "c"])), None);
        let shown = one.first_difference(&history(&["a", "x", "y"])).unwrap().to_string();
        let lines: Vec<&str> = shown.lines().map(str::trim_end).collect();
        assert_eq!(lines[0], "they differ at event 2");
        assert!(lines[1].starts_with("  both: ") && lines[1].ends_with(" a"), "{shown}");
        assert!(lines[2].starts_with("  first: ") && lines[2].ends_with(" b"), "{shown}");
        assert!(lines[3].starts_with("  second: ") && lines[3].ends_with(" x"), "{shown}");
        let longer = history(&["a", "b"]).first_difference(&one).unwrap();
        assert!(longer.number == 3 && longer.first.is_none() && longer.second.is_some(), "{longer}");
    }

    /// A history that is taken piece by piece has the hash of the whole, and a difference in what was taken
    /// is found too.
    #[test]
    fn what_was_taken_counts() {
        let (mut pieces, whole) = (history(&["a"]), history(&["a", "b"]));
        assert_eq!(pieces.take(), history(&["a"]));
        history(&["b"]).moments().iter().for_each(|moment| pieces.push(moment.clone()));
        assert_eq!(pieces.hash(), whole.hash());
        assert_ne!(pieces.hash(), history(&["b"]).hash());
        let mut other = history(&["x"]);
        other.take();
        let difference = pieces.first_difference(&other).unwrap();
        assert!(difference.to_string().contains("taken out"), "{difference}");
    }
}
