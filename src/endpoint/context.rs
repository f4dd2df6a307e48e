use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use slipring_core::{Environment, Error, Headers, Result, reject_at};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::name::EndpointPath;
use crate::plane::wire;

/// What a handler knows about the request that it works on. Cheap to clone; clones see the same cancellation.
#[derive(Debug, Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    endpoint: Arc<EndpointPath>,
    instance: u64,
    deadline: Instant,
    cancelled: AtomicBool,
    /// For those who wait for it, made for the first of them.
    cancel: OnceLock<CancellationToken>,
    metadata: Metadata,
}

/// What travels along with a request: the user's metadata and the trace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) entries: BTreeMap<String, String>,
    pub(crate) trace: Option<TraceContext>,
}

impl Context {
    pub(crate) fn new(
        endpoint: Arc<EndpointPath>,
        instance: u64,
        deadline: Instant,
        metadata: Metadata,
    ) -> Self {
        let (cancelled, cancel) = (AtomicBool::new(false), OnceLock::new());
        Self { inner: Arc::new(Inner { endpoint, instance, deadline, cancelled, cancel, metadata }) }
    }

    /// The request is given up: those who wait for that are told.
    pub(crate) fn cancel(&self) {
        self.inner.cancelled.store(true, Ordering::SeqCst);
        if let Some(token) = self.inner.cancel.get() {
            token.cancel();
        }
    }

    /// The endpoint that was called.
    pub fn endpoint(&self) -> &EndpointPath {
        &self.inner.endpoint
    }

    /// The instance that works on it.
    pub fn instance(&self) -> u64 {
        self.inner.instance
    }

    /// When the caller stops waiting.
    pub fn deadline(&self) -> Instant {
        self.inner.deadline
    }

    /// What is left until the deadline; zero past it.
    pub fn remaining(&self) -> Duration {
        self.inner.deadline.saturating_duration_since(Instant::now())
    }

    /// Resolves when the request is given up: the caller dropped it, its deadline passed, or the endpoint was
    /// stopped and did not wait any longer. The handler's own future is dropped then; this is for tasks that
    /// it started.
    pub fn cancelled(&self) -> WaitForCancellationFuture<'_> {
        let token = self.inner.cancel.get_or_init(CancellationToken::new);
        // It may have happened while there was no token to tell.
        if self.is_cancelled() {
            token.cancel();
        }
        token.cancelled()
    }

    /// Was the request given up?
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancelled.load(Ordering::SeqCst)
    }

    /// A piece of the caller's metadata.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.inner.metadata.entries.get(name).map(String::as_str)
    }

    /// The trace that the caller is part of.
    pub fn trace(&self) -> Option<&TraceContext> {
        self.inner.metadata.trace.as_ref()
    }

    pub(crate) fn travelling(&self) -> &Metadata {
        &self.inner.metadata
    }
}

impl Metadata {
    /// The longest name and value, in bytes.
    const BYTES_MAX: usize = 4096;

    pub(crate) fn insert(&mut self, name: String, value: String) -> Result<()> {
        if let Some(over) = [&name, &value].into_iter().find(|text| text.len() > Self::BYTES_MAX) {
            let problem = format!("it has {} bytes; allowed: at most {}", over.len(), Self::BYTES_MAX);
            return Err(Error::invalid("metadata", over.as_str(), problem));
        }
        // The check is that of the headers it will travel in.
        Headers::new().append(format!("{}{name}", wire::METADATA), value.as_str())?;
        self.entries.insert(name, value);
        Ok(())
    }

    pub(crate) fn write(&self, headers: &mut Headers) -> Result<()> {
        for (name, value) in &self.entries {
            headers.append(format!("{}{name}", wire::METADATA), value.as_str())?;
        }
        if let Some(trace) = &self.trace {
            headers.append(wire::TRACEPARENT, trace.parent.as_str())?;
            if !trace.state.is_empty() {
                headers.append(wire::TRACESTATE, trace.state.as_str())?;
            }
        }
        Ok(())
    }

    /// Reads what came along. A broken trace context is ignored, as its specification asks.
    pub(crate) fn read(headers: &Headers) -> Self {
        let mut metadata = Self::default();
        for (name, value) in headers.iter() {
            if let Some(name) = name.strip_prefix(wire::METADATA) {
                metadata.entries.insert(name.to_owned(), value.to_owned());
            }
        }
        let parent = headers.first(wire::TRACEPARENT);
        metadata.trace = parent.and_then(|parent| TraceContext::parse(parent).ok()).map(|trace| {
            TraceContext { state: headers.first(wire::TRACESTATE).unwrap_or_default().to_owned(), ..trace }
        });
        metadata
    }
}

/// A W3C trace context (<https://www.w3.org/TR/trace-context/>), version 00.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    parent: String,
    state: String,
}

impl TraceContext {
    /// Parses the value of a `traceparent` header.
    ///
    /// # Errors
    /// `Invalid` with the position if it is not `00-<32 hex>-<16 hex>-<2 hex>` in lower case with non-zero ids.
    pub fn parse(parent: &str) -> Result<Self> {
        let allowed = "allowed: 00-<32 lower-case hex digits>-<16>-<2>";
        let shape = |at: usize| match at {
            0 | 1 => "0",
            2 | 35 | 52 => "-",
            _ => "0123456789abcdef",
        };
        let wrong = parent.char_indices().find(|(at, c)| *at >= 55 || !shape(*at).contains(*c));
        if let Some((position, _)) = wrong.or((parent.len() < 55).then_some((parent.len(), ' '))) {
            return Err(reject_at("traceparent", parent, position, allowed));
        }
        for (what, id, at) in [("trace id", &parent[3..35], 3), ("parent id", &parent[36..52], 36)] {
            if id.bytes().all(|digit| digit == b'0') {
                return Err(reject_at("traceparent", parent, at, format!("the {what} is zero; {allowed}")));
            }
        }
        Ok(Self { parent: parent.to_owned(), state: String::new() })
    }

    /// A new trace, sampled.
    pub fn start(environment: &dyn Environment) -> Self {
        let [high, low, span] = std::array::from_fn(|_| environment.random("trace").max(1));
        Self { parent: format!("00-{high:016x}{low:016x}-{span:016x}-01"), state: String::new() }
    }

    /// With vendors' state, which travels along unread.
    ///
    /// # Errors
    /// `Invalid` if it could not travel in a header.
    pub fn with_state(mut self, state: impl Into<String>) -> Result<Self> {
        self.state = state.into();
        Headers::new().append(wire::TRACESTATE, self.state.as_str())?;
        Ok(self)
    }

    /// The next hop of the same trace.
    pub(crate) fn hop(&self, environment: &dyn Environment) -> Self {
        let span = environment.random("trace").max(1);
        let parent = format!("{}{span:016x}{}", &self.parent[..36], &self.parent[52..]);
        Self { parent, state: self.state.clone() }
    }

    /// The trace's id: 32 hex digits, the same at every hop.
    pub fn trace_id(&self) -> &str {
        &self.parent[3..35]
    }

    /// The state, as it came.
    pub fn state(&self) -> &str {
        &self.state
    }
}

/// As in a `traceparent` header.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Trace contexts are checked to the letter, with the place of what is wrong.
    #[test]
    fn traceparents_are_checked() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(TraceContext::parse(good).unwrap().trace_id(), &good[3..35]);
        let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        for (bad, at) in
            [("", 0), ("01-", 1), (zero, 3), (&good[..54], 54), (&format!("{good}0"), 55), ("00-é", 3)]
        {
            let Err(Error::Invalid { position, .. }) = TraceContext::parse(bad) else { panic!("{bad}") };
            assert_eq!(position, Some(at), "{bad}");
        }
    }

    /// What travels along arrives, and nothing else.
    #[test]
    fn metadata_travels_in_headers() {
        let mut sent = Metadata::default();
        sent.insert("tenant".to_owned(), "blue é".to_owned()).unwrap();
        assert!(sent.insert("a b".to_owned(), String::new()).is_err());
        assert!(sent.insert("a".to_owned(), "x\ny".to_owned()).is_err());
        let trace = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        sent.trace = Some(trace.with_state("vendor=1").unwrap());
        let mut headers = Headers::new();
        headers.append("Other", "1").unwrap();
        sent.write(&mut headers).unwrap();
        assert_eq!(Metadata::read(&headers), sent);
    }
}
