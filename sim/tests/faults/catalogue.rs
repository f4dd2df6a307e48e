//! The catalogue of faults is complete, and each of its numbers is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const CATALOGUE: &str = include_str!("../../src/fault/catalogue.md");
const FAULTS: &str = include_str!("../../src/fault.rs");

/// Numbers and the rest of their rows.
fn rows() -> BTreeMap<u32, &'static str> {
    let rows = CATALOGUE.lines().filter_map(|line| line.strip_prefix("| F"));
    rows.map(|row| row.split_once(' ').unwrap()).map(|(number, row)| (number.parse().unwrap(), row)).collect()
}

fn sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

/// The numbers with which the names of tests begin.
fn shown() -> BTreeSet<u32> {
    let mut text = String::new();
    for folder in ["src", "tests"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut text);
    }
    let names = text.split("fn ").skip(1).map(|rest| rest.split('(').next().unwrap());
    let parts = names.flat_map(|name| name.split('_').take_while(|part| number(part).is_some()));
    parts.filter_map(number).collect()
}

/// Of `f07`.
fn number(part: &str) -> Option<u32> {
    part.strip_prefix('f').and_then(|digits| digits.parse().ok())
}

/// F1 to F41 are all in the catalogue, and each of them is shown by a test, or has no fault.
#[test]
fn every_number_is_shown() {
    let (rows, shown) = (rows(), shown());
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), (1..=41).collect::<Vec<_>>());
    let missing: Vec<_> =
        rows.iter().filter(|(number, row)| !row.contains("| none here") && !shown.contains(number)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(rows.values().filter(|row| row.contains("| none here")).count(), 1);
}

/// Every kind of fault stands in the catalogue.
#[test]
fn every_fault_is_in_the_catalogue() {
    let (_, body) = FAULTS.split_once("pub enum Fault {").unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let lines = body.lines().filter_map(|line| line.strip_prefix("    "));
    let kinds = lines.filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()));
    let kinds: Vec<&str> = kinds.map(|line| line.trim_end_matches([' ', '{', ','])).collect();
    assert!(kinds.len() > 30, "{kinds:?}");
    for kind in kinds {
        assert!(CATALOGUE.contains(&format!("`{kind}`")), "{kind} is not in the catalogue");
    }
}
