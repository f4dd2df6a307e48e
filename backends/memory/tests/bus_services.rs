//! The services of core over the bus: what they answer, how they end, what they count.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};
use slipring_core::service::{EndpointSpec, Service, ServiceName, ServiceSpec};
use slipring_core::{
    Effect, Environment, Message, Messaging, MessagingExt, QueueGroup, Subject, Subscription,
    SystemEnvironment,
};
use slipring_memory::{MemoryMessaging, SharedBus};
use tokio::time::Instant;

const WINDOW: Duration = Duration::from_secs(1);

/// The questions that one service listens to: three verbs, for all, by name, and by name and id.
const QUESTIONS: usize = 9;

fn messaging() -> MemoryMessaging {
    MemoryMessaging::new(SharedBus::new(SharedBus::capabilities_max(), environment()))
}

fn inbox() -> Subject {
    Subject::new("inbox").unwrap()
}

fn environment() -> Arc<dyn Environment> {
    Arc::new(SystemEnvironment::new())
}

fn subject(text: &str) -> Subject {
    Subject::new(text).unwrap()
}

fn spec(name: &str, id: &str) -> ServiceSpec {
    ServiceSpec::new(ServiceName::new(name).unwrap(), id)
        .with_version("1.2.3")
        .with_description("does things")
        .with_metadata("zone", "a")
}

async fn serve(messaging: &MemoryMessaging, name: &str, id: &str) -> Service {
    messaging.serve(environment(), spec(name, id)).await.unwrap()
}

fn endpoint(name: &str) -> EndpointSpec {
    EndpointSpec::new(name, subject(&format!("do.{name}")))
}

/// Asks a subject and collects what is answered before time moves.
async fn ask(messaging: &MemoryMessaging, question: &str) -> Vec<Value> {
    let mut answers = messaging.subscribe(Subscription::new(subject("inbox"))).await.unwrap();
    messaging.publish(Message::new(subject(question), "").with_reply(subject("inbox"))).await.unwrap();
    let mut read = Vec::new();
    while let Ok(Some(answer)) = tokio::time::timeout(WINDOW, answers.next()).await {
        let answer = answer.unwrap();
        if answer.no_responders {
            break;
        }
        read.push(serde_json::from_slice(&answer.payload).unwrap());
    }
    read
}

fn ids(answers: &[Value]) -> BTreeSet<&str> {
    answers.iter().map(|answer| answer["id"].as_str().unwrap()).collect()
}

/// A question to all reaches all, one by name those of that name, one by name and id that instance alone.
#[tokio::test(start_paused = true)]
async fn nats_services_are_asked_at_three_levels() {
    let messaging = messaging();
    let _running = [
        serve(&messaging, "adder", "1").await,
        serve(&messaging, "adder", "2").await,
        serve(&messaging, "echo", "3").await,
    ];
    for verb in ["PING", "INFO", "STATS"] {
        for (of, expected) in [("", vec!["1", "2", "3"]), (".adder", vec!["1", "2"]), (".adder.2", vec!["2"])]
        {
            let answers = ask(&messaging, &format!("$SRV.{verb}{of}")).await;
            assert_eq!(answers.len(), expected.len(), "one answer per instance");
            assert_eq!(ids(&answers), BTreeSet::from_iter(expected), "{verb}{of}");
        }
    }
}

/// The answers are the JSON of the NATS micro protocol, field by field.
#[tokio::test(start_paused = true)]
async fn nats_services_answer_with_the_json_of_the_protocol() {
    let messaging = messaging();
    let service = serve(&messaging, "adder", "1").await;
    let stats = Arc::new(|| json!({"depth": 7}));
    let queue = QueueGroup::new("q").unwrap();
    let adding = endpoint("add").with_queue(queue).with_metadata("format", "json").with_stats(stats);
    let requests = service.add(adding).await.unwrap();
    let request = requests.stats().begin();
    tokio::time::advance(Duration::from_millis(5)).await;
    request.failed("overflow");
    drop(request);

    let identity = |kind: &str| {
        json!({
            "type": format!("io.nats.micro.v1.{kind}_response"), "name": "adder", "id": "1",
            "version": "1.2.3", "metadata": {"zone": "a"},
        })
    };
    assert_eq!(ask(&messaging, "$SRV.PING").await, [identity("ping")]);
    let mut info = identity("info");
    info["description"] = json!("does things");
    info["endpoints"] =
        json!([{"name": "add", "subject": "do.add", "queue_group": "q", "metadata": {"format": "json"}}]);
    assert_eq!(ask(&messaging, "$SRV.INFO").await, [info]);
    let mut stats = identity("stats");
    let answers = ask(&messaging, "$SRV.STATS").await;
    let started = answers[0]["started"].as_str().unwrap();
    assert!(started.len() == "2026-01-31T08:05:09.250Z".len() && started.ends_with('Z'), "{started}");
    stats["started"] = json!(started);
    stats["endpoints"] = json!([{
        "name": "add", "subject": "do.add", "queue_group": "q", "num_requests": 1, "num_errors": 1,
        "last_error": "overflow", "processing_time": 5_000_000, "average_processing_time": 5_000_000,
        "data": {"depth": 7},
    }]);
    assert_eq!(answers, [stats]);
}

/// Reports come sorted, of all services or of one name; a name that nobody has is answered at once with none.
#[tokio::test(start_paused = true)]
async fn inspect_finds_services_and_misses_none_that_is_not_there() {
    let messaging = messaging();
    let _running = [
        serve(&messaging, "echo", "3").await,
        serve(&messaging, "adder", "2").await,
        serve(&messaging, "adder", "1").await,
    ];
    let all = messaging.inspect(inbox(), None, WINDOW).await.unwrap();
    let found: Vec<_> = all.iter().map(|report| (report.name.as_str(), report.id.as_str())).collect();
    assert_eq!(found, [("adder", "1"), ("adder", "2"), ("echo", "3")]);
    let adder = ServiceName::new("adder").unwrap();
    assert_eq!(messaging.inspect(inbox(), Some(&adder), WINDOW).await.unwrap().len(), 2);
    let began = Instant::now();
    let unknown = ServiceName::new("unknown").unwrap();
    assert_eq!(messaging.inspect(inbox(), Some(&unknown), WINDOW).await.unwrap(), []);
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(messaging.subscriptions(), 3 * QUESTIONS, "inspecting leaves no inbox");
}

/// A report that arrives is the one that the service gives of itself, and an unreadable answer is skipped.
#[tokio::test(start_paused = true)]
async fn inspect_reads_what_the_service_reports() {
    let messaging = messaging();
    let service = serve(&messaging, "adder", "1").await;
    let _requests = service.add(endpoint("add")).await.unwrap();
    let mut asked = messaging.subscribe(Subscription::new(subject("$SRV.STATS"))).await.unwrap();
    let answers_nonsense = async {
        let question = asked.next().await.unwrap().unwrap();
        messaging.respond(&question, "nonsense".into()).await.unwrap();
    };
    let (reports, ()) = tokio::join!(messaging.inspect(inbox(), None, WINDOW), answers_nonsense);
    let mut expected = service.report();
    expected.description = String::new();
    assert_eq!(reports.unwrap(), [expected]);
}

/// A service that is dropped answers no more and leaves no subscription; its neighbour goes on.
#[tokio::test(start_paused = true)]
async fn nats_a_dropped_service_stops_answering() {
    let messaging = messaging();
    let dropped = serve(&messaging, "adder", "1").await;
    let _stays = serve(&messaging, "adder", "2").await;
    drop(dropped);
    assert_eq!(ids(&ask(&messaging, "$SRV.PING").await), BTreeSet::from(["2"]));
    assert_eq!(messaging.subscriptions(), QUESTIONS);
    assert!(ask(&messaging, "$SRV.PING.adder.1").await.is_empty());
}

/// A service whose start fails or is given up half-way leaves nothing.
#[tokio::test(start_paused = true)]
async fn d16_a_start_that_fails_leaves_nothing() {
    let messaging = messaging();
    for id in ["", "two.tokens", "white space"] {
        let refused = messaging.serve(environment(), spec("adder", id)).await.unwrap_err();
        assert_eq!(refused.code(), "invalid", "{id:?}");
    }
    assert_eq!(messaging.subscriptions(), 0);
}

/// An endpoint is on the list while its requests are read, and off it, and unsubscribed, once they are dropped.
#[tokio::test(start_paused = true)]
async fn an_endpoint_is_listed_while_it_is_served() {
    let messaging = messaging();
    let service = serve(&messaging, "adder", "1").await;
    let mut requests = service.add(endpoint("add")).await.unwrap();
    assert_eq!((service.endpoints(), messaging.subscriptions()), (1, QUESTIONS + 1));
    messaging.publish(Message::new(subject("do.add"), "1+1")).await.unwrap();
    assert_eq!(requests.next().await.unwrap().unwrap().payload, "1+1");
    drop(requests);
    assert_eq!((service.endpoints(), messaging.subscriptions()), (0, QUESTIONS));
    assert_eq!(ask(&messaging, "$SRV.INFO").await[0]["endpoints"], json!([]));
    service.add(endpoint("add")).await.unwrap();
}

/// A second endpoint of a name is refused, before it could take a request from the first.
#[tokio::test(start_paused = true)]
async fn a_second_endpoint_of_a_name_is_refused() {
    let messaging = messaging();
    let service = serve(&messaging, "adder", "1").await;
    let requests = service.add(endpoint("add")).await.unwrap();
    let (again, subscribed) = (service.add(endpoint("add")).await, messaging.subscriptions());
    assert_eq!((again.unwrap_err().code(), subscribed), ("already_exists", QUESTIONS + 1));
    drop(requests);
    messaging.close(WINDOW).await.unwrap();
    assert_eq!(service.add(endpoint("add")).await.unwrap_err().code(), "unavailable");
    assert_eq!(service.endpoints(), 0, "an endpoint that could not subscribe is not listed");
}

/// Draining waits for the last request in flight, also of an endpoint that is gone by then.
#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_requests_of_endpoints_that_are_gone() {
    let messaging = messaging();
    let service = serve(&messaging, "adder", "1").await;
    let (gone, here) =
        (service.add(endpoint("gone")).await.unwrap(), service.add(endpoint("here")).await.unwrap());
    let in_flight = [gone.stats().begin(), here.stats().begin()];
    drop(gone);
    let drain = service.drain(WINDOW);
    tokio::pin!(drain);
    for request in in_flight {
        assert!((&mut drain).now_or_never().is_none());
        drop(request);
    }
    drain.await.unwrap();
}

/// A drain is bounded, and says how many requests it leaves behind.
#[tokio::test(start_paused = true)]
async fn a_drain_is_bounded_and_reports_what_is_left() {
    let messaging = messaging();
    let service = serve(&messaging, "adder", "1").await;
    let requests = service.add(endpoint("add")).await.unwrap();
    let _in_flight = [requests.stats().begin(), requests.stats().begin()];
    let began = Instant::now();
    let error = service.drain(WINDOW).await.unwrap_err();
    assert_eq!(
        (error.code(), error.effect(), began.elapsed()),
        ("deadline_exceeded", Effect::Unknown, WINDOW)
    );
    assert!(error.to_string().contains("2 in flight"), "{error}");
}

/// After a stop, what was accepted is still handled; whoever asks afterwards is told that nobody is there.
#[tokio::test(start_paused = true)]
async fn m12_a_stopped_endpoint_handles_what_it_accepted() {
    let messaging = messaging();
    let service = serve(&messaging, "adder", "1").await;
    let mut requests = service.add(endpoint("add")).await.unwrap();
    messaging.publish(Message::new(subject("do.add"), "accepted")).await.unwrap();
    requests.stop();
    let late = messaging.request(Message::new(subject("do.add"), "late"), WINDOW).await.unwrap_err();
    assert_eq!(late.code(), "no_responders");
    assert_eq!(requests.next().await.unwrap().unwrap().payload, "accepted");
    assert!(requests.next().await.is_none());
}

/// A statistics handler that panics costs its own figures, not the service.
#[tokio::test(start_paused = true)]
async fn a_panicking_statistics_handler_silences_nothing() {
    let messaging = messaging();
    let service = serve(&messaging, "adder", "1").await;
    let _bad = service.add(endpoint("bad").with_stats(Arc::new(|| panic!("in a handler")))).await.unwrap();
    let _good = service.add(endpoint("good").with_stats(Arc::new(|| json!(7)))).await.unwrap();
    for _ in 0..2 {
        let answers = ask(&messaging, "$SRV.STATS").await;
        assert_eq!(answers.len(), 1);
        let data = |at: usize| &answers[0]["endpoints"][at]["data"];
        assert_eq!((data(0), data(1)), (&Value::Null, &json!(7)));
    }
}
