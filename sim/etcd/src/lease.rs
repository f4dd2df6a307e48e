use std::time::Duration;

use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse,
    PbLeaseLeasesRequest, PbLeaseLeasesResponse, PbLeaseRevokeRequest, PbLeaseRevokeResponse, PbLeaseService,
    PbLeaseStatus, PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse,
};
use futures_util::stream::{self, BoxStream, StreamExt};
use slipring_core::{Error, LeaseId};
use slipring_memory::store::Store;
use tokio::time::{Instant, sleep_until};
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::Etcd;
use crate::server::{Shared, Step};
use crate::versions::Span;

#[async_trait]
impl PbLeaseService for Etcd {
    type LeaseKeepAliveStream = BoxStream<'static, Result<PbLeaseKeepAliveResponse, Status>>;

    async fn lease_grant(
        &self,
        request: Request<PbLeaseGrantRequest>,
    ) -> Result<Response<PbLeaseGrantResponse>, Status> {
        let PbLeaseGrantRequest { ttl, id } = request.into_inner();
        // The least is granted to whoever asks for less, even for nothing.
        let ttl = Duration::from_secs(u64::try_from(ttl).unwrap_or(0).max(1));
        if ttl > Store::TTL_MAX {
            return Err(Status::out_of_range("etcdserver: too large lease TTL"));
        }
        self.shared.led().await;
        let id = LeaseId(if id == 0 { self.shared.random("etcd lease") >> 1 } else { id.cast_unsigned() });
        let granted = self.shared.step(|step| {
            let header = step.header();
            let lease = step.store.grant_as(step.now, id, ttl)?;
            let (id, ttl) = (lease.id.0.cast_signed(), seconds(lease.ttl));
            Ok(PbLeaseGrantResponse { header: Some(header), id, ttl, error: String::new() })
        });
        match granted {
            Ok(granted) => Ok(Response::new(granted)),
            Err(Error::AlreadyExists { .. }) => {
                Err(Status::failed_precondition("etcdserver: lease already exists"))
            }
            Err(error) => Err(Status::internal(error.to_string())),
        }
    }

    async fn lease_revoke(
        &self,
        request: Request<PbLeaseRevokeRequest>,
    ) -> Result<Response<PbLeaseRevokeResponse>, Status> {
        let id = LeaseId(request.into_inner().id.cast_unsigned());
        self.shared.led().await;
        let revoked = self.shared.step(|step| step.store.revoke(step.now, id));
        revoked.map_err(|_| Status::not_found("etcdserver: requested lease not found"))?;
        // With the revision of the deletions.
        let header = self.shared.step(|step| step.header());
        Ok(Response::new(PbLeaseRevokeResponse { header: Some(header) }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let state = (self.clone(), request.into_inner());
        let answers = stream::try_unfold(state, |(etcd, mut requests)| async move {
            let Some(request) = requests.message().await? else { return Ok(None) };
            let answer = etcd.shared.keep_alive(request.id).await;
            Ok(Some((answer, (etcd, requests))))
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<PbLeaseTimeToLiveResponse>, Status> {
        let request = request.into_inner();
        self.shared.led().await;
        Ok(Response::new(self.shared.step(|step| time_to_live(&step, &request))))
    }

    async fn lease_leases(
        &self,
        _: Request<PbLeaseLeasesRequest>,
    ) -> Result<Response<PbLeaseLeasesResponse>, Status> {
        Ok(Response::new(self.shared.step(|step| {
            let leases = step.store.leases();
            let leases = leases.iter().map(|lease| PbLeaseStatus { id: lease.id.0.cast_signed() }).collect();
            PbLeaseLeasesResponse { header: Some(step.header()), leases }
        })))
    }
}

impl Shared {
    /// A lease that is past its end is not renewed, and the answer, 0, comes when it is removed.
    async fn keep_alive(&self, id: i64) -> PbLeaseKeepAliveResponse {
        self.led().await;
        let lease = LeaseId(id.cast_unsigned());
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (answer, due) = self.with_deadline(|step| {
                let header = Some(step.header());
                match step.store.lease(lease) {
                    None => Some(PbLeaseKeepAliveResponse { header, id, ttl: 0 }),
                    Some((_, left)) if left.is_zero() => None,
                    Some(_) => {
                        let ttl = step.store.keep_alive(step.now, lease);
                        let ttl = seconds(ttl.expect("a lease that has time left is renewed"));
                        Some(PbLeaseKeepAliveResponse { header, id, ttl })
                    }
                }
            });
            match answer {
                Some(answer) => return answer,
                None => tokio::select! {
                    biased;
                    () = changed => {}
                    () = until(due) => {}
                },
            }
        }
    }
}

/// What is left is told in whole seconds, the rest cut off; -1 says that there is no such lease.
fn time_to_live(step: &Step<'_>, request: &PbLeaseTimeToLiveRequest) -> PbLeaseTimeToLiveResponse {
    let id = request.id;
    let gone = PbLeaseTimeToLiveResponse {
        header: Some(step.header()),
        id,
        ttl: -1,
        granted_ttl: 0,
        keys: Vec::new(),
    };
    let Some((lease, left)) = step.store.lease(LeaseId(id.cast_unsigned())) else { return gone };
    let mut keys = Vec::new();
    if request.keys {
        let all = Span::new(vec![0], vec![0]);
        let kvs = step.versions.range(&all, step.versions.head());
        keys.extend(kvs.filter(|kv| kv.lease == id).map(|kv| kv.key.clone()));
    }
    PbLeaseTimeToLiveResponse { ttl: seconds(left), granted_ttl: seconds(lease.ttl), keys, ..gone }
}

fn seconds(duration: Duration) -> i64 {
    duration.as_secs().cast_signed()
}

/// Waits for a moment, or for ever.
pub(crate) async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
