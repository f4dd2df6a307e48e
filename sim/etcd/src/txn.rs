use std::cmp::Ordering;
use std::collections::BTreeSet;

use etcd_client::proto::{
    PbCompare, PbKeyValue, PbResponseOp, PbTargetUnion, PbTxnOpRequest, PbTxnOpResponse, PbTxnRequest,
    PbTxnRequestOp, PbTxnResponse,
};
use tonic::Status;

use crate::draft::Draft;
use crate::kv::{check_key, check_put, check_range};
use crate::server::header;
use crate::versions::{Kv, Span};

/// How many conditions, and how many operations of a branch, there may be (`--max-txn-ops`).
const OPS_MAX: usize = 128;

/// What is wrong with a transaction, before anything of it is looked at in the store.
pub(crate) fn check(request: &PbTxnRequest) -> Result<(), Status> {
    let PbTxnRequest { compare, success, failure } = request;
    if compare.len().max(success.len()).max(failure.len()) > OPS_MAX {
        return Err(Status::invalid_argument("etcdserver: too many operations in txn request"));
    }
    compare.iter().try_for_each(|compare| check_key(&compare.key))?;
    for branch in [success, failure] {
        branch.iter().try_for_each(check_op)?;
    }
    check_duplicates(success)?;
    check_duplicates(failure)
}

fn check_op(op: &PbTxnRequestOp) -> Result<(), Status> {
    match &op.request {
        Some(PbTxnOpRequest::RequestRange(request)) => check_range(request),
        Some(PbTxnOpRequest::RequestPut(request)) => check_put(request),
        Some(PbTxnOpRequest::RequestDeleteRange(request)) => check_key(&request.key),
        Some(PbTxnOpRequest::RequestTxn(_)) => {
            Err(Status::unimplemented("the simulated etcd has no transactions within transactions"))
        }
        None => Err(Status::invalid_argument("etcdserver: key not found")),
    }
}

/// A key may be put once, and not deleted as well.
fn check_duplicates(branch: &[PbTxnRequestOp]) -> Result<(), Status> {
    let (mut put, mut deleted) = (BTreeSet::new(), Vec::new());
    for op in branch {
        let twice = match &op.request {
            Some(PbTxnOpRequest::RequestPut(request)) => !put.insert(request.key.as_slice()),
            Some(PbTxnOpRequest::RequestDeleteRange(request)) => {
                deleted.push(Span::new(request.key.clone(), request.range_end.clone()));
                false
            }
            _ => false,
        };
        if twice {
            return Err(duplicate());
        }
    }
    if put.iter().any(|key| deleted.iter().any(|span| span.contains(key))) {
        return Err(duplicate());
    }
    Ok(())
}

fn duplicate() -> Status {
    Status::invalid_argument("etcdserver: duplicate key given in txn request")
}

/// Carries out the branch that the conditions choose.
pub(crate) fn execute(draft: &mut Draft<'_>, request: PbTxnRequest) -> Result<PbTxnResponse, Status> {
    let succeeded = request.compare.iter().all(|compare| holds(draft, compare));
    let branch = if succeeded { request.success } else { request.failure };
    let responses = branch.into_iter().map(|op| respond(draft, op)).collect::<Result<Vec<_>, _>>()?;
    Ok(PbTxnResponse { header: Some(header(draft.revision())), succeeded, responses })
}

fn respond(draft: &mut Draft<'_>, op: PbTxnRequestOp) -> Result<PbResponseOp, Status> {
    let response = match op.request {
        Some(PbTxnOpRequest::RequestRange(request)) => PbTxnOpResponse::ResponseRange(draft.range(&request)?),
        Some(PbTxnOpRequest::RequestPut(request)) => PbTxnOpResponse::ResponsePut(draft.put(request)?),
        Some(PbTxnOpRequest::RequestDeleteRange(request)) => {
            PbTxnOpResponse::ResponseDeleteRange(draft.delete(&request)?)
        }
        Some(PbTxnOpRequest::RequestTxn(_)) | None => unreachable!("it was checked to be none of these"),
    };
    Ok(PbResponseOp { response: Some(response) })
}

/// Of a range, all keys have to fulfil it; a single key that is not there has the number 0 everywhere, and no
/// value.
fn holds(draft: &Draft<'_>, compare: &PbCompare) -> bool {
    let kvs: Vec<Kv> = if compare.range_end.is_empty() {
        draft.current(&compare.key).cloned().into_iter().collect()
    } else {
        draft.span(&Span::new(compare.key.clone(), compare.range_end.clone()))
    };
    if kvs.is_empty() {
        let is_value = compare.target == etcd_client::proto::PbCompareTarget::Value as i32;
        return !is_value && fulfils(compare, &PbKeyValue::default());
    }
    kvs.iter().all(|kv| fulfils(compare, kv))
}

fn fulfils(compare: &PbCompare, kv: &PbKeyValue) -> bool {
    let order = match &compare.target_union {
        Some(PbTargetUnion::Value(value)) => kv.value.cmp(value),
        Some(PbTargetUnion::CreateRevision(number)) => kv.create_revision.cmp(number),
        Some(PbTargetUnion::ModRevision(number)) => kv.mod_revision.cmp(number),
        Some(PbTargetUnion::Version(number)) => kv.version.cmp(number),
        Some(PbTargetUnion::Lease(number)) => kv.lease.cmp(number),
        None => return false,
    };
    // The numbers of `CompareResult`.
    match compare.result {
        0 => order == Ordering::Equal,
        1 => order == Ordering::Greater,
        2 => order == Ordering::Less,
        _ => order != Ordering::Equal,
    }
}
