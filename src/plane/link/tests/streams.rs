use super::*;

/// One request, one answer, with all that travels along; both ends are done then.
#[tokio::test]
async fn a_request_is_answered() {
    let (near, mut far) = pair().await;
    let sink = Kept::new();
    let mut headers = Headers::new();
    headers.append("name", "a value").unwrap();
    headers.append("other", "").unwrap();
    let (deadline, payload) = (Duration::from_nanos(1_000_000_001), Bytes::from("ping"));
    let sent = Outbound { target: "n/c/e", deadline, headers: &headers, payload: &payload, wake_at: None };
    let _inflow = near.link.open(sent, sink.clone()).unwrap();
    let request = far.request().await;
    assert_eq!((&*request.target, &request.headers, &request.payload[..]), ("n/c/e", &headers, &b"ping"[..]));
    assert_eq!(request.deadline, Duration::from_micros(1_000_001), "rounded up");
    request.answers.items(&["pong".into()], true, 7).unwrap();
    assert_eq!(sink.end().await, (vec!["pong".into()], None));
    assert_eq!(sink.state.lock().unwrap().load, Some(7));
    near.link.drained().await;
    far.link.drained().await;
    assert!(request.answers.items(&["more".into()], true, 7).is_err(), "it has ended");
}

/// Streams of no, one and many items, in batches of every kind, arrive whole and in order, and end as they were
/// ended.
#[tokio::test]
async fn streams_have_any_number_of_items() {
    let (near, mut far) = pair().await;
    for (count, batch, separate_end) in
        [(0, 1, true), (1, 1, true), (1, 1, false), (1000, 1, false), (1000, 7, true), (5000, 5000, false)]
    {
        let (sink, items) = (Kept::new(), (0..count).map(|at| bytes(at % 300, at as u8)).collect::<Vec<_>>());
        let _inflow = near.open("go", &sink).unwrap();
        let request = far.request().await;
        let batches = items.chunks(batch).len();
        for (at, batch) in items.chunks(batch).enumerate() {
            request.answers.room().await.unwrap();
            request.answers.items(batch, !separate_end && at + 1 == batches, 0).unwrap();
        }
        if separate_end {
            request.answers.end(0).unwrap();
        }
        assert_eq!(sink.end().await, (items, None));
    }
}

/// An error ends a stream, with its kind and effect, after the items before it.
#[tokio::test]
async fn a_stream_may_fail() {
    let (near, mut far) = pair().await;
    let sink = Kept::new();
    let _inflow = near.open("go", &sink).unwrap();
    let request = far.request().await;
    request.answers.items(&["one".into()], false, 0).unwrap();
    let fault = Error::fault("bad", "x".repeat(200_000));
    request.answers.fail(&fault, 0);
    let (items, error) = sink.end().await;
    let error = error.unwrap();
    assert_eq!((items.len(), error.code(), error.effect()), (1, "fault", fault.effect()));
}

/// Giving a stream up at the asking end tells the answering end; nothing more is delivered.
#[tokio::test]
async fn a_cancel_is_told() {
    let (near, mut far) = pair().await;
    let sink = Kept::new();
    let inflow = near.open("go", &sink).unwrap();
    let request = far.request().await;
    request.answers.items(&["one".into()], false, 0).unwrap();
    sink.reach(1).await;
    drop(inflow);
    request.answers.taker().gone().await;
    assert!(request.answers.is_closed());
    assert_eq!(request.answers.items(&["two".into()], false, 0).unwrap_err().code(), "cancelled");
    assert!(request.answers.room().await.is_err());
    assert_eq!(sink.arrivals().len(), 1);
    near.link.drained().await;
    far.link.drained().await;
}

/// Answers that are dropped half-way interrupt the stream.
#[tokio::test]
async fn a_dropped_answer_is_a_reset() {
    let (near, mut far) = pair().await;
    let sink = Kept::new();
    let _inflow = near.open("go", &sink).unwrap();
    let request = far.request().await;
    request.answers.items(&["one".into()], false, 0).unwrap();
    drop(request);
    let (items, error) = sink.end().await;
    assert_eq!((items.len(), error.unwrap().code()), (1, "stream_interrupted"));
    far.link.drained().await;
}

/// A closed link interrupts every stream on it, at both ends, and opens no more.
#[tokio::test]
async fn a_cut_fails_every_stream() {
    let (near, mut far) = pair().await;
    let sinks: Vec<_> = (0..100).map(|_| Kept::new()).collect();
    let _inflows: Vec<_> = sinks.iter().map(|sink| near.open("go", sink).unwrap()).collect();
    let mut requests = Vec::new();
    for _ in &sinks {
        requests.push(far.request().await);
    }
    far.link.close(CloseReason::Requested);
    for sink in &sinks {
        let (items, error) = sink.end().await;
        assert_eq!((items.len(), error.unwrap().code()), (0, "stream_interrupted"));
    }
    for request in &requests {
        request.answers.taker().gone().await;
    }
    assert_eq!(near.link.closed().await, CloseReason::PeerClosed);
    assert_eq!(far.link.closed().await, CloseReason::Requested);
    let error = near.open("go", &Kept::new()).unwrap_err();
    assert_eq!((error.code(), error.effect()), ("unavailable", slipring_core::Effect::None));
}

/// In call-home the answering end opens the stream; a call that is not known is refused.
#[tokio::test]
async fn answers_are_attached_to_a_call() {
    let (near, far) = pair().await;
    let sink = far.adopts(7, 8);
    let outflow = near.link.attach(7, 8).unwrap();
    outflow.items(&["one".into(), "two".into()], false, 0).unwrap();
    outflow.end(0).unwrap();
    assert_eq!(sink.end().await, (vec!["one".into(), "two".into()], None));
    let stray = near.link.attach(7, 9).unwrap();
    stray.taker().gone().await;
    near.link.drained().await;
    far.link.drained().await;
}

/// Requests and items of any length up to the limit arrive as they were sent, beside small ones.
#[tokio::test]
async fn long_messages_travel_in_chunks() {
    let (near, mut far) = pair().await;
    for length in [1, 8_192, 65_535, 65_536, 69_000, 70_000, 1 << 20, 64 << 20] {
        let (sink, small, body) = (Kept::new(), Kept::new(), bytes(length, 3));
        let inflow = near.open(body.clone(), &sink).unwrap();
        let _small = near.open("small", &small).unwrap();
        for _ in 0..2 {
            let request = far.request().await;
            assert!(request.payload == body || request.payload == "small", "{length}");
            let items = [request.payload.clone(), "after".into()];
            request.answers.items(&items, true, 0).unwrap();
        }
        sink.reach(1).await;
        inflow.consumed(length, 1);
        assert!(sink.end().await == (vec![body, "after".into()], None), "{length}");
        assert!(small.end().await == (vec!["small".into(), "after".into()], None), "{length}");
    }
}
