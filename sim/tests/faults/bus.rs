//! The bus loses messages, and says so where it can.

use super::common::*;

/// When the bus restarts, subscriptions are restored and say that something may be missing; the store is not
/// concerned.
#[tokio::test(start_paused = true)]
async fn f10_a_restarted_bus() {
    let world = World::new(7);
    let (a, b) = (world.node("a"), world.node("b"));
    let (mut heard, mut watch) = (subscribe(&a, "s").await, watch(&a).await);
    world.apply(&Fault::RestartBus { down: SECOND }).unwrap();
    assert_unavailable(b.messaging().publish(message("lost")).await, Effect::None);
    b.discovery().put(key("k"), "".into(), None).await.unwrap();
    assert_eq!(changes(&mut watch).await.unwrap(), ["k"]);
    assert_eq!(heard.next().await.unwrap(), Err(Error::lagged(0)));
    b.messaging().publish(message("heard")).await.unwrap();
    assert_eq!(heard.next().await.unwrap().unwrap().payload, "heard");
}

/// F10, F33: a message that was taken and is lost with a connection: its publisher is told that all is well, and
/// nobody that it is not.
#[tokio::test(start_paused = true)]
async fn f10_f33_a_publish_is_lost() {
    let world = World::new(7);
    let (a, b) = (world.node("a").messaging(), world.node("b"));
    let mut heard = subscribe(&b, "s").await;
    world.apply(&Fault::LosePublish { node: named() }).unwrap();
    a.publish(message("lost")).await.unwrap();
    a.publish(message("heard")).await.unwrap();
    assert_eq!(heard.next().await.unwrap().unwrap().payload, "heard");
}

/// F32: the bus drops the connection of a node, as that of a slow consumer: its subscriptions say that something
/// may be missing and go on; a request under way fails, and others notice nothing.
#[tokio::test(start_paused = true)]
async fn f32_the_bus_drops_a_connection() {
    let world = World::new(7);
    let (a, b) = (world.node("a"), world.node("b"));
    let (mut heard, mut other) = (subscribe(&a, "s").await, subscribe(&b, "s").await);
    let bus = a.messaging();
    let drop_it = async {
        sleep(SECOND).await;
        world.apply(&Fault::ResetBus { node: named() }).unwrap();
    };
    let (asked, ()) = join(bus.request(message("?"), TTL), drop_it).await;
    assert_unavailable(asked, Effect::Unknown);
    assert_eq!(heard.next().await.unwrap(), Err(Error::lagged(0)));
    b.messaging().publish(message("heard")).await.unwrap();
    assert_eq!(heard.next().await.unwrap().unwrap().payload, "heard");
    assert_eq!(other.next().await.unwrap().unwrap().payload, "?");
    assert_eq!(other.next().await.unwrap().unwrap().payload, "heard");
}

/// F32: a subscriber that does not read loses the newest messages, and is told exactly how many.
#[tokio::test(start_paused = true)]
async fn f32_a_slow_consumer_counts_its_loss() {
    let world = World::new(7);
    let subscription = Subscription::new(Pattern::new("s").unwrap()).with_messages_max(2);
    let mut slow = world.node("a").messaging().subscribe(subscription).await.unwrap();
    let bus = world.node("b").messaging();
    for text in ["1", "2", "3", "4", "5"] {
        bus.publish(message(text)).await.unwrap();
    }
    assert_eq!(slow.next().await.unwrap().unwrap().payload, "1");
    assert_eq!(slow.next().await.unwrap().unwrap().payload, "2");
    assert_eq!(slow.next().await.unwrap(), Err(Error::lagged(3)));
}

/// F34: a member of a queue group that dies with a message in its hands: the message is gone, and the caller
/// waits for all of its time; the next one goes to who is left.
#[tokio::test(start_paused = true)]
async fn f34_a_responder_dies() {
    let world = World::new(7);
    let program = |dies: bool| {
        move |node: Node| async move {
            let queue = slipring_core::QueueGroup::new("q").unwrap();
            let subscription = Subscription::new(Pattern::new("s").unwrap()).with_queue(queue);
            let mut requests = node.messaging().subscribe(subscription).await.unwrap();
            while let Some(Ok(request)) = requests.next().await {
                if dies {
                    return node.crash();
                }
                let reply = Message::new(request.reply.unwrap(), "done");
                node.messaging().publish(reply).await.unwrap();
            }
        }
    };
    world.spawn_node("mortal", program(true));
    sleep(SECOND).await;
    let bus = world.node("caller").messaging();
    let began = Instant::now();
    let asked = bus.request(message("?"), TTL).await.unwrap_err();
    assert_eq!((asked.code(), asked.effect()), ("deadline_exceeded", Effect::Unknown));
    assert_eq!(began.elapsed(), TTL);
    world.spawn_node("other", program(false));
    sleep(SECOND).await;
    assert_eq!(bus.request(message("?"), TTL).await.unwrap().payload, "done");
}
