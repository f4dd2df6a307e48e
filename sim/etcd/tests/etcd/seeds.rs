//! A scenario for many seeds.

use std::fmt::Write as _;

use slipring_memory::Profile;
use slipring_sim::check::check;
use slipring_sim::{World, simulate};

use crate::scene::setup;

/// How many seeds all tests run, in hundredths of what they run by themselves.
const SEEDS_PERCENT: &str = "SLIPRING_SIM_ETCD_SEEDS_PERCENT";

/// Runs a scenario for so many seeds, and judges what the store and the recorded watches did. A failure names
/// its seed.
#[expect(clippy::disallowed_methods, reason = "how fast seeds run is shown, and nothing depends on it")]
pub(crate) fn each_seed(what: &str, seeds: u64, scenario: impl AsyncFn(World)) {
    let percent = std::env::var(SEEDS_PERCENT).map_or(100, |text| text.parse::<u64>().unwrap());
    let seeds = (seeds * percent / 100).max(1);
    let began = std::time::Instant::now();
    for seed in 0..seeds {
        let report = simulate(seed, setup(), async |world| scenario(world).await);
        let violations = check(&report.history, Profile::etcd());
        let shown = violations.iter().fold(String::new(), |mut shown, violation| {
            let _ = writeln!(shown, "{violation}");
            shown
        });
        assert!(violations.is_empty(), "seed {seed}: {shown}");
    }
    let took = began.elapsed();
    println!("{what}: {seeds} seeds, {:.1} seeds/s", seeds as f64 / took.as_secs_f64());
}
