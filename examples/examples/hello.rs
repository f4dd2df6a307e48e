//! A first look: two workers serve an endpoint, one of them dies in the middle of an answer, and the text
//! arrives whole all the same.
//!
//! ```text
//! cargo run -p examples --example hello                       a text of its own
//! cargo run -p examples --example hello -- "to be or not"     yours
//! cargo run -p examples --example hello -- --file PATH        a file's
//! ```
//!
//! All of it runs in this process: a [`MemoryWorld`] stands for the broker, and a tokio runtime for the
//! process of each worker. On another broker only the line that builds the runtime would differ.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use slipring::{
    Client, Context, DistributedRuntime, Effect, Error, Fault, Instance, InstanceChange, Instances,
    LeaseState, MemoryWorld, Result, Serving, Settings,
};
use tokio::runtime::Runtime;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep, timeout};

const ENDPOINT: &str = "hello/worker/tokens";
const USAGE: &str = "usage: hello [--file PATH | TEXT]";
const TEXT: &str = "A slip ring carries the current while the machine turns. A brush may spark, a brush may \
                    break, and still the light stays on: the current takes another way.";
/// A request has to fit into one message.
const TEXT_BYTES_MAX: usize = 128 * 1024;
/// However long the text, it is answered in at most so many tokens, with this pause after each.
const TOKENS_MAX: usize = 40;
const PAUSE: Duration = Duration::from_millis(60);
/// How long the dead are remembered: short, because somebody is watching.
const LEASE_TTL: Duration = Duration::from_secs(2);

/// What is asked for: the tokens of a text, from this one on.
#[derive(Serialize, Deserialize)]
struct Prompt {
    text: String,
    from: usize,
}

#[tokio::main]
#[expect(clippy::print_stderr, reason = "a program says on stderr why it failed")]
async fn main() -> ExitCode {
    let text = match text_of(std::env::args_os().skip(1)) {
        Ok(text) => text,
        Err(problem) => {
            eprintln!("{problem}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(text).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", error.code());
            ExitCode::FAILURE
        }
    }
}

async fn run(text: String) -> Result<()> {
    let story = Story { began: Instant::now() };
    let world = MemoryWorld::new();
    let workers = [Worker::start(story, &world, "anna")?, Worker::start(story, &world, "bert")?];

    let runtime = join(&world).await?;
    let client = runtime.endpoint(ENDPOINT)?.client::<Prompt, String>().await?;
    client.wait_for_instances(workers.len(), Duration::from_secs(5)).await?;
    // What the watch sees is told first, for as long as the rest goes on.
    tokio::select! {
        biased;
        () = tell_what_is_seen(story, client.instances()) => unreachable!("a view has no end"),
        result = get_one_text(story, &client, workers, text) => result?,
    }
    runtime.stop().await;
    Ok(())
}

/// A runtime: what each process of a system has one of.
async fn join(world: &MemoryWorld) -> Result<DistributedRuntime> {
    let mut settings = Settings::default();
    settings.lease_ttl = LEASE_TTL;
    settings.probe_after = PAUSE * 8;
    DistributedRuntime::builder().memory(world).settings(settings).build().await
}

/// The part of the client: it gets its text, whatever happens to the workers.
async fn get_one_text(
    story: Story,
    client: &Client<Prompt, String>,
    workers: [Worker; 2],
    text: String,
) -> Result<()> {
    let mut workers = Vec::from(workers);
    let mut victim = None;
    let middle = tokens(&text).len().div_ceil(2);
    let mut prompt = Prompt { text, from: 0 };
    let mut received = String::new();
    loop {
        let mut answer = client.generate(&prompt).await?;
        let instance = answer.instance().clone();
        story.tell("client", format_args!("asks {} from token {} on", name(&instance), prompt.from));
        let outcome = async {
            while let Some(token) = answer.next().await.transpose()? {
                story.tell(name(&instance), format_args!("{token:.60?}"));
                received.push_str(&token);
                prompt.from += 1;
                if prompt.from == middle {
                    story.tell("fate", format_args!("kills {}: no goodbye, no stop", name(&instance)));
                    workers.retain(|worker| worker.runtime.instance_id() != instance.id());
                    victim = Some(instance.clone());
                }
            }
            Ok(())
        };
        match outcome.await {
            Ok(()) => break,
            // How much was delivered is known exactly, so the rest can be asked of somebody else.
            Err(Error::StreamInterrupted { items_delivered, cause, .. }) => {
                let lost = format_args!("lost {} after {items_delivered} tokens: {cause}", name(&instance));
                story.tell("client", lost);
            }
            Err(error) => return Err(error),
        }
    }
    assert_eq!(received, prompt.text, "the text came back changed");
    let whole = format_args!("has the whole text: {} bytes in {} tokens", received.len(), prompt.from);
    story.tell("client", whole);
    if let Some(victim) = victim {
        outlive(story, client, &victim).await?;
    }
    for worker in workers {
        worker.stop(story).await;
    }
    Ok(())
}

/// Waits until the lease of the dead worker has run out, which takes its record away.
async fn outlive(story: Story, client: &Client<Prompt, String>, dead: &Instance) -> Result<()> {
    story.tell("client", format_args!("waits: {} is still registered", name(dead)));
    let mut instances = client.instances();
    let gone = instances.wait_until(|all| all.iter().all(|instance| instance.id() != dead.id()));
    let limit = LEASE_TTL * 3;
    timeout(limit, gone)
        .await
        .map_err(|_| Error::deadline_exceeded("the end of a dead worker's lease", limit, Effect::None))?;
    story.tell("client", format_args!("knows that the lease of {} has run out", name(dead)));
    Ok(())
}

/// Tells every change of the endpoint's instances, as the client's watch sees it.
async fn tell_what_is_seen(story: Story, mut instances: Instances) {
    loop {
        match instances.next().await {
            InstanceChange::Put(instance) => story.tell("watch", format_args!("put {}", name(&instance))),
            InstanceChange::Removed(instance) => {
                story.tell("watch", format_args!("removed {}", name(&instance)))
            }
            InstanceChange::Snapshot(all) => {
                let all: Vec<_> = all.iter().map(|instance| name(instance)).collect();
                story.tell("watch", format_args!("begins with {}: {}", all.len(), all.join(", ")));
            }
            _ => {}
        }
    }
}

/// A worker, as a process of its own would have it. Dropping it is a crash: first all its tasks end, then its
/// memory goes, and the broker is not told.
struct Worker {
    _process: Process,
    name: &'static str,
    runtime: DistributedRuntime,
    _serving: Serving,
}

impl Worker {
    fn start(story: Story, world: &MemoryWorld, name: &'static str) -> Result<Self> {
        let process = Process::start();
        let (runtime, serving) = process.run(async {
            let runtime = join(world).await?;
            let endpoint = runtime.endpoint(ENDPOINT)?;
            Ok((runtime, endpoint.serve(answer).label("name", name).await?))
        })?;
        if let LeaseState::Held { lease, .. } = runtime.lease().get() {
            story.tell(name, format_args!("has lease {lease} for {LEASE_TTL:?}"));
        }
        story.tell(name, format_args!("is registered: {}", serving.path().key()));
        Ok(Self { _process: process, name, runtime, _serving: serving })
    }

    async fn stop(self, story: Story) {
        story.tell(self.name, "stops, step by step");
        for line in self.runtime.stop().await.to_string().lines() {
            story.tell(self.name, line);
        }
    }
}

/// The handler: a stream of tokens, with a pause after each, the last one too.
async fn answer(prompt: Prompt, _: Context) -> Result<impl Stream<Item = Result<String, Fault>>, Fault> {
    let rest: Vec<_> = tokens(&prompt.text).into_iter().skip(prompt.from).map(str::to_owned).collect();
    Ok(stream::unfold((rest.into_iter(), Duration::ZERO), async |(mut rest, pause)| {
        sleep(pause).await;
        Some((Ok(rest.next()?), (rest, PAUSE)))
    }))
}

/// A tokio runtime of its own stands for a process.
struct Process(Option<Runtime>);

impl Process {
    fn start() -> Self {
        Self(Some(Runtime::new().expect("the operating system has room for a few threads")))
    }

    fn run<T>(&self, start: impl Future<Output = T>) -> T {
        let runtime = self.0.as_ref().expect("it is there until it is dropped");
        block_in_place(|| runtime.block_on(start))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let runtime = self.0.take();
        block_in_place(|| drop(runtime));
    }
}

/// The text in at most [`TOKENS_MAX`] pieces of whole words; together they are the text to the last byte.
fn tokens(text: &str) -> Vec<&str> {
    let words: Vec<&str> = text.split_inclusive(char::is_whitespace).collect();
    let mut at = 0;
    let mut token = |words: &[&str]| {
        let from = at;
        at += words.iter().map(|word| word.len()).sum::<usize>();
        &text[from..at]
    };
    words.chunks(words.len().div_ceil(TOKENS_MAX)).map(&mut token).collect()
}

/// The text that the arguments ask for, or what is wrong with them.
fn text_of(mut arguments: impl Iterator<Item = OsString>) -> Result<String, String> {
    let Some(first) = arguments.next() else { return Ok(TEXT.to_owned()) };
    let (source, bytes) = if first == "--file" {
        let path = arguments.next().ok_or("--file needs a PATH")?;
        let source = path.display().to_string();
        let mut bytes = Vec::new();
        // One byte more than allowed tells what is too long, however long it is.
        let read =
            File::open(&path).and_then(|file| file.take(TEXT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
        read.map_err(|error| format!("cannot read {source}: {error}"))?;
        (source, bytes)
    } else if first.as_encoded_bytes().starts_with(b"--") {
        return Err(format!("unknown option {}", first.display()));
    } else {
        ("TEXT".to_owned(), first.into_encoded_bytes())
    };
    if let Some(more) = arguments.next() {
        return Err(format!("one text is enough, but {} came too", more.display()));
    }
    if bytes.is_empty() {
        return Err(format!("{source} is empty"));
    }
    if bytes.len() > TEXT_BYTES_MAX {
        return Err(format!("{source} is longer than {TEXT_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| format!("{source} is not UTF-8: {error}"))
}

/// An instance as people call it.
fn name(instance: &Instance) -> &str {
    instance.record().labels.value("name").unwrap_or("a stranger")
}

/// Prints who did what, and when.
#[derive(Clone, Copy)]
struct Story {
    began: Instant,
}

impl Story {
    fn tell(self, who: &str, what: impl Display) {
        let seconds = self.began.elapsed().as_secs_f32();
        // When nobody reads any more, the work goes on all the same.
        let _ = writeln!(std::io::stdout(), "{seconds:6.3} s  {who:<7} {what}");
    }
}
