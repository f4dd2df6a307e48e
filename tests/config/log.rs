use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};

use tracing::Level;

/// Everything that any crate logs in this process, at any level.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Captures from now on.
    pub(crate) fn capture() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        let log = LOG.get_or_init(|| {
            let (log, everything) = (Self::default(), tracing_subscriber::fmt().with_max_level(Level::TRACE));
            let written = log.clone();
            everything.with_ansi(false).with_writer(move || written.clone()).init();
            log
        });
        log.clone()
    }

    /// What was logged so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
