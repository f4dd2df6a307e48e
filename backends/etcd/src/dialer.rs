use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use slipring_core::{ByteStream, Effect, Environment, Error, Result};
use tokio::time::{Instant, timeout};

use crate::Config;
use crate::tls::Tls;

/// The first pause after a round in which no server could be dialled.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The longest pause.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Dials the servers of a cluster in rotation, beginning with the last that was good.
///
/// When a round has failed, the next is not begun before a pause has passed; until then dialling fails at
/// once, so that whoever tries in a loop does not spin: a closed port refuses in less than a millisecond.
#[derive(Clone)]
pub(crate) struct Dialer(Arc<Shared>);

struct Shared {
    endpoints: Vec<String>,
    connect_timeout: Duration,
    tls: Option<Tls>,
    environment: Arc<dyn Environment>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Where the next round begins.
    next: usize,
    /// Rounds that failed since one succeeded.
    failed_rounds: u32,
    /// When the next round may begin, and why the last one failed.
    pause: Option<(Instant, String)>,
}

impl Dialer {
    pub(crate) fn new(config: &Config, environment: Arc<dyn Environment>) -> Result<Self> {
        Ok(Self(Arc::new(Shared {
            endpoints: config.endpoints.clone(),
            connect_timeout: config.connect_timeout,
            tls: config.tls.as_ref().map(Tls::new).transpose()?,
            environment,
            state: Mutex::default(),
        })))
    }

    /// A connection to the first server that can be reached.
    ///
    /// # Errors
    /// `Unavailable` with effect none.
    pub(crate) async fn dial(&self) -> Result<Box<dyn ByteStream>> {
        let first = {
            let state = self.state();
            match &state.pause {
                Some((until, problem)) if Instant::now() < *until => {
                    return Err(self.unavailable(format!("{problem} (to be dialled again soon)")));
                }
                _ => state.next,
            }
        };
        let mut problems = Vec::new();
        let count = self.0.endpoints.len();
        for index in (0..count).map(|offset| (first + offset) % count) {
            match self.dial_one(&self.0.endpoints[index]).await {
                Ok(stream) => {
                    *self.state() = State { next: index, ..State::default() };
                    return Ok(stream);
                }
                Err(error) => problems.push(error.to_string()),
            }
        }
        let problem = problems.join("; ");
        let random = self.0.environment.random("etcd backoff");
        let mut state = self.state();
        let pause = jittered(BACKOFF_MIN * 2u32.pow(state.failed_rounds.min(10)), random);
        state.failed_rounds += 1;
        state.pause = Some((Instant::now() + pause, problem.clone()));
        Err(self.unavailable(problem))
    }

    /// The server that was dialled last does not answer: the next round begins with the one after it.
    pub(crate) fn skip(&self) {
        let mut state = self.state();
        state.next = (state.next + 1) % self.0.endpoints.len();
    }

    async fn dial_one(&self, endpoint: &str) -> Result<Box<dyn ByteStream>> {
        let dial = async {
            let stream = self.0.environment.connect(endpoint).await?;
            match &self.0.tls {
                None => Ok(stream),
                Some(tls) => tls.wrap(endpoint, stream).await,
            }
        };
        let after = self.0.connect_timeout;
        timeout(after, dial).await.unwrap_or_else(|_| {
            Err(Error::unavailable(endpoint, format!("no connection after {after:?}"), Effect::None))
        })
    }

    fn unavailable(&self, problem: String) -> Error {
        Error::unavailable("etcd", problem, Effect::None)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Half of the pause (at most [`BACKOFF_MAX`]) and a random part of the other half, so that those who failed
/// together do not come back together.
pub(crate) fn jittered(pause: Duration, random: u64) -> Duration {
    let half = pause.min(BACKOFF_MAX) / 2;
    half + half.mul_f64(random as f64 / u64::MAX as f64)
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("endpoints", &self.0.endpoints).finish_non_exhaustive()
    }
}
