//! At the other end is a program that we did not write: etcdctl, and a client of NATS in Python.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use slipring::{Config, DistributedRuntime};
use slipring_servers::Version;
use tokio::process::Command;
use tokio::time::timeout;

use crate::live::{Servers, stopped};
use crate::program::Program;

const WAIT_MAX: Duration = Duration::from_secs(30);
const ENDPOINT: &str = "--endpoint dynamo.processor.generate";

/// etcdctl finds the keys of a worker and no others: its record and its anchor. The record is JSON with the
/// documented fields, and lies under the worker's lease. After the stop nothing is left.
#[tokio::test]
async fn etcdctl_reads_the_records() {
    for version in Version::ALL {
        let servers = Servers::start(version).await;
        let worker = servers.worker(ENDPOINT).await;
        let entries = read_all(&servers).await;
        let record = record(&entries);
        let id = record["instance_id"].as_u64().unwrap();
        let instance = format!("{id:x}");
        let keys: Vec<_> = entries.iter().map(|entry| entry.key.as_str()).collect();
        let expected = [
            format!("$slipring/anchor/{instance}"),
            format!("dynamo/components/processor/generate:{instance}"),
        ];
        assert_eq!(keys, expected);

        let expected = json!({
            "namespace": "dynamo",
            "component": "processor",
            "endpoint": "generate",
            "lease_id": id,
            "transport": { "broker": format!("dynamo|processor.generate-{instance}") },
            "instance_id": id,
            "epoch": 1,
            "version": 1,
            "ready": true,
            "codec": "json",
            "labels": {},
        });
        assert_eq!(record, expected);
        assert_eq!(entries.iter().map(|entry| entry.lease).collect::<Vec<_>>(), [id, id]);

        stopped(worker).await;
        let left = read_all(&servers).await;
        assert_eq!(left.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), [""; 0]);
    }
}

/// A client of NATS calls a worker by its subject: plain JSON there, plain JSON back, not a header more. What
/// the worker then says of itself as a service holds that call.
#[tokio::test]
async fn python_calls_a_worker() {
    for version in Version::ALL {
        let servers = Servers::start(version).await;
        let worker = servers.worker(ENDPOINT).await;
        let record = record(&read_all(&servers).await);
        let subject = record["transport"]["broker"].as_str().unwrap();
        let instance = format!("{:x}", record["instance_id"].as_u64().unwrap());

        let request = json!({ "prompt": "to be", "tokens": 3 });
        let [answer, headers] = python(&servers, &["call", subject, &request.to_string()]).await;
        assert_eq!(answer, json!({ "instance": instance, "request": request }));
        assert_eq!(headers, json!({}));

        let [info, _] = python(&servers, &["ask", "$SRV.INFO"]).await;
        assert_eq!(info["type"], "io.nats.micro.v1.info_response");
        assert_eq!((&info["name"], &info["id"]), (&"dynamo_pprocessor".into(), &instance.as_str().into()));
        assert_eq!(info["metadata"]["slipring.service"], "dynamo|processor");
        assert_eq!(info["endpoints"][0]["name"], "generate");
        assert_eq!(info["endpoints"][0]["subject"], subject);
        let [stats, _] = python(&servers, &["ask", "$SRV.STATS.dynamo_pprocessor"]).await;
        assert_eq!(stats["type"], "io.nats.micro.v1.stats_response");
        assert_eq!(stats["endpoints"][0]["num_requests"], 1);
        assert_eq!(stats["endpoints"][0]["num_errors"], 0);
        let own = format!("$SRV.PING.dynamo_pprocessor.{instance}");
        let [ping, _] = python(&servers, &["ask", &own]).await;
        assert_eq!(ping["type"], "io.nats.micro.v1.ping_response");
        assert_eq!(stopped(worker).await, 1);
    }
}

/// What is no JSON is answered with the error headers of NATS services, not with silence.
#[tokio::test]
async fn python_is_told_what_is_wrong() {
    let servers = Servers::start(Version::Debian).await;
    let _worker = servers.worker(ENDPOINT).await;
    let record = record(&read_all(&servers).await);
    let subject = record["transport"]["broker"].as_str().unwrap();
    let [_, headers] = python(&servers, &["call", subject, "{"]).await;
    assert_eq!(headers["Nats-Service-Error-Code"], "500");
    assert!(headers["Nats-Service-Error"].as_str().unwrap().contains("invalid"), "{headers}");
}

/// Events go both ways: what slipring publishes a client of NATS gets as JSON, and what that publishes a
/// subscriber of slipring gets, without a publisher's number.
#[tokio::test]
async fn python_and_slipring_exchange_events() {
    let servers = Servers::start(Version::Newer).await;
    let messaging = format!("nats://{}", servers.nats.endpoint()).parse().unwrap();
    let runtime =
        DistributedRuntime::from_config(Config::new("memory:".parse().unwrap(), messaging)).await.unwrap();
    let component = runtime.namespace("dynamo").unwrap().component("processor").unwrap();
    let events = component.events::<Value>("kv_events").unwrap();
    let subject = events.subject();
    assert_eq!(subject.as_str(), "namespace.dynamo.component.processor.kv_events");

    let mut follower = Program::run(&mut client(&servers, &["follow", subject.as_str()]));
    assert_eq!(follower.line().await, "\"subscribed\"");
    events.publish(&json!({ "stored": [1, 2] })).await.unwrap();
    let ended = follower.end().await;
    assert_eq!(
        (&ended.output[..], ended.code),
        (&["{\"stored\": [1, 2]}".to_owned()][..], Some(0)),
        "{ended:?}"
    );

    let mut subscriber = events.subscribe().await.unwrap();
    let [] = python(&servers, &["publish", subject.as_str(), "{\"removed\": 3}"]).await;
    let event = timeout(WAIT_MAX, subscriber.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((event.data, event.publisher), (json!({ "removed": 3 }), None));
    assert!(runtime.stop().await.is_clean());
}

/// What etcdctl prints of a key.
struct Printed {
    key: String,
    value: String,
    lease: u64,
}

/// The record of the worker.
fn record(entries: &[Printed]) -> Value {
    let mut records = entries.iter().filter(|entry| entry.key.starts_with("dynamo/components/processor/"));
    serde_json::from_str(&records.next().expect("the worker is registered").value).unwrap()
}

/// Everything in the store, as etcdctl prints it.
async fn read_all(servers: &Servers) -> Vec<Printed> {
    let mut etcdctl = Command::new(servers.version.program("etcdctl"));
    etcdctl.env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", servers.etcd.endpoint());
    let fields = etcdctl.args(["get", "--prefix", "", "--write-out=fields"]);
    let ended = Program::run(fields).end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // Texts are printed as JSON writes them.
    let all = |name: &str| -> Vec<Value> {
        let lines = ended.output.iter().filter_map(|line| line.strip_prefix(&format!("\"{name}\" : ")));
        lines.map(|value| serde_json::from_str(value).unwrap()).collect()
    };
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let printed = all("Key").into_iter().zip(all("Value")).zip(all("Lease"));
    let read = |((key, value), lease): ((Value, Value), Value)| Printed {
        key: text(&key),
        value: text(&value),
        lease: lease.as_u64().unwrap(),
    };
    printed.map(read).collect()
}

/// The client of NATS in Python, with these arguments.
fn client(servers: &Servers, arguments: &[&str]) -> Command {
    let mut command = Command::new(Version::Newer.program("python"));
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients.py"));
    command.arg(servers.nats.endpoint()).args(arguments);
    command
}

/// What the client of NATS prints, value by value.
async fn python<const N: usize>(servers: &Servers, arguments: &[&str]) -> [Value; N] {
    let ended = Program::run(&mut client(servers, arguments)).end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let values: Vec<_> = ended.output.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    values.try_into().unwrap()
}
