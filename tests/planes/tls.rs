//! Who is let in over TLS, who is not, and what is said then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::date_time_ymd;
use slipring::{
    Client, Context, DistributedRuntime, Effect, Environment, Error, MemoryWorld, Plane, PlanesReport,
    Result, Serving, SystemEnvironment, TcpPlane, TcpTls,
};
use slipring_core::{BoxFuture, ByteStream, Listener, Task, async_trait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, split};
use tokio::sync::mpsc;
use tokio_rustls::rustls::crypto::CryptoProvider;

use crate::certificates::Authority;
use crate::ground::eventually;

/// The host that everybody here listens on.
const HOST: &str = "127.0.0.1";

/// A worker and a caller, each with its own idea of TLS, and a client that uses these planes.
struct Meeting {
    worker: DistributedRuntime,
    caller: DistributedRuntime,
    client: Client<(), u64>,
    _serving: Serving,
}

impl Meeting {
    async fn of(worker: TcpPlane, caller: TcpPlane, planes: &[Plane]) -> Self {
        Self::between(worker, caller, planes, SystemEnvironment::new()).await
    }

    /// The same, with a caller in this environment.
    async fn between(
        worker: TcpPlane,
        caller: TcpPlane,
        planes: &[Plane],
        environment: impl Environment,
    ) -> Self {
        let world = MemoryWorld::new();
        let builder = || DistributedRuntime::builder().memory(&world);
        let worker = builder().tcp(worker).build().await.unwrap();
        let caller = builder().tcp(caller).environment(environment).build().await.unwrap();
        let who = async |(): (), context: Context| Ok(context.instance());
        let _serving = worker.endpoint("a/b/c").unwrap().serve_unary(who).await.unwrap();
        let client: Client<(), u64> = caller.endpoint("a/b/c").unwrap().client().await.unwrap();
        client.wait_for_instances(1, Duration::from_secs(10)).await.unwrap();
        let client = client.with_planes(planes.iter().copied());
        Self { worker, caller, client, _serving }
    }

    /// A worker that listens, and a caller that can do nothing but dial it.
    async fn over_tcp(worker: Option<TcpTls>, caller: Option<TcpTls>) -> Self {
        Self::of(listening(worker), dialling(caller), &[Plane::Tcp]).await
    }

    async fn call(&self) -> Result<u64> {
        self.client.request(&()).deadline(Duration::from_secs(5)).fail_fast().call().await
    }

    async fn works(&self) {
        assert_eq!(self.call().await, Ok(self.worker.instance_id()));
    }

    /// The call ends with an error that says this, without effect; both ends count a connection that was refused
    /// for these reasons, if they notice.
    async fn fails(&self, code: &str, words: &str, at_caller: &str, at_worker: Option<&str>) {
        let error = self.call().await.unwrap_err();
        let text = error.to_string();
        assert!(error.code() == code && error.effect() == Effect::None, "{error:?}");
        assert!(text.contains(words), "{text}");
        assert!(refused(&self.caller.planes(), at_caller), "{:?}", self.caller.planes());
        if let Some(reason) = at_worker {
            eventually("the worker counts it", || refused(&self.worker.planes(), reason)).await;
        }
        for runtime in [&self.worker, &self.caller] {
            let report = runtime.planes();
            assert_eq!((report.connections_opened, report.totals.bytes_sent), (0, 0), "{report:?}");
        }
    }
}

fn refused(report: &PlanesReport, reason: &str) -> bool {
    report.refused.contains_key(reason)
}

fn listening(tls: Option<TcpTls>) -> TcpPlane {
    with(TcpPlane::new().with_listen(format!("{HOST}:0")), tls)
}

fn dialling(tls: Option<TcpTls>) -> TcpPlane {
    with(TcpPlane::new(), tls)
}

fn with(plane: TcpPlane, tls: Option<TcpTls>) -> TcpPlane {
    match tls {
        None => plane,
        Some(tls) => plane.with_tls(tls),
    }
}

/// An authority that issued `worker` and `caller`, both for the host.
fn authority() -> Authority {
    let authority = Authority::new("ours");
    ["worker", "caller"].iter().for_each(|file| authority.issue(file, HOST));
    authority
}

/// Whoever dials verifies whom it reaches, by the host or the name that it is told; both verify each other if the
/// listener was told whom to trust. Both ends report an encrypted connection, and no provider is installed for the
/// process.
#[tokio::test]
async fn both_ends_can_be_verified() {
    let ours = authority();
    ours.issue("elsewhere", "elsewhere.test");
    let (shown, trusted) = (ours.shown(TcpTls::new(), "worker"), ours.trusted());
    let mutual = ours.shown(ours.trusted(), "worker");
    for (worker, caller) in [
        (shown.clone(), trusted.clone()),
        (mutual.clone(), ours.shown(trusted.clone(), "caller")),
        (ours.shown(TcpTls::new(), "elsewhere"), trusted.with_server_name("elsewhere.test")),
    ] {
        let meeting = Meeting::over_tcp(Some(worker), Some(caller)).await;
        meeting.works().await;
        for (runtime, peer, dialled) in
            [(&meeting.caller, &meeting.worker, true), (&meeting.worker, &meeting.caller, false)]
        {
            let [connection] = &runtime.planes().connections[..] else { panic!("one connection") };
            assert!(connection.is_encrypted && connection.is_dialled == dialled, "{connection:?}");
            assert_eq!(connection.peer, peer.instance_id());
        }
    }
    assert!(CryptoProvider::get_default().is_none());
}

/// The worker calls home over TLS, to the address in the request.
#[tokio::test]
async fn calls_home_over_tls() {
    let ours = authority();
    let worker = TcpPlane::new().with_call_home(true).with_tls(ours.shown(ours.trusted(), "worker"));
    let caller = listening(Some(ours.shown(ours.trusted(), "caller")));
    let meeting = Meeting::of(worker, caller, &[Plane::NatsTcp]).await;
    meeting.works().await;
    let report = meeting.worker.planes();
    let [connection] = &report.connections[..] else { panic!("one connection") };
    assert!(connection.is_dialled && connection.is_encrypted && connection.address.starts_with("tls://"));
    assert_eq!((report.dials, connection.totals.items_sent), (1, 1));
    let served = &report.endpoints["a/b/c"].served;
    assert_eq!(served.keys().collect::<Vec<_>>(), [&Plane::NatsTcp]);
}

/// A worker whose call home is refused answers over the broker: the call does not notice.
#[tokio::test]
async fn a_call_home_that_is_refused_is_answered_over_the_broker() {
    let (ours, others) = (authority(), authority());
    let worker = TcpPlane::new().with_call_home(true).with_tls(others.shown(ours.trusted(), "worker"));
    let caller = listening(Some(ours.shown(ours.trusted(), "caller")));
    let meeting = Meeting::of(worker, caller, &[Plane::NatsTcp]).await;
    meeting.works().await;
    assert!(refused(&meeting.worker.planes(), "own_certificate"), "{:?}", meeting.worker.planes());
    eventually("it is counted", || refused(&meeting.caller.planes(), "certificate_authority")).await;
}

/// A worker that is of another authority, whose time is over or to come, or that is for another name is not
/// called, and the error says which.
#[tokio::test]
async fn a_worker_that_cannot_be_trusted_is_not_called() {
    let (ours, others) = (authority(), authority());
    ours.issue_as("expired", HOST, |params| params.not_after = date_time_ymd(2020, 1, 1));
    ours.issue_as("early", HOST, |params| params.not_before = date_time_ymd(4000, 1, 1));
    ours.issue("elsewhere", "elsewhere.test");
    for (authority, file, words, reason) in [
        (&others, "worker", "of no authority in ca_file", "certificate_authority"),
        (&ours, "expired", "its certificate has expired", "certificate_expired"),
        (&ours, "early", "not valid yet", "certificate_not_yet_valid"),
        (&ours, "elsewhere", "for another name", "certificate_name"),
    ] {
        let worker = authority.shown(TcpTls::new(), file);
        let meeting = Meeting::over_tcp(Some(worker), Some(ours.trusted())).await;
        meeting.fails("unauthorized", words, reason, Some("own_certificate")).await;
    }
}

/// A listener that demands certificates lets nobody in without one, or with one that is over or of another
/// authority; both ends say what is wrong.
#[tokio::test]
async fn a_caller_that_cannot_be_trusted_is_not_let_in() {
    let (ours, others) = (authority(), authority());
    ours.issue_as("expired", HOST, |params| params.not_after = date_time_ymd(2020, 1, 1));
    let trusted = ours.trusted();
    for (caller, words, reason) in [
        (trusted.clone(), "give cert_file and key_file", "certificate_missing"),
        (ours.shown(trusted.clone(), "expired"), "has expired", "certificate_expired"),
        (others.shown(trusted, "caller"), "refuses the certificate in cert_file", "certificate_authority"),
    ] {
        let worker = ours.shown(ours.trusted(), "worker");
        let meeting = Meeting::over_tcp(Some(worker), Some(caller)).await;
        meeting.fails("unauthorized", words, "own_certificate", Some(reason)).await;
    }
}

/// If only one of two speaks TLS they do not talk, and take another plane if there is one.
#[tokio::test]
async fn one_alone_does_not_speak_tls() {
    let ours = authority();
    let (shown, trusted) = (ours.shown(TcpTls::new(), "worker"), ours.trusted());
    let meeting = Meeting::over_tcp(Some(shown.clone()), None).await;
    meeting.fails("unavailable", "it speaks TLS, and this end was not told to", "tls_wanted", None).await;
    let meeting = Meeting::over_tcp(None, Some(trusted.clone())).await;
    meeting.fails("unavailable", "it offers no TLS", "tls_missing", None).await;
    let unsure = listening(Some(ours.shown(TcpTls::new(), "caller")));
    let meeting = Meeting::of(listening(Some(shown.clone())), unsure, &[Plane::Tcp]).await;
    meeting.fails("unavailable", "without ca_file this end trusts nobody", "tls_no_authority", None).await;
    for (worker, caller) in [(Some(shown), None), (None, Some(trusted))] {
        let meeting = Meeting::of(listening(worker), dialling(caller), &Plane::ALL).await;
        meeting.works().await;
        let called = &meeting.caller.planes().endpoints["a/b/c"].called;
        assert_eq!(called.keys().collect::<Vec<_>>(), [&Plane::Broker]);
    }
}

/// Where the record is wrong about TLS (somebody else listens there now), whoever dials learns which of the two
/// does not speak it, and says nothing in the clear that it was told to encrypt.
#[tokio::test]
async fn a_record_that_is_wrong_about_tls_is_noticed() {
    let ours = authority();
    let (shown, trusted) = (ours.shown(TcpTls::new(), "worker"), ours.trusted());
    let environment = SystemEnvironment::new();
    // It listens without TLS where the record says that TLS is spoken.
    for answer in [&b"slipring"[..], b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let door = environment.listen("127.0.0.1:0").await.unwrap();
        let worker = dummy(&*door, &shown);
        let mut heard = listen(door, answer);
        let meeting = Meeting::of(worker, dialling(Some(trusted.clone())), &[Plane::Tcp]).await;
        meeting.fails("unavailable", "it does not speak TLS", "tls_missing", None).await;
        let heard = heard.recv().await.unwrap();
        assert_eq!(heard[0], 0x16, "no handshake of TLS: {heard:x?}");
        assert!(!heard.windows(8).any(|bytes| bytes == b"slipring\x01"), "it said hello in the clear");
    }
    // The same, by a listener that closes without a word: one of ours, without TLS.
    let plain = DistributedRuntime::builder().memory(&MemoryWorld::new()).tcp(listening(None));
    let plain = plain.build().await.unwrap();
    let address = plain.planes().advertised.unwrap();
    let worker = listening(Some(shown.clone())).with_advertise(address);
    let meeting = Meeting::of(worker, dialling(Some(trusted)), &[Plane::Tcp]).await;
    meeting.fails("unavailable", "cut in the TLS handshake", "tls_cut", None).await;
    eventually("the listener counts it", || refused(&plain.planes(), "tls_wanted")).await;
    // And it listens with TLS where the record says that none is spoken.
    let secured = DistributedRuntime::builder().memory(&MemoryWorld::new()).tcp(listening(Some(shown)));
    let secured = secured.build().await.unwrap();
    let address = secured.planes().advertised.unwrap().replace("tls://", "");
    let meeting = Meeting::of(listening(None).with_advertise(address), dialling(None), &[Plane::Tcp]).await;
    meeting.fails("unavailable", "it speaks TLS, and this end was not told to", "tls_wanted", None).await;
    eventually("the listener counts it", || refused(&secured.planes(), "tls_missing")).await;
}

/// A plane whose record leads to this door, and says that TLS is spoken there.
fn dummy(door: &dyn Listener, tls: &TcpTls) -> TcpPlane {
    listening(Some(tls.clone())).with_advertise(door.local_address())
}

/// What those who come say, all of them, once one has come; each is answered like this.
fn listen(mut door: Box<dyn Listener>, answer: &'static [u8]) -> mpsc::UnboundedReceiver<Vec<u8>> {
    let (sender, all) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = door.accept().await.unwrap();
            let mut heard = vec![0; 4096];
            let length = stream.read(&mut heard).await.unwrap();
            heard.truncate(length);
            stream.write_all(answer).await.unwrap();
            // Until the other end has read it.
            let _ = stream.read_to_end(&mut heard).await;
            if sender.send(heard).is_err() {
                return;
            }
        }
    });
    all
}

/// Whoever connects and says nothing, or half a handshake, is let go within the time of a handshake: TLS and the
/// hello have no more together than a hello alone.
#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_go_on_ends_in_time() {
    let ours = Arc::new(authority());
    let world = slipring_sim::World::new(7);
    let tls = ours.shown(TcpTls::new(), "worker").with_server_name("worker.test");
    let node = world.node("worker");
    let builder = DistributedRuntime::builder().discovery(node.discovery()).messaging(node.messaging());
    let plane = TcpPlane::new().with_listen("worker:7000").with_tls(tls);
    let worker = builder.environment(node.environment()).tcp(plane).build().await.unwrap();
    let stranger = world.node("stranger").environment();
    for (number, said) in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01"].into_iter().enumerate() {
        let began = tokio::time::Instant::now();
        let mut stream = stranger.connect("worker:7000").await.unwrap();
        stream.write_all(said).await.unwrap();
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard).await;
        assert!(heard.is_empty(), "{heard:x?}");
        let waited = began.elapsed();
        assert!((3000..3100).contains(&waited.as_millis()), "{waited:?}");
        assert_eq!(worker.planes().refused["hello_slow"], number as u64 + 1);
    }
    // TLS is finished after half of the time, and nothing follows.
    let began = tokio::time::Instant::now();
    let stream = stranger.connect("worker:7000").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut stream = shake(&ours, stream).await;
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard).await;
    let waited = began.elapsed();
    assert!((3000..3100).contains(&waited.as_millis()), "{waited:?}");
    assert_eq!(worker.planes().refused["hello_slow"], 4);
}

/// TLS as a caller would begin it.
async fn shake(
    ours: &Authority,
    stream: Box<dyn ByteStream>,
) -> tokio_rustls::client::TlsStream<Box<dyn ByteStream>> {
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ours.path("ca.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config.with_no_client_auth()));
    connector.connect(ServerName::try_from(HOST).unwrap(), stream).await.unwrap()
}

/// Somebody between the two who changes one byte ends the connection, at the end that notices, with a reason that is
/// counted; nothing wrong is delivered.
#[tokio::test]
async fn what_is_changed_on_its_way_is_noticed() {
    let ours = authority();
    let meddler = Meddler::default();
    let (worker, caller) =
        (listening(Some(ours.shown(TcpTls::new(), "worker"))), dialling(Some(ours.trusted())));
    let meeting = Meeting::between(worker, caller, &[Plane::Tcp], meddler.clone()).await;
    meeting.works().await;
    meddler.0.store(true, Ordering::SeqCst);
    let error = meeting.call().await.unwrap_err();
    assert_eq!((error.code(), error.effect()), ("stream_interrupted", Effect::Unknown), "{error}");
    let closed = |runtime: &DistributedRuntime| runtime.planes().closed;
    eventually("it is counted", || closed(&meeting.worker).contains_key("tampered")).await;
    assert_eq!(meeting.worker.planes().totals.streams_accepted, 1);
}

/// An environment that changes the last byte of what is sent over its connections, once it is told to.
#[derive(Debug, Clone, Default)]
struct Meddler(Arc<AtomicBool>);

#[async_trait]
impl Environment for Meddler {
    fn wall_time(&self) -> SystemTime {
        SystemEnvironment.wall_time()
    }

    fn random(&self, purpose: &'static str) -> u64 {
        SystemEnvironment.random(purpose)
    }

    async fn listen(&self, address: &str) -> Result<Box<dyn Listener>> {
        SystemEnvironment.listen(address).await
    }

    async fn connect(&self, address: &str) -> Result<Box<dyn ByteStream>> {
        let (near, between) = tokio::io::duplex(64 * 1024);
        tokio::spawn(meddle(between, SystemEnvironment.connect(address).await?, self.0.clone()));
        Ok(Box::new(near))
    }

    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> Task {
        SystemEnvironment.spawn(name, task)
    }

    fn spawn_vital(
        &self,
        name: &'static str,
        start: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>,
    ) -> Task {
        SystemEnvironment.spawn_vital(name, start)
    }
}

async fn meddle(near: DuplexStream, far: Box<dyn ByteStream>, evil: Arc<AtomicBool>) {
    let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (split(near), split(far));
    let back = async {
        let _ = tokio::io::copy(&mut far_in, &mut near_out).await;
        let _ = near_out.shutdown().await;
    };
    let forth = async {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = near_in.read(&mut bytes).await {
            if evil.load(Ordering::SeqCst) {
                bytes[length - 1] ^= 1;
            }
            if far_out.write_all(&bytes[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(back, forth);
}

/// A file that cannot be used is named when the runtime is built, before anybody is dialled; what is in it is not
/// shown.
#[tokio::test]
async fn bad_files_are_named() {
    let (ours, others) = (authority(), authority());
    let key = std::fs::read_to_string(ours.path("worker.key")).unwrap();
    std::fs::write(ours.path("empty.pem"), "").unwrap();
    std::fs::write(ours.path("one-line.key"), key.replace('\n', "")).unwrap();
    std::fs::write(ours.path("begun.key"), key.replace('\n', "").replace("-----END PRIVATE KEY-----", ""))
        .unwrap();
    std::fs::write(ours.path("torn.key"), &key[..key.len() / 2]).unwrap();
    let shown = &key[30..50];
    let in_numbers = format!("{:?}", shown.as_bytes()).replace(['[', ']'], "");
    let trusted = ours.trusted();
    let shows = |certificate, key| TcpTls::new().with_identity_files(ours.path(certificate), ours.path(key));
    let mixed = TcpTls::new().with_identity_files(ours.path("worker.pem"), others.path("worker.key"));
    for (plane, culprit) in [
        (dialling(Some(TcpTls::new().with_ca_file(ours.path("nowhere.pem")))), "nowhere.pem"),
        (dialling(Some(TcpTls::new().with_ca_file(ours.path("empty.pem")))), "empty.pem"),
        (dialling(Some(TcpTls::new().with_ca_file(ours.path("ca.key")))), "ca.key"),
        (listening(Some(shows("nowhere.pem", "worker.key"))), "nowhere.pem"),
        (listening(Some(shows("worker.pem", "nowhere.key"))), "nowhere.key"),
        (listening(Some(shows("worker.pem", "ca.pem"))), "ca.pem"),
        (listening(Some(shows("worker.pem", "one-line.key"))), "one-line.key"),
        (listening(Some(shows("worker.pem", "begun.key"))), "begun.key"),
        (listening(Some(shows("worker.pem", "torn.key"))), "torn.key"),
        (listening(Some(mixed)), "worker.key"),
        (dialling(Some(trusted.with_server_name("no name"))), "no name"),
    ] {
        let error = refuse(plane).await;
        let text = format!("{error} {error:?}");
        assert!(error.code() == "invalid" && text.contains(culprit), "{culprit}: {text}");
        assert!(!text.contains(shown) && !text.contains(&in_numbers), "it shows a key: {text}");
    }
}

async fn refuse(plane: TcpPlane) -> Error {
    DistributedRuntime::builder().memory(&MemoryWorld::new()).tcp(plane).build().await.unwrap_err()
}
