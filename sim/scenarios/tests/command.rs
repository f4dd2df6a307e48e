//! The command line, as a process.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOUND: &str = env!("CARGO_BIN_EXE_scenarios");
const BROKEN: &str = env!("CARGO_BIN_EXE_broken");

/// What a process said, and with which code it ended.
#[derive(Debug)]
struct Answer {
    code: i32,
    out: String,
    err: String,
}

fn run(program: &str, arguments: &str) -> Answer {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    Answer { code: output.status.code().unwrap(), out, err }
}

/// A file of this test's own.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// The first seed of a scenario that breaks a promise.
fn failing(scenario: &str) -> u64 {
    let explored = run(BROKEN, &format!("explore --scenario {scenario} --seeds 0..50 --jobs 2"));
    assert_eq!(explored.code, 1, "{explored:?}");
    let line = explored.out.lines().last().unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// `list` has a line for each scenario, without a head, and its name is the first word.
#[test]
fn the_list_begins_with_names() {
    let listed = run(SOUND, "list");
    assert_eq!((listed.code, &*listed.err), (0, ""));
    let names: Vec<&str> = listed.out.lines().map(|line| line.split(' ').next().unwrap()).collect();
    let all = scenarios::all();
    assert_eq!(names, all.iter().map(slipring_sim::Scenario::name).collect::<Vec<_>>());
    for name in ["lease_expiry", "deregistration", "shared_watcher", "rolling_restart"] {
        assert!(names.contains(&name));
    }
}

/// Exploring tells how many seeds were run and how fast; without a violation it ends with 0.
#[test]
fn exploring_counts_seeds() {
    let explored = run(BROKEN, "explore --scenario sound --seeds 5..25");
    assert_eq!(explored.code, 0, "{explored:?}");
    for part in ["sound: 20 seeds, 0 of them break a promise", "seeds/s", "h simulated"] {
        assert!(explored.out.contains(part), "{explored:?}");
    }
}

/// Exploring counts in how many seeds each rare situation was met, and says which were met in none.
#[test]
fn exploring_counts_rare_situations() {
    let explored = run(SOUND, "explore --scenario lease_expiry --seeds 0..40 --jobs 2");
    assert_eq!(explored.code, 0, "{explored:?}");
    let head = "Rare situations, and in how many of the 40 seeds each was met:\n";
    let (_, told) = explored.out.split_once(head).unwrap();
    let (met, never) = told.split_once("Never met: ").unwrap();
    let met: BTreeMap<&str, u64> = met
        .lines()
        .map(|line| line.trim().split_once(' ').unwrap())
        .map(|(runs, name)| (name, runs.parse().unwrap()))
        .collect();
    assert!(met["lease_expired"] > 0 && met.values().all(|runs| (1..=40).contains(runs)), "{met:?}");
    let never: Vec<&str> = never.trim().split(", ").collect();
    // Shared watches are not gone on with.
    assert!(
        never.contains(&"watch_resumed") && never.iter().all(|name| !met.contains_key(name)),
        "{never:?}"
    );
    assert_eq!(met.len() + never.len(), slipring_sim::probes::KNOWN.len());
}

/// The hashes of the runs are the same however many jobs there are, and differ from seed to seed.
#[test]
fn exploring_keeps_hashes() {
    let hashes = |jobs: u32| {
        let path = file(&format!("hashes {jobs}"));
        let seeds = format!("explore --scenario sound --seeds 3..23 --jobs {jobs} --hashes");
        let explored = Command::new(BROKEN).args(seeds.split(' ')).arg(&path).output().unwrap();
        assert_eq!(explored.status.code(), Some(0));
        fs::read_to_string(path).unwrap()
    };
    let told = hashes(1);
    assert_eq!(told, hashes(3));
    let lines: BTreeMap<_, _> = told.lines().map(|line| line.rsplit_once(' ').unwrap()).collect();
    assert!(lines.contains_key("sound 3") && lines.contains_key("sound 22"));
    assert_eq!(lines.values().collect::<BTreeSet<_>>().len(), 20, "{told}");
}

/// A run in which time stands still is a violation, with the line that shows it again, however it comes about: the
/// run ends itself if a task wakes itself for ever; if one keeps its thread, the process ends.
#[test]
fn time_that_stands_still_is_a_violation() {
    for (scenario, culprit) in [("restless", "task program of "), ("stuck", "no task of a node took a step")]
    {
        let patience = if scenario == "stuck" { "--patience 1" } else { "" };
        let explored =
            run(BROKEN, &format!("explore --scenario {scenario} --seeds 0..8 --jobs 2 {patience}"));
        let line = explored.out.lines().last().unwrap_or_default();
        let replayed = Command::new("sh").args(["-c", &format!("{line} {patience}")]).output().unwrap();
        let text = String::from_utf8(replayed.stdout).unwrap();
        for (code, told) in [(Some(explored.code), &explored.out), (replayed.status.code(), &text)] {
            assert_eq!(code, Some(1), "{told}");
            for part in ["breaks a promise:", "standstill (time passes", culprit, "To see it again:"] {
                assert!(told.contains(part), "no {part:?} in {told}");
            }
        }
    }
}

/// However many jobs there are, they find the same.
#[test]
fn jobs_find_the_same() {
    let found = |jobs: u32| {
        let explored = run(BROKEN, &format!("explore --scenario fragile --seeds 0..40 --jobs {jobs}"));
        assert_eq!(explored.code, 1);
        // The first line tells of the speed.
        explored.out.lines().skip(1).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(found(1), found(3));
}

/// A failure is told with the promise, the events that matter and what becomes of it when each part of the
/// schedule is taken away; the last line is a command that shows the same again.
#[test]
fn a_failure_ends_with_a_line_to_paste() {
    let seed = failing("fragile");
    let replayed = run(BROKEN, &format!("replay --scenario fragile --seed {seed}"));
    assert_eq!(replayed.code, 1);
    for part in ["breaks a promise:\n  no_crash", "The events that matter", "crashed", "without it"] {
        assert!(replayed.out.contains(part), "no {part:?} in {}", replayed.out);
    }
    let line = replayed.out.lines().last().unwrap();
    let pasted = Command::new("sh").args(["-c", line]).output().unwrap();
    assert_eq!((pasted.status.code(), String::from_utf8(pasted.stdout).unwrap()), (Some(1), replayed.out));
}

/// Shrinking writes a schedule that fails with few faults; from the file it replays, and so says the line to
/// paste, also once more faults were written into the file by hand.
#[test]
fn a_saved_schedule_replays() {
    let (seed, path) = (failing("fragile"), file("fragile schedule.json"));
    let arguments = ["shrink", "--scenario", "fragile", "--seed", &seed.to_string(), "--out"];
    let shrunk = Command::new(BROKEN).args(arguments).arg(&path).output().unwrap();
    assert_eq!(shrunk.status.code(), Some(1));
    let text = String::from_utf8(shrunk.stdout).unwrap();
    assert!(text.contains("0 operations and 1 faults do:"), "{text}");
    assert!(text.contains("keeps all promises"), "{text}");
    let line = text.lines().last().unwrap();
    let pasted = Command::new("sh").args(["-c", line]).output().unwrap();
    assert_eq!(pasted.status.code(), Some(1), "{line}");
    let saved = fs::read_to_string(&path).unwrap();
    let more = saved.replace("\"faults\": [", "\"faults\": [ {\"at_ms\": 1, \"fault\": \"compact\"},");
    assert_ne!(more, saved);
    fs::write(&path, more).unwrap();
    let again = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(String::from_utf8(again.stdout).unwrap().contains("at 1ms: compact"));
    fs::remove_file(path).unwrap();
}

/// A task that panics breaks a promise, and shrinks to the operation that it takes.
#[test]
fn a_panic_is_a_violation() {
    let seed = failing("panicking");
    let shrunk = run(BROKEN, &format!("shrink --scenario panicking --seed {seed}"));
    assert_eq!(shrunk.code, 1);
    for part in [
        "breaks N2",
        "1 operations and 0 faults do:",
        "is asked: greet",
        "asked to greet",
        "\"what\": \"greet\"",
    ] {
        assert!(shrunk.out.contains(part), "no {part:?} in {}", shrunk.out);
    }
}

/// A replay of a run that keeps its promises ends with 0, and writes its trace and its picture.
#[test]
fn a_replay_leaves_its_trace() {
    let (trace, html) = (file("trace.txt"), file("picture.html"));
    let run_it = |seed: &str| {
        let mut process = Command::new(BROKEN);
        process.args(["replay", "--scenario", "sound", "--seed", seed]);
        process.arg("--trace").arg(&trace).arg("--html").arg(&html);
        assert_eq!(process.output().unwrap().status.code(), Some(0));
        (fs::read_to_string(&trace).unwrap(), fs::read_to_string(&html).unwrap())
    };
    let (seven, eight) = (run_it("7"), run_it("8"));
    assert!(seven.0.contains("begin") && seven.1.starts_with("<!DOCTYPE html>"));
    assert_ne!(seven.0, eight.0);
    assert_eq!(run_it("7"), seven);
}

/// Two processes agree on a run of the real runtimes.
#[test]
fn the_doctor_finds_nothing() {
    for scenario in ["lease_expiry", "shared_watcher"] {
        let examined = run(SOUND, &format!("doctor --scenario {scenario} --seed 3"));
        assert_eq!(examined.code, 0, "{examined:?}");
        assert!(examined.out.contains("two processes agree"), "{examined:?}");
    }
}

/// What does not exist or makes no sense ends with 2, and an error that names it, and what is near.
#[test]
fn misuse_is_refused() {
    let missing = file("no such file.json");
    let nonsense = file("nonsense.json");
    fs::write(&nonsense, "{\"version\": 9}").unwrap();
    let long = |path: &Path| {
        ["replay", "--scenario", "sound", "--seed", "1", "--schedule", path.to_str().unwrap()]
            .map(str::to_owned)
            .to_vec()
    };
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let refused = [
        (words(""), "Usage"),
        (words("dance"), "dance"),
        (words("replay --scenario sund --seed 1"), "sound"),
        (words("replay --scenario sound"), "--seed"),
        (words("replay --scenario sound --seed one"), "one"),
        (words("explore --scenario sound --seeds 9..9"), "9..9 holds no seed"),
        (words("explore --scenario sound --seeds 9"), "expected A..B"),
        (words("explore --scenario sound --seeds 1..x"), "\"x\" is not a seed"),
        (words("explore --scenario sound --seeds 0..1 --jobs 0"), "0"),
        (words("explore --scenario sound --seeds 0..1 --engine warp"), "warp"),
        (long(&missing), "no such file.json"),
        (long(&nonsense), "version 9"),
    ];
    for (arguments, culprit) in refused {
        let output = Command::new(BROKEN).args(&arguments).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {err}");
        assert!(err.contains(culprit), "{arguments:?}: no {culprit:?} in {err}");
    }
    fs::remove_file(nonsense).unwrap();
}

/// Help is no misuse.
#[test]
fn help_is_there() {
    let help = run(SOUND, "--help");
    assert_eq!((help.code, &*help.err), (0, ""));
    for command in ["list", "explore", "replay", "shrink", "doctor"] {
        assert!(help.out.contains(command));
    }
}
