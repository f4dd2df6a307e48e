//! Whatever comes over a connection.

use proptest::collection::vec;
use proptest::prelude::*;
use slipring_sim_nats::{Options, Version};
use tokio::runtime::Builder;

use crate::pipe::Piped;

/// Lines that are nearly right, and bytes that are not.
fn said() -> impl Strategy<Value = Vec<u8>> {
    let words = vec![
        "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true,\"echo\":false}\r\n",
        "CONNECT {\"protocol\":1}\r\n",
        "CONNECT {\"verbose\":[{}]}\r\n",
        "PING\r\n",
        "PONG\n",
        "SUB a.* 1\r\n",
        "SUB > q 2\r\n",
        "SUB a.b q 2\r\n",
        "SUB \u{e9}.>.a 3\r\n",
        "UNSUB 1\r\n",
        "UNSUB 2 2\r\n",
        "PUB a.b 2\r\nhi\r\n",
        "PUB a.b a.c 0\r\n\r\n",
        "PUB a..b a.c 0\r\n\r\n",
        "PUB nobody a.b 0\r\n\r\n",
        "HPUB a.b 2 3\r\nabc\r\n",
        "HPUB a.b r 12 12\r\nNATS/1.0\r\n\r\n\r\n",
        "PUB a 99999\r\n",
        "INFO {}\r\n",
        "+OK\r\n",
        "-ERR\r\n",
        "PUB",
        " ",
        "\r\n",
        "999999999",
    ];
    prop_oneof![
        20 => prop::sample::select(words).prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..40),
        1 => (any::<u8>(), 0_usize..20_000).prop_map(|(byte, times)| vec![byte; times]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// Whatever two clients say, in whatever pieces: a third one is served well meanwhile and afterwards, whoever
    /// spoke nonsense is let go and never spoken to again, and nobody leaves anything behind.
    #[test]
    fn garbage_harms_nobody_else(
        pieces in vec((0_usize..2, said()), 0..40),
        version in prop::sample::select(&Version::ALL[..]),
    ) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let options = Options::new(version).with_payload_bytes_max(1000).with_line_bytes_max(500);
            let server = Piped::start(options, 1);
            let mut good = server.client().await;
            good.say("CONNECT {\"verbose\":false}\r\nSUB good 1\r\n").await;
            let mut clients = [server.client().await, server.client().await];
            for (client, bytes) in &pieces {
                clients[*client].say(bytes).await;
                good.say("PUB good 1\r\nx\r\n").await;
                prop_assert_eq!(good.heard_until("\r\nx\r\n").await, "MSG good 1 1\\r\\nx\\r\\n");
            }
            for mut client in clients {
                // More than a message takes, and no beginning of anything.
                client.say(vec![b'!'; 2000]).await;
                let heard = client.heard_until("<").await;
                let complaints = heard.matches("-ERR \\'Unknown Protocol Operation").count();
                prop_assert!(heard.ends_with("<closed>") && complaints <= 1, "{}", heard);
                if complaints == 1 {
                    prop_assert!(heard.ends_with("Operation\\'\\r\\n<closed>"), "{}", heard);
                }
            }
            prop_assert_eq!((server.nats.connections(), server.nats.subscriptions()), (1, 1));
            drop(good);
            while server.nats.connections() > 0 {
                tokio::task::yield_now().await;
            }
            prop_assert!(server.nats.is_empty());
            Ok(())
        })?;
    }
}
