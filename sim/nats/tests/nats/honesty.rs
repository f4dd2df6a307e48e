//! The simulator's honesty: the same odd things, byte by byte, to nats-server 2.9, to nats-server 2.15 and to the
//! simulated ones. What they answer has to be the same, also when they close a connection.

use slipring_servers::NatsOptions;
use slipring_sim_nats::{Access, Options, Version};

use crate::exchange::Exchange;
use crate::exchanges::{guarded, open};
use crate::loopback::Loopback;

/// The real one of this version.
pub(crate) async fn real(version: Version, arguments: &[&str]) -> slipring_servers::Nats {
    let program = match version {
        Version::V2_9 => slipring_servers::Version::Debian,
        Version::V2_15 => slipring_servers::Version::Newer,
    };
    let mut options = NatsOptions::default();
    options.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    slipring_servers::Nats::start_with(program, options).await
}

async fn compare(exchanges: &[Exchange], arguments: &[&str], access: Access) {
    for version in Version::ALL {
        let real = real(version, arguments).await;
        let simulated = Loopback::start(Options::new(version).with_access(access.clone())).await;
        let (mut differences, mut answers) = (Vec::new(), 0);
        for exchange in exchanges {
            let sides = [exchange.with(&real.endpoint()).await, exchange.with(&simulated.endpoint()).await];
            answers += sides[0].len();
            if sides[0] != sides[1] {
                let [real, simulated] = sides.map(|side| side.join("\n           "));
                let name = exchange.name();
                differences.push(format!("{name}\nreal:      {real}\nsimulated: {simulated}"));
            }
        }
        let count = exchanges.len();
        println!("{version:?}: {count} exchanges, {answers} answers, {} differ", differences.len());
        assert!(differences.is_empty(), "{}", differences.join("\n\n"));
        simulated.end().await;
    }
}

/// Both versions of nats-server and the simulated ones answer the same to the same odd clients.
#[tokio::test]
async fn the_simulated_server_answers_as_real_ones_do() {
    compare(&open(), &[], Access::Open).await;
}

/// So they do where a password is wanted.
#[tokio::test]
async fn it_asks_for_a_password_as_real_ones_do() {
    let access = Access::Password { user: "u".to_owned(), password: "p".to_owned() };
    compare(&guarded(), &["--user", "u", "--pass", "p"], access).await;
}

/// So they do where a token is wanted.
#[tokio::test]
async fn it_asks_for_a_token_as_real_ones_do() {
    compare(&guarded(), &["--auth", "t"], Access::Token("t".to_owned())).await;
}
