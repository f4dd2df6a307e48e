use slipring_core::{Effect, TaskEnd};

use super::*;

/// A link over a real connection.
async fn pair_over_tcp() -> (End, End) {
    let environment = SystemEnvironment;
    let mut listener = environment.listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_address();
    let (near, far) = tokio::join!(environment.connect(&address), listener.accept());
    pair_over(near.unwrap(), far.unwrap().0, [LinkLimits::default(); 2]).await
}

/// Over sockets, on a pool of threads: many callers at once in both directions, each gets its own answer, and
/// nothing is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_in_both_directions() {
    let (near, far) = pair_over_tcp().await;
    let ends = [near, far].map(|end| {
        let End { link, mut requests, .. } = end;
        let serve = SystemEnvironment.start("serve", async move {
            while let Some(request) = requests.recv().await {
                let echo = [request.payload.clone(), request.payload];
                request.answers.items(&echo, true, 0).unwrap();
            }
        });
        (link, serve)
    });
    let mut calls = Vec::new();
    for (at, (link, _)) in ends.iter().enumerate() {
        for caller in 0..50 {
            let link = link.clone();
            calls.push(SystemEnvironment.start("call", async move {
                for call in 0..100 {
                    let length =
                        (caller * 7919 + call * 104_729) % if call % 10 == 0 { 300_000 } else { 500 };
                    let (sink, payload) = (Kept::new(), bytes(length, at as u8));
                    let inflow = open(&link, payload.clone(), &sink).unwrap();
                    sink.reach(1).await;
                    inflow.consumed(length, 1);
                    assert!(sink.end().await == (vec![payload.clone(), payload], None));
                }
            }));
        }
    }
    for mut call in calls {
        assert_eq!(call.end().await, TaskEnd::Finished);
    }
    for (link, _) in &ends {
        link.drained().await;
        assert_eq!(link.snapshot().totals.streams_accepted, 5000);
        link.close(CloseReason::Requested);
    }
}

/// A connection that the system breaks is a cut, or an end if that was noticed first.
#[tokio::test]
async fn a_broken_connection_is_noticed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) =
        tokio::join!(tokio::net::TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let mut near: Box<dyn ByteStream> = Box::new(near.unwrap());
    let far = far.unwrap().0;
    let (dialler, _, _) = local(1, LinkLimits::default(), None);
    let (dialled, _desk, _requests) = local(2, LinkLimits::default(), None);
    let (met, link) = tokio::join!(
        super::super::hello::dial(&dialler, &mut near, DIALLED),
        Link::accept(dialled.clone(), Box::new(far))
    );
    met.unwrap();
    let link = link.unwrap();
    let sink = Kept::new();
    // What was never read makes the system answer with a reset.
    let _inflow = open(&link, "x", &sink).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(near);
    assert_eq!(link.closed().await, CloseReason::Cut);
    assert_eq!(sink.end().await.1.unwrap().code(), "stream_interrupted");
}

/// After a go-away the streams that were taken go on to their end; later ones have effect none at the end that
/// opened them, whether it knew or not; and when nothing is open both ends let go of the link.
#[tokio::test]
async fn a_go_away_loses_nothing() {
    let (near, mut far) = pair().await;
    let (taken, late) = (Kept::new(), Kept::new());
    let _taken = near.open("taken", &taken).unwrap();
    let request = far.request().await;
    far.link.go_away();
    // It is on its way when the go-away is: the other end knows nothing yet.
    let _late = near.open("late", &late).unwrap();
    let (items, error) = late.end().await;
    let error = error.unwrap();
    assert_eq!((items.len(), error.code(), error.effect()), (0, "draining", Effect::None));
    let error = near.open("later", &Kept::new()).unwrap_err();
    assert_eq!((error.code(), error.effect()), ("draining", Effect::None));
    assert!(!near.link.is_usable() && !far.link.is_usable());
    let error = far.open("back", &Kept::new()).unwrap_err();
    assert_eq!(error.effect(), Effect::None);
    request.answers.items(&["answer".into()], true, 0).unwrap();
    assert_eq!(taken.end().await, (vec!["answer".into()], None));
    assert_eq!([near.link.closed().await, far.link.closed().await], [CloseReason::Drained; 2]);
    assert!(far.requests.try_recv().is_err(), "what was late is executed");
}

/// The dialler closes a link that nobody uses, after its time and with a go-away first; a link in use stays.
#[tokio::test(start_paused = true)]
async fn an_idle_link_is_closed() {
    let (near, mut far) = pair().await;
    let began = tokio::time::Instant::now();
    let sink = Kept::new();
    let inflow = near.open("go", &sink).unwrap();
    let request = far.request().await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(near.link.is_usable() && far.link.is_usable());
    request.answers.end(0).unwrap();
    sink.end().await;
    drop(inflow);
    near.link.closed().await;
    far.link.closed().await;
    let seconds = began.elapsed().as_secs();
    assert!((355..=365).contains(&seconds), "{seconds} s");
    // It is told apart from a link that was drained for a stop; the other end cannot.
    let closed = [near, far].map(|end| end.local.counters.snapshot().closed);
    assert_eq!(closed, [BTreeMap::from([("idle", 1)]), BTreeMap::from([("drained", 1)])]);
}

/// A request that races with the idle close is taken or has effect none.
#[tokio::test(start_paused = true)]
async fn a_request_that_races_the_idle_close_is_safe() {
    for after in 59_990..60_010 {
        let (near, mut far) = pair().await;
        tokio::time::sleep(Duration::from_millis(after)).await;
        let sink = Kept::new();
        match far.open("race", &sink) {
            Err(error) => assert_eq!(error.effect(), Effect::None),
            Ok(_inflow) => {
                let mut near = near;
                tokio::select! {
                    biased;
                    request = near.request() => request.answers.end(0).unwrap(),
                    () = sink.reach(1) => {}
                }
                let (_, error) = sink.end().await;
                assert!(error.is_none_or(|error| error.effect() == Effect::None), "after {after} ms");
            }
        }
        drop(far.requests.try_recv());
    }
}

/// A request that never left the process has effect none, in whole and in chunks; one that did may have been
/// executed.
#[tokio::test]
async fn what_never_left_has_effect_none() {
    let (near, far) = tokio::io::duplex(1024);
    let (dialler, _desk, _requests) = local(1, LinkLimits::default(), None);
    let (dialled, _, _) = local(2, LinkLimits::default(), None);
    let mut far: Box<dyn ByteStream> = Box::new(far);
    let (link, met) = tokio::join!(
        Link::dial(dialler, Box::new(near), DIALLED),
        super::super::hello::accept(&dialled, &mut far)
    );
    met.unwrap();
    let link = link.unwrap();
    let open = |payload: Bytes, sink: &Arc<Kept>| open(&link, payload, sink).unwrap();
    let sinks = [Kept::new(), Kept::new(), Kept::new(), Kept::new()];
    let sizes = [10, 2000, 10, 200_000];
    let _open: Vec<_> = sinks.iter().zip(sizes).map(|(sink, size)| open(bytes(size, 0), sink)).collect();
    while link.snapshot().totals.bytes_sent < 1024 {
        tokio::task::yield_now().await;
    }
    // The first is in the pipe; the second is half in it.
    link.close(CloseReason::Requested);
    let mut effects = Vec::new();
    for sink in &sinks {
        effects.push(sink.end().await.1.unwrap().effect());
    }
    assert_eq!(effects, [Effect::Unknown, Effect::None, Effect::None, Effect::None]);
}

/// A link whose task is stopped tells its streams, and is counted.
#[tokio::test]
async fn an_abandoned_link_tells_its_streams() {
    let (near, mut far) = pair().await;
    let sink = Kept::new();
    let _inflow = near.open("go", &sink).unwrap();
    let _request = far.request().await;
    near.link.held.task.as_ref().unwrap().abort();
    assert_eq!(sink.end().await.1.unwrap().code(), "stream_interrupted");
    assert_eq!(near.link.closed().await, CloseReason::Abandoned);
    assert_eq!(near.local.counters.snapshot().closed, BTreeMap::from([("abandoned", 1)]));
}

/// The last handle closes the link.
#[tokio::test]
async fn a_dropped_link_is_closed() {
    let (near, far) = pair().await;
    let again = near.link.clone();
    drop(near);
    let sink = Kept::new();
    let _inflow = open(&again, "", &sink).unwrap();
    drop(again);
    assert_eq!(far.link.closed().await, CloseReason::PeerClosed);
    assert!(sink.end().await.1.is_some());
}

/// Links with nothing to do wake once, to go idle, and then not before their time: ten thousand of them do not
/// spin.
#[tokio::test(start_paused = true)]
async fn idle_links_sleep() {
    let (near, far) =
        pair_with(LinkLimits { idle_timeout: Duration::from_secs(3600), ..Default::default() }).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let polls = [&near, &far].map(|end| end.link.held.shared.polls());
    tokio::time::sleep(Duration::from_secs(1800)).await;
    assert_eq!([&near, &far].map(|end| end.link.held.shared.polls()), polls);
}
