use std::cmp::Ordering;

use etcd_client::proto::{PbKeyValue, PbRangeRequest, PbRangeResponse, PbResponseHeader};

use crate::draft::unshared;
use crate::versions::Kv;

/// How a request wants its keys: the numbers of `SortTarget`.
const BY_VERSION: i32 = 1;
const BY_CREATION: i32 = 2;
const BY_MODIFICATION: i32 = 3;
const BY_VALUE: i32 = 4;
/// The number of `SortOrder`.
const DESCENDING: i32 = 2;

/// The answer to a request for a range that holds these keys, which are in order.
pub(crate) fn answer(
    request: &PbRangeRequest,
    mut kvs: Vec<Kv>,
    header: PbResponseHeader,
) -> PbRangeResponse {
    // Everything in the range counts, whatever else is asked for.
    let count = kvs.len() as i64;
    let mut answer = PbRangeResponse { header: Some(header), count, ..PbRangeResponse::default() };
    if request.count_only {
        return answer;
    }
    kvs.retain(|kv| is_wanted(request, kv));
    match (request.sort_order, request.sort_target) {
        (0 | 1, 0) => {}
        (DESCENDING, by) => kvs.sort_by(|one, other| compare(by, other, one)),
        (_, by) => kvs.sort_by(|one, other| compare(by, one, other)),
    }
    if let Some(limit) = usize::try_from(request.limit).ok().filter(|limit| *limit > 0) {
        answer.more = kvs.len() > limit;
        kvs.truncate(limit);
    }
    answer.kvs = kvs.into_iter().map(unshared).collect();
    if request.keys_only {
        answer.kvs.iter_mut().for_each(|kv| kv.value.clear());
    }
    answer
}

/// Bounds of 0 bound nothing.
fn is_wanted(request: &PbRangeRequest, kv: &PbKeyValue) -> bool {
    let from = |bound, revision| bound == 0 || revision >= bound;
    let to = |bound, revision| bound == 0 || revision <= bound;
    from(request.min_mod_revision, kv.mod_revision)
        && to(request.max_mod_revision, kv.mod_revision)
        && from(request.min_create_revision, kv.create_revision)
        && to(request.max_create_revision, kv.create_revision)
}

fn compare(by: i32, one: &PbKeyValue, other: &PbKeyValue) -> Ordering {
    match by {
        BY_VERSION => one.version.cmp(&other.version),
        BY_CREATION => one.create_revision.cmp(&other.create_revision),
        BY_MODIFICATION => one.mod_revision.cmp(&other.mod_revision),
        BY_VALUE => one.value.cmp(&other.value),
        _ => one.key.cmp(&other.key),
    }
}
