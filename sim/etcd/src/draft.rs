//! What requests do to keys, before it is done.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use etcd_client::proto::{
    PbDeleteRequest, PbDeleteResponse, PbKeyValue, PbPutRequest, PbPutResponse, PbRangeRequest,
    PbRangeResponse,
};
use slipring_core::{Entry, Key, LeaseId, Op, Revision};
use tonic::Status;

use crate::range;
use crate::server::{Step, header};
use crate::versions::{Kv, Span, next_version};

/// A revision in the making: each request sees what the ones before it have written.
pub(crate) struct Draft<'a> {
    step: Step<'a>,
    /// The keys as they will be; none if deleted.
    written: BTreeMap<Bytes, Option<Kv>>,
    ops: Vec<Op>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(step: Step<'a>) -> Self {
        Self { step, written: BTreeMap::new(), ops: Vec::new() }
    }

    /// The key as it will be.
    pub(crate) fn current(&self, key: &[u8]) -> Option<&Kv> {
        match self.written.get(key) {
            Some(written) => written.as_ref(),
            None => self.step.versions.current(key),
        }
    }

    /// A range as it will be.
    pub(crate) fn span(&self, span: &Span) -> Vec<Kv> {
        let kvs = self.step.versions.range(span, self.step.versions.head());
        let mut kvs: BTreeMap<&[u8], &Kv> = kvs.map(|kv| (kv.key.as_slice(), kv)).collect();
        for (key, written) in self.written.iter().filter(|(key, _)| span.contains(key)) {
            match written {
                Some(kv) => kvs.insert(key, kv),
                None => kvs.remove(key.as_ref()),
            };
        }
        kvs.into_values().cloned().collect()
    }

    pub(crate) fn range(&self, request: &PbRangeRequest) -> Result<PbRangeResponse, Status> {
        let span = Span::new(request.key.clone(), request.range_end.clone());
        let at = self.step.versions.resolve(request.revision)?;
        let kvs = if request.revision > 0 {
            self.step.versions.range(&span, at).cloned().collect()
        } else {
            self.span(&span)
        };
        Ok(range::answer(request, kvs, header(self.revision())))
    }

    pub(crate) fn put(&mut self, request: PbPutRequest) -> Result<PbPutResponse, Status> {
        let before = self.current(&request.key).cloned();
        if (request.ignore_value || request.ignore_lease) && before.is_none() {
            return Err(Status::invalid_argument("etcdserver: key not found"));
        }
        let mut lease = request.lease;
        let mut value = request.value;
        if let Some(before) = &before {
            lease = if request.ignore_lease { before.lease } else { lease };
            value = if request.ignore_value { before.value.clone() } else { value };
        }
        let lease = (lease != 0).then(|| LeaseId(lease.cast_unsigned()));
        if lease.is_some_and(|lease| self.step.store.lease(lease).is_none()) {
            return Err(Status::not_found("etcdserver: requested lease not found"));
        }
        let (key, modified) = (key(&request.key)?, Revision(self.next().cast_unsigned()));
        let entry = Entry { key, value: value.into(), modified, lease };
        let kv = Arc::new(next_version(before.as_deref(), &entry));
        self.written.insert(request.key.into(), Some(kv));
        let Entry { key, value, lease, .. } = entry;
        self.ops.push(Op::Put { key, value, lease });
        let prev_kv = before.filter(|_| request.prev_kv).map(unshared);
        Ok(PbPutResponse { header: Some(header(self.revision())), prev_kv })
    }

    pub(crate) fn delete(&mut self, request: &PbDeleteRequest) -> Result<PbDeleteResponse, Status> {
        let span = Span::new(request.key.clone(), request.range_end.clone());
        let kvs = self.span(&span);
        for kv in &kvs {
            self.ops.push(Op::Delete { key: key(&kv.key)? });
            self.written.insert(Bytes::copy_from_slice(&kv.key), None);
        }
        let deleted = kvs.len() as i64;
        let prev_kvs = if request.prev_kv { kvs.into_iter().map(unshared).collect() } else { Vec::new() };
        Ok(PbDeleteResponse { header: Some(header(self.revision())), deleted, prev_kvs })
    }

    /// The revision as the next answer tells it: a new one as soon as something is written.
    pub(crate) fn revision(&self) -> i64 {
        if self.ops.is_empty() { self.step.versions.head() } else { self.next() }
    }

    /// Does it. Nothing is written if nothing is to be.
    pub(crate) fn commit(self) -> Result<(), Status> {
        if self.ops.is_empty() {
            return Ok(());
        }
        let mut txn = slipring_core::Txn::new();
        txn.ops = self.ops;
        let committed = self.step.store.commit(self.step.now, txn);
        // All that can be wrong was checked while it was drafted.
        committed.map(drop).map_err(|error| Status::internal(error.to_string()))
    }

    fn next(&self) -> i64 {
        self.step.versions.head() + 1
    }
}

/// A key that the store can hold, which is less than etcd can.
fn key(bytes: &[u8]) -> Result<Key, Status> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        Status::invalid_argument(format!("the simulated etcd holds keys of text alone: {bytes:?}: {error}"))
    })?;
    let refused =
        |error| Status::invalid_argument(format!("the simulated etcd cannot hold this key: {error}"));
    Key::new(text).map_err(refused)
}

pub(crate) fn unshared(kv: Kv) -> PbKeyValue {
    Arc::unwrap_or_clone(kv)
}
