//! Several runtimes in one process, and one runtime in a busy or a stopped process.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::{runtime, runtime_with, serve_id, settings};
use futures_util::future::join_all;
use slipring::{Client, Context, Fault, LeaseState, MemoryWorld, Settings};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// D10: each of several runtimes in a process sees an instance of the same endpoint come and go.
#[tokio::test(start_paused = true)]
async fn d10_every_runtime_sees_removals() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let mut watchers = Vec::new();
    for _ in 0..3 {
        let watcher = runtime(&world).await;
        let instances = watcher.endpoint("a/b/c").unwrap().client::<(), u64>().await.unwrap().instances();
        watchers.push((watcher, instances));
    }
    for _ in 0..3 {
        let serving = serve_id(&worker.endpoint("a/b/c").unwrap()).await.unwrap();
        for (_, instances) in &mut watchers {
            tokio::time::timeout(SECOND, instances.wait_until(|all| all.len() == 1)).await.unwrap();
        }
        serving.stop().await;
        for (_, instances) in &mut watchers {
            tokio::time::timeout(SECOND, instances.wait_until(|all| all.is_empty())).await.unwrap();
        }
    }
}

/// D19: two runtimes in a process keep to their own settings, and the stop of one does not touch the other.
#[tokio::test(start_paused = true)]
async fn d19_runtimes_keep_their_own_settings() {
    let world = MemoryWorld::new();
    let of = |deadline: Duration, ttl: Duration| {
        settings(|settings| {
            settings.call_deadline = deadline;
            settings.lease_ttl = ttl;
            settings.drain_timeout = ttl;
        })
    };
    let one = runtime_with(&world, of(SECOND, 5 * SECOND)).await;
    let two = runtime_with(&world, of(3 * SECOND, 50 * SECOND)).await;
    let hang = |(): (), _: Context| pending::<Result<(), Fault>>();
    let _serving = two.endpoint("a/b/hang").unwrap().serve_unary(hang).await.unwrap();
    let _other = serve_id(&two.endpoint("a/b/who").unwrap()).await.unwrap();
    for (runtime, deadline) in [(&one, SECOND), (&two, 3 * SECOND)] {
        let client: Client<(), ()> = runtime.endpoint("a/b/hang").unwrap().client().await.unwrap();
        let began = Instant::now();
        assert_eq!(client.call(&()).await.unwrap_err().code(), "deadline_exceeded");
        assert_eq!(began.elapsed(), deadline);
    }
    assert!(one.stop().await.is_clean());
    assert_eq!((one.stopping().get(), two.stopping().get()), (true, false));
    let client: Client<(), u64> = two.endpoint("a/b/who").unwrap().client().await.unwrap();
    assert_eq!(client.call(&()).await.unwrap(), two.instance_id());
    tokio::time::sleep(200 * SECOND).await;
    assert!(matches!(two.lease().get(), LeaseState::Held { epoch: 1, .. }));
}

/// U7063: many workers of one endpoint live in one process; each is an instance of its own and is reached.
#[tokio::test(start_paused = true)]
async fn u7063_many_workers_live_in_one_process() {
    let world = MemoryWorld::new();
    let mut workers = Vec::new();
    for _ in 0..20 {
        let worker = runtime(&world).await;
        let serving = serve_id(&worker.endpoint("a/b/c").unwrap()).await.unwrap();
        workers.push((worker, serving));
    }
    let caller = runtime(&world).await;
    let client: Client<(), u64> = caller.endpoint("a/b/c").unwrap().client().await.unwrap();
    client.wait_for_instances(20, SECOND).await.unwrap();
    let mut answers: Vec<_> = join_all((0..20).map(|_| client.call(&()))).await;
    answers.sort_by_key(|answer| *answer.as_ref().unwrap());
    let mut ids: Vec<_> = workers.iter().map(|(worker, _)| worker.instance_id()).collect();
    ids.sort_unstable();
    assert_eq!(answers.into_iter().map(Result::unwrap).collect::<Vec<_>>(), ids);
}

/// D15: with every thread of the pool blocked for longer than two leases, the heartbeat goes on, on a thread
/// of its own.
#[test]
#[expect(clippy::disallowed_methods, reason = "it blocks real threads for real time")]
fn d15_a_busy_pool_does_not_lose_the_lease() {
    let ttl = Duration::from_millis(1000);
    let pool = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let world = MemoryWorld::new();
    let short = settings(|settings| settings.lease_ttl = ttl);
    let worker = pool.block_on(runtime_with(&world, short));
    let lease = world.leases();
    let blocked = Arc::new(AtomicUsize::new(0));
    for _ in 0..2 {
        let blocked = blocked.clone();
        pool.spawn(async move {
            blocked.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(ttl * 5 / 2);
            blocked.fetch_sub(1, Ordering::SeqCst);
        });
    }
    while blocked.load(Ordering::SeqCst) < 2 {
        std::thread::yield_now();
    }
    let (canary, sung) = std::sync::mpsc::channel();
    pool.spawn(async move { canary.send(()) });
    assert!(sung.recv_timeout(ttl * 2).is_err(), "the pool was not blocked");
    assert_eq!(blocked.load(Ordering::SeqCst), 2);
    assert_eq!((world.leases(), lease.len()), (lease, 1));
    assert!(matches!(worker.lease().get(), LeaseState::Held { epoch: 1, .. }));
    sung.recv().unwrap();
    assert!(pool.block_on(worker.stop()).is_clean());
}

/// D14: SIGTERM takes the same path as a call: every phase of the stop is run and reported, and the request in
/// flight is answered. Shown by a process of its own, which is this test again.
#[cfg(all(feature = "signals", unix))]
#[test]
fn d14_sigterm_takes_the_ordered_way() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Command, Stdio};

    const CHILD: &str = "SLIPRING_TEST_SIGTERM";
    if std::env::var_os(CHILD).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(until_sigterm());
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process::d14_sigterm_takes_the_ordered_way", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("serving") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the child ended early");
    }
    let kill = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert!(child.wait().unwrap().success(), "{rest}");
    let phases = [
        "deregister: done",
        "watcher grace: done",
        "drain: done",
        "unsubscribe: done",
        "revoke: done",
        "close: done",
    ];
    let found: Vec<_> =
        phases.iter().map(|phase| rest.find(phase).unwrap_or_else(|| panic!("{phase}: {rest}"))).collect();
    assert!(found.is_sorted(), "{rest}");
    assert!(rest.contains("answered Ok(\"late\")") && rest.contains("requests=1 abandoned=0"), "{rest}");
}

#[cfg(all(feature = "signals", unix))]
#[expect(clippy::print_stdout, reason = "it is how the child tells its parent")]
async fn until_sigterm() {
    let world = MemoryWorld::new();
    let (worker, caller) = (runtime(&world).await, runtime_with(&world, Settings::default()).await);
    let (started, running) = tokio::sync::oneshot::channel();
    let started = Arc::new(std::sync::Mutex::new(Some(started)));
    let handler = {
        let worker = worker.clone();
        move |(): (), _: Context| {
            let (started, worker) = (started.lock().unwrap().take(), worker.clone());
            async move {
                started.map(|started| started.send(()));
                worker.stopping().wait_for(|stopping| *stopping).await;
                Ok("late".to_owned())
            }
        }
    };
    let serving = worker.endpoint("a/b/c").unwrap().serve_unary(handler).await.unwrap();
    let client: Client<(), String> = caller.endpoint("a/b/c").unwrap().client().await.unwrap();
    let stop = async {
        running.await.unwrap();
        let mut stop = Box::pin(worker.run_until_signal());
        // Polled once, it listens.
        assert!(futures_util::poll!(&mut stop).is_pending());
        println!("serving");
        println!("{}", stop.await.unwrap());
    };
    let request = client.request(&()).deadline(60 * SECOND);
    let (answer, ()) = tokio::join!(request.call(), stop);
    println!("answered {answer:?}");
    drop(serving);
}
