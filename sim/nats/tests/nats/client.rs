//! The real client library, as its users have it: the same calls against real servers and simulated ones, also while
//! they restart and stand still. What it makes of their answers has to be the same.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, HeaderMap, Subscriber};
use futures_util::{FutureExt, StreamExt};
use slipring_sim_nats::{Options, Version};
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep, timeout};

use crate::honesty::real;
use crate::loopback::Loopback;

/// What has to come comes by then.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// A server that can be taken away.
enum Server {
    Real(slipring_servers::Nats),
    Simulated(Loopback),
}

impl Server {
    fn endpoint(&self) -> String {
        match self {
            Self::Real(server) => server.endpoint(),
            Self::Simulated(server) => server.endpoint(),
        }
    }

    async fn end(&mut self) {
        match self {
            Self::Real(server) => server.kill(),
            Self::Simulated(server) => server.end().await,
        }
    }

    async fn begin(&mut self) {
        match self {
            Self::Real(server) => server.restart().await.unwrap(),
            Self::Simulated(server) => server.begin().await,
        }
    }

    fn pause(&self) {
        match self {
            Self::Real(server) => server.pause(),
            Self::Simulated(server) => server.nats.pause(),
        }
    }

    fn resume(&self) {
        match self {
            Self::Real(server) => server.resume(),
            Self::Simulated(server) => server.nats.resume(),
        }
    }
}

/// What was done, and what came of it.
struct Protocol {
    server: Server,
    client: Client,
    events: Arc<Mutex<Vec<String>>>,
    lines: Vec<String>,
}

impl Protocol {
    async fn of(server: Server) -> Vec<String> {
        let events = Arc::<Mutex<Vec<String>>>::default();
        let told = events.clone();
        let options = ConnectOptions::new()
            .ping_interval(Duration::from_millis(300))
            .connection_timeout(Duration::from_millis(500))
            .reconnect_delay_callback(|_| Duration::from_millis(50))
            .event_callback(move |event| {
                told.lock().unwrap().push(event.to_string());
                async {}
            });
        let client = options.connect(server.endpoint()).await.unwrap();
        let mut protocol = Self { server, client, events, lines: Vec::new() };
        protocol.subjects().await;
        protocol.payloads().await;
        protocol.deliveries().await;
        protocol.groups().await;
        protocol.requests().await;
        protocol.restart().await;
        protocol.pause().await;
        protocol.lines
    }

    fn add(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    async fn another(&self) -> Client {
        async_nats::connect(self.server.endpoint()).await.unwrap()
    }

    /// The server has all that this client sent.
    async fn settle(&self, client: &Client) {
        let inbox = client.new_inbox();
        let mut own = client.subscribe(inbox.clone()).await.unwrap();
        client.publish(inbox, "".into()).await.unwrap();
        next(&mut own).await;
    }

    /// All that has come to a subscription of this client by now, whoever of those that settled sent it.
    async fn rest(&self, of: &Client, messages: &mut Subscriber) -> Vec<String> {
        // Its answer comes after all that came before.
        self.settle(&self.client).await;
        self.settle(of).await;
        let mut all = Vec::new();
        // Without the runtime's wish to let others run, which looks like the end.
        while let Some(Some(message)) = unconstrained(messages.next()).now_or_never() {
            all.push(format!("{}: {}", message.subject, String::from_utf8_lossy(&message.payload)));
        }
        all
    }

    async fn subjects(&mut self) {
        let other = self.another().await;
        let mut all = other.subscribe(">").await.unwrap();
        let mut inbox = self.client.subscribe("inbox").await.unwrap();
        self.settle(&other).await;
        for subject in
            [".", ".foo", "foo.", "foo..bar", "foo.*", "*", ">", "foo", "$SYS.x", "a|b/c:d", "é.\u{0}"]
        {
            let sent = self.client.publish_with_reply(subject, "inbox", "x".into()).await;
            let told = self.rest(&self.client, &mut inbox).await;
            self.add(format!("{subject:?}: {sent:?} {told:?}"));
        }
        let got = self.rest(&other, &mut all).await;
        self.lines.extend(got.into_iter().filter(|message| !message.starts_with("_INBOX")));
        drop(other);
        for pattern in ["foo.>.bar", "foo..bar", "foo*", "1.2.3"] {
            let subscribed = self.client.subscribe(pattern).await;
            self.add(format!("subscribe {pattern}: {:?}", subscribed.as_ref().map(|_| ())));
            self.settle(&self.client).await;
        }
        let long = vec!["t"; 1000].join(".");
        let mut deep = self.client.subscribe(long.clone()).await.unwrap();
        self.client.publish(long, "deep".into()).await.unwrap();
        self.add(format!("{:?}", next(&mut deep).await.len()));
        // The server ends the connection; the client makes another one.
        let mut after = self.client.subscribe("after").await.unwrap();
        self.client.publish("l".repeat(5000), "x".into()).await.unwrap();
        self.events(&["disconnected", "connected"]).await;
        self.settle(&self.client).await;
        self.client.publish("after", "reconnected".into()).await.unwrap();
        let line = next(&mut after).await;
        self.add(line);
    }

    async fn payloads(&mut self) {
        let mut all = self.client.subscribe("p").await.unwrap();
        let mut headers = HeaderMap::new();
        headers.append("A", "b");
        headers.append("A", "c d");
        for bytes in [0, 1_048_576, 1_048_577] {
            let sent = self.client.publish("p", vec![b'x'; bytes].into()).await;
            self.add(format!("{bytes} bytes: {:?}", sent.map_err(|error| error.to_string())));
        }
        let sent = self.client.publish_with_headers("p", headers.clone(), vec![b'x'; 1_048_576].into()).await;
        self.add(format!("with headers: {:?}", sent.map_err(|error| error.to_string())));
        self.client.publish_with_headers("p", headers, "body".into()).await.unwrap();
        for _ in 0..3 {
            let message = timeout(WAIT_MAX, all.next()).await.unwrap().unwrap();
            let headers = message.headers.as_ref().map(|headers| headers.get_all("A").collect::<Vec<_>>());
            self.lines.push(format!("{} bytes, headers {headers:?}", message.payload.len()));
        }
    }

    async fn deliveries(&mut self) {
        let other = self.another().await;
        let mut subscribers = Vec::new();
        for (client, pattern) in
            [(&self.client, "d.a"), (&self.client, "d.*"), (&other, "d.>"), (&other, "d.b")]
        {
            subscribers.push((client.clone(), client.subscribe(pattern).await.unwrap()));
        }
        let mut few = other.subscribe("d.a").await.unwrap();
        few.unsubscribe_after(3).await.unwrap();
        self.settle(&other).await;
        for number in 0..5 {
            self.client.publish("d.a", number.to_string().into()).await.unwrap();
        }
        for (client, subscriber) in &mut subscribers {
            let got = self.rest(client, subscriber).await;
            self.add(format!("{got:?}"));
        }
        let (got, end) = (self.rest(&other, &mut few).await, few.next().await.is_none());
        self.add(format!("{got:?}, then the end: {end}"));
        let silent = ConnectOptions::new().no_echo().connect(self.server.endpoint()).await.unwrap();
        let mut own = silent.subscribe("e.e").await.unwrap();
        let answer = silent.request("e.e", "x".into()).await;
        self.add(format!("no echo: {:?}", answer.map(|_| ()).map_err(|error| error.kind())));
        let echo = own.next().now_or_never().is_some();
        self.add(format!("its own message came: {echo}"));
    }

    /// Members are drawn evenly: how many messages each gets is compared only roughly.
    async fn groups(&mut self) {
        const MESSAGES: usize = 2000;
        let other = self.another().await;
        let mut members = Vec::new();
        for pattern in ["g.*", "g.a"] {
            for client in [&self.client, &other] {
                let member = client.queue_subscribe(pattern, "q".to_owned()).await.unwrap();
                members.push((client.clone(), member));
            }
        }
        let mut lone = other.queue_subscribe("g.a", "other".to_owned()).await.unwrap();
        let mut plain = other.subscribe("g.a").await.unwrap();
        self.settle(&other).await;
        for number in 0..MESSAGES {
            self.client.publish("g.a", number.to_string().into()).await.unwrap();
        }
        let mut counts = Vec::new();
        for (client, member) in &mut members {
            counts.push(self.rest(client, member).await.len());
        }
        let even = counts.iter().all(|count| (MESSAGES / 5..MESSAGES * 3 / 10).contains(count));
        self.add(format!("even: {even}, all: {}", counts.iter().sum::<usize>()));
        let others = [self.rest(&other, &mut lone).await.len(), self.rest(&other, &mut plain).await.len()];
        self.add(format!("the others: {others:?}"));
    }

    async fn requests(&mut self) {
        let other = self.another().await;
        let kind = |answer: Result<async_nats::Message, async_nats::RequestError>| match answer {
            Ok(message) => format!("{:?}", message.payload),
            Err(error) => format!("{:?}", error.kind()),
        };
        let began = Instant::now();
        let answer = self.client.request("r.nobody", "".into()).await;
        self.add(format!("nobody: {} at once: {}", kind(answer), began.elapsed() < Duration::from_secs(5)));
        // Told on a reply subject too, and to a queue group's member never.
        let mut inbox = self.client.subscribe("r.inbox").await.unwrap();
        self.client.publish_with_reply("r.nobody", "r.inbox", "".into()).await.unwrap();
        let told = timeout(WAIT_MAX, inbox.next()).await.unwrap().unwrap();
        self.add(format!("{:?} {:?} {:?}", told.status, told.subject, told.payload));
        let mute = other.subscribe("r.mute").await.unwrap();
        self.settle(&other).await;
        let request = || async_nats::Request::new().timeout(Some(Duration::from_millis(200)));
        let answer = self.client.send_request("r.mute", request()).await;
        self.add(format!("mute: {}", kind(answer)));
        drop(mute);
        self.settle(&other).await;
        let answer = self.client.send_request("r.mute", request()).await;
        self.add(format!("unsubscribed: {}", kind(answer)));
        // Whose responder goes away while it is asked waits to the end.
        let dying = self.another().await;
        let mut asked = dying.subscribe("r.dying").await.unwrap();
        self.settle(&dying).await;
        let answers = tokio::join!(self.client.send_request("r.dying", request()), async move {
            asked.next().await.unwrap();
            drop(asked);
            drop(dying);
        });
        self.add(format!("dying: {}", kind(answers.0)));
        let mut asked = other.subscribe("r.echo").await.unwrap();
        self.settle(&other).await;
        let answers = tokio::join!(self.client.request("r.echo", "x".into()), async {
            let request = asked.next().await.unwrap();
            for answer in ["first", "second"] {
                other.publish(request.reply.clone().unwrap(), answer.into()).await.unwrap();
            }
        });
        self.add(format!("echo: {}", kind(answers.0)));
    }

    /// What is published while the server is away is delivered when it is back, in order, to who was subscribed.
    async fn restart(&mut self) {
        let mut messages = self.client.subscribe("s").await.unwrap();
        self.settle(&self.client).await;
        self.events.lock().unwrap().clear();
        self.server.end().await;
        self.events(&["disconnected"]).await;
        for number in 0..20 {
            self.client.publish("s", number.to_string().into()).await.unwrap();
        }
        self.server.begin().await;
        self.events(&["disconnected", "connected"]).await;
        for _ in 0..20 {
            let line = next(&mut messages).await;
            self.add(line);
        }
    }

    /// A server that stands still is noticed by its silence; when it goes on, the client is back.
    async fn pause(&mut self) {
        self.settle(&self.client).await;
        self.events.lock().unwrap().clear();
        self.server.pause();
        self.events(&["disconnected"]).await;
        sleep(Duration::from_millis(600)).await;
        self.server.resume();
        self.events(&["disconnected", "connected"]).await;
        self.settle(&self.client).await;
    }

    /// Waits until these are among the events, in this order, and adds all that the server complained of up to then.
    async fn events(&mut self, wanted: &[&str]) {
        let began = Instant::now();
        loop {
            let told = self.events.lock().unwrap().clone();
            let mut rest = told.iter();
            if wanted.iter().all(|wanted| rest.any(|event| event == wanted)) {
                self.lines.extend(told.into_iter().filter(|event| event.starts_with("server error")));
                return;
            }
            assert!(began.elapsed() < WAIT_MAX, "{told:?} instead of {wanted:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn next(messages: &mut Subscriber) -> String {
    let message = timeout(WAIT_MAX, messages.next()).await.expect("a message in time").expect("no end");
    format!("{}: {}", message.subject, String::from_utf8_lossy(&message.payload))
}

async fn compare(version: Version) {
    let (real, simulated) =
        tokio::join!(async { Protocol::of(Server::Real(real(version, &[]).await)).await }, async {
            Protocol::of(Server::Simulated(Loopback::start(Options::new(version)).await)).await
        },);
    println!("{version:?}: {} lines", real.len());
    let differ = real.iter().zip(&simulated).filter(|(real, simulated)| real != simulated);
    let differ: Vec<_> =
        differ.map(|(real, simulated)| format!("real:      {real}\nsimulated: {simulated}")).collect();
    assert!(differ.is_empty() && real.len() == simulated.len(), "{}", differ.join("\n"));
}

/// The client finds no difference between nats-server 2.9 and the simulated one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_finds_2_9_as_it_is() {
    compare(Version::V2_9).await;
}

/// The client finds no difference between nats-server 2.15 and the simulated one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_finds_2_15_as_it_is() {
    compare(Version::V2_15).await;
}
