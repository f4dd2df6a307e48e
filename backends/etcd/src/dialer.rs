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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::SystemTime;

    use slipring_core::{BoxFuture, Listener, Task, async_trait};

    use super::*;

    /// An environment in which only some endpoints exist, and which remembers who was dialled.
    #[derive(Debug, Default)]
    struct Network {
        alive: Mutex<BTreeSet<&'static str>>,
        dialled: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Environment for Network {
        fn wall_time(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH
        }

        fn random(&self, _: &'static str) -> u64 {
            u64::MAX
        }

        async fn listen(&self, _: &str) -> Result<Box<dyn Listener>> {
            unreachable!("a dialler does not listen")
        }

        async fn connect(&self, address: &str) -> Result<Box<dyn ByteStream>> {
            self.dialled.lock().unwrap().push(address.to_owned());
            if address == "hung:1" {
                std::future::pending::<()>().await;
            }
            if self.alive.lock().unwrap().contains(address) {
                return Ok(Box::new(tokio::io::empty()));
            }
            Err(Error::unavailable(address, "refused", Effect::None))
        }

        fn spawn(&self, _: &'static str, _: BoxFuture<'static, ()>) -> Task {
            unreachable!("a dialler starts no task")
        }

        fn spawn_vital(
            &self,
            _: &'static str,
            _: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>,
        ) -> Task {
            unreachable!("a dialler starts no task")
        }
    }

    fn dialer(endpoints: &[&str]) -> (Dialer, Arc<Network>) {
        let network = Arc::new(Network::default());
        (Dialer::new(&Config::new(endpoints.iter().copied()), network.clone()).unwrap(), network)
    }

    fn dialled(network: &Network) -> Vec<String> {
        std::mem::take(&mut network.dialled.lock().unwrap())
    }

    /// A round begins with the last server that was good, and with the next one after it was skipped.
    #[tokio::test(start_paused = true)]
    async fn the_last_good_server_is_dialled_first() {
        let (dialer, network) = dialer(&["a:1", "b:1", "c:1"]);
        network.alive.lock().unwrap().extend(["b:1", "c:1"]);
        dialer.dial().await.unwrap();
        assert_eq!(dialled(&network), ["a:1", "b:1"]);
        dialer.dial().await.unwrap();
        assert_eq!(dialled(&network), ["b:1"]);
        dialer.skip();
        dialer.dial().await.unwrap();
        assert_eq!(dialled(&network), ["c:1"]);
        network.alive.lock().unwrap().remove("c:1");
        dialer.dial().await.unwrap();
        assert_eq!(dialled(&network), ["c:1", "a:1", "b:1"]);
    }

    /// While no server is there, somebody who tries without pause dials once in a pause, which grows to 1 s,
    /// and is refused at once with the reasons; afterwards it begins small again.
    #[tokio::test(start_paused = true)]
    async fn a_dead_port_does_not_spin() {
        let (dialer, network) = dialer(&["a:1", "b:1"]);
        let began = Instant::now();
        let mut rounds = Vec::new();
        while began.elapsed() < Duration::from_secs(10) {
            let error = dialer.dial().await.err().expect("nobody is there");
            assert_eq!(error.effect(), Effect::None);
            assert!(error.to_string().contains("a:1") && error.to_string().contains("b:1"), "{error}");
            if !dialled(&network).is_empty() {
                rounds.push(began.elapsed());
            }
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let pauses: Vec<_> = rounds.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(rounds.len() < 16, "{rounds:?}");
        assert!(pauses.iter().all(|pause| *pause <= BACKOFF_MAX + Duration::from_millis(1)), "{pauses:?}");
        assert!(pauses[0] < Duration::from_millis(60) && pauses.is_sorted(), "{pauses:?}");
        network.alive.lock().unwrap().insert("b:1");
        tokio::time::advance(BACKOFF_MAX).await;
        dialer.dial().await.unwrap();
        network.alive.lock().unwrap().clear();
        dialled(&network);
        dialer.dial().await.err().expect("nobody is there");
        tokio::time::advance(Duration::from_millis(60)).await;
        dialled(&network);
        dialer.dial().await.err().expect("nobody is there");
        assert_eq!(dialled(&network).len(), 2, "the pause began small again");
    }

    /// A server that takes no connection is left after `connect_timeout`.
    #[tokio::test(start_paused = true)]
    async fn a_hung_dial_is_bounded() {
        let (dialer, network) = dialer(&["hung:1", "b:1"]);
        network.alive.lock().unwrap().insert("b:1");
        let began = Instant::now();
        dialer.dial().await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_secs(2));
    }

    /// Those who failed together come back apart, and nobody before half of the pause.
    #[test]
    fn pauses_are_jittered() {
        let second = Duration::from_secs(1);
        assert_eq!(jittered(second, 0), second / 2);
        assert_eq!(jittered(second, u64::MAX), second);
        assert_eq!(jittered(second * 8, u64::MAX), BACKOFF_MAX);
    }
}
