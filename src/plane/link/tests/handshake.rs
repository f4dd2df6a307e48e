use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::hello::{HELLO_BYTES, MAGIC};
use super::*;

/// What both ends say to a handshake with these secrets, where the dialler expects this peer.
async fn shake(secrets: [Option<&str>; 2], expected: Peer, epoch: u64) -> [Result<Peer, String>; 2] {
    let (near, far) = tokio::io::duplex(1024);
    let (dialler, _, _) = local(1, LinkLimits::default(), secrets[0]);
    let (dialled, _, _) = local(2, LinkLimits::default(), secrets[1]);
    dialled.epoch.store(epoch, Ordering::Release);
    let (near, far) =
        tokio::join!(Link::dial(dialler, Box::new(near), expected), Link::accept(dialled, Box::new(far)));
    [near, far].map(|end| end.map(|link| link.held.shared.peer).map_err(|error| error.to_string()))
}

/// Both ends learn who the other one is; the one that was dialled may be further than expected.
#[tokio::test]
async fn both_ends_learn_who_is_there() {
    let [near, far] = shake([None; 2], DIALLED, 5).await;
    assert_eq!(near, Ok(Peer { instance: 2, epoch: 5 }));
    assert_eq!(far, Ok(Peer { instance: 1, epoch: 1 }));
}

/// An address that now belongs to another instance does not reach it.
#[tokio::test]
async fn a_recycled_address_is_refused() {
    let [near, far] = shake([None; 2], Peer { instance: 3, epoch: 1 }, 1).await;
    assert!(near.unwrap_err().contains("recycled"));
    assert!(far.is_err());
}

/// An instance in an earlier epoch than the record says is not the one that wrote it.
#[tokio::test]
async fn an_earlier_epoch_is_refused() {
    let [near, far] = shake([None; 2], Peer { instance: 2, epoch: 4 }, 3).await;
    assert!(near.unwrap_err().contains("earlier epoch"));
    assert!(far.is_err());
}

/// With a secret both ends have to know it.
#[tokio::test]
async fn the_secret_decides() {
    let [near, far] = shake([Some("hunter2"); 2], DIALLED, 1).await;
    assert!(near.is_ok() && far.is_ok());
    for secrets in [[Some("hunter2"), Some("hunter3")], [None, Some("hunter2")], [Some("hunter2"), None]] {
        for said in shake(secrets, DIALLED, 1).await {
            let said = said.unwrap_err();
            assert!(said.contains("refused the credentials") && !said.contains("hunter"), "{said}");
        }
    }
}

/// No secret shows where an end is shown.
#[tokio::test]
async fn the_secret_is_not_shown() {
    let (local, _, _) = local(1, LinkLimits::default(), Some("hunter2"));
    assert!(!format!("{local:?}").contains("hunter"));
}

/// A handshake that was recorded proves nothing when it is played again.
#[tokio::test]
async fn a_recorded_handshake_is_refused() {
    let (dialler, _, _) = local(1, LinkLimits::default(), Some("hunter2"));
    let (dialled, _, _) = local(2, LinkLimits::default(), Some("hunter2"));
    let (near, mut tap) = tokio::io::duplex(1024);
    let (mut out, far) = tokio::io::duplex(1024);
    // Whoever sits between them writes down what the dialler says.
    let record = async {
        let (mut said, mut answered) = (vec![0; HELLO_BYTES], vec![0; HELLO_BYTES]);
        tap.read_exact(&mut said).await.unwrap();
        out.write_all(&said).await.unwrap();
        out.read_exact(&mut answered).await.unwrap();
        tap.write_all(&answered).await.unwrap();
        let (mut proof, mut verdict) = ([0; 32], [0; 34]);
        tap.read_exact(&mut proof).await.unwrap();
        out.write_all(&proof).await.unwrap();
        out.read_exact(&mut verdict).await.unwrap();
        tap.write_all(&verdict).await.unwrap();
        said.extend(proof);
        said
    };
    let (near, far, said) = tokio::join!(
        Link::dial(dialler, Box::new(near), DIALLED),
        Link::accept(dialled.clone(), Box::new(far)),
        record
    );
    assert!(near.is_ok() && far.is_ok());
    let (mut replay, far) = tokio::io::duplex(1024);
    replay.write_all(&said).await.unwrap();
    let error = Link::accept(dialled.clone(), Box::new(far)).await.unwrap_err();
    assert_eq!(error.code(), "unauthorized");
    assert_eq!(dialled.counters.snapshot().refused.get("secret"), Some(&1));
}

/// What is no hello of this protocol is refused from its first wrong byte on; a hello that is cut, and one of a
/// later version, are told apart.
#[tokio::test]
async fn what_is_no_hello_is_refused() {
    let hello = |version: u16, least: u16| {
        let mut hello = [0; HELLO_BYTES];
        hello[..8].copy_from_slice(&MAGIC);
        hello[8..10].copy_from_slice(&version.to_le_bytes());
        hello[10..12].copy_from_slice(&least.to_le_bytes());
        hello[32] = 2;
        hello
    };
    let mut flags = hello(1, 1);
    flags[13] = 1;
    let mut verdict = hello(1, 1);
    verdict[14] = 1;
    let mut reserved = hello(1, 1);
    reserved[79] = 1;
    let cases: [(&[u8], bool, &str); 9] = [
        (b"G", false, "not_slipring"),
        (b"GET / HTTP/1.1\r\n\r\n", false, "not_slipring"),
        (b"slipping", false, "not_slipring"),
        (b"slip", true, "hello_cut"),
        (&hello(1, 1)[..80], true, "hello_cut"),
        (&hello(3, 2), false, "version"),
        (&flags, false, "hello_malformed"),
        (&verdict, false, "hello_malformed"),
        (&reserved, false, "hello_malformed"),
    ];
    let log = super::log::Log::capture();
    for (said, ends, code) in cases {
        let (dialled, _, _) = local(2, LinkLimits::default(), None);
        let (mut near, far) = tokio::io::duplex(1024);
        near.write_all(said).await.unwrap();
        if ends {
            near.shutdown().await.unwrap();
        }
        Link::accept(dialled.clone(), Box::new(far)).await.unwrap_err();
        assert_eq!(dialled.counters.snapshot().refused, BTreeMap::from([(code, 1)]));
        let lines = log.lines("no connection: ");
        assert!(lines.last().is_some_and(|line| line.contains(&format!("reason=\"{code}\""))), "{lines:?}");
    }
    assert_eq!(log.lines("no connection: ").len(), 9);
    // A later version that can still speak this one is welcome.
    let (dialled, _, _) = local(2, LinkLimits::default(), None);
    let (mut near, far) = tokio::io::duplex(1024);
    near.write_all(&hello(7, 1)).await.unwrap();
    near.write_all(&[0; 32]).await.unwrap();
    Link::accept(dialled, Box::new(far)).await.unwrap();
}

/// A dialler that says its hello byte by byte, or nothing, is cut off; so is one that nobody answers.
#[tokio::test(start_paused = true)]
async fn a_slow_handshake_is_cut_off() {
    let began = tokio::time::Instant::now();
    let (dialled, _, _) = local(2, LinkLimits::default(), None);
    let (mut near, far) = tokio::io::duplex(1024);
    let drip = async {
        for byte in MAGIC.iter().chain(&[0; 80]) {
            near.write_all(&[*byte]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        biased;
        link = Link::accept(dialled.clone(), Box::new(far)) => drop(link.unwrap_err()),
        () = drip => unreachable!("it took 44 s"),
    }
    assert_eq!(dialled.counters.snapshot().refused, BTreeMap::from([("hello_slow", 1)]));
    assert_eq!(began.elapsed().as_secs(), 3);
    let (near, _far) = tokio::io::duplex(1024);
    let error = Link::dial(dialled, Box::new(near), DIALLED).await.unwrap_err();
    assert_eq!((error.code(), error.effect()), ("unavailable", slipring_core::Effect::None));
    assert_eq!(began.elapsed().as_secs(), 6);
}
