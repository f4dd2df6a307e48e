//! The network between a client and a server fails as it is told to, and loses nothing that it should not.

#![expect(clippy::unwrap_used, reason = "this is test code, its servers too")]

use std::time::Duration;

use slipring_servers::{Direction, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// Long enough for bytes on loopback to arrive, if they can.
const MOMENT: Duration = Duration::from_millis(200);

/// A server that sends back what it gets, and a proxy before it.
async fn echo() -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    #[expect(clippy::disallowed_methods, reason = "a server of this test, outside of every simulation")]
    tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            connections.spawn(async move {
                let (mut from, mut to) = client.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    Proxy::start(address).await
}

async fn say(connection: &mut TcpStream, text: &str) {
    connection.write_all(text.as_bytes()).await.unwrap();
}

/// What comes within a moment; `None` if nothing does.
async fn hear(connection: &mut TcpStream) -> Option<String> {
    let mut buffer = [0; 64];
    let bytes = timeout(MOMENT, connection.read(&mut buffer)).await.ok()?.unwrap();
    Some(String::from_utf8_lossy(&buffer[..bytes]).into_owned())
}

/// In a silence nothing gets through, and afterwards all of it does, whole and in order, however large.
#[tokio::test]
async fn silence_loses_nothing() {
    const BYTES: usize = 8 * 1024 * 1024;
    let proxy = echo().await;
    let connection = TcpStream::connect(proxy.endpoint()).await.unwrap();
    let (mut from, mut to) = connection.into_split();
    let sent: Vec<u8> = (0..BYTES).map(|at| (at / 1000) as u8).collect();
    let all = sent.clone();
    let write = async {
        to.write_all(&all).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let read = async {
        let mut got = Vec::new();
        from.read_to_end(&mut got).await.unwrap();
        got
    };
    let toggle = async {
        for _ in 0..50 {
            proxy.silence();
            sleep(Duration::from_millis(2)).await;
            proxy.mend();
            sleep(Duration::from_millis(1)).await;
        }
    };
    let ((), got, ()) = tokio::join!(write, read, toggle);
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
}

/// A silence in one direction holds back that direction alone, the news of an end included.
#[tokio::test]
async fn silence_may_be_of_one_direction() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap().to_string()).await;
    let mut client = TcpStream::connect(proxy.endpoint()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    for direction in [Direction::ToServer, Direction::ToClient] {
        let (from, to, other_way) = match direction {
            Direction::ToServer => (&mut client, &mut server, "from the server"),
            Direction::ToClient => (&mut server, &mut client, "from the client"),
        };
        proxy.silence_towards(direction);
        say(from, "held back").await;
        assert_eq!(hear(to).await, None, "{direction:?}");
        say(to, other_way).await;
        assert_eq!(hear(from).await.as_deref(), Some(other_way), "{direction:?}");
        proxy.mend();
        assert_eq!(hear(to).await.as_deref(), Some("held back"), "{direction:?}");
    }
    proxy.silence_towards(Direction::ToServer);
    client.shutdown().await.unwrap();
    assert_eq!(hear(&mut server).await, None);
    proxy.mend();
    assert_eq!(hear(&mut server).await.as_deref(), Some(""));
}

/// A reset ends what is connected and no more; a cut refuses new connections too, until it is mended.
#[tokio::test]
async fn cuts_end_connections() {
    let proxy = echo().await;
    let mut first = TcpStream::connect(proxy.endpoint()).await.unwrap();
    say(&mut first, "a").await;
    assert_eq!(hear(&mut first).await.as_deref(), Some("a"));
    assert_eq!(proxy.connections(), 1);
    proxy.reset().await;
    assert_eq!(proxy.connections(), 0);
    assert_eq!(hear(&mut first).await.as_deref(), Some(""));
    let mut second = TcpStream::connect(proxy.endpoint()).await.unwrap();
    say(&mut second, "b").await;
    assert_eq!(hear(&mut second).await.as_deref(), Some("b"));
    proxy.cut();
    assert_eq!(hear(&mut second).await.as_deref(), Some(""));
    while TcpStream::connect(proxy.endpoint()).await.is_ok() {
        sleep(Duration::from_millis(1)).await;
    }
    proxy.mend();
    let mut third = loop {
        match TcpStream::connect(proxy.endpoint()).await {
            Ok(connection) => break connection,
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    };
    say(&mut third, "c").await;
    assert_eq!(hear(&mut third).await.as_deref(), Some("c"));
}

/// Where there is no server, a connection ends.
#[tokio::test]
async fn no_server_is_no_connection() {
    let [port] = slipring_servers::free_ports();
    let proxy = Proxy::start(format!("127.0.0.1:{port}")).await;
    let mut connection = TcpStream::connect(proxy.endpoint()).await.unwrap();
    assert_eq!(hear(&mut connection).await.as_deref(), Some(""));
}
