use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use slipring_core::{BoxFuture, Effect, Environment, EnvironmentExt, Error, Result, Task};
use tokio::sync::{Mutex, oneshot};
use tokio::time::{sleep, timeout};
use tonic::transport::Endpoint;
use tower::service_fn;

use crate::Config;
use crate::dialer::Dialer;
use crate::error::{ETCD, error_of};

/// A connection for one purpose, made when it is first needed and made anew when it was given up.
pub(crate) struct Connection {
    purpose: Purpose,
    config: Arc<Config>,
    environment: Arc<dyn Environment>,
    channels: Channels,
    current: Mutex<Option<Arc<Link>>>,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Calls and watches.
    Calls,
    /// Heartbeats: it lives where no busy pool can starve it.
    Heartbeats,
}

/// Where channels come from.
#[derive(Clone)]
pub(crate) enum Channels {
    Dialled(Dialer),
    #[cfg_attr(not(feature = "_channel"), expect(dead_code, reason = "only a simulation gives a channel"))]
    Given(Channel),
}

/// One channel and the client on it. Whoever uses it holds it, so that giving it up disturbs nobody.
pub(crate) struct Link {
    pub(crate) client: Client,
    /// Where the channel's own tasks live; none for a channel that was given.
    task: Option<Task>,
}

impl Connection {
    pub(crate) fn new(
        purpose: Purpose,
        config: Arc<Config>,
        environment: Arc<dyn Environment>,
        channels: Channels,
    ) -> Self {
        Self { purpose, config, environment, channels, current: Mutex::default() }
    }

    /// The link, made if there is none. Nothing is dialled yet, except to prove who we are.
    ///
    /// # Errors
    /// `Unauthorized`, or `Unavailable` with effect none.
    pub(crate) async fn link(&self) -> Result<Arc<Link>> {
        let mut current = self.current.lock().await;
        if let Some(link) = &*current
            && !link.task.as_ref().is_some_and(Task::is_finished)
        {
            return Ok(link.clone());
        }
        let (channel, task) = match &self.channels {
            Channels::Given(channel) => (channel.clone(), None),
            Channels::Dialled(dialer) => {
                let (channel, task) = self.open(dialer).await?;
                (channel, Some(task))
            }
        };
        let mut options = ConnectOptions::new().with_require_leader(true);
        if let (Some(user), Some(password)) = (&self.config.user, &self.config.password) {
            options = options.with_user(user, password.expose());
            options = options.with_auto_token_refresh(true);
        }
        // Credentials are sent here, perhaps to a server that is hung.
        let unanswered = Unanswered::new(|| self.skip());
        let client = Client::from_channel(channel, Some(options)).await;
        unanswered.answered();
        let client = client.map_err(|error| error_of(&error, Effect::None))?;
        let link = Arc::new(Link { client, task });
        Ok(current.insert(link).clone())
    }

    /// A call, bounded by `call_timeout`. A server that leaves one unanswered is given up: the next call
    /// dials another. `sent` is the effect of a request that may have left.
    ///
    /// # Errors
    /// `Unavailable`, and what [`error_of`] knows.
    pub(crate) async fn call<T, F>(
        &self,
        sent: Effect,
        request: impl FnOnce(Client) -> F,
    ) -> Result<Result<T, etcd_client::Error>>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let mut used = None;
        let call = async {
            let link = used.insert(self.link().await?);
            Ok(request(link.client.clone()).await)
        };
        let after = self.config.call_timeout;
        let answer = timeout(after, call).await;
        match (answer, used) {
            (Ok(answer), Some(link)) => {
                if answer.as_ref().is_ok_and(|answer| is_leaderless(answer.as_ref().err())) {
                    self.give_up(&link);
                }
                answer
            }
            (Ok(answer), None) => answer,
            (Err(_), Some(link)) => {
                self.give_up(&link);
                Err(Error::unavailable(ETCD, no_answer(after), sent))
            }
            (Err(_), None) => Err(Error::unavailable(ETCD, no_answer(after), Effect::None)),
        }
    }

    /// The next call makes another link, to the next server. Whoever uses this one may go on.
    pub(crate) fn give_up(&self, link: &Arc<Link>) {
        // If the lock is held, another is being made this very moment.
        if let Ok(mut current) = self.current.try_lock()
            && current.as_ref().is_some_and(|current| Arc::ptr_eq(current, link))
        {
            *current = None;
            self.skip();
        }
    }

    fn skip(&self) {
        if let Channels::Dialled(dialer) = &self.channels {
            dialer.skip();
        }
    }

    /// A channel, made in a task of its own: what the channel starts, it starts where it was made.
    async fn open(&self, dialer: &Dialer) -> Result<(Channel, Task)> {
        let scheme = if self.config.tls.is_some() { "https" } else { "http" };
        let uri = format!("{scheme}://{}", self.config.endpoints[0]);
        let endpoint = Endpoint::from_shared(uri)
            .map_err(|error| Error::invalid("etcd endpoint", &self.config.endpoints[0], error.to_string()))?
            .http2_keep_alive_interval(self.config.keep_alive_interval)
            .keep_alive_timeout(self.config.keep_alive_timeout)
            // What is idle is asked instead, see `until_silent`.
            .keep_alive_while_idle(false)
            .executor(Tasks(self.environment.clone()));
        let (dialer, config) = (dialer.clone(), self.config.clone());
        let dial = dialer.clone();
        let connector = service_fn(move |_| {
            let dialer = dial.clone();
            async move { dialer.dial().await.map(TokioIo::new) }
        });
        let (give, given) = oneshot::channel();
        let live = move || -> BoxFuture<'static, ()> {
            Box::pin(async move {
                let channel = endpoint.connect_with_connector_lazy(connector);
                // Nobody waits for it any more: then nobody uses it.
                let _ = give.send(Channel::Tonic(channel.clone()));
                until_silent(Channel::Tonic(channel), &config).await;
                dialer.skip();
            })
        };
        let task = match self.purpose {
            Purpose::Calls => self.environment.spawn("etcd connection", live()),
            Purpose::Heartbeats => self.environment.spawn_vital("etcd heartbeats", Box::new(live)),
        };
        let gone = |_| Error::unavailable(ETCD, "the task of the connection has ended", Effect::None);
        Ok((given.await.map_err(gone)?, task))
    }
}

/// Asks a server for a sign of life again and again; resolves when one is missing.
///
/// A ping would be cheaper, but etcd takes pings on a connection on which nothing is open for an attack: the
/// fourth ends the connection, also if they are half a minute apart.
async fn until_silent(channel: Channel, config: &Config) {
    // How a server is may be asked by anybody.
    let Ok(mut client) = Client::from_channel(channel, None).await else { return };
    loop {
        sleep(config.keep_alive_interval).await;
        let Ok(Ok(_)) = timeout(config.keep_alive_timeout, client.status()).await else { return };
    }
}

/// A question that is asked outside of [`Connection::call`], with a bound of its asker's own. Dropped without
/// an answer, it does what has to be done then.
pub(crate) struct Unanswered<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Unanswered<F> {
    pub(crate) fn new(otherwise: F) -> Self {
        Self(Some(otherwise))
    }

    /// There was an answer, whatever it was.
    pub(crate) fn answered(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for Unanswered<F> {
    fn drop(&mut self) {
        if let Some(otherwise) = self.0.take() {
            otherwise();
        }
    }
}

/// A member without a leader cannot serve; another one perhaps can.
fn is_leaderless(error: Option<&etcd_client::Error>) -> bool {
    matches!(error, Some(etcd_client::Error::GRpcStatus(status)) if status.message().contains("no leader"))
}

pub(crate) fn no_answer(after: Duration) -> String {
    format!("no answer within {after:?}")
}

/// Runs what a channel needs to have run: its queue of requests, and its connections.
#[derive(Debug)]
struct Tasks(Arc<dyn Environment>);

impl Executor<BoxFuture<'static, ()>> for Tasks {
    fn execute(&self, task: BoxFuture<'static, ()>) {
        // It ends with the last handle of the channel.
        self.0.start("etcd channel", task).detach();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("purpose", &self.purpose).finish_non_exhaustive()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("task", &self.task).finish_non_exhaustive()
    }
}
