//! A broker behind a link: what a cut, a silence and a lost reply do to publishers, subscribers and requests.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{join, select};
use slipring_core::{
    Effect, Error, Message, Messaging, MessagingExt, Pattern, Result, Subject, Subscriber, Subscription,
};
use slipring_sim::World;
use tokio::time::{Instant, sleep, timeout};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_secs(1);

fn message(text: &'static str) -> Message {
    Message::new(Subject::new("a.b").unwrap(), text)
}

async fn subscribe(broker: &dyn Messaging) -> Subscriber {
    broker.subscribe(Subscription::new(Pattern::new("a.b").unwrap())).await.unwrap()
}

/// The text of the next message; none at the end.
async fn next(subscriber: &mut Subscriber) -> Option<Result<String>> {
    let message = subscriber.next().await?;
    Some(message.map(|message| String::from_utf8(message.payload.to_vec()).unwrap()))
}

fn text(text: &str) -> Option<Result<String>> {
    Some(Ok(text.to_owned()))
}

/// Answers every request with its own text.
async fn echo(broker: &dyn Messaging, requests: &mut Subscriber) {
    while let Some(Ok(request)) = requests.next().await {
        broker.respond(&request, request.payload.clone()).await.unwrap();
    }
}

#[track_caller]
fn assert_error<T: std::fmt::Debug>(result: Result<T>, code: &str, effect: Effect) {
    let error = result.unwrap_err();
    assert_eq!((error.code(), error.effect()), (code, effect));
}

/// F5: over a cut link every call fails at once, and nothing is kept to be sent later.
#[tokio::test(start_paused = true)]
async fn f5_a_cut_fails_calls_at_once() {
    let world = World::new(1);
    let (node, listener, began) = (world.node("a"), world.node("b"), Instant::now());
    let mut heard = subscribe(&*listener.messaging()).await;
    let broker = node.messaging();

    node.link().cut();
    assert_error(broker.capabilities().await, "unavailable", Effect::None);
    assert_error(broker.publish(message("lost")).await, "unavailable", Effect::None);
    let subscription = Subscription::new(Pattern::new("a.>").unwrap());
    assert_error(broker.subscribe(subscription).await, "unavailable", Effect::None);
    assert_error(broker.request(message("lost"), SHORT).await, "unavailable", Effect::None);
    assert_error(broker.flush().await, "unavailable", Effect::None);
    assert_eq!(began.elapsed(), Duration::ZERO);

    node.link().open();
    broker.publish(message("sent")).await.unwrap();
    assert_eq!(next(&mut heard).await, text("sent"));
}

/// A cut takes a subscription from the broker at once, read or not: whoever asks is told that nobody is there.
#[tokio::test(start_paused = true)]
async fn a_cut_leaves_the_broker_at_once() {
    let world = World::new(1);
    let (node, asking) = (world.node("a"), world.node("b").messaging());
    let _unread = subscribe(&*node.messaging()).await;
    node.link().cut();
    assert_error(asking.request(message("q"), SHORT).await, "no_responders", Effect::None);
}

/// M9: after a cut a subscription is restored, and the loss is reported where it happened.
#[tokio::test(start_paused = true)]
async fn m9_subscriptions_are_restored_and_say_so() {
    let world = World::new(1);
    let (node, writer) = (world.node("a"), world.node("b").messaging());
    let mut heard = subscribe(&*node.messaging()).await;
    writer.publish(message("before")).await.unwrap();
    assert_eq!(next(&mut heard).await, text("before"));

    node.link().cut();
    let meanwhile = async {
        writer.publish(message("lost")).await.unwrap();
        sleep(SHORT).await;
        node.link().open();
    };
    let (gap, ()) = join(next(&mut heard), meanwhile).await;
    assert_eq!(gap, Some(Err(Error::lagged(0))));
    writer.publish(message("after")).await.unwrap();
    assert_eq!(next(&mut heard).await, text("after"));
}

/// A cut that is over before the reader looks is reported all the same.
#[tokio::test(start_paused = true)]
async fn a_short_cut_is_not_missed() {
    let world = World::new(1);
    let node = world.node("a");
    let mut heard = subscribe(&*node.messaging()).await;
    node.link().cut();
    node.link().open();
    assert_eq!(next(&mut heard).await, Some(Err(Error::lagged(0))));
}

/// A subscription that is stopped, or whose handle is closed, while the link is cut ends and never comes back.
#[tokio::test(start_paused = true)]
async fn what_ends_during_a_cut_stays_ended() {
    let world = World::new(1);
    let (node, asking) = (world.node("a"), world.node("b").messaging());
    let mut stopped = subscribe(&*node.messaging()).await;
    let mut closed = subscribe(&*node.messaging()).await;
    node.link().cut();
    stopped.stop();
    assert_eq!(next(&mut stopped).await, None);
    let (end, ()) = join(next(&mut closed), async {
        node.messaging().close(SHORT).await.unwrap();
    })
    .await;
    assert_eq!(end, None);

    node.link().open();
    sleep(SHORT).await;
    assert_error(asking.request(message("q"), SHORT).await, "no_responders", Effect::None);
}

/// In silence a subscription says nothing; afterwards it goes on with what arrived meanwhile.
#[tokio::test(start_paused = true)]
async fn a_subscription_catches_up_after_silence() {
    let world = World::new(1);
    let (node, writer) = (world.node("a"), world.node("b").messaging());
    let mut heard = subscribe(&*node.messaging()).await;
    node.link().silence();
    writer.publish(message("1")).await.unwrap();
    writer.publish(message("2")).await.unwrap();
    assert!(timeout(LONG, heard.next()).await.is_err());
    node.link().open();
    assert_eq!(next(&mut heard).await, text("1"));
    assert_eq!(next(&mut heard).await, text("2"));
}

/// A publish that was given up in silence reaches nobody, then or later.
#[tokio::test(start_paused = true)]
async fn a_publish_that_was_given_up_is_not_sent() {
    let world = World::new(1);
    let (node, mut heard) = (world.node("a"), subscribe(&*world.node("b").messaging()).await);
    node.link().silence();
    assert!(timeout(LONG, node.messaging().publish(message("1"))).await.is_err());
    node.link().open();
    node.messaging().publish(message("2")).await.unwrap();
    assert_eq!(next(&mut heard).await, text("2"));
}

/// A request ends by its own timeout in silence, whether it or its reply is held up.
#[tokio::test(start_paused = true)]
async fn requests_end_by_their_timeout_in_silence() {
    let world = World::new(1);
    let (node, server) = (world.node("a"), world.node("b").messaging());
    let mut requests = subscribe(&*server).await;
    let scenario = async {
        node.link().silence();
        let began = Instant::now();
        let held = node.messaging().request(message("q"), SHORT).await;
        assert_error(held, "deadline_exceeded", Effect::Unknown);
        assert_eq!(began.elapsed(), SHORT);

        node.link().open();
        let broker = node.messaging();
        let asked = broker.request(message("q"), SHORT);
        // Polled once, it has left; then the link goes silent.
        let (answer, ()) = join(asked, async { node.link().silence() }).await;
        assert_error(answer, "deadline_exceeded", Effect::Unknown);
        assert_eq!(began.elapsed(), 2 * SHORT);
    };
    let echo = echo(&*server, &mut requests);
    select(Box::pin(scenario), Box::pin(echo)).await;
}

/// A reply that is held up by silence arrives when the silence ends in time.
#[tokio::test(start_paused = true)]
async fn a_reply_is_delivered_after_silence() {
    let world = World::new(1);
    let (node, server) = (world.node("a"), world.node("b").messaging());
    let mut requests = subscribe(&*server).await;
    let scenario = async {
        let began = Instant::now();
        let (broker, link) = (node.messaging(), node.link());
        let silence = async {
            link.silence();
            sleep(SHORT).await;
            link.open();
        };
        let (answer, ()) = join(broker.request(message("q"), LONG), silence).await;
        assert_eq!(answer.unwrap().payload, "q");
        assert_eq!(began.elapsed(), SHORT);
    };
    let echo = echo(&*server, &mut requests);
    select(Box::pin(scenario), Box::pin(echo)).await;
}

/// F34: a cut under a running request leaves its effect unknown.
#[tokio::test(start_paused = true)]
async fn f34_a_cut_under_a_request_leaves_its_effect_unknown() {
    let world = World::new(1);
    let node = world.node("a");
    let mut requests = subscribe(&*world.node("b").messaging()).await;
    let broker = node.messaging();
    let cut = async {
        assert_eq!(next(&mut requests).await, text("q"));
        node.link().cut();
    };
    let (answer, ()) = join(broker.request(message("q"), LONG), cut).await;
    assert_error(answer, "unavailable", Effect::Unknown);
}

/// F18: a request whose reply is lost was executed, and its caller cannot know.
#[tokio::test(start_paused = true)]
async fn f18_a_lost_reply_leaves_the_effect_unknown() {
    let world = World::new(1);
    let (node, server) = (world.node("a"), world.node("b").messaging());
    let mut requests = subscribe(&*server).await;
    let scenario = async {
        node.link().lose_next_reply();
        let lost = node.messaging().request(message("1"), SHORT).await;
        assert_error(lost, "unavailable", Effect::Unknown);
        assert_eq!(node.messaging().request(message("2"), SHORT).await.unwrap().payload, "2");
    };
    let echo = echo(&*server, &mut requests);
    select(Box::pin(scenario), Box::pin(echo)).await;
}

/// Closing over a silent link takes its grace and no longer, and closes the handle all the same.
#[tokio::test(start_paused = true)]
async fn closing_is_bounded_in_silence() {
    let world = World::new(1);
    let (node, began) = (world.node("a"), Instant::now());
    let mut heard = subscribe(&*node.messaging()).await;
    node.link().silence();
    let (end, closed) = join(next(&mut heard), node.messaging().close(SHORT)).await;
    assert_eq!(end, None);
    assert_error(closed, "deadline_exceeded", Effect::Unknown);
    assert_eq!(began.elapsed(), SHORT);

    node.link().open();
    assert_error(node.messaging().publish(message("late")).await, "unavailable", Effect::None);
    node.messaging().close(SHORT).await.unwrap();
}

/// M12: over an open link a stopped or closed subscription still yields what it had accepted.
#[tokio::test(start_paused = true)]
async fn m12_what_was_accepted_is_delivered() {
    let world = World::new(1);
    let (node, writer) = (world.node("a"), world.node("b").messaging());
    let mut stopped = subscribe(&*node.messaging()).await;
    writer.publish(message("1")).await.unwrap();
    stopped.stop();
    writer.publish(message("2")).await.unwrap();
    assert_eq!(next(&mut stopped).await, text("1"));
    assert_eq!(next(&mut stopped).await, None);

    let mut closed = subscribe(&*node.messaging()).await;
    writer.publish(message("3")).await.unwrap();
    node.messaging().close(SHORT).await.unwrap();
    assert_eq!(next(&mut closed).await, text("3"));
    assert_eq!(next(&mut closed).await, None);
}

/// A dropped subscription leaves nothing at the broker, and nothing to restore.
#[tokio::test(start_paused = true)]
async fn a_dropped_subscription_leaves_nothing() {
    let world = World::new(1);
    let (node, counting) = (world.node("a"), world.memory().messaging());
    let before = counting.subscriptions();
    let heard = subscribe(&*node.messaging()).await;
    assert_eq!(counting.subscriptions(), before + 1);
    drop(heard);
    assert_eq!(counting.subscriptions(), before);
    node.link().cut();
    node.link().open();
    sleep(SHORT).await;
    assert_eq!(counting.subscriptions(), before);
}
