use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// How a backend did: the result of every case, in the order of the table. Text by `Display`, JSON by
/// [`to_json`](Self::to_json).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// The version of the kit.
    pub kit: &'static str,
    /// The cases.
    pub cases: Vec<CaseReport>,
}

/// How one case went.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CaseReport {
    /// The case's name.
    pub name: &'static str,
    /// The part of the contracts that it is about.
    pub group: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// What it measured.
    pub notes: Vec<String>,
    /// How long it took, by the clock of the run.
    pub took: Duration,
}

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// The backend keeps this part of the contract.
    Passed,
    /// It does not.
    Failed {
        /// What was expected, what came, and where in the kit it was noticed.
        reason: String,
    },
    /// It does not claim to.
    Skipped {
        /// The capability that is not declared.
        undeclared: String,
    },
}

impl Report {
    pub(crate) fn new(cases: Vec<CaseReport>) -> Self {
        Self { kit: env!("CARGO_PKG_VERSION"), cases }
    }

    /// The names of the cases that passed.
    pub fn passed(&self) -> Vec<&'static str> {
        self.named(|outcome| matches!(outcome, Outcome::Passed))
    }

    /// The names of the cases that failed.
    pub fn failed(&self) -> Vec<&'static str> {
        self.named(|outcome| matches!(outcome, Outcome::Failed { .. }))
    }

    /// The names of the cases that were skipped.
    pub fn skipped(&self) -> Vec<&'static str> {
        self.named(|outcome| matches!(outcome, Outcome::Skipped { .. }))
    }

    /// The whole report as JSON: the kit's version, how many cases passed, failed and were skipped, and each
    /// case with its outcome.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Json<'a> {
            kit: &'static str,
            passed: usize,
            failed: usize,
            skipped: usize,
            cases: &'a [CaseReport],
        }
        let json = Json {
            kit: self.kit,
            passed: self.passed().len(),
            failed: self.failed().len(),
            skipped: self.skipped().len(),
            cases: &self.cases,
        };
        serde_json::to_string_pretty(&json).expect("a report has only text keys and finite numbers")
    }

    /// For tests.
    ///
    /// # Panics
    /// With the whole report, if a case failed, or if others than exactly these were skipped.
    #[track_caller]
    pub fn assert_passed(&self, skips: &[&str]) {
        let mut expected = skips.to_vec();
        expected.sort_unstable();
        let mut skipped = self.skipped();
        skipped.sort_unstable();
        assert!(self.failed().is_empty(), "{self}");
        assert!(skipped == expected, "{self}\nexpected to be skipped: {expected:?}\nskipped: {skipped:?}");
    }

    fn named(&self, want: impl Fn(&Outcome) -> bool) -> Vec<&'static str> {
        self.cases.iter().filter(|case| want(&case.outcome)).map(|case| case.name).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for case in &self.cases {
            writeln!(f, "{case}")?;
        }
        let (passed, failed, skipped) = (self.passed(), self.failed(), self.skipped());
        write!(
            f,
            "conformance kit {}: {} passed, {} failed, {} skipped",
            self.kit,
            passed.len(),
            failed.len(),
            skipped.len()
        )
    }
}

impl fmt::Display for CaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, group, .. } = self;
        match &self.outcome {
            Outcome::Passed => write!(f, "pass  {group}::{name}")?,
            Outcome::Failed { reason } => write!(f, "FAIL  {group}::{name}: {reason}")?,
            Outcome::Skipped { undeclared } => write!(f, "skip  {group}::{name}: undeclared: {undeclared}")?,
        }
        self.notes.iter().try_for_each(|note| write!(f, "\n      {note}"))
    }
}
