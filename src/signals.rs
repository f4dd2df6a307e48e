use slipring_core::{Error, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::DistributedRuntime;
use crate::lifecycle::StopReport;

impl DistributedRuntime {
    /// Waits for SIGTERM or SIGINT (or for a stop that began elsewhere), then [stops](Self::stop) in order: a
    /// signal takes the same path as a call. A second signal does not cut it short: every phase is bounded.
    ///
    /// ```no_run
    /// # async fn serve(runtime: slipring::DistributedRuntime) -> slipring::Result<()> {
    /// let report = runtime.run_until_signal().await?;
    /// println!("{report}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Unsupported` if signals cannot be listened for here.
    pub async fn run_until_signal(&self) -> Result<StopReport> {
        let listen = |kind| {
            signal(kind).map_err(|error| Error::unsupported("listening for signals", error.to_string()))
        };
        let (mut terminate, mut interrupt) =
            (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        let mut stopping = self.stopping();
        tokio::select! {
            biased;
            // The runtime lives while this future does.
            _ = stopping.wait_for(|stopping| *stopping) => {}
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
        Ok(self.stop().await)
    }
}
