//! The kit serves a crate that is none of ours.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use slipring_conformance::{CASES, Need};

/// A package outside of the workspace, that knows nothing but the contracts and the kit, is built and tested as
/// its author would, and the report that it leaves says how each case went.
#[test]
fn a_crate_outside_of_the_workspace_uses_the_kit() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let outside = here.join("outside");
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // The same versions as here: they are on this machine, and partly built.
    std::fs::copy(here.join("../../Cargo.lock"), outside.join("Cargo.lock")).unwrap();
    let report = scratch.join("notebook.json");
    let _ = std::fs::remove_file(&report);
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--offline", "--manifest-path"]).arg(outside.join("Cargo.toml"));
    cargo.arg("--target-dir").arg(scratch.parent().expect("it lies in the target directory"));
    let output = cargo.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{errors}", String::from_utf8_lossy(&output.stdout));

    let report: Value = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    assert_eq!(report["kit"], env!("CARGO_PKG_VERSION"));
    let cases = report["cases"].as_array().unwrap();
    let names: BTreeSet<_> = cases.iter().map(|case| case["name"].as_str().unwrap()).collect();
    let of_a_store = CASES.iter().filter(|case| case.needs.contains(&Need::Discovery));
    assert_eq!(names, of_a_store.map(|case| case.name).collect());
    let passed = cases.iter().filter(|case| case["outcome"] == "passed").count();
    let skipped = cases.iter().filter(|case| case["outcome"]["skipped"]["undeclared"].is_string()).count();
    assert_eq!(passed + skipped, cases.len());
    let counts = ["passed", "failed", "skipped"].map(|count| report[count].as_u64().unwrap());
    assert_eq!(counts, [passed as u64, 0, skipped as u64]);
    assert!(passed > 60 && skipped > 10, "{counts:?}");
}
