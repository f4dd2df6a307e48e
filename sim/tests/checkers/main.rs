//! Each checker rejects a history that all the others accept, and accepts one that differs from it in nothing
//! but the fault.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod bus;
mod calls;
mod leases;
mod store;
mod story;
mod views;
mod watches;

use std::collections::BTreeSet;

use slipring_sim::check::{ELSEWHERE, INVARIANTS, check};
use slipring_sim::{History, Schedule, Setup, Shape, World, simulate};

use crate::story::{SECOND, Story, key, put};

/// The story told with the fault breaks this invariant and no other, and names the events that matter; without
/// it, it breaks none.
#[track_caller]
fn assert_only(invariant: &str, story: impl Fn(bool) -> Story) {
    let good = story(false);
    assert_eq!(check(&good.history(), &good.terms), [], "without the fault");
    let bad = story(true);
    let history = bad.history();
    let violations = check(&history, &bad.terms);
    let found: BTreeSet<_> = violations.iter().map(|violation| violation.invariant).collect();
    assert_eq!(found, BTreeSet::from([invariant]), "{violations:?}");
    for violation in &violations {
        let moments = &violation.moments;
        assert!(!moments.is_empty() && moments.is_sorted(), "{violation:?}");
        let last = history.moments().get(*moments.last().unwrap()).unwrap();
        assert_eq!(violation.at, last.at, "{violation:?}");
        assert_ne!(violation.promise(), "an invariant without a name");
    }
}

/// Tests, each named after the invariant that it is a case of.
macro_rules! cases {
    ($($(#[doc = $what:literal])* $test:ident, $invariant:literal, $story:expr;)*) => {
        pub(crate) const COVERED: &[&str] = &[$($invariant),*];
        $($(#[doc = $what])* #[test] fn $test() { crate::assert_only($invariant, $story); })*
    };
}
use cases;

/// Every invariant that is checked has a case, and none is both checked and said to be shown elsewhere.
#[test]
fn every_invariant_has_a_case() {
    let tables =
        [store::COVERED, leases::COVERED, watches::COVERED, views::COVERED, bus::COVERED, calls::COVERED];
    let covered: BTreeSet<&str> = tables.concat().into_iter().collect();
    let checked: BTreeSet<&str> = INVARIANTS.iter().map(|(name, _)| *name).collect();
    assert_eq!(checked.len(), INVARIANTS.len());
    assert_eq!(covered, checked);
    assert!(ELSEWHERE.iter().all(|(name, _)| !checked.contains(name)));
    let families = [("K", 11), ("L", 12), ("W", 15), ("SW", 7), ("M", 14)];
    let all = families.iter().flat_map(|(family, count)| (1..=*count).map(move |n| format!("{family}{n}")));
    let elsewhere: BTreeSet<&str> = ELSEWHERE.iter().map(|(name, _)| *name).collect();
    for name in all {
        assert!(checked.contains(&*name) || elsewhere.contains(&*name), "{name} is nowhere");
    }
}

/// A violation says which promise is broken, when, how, and where to look.
#[test]
fn a_violation_explains_itself() {
    let story = Story::new().wait(SECOND).commit(4, [put(4, "a")]);
    let violations = check(&story.history(), &story.terms);
    let expected = "K2 (each commit is the next revision, and changes something) at 1s: revision 4 was committed after 1";
    assert_eq!(violations[0].to_string(), expected);
    assert_eq!(violations[0].moments, [0]);
}

/// A history in which nothing happens breaks nothing, and so does a run without faults.
#[test]
fn a_quiet_world_is_accepted() {
    let terms = Story::new().terms;
    assert_eq!(check(&History::default(), &terms), []);
    let setup = Setup::from(terms.profile.clone()).with_messages(true);
    let report = simulate(1, setup, async |world: World| {
        world.play(Schedule::generate(1, &Shape::new([""; 0], SECOND, SECOND)));
        let store = world.node("n").discovery();
        let lease = store.grant(3 * SECOND).await.unwrap();
        slipring_core::DiscoveryExt::put(&store, key("a"), "".into(), Some(lease.id)).await.unwrap();
    });
    assert_eq!(check(&report.history, &terms), []);
}
