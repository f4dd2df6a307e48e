//! What a runtime has one of, and how it is created, shared and freed.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{echo, eventually, records, runtime, slow};
use futures_util::future::{join_all, try_join_all};
use slipring::{Client, MemoryWorld};
use slipring_core::Messaging;
use slipring_core::service::ServiceReport;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// However many endpoints of a component begin at once, their component has one service, which lives as long
/// as the last of them, and answers for all.
#[tokio::test(start_paused = true)]
async fn a_component_has_one_service() {
    let world = MemoryWorld::new();
    let worker = slow::runtime(&world, Duration::from_millis(10)).await;
    let component = worker.namespace("a").unwrap().component("b").unwrap();
    let before = world.messaging().subscriptions();
    let endpoints: Vec<_> = (0..20).map(|n| component.endpoint(&format!("e{n:02}")).unwrap()).collect();
    let mut servings = try_join_all(endpoints.iter().map(|one| echo(one).into_future())).await.unwrap();
    assert_eq!(worker.registry().services(), 1);
    // The protocol's three questions, each to all, to the name and to the instance.
    assert_eq!(world.messaging().subscriptions(), before + 9 + 20);
    let names = |report: &ServiceReport| -> Vec<_> {
        report.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect()
    };
    let expected: Vec<_> = (0..20).map(|n| format!("e{n:02}")).collect();
    assert_eq!(names(&worker.registry().stats()[0]), expected);
    let last = servings.pop().unwrap();
    join_all(servings.iter().map(|serving| serving.stop())).await;
    drop(servings);
    assert_eq!((worker.registry().services(), names(&worker.registry().stats()[0]).len()), (1, 1));
    drop(last);
    eventually("the service is freed", || worker.registry().services() == 0).await;
    eventually("nothing is subscribed", || world.messaging().subscriptions() == before).await;
}

/// D11, U971: however many clients of an endpoint are made at once, one watch is opened; it ends with the
/// last of them, and another client opens another.
#[tokio::test(start_paused = true)]
async fn d11_u971_an_endpoint_has_one_watch() {
    let world = MemoryWorld::new();
    let worker = runtime(&world).await;
    let caller = slow::runtime(&world, Duration::from_millis(10)).await;
    let _serving = echo(&worker.endpoint("a/b/c").unwrap()).await.unwrap();
    let endpoint = caller.endpoint("a/b/c").unwrap();
    let before = world.watches();
    for _ in 0..2 {
        let clients: Vec<Client<String, String>> =
            try_join_all((0..100).map(|_| endpoint.client())).await.unwrap();
        let text = "x".to_owned();
        let answers = try_join_all(clients.iter().map(|client| client.call(&text))).await.unwrap();
        assert!(answers.iter().all(|answer| *answer == "x"));
        assert_eq!((caller.registry().watchers(), world.watches()), (1, before + 1));
        let other: Client<String, String> = caller.endpoint("a/b/other").unwrap().client().await.unwrap();
        let looking = other.instances();
        drop(other);
        assert_eq!(caller.registry().watchers(), 2);
        drop((clients, looking));
        eventually("the watches end", || world.watches() == before).await;
        assert_eq!(caller.registry().watchers(), 0);
    }
}

/// Of any number that begin to serve an endpoint at once one wins, and the others are told that it exists;
/// after its stop it can be served again.
#[tokio::test(start_paused = true)]
async fn an_endpoint_is_served_once() {
    let world = MemoryWorld::new();
    let worker = slow::runtime(&world, Duration::from_millis(10)).await;
    let endpoint = worker.endpoint("a/b/c").unwrap();
    for _ in 0..2 {
        let starts = join_all((0..10).map(|_| echo(&endpoint).into_future())).await;
        let (won, lost): (Vec<_>, Vec<_>) = starts.into_iter().partition(Result::is_ok);
        assert_eq!((won.len(), lost.len()), (1, 9));
        for lost in lost {
            assert_eq!(lost.unwrap_err().code(), "already_exists");
        }
        assert_eq!(records(&world).len(), 1);
        assert!(won[0].as_ref().unwrap().stop().await.is_clean());
        assert_eq!(records(&world).len(), 0);
    }
}

/// D30: with a broker that takes its time, starting many at once takes no longer than starting one.
#[tokio::test(start_paused = true)]
async fn d30_starting_is_not_serialised() {
    let world = MemoryWorld::new();
    let way = 50 * Duration::from_millis(1);
    let took = async |count: usize| {
        let worker = slow::runtime(&world, way).await;
        let caller = slow::runtime(&world, way).await;
        let endpoints = |runtime: &slipring::DistributedRuntime| -> Vec<_> {
            (0..count).map(|n| runtime.endpoint(&format!("a/c{n}/e")).unwrap()).collect()
        };
        let began = Instant::now();
        let served = endpoints(&worker);
        let servings = try_join_all(served.iter().map(|one| echo(one).into_future())).await.unwrap();
        let started = began.elapsed();
        let called = endpoints(&caller);
        let calls = called.iter().map(async |endpoint| {
            let client: Client<String, String> = endpoint.client().await?;
            client.call(&"x".to_owned()).await
        });
        try_join_all(calls).await.unwrap();
        let called = began.elapsed() - started;
        join_all(servings.iter().map(|serving| serving.stop())).await;
        (started, called)
    };
    let (one, many) = (took(1).await, took(50).await);
    // A registrar that is at work takes what came meanwhile in one more transaction.
    assert!(many.0 <= one.0 + 4 * way, "starting 50 took {:?}, one {:?}", many.0, one.0);
    assert!(many.1 <= one.1 + 4 * way, "calling 50 took {:?}, one {:?}", many.1, one.1);
}

/// A service whose start was given up by the one who began it is started by the next who waits for it.
#[tokio::test(start_paused = true)]
async fn a_service_outlives_the_one_who_began_it() {
    let world = MemoryWorld::new();
    let worker = slow::runtime(&world, Duration::from_millis(10)).await;
    let first = echo(&worker.endpoint("a/b/first").unwrap()).into_future();
    let second = echo(&worker.endpoint("a/b/second").unwrap()).into_future();
    let (first, second) = tokio::join!(tokio::time::timeout(Duration::from_millis(50), first), second);
    assert!(first.is_err());
    assert_eq!((worker.registry().services(), records(&world).len()), (1, 1));
    assert!(second.unwrap().stop().await.is_clean());
}

/// A service answers for its endpoints on every broker, and stops answering with them.
#[tokio::test(start_paused = true)]
async fn inspection_sees_who_serves_now() {
    let world = MemoryWorld::new();
    let (one, two, observer) = (runtime(&world).await, runtime(&world).await, runtime(&world).await);
    let component = observer.namespace("a").unwrap().component("b").unwrap();
    let serving_one = echo(&one.endpoint("a/b/c").unwrap()).await.unwrap();
    let serving_two = echo(&two.endpoint("a/b/c").unwrap()).await.unwrap();
    let seen = async || {
        let reports = observer.inspect(&component, SECOND).await.unwrap();
        reports.into_iter().map(|report| report.id).collect::<Vec<_>>()
    };
    let mut ids = [&one, &two].map(|runtime| format!("{:x}", runtime.instance_id()));
    ids.sort();
    assert_eq!(seen().await, ids);
    drop(serving_one);
    eventually("it is freed", || one.registry().services() == 0).await;
    assert_eq!(seen().await, [format!("{:x}", two.instance_id())]);
    two.stop().await;
    drop(serving_two);
    assert_eq!(seen().await, [""; 0]);
}

/// A broken subscription is opened anew, by an endpoint and by its service; what was counted survives.
#[tokio::test(start_paused = true)]
async fn counters_survive_a_broken_subscription() {
    let world = MemoryWorld::new();
    let messaging = Arc::new(breaking::Breaking::new(world.messaging()));
    let worker = slipring::DistributedRuntime::builder()
        .discovery(world.discovery())
        .messaging(messaging.clone())
        .build()
        .await
        .unwrap();
    let endpoint = worker.endpoint("a/b/c").unwrap();
    let serving = echo(&endpoint).await.unwrap();
    let subject = serving.path().subject();
    let ask = async || {
        let request = slipring_core::Message::new(subject.clone(), "\"x\"");
        world.messaging().request(request, SECOND).await
    };
    ask().await.unwrap();
    for served in 2..5 {
        messaging.break_all();
        tokio::time::sleep(SECOND).await;
        ask().await.unwrap();
        let component = worker.namespace("a").unwrap().component("b").unwrap();
        let asked = worker.inspect(&component, SECOND).await.unwrap();
        for report in [&asked[0], &worker.registry().stats()[0]] {
            let endpoint = &report.endpoints[0];
            assert_eq!((endpoint.name.as_str(), endpoint.num_requests), ("c", served));
        }
    }
    let report = serving.stop().await;
    assert!(report.is_clean() && report.requests == 4, "{report}");
}

mod breaking {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use futures_util::StreamExt;
    use slipring_core::{
        Effect, Error, Message, Messaging, MessagingCapabilities, Result, Subscriber, Subscription,
        async_trait,
    };
    use tokio::sync::Notify;

    /// A bus whose subscriptions break when they are told to.
    #[derive(Debug)]
    pub(super) struct Breaking<M> {
        inner: M,
        broken: Mutex<Arc<Notify>>,
    }

    impl<M> Breaking<M> {
        pub(super) fn new(inner: M) -> Self {
            Self { inner, broken: Mutex::default() }
        }

        /// Ends every subscription there is with an error.
        pub(super) fn break_all(&self) {
            std::mem::take(&mut *self.broken.lock().unwrap()).notify_waiters();
        }
    }

    #[async_trait]
    #[deny(clippy::missing_trait_methods)]
    impl<M: Messaging> Messaging for Breaking<M> {
        async fn capabilities(&self) -> Result<MessagingCapabilities> {
            self.inner.capabilities().await
        }

        async fn publish(&self, message: Message) -> Result<()> {
            self.inner.publish(message).await
        }

        async fn subscribe(&self, subscription: Subscription) -> Result<Subscriber> {
            let broken = self.broken.lock().unwrap().clone().notified_owned();
            let inner = self.inner.subscribe(subscription).await?;
            let mut broken = Box::pin(broken);
            broken.as_mut().enable();
            let end = futures_util::stream::once(async move {
                broken.await;
                Err(Error::unavailable("the bus", "the subscription broke", Effect::None))
            });
            let stopped = Arc::new(Notify::new());
            let until = stopped.clone().notified_owned();
            let mut over = false;
            let messages = futures_util::stream::select(inner, end).take_while(move |item| {
                let yielded = !over;
                over = item.is_err();
                std::future::ready(yielded)
            });
            Ok(Subscriber::new(messages.take_until(until), move || stopped.notify_one()))
        }

        async fn request(&self, message: Message, timeout: Duration) -> Result<Message> {
            self.inner.request(message, timeout).await
        }

        async fn flush(&self) -> Result<()> {
            self.inner.flush().await
        }

        async fn close(&self, grace: Duration) -> Result<()> {
            self.inner.close(grace).await
        }
    }
}
