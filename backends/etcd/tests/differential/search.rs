//! Draws cases until one fails, and makes that one small.

use std::cell::Cell;
use std::fmt::Debug;
use std::future::Future;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use slipring_core::{Environment, SystemEnvironment};
use tokio::runtime::Runtime;

/// How many sequences all tests of this program draw together, unless [`CASES`] says otherwise.
const CASES_DEFAULT: u32 = 2000;
/// How many tries make a sequence that failed a smaller one.
const SHRINKS_MAX: u32 = 5000;
const CASES: &str = "SLIPRING_DIFFERENTIAL_CASES";
const SEED: &str = "SLIPRING_DIFFERENTIAL_SEED";

/// A sequence that failed, as small as it gets: without any one of its steps it does not.
#[derive(Debug)]
pub(crate) struct Found<S> {
    pub steps: Vec<S>,
    pub reason: String,
}

/// How many cases are drawn in all.
pub(crate) fn cases() -> u32 {
    number(CASES).map_or(CASES_DEFAULT, |cases| u32::try_from(cases).expect("so many cases are too many"))
}

/// Draws `cases` sequences and tries each.
///
/// # Errors
/// A small one that failed.
pub(crate) fn search<S, T, F>(
    runtime: &Runtime,
    cases: u32,
    sequences: impl Strategy<Value = Vec<S>>,
    attempt: T,
) -> Result<(), Found<S>>
where
    S: Debug + Clone,
    T: Fn(Vec<S>) -> F,
    F: Future<Output = Result<(), String>>,
{
    let seed = number(SEED).unwrap_or_else(|| SystemEnvironment::new().random("differential test"));
    println!("{cases} cases; again with {SEED}={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config =
        Config { cases, max_shrink_iters: SHRINKS_MAX, failure_persistence: None, ..Config::default() };
    let failed = Cell::new(false);
    let attempt = |steps: Vec<S>| {
        let outcome = runtime.block_on(attempt(steps));
        // To make it small can take a while.
        if let Err(reason) = &outcome
            && !failed.replace(true)
        {
            println!("found, and being made smaller: {reason}");
        }
        outcome
    };
    let outcome = TestRunner::new_with_rng(config, rng)
        .run(&sequences, |steps| attempt(steps).map_err(TestCaseError::fail));
    match outcome {
        Ok(()) => Ok(()),
        Err(TestError::Fail(reason, steps)) => Err(smallest(steps, reason.to_string(), attempt)),
        Err(TestError::Abort(reason)) => panic!("no case was tried: {reason}"),
    }
}

/// Leaves out single steps until each is needed: what makes a step simple may have made another needless.
fn smallest<S: Clone>(
    mut steps: Vec<S>,
    mut reason: String,
    attempt: impl Fn(Vec<S>) -> Result<(), String>,
) -> Found<S> {
    let mut at = 0;
    while at < steps.len() {
        let mut fewer = steps.clone();
        fewer.remove(at);
        match attempt(fewer.clone()) {
            Ok(()) => at += 1,
            Err(other) => (steps, reason, at) = (fewer, other, 0),
        }
    }
    Found { steps, reason }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}
