//! What was asked for, how often it was executed, and what its caller was told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use slipring_core::{Effect, Error};

/// All calls of a run, by number. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger(Arc<Mutex<BTreeMap<u64, Asked>>>);

#[derive(Debug, Default)]
struct Asked {
    executed: u32,
    /// Nothing while it is under way, and if its caller gave it up or died.
    told: Option<Told>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Done,
    /// With the effect that it may have had.
    Failed(&'static str, Effect),
}

impl Ledger {
    /// A call begins; its number.
    pub(super) fn ask(&self) -> u64 {
        let mut calls = self.lock();
        let number = calls.last_key_value().map_or(0, |(last, _)| last + 1);
        calls.insert(number, Asked::default());
        number
    }

    /// A handler begins to work on a call.
    pub(super) fn execute(&self, number: u64) {
        self.lock().entry(number).or_default().executed += 1;
    }

    /// A call ended well.
    pub(super) fn done(&self, number: u64) {
        self.lock().entry(number).or_default().told = Some(Told::Done);
    }

    /// A call failed.
    pub(super) fn failed(&self, number: u64, error: &Error) {
        self.lock().entry(number).or_default().told = Some(Told::Failed(error.code(), error.effect()));
    }

    /// How many calls ended well.
    pub(super) fn answered(&self) -> usize {
        self.lock().values().filter(|asked| asked.told == Some(Told::Done)).count()
    }

    /// A call that was executed more often than it may be, or whose caller was told something that is not so.
    pub(super) fn wrong(&self) -> Option<String> {
        let calls = self.lock();
        let (number, asked) = calls.iter().find(|(_, asked)| !asked.is_right())?;
        Some(format!("call {number}: {asked:?}"))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Asked>> {
        self.0.lock().expect("no code panics while it holds the lock")
    }
}

impl Asked {
    /// No call of these is declared idempotent.
    fn is_right(&self) -> bool {
        match self.told {
            Some(Told::Done | Told::Failed(_, Effect::Applied)) => self.executed == 1,
            Some(Told::Failed(_, Effect::None)) => self.executed == 0,
            Some(Told::Failed(_, Effect::Unknown)) | None => self.executed <= 1,
        }
    }
}
