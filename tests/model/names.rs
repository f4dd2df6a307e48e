//! Names on their way: from text to keys and subjects, to an instance, and out again.

use std::time::Duration;

use crate::common::{records, runtime, serve_id};
use slipring::name::Deployment;
use slipring::{Client, DistributedRuntime, Error, MemoryWorld};

const SECOND: Duration = Duration::from_secs(1);

async fn reaches(from: &DistributedRuntime, reference: &str) -> u64 {
    let client: Client<(), u64> = from.endpoint(reference).unwrap().client().await.unwrap();
    client.call(&()).await.unwrap()
}

/// D01: what is served in a nested namespace is found there, however the name is written, and nowhere else.
#[tokio::test(start_paused = true)]
async fn d01_nested_namespaces_are_found() {
    let world = MemoryWorld::new();
    let (worker, caller) = (runtime(&world).await, runtime(&world).await);
    let child = worker.namespace("parent").unwrap().namespace("child").unwrap();
    let endpoint = child.component("worker").unwrap().endpoint("generate").unwrap();
    let serving = serve_id(&endpoint).await.unwrap();
    assert_eq!(endpoint.path().component().etcd_path(), "parent.child/components/worker");
    assert!(serving.path().key().as_str().starts_with("parent.child/components/worker/generate:"));
    let found = caller.namespace("parent.child").unwrap().component("worker").unwrap();
    let client: Client<(), u64> = found.endpoint("generate").unwrap().client().await.unwrap();
    assert_eq!(client.call(&()).await.unwrap(), worker.instance_id());
    assert_eq!(reaches(&caller, "parent.child/worker/generate").await, worker.instance_id());
    for elsewhere in ["child/worker/generate", "parent/worker/generate"] {
        let client: Client<(), u64> = caller.endpoint(elsewhere).unwrap().client().await.unwrap();
        let error = client.request(&()).deadline(SECOND).call().await.unwrap_err();
        assert_eq!(error.code(), "no_instances", "{elsewhere}");
    }
}

/// D02, D25: names with dots, slashes and upper case are reachable, and gone when they are withdrawn.
#[tokio::test(start_paused = true)]
async fn d02_d25_unusual_names_are_reachable_and_removed() {
    let world = MemoryWorld::new();
    let (worker, caller) = (runtime(&world).await, runtime(&world).await);
    for reference in [
        "dynamo/Processor/chat/completions",
        "dynamo.Processor.chat/completions",
        "a/B/v1.Chat",
        "a/b/v1/chat.completions/x",
        "a-b_c.d/E-F_g/-",
        "a/b/component",
        "0/0/0",
    ] {
        let serving = serve_id(&worker.endpoint(reference).unwrap()).await.unwrap();
        let mut instances =
            caller.endpoint(reference).unwrap().client::<(), u64>().await.unwrap().instances();
        assert_eq!(reaches(&caller, reference).await, worker.instance_id(), "{reference}");
        assert!(serving.stop().await.is_clean());
        tokio::time::timeout(SECOND, instances.wait_until(|all| all.is_empty())).await.unwrap();
        assert_eq!(records(&world), [], "{reference}");
    }
}

/// D25: names whose parts would run together do not: each is reached alone, and removed alone.
#[tokio::test(start_paused = true)]
async fn d25_names_do_not_run_together() {
    let world = MemoryWorld::new();
    let caller = runtime(&world).await;
    let references = [
        "a_b/c/e", "a/b_c/e", "a.b/c/e", "a/b/c/e", "a/b/c.e", "a/b/c-e", "a/B/c/e", "a-b/c/e", "a/b-c/e",
        "a/b/c_e",
    ];
    let mut served = Vec::new();
    for reference in references {
        let worker = runtime(&world).await;
        let serving = serve_id(&worker.endpoint(reference).unwrap()).await.unwrap();
        served.push((reference, worker, serving));
    }
    let together = runtime(&world).await;
    let mut own = Vec::new();
    for reference in references {
        own.push(serve_id(&together.endpoint(reference).unwrap()).await.unwrap());
    }
    let components: std::collections::BTreeSet<_> =
        own.iter().map(|serving| serving.path().endpoint().component().path()).collect();
    assert_eq!(together.registry().services(), components.len());
    drop(own);
    together.stop().await;
    while let Some((_, worker, serving)) = served.pop() {
        for (reference, worker, _) in &served {
            assert_eq!(reaches(&caller, reference).await, worker.instance_id(), "{reference}");
        }
        assert!(serving.stop().await.is_clean());
        assert_eq!(records(&world).len(), served.len());
        worker.stop().await;
    }
}

/// D25: a bad name is refused where it is written, with the place of what is wrong.
#[tokio::test]
async fn d25_bad_names_are_refused() {
    let runtime = DistributedRuntime::memory().await.unwrap();
    for (reference, byte) in
        [("Upper/b/c", 0), ("a/b c/d", 3), ("a/b/c//d", 6), ("a/b/c:1", 5), ("a/b", 3), ("component/b/c", 0)]
    {
        let error = runtime.endpoint(reference).unwrap_err();
        assert!(matches!(&error, Error::Invalid { position: Some(at), .. } if *at == byte), "{error}");
    }
    assert_eq!(runtime.namespace("a/b").unwrap_err().code(), "invalid");
    assert_eq!(runtime.namespace("a").unwrap().component("b.c").unwrap_err().code(), "invalid");
}

/// U11144: a component whose name begins as another's is not taken for it, nor an endpoint.
#[tokio::test(start_paused = true)]
async fn u11144_a_longer_name_is_another_name() {
    let world = MemoryWorld::new();
    let (worker, caller) = (runtime(&world).await, runtime(&world).await);
    let _servings = [
        serve_id(&worker.endpoint("a/component2/e").unwrap()).await.unwrap(),
        serve_id(&worker.endpoint("a/comp/e2").unwrap()).await.unwrap(),
        serve_id(&worker.endpoint("a/comp/e/f").unwrap()).await.unwrap(),
    ];
    let client: Client<(), u64> = caller.endpoint("a/comp/e").unwrap().client().await.unwrap();
    let error = client.request(&()).deadline(SECOND).call().await.unwrap_err();
    assert_eq!(error.code(), "no_instances");
    assert!(client.instances().is_empty());
}

/// Two deployments on one broker never meet.
#[tokio::test(start_paused = true)]
async fn deployments_do_not_meet() {
    let world = MemoryWorld::new();
    let deployed = async |name: &str| {
        let deployment = Deployment::new(name).unwrap();
        DistributedRuntime::builder().memory(&world).deployment(deployment).build().await.unwrap()
    };
    let all = [deployed("").await, deployed("blue").await, deployed("green").await];
    let mut servings = Vec::new();
    for runtime in &all {
        servings.push(serve_id(&runtime.endpoint("a/b/c").unwrap()).await.unwrap());
    }
    for runtime in &all {
        let client: Client<(), u64> = runtime.endpoint("a/b/c").unwrap().client().await.unwrap();
        client.wait_for_instances(1, SECOND).await.unwrap();
        let instances = client.instances().all();
        assert_eq!(instances.iter().map(|one| one.id()).collect::<Vec<_>>(), [runtime.instance_id()]);
        assert_eq!(client.call(&()).await.unwrap(), runtime.instance_id());
        let component = runtime.namespace("a").unwrap().component("b").unwrap();
        let reports = runtime.inspect(&component, SECOND).await.unwrap();
        assert_eq!(reports.len(), 1, "{reports:?}");
        assert_eq!(reports[0].id, format!("{:x}", runtime.instance_id()));
    }
}
