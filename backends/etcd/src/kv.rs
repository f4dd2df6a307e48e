use std::collections::BTreeSet;

use etcd_client::proto::PbKeyValue;
use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, TxnOp};
use slipring_core::{
    Commit, Effect, Entry, Error, Guard, Key, LeaseId, Op, Prefix, Range, Result, Revision, Snapshot, Txn,
};

use crate::connection::Connection;
use crate::error::{ETCD, error_of, is_answer_too_large, is_lease_unknown};
use crate::lease::id_on_the_wire;

/// How many keys a transaction may guard, and how many it may write (`--max-txn-ops`).
pub(crate) const ATOMIC_KEYS_MAX: usize = 128;
/// The largest value, in bytes: what is left of a request (`--max-request-bytes`) is for keys and guards.
pub(crate) const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// The largest request, in bytes: etcd's 1.5 MiB without what it adds itself.
const REQUEST_BYTES_MAX: usize = 1536 * 1024 - 4096;
/// What a guard or an operation takes in a request beyond its key and value, in bytes; a little more than it
/// is.
const ITEM_BYTES: usize = 64;

/// How many entries the first page of a read has.
const PAGE_ENTRIES_FIRST: usize = 1_000;
/// How many entries a page has at most.
const PAGE_ENTRIES_MAX: usize = 10_000;
/// How many bytes a page is meant to have.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// The largest answer that is accepted, in bytes.
pub(crate) const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How often a read is begun whose revision is compacted before it ends.
const READS_MAX: usize = 5;

/// Our keys as they stand in etcd: behind the prefix of the deployment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(prefix: Option<&Prefix>) -> Self {
        Self { prefix: prefix.map(|prefix| prefix.as_str().to_owned()).unwrap_or_default() }
    }

    fn stored(&self, key: &Key) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_str().as_bytes()].concat()
    }

    /// None for a key that somebody else wrote, and that is none of ours.
    pub(crate) fn ours(&self, stored: &[u8]) -> Option<Key> {
        let key = std::str::from_utf8(stored).ok()?.strip_prefix(&self.prefix)?;
        Key::new(key).ok()
    }

    /// The first key of a range, and the key behind its last; none if the first is the only one.
    pub(crate) fn bounds(&self, range: &Range) -> (Vec<u8>, Option<Vec<u8>>) {
        let below = |prefix: Vec<u8>| {
            let end = behind(&prefix);
            (prefix, Some(end))
        };
        match range {
            Range::Key(key) => (self.stored(key), None),
            Range::Prefix(prefix) => below([self.prefix.as_bytes(), prefix.as_str().as_bytes()].concat()),
            // How etcd writes "from the first key to the last".
            Range::All if self.prefix.is_empty() => (vec![0], Some(vec![0])),
            Range::All => below(self.prefix.clone().into_bytes()),
        }
    }

    pub(crate) fn entry(&self, stored: PbKeyValue) -> Option<Entry> {
        let key = self.ours(&stored.key)?;
        let lease = u64::try_from(stored.lease).ok().filter(|id| *id != 0).map(LeaseId);
        Some(Entry { key, value: stored.value.into(), modified: revision(stored.mod_revision), lease })
    }
}

/// The key behind all that begin with this. Text has no byte 0xff, so the last byte can always grow.
fn behind(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    *end.last_mut().expect("a prefix is not empty") += 1;
    end
}

/// etcd's revisions are signed, and never negative.
pub(crate) fn revision(signed: i64) -> Revision {
    Revision(u64::try_from(signed).unwrap_or(0))
}

/// Reads a range whole: page by page, all at the revision of the first.
pub(crate) async fn read(connection: &Connection, keys: &Keys, range: &Range) -> Result<Snapshot> {
    for _ in 0..READS_MAX {
        match read_at_one_revision(connection, keys, range).await {
            // Compacted under our hands: what is left is to begin anew.
            Err(Error::Compacted { .. }) => {}
            done => return done,
        }
    }
    let cause = format!("compacted faster than it can be read, {READS_MAX} times");
    Err(Error::unavailable(ETCD, cause, Effect::None))
}

async fn read_at_one_revision(connection: &Connection, keys: &Keys, range: &Range) -> Result<Snapshot> {
    let (mut from, end) = keys.bounds(range);
    let mut entries = Vec::new();
    let mut at = None;
    let mut page_entries = PAGE_ENTRIES_FIRST;
    loop {
        let mut options = GetOptions::new().with_limit(page_entries as i64);
        if let Some(end) = &end {
            options = options.with_range(end.clone());
        }
        if let Some(Revision(at)) = at {
            options = options.with_revision(at as i64);
        }
        let key = from.clone();
        let request = |client: etcd_client::Client| async move {
            let mut kv = client.kv_client().max_decoding_message_size(ANSWER_BYTES_MAX);
            kv.get(key, Some(options)).await
        };
        let mut page = match connection.call(Effect::None, request).await? {
            Ok(page) => page,
            Err(error) if is_answer_too_large(&error) && page_entries > 1 => {
                page_entries /= 2;
                continue;
            }
            Err(error) => return Err(error_of(&error, Effect::None)),
        };
        let at = *at.get_or_insert(revision(page.header().map_or(0, |header| header.revision())));
        let more = page.more();
        let stored = page.take_kvs();
        let bytes: usize = stored.iter().map(|one| one.key().len() + one.value().len() + ITEM_BYTES).sum();
        if let Some(last) = stored.last() {
            from = [last.key(), &[0]].concat();
            page_entries = (PAGE_BYTES * stored.len() / bytes).clamp(1, PAGE_ENTRIES_MAX);
        }
        entries.extend(stored.into_iter().filter_map(|one| keys.entry(one.0)));
        if !more {
            return Ok(Snapshot { revision: at, entries });
        }
    }
}

/// Executes a transaction.
pub(crate) async fn commit(connection: &Connection, keys: &Keys, txn: Txn) -> Result<Commit> {
    check(keys, &txn)?;
    let guards: Vec<_> = txn.guards.iter().map(|guard| compare(keys, guard)).collect();
    let leases: BTreeSet<_> = txn.ops.iter().filter_map(lease).collect();
    let ops = txn.ops.into_iter().map(|op| operation(keys, op)).collect::<Result<Vec<_>>>()?;
    let txn = etcd_client::Txn::new().when(guards).and_then(ops);
    let request = |client: etcd_client::Client| async move { client.kv_client().txn(txn).await };
    match connection.call(Effect::Unknown, request).await? {
        Ok(answer) if answer.succeeded() => {
            Ok(Commit::Applied(revision(answer.header().map_or(0, |header| header.revision()))))
        }
        Ok(_) => Ok(Commit::Refused),
        Err(error) if is_lease_unknown(&error) => Err(lost(connection, leases).await),
        Err(error) => Err(error_of(&error, Effect::Unknown)),
    }
}

fn check(keys: &Keys, txn: &Txn) -> Result<()> {
    txn.check(ATOMIC_KEYS_MAX)?;
    if txn.guards.len() > ATOMIC_KEYS_MAX {
        let hint = format!("etcd takes at most {ATOMIC_KEYS_MAX}");
        return Err(Error::unsupported(format!("a transaction with {} guards", txn.guards.len()), hint));
    }
    let values = txn.ops.iter().map(|op| match op {
        Op::Put { value, .. } => value.len(),
        Op::Delete { .. } => 0,
    });
    if let Some(actual) = values.clone().find(|bytes| *bytes > VALUE_BYTES_MAX) {
        return Err(Error::payload_too_large(VALUE_BYTES_MAX, actual));
    }
    let guarded = txn.guards.iter().map(|guard| match guard {
        Guard::Absent(key) | Guard::Unchanged(key, _) => key,
    });
    let named = guarded.chain(txn.ops.iter().map(Op::key));
    let named: usize = named.map(|key| keys.prefix.len() + key.as_str().len() + ITEM_BYTES).sum();
    let actual = named + values.sum::<usize>();
    if actual > REQUEST_BYTES_MAX {
        return Err(Error::payload_too_large(REQUEST_BYTES_MAX, actual));
    }
    Ok(())
}

fn compare(keys: &Keys, guard: &Guard) -> Compare {
    match guard {
        Guard::Absent(key) => Compare::create_revision(keys.stored(key), CompareOp::Equal, 0),
        // A revision that etcd cannot have is one that no key has.
        Guard::Unchanged(key, Revision(at)) => {
            let at = i64::try_from(*at).ok().filter(|at| *at > 0).unwrap_or(i64::MAX);
            Compare::mod_revision(keys.stored(key), CompareOp::Equal, at)
        }
    }
}

fn operation(keys: &Keys, op: Op) -> Result<TxnOp> {
    Ok(match op {
        Op::Delete { key } => TxnOp::delete(keys.stored(&key), None),
        Op::Put { key, value, lease } => {
            let options = lease.map(id_on_the_wire).transpose()?.map(|id| PutOptions::new().with_lease(id));
            TxnOp::put(keys.stored(&key), value, options)
        }
    })
}

fn lease(op: &Op) -> Option<LeaseId> {
    match op {
        Op::Put { lease, .. } => *lease,
        Op::Delete { .. } => None,
    }
}

/// Which of the leases does not exist? etcd does not say.
async fn lost(connection: &Connection, leases: BTreeSet<LeaseId>) -> Error {
    let ask = leases.len() > 1;
    for lease in leases {
        let Ok(id) = id_on_the_wire(lease) else { return Error::lease_lost(lease) };
        let request =
            |client: etcd_client::Client| async move { client.lease_client().time_to_live(id, None).await };
        // -1 says that there is none; 0, that it is in its last second.
        if !ask || matches!(connection.call(Effect::None, request).await, Ok(Ok(lives)) if lives.ttl() < 0) {
            return Error::lease_lost(lease);
        }
    }
    Error::unavailable(ETCD, "one of the leases did not exist when it was to be used", Effect::None)
}
