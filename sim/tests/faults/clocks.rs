//! Clocks differ, jump and drift.

use super::common::*;

/// F15, F16: wall time jumps ahead and back, of one node alone.
#[tokio::test(start_paused = true)]
async fn f15_f16_wall_time_jumps() {
    let world = World::new(7);
    let (a, b) = (world.node("a").environment(), world.node("b").environment());
    world.apply(&Fault::WallClock { node: named(), ahead_ms: 5_000 }).unwrap();
    assert_eq!(a.wall_time(), b.wall_time() + 5 * SECOND);
    world.apply(&Fault::WallClock { node: named(), ahead_ms: -7_000 }).unwrap();
    assert_eq!(a.wall_time(), b.wall_time() - 2 * SECOND);
}

/// F15: the wall clocks of nodes are off by what the seed says, within the bound, and stay so.
#[tokio::test(start_paused = true)]
async fn f15_wall_clocks_differ() {
    let offsets = |seed| {
        let setup = Setup::new().with_wall_offset_max(SECOND);
        let (right, world) = (World::new(seed).node("a").environment().wall_time(), World::with(seed, setup));
        ["a", "b", "c"].map(|name| {
            let shown = world.node(name).environment().wall_time();
            shown.duration_since(right).unwrap_or_else(|behind| behind.duration())
        })
    };
    let drawn: std::collections::BTreeSet<Duration> = (0..20).flat_map(offsets).collect();
    assert!(drawn.len() > 50 && drawn.iter().all(|off| *off <= SECOND), "{drawn:?}");
    assert_eq!(offsets(7), offsets(7));
}

/// F16: a store whose clock is fast ends leases early by everybody else's clock, and from the next change of the
/// rate on at the new one; what was passes as it did.
#[tokio::test(start_paused = true)]
async fn f16_the_clock_of_the_store_drifts() {
    let world = World::new(7);
    let (a, began) = (world.node("a"), Instant::now());
    let mut watch = watch(&world.node("b")).await;
    register(&a).await;
    assert_eq!(changes(&mut watch).await.unwrap(), ["a"]);
    world.apply(&Fault::ClockRate { ppm: 2_000_000 }).unwrap();
    sleep(SECOND).await;
    world.apply(&Fault::ClockRate { ppm: 500_000 }).unwrap();
    assert_eq!(changes(&mut watch).await.unwrap(), ["-a"]);
    // Two of six seconds passed in the first, and the other four take eight.
    assert_eq!(began.elapsed(), 9 * SECOND);
}
