use std::collections::{BTreeMap, VecDeque};
use std::mem;

use etcd_client::EventType;
use etcd_client::proto::{PbEvent, PbWatchRequest, PbWatchRequestUnion, PbWatchResponse, PbWatchService};
use futures_util::FutureExt;
use futures_util::stream::{self, BoxStream, StreamExt};
use prost::Message;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::Etcd;
use crate::lease::until;
use crate::server::header;
use crate::versions::{Event, Span, Versions};

/// How many revisions go into one message at most.
const REVISIONS_MAX: usize = 1000;
/// How large a message grows before it is split, in bytes, if its watch allows that.
const FRAGMENT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The watch that answers name which are about no watch.
const NO_WATCH: i64 = -1;
/// The numbers of `FilterType`.
const NO_PUT: i32 = 0;
const NO_DELETE: i32 = 1;

#[async_trait]
impl PbWatchService for Etcd {
    type WatchStream = BoxStream<'static, Result<PbWatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<PbWatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let watches = Watches {
            etcd: self.clone(),
            requests: request.into_inner(),
            watches: BTreeMap::new(),
            next_id: 0,
            answers: VecDeque::new(),
        };
        let answers = stream::try_unfold(watches, |mut watches| async move {
            let answer = watches.next().await?;
            Ok(answer.map(|answer| (answer, watches)))
        });
        Ok(Response::new(answers.boxed()))
    }
}

/// The watches of one stream.
struct Watches {
    etcd: Etcd,
    requests: Streaming<PbWatchRequest>,
    watches: BTreeMap<i64, Watch>,
    next_id: i64,
    /// What is to be sent next.
    answers: VecDeque<PbWatchResponse>,
}

/// One watch: a place in the history.
#[derive(Debug)]
struct Watch {
    span: Span,
    /// All before this revision was sent.
    next: i64,
    puts: bool,
    deletions: bool,
    with_before: bool,
    fragments: bool,
}

impl Watches {
    /// The next message; none when the client has closed its side.
    async fn next(&mut self) -> Result<Option<PbWatchResponse>, Status> {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Ok(Some(answer));
            }
            // Before events: what is asked for now is answered before what happened before. So does etcd, with
            // the answers to requests for progress.
            if let Some(request) = self.requests.message().now_or_never() {
                let Some(request) = request? else { return Ok(None) };
                self.handle(request);
                continue;
            }
            let etcd = self.etcd.clone();
            let changed = etcd.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (events, due) = etcd.shared.with_deadline(|step| collect(&mut self.watches, step.versions));
            self.answers.extend(events);
            if !self.answers.is_empty() {
                continue;
            }
            tokio::select! {
                biased;
                request = self.requests.message() => {
                    let Some(request) = request? else { return Ok(None) };
                    self.handle(request);
                }
                () = changed => {}
                () = until(due) => {}
            }
        }
    }

    fn handle(&mut self, request: PbWatchRequest) {
        let head = self.etcd.shared.step(|step| step.versions.head());
        let about = |watch_id| PbWatchResponse { header: Some(header(head)), watch_id, ..Default::default() };
        match request.request_union {
            Some(PbWatchRequestUnion::CreateRequest(mut request)) => {
                if request.key.is_empty() {
                    request.key = vec![0];
                }
                let span = Span::new(request.key, request.range_end);
                let refuse = |reason: &str| PbWatchResponse {
                    created: true,
                    canceled: true,
                    cancel_reason: reason.to_owned(),
                    ..about(NO_WATCH)
                };
                if span.is_empty() {
                    return self.answers.push_back(refuse("mvcc: watcher range is empty"));
                }
                if self.watches.contains_key(&request.watch_id) && request.watch_id != 0 {
                    let reason = "mvcc: duplicate watch ID provided on the WatchStream";
                    return self.answers.push_back(refuse(reason));
                }
                let watch = Watch {
                    span,
                    next: if request.start_revision == 0 { head + 1 } else { request.start_revision },
                    puts: !request.filters.contains(&NO_PUT),
                    deletions: !request.filters.contains(&NO_DELETE),
                    with_before: request.prev_kv,
                    fragments: request.fragment,
                };
                let id = if request.watch_id == 0 { self.free_id() } else { request.watch_id };
                self.watches.insert(id, watch);
                self.answers.push_back(PbWatchResponse { created: true, ..about(id) });
            }
            Some(PbWatchRequestUnion::CancelRequest(request)) => {
                // One that is unknown is not answered.
                let known = self.watches.remove(&request.watch_id);
                let answer = PbWatchResponse { canceled: true, ..about(request.watch_id) };
                self.answers.extend(known.map(|_| answer));
            }
            Some(PbWatchRequestUnion::ProgressRequest(_)) => self.answers.push_back(about(NO_WATCH)),
            None => {}
        }
    }

    fn free_id(&mut self) -> i64 {
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }
}

/// What the watches were not sent yet. Those that are too far behind are ended.
fn collect(watches: &mut BTreeMap<i64, Watch>, versions: &Versions) -> Vec<PbWatchResponse> {
    let mut answers = Vec::new();
    watches.retain(|id, watch| {
        let compacted = watch.next < versions.compacted();
        if compacted {
            answers.push(PbWatchResponse {
                header: Some(header(0)),
                watch_id: *id,
                canceled: true,
                compact_revision: versions.compacted(),
                ..Default::default()
            });
        } else {
            answers.extend(watch.collect(*id, versions));
        }
        !compacted
    });
    answers
}

impl Watch {
    fn collect(&mut self, id: i64, versions: &Versions) -> Vec<PbWatchResponse> {
        let head = versions.head();
        let mut messages = Vec::new();
        while self.next <= head {
            let (mut events, mut revisions, mut behind) = (Vec::new(), 0, head + 1);
            for (at, changes) in versions.events_from(self.next) {
                if revisions == REVISIONS_MAX {
                    behind = at;
                    break;
                }
                let before = events.len();
                events.extend(changes.iter().filter_map(|event| self.show(event)));
                revisions += usize::from(events.len() > before);
            }
            self.next = behind;
            if !events.is_empty() {
                messages.extend(self.fragment(id, head, events));
            }
        }
        messages
    }

    fn show(&self, event: &Event) -> Option<PbEvent> {
        let wanted = if event.is_deletion { self.deletions } else { self.puts };
        (wanted && self.span.contains(&event.kv.key)).then(|| PbEvent {
            r#type: if event.is_deletion { EventType::Delete } else { EventType::Put } as i32,
            kv: Some((*event.kv).clone()),
            prev_kv: event.before.as_deref().filter(|_| self.with_before).cloned(),
        })
    }

    /// One message, or as many as its size takes. A revision may be split between two of them.
    fn fragment(&self, id: i64, head: i64, events: Vec<PbEvent>) -> Vec<PbWatchResponse> {
        let message = |events| PbWatchResponse {
            header: Some(header(head)),
            watch_id: id,
            events,
            ..Default::default()
        };
        if !self.fragments {
            return vec![message(events)];
        }
        let (mut messages, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
        for event in events {
            let size = event.encoded_len();
            if !part.is_empty() && bytes + size >= FRAGMENT_BYTES_MAX {
                messages.push(PbWatchResponse { fragment: true, ..message(mem::take(&mut part)) });
                bytes = 0;
            }
            bytes += size;
            part.push(event);
        }
        messages.push(message(part));
        messages
    }
}
