//! What the doctor finds in sources, and what it does not.
#![cfg(feature = "command")]
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::path::Path;

use slipring_sim::doctor::{Finding, scan, scan_tree};

fn findings(source: &str) -> Vec<Finding> {
    scan(Path::new("lib.rs"), source).unwrap()
}

/// What is found: the line, and the path.
fn found(source: &str) -> Vec<(usize, String)> {
    findings(source).into_iter().map(|finding| (finding.line, finding.what)).collect()
}

/// Each leak is found, however it is named: by its whole path, by what was imported, under another name, out of
/// a group or with everything else of its module.
#[test]
fn each_leak_is_found() {
    let cases = [
        ("fn f(m: &std::collections::HashMap<u8, u8>) {}", "std::collections::HashMap"),
        ("use std::{collections::{BTreeMap, HashMap as Map}, fmt};", "std::collections::HashMap"),
        ("use std::collections::*; fn f() -> HashSet<u8> { x }", "std::collections::HashSet"),
        ("use std::hash::{self, RandomState};", "std::hash::RandomState"),
        ("use std::time::{Duration, Instant}; fn f() { Instant::now(); }", "std::time::Instant::now"),
        ("use std::time; fn f() { time::SystemTime::now(); }", "std::time::SystemTime::now"),
        ("fn f() { ::std::thread::spawn(|| {}); }", "std::thread::spawn"),
        ("use std::thread; fn f() { thread::sleep(t); }", "std::thread::sleep"),
        ("use tokio::net::TcpStream;", "tokio::net::TcpStream"),
        ("fn f() { std::net::UdpSocket::bind(a); }", "std::net::UdpSocket::bind"),
        ("use std::fs::File;", "std::fs::File"),
        ("fn f() { g(tokio::fs::read(p)); }", "tokio::fs::read"),
        ("fn f() { std::process::id(); }", "std::process::id"),
        ("async fn f() { tokio::spawn(async {}); }", "tokio::spawn"),
        ("use tokio::task; fn f() { task::spawn_blocking(|| {}); }", "tokio::task::spawn_blocking"),
        ("fn f() { rand::thread_rng(); }", "rand::thread_rng"),
        ("fn f() -> u8 { rand::random() }", "rand::random"),
        ("use tokio::sync::{mpsc, watch};", "tokio::sync::watch"),
        ("async fn f() { tokio::select! { _ = a => {} } }", "tokio::select!"),
        ("static COUNT: AtomicU64 = AtomicU64::new(0);", "static"),
        ("thread_local! { static X: u8 = 0; }", "thread_local!"),
    ];
    for (source, what) in cases {
        assert_eq!(found(source), [(1, what.to_owned())], "{source}");
    }
}

/// What is told has the file and the line, says what differs and what to use.
#[test]
fn a_finding_explains_itself() {
    let source = "//! Text.\n\nuse tokio::select;\nasync fn f() {\n    select! { a = b => {} }\n}\n";
    let told = findings(source)[0].to_string();
    assert_eq!(
        told,
        "lib.rs:5: select!: it polls its branches in a random order; use select! { biased; .. }"
    );
}

/// Comments, texts, tests, lifetimes, fields and methods are no findings, nor is what only has the name of a
/// leak, and a leak is told once: where it is imported, or else where it is used.
#[test]
fn clean_code_has_no_finding() {
    let clean = r##"
        //! HashMap, std::thread::spawn
        /// `std::fs::read`
        use std::collections::{BTreeMap, hash_map};
        use std::time::{Duration, Instant, SystemTime};
        use tokio::time;
        /* tokio::spawn(HashMap) */
        static NAME: &str = "std::fs";
        fn f<'a>(x: &'static str, at: Instant) -> std::net::SocketAddr {
            let text = r#"HashMap::new() // std::thread::spawn"#;
            time::Instant::now();
            x.spawn(text.fs, self.random(), x.watch());
            tokio::select! { biased; _ = a => {} }
            environment.spawn(b)
        }
        mod my { pub struct HashMap; }
        #[cfg(test)]
        mod tests { use std::fs; fn f() { std::thread::spawn(|| {}); } }
        fn after() {}
    "##;
    assert_eq!(found(clean), []);
    assert_eq!(
        found("use std::collections::HashMap;\nfn f() -> HashMap<u8, u8> { HashMap::new() }").len(),
        1
    );
    assert_eq!(found("#[cfg(test)]\nmod tests {}\nuse std::fs;"), [(3, "std::fs".to_owned())]);
}

/// A comment with a reason silences its line or the next, and so does an attribute with one for its item; one
/// without a reason silences nothing.
#[test]
fn what_was_decided_is_silent() {
    for silent in [
        "use std::fs; // doctor: allow(it is read once, before the run)",
        "// doctor: allow(it is read once)\nuse std::fs;",
        "#[expect(clippy::disallowed_methods, reason = \"it is the system\")]\nfn f() { std::thread::spawn(a); }",
        "#![allow(clippy::disallowed_types, reason = \"it is the system\")]\nuse std::collections::HashMap;",
    ] {
        assert_eq!(found(silent), [], "{silent}");
    }
    for told in [
        "use std::fs; // doctor: allow()",
        "use std::fs; // doctor: allow(a reason)\nuse tokio::fs;",
        "// doctor: allow(a reason)\n\nuse std::fs;",
        "#[allow(clippy::disallowed_methods)]\nfn f() { std::thread::spawn(a); }",
        "#[expect(clippy::disallowed_methods, reason = \"here\")]\nfn f() {}\nuse std::fs;",
    ] {
        assert_eq!(found(told).len(), 1, "{told}");
    }
}

/// What is no Rust is refused, with the place.
#[test]
fn a_broken_source_is_named() {
    let error = scan(Path::new("src/odd.rs"), "fn f() {\n    (]\n}").unwrap_err().to_string();
    assert!(error.contains("src/odd.rs:2:"), "{error}");
}

/// What slipring itself runs in a world has no leak, or says why it may.
#[test]
fn slipring_has_no_finding() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    for source in
        ["src", "backends/core/src", "backends/memory/src", "backends/etcd/src", "backends/nats/src"]
    {
        found.extend(scan_tree(&root.join(source)).unwrap());
    }
    let told: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}
