use tokio::io::AsyncReadExt;

use super::*;

/// What is sent without waiting for room never goes on the wire without credit: it waits at the sender, and
/// nothing is lost, neither items nor the end.
#[tokio::test]
async fn items_wait_for_credit() {
    let limits = LinkLimits { stream_window_bytes: 1000, ..LinkLimits::default() };
    let (near, mut far) = pair_with(limits).await;
    let sink = Kept::new();
    let inflow = near.open("go", &sink).unwrap();
    let request = far.request().await;
    let items: Vec<_> = (0..500).map(|at| bytes(at % 90, 1)).collect();
    request.answers.items(&items[..300], false, 0).unwrap();
    request.answers.items(&items[300..], false, 0).unwrap();
    request.answers.end(0).unwrap();
    assert!(!request.answers.has_room());
    let mut given_back = 0;
    loop {
        sink.reach(given_back + 1).await;
        let arrived = sink.items();
        let new = &arrived[given_back..];
        let cost: usize = new.iter().map(|item| item.len() + 32).sum();
        assert!(cost <= 1000 + 90 + 32, "{cost} bytes were sent at once");
        inflow.consumed(new.iter().map(Bytes::len).sum(), new.len());
        given_back = arrived.len();
        if given_back == items.len() {
            break;
        }
    }
    assert_eq!(sink.end().await, (items, None));
    near.link.drained().await;
    far.link.drained().await;
    assert!(far.link.snapshot().totals.credit_stalls > 10);
}

/// A reader that stops delays its own stream alone, and what is kept for it stays within the window.
#[tokio::test]
async fn a_slow_reader_is_isolated() {
    let (near, mut far) = pair().await;
    let slow = Kept::new();
    let inflow = near.open("slow", &slow).unwrap();
    let slow_answers = far.request().await.answers;
    let item = bytes(10_000, 1);
    let mut sent = 0;
    while slow_answers.has_room() {
        slow_answers.items(std::slice::from_ref(&item), false, 0).unwrap();
        sent += 1;
    }
    assert_eq!(sent, (1_usize << 20).div_ceil(10_032));
    for _ in 0..100 {
        let quick = Kept::new();
        let _inflow = near.open("quick", &quick).unwrap();
        far.request().await.answers.items(&["answer".into()], true, 0).unwrap();
        assert_eq!(quick.end().await.0.len(), 1);
    }
    slow.reach(sent).await;
    let waiting = slow_answers.room();
    let mut waiting = pin!(waiting);
    assert!(futures_util::poll!(waiting.as_mut()).is_pending());
    inflow.consumed(sent * 10_000, sent);
    waiting.await.unwrap();
}

/// While a peer does not read, whoever answers waits as soon as the bound is reached, and goes on when it reads.
#[tokio::test]
async fn what_is_queued_is_bounded() {
    let limits = LinkLimits { outbound_bytes_max: 100_000, ..LinkLimits::default() };
    let (near, far) = tokio::io::duplex(4096);
    let (dialler, _, _) = local(1, limits, None);
    let (dialled, desk, mut requests) = local(2, limits, None);
    let mut near: Box<dyn ByteStream> = Box::new(near);
    let (met, link) = tokio::join!(
        super::super::hello::dial(&dialler, &mut near, DIALLED),
        Link::accept(dialled.clone(), Box::new(far))
    );
    met.unwrap();
    let (link, _desk) = (link.unwrap(), desk);
    let mut open = Vec::new();
    super::super::frame::Preamble::write(&mut open, Duration::from_secs(1), 0, "a", &Headers::new());
    let head = super::super::frame::Head::bytes(super::super::frame::Kind::Open, 0, 1, open.len());
    tokio::io::AsyncWriteExt::write_all(&mut near, &[&head[..], &open].concat()).await.unwrap();
    let answers = requests.recv().await.unwrap().answers;
    let mut sent = 0;
    while answers.has_room() {
        answers.items(&[bytes(1000, 0)], false, 0).unwrap();
        sent += 1;
    }
    assert!((90..110).contains(&sent), "{sent}");
    assert!(link.snapshot().queued_bytes < 102_000);
    let mut read = vec![0; 60_000];
    let (room, all) = tokio::join!(answers.room(), near.read_exact(&mut read));
    room.unwrap();
    all.unwrap();
}

/// Ten thousand streams at once on one link, each with its own items.
#[tokio::test]
async fn ten_thousand_streams_at_once() {
    let (near, mut far) = pair().await;
    let sinks: Vec<_> = (0..10_000).map(|_| Kept::new()).collect();
    let opened: Vec<_> =
        sinks.iter().enumerate().map(|(at, sink)| near.open(at.to_string(), sink).unwrap()).collect();
    let mut requests = Vec::new();
    for _ in &sinks {
        requests.push(far.request().await);
    }
    assert_eq!(far.link.snapshot().streams_open, 10_000);
    for round in 0..3 {
        for request in &requests {
            request.answers.items(std::slice::from_ref(&request.payload), round == 2, 0).unwrap();
        }
        tokio::task::yield_now().await;
    }
    for (at, sink) in sinks.iter().enumerate() {
        let (items, error) = sink.end().await;
        assert_eq!((items, error), (vec![Bytes::from(at.to_string()); 3], None));
    }
    drop(opened);
    for end in [&near, &far] {
        end.link.drained().await;
        assert_eq!(end.link.snapshot().totals.cancels_sent, 0);
    }
}

/// A message over the limit of either end is refused where it is sent, with both figures, and the link goes on.
#[tokio::test]
async fn a_message_over_the_limit_is_never_sent() {
    let less = LinkLimits { message_bytes_max: 1000, ..LinkLimits::default() };
    for limits in [[less, LinkLimits::default()], [LinkLimits::default(), less]] {
        let (a, b) = tokio::io::duplex(64 * 1024);
        let (near, mut far) = pair_over(Box::new(a), Box::new(b), limits).await;
        let error = near.open(bytes(1001, 0), &Kept::new()).unwrap_err();
        assert_eq!(error, Error::payload_too_large(1000, 1001));
        let sink = Kept::new();
        let _inflow = near.open(bytes(1000, 0), &sink).unwrap();
        let answers = far.request().await.answers;
        let error = answers.items(&["fits".into(), bytes(1001, 0)], true, 0).unwrap_err();
        assert_eq!(error, Error::payload_too_large(1000, 1001));
        answers.fail(&error, 0);
        assert_eq!(sink.end().await, (vec![], Some(error)));
    }
    let (near, mut far) = pair().await;
    assert!(near.open(bytes((64 << 20) + 1, 0), &Kept::new()).is_err());
    let mut headers = Headers::new();
    headers.append("long", "x".repeat(40_000)).unwrap();
    let (deadline, payload) = (Duration::from_secs(1), Bytes::new());
    let request = Outbound { target: "a", deadline, headers: &headers, payload: &payload, wake_at: None };
    let error = near.link.open(request, Kept::new()).unwrap_err();
    assert_eq!(error.code(), "payload_too_large");
    let _inflow = near.open("goes on", &Kept::new()).unwrap();
    far.request().await;
}

/// No more streams are opened than the other end allows.
#[tokio::test]
async fn streams_beyond_the_limit_are_not_opened() {
    let (near, mut far) = pair_with(LinkLimits { streams_max: 3, ..LinkLimits::default() }).await;
    let mut open: Vec<_> = (0..3).map(|_| near.open("go", &Kept::new()).unwrap()).collect();
    let error = near.open("go", &Kept::new()).unwrap_err();
    assert_eq!((error.code(), error.effect()), ("overloaded", slipring_core::Effect::None));
    open.pop();
    let _again = near.open("go", &Kept::new()).unwrap();
    for _ in 0..4 {
        far.request().await;
    }
    assert!(far.link.is_usable());
}

/// More long messages than the other end assembles at once take turns instead of being refused; small ones
/// overtake them.
#[tokio::test]
async fn long_messages_wait_for_their_turn() {
    let limits = LinkLimits { assembling_bytes_max: 3 << 20, ..LinkLimits::default() };
    let (near, mut far) = pair_with(limits).await;
    let sinks: Vec<_> = (0..40).map(|_| Kept::new()).collect();
    let _long: Vec<_> = sinks.iter().map(|sink| near.open(bytes(1 << 20, 5), sink).unwrap()).collect();
    let _small = near.open("small", &Kept::new()).unwrap();
    let mut order = Vec::new();
    for _ in 0..41 {
        let request = far.request().await;
        order.push(request.payload.len());
        let answer = if request.payload.len() > 5 { request.payload } else { bytes(100_000, 1) };
        request.answers.items(&[answer], true, 0).unwrap();
    }
    assert_eq!(order[0], 5, "{order:?}");
    for sink in &sinks {
        assert!(sink.end().await == (vec![bytes(1 << 20, 5)], None));
    }
    assert_eq!(far.link.snapshot().totals.refused_overloaded, 0);
}

/// A long request or item that is given up half-way leaves nothing behind, and the others go on.
#[tokio::test]
async fn long_messages_may_be_given_up() {
    let (near, mut far) = pair().await;
    let given_up = near.open(bytes(32 << 20, 5), &Kept::new()).unwrap();
    let kept = Kept::new();
    let _inflow = near.open(bytes(1 << 20, 6), &kept).unwrap();
    drop(given_up);
    let answers = far.request().await.answers;
    answers.items(&[bytes(32 << 20, 7)], false, 0).unwrap();
    tokio::task::yield_now().await;
    drop(answers);
    assert_eq!(kept.end().await.1.unwrap().code(), "stream_interrupted");
    let last = Kept::new();
    let _inflow = near.open("last", &last).unwrap();
    far.request().await.answers.end(0).unwrap();
    last.end().await;
    for end in [&near, &far] {
        end.link.drained().await;
        let snapshot = end.link.snapshot();
        assert_eq!((snapshot.assembling_bytes, snapshot.streams_open), (0, 0));
    }
}

/// Whoever takes the answers is woken at the time it asked for, once, unless its stream is over by then; in
/// whatever order they asked, and also where an earlier time is asked for later.
#[tokio::test(start_paused = true)]
async fn sinks_are_woken_at_their_time() {
    let (near, _far) = pair().await;
    let (start, payload) = (Instant::now(), Bytes::new());
    let sinks: Vec<_> = [300, 100, 200, 50].map(|millis| (millis, Kept::new())).into();
    let mut inflows: Vec<_> = sinks
        .iter()
        .map(|(millis, sink)| {
            let wake_at = Some(start + Duration::from_millis(*millis));
            let (deadline, headers) = (Duration::from_secs(9), &Headers::new());
            let request = Outbound { target: "a", deadline, headers, payload: &payload, wake_at };
            near.link.open(request, sink.clone()).unwrap()
        })
        .collect();
    drop(inflows.remove(2));
    tokio::time::sleep(Duration::from_secs(5)).await;
    for (at, (millis, sink)) in sinks.iter().enumerate() {
        let due = start + Duration::from_millis(*millis);
        let expected = if at == 2 { vec![] } else { vec![due] };
        assert_eq!(*sink.woken.lock().unwrap(), expected);
    }
}
