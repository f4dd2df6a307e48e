//! The simulator's honesty: the same odd calls, through the same client, to etcd 3.4, to etcd 3.5 and to the
//! simulated one. What they answer has to be the same, words, revisions and all.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, Error, GetOptions, LeaseGrantOptions, LeaseTimeToLiveOptions,
    PutOptions, SortOrder, SortTarget, Txn, TxnOp, WatchFilterType, WatchOptions, WatchStream,
};
use slipring_core::SystemEnvironment;
use slipring_memory::Profile;
use slipring_servers::{EtcdOptions, Version};
use slipring_sim_etcd::Etcd;
use tokio::time::timeout;

use crate::scene::within;

/// A watch that says nothing for so long has nothing more to say.
const SILENCE: Duration = Duration::from_millis(300);

/// What was asked and what was answered.
struct Protocol {
    client: Client,
    lines: Vec<String>,
}

impl Protocol {
    async fn of(client: Client) -> Vec<String> {
        let mut protocol = Self { client, lines: Vec::new() };
        protocol.keys().await;
        protocol.ranges().await;
        protocol.options().await;
        protocol.transactions().await;
        protocol.sizes().await;
        protocol.leases().await;
        protocol.history().await;
        protocol.watches().await;
        protocol.lines
    }

    fn add(&mut self, what: &str, answer: Result<impl Debug, Error>) {
        let answer = match answer {
            Ok(answer) => format!("{answer:?}"),
            Err(Error::GRpcStatus(status)) => format!("{:?} {}", status.code(), status.message()),
            Err(other) => other.to_string(),
        };
        self.lines.push(format!("{what}: {}", blurred(&answer)));
    }

    async fn put(&mut self, key: &str, value: &str, options: PutOptions) {
        let answer = self.client.kv_client().put(key, value, Some(options)).await;
        self.add(&format!("put {key:?} {value:?}"), answer);
    }

    async fn get(&mut self, key: &str, options: GetOptions) {
        let what = format!("get {key:?} {options:?}");
        let answer = self.client.kv_client().get(key, Some(options)).await;
        self.add(&what, answer);
    }

    async fn delete(&mut self, key: &str, options: DeleteOptions) {
        let answer = self.client.kv_client().delete(key, Some(options.with_prev_key())).await;
        self.add(&format!("delete {key:?}"), answer);
    }

    async fn txn(&mut self, what: &str, txn: Txn) {
        let answer = self.client.kv_client().txn(txn).await;
        self.add(what, answer);
    }

    async fn keys(&mut self) {
        let with_before = || PutOptions::new().with_prev_key();
        for (key, value) in [("a", "1"), ("a", "1"), ("b", ""), ("", "x"), ("é/x", "2"), ("a/0", "3")] {
            self.put(key, value, with_before()).await;
        }
        self.get("", GetOptions::new()).await;
        self.get("", GetOptions::new().with_range("z")).await;
        self.delete("", DeleteOptions::new()).await;
        self.delete("nobody", DeleteOptions::new()).await;
        self.delete("a", DeleteOptions::new()).await;
        for revision in [-1, 0, 1, 2, 3, 6, 7, 8, 99] {
            self.get("a", GetOptions::new().with_revision(revision)).await;
        }
        self.put("a", "again", with_before()).await;
        self.get("a", GetOptions::new()).await;
    }

    async fn ranges(&mut self) {
        for (key, value) in [("r/3", "x"), ("r/1", "z"), ("r/2", "y"), ("r/1", "zz")] {
            self.put(key, value, PutOptions::new()).await;
        }
        let below = || GetOptions::new().with_prefix();
        for (from, end) in [("r/1", "r/3"), ("r/3", "r/1"), ("r/2", "r/2"), ("r/2", "\0"), ("r/2", "")] {
            self.get(from, GetOptions::new().with_range(end)).await;
        }
        for limit in [-1, 0, 1, 2, 3, 4] {
            self.get("r/", below().with_limit(limit)).await;
        }
        self.get("r/", below().with_count_only()).await;
        self.get("r/", below().with_count_only().with_limit(1)).await;
        self.get("r/", below().with_keys_only()).await;
        self.get("r/", below().with_serializable()).await;
        self.get("r/", below().with_min_mod_revision(10)).await;
        self.get("r/", below().with_max_mod_revision(10).with_limit(1)).await;
        self.get("r/", below().with_min_create_revision(10)).await;
        self.get("r/", below().with_max_create_revision(9)).await;
        for target in
            [SortTarget::Key, SortTarget::Version, SortTarget::Create, SortTarget::Mod, SortTarget::Value]
        {
            for order in [SortOrder::Ascend, SortOrder::Descend] {
                // The versions of two of them are alike; with one there is no doubt.
                self.get("r/", below().with_sort(target, order).with_limit(1)).await;
            }
        }
        self.delete("r/2", DeleteOptions::new().with_range("r/2")).await;
        self.delete("r/1", DeleteOptions::new().with_range("r/3")).await;
        self.delete("r/", DeleteOptions::new().with_prefix()).await;
        self.delete("r/", DeleteOptions::new().with_prefix()).await;
    }

    async fn options(&mut self) {
        self.put("nobody", "", PutOptions::new().with_ignore_value()).await;
        self.put("nobody", "", PutOptions::new().with_ignore_lease()).await;
        self.put("a", "given", PutOptions::new().with_ignore_value()).await;
        self.put("a", "", PutOptions::new().with_ignore_lease().with_lease(7)).await;
        self.put("a", "", PutOptions::new().with_ignore_value().with_prev_key()).await;
        self.put("a", "new", PutOptions::new().with_ignore_lease().with_prev_key()).await;
        self.put("a", "new", PutOptions::new().with_lease(7)).await;
        self.get("a", GetOptions::new()).await;
    }

    async fn transactions(&mut self) {
        let put = |key: &str| TxnOp::put(key, "t", Some(PutOptions::new().with_prev_key()));
        let get = |key: &str| TxnOp::get(key, None);
        let delete = |key: &str| TxnOp::delete(key, Some(DeleteOptions::new().with_prev_key()));
        let below = |key: &str| TxnOp::delete(key, Some(DeleteOptions::new().with_prefix()));
        let branches: [(&str, Vec<TxnOp>); 17] = [
            ("nothing", vec![]),
            ("put put", vec![put("t/1"), put("t/1")]),
            ("put delete", vec![put("t/1"), delete("t/1")]),
            ("delete put", vec![delete("t/1"), put("t/1")]),
            ("delete below put", vec![below("t/"), put("t/1")]),
            ("delete beside put", vec![below("u/"), put("t/1")]),
            ("put get", vec![put("t/2"), get("t/2")]),
            ("get put", vec![get("t/2"), put("t/2")]),
            (
                "get all",
                vec![put("t/3"), delete("t/1"), TxnOp::get("t/", Some(GetOptions::new().with_prefix()))],
            ),
            ("delete delete", vec![delete("t/3"), delete("t/3")]),
            ("delete nobody", vec![delete("nobody")]),
            ("empty key", vec![put("")]),
            ("empty get", vec![get("")]),
            ("empty delete", vec![delete("")]),
            ("unknown lease", vec![put("t/4"), TxnOp::put("t/5", "", Some(PutOptions::new().with_lease(7)))]),
            ("future get", vec![put("t/4"), TxnOp::get("t/4", Some(GetOptions::new().with_revision(999)))]),
            (
                "nobody ignored",
                vec![put("t/6"), TxnOp::put("no", "", Some(PutOptions::new().with_ignore_value()))],
            ),
        ];
        for (what, branch) in branches {
            self.txn(what, Txn::new().and_then(branch)).await;
        }
        self.txn("put in both", Txn::new().and_then(vec![put("t/7")]).or_else(vec![put("t/7")])).await;
        self.get("t/", GetOptions::new().with_prefix()).await;
        let conditions = [
            Compare::create_revision("nobody", CompareOp::Equal, 0),
            Compare::mod_revision("nobody", CompareOp::Less, 1),
            Compare::version("nobody", CompareOp::Equal, 0),
            Compare::version("nobody", CompareOp::Greater, 0),
            Compare::lease("nobody", CompareOp::Equal, 0),
            Compare::value("nobody", CompareOp::Equal, ""),
            Compare::value("nobody", CompareOp::NotEqual, "x"),
            Compare::value("a", CompareOp::Greater, "m"),
            Compare::value("a", CompareOp::Less, "m"),
            Compare::version("t/", CompareOp::Greater, 0).with_prefix(),
            Compare::version("t/", CompareOp::Equal, 1).with_prefix(),
            Compare::version("none/", CompareOp::Greater, 0).with_prefix(),
            Compare::version("none/", CompareOp::Equal, 0).with_prefix(),
            Compare::value("none/", CompareOp::Equal, "").with_prefix(),
            Compare::version("", CompareOp::Equal, 0),
        ];
        for condition in conditions {
            let txn =
                Txn::new().when(vec![condition.clone()]).and_then(vec![get("a")]).or_else(vec![put("t/8")]);
            self.txn(&format!("{condition:?}"), txn).await;
        }
        for count in [128, 129] {
            let puts = (0..count).map(|number| put(&format!("w/{number:03}"))).collect::<Vec<_>>();
            self.txn(&format!("{count} puts"), Txn::new().and_then(puts)).await;
            let never = Compare::version("nobody", CompareOp::Greater, 0);
            self.txn(&format!("{count} conditions"), Txn::new().when(vec![never; count])).await;
        }
    }

    async fn sizes(&mut self) {
        for bytes in [1_572_000, 1_572_864, 2_097_100, 2_200_000] {
            let answer = self.client.kv_client().put("large", vec![b'x'; bytes], None).await;
            self.add(&format!("put of {bytes} bytes"), answer);
        }
        for number in 0..3 {
            let answer =
                self.client.kv_client().put(format!("many/{number}"), vec![b'x'; 1_500_000], None).await;
            self.add("put of a third", answer);
        }
        let answer = self.client.kv_client().get("many/", Some(GetOptions::new().with_prefix())).await;
        self.add("more than the client takes", answer.map(|_| ()));
        self.delete("large", DeleteOptions::new()).await;
        let answer = self.client.kv_client().delete("many/", Some(DeleteOptions::new().with_prefix())).await;
        self.add("delete many", answer);
    }

    async fn leases(&mut self) {
        let grants =
            [(11, -1), (12, 0), (13, 1), (14, 5), (15, 9_000_000_000), (16, 9_000_000_001), (14, 5), (-1, 5)];
        for (id, ttl) in grants {
            let options = LeaseGrantOptions::new().with_id(id);
            let answer = self.client.lease_client().grant(ttl, Some(options)).await;
            self.add(&format!("grant {id} {ttl}"), answer);
        }
        self.put("l/b", "", PutOptions::new().with_lease(14)).await;
        self.put("l/a", "", PutOptions::new().with_lease(14)).await;
        self.put("l/moved", "", PutOptions::new().with_lease(14)).await;
        self.put("l/moved", "", PutOptions::new().with_lease(15)).await;
        self.put("l/detached", "", PutOptions::new().with_lease(14)).await;
        self.put("l/detached", "", PutOptions::new()).await;
        self.put("l/kept", "", PutOptions::new().with_lease(15)).await;
        self.put("l/kept", "kept", PutOptions::new().with_ignore_lease()).await;
        self.put("l/negative", "", PutOptions::new().with_lease(-1)).await;
        for id in [15, 7, 0] {
            let options = LeaseTimeToLiveOptions::new().with_keys();
            let answer = self.client.lease_client().time_to_live(id, Some(options)).await;
            let answer = answer.map(|mut answer| {
                // What is left of it is another number in every millisecond.
                answer.0.ttl = answer.0.ttl.signum();
                answer.0.keys.sort();
                answer
            });
            self.add(&format!("time to live of {id}"), answer);
        }
        let (mut keeper, mut kept) = self.client.lease_client().keep_alive(14).await.unwrap();
        keeper.keep_alive().await.unwrap();
        self.add("keep 14", kept.message().await);
        for id in [14, 14, 7, 0, -1] {
            let answer = self.client.lease_client().revoke(id).await;
            self.add(&format!("revoke {id}"), answer);
        }
        keeper.keep_alive().await.unwrap();
        self.add("keep 14 revoked", kept.message().await);
        keeper.keep_alive().await.unwrap();
        self.add("keep 14 revoked, again", kept.message().await);
        let answer = self.client.lease_client().keep_alive(7).await;
        self.add("keep 7", answer.map(|_| ()));
        self.get("l/", GetOptions::new().with_prefix()).await;
        for id in [11, 12, 13, 15] {
            self.client.lease_client().revoke(id).await.unwrap();
        }
        let leases = self.client.lease_client().leases().await;
        self.add("leases", leases);
    }

    async fn history(&mut self) {
        for value in 0..4 {
            self.put("h", &value.to_string(), PutOptions::new()).await;
        }
        self.delete("h", DeleteOptions::new()).await;
        self.put("h", "after", PutOptions::new()).await;
        let head = self.client.kv_client().get("h", None).await.unwrap().header().unwrap().revision();
        for at in [-1, head + 1, head - 3, head - 3, head - 4, 0] {
            let answer = self.client.kv_client().compact(at, None).await;
            self.add(&format!("compact to {} of {head}", at - head), answer);
        }
        for back in [6, 4, 3, 2, 1, 0, -1] {
            self.get("h", GetOptions::new().with_revision(head - back)).await;
        }
    }

    async fn watches(&mut self) {
        let head = self.client.kv_client().get("h", None).await.unwrap().header().unwrap().revision();
        let from = |back: i64| WatchOptions::new().with_start_revision(head - back);
        let starts = [-1, 0, 1, 2, 4, 9, head, head + 5];
        for back in starts {
            self.watch_to_the_end(&format!("watch from {}", -back), "h", from(back)).await;
        }
        let watch = || WatchOptions::new();
        self.watch_to_the_end("from now", "h", watch()).await;
        self.watch_to_the_end("below", "v/", watch().with_prefix().with_prev_key()).await;
        let (no_put, no_delete) = (WatchFilterType::NoPut, WatchFilterType::NoDelete);
        self.watch_to_the_end("no puts", "v/", watch().with_prefix().with_filters([no_put])).await;
        self.watch_to_the_end("no deletions", "v/", watch().with_prefix().with_filters([no_delete])).await;
        self.watch_to_the_end("the empty key", "", watch()).await;
        self.watch_to_the_end("nothing", "b", watch().with_range("a")).await;
        self.watch_to_the_end("an id", "v/", watch().with_prefix().with_watch_id(5)).await;
        self.many_on_one_stream().await;
    }

    /// What a watch shows of the history and of the changes that follow, until it is cancelled.
    async fn watch_to_the_end(&mut self, what: &str, key: &str, options: WatchOptions) {
        let mut stream = self.client.watch_client().watch(key, Some(options)).await.unwrap();
        let created = self.message(what, &mut stream).await;
        let put = |key: &str, value: &str| TxnOp::put(key, value, None);
        let changes = vec![put("v/z", "1"), put("v/a", "1"), put("h", "now"), TxnOp::delete("v/0", None)];
        self.client.kv_client().txn(Txn::new().and_then(changes)).await.unwrap();
        self.client.kv_client().put("v/0", "0", None).await.unwrap();
        let below = DeleteOptions::new().with_prefix();
        self.client.kv_client().delete("v/", Some(below)).await.unwrap();
        self.until_silent(what, &mut stream).await;
        // One that was ended is unknown then, and nothing is said of it.
        if !created.0.canceled && !self.lines.last().unwrap().contains("canceled: true") {
            stream.cancel(created.0.watch_id).await.unwrap();
            self.message(what, &mut stream).await;
        }
    }

    /// Shows the events one by one: how many share a message is the server's affair.
    async fn until_silent(&mut self, what: &str, stream: &mut WatchStream) {
        while let Ok(message) = timeout(SILENCE, stream.message()).await {
            let message = message.unwrap().unwrap();
            for event in &message.0.events {
                self.lines.push(format!("{what} shows {event:?}"));
            }
            if message.0.events.is_empty() {
                self.add(what, Ok(&message));
            }
        }
    }

    async fn message(&mut self, what: &str, stream: &mut WatchStream) -> etcd_client::WatchResponse {
        let message = within(what, stream.message()).await.unwrap().unwrap();
        self.add(what, Ok(&message));
        message
    }

    async fn many_on_one_stream(&mut self) {
        let numbered = |id| WatchOptions::new().with_watch_id(id);
        let mut stream = self.client.watch_client().watch("m", None).await.unwrap();
        self.message("the first", &mut stream).await;
        for (what, id) in [("another", 0), ("a third", 7), ("the third again", 7), ("a fourth", 0)] {
            stream.watch("n", Some(numbered(id))).await.unwrap();
            self.message(what, &mut stream).await;
        }
        stream.watch("n", Some(numbered(0).with_range("m"))).await.unwrap();
        self.message("nothing", &mut stream).await;
        // Of a watch that is unknown nothing is said.
        stream.cancel(99).await.unwrap();
        stream.request_progress().await.unwrap();
        self.message("progress", &mut stream).await;
        stream.cancel(7).await.unwrap();
        self.message("cancelled", &mut stream).await;
        stream.watch("n", Some(numbered(7))).await.unwrap();
        self.message("the third anew", &mut stream).await;
    }
}

/// Without what names the server and its election, and without the size of an answer, to which the names add.
fn blurred(text: &str) -> String {
    let mut blurred = text.to_owned();
    for field in ["cluster_id: ", "member_id: ", "raft_term: ", "too large: found "] {
        let mut parts = blurred.split(field);
        let mut kept = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            kept += field;
            kept += part.trim_start_matches(|digit: char| digit.is_ascii_digit());
        }
        blurred = kept;
    }
    blurred
}

/// Both versions of etcd and the simulated one give the same answers to the same odd calls.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_simulated_etcd_answers_as_real_ones_do() {
    let simulated = Etcd::new(&Profile::etcd(), Arc::new(SystemEnvironment::new()));
    let simulated = Client::from_channel(simulated.channel(), None).await.unwrap();
    let simulated = Protocol::of(simulated).await;
    for version in Version::ALL {
        let mut options = EtcdOptions::default();
        options.own_timing = true;
        let server = slipring_servers::Etcd::start_with(version, options).await;
        let client = Client::connect([server.endpoint()], None).await.unwrap();
        let real = Protocol::of(client).await;
        let differences = real.iter().zip(&simulated).filter(|(real, simulated)| real != simulated);
        let differences: Vec<_> = differences
            .map(|(real, simulated)| format!("real:      {real}\nsimulated: {simulated}"))
            .collect();
        println!("{version:?}: {} answers, {} differ", real.len(), differences.len());
        let shortest = real.len().min(simulated.len());
        let beyond = (&real[shortest..], &simulated[shortest..]);
        assert!(differences.is_empty(), "{}\n{beyond:?}", differences.join("\n"));
        assert!(beyond.0.is_empty() && beyond.1.is_empty(), "{beyond:?}");
    }
}
