//! Names that look like the one that was not found.

use std::collections::BTreeSet;

const NAMES_MAX: usize = 3;

/// Of the candidates, those that `wanted` may have been meant to be: they differ in case, in separators
/// (`/`, `.`, `-` and `_` are taken for one another), or by at most two typing errors (one up to five
/// characters, none up to two). Best first, at most three, without repetition and without `wanted` itself.
pub fn near_misses(wanted: &str, candidates: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<String> {
    let folded = fold(wanted);
    let errors_max = match folded.len() {
        0..=2 => 0,
        3..=5 => 1,
        _ => 2,
    };
    // Ordered by how many errors there are, then by how many once case and separators count as well.
    let mut near = BTreeSet::new();
    for candidate in candidates {
        let candidate = candidate.as_ref();
        let other = fold(candidate);
        if candidate == wanted || folded.len().abs_diff(other.len()) > errors_max {
            continue;
        }
        let errors = distance(&folded, &other);
        if errors <= errors_max {
            let exact = distance(&chars(wanted), &chars(candidate));
            near.insert((errors, exact, candidate.to_owned()));
        }
    }
    near.into_iter().take(NAMES_MAX).map(|(.., name)| name).collect()
}

fn chars(text: &str) -> Vec<char> {
    text.chars().collect()
}

/// The text with what people mix up taken out of it.
fn fold(text: &str) -> Vec<char> {
    let one = |c| if matches!(c, '/' | '.' | '-' | '_') { '_' } else { c };
    text.chars().flat_map(char::to_lowercase).map(one).collect()
}

/// How many characters must be added, dropped, replaced or swapped with their neighbour.
fn distance(from: &[char], to: &[char]) -> usize {
    // Three rows of the table: two back, the last, and the one being filled.
    let mut before = vec![0; to.len() + 1];
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1; to.len() + 1];
        for (j, b) in to.iter().enumerate() {
            let replaced = last[j] + usize::from(a != b);
            row[j + 1] = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// U1202, U1540: a name that differs in case or in a slash is found.
    #[test]
    fn u1202_case_and_separators_are_near() {
        assert_eq!(near_misses("processor", ["router", "Processor", "worker"]), ["Processor"]);
        assert_eq!(near_misses("chat.completions", ["chat/completions"]), ["chat/completions"]);
        assert_eq!(near_misses("kv-router", ["kv_router"]), ["kv_router"]);
        assert_eq!(near_misses("a/b", ["a.B"]), ["a.B"]);
    }

    /// Typing errors are found, fewer of them in short names.
    #[test]
    fn typing_errors_are_near() {
        assert_eq!(near_misses("wroker", ["worker"]), ["worker"]);
        assert_eq!(near_misses("generat", ["generate"]), ["generate"]);
        assert_eq!(near_misses("gneerat", ["generate"]), ["generate"]);
        assert_eq!(near_misses("prod", ["prd"]), ["prd"]);
        assert!(near_misses("prod", ["pr"]).is_empty());
        assert!(near_misses("dev", ["prod"]).is_empty());
        assert!(near_misses("v1", ["v2"]).is_empty());
        assert!(near_misses("", ["a"]).is_empty());
    }

    /// Best first, at most three, each once, and never the name itself.
    #[test]
    fn the_best_come_first() {
        let have = ["workers", "Worker", "walker", "worker", "wo-rker", "worke", "Worker", "WORKER"];
        assert_eq!(near_misses("worker", have), ["Worker", "WORKER", "wo-rker"]);
    }

    /// The distance is that of the textbook.
    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "ab", 2),
            ("kitten", "sitting", 3),
            ("ab", "ba", 1),
            ("abc", "cab", 2),
            ("x", "x", 0),
        ] {
            assert_eq!(distance(&chars(a), &chars(b)), expected, "{a} {b}");
            assert_eq!(distance(&chars(b), &chars(a)), expected, "{b} {a}");
        }
    }
}
