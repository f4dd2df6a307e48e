//! From a connection to a link: TLS, if the runtime speaks it, and then the hello.

use std::sync::Arc;

use slipring_core::{ByteStream, Error, Result};
use tracing::Instrument as _;

use super::link::{Link, Local, Peer, Refusal};
use super::tcp::TcpPlane;
use super::tls::{Destination, Tls};

/// How the connections of one runtime become links. TLS and the hello together may take as long as a hello.
pub(super) struct Handshake {
    local: Arc<Local>,
    tls: Option<Tls>,
}

impl Handshake {
    /// # Errors
    /// `Invalid` for files that cannot be used, `Unsupported` for TLS without the feature.
    pub(super) fn new(local: Arc<Local>, plane: &TcpPlane) -> Result<Self> {
        let tls = plane.tls.as_ref();
        let tls = tls.map(|tls| Tls::new(tls, plane.listen.is_some(), &local.environment)).transpose()?;
        Ok(Self { local, tls })
    }

    pub(super) fn local(&self) -> &Arc<Local> {
        &self.local
    }

    /// Dials a peer.
    ///
    /// # Errors
    /// Those of connecting and of [`Link::dial`], and those of TLS: `Unauthorized` for a certificate that either end
    /// does not accept, `Unavailable` if only one of them speaks it. All with effect none.
    pub(super) async fn dial(&self, peer: Peer, address: &str) -> Result<Link> {
        let span = tracing::info_span!("dial", peer = format_args!("{:x}", peer.instance), address);
        self.reach(peer, address).instrument(span).await
    }

    async fn reach(&self, peer: Peer, address: &str) -> Result<Link> {
        let Destination { host, tls } = Destination::of(address);
        let refused = |refusal| self.local.refuse(refusal, address);
        match &self.tls {
            None if tls => return Err(refused(Refusal::TlsWanted)),
            // Nothing is ever said in the clear by somebody who was told to speak TLS.
            Some(_) if !tls => return Err(refused(Refusal::TlsMissing)),
            _ => {}
        }
        let stream = self.local.environment.connect(host).await?;
        let Some(tls) = &self.tls else { return Link::dial(self.local.clone(), stream, peer).await };
        let shaking = async {
            let stream = tls.connect(host, stream).await.map_err(|fault| refused(Refusal::Tls(fault)))?;
            Link::dial(self.local.clone(), stream, peer).await
        };
        self.in_time(address, shaking).await
    }

    /// Welcomes whoever dialled from an address.
    ///
    /// # Errors
    /// Those of [`Link::accept`], and those of TLS.
    pub(super) async fn accept(&self, stream: Box<dyn ByteStream>, from: &str) -> Result<Link> {
        self.welcome(stream, from).instrument(tracing::info_span!("accept", from)).await
    }

    async fn welcome(&self, stream: Box<dyn ByteStream>, from: &str) -> Result<Link> {
        let Some(tls) = &self.tls else { return Link::accept(self.local.clone(), stream).await };
        let shaking = async {
            let refused = |fault| self.local.refuse(Refusal::Tls(fault), from);
            let stream = tls.accept(stream).await.map_err(refused)?;
            Link::accept(self.local.clone(), stream).await
        };
        self.in_time(from, shaking).await
    }

    async fn in_time(&self, who: &str, shaking: impl Future<Output = Result<Link>>) -> Result<Link> {
        match tokio::time::timeout(self.local.limits.handshake_timeout, shaking).await {
            Ok(link) => link,
            Err(_) => Err::<Link, Error>(self.local.refuse(Refusal::Slow, who)),
        }
    }
}
