use std::fmt;

use super::{Finding, Symptom};

/// The first event in which two traces differ, and what may have made it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// The event: its line in the traces, from 0.
    pub event: usize,
    /// The line of the one trace; none if it has ended.
    pub one: Option<String>,
    /// The line of the other.
    pub other: Option<String>,
    /// How they differ.
    pub symptom: Symptom,
    /// All findings, the likely ones first: those that show in this way, and of them those in a file or a
    /// directory that is named as a node of the event.
    pub suspects: Vec<Finding>,
}

/// Where two traces part; none if they do not. `findings` are what [`scan_tree`](super::scan_tree) found in the
/// code that ran.
pub fn compare(one: &str, other: &str, findings: &[Finding]) -> Option<Difference> {
    let (one, other): (Vec<&str>, Vec<&str>) = (one.lines().collect(), other.lines().collect());
    let event = (0..one.len().max(other.len())).find(|event| one.get(*event) != other.get(*event))?;
    let (first, second) = (one.get(event).copied(), other.get(event).copied());
    let symptom = symptom(&one[event.min(one.len())..], &other[event.min(other.len())..]);
    let nodes: Vec<&str> = [first, second].into_iter().flatten().filter_map(node).collect();
    let mut suspects = findings.to_vec();
    suspects.sort_by_cached_key(|finding| {
        let shows = finding.symptoms.iter().position(|shown| *shown == symptom);
        (shows.unwrap_or(usize::MAX), !nodes.iter().any(|node| is_named(finding, node)))
    });
    let [one, other] = [first, second].map(|line| line.map(str::to_owned));
    Some(Difference { event, one, other, symptom, suspects })
}

/// How two traces differ in their first lines.
fn symptom(one: &[&str], other: &[&str]) -> Symptom {
    let (Some(first), Some(second)) = (one.first(), other.first()) else { return Symptom::Content };
    let untimed = |line: &&str| line.trim_start().split_once(' ').map(|(_, rest)| rest.to_owned());
    if untimed(first) == untimed(second) {
        return Symptom::Time;
    }
    let swapped = other.iter().take(NEAR_LINES).any(|line| line == first);
    let swapped = swapped && one.iter().take(NEAR_LINES).any(|line| line == second);
    if swapped { Symptom::Order } else { Symptom::Content }
}

/// Within so many lines an event is looked for that may only have come in another order.
const NEAR_LINES: usize = 1000;

/// The node in a line of a trace, without the number of its life.
fn node(line: &str) -> Option<&str> {
    let name = line.split_whitespace().nth(1)?;
    name.split('#').next()
}

/// Has a part of the file's path a word in common with the node's name?
fn is_named(finding: &Finding, node: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| word.len() > 2);
        words.map(str::to_ascii_lowercase).collect()
    };
    let path = words(&finding.file.with_extension("").to_string_lossy());
    words(node).iter().any(|word| path.contains(word))
}

/// The two lines, how they differ, and the suspects, a line each.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the runs part at event {}:", self.event + 1)?;
        for (which, line) in [("one", &self.one), ("the other", &self.other)] {
            writeln!(f, "{which:<10} {}", line.as_deref().unwrap_or("(it has ended)"))?;
        }
        let how = match self.symptom {
            Symptom::Order => "the same events come in another order",
            Symptom::Time => "the same event comes at another time",
            Symptom::Content => "other events come",
        };
        if self.suspects.is_empty() {
            return writeln!(f, "{how}; the sources hold none of the leaks that are known");
        }
        writeln!(f, "{how}; what may do that in the sources, the likely first:")?;
        self.suspects.iter().try_for_each(|finding| writeln!(f, "  {finding}"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::doctor::scan;

    const LINES: [&str; 3] = [
        "     0.000000 a                begin    alive",
        "     1.000000 worker-1#2       note     one",
        "     1.000000 worker-1#2       note     two",
    ];

    fn findings() -> Vec<Finding> {
        let sources = [
            ("src/config.rs", "fn f() { std::fs::read(p); }"),
            ("src/other.rs", "use std::collections::HashMap;"),
            ("src/worker.rs", "use std::collections::HashSet;\nfn f() { std::time::Instant::now(); }"),
        ];
        let scan = |(file, text)| scan(Path::new(file), text).expect("it is Rust");
        sources.map(scan).concat()
    }

    fn told(one: &[&str], other: &[&str]) -> (usize, Symptom, Vec<String>) {
        let difference = compare(&one.join("\n"), &other.join("\n"), &findings()).expect("they differ");
        let suspects = difference
            .suspects
            .iter()
            .map(|finding| finding.what.rsplit("::").next().unwrap_or_default().to_owned());
        (difference.event, difference.symptom, suspects.collect())
    }

    /// The first event that differs is found, and the leaks that look like it come first: those of the node's
    /// own file before others.
    #[test]
    fn what_differs_tells_what_leaks() {
        let [begin, one, two] = LINES;
        let order = told(&[begin, one, two], &[begin, two, one]);
        assert_eq!(
            order,
            (1, Symptom::Order, ["HashSet", "HashMap", "now", "read"].map(str::to_owned).into())
        );
        let late = one.replace("1.000000", "1.000007");
        let (event, symptom, suspects) = told(&[begin, one], &[begin, &late]);
        assert_eq!((event, symptom, suspects[0].as_str()), (1, Symptom::Time, "now"));
        let (event, symptom, suspects) = told(&[begin, one], &[begin]);
        assert_eq!((event, symptom, suspects[0].as_str()), (1, Symptom::Content, "read"));
        assert_eq!(compare(&LINES.join("\n"), &LINES.join("\n"), &findings()), None);
    }
}
