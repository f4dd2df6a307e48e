//! The real client as its manual shows it: no bound on a call, and no pings.

use etcd_client::{Channel, Client};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use slipring_core::{BoxFuture, Environment, EnvironmentExt};
use tonic::transport::Endpoint;
use tower::service_fn;

use crate::wire::Wired;

pub(crate) async fn client(environment: &Wired, server: &'static str) -> Client {
    let dialling = environment.clone();
    let connector = service_fn(move |_| {
        let environment = dialling.clone();
        async move { environment.connect(server).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_shared(format!("http://{server}")).unwrap();
    let endpoint = endpoint.executor(Tasks(environment.clone()));
    let channel = endpoint.connect_with_connector_lazy(connector);
    Client::from_channel(Channel::Tonic(channel), None).await.unwrap()
}

#[derive(Debug)]
struct Tasks(Wired);

impl Executor<BoxFuture<'static, ()>> for Tasks {
    fn execute(&self, task: BoxFuture<'static, ()>) {
        self.0.start("plain client", task).detach();
    }
}
