//! The known traps of turmoil 0.7.2, each with what is done about it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use slipring_core::{Environment, EnvironmentExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};
use turmoil::{Builder, Sim};

use crate::turmoil::environment;

const SECOND: Duration = Duration::from_secs(1);

fn sim() -> Sim<'static> {
    Builder::new().rng_seed(7).simulation_duration(1000 * SECOND).build()
}

/// A host that accepts connections and says nothing.
fn silent_server(sim: &mut Sim<'static>) {
    sim.host("server", || async {
        let environment = environment("server", 7);
        let mut listener = environment.listen("0.0.0.0:80").await?;
        let mut accepted = Vec::new();
        loop {
            accepted.push(listener.accept().await?);
        }
    });
}

/// Bytes flow between hosts by name, also to a port that was chosen; wall time and random numbers are those of
/// the seed.
#[test]
fn hosts_connect_by_name() {
    let run = || {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let mut sim = sim();
        sim.host("server", || async {
            let environment = environment("server", 7);
            let mut listener = environment.listen("10.1.2.3:0").await?;
            assert_eq!(listener.local_address(), "server:49152");
            loop {
                let (mut stream, _) = listener.accept().await?;
                stream.write_all(b"hello").await?;
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await?;
            }
        });
        let drawn = seen.clone();
        sim.client("client", async move {
            let environment = environment("client", 7);
            let mut read = [0; 5];
            let mut stream = environment.connect("server:49152").await?;
            stream.read_exact(&mut read).await?;
            assert_eq!(&read, b"hello");
            let arrived = environment.wall_time().duration_since(std::time::UNIX_EPOCH)?;
            drawn.borrow_mut().push((environment.random("x"), arrived));
            Ok(())
        });
        sim.run().unwrap();
        seen.take()
    };
    assert_eq!(run(), run());
}

/// Trap: turmoil refuses a connection across a partition at once. Here it is tried until it gets through, as by
/// TCP, and the caller's timeout holds.
#[test]
fn connecting_across_a_partition_waits() {
    let mut sim = sim();
    silent_server(&mut sim);
    sim.client("client", async {
        let environment = environment("client", 7);
        turmoil::partition("client", "server");
        assert!(timeout(SECOND / 2, environment.connect("server:80")).await.is_err());
        let healed = environment.start("healing", async {
            sleep(5 * SECOND).await;
            turmoil::repair("client", "server");
        });
        let began = Instant::now();
        environment.connect("server:80").await?;
        assert!((5 * SECOND..8 * SECOND).contains(&began.elapsed()), "{:?}", began.elapsed());
        healed.detach();
        Ok(())
    });
    sim.run().unwrap();
}

/// Where nobody listens a connection is refused, and no later than it takes to ask.
#[test]
fn connecting_to_a_closed_port_is_refused() {
    let mut sim = sim();
    silent_server(&mut sim);
    sim.client("client", async {
        let environment = environment("client", 7);
        let refused = timeout(SECOND / 2, environment.connect("server:81")).await?;
        assert_eq!(refused.err().map(|error| error.code()), Some("unavailable"));
        let unknown = environment.connect("nobody:81").await;
        assert_eq!(unknown.err().map(|error| error.code()), Some("unavailable"));
        Ok(())
    });
    sim.run().unwrap();
}

/// Trap: a panic in a spawned task is swallowed. Through the environment it is told to whoever holds the task.
#[test]
fn a_panic_in_a_task_is_told() {
    let mut sim = sim();
    sim.client("client", async {
        let mut task = environment("client", 7).start("fragile", async { panic!("broken") });
        // The environment is gone, and its tasks with it.
        assert_eq!(task.end().await, slipring_core::TaskEnd::Aborted);
        let environment = environment("client", 7);
        let mut task = environment.start("fragile", async { panic!("broken") });
        assert_eq!(task.end().await, slipring_core::TaskEnd::Panicked("broken".to_owned()));
        Ok(())
    });
    sim.run().unwrap();
}
