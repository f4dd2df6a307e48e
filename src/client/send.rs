use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures_util::poll;
use slipring_core::{Effect, Error, Headers, Result};
use tokio::task::coop::consume_budget;

use super::Client;
use super::responses::Limits;
use crate::endpoint::Metadata;
use crate::plane::caller::Call;
use crate::plane::incoming::{Incoming, Way};
use crate::plane::link::{Link, Peer};
use crate::plane::link_call::LinkCall;
use crate::plane::{Plane, local};
use crate::registry::Instance;

/// One request on its way to an instance.
pub(super) struct Outbound<'a> {
    pub(super) call: Call,
    pub(super) instance: &'a Arc<Instance>,
    pub(super) metadata: Metadata,
    pub(super) payload: Bytes,
    pub(super) limits: Limits,
}

impl<Req, Resp> Client<Req, Resp> {
    /// Sends a request on the first of the client's planes that leads to the instance. From one that cannot be used
    /// now it goes on to the next: nothing was sent yet.
    ///
    /// # Errors
    /// Those of the last plane that was tried.
    pub(super) async fn send(&self, outbound: Outbound<'_>) -> Result<Incoming> {
        let instance = outbound.instance;
        let platform = self.runtime().platform();
        let mut failed = None;
        for plane in &self.shared.planes {
            let counted = |incoming: Incoming| incoming.counted(self.shared.watcher.tally(), *plane);
            match plane {
                Plane::Local => {
                    let worker = platform.local.worker(instance.id(), instance.target());
                    let Some(worker) = worker else { continue };
                    // It may well be answered without a pause: whoever calls in a loop lets others run.
                    consume_budget().await;
                    let Outbound { call, metadata, payload, .. } = outbound;
                    let window = platform.settings.stream_items_max;
                    let local = local::open(&worker, &call, window, metadata, payload);
                    return Ok(counted(Incoming::new(platform, Way::Local(local))));
                }
                Plane::Tcp => {
                    let Some(address) = instance.address() else { continue };
                    match self.send_over_link(&outbound, address).await {
                        Ok(incoming) => return Ok(counted(incoming)),
                        // On another plane less fits into a message.
                        Err(error @ Error::PayloadTooLarge { .. }) => return Err(error),
                        Err(error) => failed = Some(error),
                    }
                }
                Plane::NatsTcp => {
                    if let Some(home) = platform.links.advertised().filter(|_| instance.lists(*plane)) {
                        return self.send_over_broker(outbound, Some(home)).await.map(counted);
                    }
                }
                Plane::Broker if instance.subject().is_some() => {
                    return self.send_over_broker(outbound, None).await.map(counted);
                }
                Plane::Broker => {}
            }
        }
        // Nobody else says that it cannot be reached.
        self.runtime().caller().set_aside(instance, &self.shared.watcher);
        Err(failed.unwrap_or_else(|| {
            let planes: Vec<_> = self.shared.planes.iter().map(|plane| plane.name()).collect();
            let what = format!("instance {:x} of {}", instance.id(), self.shared.endpoint.path());
            let cause = format!("none of the client's planes leads to it: {}", planes.join(", "));
            Error::unavailable(what, cause, Effect::None)
        }))
    }

    async fn send_over_link(&self, outbound: &Outbound<'_>, address: &str) -> Result<Incoming> {
        let Outbound { call, instance, metadata, payload, limits } = outbound;
        let platform = self.runtime().platform();
        let open = |link: &Link| {
            let wakes_at = limits.next(call.now);
            LinkCall::open(link, call, instance, metadata, payload, wakes_at)
        };
        let sent = match platform.links.ready(instance.id()).map(|link| (open(&link), link)) {
            // It was closed, or the peer goes away: another one has to be dialled.
            Some((Err(_), link)) if !link.is_usable() => None,
            known => known.map(|(sent, _)| sent),
        };
        let sent = match sent {
            Some(sent) => sent?,
            // Seldom: the room is not kept for every call.
            None => open(&Box::pin(self.dial(instance, address, limits)).await?)?,
        };
        Ok(Incoming::new(platform, Way::Link(sent)))
    }

    async fn dial(&self, instance: &Instance, address: &str, limits: &Limits) -> Result<Link> {
        let peer = Peer { instance: instance.id(), epoch: instance.epoch() };
        let dialling = self.runtime().platform().links.to(peer, address);
        match tokio::time::timeout_at(limits.deadline, dialling).await {
            Ok(link) => link,
            Err(_) => Err(limits.late(&format!("dialling {address}"), Effect::None)),
        }
    }

    async fn send_over_broker(&self, outbound: Outbound<'_>, home: Option<&str>) -> Result<Incoming> {
        let Outbound { call, instance, metadata, payload, limits } = outbound;
        let mut headers = Headers::new();
        metadata.write(&mut headers)?;
        let (instance, watcher) = (instance.clone(), self.shared.watcher.clone());
        let mut open = pin!(self.runtime().caller().open(call, instance, watcher, headers, payload, home));
        match poll!(&mut open) {
            Poll::Ready(incoming) => incoming,
            // Seldom: the room is not kept for every call.
            Poll::Pending => match Box::pin(tokio::time::timeout_at(limits.deadline, open)).await {
                Ok(incoming) => incoming,
                Err(_) => Err(limits.late("sending the request", Effect::Unknown)),
            },
        }
    }
}
