//! Futures are dropped where they wait.

use slipring_sim::cancelled_after;

use super::common::*;

/// F37: a call that is dropped at any of its await points leaves the store as it was or as it was to be, and the
/// next call goes on; the last number of waits is the one at which it is done.
#[tokio::test(start_paused = true)]
async fn f37_a_call_is_dropped_at_each_await_point() {
    let world = World::with(7, Setup::new().with_latency(Latency::between(SECOND, SECOND)));
    let store = world.node("a").discovery();
    for waits in 0.. {
        let name = format!("k{waits}");
        let put = cancelled_after(waits, store.put(key(&name), "".into(), None)).await;
        let there = keys(&world).contains(&name);
        match put {
            Some(put) => {
                put.unwrap();
                assert!(there && waits > 2, "{waits}");
                break;
            }
            // Its first wait is for the way there, its last one for the way back.
            None => assert_eq!(there, waits > 1, "{waits}"),
        }
        store.read(Range::All).await.unwrap();
    }
}

/// F37: the fault drops what a node runs as cancellable where it waits now, or some waits later; what it does
/// outside of that goes on.
#[tokio::test(start_paused = true)]
async fn f37_a_fault_cancels() {
    let world = World::new(7);
    world.spawn_node("a", async |node: Node| {
        loop {
            let ticks = node.cancellable(async {
                loop {
                    sleep(SECOND).await;
                    node.note("tick");
                }
            });
            let _: Option<()> = ticks.await;
            node.note("goes on");
            sleep(10 * SECOND).await;
        }
    });
    sleep(SECOND / 2).await;
    world.apply(&Fault::Cancel { node: named(), waits: 0 }).unwrap();
    sleep(SECOND).await;
    assert_eq!(world.trace().matching("tick").count(), 0);
    assert_eq!(world.trace().matching("goes on").count(), 1);
    // It waits three times: twice it is woken for a tick.
    world.apply(&Fault::Cancel { node: named(), waits: 3 }).unwrap();
    sleep(13 * SECOND).await;
    assert_eq!(world.trace().matching("tick").count(), 2);
    assert_eq!(world.trace().matching("cancelled").count(), 2);
    assert_eq!(world.trace().matching("goes on").count(), 2);
}
