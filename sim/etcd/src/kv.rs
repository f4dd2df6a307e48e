use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbKvService, PbPutRequest,
    PbPutResponse, PbRangeRequest, PbRangeResponse, PbRangeStreamResponse, PbTxnRequest, PbTxnResponse,
};
use futures_util::stream::BoxStream;
use prost::Message;
use tonic::{Request, Response, Status, async_trait};

use crate::Etcd;
use crate::draft::Draft;
use crate::txn;

/// The largest request, in bytes (`--max-request-bytes`).
const REQUEST_BYTES_MAX: usize = 1536 * 1024;
/// The largest message, in bytes: 512 KiB more.
const MESSAGE_BYTES_MAX: usize = REQUEST_BYTES_MAX + 512 * 1024;

#[async_trait]
impl PbKvService for Etcd {
    type RangeStreamStream = BoxStream<'static, Result<PbRangeStreamResponse, Status>>;

    async fn range(&self, request: Request<PbRangeRequest>) -> Result<Response<PbRangeResponse>, Status> {
        let request = request.into_inner();
        check_range(&request)?;
        // Only this is answered without a leader.
        if !request.serializable {
            self.shared.led().await;
        }
        self.shared.step(|step| Draft::new(step).range(&request)).map(Response::new)
    }

    async fn range_stream(
        &self,
        _: Request<PbRangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("unknown method RangeStream"))
    }

    async fn put(&self, request: Request<PbPutRequest>) -> Result<Response<PbPutResponse>, Status> {
        let request = request.into_inner();
        check_put(&request)?;
        check_size(&request)?;
        self.shared.led().await;
        self.write(|draft| draft.put(request)).map(Response::new)
    }

    async fn delete_range(
        &self,
        request: Request<PbDeleteRequest>,
    ) -> Result<Response<PbDeleteResponse>, Status> {
        let request = request.into_inner();
        check_key(&request.key)?;
        check_size(&request)?;
        self.shared.led().await;
        self.write(|draft| draft.delete(&request)).map(Response::new)
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Result<Response<PbTxnResponse>, Status> {
        let request = request.into_inner();
        txn::check(&request)?;
        check_size(&request)?;
        self.shared.led().await;
        self.write(|draft| txn::execute(draft, request)).map(Response::new)
    }

    async fn compact(
        &self,
        request: Request<PbCompactionRequest>,
    ) -> Result<Response<PbCompactionResponse>, Status> {
        self.shared.led().await;
        let at = request.into_inner().revision;
        let compacted = self.shared.step(|mut step| {
            let header = step.header();
            step.compact(at).map(|()| PbCompactionResponse { header: Some(header) })
        });
        // Watches that are behind are told.
        self.shared.changed.notify_waiters();
        Ok(Response::new(compacted?))
    }
}

impl Etcd {
    /// Drafts a revision, and makes it if nothing is wrong with it.
    fn write<R>(&self, write: impl FnOnce(&mut Draft<'_>) -> Result<R, Status>) -> Result<R, Status> {
        self.shared.step(|step| {
            let mut draft = Draft::new(step);
            let answer = write(&mut draft)?;
            draft.commit()?;
            Ok(answer)
        })
    }
}

pub(crate) fn check_key(key: &[u8]) -> Result<(), Status> {
    if key.is_empty() {
        return Err(Status::invalid_argument("etcdserver: key is not provided"));
    }
    Ok(())
}

pub(crate) fn check_range(request: &PbRangeRequest) -> Result<(), Status> {
    check_key(&request.key)
}

pub(crate) fn check_put(request: &PbPutRequest) -> Result<(), Status> {
    check_key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(Status::invalid_argument("etcdserver: value is provided"));
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Status::invalid_argument("etcdserver: lease is provided"));
    }
    Ok(())
}

fn check_size(request: &impl Message) -> Result<(), Status> {
    match request.encoded_len() {
        bytes if bytes > MESSAGE_BYTES_MAX => Err(Status::resource_exhausted(format!(
            "grpc: received message larger than max ({bytes} vs. {MESSAGE_BYTES_MAX})"
        ))),
        bytes if bytes > REQUEST_BYTES_MAX => {
            Err(Status::invalid_argument("etcdserver: request is too large"))
        }
        _ => Ok(()),
    }
}
