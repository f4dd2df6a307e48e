//! Services: core's own code over the broker under test.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::Value;
use slipring_core::service::{EndpointSpec, Requests, Service, ServiceName, ServiceReport, ServiceSpec};
use slipring_core::{Message, Messaging, MessagingExt, QueueGroup, Subject, Subscription};
use tokio::time::{Instant, sleep};

use crate::failure::{ensure, ensure_eq};
use crate::trial::{broker_can, fails, next, subscribe, within};
use crate::{Failure, Trial, Verdict};

/// How long answers are collected: all have to come in this time, on a real server too.
const WINDOW: Duration = Duration::from_millis(1500);

fn name(trial: &Trial) -> Result<ServiceName, Failure> {
    Ok(ServiceName::new(format!("conformance-{}", trial.tag()))?)
}

async fn serve(trial: &Trial, id: &str) -> Result<Service, Failure> {
    let spec = ServiceSpec::new(name(trial)?, id)
        .with_version("1.2.3")
        .with_description("a service under test")
        .with_metadata("component", "dynamo|processor");
    Ok(trial.messaging().await?.serve(trial.environment(), spec).await?)
}

async fn inspect(trial: &Trial) -> Result<Vec<ServiceReport>, Failure> {
    let inbox = trial.subject(format_args!("inspect.{:x}", trial.environment().random("inspect inbox")));
    Ok(trial.messaging().await?.inspect(inbox, Some(&name(trial)?), WINDOW).await?)
}

/// Handles one request: counts it, answers it.
async fn handle_one(broker: &dyn Messaging, requests: &mut Requests, error: Option<&str>) -> Verdict {
    let request = next(requests, "the request").await?;
    let in_flight = requests.stats().begin();
    if let Some(error) = error {
        in_flight.failed(error);
    }
    Ok(broker.respond(&request, Bytes::from("done")).await?)
}

/// What one instance answers at a subject of the micro protocol.
async fn ask(trial: &Trial, subject: String) -> Result<Value, Failure> {
    let broker = trial.messaging().await?;
    let reply = broker.request(Message::new(Subject::new(subject)?, ""), Duration::from_secs(10)).await?;
    serde_json::from_slice(&reply.payload).map_err(|error| Failure::new(format!("no JSON: {error}")))
}

/// A service is found by its name, with what it said of itself and its endpoints.
pub async fn service_is_found(trial: &Trial) -> Verdict {
    let service = serve(trial, "i1").await?;
    let endpoint = EndpointSpec::new("generate", trial.subject("generate"));
    let _requests = service.add(endpoint).await?;
    let found = inspect(trial).await?;
    ensure_eq!(found.len(), 1, "the number of instances found");
    let report = &found[0];
    ensure_eq!(report.kind, "io.nats.micro.v1.stats_response", "the type of the report");
    ensure_eq!((&*report.name, &*report.id), (name(trial)?.as_str(), "i1"), "name and id");
    ensure_eq!(report.version, "1.2.3", "the version");
    ensure_eq!(
        report.metadata.get("component").map(String::as_str),
        Some("dynamo|processor"),
        "the metadata"
    );
    let endpoints: Vec<_> = report.endpoints.iter().map(|e| (e.name.clone(), e.subject.clone())).collect();
    ensure_eq!(endpoints, vec![("generate".to_owned(), trial.scoped("generate"))], "the endpoints");
    Ok(())
}

/// All instances of a service are found, in the order of their ids; when one is dropped, the others remain.
pub async fn instances_are_found(trial: &Trial) -> Verdict {
    let (two, one) = (serve(trial, "i2").await?, serve(trial, "i1").await?);
    let ids =
        async || Ok::<Vec<_>, Failure>(inspect(trial).await?.into_iter().map(|report| report.id).collect());
    ensure_eq!(ids().await?, vec!["i1", "i2"], "the instances");
    drop(one);
    let alone = async {
        while ids().await? != ["i2"] {
            sleep(Duration::from_millis(20)).await;
        }
        Ok::<_, Failure>(())
    };
    within("the dropped instance to be gone", alone).await??;
    drop(two);
    Ok(())
}

/// A service that nobody runs is found to have no instances: at once, where the broker says that nobody is
/// there.
pub async fn unknown_service_has_no_instances(trial: &Trial) -> Verdict {
    let quick = broker_can(&*trial.messaging().await?).await?.no_responders;
    let began = Instant::now();
    ensure_eq!(inspect(trial).await?.len(), 0, "the number of instances");
    ensure!(!quick || began.elapsed() < WINDOW, "nobody is there, and it took {:?}", began.elapsed());
    Ok(())
}

/// PING, INFO and STATS are answered under the service's name and under its id, each with its own type.
pub async fn micro_protocol_is_answered(trial: &Trial) -> Verdict {
    let service = serve(trial, "i1").await?;
    let spec = EndpointSpec::new("generate", trial.subject("generate"))
        .with_metadata("codec", "json")
        .with_stats(Arc::new(|| Value::from(42)));
    let _requests = service.add(spec).await?;
    let name = name(trial)?;
    for (verb, kind) in [("PING", "ping"), ("INFO", "info"), ("STATS", "stats")] {
        for subject in [format!("$SRV.{verb}.{name}"), format!("$SRV.{verb}.{name}.i1")] {
            let answer = ask(trial, subject.clone()).await?;
            ensure_eq!(answer["type"], format!("io.nats.micro.v1.{kind}_response"), "the type at {subject}");
            ensure_eq!(answer["name"], name.as_str(), "the name at {subject}");
            ensure_eq!(answer["id"], "i1", "the id at {subject}");
            ensure_eq!(answer["version"], "1.2.3", "the version at {subject}");
            let endpoint = &answer["endpoints"][0];
            let [metadata, data] = match kind {
                "ping" => [Value::Null, Value::Null],
                "info" => ["json".into(), Value::Null],
                _ => [Value::Null, 42.into()],
            };
            ensure_eq!(endpoint["metadata"]["codec"], metadata, "the endpoint's metadata at {subject}");
            ensure_eq!(endpoint["data"], data, "the endpoint's own statistics at {subject}");
        }
    }
    Ok(())
}

/// All services answer to the question that names none.
pub async fn all_services_answer(trial: &Trial) -> Verdict {
    let _service = serve(trial, "i1").await?;
    let broker = trial.messaging().await?;
    let inbox = trial.subject("inbox");
    let mut answers = broker.subscribe(Subscription::new(&inbox)).await?;
    broker.publish(Message::new(Subject::new("$SRV.PING")?, "").with_reply(inbox)).await?;
    let name = name(trial)?;
    // Others may run on the same server.
    let found = async {
        loop {
            let answer = next(&mut answers, "an answer to $SRV.PING").await?;
            let answer: Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
            if answer["name"] == name.as_str() {
                return Ok(());
            }
        }
    };
    within("this service to answer", found).await?
}

/// Requests are counted when they end, with their errors and the time they took.
pub async fn requests_are_counted(trial: &Trial) -> Verdict {
    let service = serve(trial, "i1").await?;
    let broker = trial.messaging().await?;
    let subject = trial.subject("generate");
    let mut requests = service.add(EndpointSpec::new("generate", subject.clone())).await?;
    for error in [None, Some("first"), None, Some("last")] {
        let asked = broker.request(Message::new(subject.clone(), "?"), Duration::from_secs(10));
        let (reply, handled) =
            futures_util::future::join(asked, handle_one(&*broker, &mut requests, error)).await;
        handled?;
        ensure_eq!(reply?.payload, "done", "the reply");
    }
    let found = inspect(trial).await?;
    let endpoint = found.first().and_then(|report| report.endpoints.first());
    let counts = endpoint.map(|e| (e.num_requests, e.num_errors, e.last_error.as_str()));
    ensure_eq!(counts, Some((4, 2, "last")), "requests, errors and the last error");
    ensure_eq!(requests.stats().in_flight(), 0, "the requests in flight");
    Ok(())
}

/// An endpoint's name is unique in its service; it is on the list as long as its requests are held.
pub async fn endpoints_are_listed(trial: &Trial) -> Verdict {
    let service = serve(trial, "i1").await?;
    let add = |name: &str, subject: &str| service.add(EndpointSpec::new(name, trial.subject(subject)));
    let (first, second) = (add("generate", "a").await?, add("health", "b").await?);
    fails(add("generate", "c").await.map(drop), "already_exists")?;
    let listed = async || {
        let found = inspect(trial).await?;
        let endpoints = found.iter().flat_map(|report| &report.endpoints);
        Ok::<Vec<_>, Failure>(endpoints.map(|endpoint| endpoint.name.clone()).collect())
    };
    ensure_eq!(listed().await?, vec!["generate", "health"], "the endpoints");
    drop(first);
    ensure_eq!(listed().await?, vec!["health"], "the endpoints after one was dropped");
    let _again = add("generate", "a").await?;
    drop(second);
    ensure_eq!(listed().await?, vec!["generate"], "the endpoints after one was added again");
    Ok(())
}

/// Draining waits for what is in flight, and says what is left when its time is over. A stopped endpoint
/// still handles what it had accepted.
pub async fn drain_waits_for_what_is_in_flight(trial: &Trial) -> Verdict {
    let service = serve(trial, "i1").await?;
    let broker = trial.messaging().await?;
    let subject = trial.subject("generate");
    let mut requests = service.add(EndpointSpec::new("generate", subject.clone())).await?;
    service.drain(Duration::from_secs(5)).await?;
    for _ in 0..3 {
        broker.publish(Message::new(subject.clone(), "work")).await?;
    }
    broker.flush().await?;
    requests.stop();
    let mut in_flight = Vec::new();
    let accepted = async {
        while let Some(message) = requests.next().await {
            message?;
            in_flight.push(requests.stats().begin());
        }
        Ok::<_, Failure>(())
    };
    within("the stopped endpoint to end", accepted).await??;
    ensure_eq!(in_flight.len(), 3, "the requests that were accepted");
    in_flight.pop();
    let early = service.drain(Duration::from_millis(50)).await;
    let told =
        early.as_ref().is_err_and(|e| e.code() == "deadline_exceeded" && e.to_string().contains("2 in"));
    ensure!(told, "expected the drain to say that 2 are in flight, got {early:?}");
    let finish = async {
        sleep(Duration::from_millis(50)).await;
        drop(in_flight);
    };
    let (drained, ()) = futures_util::future::join(service.drain(Duration::from_secs(10)), finish).await;
    drained?;
    ensure_eq!(requests.stats().requests(), 3, "the requests that ended");
    Ok(())
}

/// Instances that share an endpoint's subject in a queue group share its requests.
pub async fn instances_share_requests(trial: &Trial) -> Verdict {
    let broker = trial.messaging().await?;
    let (one, two) = (serve(trial, "i1").await?, serve(trial, "i2").await?);
    let subject = trial.subject("generate");
    let witness = subscribe(&*broker, &subject).await?;
    let group = QueueGroup::new("q")?;
    let spec = || EndpointSpec::new("generate", subject.clone()).with_queue(group.clone());
    let (mut first, mut second) = (one.add(spec()).await?, two.add(spec()).await?);
    for _ in 0..60 {
        broker.publish(Message::new(subject.clone(), "work")).await?;
    }
    broker.flush().await?;
    let mut handled = 0;
    for requests in [&mut first, &mut second] {
        requests.stop();
        while let Some(message) = within("the stopped endpoint to end", requests.next()).await? {
            message?;
            handled += 1;
        }
    }
    ensure_eq!(handled, 60, "the requests that both handled together");
    ensure_eq!(crate::trial::drained(witness).await?.len(), 60, "what a plain subscriber saw");
    Ok(())
}
