use etcd_client::proto::{PbKeyValue, PbResponseHeader};
use futures_util::FutureExt;
use slipring_core::{Entry, Key, LeaseId};

use super::*;

/// The watches of a stream, and the queues of those that were made.
struct Fixture {
    watchers: Watchers,
    history: Arc<Mutex<History>>,
}

type Answer = oneshot::Receiver<Result<()>>;

impl Fixture {
    fn new() -> Self {
        let history = Arc::<Mutex<History>>::default();
        let mut watchers = Watchers::new(Keys::default(), history.clone());
        // The answer to what opened the stream.
        let opened = PbWatchResponse { created: true, canceled: true, watch_id: NO_WATCH, ..at(1) };
        assert_eq!(watchers.handle(opened), None);
        Self { watchers, history }
    }

    fn ask(&mut self, id: i64, after: u64) -> (Queue, Answer) {
        let (made, answer) = oneshot::channel();
        let queue = Queue::new(3, 1_000_000);
        self.watchers.add(id, Watcher::new(queue.clone(), Revision(after), made));
        (queue, answer)
    }

    fn made(&mut self, id: i64, now: u64) -> Option<i64> {
        self.watchers.handle(PbWatchResponse { created: true, watch_id: id, ..at(now) })
    }

    /// A watch that the server has made at its revision `after`.
    fn watch(&mut self, id: i64, after: u64) -> Queue {
        let (queue, mut answer) = self.ask(id, after);
        assert_eq!(self.made(id, after), None);
        assert_eq!(answer.try_recv(), Ok(Ok(())));
        queue
    }

    fn show(&mut self, id: i64, events: &[(&str, i64)], fragment: bool) -> Option<i64> {
        let events = events.iter().map(|(key, at)| put(key, *at)).collect();
        self.watchers.handle(PbWatchResponse { watch_id: id, events, fragment, ..at(100) })
    }

    fn progress(&mut self, now: u64) {
        self.watchers.ask_progress();
        assert_eq!(self.watchers.handle(PbWatchResponse { watch_id: NO_WATCH, ..at(now) }), None);
    }
}

fn at(revision: u64) -> PbWatchResponse {
    let header = PbResponseHeader { cluster_id: 1, revision: revision as i64, ..Default::default() };
    PbWatchResponse { header: Some(header), ..Default::default() }
}

fn put(key: &str, at: i64) -> PbEvent {
    let kv = PbKeyValue { key: key.into(), mod_revision: at, ..Default::default() };
    PbEvent { kv: Some(kv), ..Default::default() }
}

fn entry(key: &str, at: u64) -> Change {
    let key = Key::new(key).unwrap();
    Change::Put(Entry { key, value: Default::default(), modified: Revision(at), lease: None })
}

fn batch(at: u64, keys: &[&str]) -> Batch {
    Batch { revision: Revision(at), changes: keys.iter().map(|key| entry(key, at)).collect() }
}

/// What is there now.
fn items(queue: &Queue) -> Vec<Result<Batch>> {
    std::iter::from_fn(|| queue.next().now_or_never().flatten()).collect()
}

fn batches(queue: &Queue) -> Vec<Batch> {
    items(queue).into_iter().map(|item| item.unwrap()).collect()
}

/// Several revisions in one message are as many batches, in the server's order; each watch gets its own.
#[test]
fn w4_a_message_is_taken_apart() {
    let mut stream = Fixture::new();
    let (one, two) = (stream.watch(1, 5), stream.watch(2, 5));
    stream.show(1, &[("z", 6), ("a", 6), ("b", 8)], false);
    assert_eq!(batches(&one), [batch(6, &["z", "a"]), batch(8, &["b"])]);
    assert_eq!(batches(&two), []);
}

/// A revision that goes on in the next fragment is held back until it is whole; those before it are not.
#[test]
fn w4_fragments_are_put_together() {
    let mut stream = Fixture::new();
    let queue = stream.watch(1, 5);
    stream.show(1, &[("a", 6), ("b", 7)], true);
    assert_eq!(batches(&queue), [batch(6, &["a"])]);
    stream.progress(100);
    assert_eq!(batches(&queue), [batch(6, &[])], "progress is not ahead of what is held back");
    stream.show(1, &[("c", 7)], true);
    assert_eq!(batches(&queue), []);
    stream.show(1, &[("d", 7), ("e", 8)], false);
    assert_eq!(batches(&queue), [batch(7, &["b", "c", "d"]), batch(8, &["e"])]);
}

/// W10, W2: nothing from before the start is shown, and nothing twice.
#[test]
fn w10_nothing_old_and_nothing_twice() {
    let mut stream = Fixture::new();
    let queue = stream.watch(1, 5);
    stream.show(1, &[("a", 4), ("b", 5), ("c", 6)], false);
    stream.show(1, &[("c", 6), ("d", 7)], false);
    assert_eq!(batches(&queue), [batch(6, &["c"]), batch(7, &["d"])]);
}

/// Deletions and leases are told; keys that are none of ours are left out, and a revision of nothing else too.
#[test]
fn events_become_changes() {
    let mut stream = Fixture::new();
    let queue = stream.watch(1, 5);
    let leased =
        PbKeyValue { key: b"l".into(), value: b"v".into(), lease: 9, mod_revision: 6, ..Default::default() };
    let events = vec![
        PbEvent { kv: Some(leased), ..Default::default() },
        PbEvent { r#type: 1, ..put("d", 6) },
        put("\n", 6),
        put("\n", 7),
    ];
    stream.watchers.handle(PbWatchResponse { watch_id: 1, events, ..at(7) });
    let Change::Put(mut entry) = entry("l", 6) else { unreachable!() };
    (entry.value, entry.lease) = ("v".into(), Some(LeaseId(9)));
    let changes = vec![Change::Put(entry), Change::Delete(Key::new("d").unwrap())];
    assert_eq!(batches(&queue), [Batch { revision: Revision(6), changes }]);
}

/// W6: progress is not ordered with events, so it shows the last revision that was delivered, and no more.
#[test]
fn w6_progress_never_advances() {
    let mut stream = Fixture::new();
    let queue = stream.watch(1, 5);
    stream.progress(90);
    assert_eq!(batches(&queue), [batch(5, &[])]);
    stream.show(1, &[("a", 80)], false);
    assert_eq!(batches(&queue), [batch(80, &["a"])]);
    stream.progress(91);
    assert_eq!(batches(&queue), [batch(80, &[])]);
}

/// Answers are matched to the watches in the order in which they were asked for, also past one whose reader
/// has gone; what the server still sends to that one is ignored.
#[test]
fn f37_a_reader_may_go_before_the_answer() {
    let mut stream = Fixture::new();
    let (gone, _) = stream.ask(1, 5);
    let (stays, mut answer) = stream.ask(2, 5);
    assert!(stream.watchers.remove(1));
    assert_eq!(stream.made(1, 5), None);
    assert!(answer.try_recv().is_err(), "it is not the answer to the second");
    assert_eq!(stream.made(2, 5), None);
    assert_eq!(answer.try_recv(), Ok(Ok(())));
    stream.show(1, &[("a", 6)], false);
    stream.show(2, &[("a", 6)], false);
    assert_eq!((batches(&gone), batches(&stays)), (vec![], vec![batch(6, &["a"])]));
}

/// F29: a start beyond the server's revision, at which etcd stays silent, is refused, and cancelled there.
#[test]
fn f29_a_future_revision_is_compacted() {
    let mut stream = Fixture::new();
    let (_, mut answer) = stream.ask(1, 6);
    assert_eq!(stream.made(1, 5), Some(1));
    assert_eq!(answer.try_recv(), Ok(Err(Error::compacted(Revision(5)))));
}

/// F39: a watch that just stays silent, because the store went back behind what it has shown, is ended by the
/// next sign of life; one that was not there yet goes on. New ones from the old history are refused.
#[test]
fn f39_a_silent_watch_on_an_emptied_store_ends() {
    let mut stream = Fixture::new();
    let (old, young) = (stream.watch(1, 5), stream.watch(2, 5));
    stream.show(1, &[("a", 50)], false);
    stream.progress(20);
    assert_eq!(items(&old), [Ok(batch(50, &["a"])), Err(Error::compacted(Revision(20)))]);
    assert_eq!(batches(&young), [batch(5, &[])]);
    let (_, mut answer) = stream.ask(3, 19);
    assert_eq!(stream.made(3, 21), Some(3));
    assert_eq!(answer.try_recv(), Ok(Err(Error::compacted(Revision(21)))));
    assert!(stream.history.lock().unwrap().newest() < Revision(50));
}

/// A sign of life that was under way while events came is not taken for another history.
#[test]
fn an_overtaken_sign_of_life_ends_nothing() {
    let mut stream = Fixture::new();
    let queue = stream.watch(1, 5);
    stream.watchers.ask_progress();
    stream.show(1, &[("a", 50)], false);
    stream.watchers.handle(PbWatchResponse { watch_id: NO_WATCH, ..at(49) });
    assert_eq!(batches(&queue), [batch(50, &["a"])]);
    stream.show(1, &[("b", 51)], false);
    assert_eq!(batches(&queue), [batch(51, &["b"])]);
}

/// W11, D05: whatever ends a watch at the server is the last item of that watch, and of no other.
#[test]
fn d05_every_end_is_told() {
    for (compact_revision, reason, code) in [
        (9, "", "compacted"),
        (0, "etcdserver: permission denied", "unauthorized"),
        (0, "why", "unavailable"),
    ] {
        let mut stream = Fixture::new();
        let (ended, stays) = (stream.watch(1, 5), stream.watch(2, 5));
        let cancel_reason = reason.to_owned();
        let end = PbWatchResponse { watch_id: 1, canceled: true, compact_revision, cancel_reason, ..at(0) };
        assert_eq!(stream.watchers.handle(end), None);
        let [Err(error)] = &items(&ended)[..] else { panic!("one item") };
        assert_eq!(error.code(), code);
        stream.show(2, &[("a", 6)], false);
        assert_eq!(batches(&stays), [batch(6, &["a"])]);
    }
}

/// A watch that is refused tells whoever asks for it, under its own id or under none.
#[test]
fn a_refusal_is_the_answer() {
    for watch_id in [1, NO_WATCH] {
        let mut stream = Fixture::new();
        let (_, mut answer) = stream.ask(1, 5);
        let (_, mut next) = stream.ask(2, 5);
        let cancel_reason = "etcdserver: permission denied".to_owned();
        let refused = PbWatchResponse { watch_id, created: true, canceled: true, cancel_reason, ..at(5) };
        assert_eq!(stream.watchers.handle(refused), None);
        assert_eq!(answer.try_recv().unwrap().unwrap_err().code(), "unauthorized");
        stream.made(2, 5);
        assert_eq!(next.try_recv(), Ok(Ok(())));
    }
}

/// SW4: a reader that is too slow is told, and its watch cancelled at the server; the others go on.
#[test]
fn sw4_a_slow_reader_is_told() {
    let mut stream = Fixture::new();
    let (slow, quick) = (stream.watch(1, 5), stream.watch(2, 5));
    for revision in 6..9 {
        assert_eq!(stream.show(1, &[("a", revision)], false), None);
        stream.show(2, &[("a", revision)], false);
    }
    assert_eq!(batches(&quick).len(), 3);
    assert_eq!(stream.show(1, &[("a", 9)], false), Some(1));
    assert_eq!(items(&slow), [Err(Error::compacted(Revision(9)))]);
    stream.show(2, &[("a", 9)], false);
    assert_eq!(batches(&quick), [batch(9, &["a"])]);
}

/// The end of the stream is the last item of all its watches, and the answer to those that are being made.
#[test]
fn the_end_of_the_stream_is_the_end_of_all() {
    let mut stream = Fixture::new();
    let made = stream.watch(1, 5);
    let (_, mut answer) = stream.ask(2, 5);
    let error = Error::unavailable("etcd", "gone", Effect::None);
    stream.watchers.end(&error);
    assert_eq!(items(&made), [Err(error.clone())]);
    assert_eq!(answer.try_recv(), Ok(Err(error)));
}
