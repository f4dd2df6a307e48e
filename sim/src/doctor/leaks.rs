use self::Symptom::{Content, Order, Time};

/// How two runs differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Symptom {
    /// The same events happen in another order.
    Order,
    /// The same event happens at another time.
    Time,
    /// Another event happens.
    Content,
}

/// A way for something to come into a run that no seed decides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leak {
    pub(super) symptoms: &'static [Symptom],
    pub(super) leaks: &'static str,
    pub(super) instead: &'static str,
}

const fn leak(symptoms: &'static [Symptom], leaks: &'static str, instead: &'static str) -> Leak {
    Leak { symptoms, leaks, instead }
}

const MAP: Leak = leak(&[Order, Content], "its order differs from run to run", "BTreeMap or IndexMap");
const SET: Leak = leak(&[Order, Content], "its order differs from run to run", "BTreeSet or IndexSet");
const CLOCK: Leak =
    leak(&[Time, Content], "the machine's clock is not the simulated one", "tokio::time::Instant::now");
const WALL: Leak =
    leak(&[Time, Content], "the machine's clock is not the simulated one", "Environment::wall_time");
const THREAD: Leak = leak(
    &[Order, Time],
    "the system decides when a thread runs",
    "Environment::spawn, and tokio::time::sleep",
);
const SOCKET: Leak = leak(
    &[Time, Content],
    "it reaches past the simulated network",
    "Environment::connect and Environment::listen",
);
const FILES: Leak = leak(&[Content], "files outlive a run", "what the program is given when it begins");
const PROCESS: Leak = leak(
    &[Time, Content],
    "another process is no part of the world",
    "what the program is given when it begins",
);
const TASK: Leak =
    leak(&[Order, Content], "no node owns the task, so that it outlives a crash", "Environment::spawn");
const ENTROPY: Leak = leak(&[Content, Time], "no seed decides it", "Environment::random");
const WATCH: Leak = leak(
    &[Order],
    "it wakes those who wait in a random order",
    "Notify or broadcast, which keep their order",
);

/// What is known by its path; a path stands for all that is in it.
pub(super) const PATHS: &[(&str, Leak)] = &[
    ("std::collections::HashMap", MAP),
    ("std::collections::hash_map::HashMap", MAP),
    ("std::collections::HashSet", SET),
    ("std::collections::hash_set::HashSet", SET),
    ("std::collections::hash_map::RandomState", ENTROPY),
    ("std::hash::RandomState", ENTROPY),
    ("std::time::Instant::now", CLOCK),
    ("std::time::SystemTime::now", WALL),
    ("std::thread::spawn", THREAD),
    ("std::thread::sleep", THREAD),
    ("std::thread::scope", THREAD),
    ("std::thread::Builder", THREAD),
    ("std::thread::current", THREAD),
    ("std::net::TcpStream", SOCKET),
    ("std::net::TcpListener", SOCKET),
    ("std::net::UdpSocket", SOCKET),
    ("std::net::ToSocketAddrs", SOCKET),
    ("std::os::unix::net", SOCKET),
    ("tokio::net", SOCKET),
    ("std::fs", FILES),
    ("tokio::fs", FILES),
    ("std::process::Command", PROCESS),
    ("std::process::id", PROCESS),
    ("tokio::process", PROCESS),
    ("tokio::spawn", TASK),
    ("tokio::task::spawn", TASK),
    ("tokio::task::spawn_local", TASK),
    ("tokio::task::spawn_blocking", TASK),
    ("tokio::task::JoinSet", TASK),
    ("tokio::sync::watch", WATCH),
    ("rand::thread_rng", ENTROPY),
    ("rand::rng", ENTROPY),
    ("rand::random", ENTROPY),
    ("rand::rngs::OsRng", ENTROPY),
    ("rand::rngs::ThreadRng", ENTROPY),
    ("getrandom", ENTROPY),
    ("fastrand", ENTROPY),
    ("uuid::Uuid::new_v4", ENTROPY),
    ("uuid::Uuid::now_v7", ENTROPY),
];

/// A `select!` that does not begin with `biased`.
pub(super) const SELECT: Leak =
    leak(&[Order, Content], "it polls its branches in a random order", "select! { biased; .. }");

/// A `static` that can change, or `thread_local!`.
pub(super) const GLOBAL: Leak =
    leak(&[Content], "all nodes share it, and so do runs in one process", "a value that each node owns");

/// Types in a `static` that can change.
pub(super) fn can_change(name: &str) -> bool {
    const CELLS: [&str; 10] =
        ["mut", "Mutex", "RwLock", "OnceLock", "OnceCell", "LazyLock", "LazyCell", "Lazy", "RefCell", "Cell"];
    CELLS.contains(&name) || name.starts_with("Atomic")
}

/// What a path leaks, if it does.
pub(super) fn leak_of(path: &[String]) -> Option<Leak> {
    let known = PATHS.iter().find(|(known, _)| {
        let known = known.split("::");
        let length = known.clone().count();
        path.len() >= length && known.zip(path).all(|(known, part)| known == part)
    });
    known.map(|(_, leak)| *leak)
}
