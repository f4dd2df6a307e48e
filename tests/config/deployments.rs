use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use slipring::name::Deployment;
use slipring::{Config, Context, Discovery, DistributedRuntime, Messaging, Result, SystemEnvironment};
use slipring_core::{Effect, Message, Pattern, Prefix, Range, Start, Subscription, Txn};
use slipring_etcd::EtcdDiscovery;
use slipring_nats::NatsMessaging;
use slipring_servers::{Etcd, Nats, NatsOptions, Version};

const README: &str = include_str!("../../README.md");
const PASSWORD: &str = "correct-horse";
const WINDOW: Duration = Duration::from_millis(500);

/// An etcd and a nats-server that two deployments share, with the permissions that the README lists.
struct Servers {
    etcd: Etcd,
    nats: Nats,
}

impl Servers {
    async fn start(version: Version) -> Self {
        let etcd = Etcd::start(version).await;
        crate::etcdctl(version, &etcd, "user add root:root; user grant-role root root");
        let listed: Vec<_> = README.lines().filter_map(|line| line.strip_prefix("$ etcdctl ")).collect();
        assert_eq!(listed.len(), 4, "{listed:?}");
        for deployment in ["staging", "production"] {
            crate::etcdctl(version, &etcd, &filled(&listed.join(";"), deployment));
        }
        crate::etcdctl(version, &etcd, "auth enable");
        let (_, block) = README.split_once("```text\n# nats-server.conf\n").expect("the README has it");
        let (block, _) = block.split_once("```").expect("a block ends");
        let (before, user) = block.split_once("users: [").expect("the README has it");
        let (user, after) = user.rsplit_once(']').expect("a list ends");
        let users = ["staging", "production"].map(|deployment| filled(user, deployment)).concat();
        let mut options = NatsOptions::default();
        options.configuration = format!("{before}users: [{users}]{after}");
        Self { etcd, nats: Nats::start_with(version, options).await }
    }

    /// The configuration of a runtime of this deployment, with this user's credentials.
    fn config(&self, deployment: &str, user: &str) -> Config {
        let discovery = format!("etcd://{user}:{PASSWORD}@{}?ttl=5s", self.etcd.endpoint());
        let messaging = format!("nats://{user}:{PASSWORD}@{}", self.nats.endpoint());
        Config::new(discovery.parse().unwrap(), messaging.parse().unwrap())
            .with_deployment(Deployment::new(deployment).unwrap())
    }
}

/// The README's text for one deployment.
fn filled(text: &str, deployment: &str) -> String {
    text.replace("$STAGING_PASSWORD", PASSWORD).replace("staging", deployment)
}

/// Everything that a runtime does is within the permissions that the README lists; two deployments with the
/// same names on the same servers do not meet.
#[tokio::test]
async fn a_deployment_lives_within_its_permissions() {
    for version in Version::ALL {
        let servers = Servers::start(version).await;
        let staging = live(servers.config("staging", "staging"), 3);
        let production = live(servers.config("production", "production"), 5);
        tokio::try_join!(staging, production).unwrap();
    }
}

/// A whole life: serve, call, stream, events, statistics, stop. Each answer carries the mark of its deployment.
async fn live(config: Config, mark: u64) -> Result<()> {
    let worker = DistributedRuntime::from_config(config.clone()).await?;
    let caller = DistributedRuntime::from_config(config).await?;
    let component = worker.namespace("shop")?.component("worker")?;
    let multiply = move |n: u64, _: Context| async move { Ok(n * mark) };
    let count = move |n: u64, _: Context| async move { Ok(stream::iter((0..n).map(move |i| Ok(i * mark)))) };
    let _unary = component.endpoint("multiply")?.serve_unary(multiply).await?;
    let _streaming = component.endpoint("count")?.serve(count).await?;

    let client = caller.endpoint("shop/worker/multiply")?.client::<u64, u64>().await?;
    assert_eq!(client.call(&7).await?, 7 * mark);
    assert_eq!(client.instances().len(), 1, "the other deployment's is not among them");
    let client = caller.endpoint("shop/worker/count")?.client::<u64, u64>().await?;
    let items: Vec<_> = client.generate(&600).await?.map(Result::unwrap).collect().await;
    assert_eq!(items, (0..600).map(|i| i * mark).collect::<Vec<_>>());

    let mut events = component.events::<u64>("news")?.subscribe().await?;
    caller.namespace("shop")?.component("worker")?.events::<u64>("news")?.publish(&mark).await?;
    assert_eq!(events.next().await.unwrap()?.data, mark);

    let reports = caller.inspect(&component, WINDOW).await?;
    let instances: Vec<_> = reports.iter().map(|report| report.id.clone()).collect();
    assert_eq!(instances, [format!("{:x}", worker.instance_id())]);
    for runtime in [worker, caller] {
        let report = runtime.stop().await;
        assert!(report.is_clean(), "{report}");
    }
    Ok(())
}

/// What is another deployment's is refused: keys cannot be read, written or watched, subjects not subscribed,
/// and what is published there arrives nowhere. A runtime with another deployment's credentials does not start.
#[tokio::test]
async fn another_deployment_is_refused() {
    for version in Version::ALL {
        let servers = Servers::start(version).await;
        // Either backend alone tells.
        let theirs = servers.config("production", "staging");
        let memory = Config::default().discovery;
        for (discovery, messaging) in [(&theirs.discovery, &memory), (&memory, &theirs.messaging)] {
            let config = Config::new(discovery.clone(), messaging.clone());
            let config = config.with_deployment(theirs.deployment.clone());
            let error = DistributedRuntime::from_config(config).await.unwrap_err();
            assert_eq!(error.code(), "unauthorized", "{error}");
        }

        let environment = Arc::new(SystemEnvironment::new());
        let Config { discovery, messaging, .. } = servers.config("staging", "staging");
        let etcd = slipring_etcd::Config::from_address(&discovery).unwrap();
        let etcd = EtcdDiscovery::new(etcd, environment.clone()).unwrap();
        let keys: Range = Prefix::new("@production/").unwrap().into();
        let key = slipring_core::Key::new("@production/x").unwrap();
        let put = Txn::new().put(key.clone(), "x", None);
        for error in [
            etcd.read(keys.clone()).await.unwrap_err(),
            etcd.read(Range::All).await.unwrap_err(),
            etcd.commit(put).await.unwrap_err(),
            etcd.watch(keys, Start::Snapshot).await.unwrap_err(),
        ] {
            assert_eq!((error.code(), error.effect()), ("unauthorized", Effect::None), "{error}");
        }

        let connect = |messaging: &slipring::Address, deployment: &str| {
            let config = slipring_nats::Config::from_address(messaging).unwrap();
            let config = config.with_inbox_prefix(Deployment::new(deployment).unwrap().inboxes().as_str());
            NatsMessaging::new(config, environment.clone()).unwrap()
        };
        let staging = connect(&messaging, "staging");
        for pattern in ["@production.>", "@production._INBOX.*", "_INBOX.*", ">"] {
            let refused = staging.subscribe(Subscription::new(Pattern::new(pattern).unwrap())).await.err();
            assert_eq!(refused.unwrap().code(), "unauthorized", "{pattern}");
        }
        let production = connect(&servers.config("production", "production").messaging, "production");
        let mut arriving =
            production.subscribe(Subscription::new(Pattern::new("@production.a").unwrap())).await.unwrap();
        let message = |payload: &'static str| Message::new("@production.a".parse().unwrap(), payload);
        let _ = staging.publish(message("from staging")).await;
        let _ = staging.flush().await;
        production.publish(message("from production")).await.unwrap();
        assert_eq!(arriving.next().await.unwrap().unwrap().payload, "from production");
    }
}
