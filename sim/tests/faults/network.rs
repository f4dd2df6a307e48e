//! The ways between nodes break.

use slipring_core::{ByteStream, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::common::*;

type Stream = Box<dyn ByteStream>;

/// Both ends of a connection from `b` to `a`, and what `a` listens on.
async fn connected(world: &World) -> (Stream, Stream, Box<dyn Listener>) {
    let (a, b) = (world.node("a").environment(), world.node("b").environment());
    let mut listener = a.listen("a:80").await.unwrap();
    let (near, far) = join(b.connect("a:80"), listener.accept()).await;
    (near.unwrap(), far.unwrap().0, listener)
}

fn partition(from: &str, to: &str, both_ways: bool) -> Fault {
    Fault::PartitionNodes { from: from.to_owned(), to: to.to_owned(), both_ways, lasts: TTL }
}

/// F1, F2: connections of a dead process are closed, and those of a dead machine silent, at both ends; nobody
/// can connect to it, and its address is free for its next life.
#[tokio::test(start_paused = true)]
#[expect(clippy::disallowed_methods, reason = "a task that outlives its node has to be started so")]
async fn f01_f02_connections_die_with_their_node() {
    for power_loss in [false, true] {
        let world = World::with(7, Profile::etcd());
        let (a, b) = (world.node("a"), world.node("b").environment());
        let mut listener = a.environment().listen("a:80").await.unwrap();
        let mut near = b.connect("a:80").await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        near.write_all(b"x").await.unwrap();
        far.read_u8().await.unwrap();
        let (node, down) = (named(), None);
        world
            .apply(&if power_loss { Fault::PowerLoss { node, down } } else { Fault::Crash { node, down } })
            .unwrap();
        let stray = tokio::spawn(async move {
            let written = timeout(TTL, far.write_all(b"y")).await;
            (written.map(|written| written.is_ok()), listener)
        });
        let heard = timeout(TTL, near.read(&mut [0; 8])).await;
        let connected = timeout(TTL, b.connect("a:80")).await;
        if power_loss {
            assert!(heard.is_err() && connected.is_err());
        } else {
            assert_eq!(heard.unwrap().unwrap(), 0);
            assert_eq!(connected.unwrap().err().unwrap().code(), "unavailable");
        }
        let (written, _listener) = stray.await.unwrap();
        assert_eq!(written.ok(), (!power_loss).then_some(false));
        let _listener = world.node("a").environment().listen("a:80").await.unwrap();
        b.connect("a:80").await.unwrap();
    }
}

/// F5, F6: what one node sends to another is held while a partition lasts, what it is sent is not, unless the
/// partition is two-way; nothing is lost.
#[tokio::test(start_paused = true)]
async fn f05_f06_nodes_do_not_hear_each_other() {
    for both_ways in [false, true] {
        let world = World::new(7);
        let (mut near, mut far, _listener) = connected(&world).await;
        world.apply(&partition("b", "a", both_ways)).unwrap();
        let began = Instant::now();
        near.write_all(b"to a").await.unwrap();
        far.write_all(b"to b").await.unwrap();
        let mut read = [[0; 4]; 2];
        let [at_a, at_b] = &mut read;
        let heard_by_a = async {
            far.read_exact(at_a).await.unwrap();
            began.elapsed()
        };
        let heard_by_b = async {
            near.read_exact(at_b).await.unwrap();
            began.elapsed()
        };
        let expected = (TTL, if both_ways { TTL } else { Duration::ZERO });
        assert_eq!(join(heard_by_a, heard_by_b).await, expected);
        assert_eq!(read, [*b"to a", *b"to b"]);
    }
}

/// F5: bytes that are under way when a partition begins arrive after its end, and so does the end of the
/// connection, last.
#[tokio::test(start_paused = true)]
async fn f05_a_partition_holds_bytes_under_way() {
    let world = World::with(7, Setup::new().with_latency(Latency::between(SECOND, SECOND)));
    let (mut near, mut far, _listener) = connected(&world).await;
    near.write_all(b"under way").await.unwrap();
    drop(near);
    sleep(SECOND / 2).await;
    world.apply(&partition("a", "b", true)).unwrap();
    let began = Instant::now();
    let mut all = Vec::new();
    far.read_to_end(&mut all).await.unwrap();
    assert_eq!((all.as_slice(), began.elapsed()), (b"under way".as_slice(), TTL));
}

/// F5: an attempt to connect over a partition, in either direction, hangs until it is over, or is given up.
#[tokio::test(start_paused = true)]
async fn f05_connecting_over_a_partition_waits() {
    for (from, to) in [("a", "b"), ("b", "a")] {
        let world = World::new(7);
        let (_, _, mut listener) = connected(&world).await;
        world.apply(&partition(from, to, false)).unwrap();
        let (b, began) = (world.node("b").environment(), Instant::now());
        assert!(timeout(SECOND, b.connect("a:80")).await.is_err());
        let (connected, accepted) = join(b.connect("a:80"), listener.accept()).await;
        assert!(connected.is_ok() && accepted.is_ok());
        assert_eq!(began.elapsed(), TTL);
    }
}

/// F1: a cut between two nodes resets their connections, both ends and unread bytes included, and refuses new
/// ones until it ends; those of others are not concerned.
#[tokio::test(start_paused = true)]
async fn f01_a_cut_resets_connections() {
    let world = World::new(7);
    let (mut near, mut far, mut listener) = connected(&world).await;
    let other = world.node("c").environment();
    let (third, accepted) = join(other.connect("a:80"), listener.accept()).await;
    let (mut third, mut accepted) = (third.unwrap(), accepted.unwrap().0);
    near.write_all(b"unread").await.unwrap();
    world.apply(&Fault::CutNodes { from: named(), to: "b".to_owned(), lasts: SECOND }).unwrap();
    let reset = std::io::ErrorKind::ConnectionReset;
    assert_eq!(far.read_u8().await.unwrap_err().kind(), reset);
    assert_eq!(near.read_u8().await.unwrap_err().kind(), reset);
    assert_eq!(near.write_all(b"x").await.unwrap_err().kind(), reset);
    let b = world.node("b").environment();
    assert_eq!(b.connect("a:80").await.err().unwrap().code(), "unavailable");
    third.write_all(b"x").await.unwrap();
    assert_eq!(accepted.read_u8().await.unwrap(), b'x');
    sleep(2 * SECOND).await;
    b.connect("a:80").await.unwrap();
}

/// F8, F12: bytes between two nodes take their latency and the delay of the way that they go, in order.
#[tokio::test(start_paused = true)]
async fn f08_f12_bytes_take_their_time() {
    let world = World::with(7, Setup::new().with_latency(Latency::between(SECOND, SECOND)));
    let (mut near, mut far, _listener) = connected(&world).await;
    let (from, to) = ("b".to_owned(), named());
    world.apply(&Fault::DelayNodes { from, to, by: SECOND, lasts: SECOND / 4 }).unwrap();
    let began = Instant::now();
    near.write_all(b"1").await.unwrap();
    far.write_all(b"x").await.unwrap();
    sleep(SECOND / 2).await;
    near.write_all(b"2").await.unwrap();
    assert_eq!(near.read_u8().await.unwrap(), b'x');
    assert_eq!(began.elapsed(), SECOND);
    assert_eq!([far.read_u8().await.unwrap(), far.read_u8().await.unwrap()], *b"12");
    assert_eq!(began.elapsed(), 2 * SECOND);
}

/// F5: a node that is isolated reaches neither the broker nor other nodes, and all of it goes on afterwards.
#[tokio::test(start_paused = true)]
async fn f05_an_isolated_node() {
    let world = World::new(7);
    let (mut near, mut far, _listener) = connected(&world).await;
    world.apply(&Fault::Isolate { node: named(), lasts: TTL }).unwrap();
    let (store, began) = (world.node("a").discovery(), Instant::now());
    world.node("b").discovery().put(key("b"), "".into(), None).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    near.write_all(b"x").await.unwrap();
    let (read, put) = join(far.read_u8(), store.put(key("a"), "".into(), None)).await;
    assert_eq!(read.unwrap(), b'x');
    put.unwrap();
    assert_eq!(began.elapsed(), TTL);
}

/// A writer waits when 64 KiB are unread, and goes on when they are read; who writes to nobody is told.
#[tokio::test(start_paused = true)]
async fn a_window_bounds_what_is_unread() {
    let world = World::new(7);
    let (mut near, mut far, _listener) = connected(&world).await;
    let all = vec![7; 200 * 1024];
    assert!(timeout(SECOND, near.write_all(&all)).await.is_err());
    let mut unread = vec![0; 64 * 1024];
    far.read_exact(&mut unread).await.unwrap();
    assert!(timeout(SECOND, far.read_u8()).await.is_err());
    let (written, read) = join(near.write_all(&all), async {
        let mut read = vec![0; all.len()];
        far.read_exact(&mut read).await.map(|_| read)
    })
    .await;
    written.unwrap();
    assert_eq!(read.unwrap(), all);
    drop(far);
    assert_eq!(near.write_all(b"x").await.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
}

/// F2: who connects to a machine without power waits, until somebody listens there again.
#[tokio::test(start_paused = true)]
async fn f02_connecting_to_a_dead_machine_waits() {
    let world = World::new(7);
    let (_, _, listener) = connected(&world).await;
    world.apply(&Fault::PowerLoss { node: named(), down: Some(TTL) }).unwrap();
    drop(listener);
    let (b, began) = (world.node("b").environment(), Instant::now());
    let listen = async {
        sleep(TTL + SECOND).await;
        let mut listener = world.node("a").environment().listen("a:80").await.unwrap();
        listener.accept().await.unwrap();
    };
    let (connected, ()) = join(b.connect("a:80"), listen).await;
    connected.unwrap();
    assert_eq!(began.elapsed(), TTL + SECOND);
}
