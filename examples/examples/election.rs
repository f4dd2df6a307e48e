//! Simulate your own service: an election in forty lines, and six ways to get it wrong.
//!
//! `cargo run -p examples --example election` looks for each bug under a thousand seeds, and prints the smallest
//! schedule of faults that shows it.
#![expect(clippy::print_stdout, reason = "printing is what an example is for")]

use std::time::Duration;

use slipring_core::{Commit, DiscoveryExt, Effect, Key, LeaseId, Result, Revision};
use slipring_memory::Profile;
use slipring_sim::check::Violation;
use slipring_sim::history::Event;
use slipring_sim::{Fault, Latency, Node, Outcome, Report, Scenario, Setup, Shape, World};
use tokio::time::{Instant, sleep, timeout_at};

const TTL: Duration = Duration::from_secs(3);
const CANDIDATES: [&str; 3] = ["ada", "ben", "cem"];

/// What may be wrong with a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    /// The office is not bound to a lease: nobody inherits it from the dead.
    NoLease,
    /// The office is taken, whoever holds it.
    Overwrites,
    /// A vote whose outcome is unknown counts as won.
    DoubtIsVictory,
    /// The term ends when the store says so, not when its time is over.
    NoDeadline,
    /// The term is counted from the answer of the store, which may be late.
    CountsFromAnswer,
    /// The first trouble with the store ends the candidacy.
    GivesUp,
}

const BUGS: [Bug; 6] = [
    Bug::NoLease,
    Bug::Overwrites,
    Bug::DoubtIsVictory,
    Bug::NoDeadline,
    Bug::CountsFromAnswer,
    Bug::GivesUp,
];

/// An office that was won, and how long that is sure.
struct Term {
    lease: LeaseId,
    number: Revision,
    until: Instant,
}

/// Stands for election as long as the node lives, and makes decisions while it holds the office.
async fn stand(node: Node, bug: Option<Bug>) {
    loop {
        match win(&node, bug).await {
            Ok(Some(term)) => lead(&node, term, bug).await,
            Err(_) if bug == Some(Bug::GivesUp) => return,
            _ => sleep(TTL / 3).await,
        }
    }
}

/// Takes the office if it is vacant.
async fn win(node: &Node, bug: Option<Bug>) -> Result<Option<Term>> {
    let (store, office, asked) = (node.discovery(), Key::new("office").expect("a legal key"), Instant::now());
    let lease = store.grant(TTL).await?;
    let bound = (bug != Some(Bug::NoLease)).then_some(lease.id);
    let taken = match bug {
        Some(Bug::Overwrites) => store.put(office.clone(), "me".into(), bound).await.map(Commit::Applied),
        _ => store.create(office.clone(), "me".into(), bound).await,
    };
    let number = match taken {
        Ok(Commit::Applied(number)) => number,
        Err(error) if bug == Some(Bug::DoubtIsVictory) && error.effect() == Effect::Unknown => {
            store.entry(&office).await?.map_or(Revision(0), |entry| entry.modified)
        }
        other => return other.map(|_| None),
    };
    let since = if bug == Some(Bug::CountsFromAnswer) { Instant::now() } else { asked };
    Ok(Some(Term { lease: lease.id, number, until: since + lease.ttl }))
}

/// Decides ten times a second, until the term may be over.
async fn lead(node: &Node, mut term: Term, bug: Option<Bug>) {
    let mut beat_due = Instant::now() + TTL / 3;
    while bug == Some(Bug::NoDeadline) || Instant::now() < term.until {
        node.note(format_args!("decides in term {}", term.number));
        if Instant::now() >= beat_due {
            let sent = Instant::now();
            match timeout_at(sent + TTL / 6, node.discovery().keep_alive(term.lease)).await {
                Ok(Ok(ttl)) if bug == Some(Bug::CountsFromAnswer) => term.until = Instant::now() + ttl,
                Ok(Ok(ttl)) => term.until = sent + ttl,
                Ok(Err(slipring_core::Error::LeaseLost { .. })) => return,
                _ => {}
            }
            beat_due = Instant::now() + TTL / 3;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The story: three candidates, faults for a minute, and some time to recover.
fn election(bug: Option<Bug>) -> Scenario {
    // A store that forgets the office, or of which somebody else deletes it, cannot keep it from two.
    let survivable =
        |fault: &Fault| !matches!(fault, Fault::Empty | Fault::Restore | Fault::DeleteKey { .. });
    let shape = Shape::new(CANDIDATES, TTL, 20 * TTL).with_faults(survivable);
    let setup = Setup::from(Profile::etcd())
        .with_latency(Latency::between(Duration::ZERO, Duration::from_millis(200)))
        .with_shuffling(true);
    let name = bug.map_or("election".to_owned(), |bug| format!("{bug:?}"));
    Scenario::new(name, "An office has one holder, and soon another one", shape, async move |world: World| {
        for name in CANDIDATES {
            world.spawn_node(name, move |node| stand(node, bug));
        }
        world.calm().await;
        // Whoever was struck dead comes back.
        CANDIDATES.iter().for_each(|name| drop(world.node(name)));
        world.note("all is well");
        sleep(4 * TTL).await;
    })
    .with_setup(setup)
    .with_judge(judge)
}

/// Terms only go up, and a while after all is well somebody decides.
fn judge(report: &Report) -> Vec<Violation> {
    let (mut newest, mut deciding, mut violations) = (0, false, Vec::new());
    for moment in report.history.moments() {
        let Event::Note(note) = &moment.event else { continue };
        if note == "all is well" {
            deciding = false;
        }
        let Some(term) = note.strip_prefix("decides in term ").and_then(|term| term.parse().ok()) else {
            continue;
        };
        deciding = true;
        if term < newest {
            let what = format!("{} decides in term {term} after a decision in term {newest}", moment.node);
            violations.push(Violation::new("one holder", moment.at, what));
        }
        newest = newest.max(term);
    }
    let end = report.history.moments().last().map_or(Duration::ZERO, |moment| moment.at);
    if !deciding {
        violations.push(Violation::new("some holder", end, "nobody decides although all is well"));
    }
    violations
}

/// The first seed that shows that something is wrong.
fn found_by(scenario: &Scenario) -> Option<Outcome> {
    (0..1_000).map(|seed| scenario.run(seed)).find(|outcome| !outcome.violations.is_empty())
}

fn main() {
    for bug in BUGS {
        let scenario = election(Some(bug));
        let Some(outcome) = found_by(&scenario) else {
            println!("{bug:?}: not found");
            continue;
        };
        let smallest = scenario.shrink(outcome.seed, &outcome.schedule, outcome.violations[0].invariant);
        let outcome = scenario.replay(outcome.seed, smallest);
        println!("{bug:?}, seed {}: {}\n{}", outcome.seed, outcome.violations[0], outcome.schedule);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without a bug no seed shows any.
    #[test]
    fn a_sound_election_passes() {
        election(None).test(0..300);
    }

    /// Each of the six bugs is found within a thousand seeds.
    #[test]
    fn every_bug_is_found() {
        for bug in BUGS {
            let scenario = election(Some(bug));
            assert!(found_by(&scenario).is_some(), "{bug:?}");
        }
    }
}
