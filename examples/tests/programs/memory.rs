use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::program::Program;

/// The worker says one line for each change, stops in order on SIGTERM, and ends with 0; nothing else is on
/// standard output.
#[tokio::test]
async fn a_worker_says_what_becomes_of_it() {
    let mut worker = Program::start("worker", "--demo", &[]);
    for expected in ["registered", "lost", "re-registered epoch=2"] {
        assert_eq!(worker.line().await, expected);
    }
    worker.terminate();
    let ended = worker.end().await;
    let [stopping, stopped] = &ended.output[..] else { panic!("{ended:?}") };
    assert_eq!((stopping.as_str(), ended.code), ("stopping", Some(0)));
    let requests = stopped.strip_prefix("stopped requests=").and_then(|rest| rest.strip_suffix(" failed=0"));
    assert!(requests.unwrap().parse::<u64>().unwrap() >= 10, "{stopped}");
}

/// A signal that comes the moment the worker says that it is there still finds it listening.
#[tokio::test]
async fn a_worker_that_is_there_can_be_stopped() {
    for _ in 0..5 {
        let mut worker = Program::start("worker", "--demo --endpoint a.b.c --delay-ms 1", &[]);
        assert_eq!(worker.line().await, "registered");
        worker.terminate();
        let ended = worker.end().await;
        assert!(ended.output.contains(&"stopping".to_owned()) && ended.code == Some(0), "{ended:?}");
    }
}

/// The caller says one line: its calls all counted, its latencies in order.
#[tokio::test]
async fn a_caller_says_one_line() {
    for mode in ["round-robin", "random", "power-of-two-choices", "least-loaded"] {
        let arguments = format!("--demo --requests 300 --concurrency 7 --mode {mode}");
        let report = Program::start("caller", &arguments, &[]).end().await.report();
        assert_eq!((&report["requests"], &report["ok"]), (&300.into(), &300.into()), "{report}");
        assert_eq!((report["failed"].to_string().as_str(), &report["hung"]), ("{}", &0.into()));
        let (p50, p99) = (report["p50_us"].as_u64().unwrap(), report["p99_us"].as_u64().unwrap());
        assert!(0 < p50 && p50 <= p99, "{report}");
    }
}

/// What fails is counted by its code; nothing hangs when nobody is there to answer.
#[tokio::test]
async fn a_caller_counts_failures_by_code() {
    let arguments = "--endpoint a.b.c --requests 3 --concurrency 2 --deadline-ms 50";
    let report = Program::start("caller", arguments, &[]).end().await.report();
    let expected = json!({
        "requests": 3, "ok": 0, "failed": { "no_instances": 3 }, "hung": 0, "p50_us": 0, "p99_us": 0,
    });
    assert_eq!(report, expected);
}

/// No more calls are started than the rate allows: the last of them not before its time.
#[tokio::test]
async fn a_caller_keeps_to_its_rate() {
    let began = Instant::now();
    let report = Program::start("caller", "--demo --requests 101 --rate 100", &[]).end().await.report();
    assert_eq!(report["ok"], 101);
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
}

/// Arguments that are not understood: what is wrong and the usage on standard error, nothing on standard
/// output, exit code 2.
#[tokio::test]
async fn bad_arguments_are_told() {
    for (name, arguments, words) in [
        ("worker", "", "--endpoint is missing"),
        ("worker", "--endpoint a.b", "invalid endpoint reference"),
        ("worker", "--endpoint a.b.c --delay-ms x", "--delay-ms \"x\": invalid digit"),
        ("worker", "--endpoint a.b.c --requests 1", "unknown argument \"--requests\""),
        ("caller", "--requests 1", "--endpoint is missing"),
        ("caller", "--demo --concurrency 0", "--concurrency 0: it must be at least 1"),
        ("caller", "--demo --mode best", "--mode \"best\": there is no such mode"),
        ("caller", "--demo --deadline-ms", "--deadline-ms needs a value"),
    ] {
        let ended = Program::start(name, arguments, &[]).end().await;
        assert_eq!((ended.code, ended.output.len()), (Some(2), 0), "{name} {arguments}: {ended:?}");
        assert!(ended.errors.contains(words) && ended.errors.contains("usage: "), "{}", ended.errors);
    }
}

/// A backend that cannot be used ends the program with 1 and the reason on standard error.
#[tokio::test]
async fn a_bad_configuration_is_told() {
    for name in ["worker", "caller"] {
        let variables = [("SLIPRING_DISCOVERY", "etdc://localhost".to_owned())];
        let ended = Program::start(name, "--endpoint a.b.c", &variables).end().await;
        assert_eq!((ended.code, ended.output.len()), (Some(1), 0), "{ended:?}");
        assert!(ended.errors.contains("did you mean etcd?"), "{}", ended.errors);
    }
}
