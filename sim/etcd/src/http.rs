//! How an etcd is reached: by calls within the process, or over connections.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::Channel;
use etcd_client::proto::{PbKvServer, PbLeaseServer, PbMaintenanceServer, PbWatchServer};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use slipring_core::{ByteStream, Environment, EnvironmentExt, Listener, Task};
use tonic::body::Body;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service};

use crate::Etcd;
use crate::maintenance::not_simulated;

/// How long a server may wait before it listens again when accepting failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

impl Etcd {
    /// A channel for clients in this process: without a network, without tasks, and without faults.
    pub fn channel(&self) -> Channel {
        let etcd = self.clone();
        let service = tower::service_fn(move |request| {
            let etcd = etcd.clone();
            async move { Ok::<_, BoxError>(etcd.answer(request).await) }
        });
        Channel::Custom(BoxCloneSyncService::new(service))
    }

    /// A server: answers whoever connects, until it is dropped; then its connections are closed. Several may
    /// serve one etcd, as the members of a cluster do; all on one runtime, because the clocks of two differ.
    ///
    /// While no server runs, time stands still for the store. The first one after that finds a store that was
    /// restarted: for as long as `ready` calls wait, and all leases have their whole time and
    /// [`EXTENSION`](Self::EXTENSION) more.
    pub async fn serve(
        self,
        environment: Arc<dyn Environment>,
        mut listener: Box<dyn Listener>,
        ready: Duration,
    ) {
        let _running = self.shared.begin(ready);
        let mut connections: Vec<Task> = Vec::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.shared.cut.notified() => {
                    connections.clear();
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            connections.retain(|connection| !connection.is_finished());
            match accepted {
                Ok((stream, _)) => {
                    let connection = self.clone().converse(environment.clone(), stream);
                    connections.push(environment.start("etcd connection", connection));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    /// One connection, until it ends.
    async fn converse(self, environment: Arc<dyn Environment>, stream: Box<dyn ByteStream>) {
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let etcd = self.clone();
            async move { Ok::<_, Infallible>(etcd.answer(request.map(Body::new)).await) }
        });
        let connection = http2::Builder::new(Tasks(environment))
            .timer(TokioTimer::new())
            // It would be the machine's date.
            .auto_date_header(false)
            .serve_connection(TokioIo::new(stream), service);
        // However it ended: the client knows.
        let _ = connection.await;
    }

    /// The answer to a call, by the service that its path names.
    async fn answer(self, request: http::Request<Body>) -> http::Response<Body> {
        let path = request.uri().path();
        let service = path.strip_prefix("/etcdserverpb.").and_then(|path| path.split('/').next());
        let answer = match service {
            Some("KV") => PbKvServer::new(self).max_decoding_message_size(usize::MAX).call(request).await,
            Some("Lease") => PbLeaseServer::new(self).call(request).await,
            Some("Watch") => PbWatchServer::new(self).call(request).await,
            Some("Maintenance") => PbMaintenanceServer::new(self).call(request).await,
            _ => Ok(not_simulated(path).into_http()),
        };
        match answer {
            Ok(answer) => answer,
            Err(never) => match never {},
        }
    }
}

/// Runs what a connection needs to have run: a task for each call.
#[derive(Debug, Clone)]
struct Tasks(Arc<dyn Environment>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        // It ends with its connection.
        self.0.start("etcd call", task).detach();
    }
}
