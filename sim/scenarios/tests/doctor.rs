//! The doctor, on a program with a leak.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::process::Command;

/// Two processes run the same seed and differ. The doctor shows the first event in which they do, says how, and
/// names the line of the source that did it.
#[test]
fn a_planted_leak_is_named() {
    let arguments = ["doctor", "--scenario", "leaky", "--seed", "7", "--source", "src/leaky"];
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_leaky"));
    let output = doctor.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}{}", String::from_utf8_lossy(&output.stderr));
    for part in [
        "leaky, seed 7: the runs part at event ",
        " worker           note     ",
        " squared is ",
        "the same events come in another order; what may do that in the sources, the likely first:\n  \
         src/leaky/worker.rs:1: std::collections::HashMap: its order differs from run to run; use BTreeMap",
    ] {
        assert!(told.contains(part), "no {part:?} in\n{told}");
    }
}

/// Where the sources are not, is said.
#[test]
fn missing_sources_are_named() {
    let arguments = ["doctor", "--scenario", "leaky", "--seed", "7", "--source", "nowhere"];
    let output = Command::new(env!("CARGO_BIN_EXE_leaky")).args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("cannot read nowhere"), "{told}");
}
