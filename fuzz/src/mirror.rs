//! A mirror of a store whose watches are lost, fall silent, are compacted away and come back.

use std::collections::BTreeMap;
use std::time::Duration;

use slipring::registry::mirror::{Mirror, Options, State, Step};
use slipring_core::{Change, Commit, Effect, Entry, Error, Key, Range, Start, Txn};
use slipring_memory::store::{Saved, Store, WatchId};
use slipring_memory::{OnRestore, Profile};
use tokio::time::Instant;

/// How long a watch may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// The mirror: pairs of bytes, an operation each; what is none is skipped. In the end the mirror is given the
/// time to recover, and has to show the store.
pub fn mirror(data: &[u8]) {
    let mut session = Session::new();
    for pair in data.chunks_exact(2) {
        session.run(pair[0], pair[1]);
        assert_eq!(&session.view, session.mirror.entries(), "the changes do not add up to the entries");
    }
    session.recover();
}

struct Session {
    store: Store,
    saved: Saved,
    began: Instant,
    now: Duration,
    mirror: Mirror,
    watch: Option<WatchId>,
    /// What the changes add up to that the mirror handed out.
    view: BTreeMap<Key, Entry>,
}

impl Session {
    fn new() -> Self {
        let profile = Profile::exact().with_history_revisions_max(8).with_on_restore(OnRestore::Silence);
        let began = Instant::now();
        Self {
            store: Store::new(profile, 7),
            saved: Saved::empty(),
            began,
            now: Duration::ZERO,
            mirror: Mirror::new(began, Options::new(SILENCE_MAX), 7),
            watch: None,
            view: BTreeMap::new(),
        }
    }

    fn run(&mut self, letter: u8, argument: u8) {
        match letter {
            b'+' => self.now += Duration::from_millis(100 * u64::from(argument)),
            b'p' => self.write(Txn::new().put(name(argument), vec![argument], None)),
            b'd' => self.write(Txn::new().delete(name(argument))),
            b'2' => self.write(Txn::new().put(name(argument), "two", None).delete(name(argument ^ 1))),
            b's' => self.step(),
            b'o' => self.deliver(),
            // What is next is lost: a defect that only the regular comparison finds.
            b'l' => drop(self.watch.and_then(|watch| self.store.poll(watch).ok())),
            b'e' => self.end(argument),
            b'f' => drop(self.store.compact(self.store.revision())),
            b'S' => self.saved = self.store.export(),
            b'R' => {
                self.store.import(self.now, self.saved.clone());
            }
            _ => {}
        }
    }

    fn at(&self) -> Instant {
        self.began + self.now
    }

    fn write(&mut self, txn: Txn) {
        let committed = self.store.commit(self.now, txn).expect("the store takes small transactions");
        assert!(matches!(committed, Commit::Applied(_)), "nothing guards it");
    }

    fn step(&mut self) {
        let Step::Open(start) = self.mirror.poll(self.at()) else { return };
        assert_eq!(start, Start::Snapshot, "the store may have been put back since");
        self.close();
        match self.store.watch(self.now, range(), start) {
            Ok((watch, base)) => {
                self.watch = Some(watch);
                let changes = self.mirror.handle_watch(self.at(), base);
                self.apply(changes);
            }
            Err(error) => panic!("a snapshot is always there: {error}"),
        }
    }

    fn deliver(&mut self) {
        let Some(watch) = self.watch else { return };
        match self.store.poll(watch) {
            Ok(batch) => {
                let batch = batch.or_else(|| self.store.progress(watch));
                let changes = batch.map(|batch| self.mirror.handle_batch(self.at(), batch));
                self.apply(changes.unwrap_or_default());
            }
            Err(error) => self.fail(error),
        }
    }

    fn end(&mut self, argument: u8) {
        if self.watch.is_some() {
            self.fail(match argument % 3 {
                0 => Error::unavailable("store", "the connection was cut", Effect::None),
                1 => Error::compacted(self.store.oldest()),
                _ => Error::lagged(1),
            });
        }
    }

    fn fail(&mut self, error: Error) {
        self.close();
        self.mirror.handle_end(self.at(), error);
    }

    fn close(&mut self) {
        if let Some(watch) = self.watch.take() {
            self.store.unwatch(watch);
        }
    }

    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Put(entry) => drop(self.view.insert(entry.key.clone(), entry)),
                Change::Delete(key) => drop(self.view.remove(&key)),
            }
        }
    }

    /// After two comparisons and two silences the mirror shows the store, whatever happened before.
    fn recover(&mut self) {
        for _ in 0..200 {
            self.now += Duration::from_secs(1);
            self.step();
            for _ in 0..16 {
                self.deliver();
            }
        }
        assert!(matches!(self.mirror.state(), State::Live(_)), "{:?}", self.mirror.state());
        let stored = self.store.read(self.now, &range()).entries;
        let stored: BTreeMap<_, _> = stored.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        assert_eq!(self.mirror.entries(), &stored);
        assert_eq!(self.view, stored);
    }
}

fn range() -> Range {
    Range::All
}

fn name(number: u8) -> Key {
    Key::new(format!("key/{}", number % 8)).expect("a legal key")
}
