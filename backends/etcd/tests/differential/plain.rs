//! etcd through its plain client: what is compared here is etcd itself, with nothing of ours in between that
//! could hide a difference. Fit for servers that are well, and for nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, EventType, GetOptions, KeyValue, LeaseGrantOptions, PutOptions, TxnOp,
    WatchOptions,
};
use futures_util::StreamExt;
use slipring_core::{
    Base, Batch, Change, Commit, Discovery, DiscoveryCapabilities, Effect, Entry, Error, Guard, Key, Lease,
    LeaseId, Op, Range, Result, Revision, Snapshot, Start, Txn, Watch, async_trait,
};

use crate::memory::profile;
use crate::side::Operator;

/// Everything below a prefix of an etcd.
#[derive(Clone)]
pub(crate) struct Plain {
    client: Client,
    prefix: String,
    leases: Arc<AtomicU64>,
}

impl Plain {
    pub(crate) fn new(client: Client, prefix: String) -> Self {
        // Names of leases have to differ from those of other sequences on the same server.
        let leases = Arc::new(AtomicU64::new(slipring_core::Environment::random(
            &slipring_core::SystemEnvironment::new(),
            "lease id",
        )));
        Self { client, prefix, leases }
    }

    /// The beginning and the end of a range; no end for a single key.
    fn bounds(&self, range: &Range) -> (Vec<u8>, Vec<u8>) {
        let below = |prefix: String| {
            let mut end = prefix.clone().into_bytes();
            *end.last_mut().expect("a prefix ends in a separator") += 1;
            (prefix.into_bytes(), end)
        };
        match range {
            Range::All => below(self.prefix.clone()),
            Range::Prefix(prefix) => below(format!("{}{prefix}", self.prefix)),
            Range::Key(key) => (self.key(key), Vec::new()),
        }
    }

    fn key(&self, key: &Key) -> Vec<u8> {
        format!("{}{key}", self.prefix).into_bytes()
    }

    fn parse(&self, key: &[u8]) -> Key {
        let text = std::str::from_utf8(key).unwrap();
        Key::new(text.strip_prefix(&self.prefix).expect("only what was asked for")).unwrap()
    }

    fn entry(&self, kv: &KeyValue) -> Entry {
        Entry {
            key: self.parse(kv.key()),
            value: kv.value().to_vec().into(),
            modified: revision(kv.mod_revision()),
            lease: (kv.lease() != 0).then(|| LeaseId(kv.lease().cast_unsigned())),
        }
    }

    fn guards(&self, guard: &Guard) -> Vec<Compare> {
        match guard {
            Guard::Absent(key) => vec![Compare::create_revision(self.key(key), CompareOp::Equal, 0)],
            // A key that is not there has the revision 0, and none has a negative one.
            Guard::Unchanged(key, revision) => vec![
                Compare::mod_revision(self.key(key), CompareOp::Equal, revision.0.cast_signed()),
                Compare::create_revision(self.key(key), CompareOp::Greater, 0),
            ],
        }
    }

    fn op(&self, op: &Op) -> TxnOp {
        match op {
            Op::Delete { key } => TxnOp::delete(self.key(key), None),
            Op::Put { key, value, lease } => {
                let id = lease.map_or(0, |lease| lease.0.cast_signed());
                TxnOp::put(self.key(key), value.to_vec(), Some(PutOptions::new().with_lease(id)))
            }
        }
    }
}

#[async_trait]
impl Discovery for Plain {
    /// What the simulator says that etcd can do.
    async fn capabilities(&self) -> Result<DiscoveryCapabilities> {
        Ok(profile().discovery)
    }

    async fn read(&self, range: Range) -> Result<Snapshot> {
        let (key, end) = self.bounds(&range);
        let mut kv = self.client.kv_client().max_decoding_message_size(usize::MAX);
        let answer = kv.get(key, Some(GetOptions::new().with_range(end))).await.map_err(fail)?;
        Ok(Snapshot {
            revision: revision(answer.header().expect("an answer has a header").revision()),
            entries: answer.kvs().iter().map(|kv| self.entry(kv)).collect(),
        })
    }

    async fn commit(&self, txn: Txn) -> Result<Commit> {
        // What the contract refuses is never sent.
        txn.check(profile().discovery.atomic_keys_max)?;
        check_sizes(&txn)?;
        let guards: Vec<Compare> = txn.guards.iter().flat_map(|guard| self.guards(guard)).collect();
        let ops: Vec<TxnOp> = txn.ops.iter().map(|op| self.op(op)).collect();
        let request = etcd_client::Txn::new().when(guards).and_then(ops);
        let answer = self.client.kv_client().txn(request).await;
        let lease = txn.ops.iter().find_map(|op| match op {
            Op::Put { lease, .. } => *lease,
            Op::Delete { .. } => None,
        });
        let answer = answer.map_err(|error| lost(error, lease))?;
        Ok(match answer.succeeded() {
            true => Commit::Applied(revision(answer.header().expect("an answer has a header").revision())),
            false => Commit::Refused,
        })
    }

    async fn watch(&self, range: Range, start: Start) -> Result<Watch> {
        let base = match start {
            Start::Snapshot => Base::Snapshot(self.read(range.clone()).await?),
            Start::After(revision) => Base::Resumed(revision),
        };
        let (Base::Snapshot(Snapshot { revision: after, .. }) | Base::Resumed(after)) = base;
        // etcd would wait for a revision to come, and would start at the compacted one, whose deletions it lost.
        let after = i64::try_from(after.0).unwrap_or(i64::MAX - 1);
        let known = GetOptions::new().with_revision(after);
        self.client.kv_client().get(self.prefix.clone(), Some(known)).await.map_err(fail)?;
        let (key, end) = self.bounds(&range);
        let options = WatchOptions::new().with_range(end).with_start_revision(after + 1);
        let mut client = self.client.watch_client().max_decoding_message_size(usize::MAX);
        let stream = client.watch(key, Some(options)).await.map_err(fail)?;
        let of = self.clone();
        let messages = stream.map(move |message| match message {
            Ok(message) if message.compact_revision() > 0 => {
                vec![Err(Error::compacted(revision(message.compact_revision() - 1)))]
            }
            Ok(message) => of.batches(message.events()).into_iter().map(Ok).collect(),
            Err(error) => vec![Err(fail(error))],
        });
        Ok(Watch { base, events: messages.flat_map(futures_util::stream::iter).boxed() })
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        let seconds = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
        if seconds == 0 {
            return Err(Error::invalid("time to live", "0", "the contract grants no such lease"));
        }
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let id = (self.leases.fetch_add(1, Ordering::Relaxed) % (1 << 53)).max(1);
        let options = LeaseGrantOptions::new().with_id(id.cast_signed());
        let granted = self.client.lease_client().grant(seconds, Some(options)).await;
        let granted = granted.map_err(fail)?;
        let ttl = Duration::from_secs(granted.ttl().cast_unsigned());
        Ok(Lease { id: LeaseId(granted.id().cast_unsigned()), ttl })
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<Duration> {
        match self.client.lease_client().keep_alive(lease.0.cast_signed()).await {
            // The call made the first beat itself, and threw its answer away.
            Ok((mut keeper, mut answers)) => {
                keeper.keep_alive().await.map_err(fail)?;
                let answer = answers.message().await.map_err(fail)?.expect("a beat is answered");
                Ok(Duration::from_secs(answer.ttl().cast_unsigned()))
            }
            Err(error) => Err(lost(error, Some(lease))),
        }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        let revoked = self.client.lease_client().revoke(lease.0.cast_signed()).await;
        revoked.map(|_| ()).map_err(|error| lost(error, Some(lease)))
    }
}

impl Plain {
    /// The events of a message, one batch for each revision.
    fn batches(&self, events: &[etcd_client::Event]) -> Vec<Batch> {
        let kv = |event: &etcd_client::Event| event.kv().expect("an event has a key").clone();
        let revisions = events.chunk_by(|one, next| kv(one).mod_revision() == kv(next).mod_revision());
        let batch = |events: &[etcd_client::Event]| Batch {
            revision: revision(kv(&events[0]).mod_revision()),
            changes: events.iter().map(|event| self.change(event.event_type(), &kv(event))).collect(),
        };
        revisions.map(batch).collect()
    }

    fn change(&self, kind: EventType, kv: &KeyValue) -> Change {
        match kind {
            EventType::Put => Change::Put(self.entry(kv)),
            EventType::Delete => Change::Delete(self.parse(kv.key())),
        }
    }
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plain").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

#[async_trait]
impl Operator for Client {
    async fn compact(&self, revision: Revision) -> Result<()> {
        let compacted = self.kv_client().compact(revision.0.cast_signed(), None).await;
        compacted.map(|_| ()).map_err(fail)
    }
}

fn check_sizes(txn: &Txn) -> Result<()> {
    let limit = profile().discovery.value_bytes_max;
    let too_large = txn.ops.iter().find_map(|op| match op {
        Op::Put { value, .. } if value.len() > limit => Some(value.len()),
        _ => None,
    });
    too_large.map_or(Ok(()), |actual| Err(Error::payload_too_large(limit, actual)))
}

fn revision(revision: i64) -> Revision {
    Revision(revision.cast_unsigned())
}

fn lost(error: etcd_client::Error, lease: Option<LeaseId>) -> Error {
    match (lease, error.to_string()) {
        (Some(lease), text) if text.contains("lease not found") => Error::lease_lost(lease),
        _ => fail(error),
    }
}

/// What etcd refuses, by its words.
fn fail(error: etcd_client::Error) -> Error {
    let text = error.to_string();
    let has = |words: &str| text.contains(words);
    if has("has been compacted") || has("future revision") {
        Error::compacted(Revision(0))
    } else if has("duplicate key") || has("too large lease TTL") {
        Error::invalid("request", "", text)
    } else if has("request is too large") || has("message larger than max") {
        Error::payload_too_large(profile().txn_bytes_max, 0)
    } else if has("too many operations") {
        Error::unsupported("request", text)
    } else {
        Error::unavailable("etcd", text, Effect::Unknown)
    }
}
