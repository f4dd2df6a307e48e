//! What the thread of a test logs.

use std::io;

use tracing::Level;
use tracing::subscriber::DefaultGuard;

use super::*;

/// Everything that this thread logs until it is dropped.
pub(super) struct Log {
    written: Written,
    _guard: DefaultGuard,
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(super) fn capture() -> Self {
        let written = Written::default();
        let into = written.clone();
        let subscriber = tracing_subscriber::fmt().with_max_level(Level::TRACE).with_ansi(false);
        let subscriber = subscriber.with_writer(move || into.clone()).finish();
        Self { written, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// The lines with these words.
    pub(super) fn lines(&self, words: &str) -> Vec<String> {
        let written = self.written.0.lock().unwrap();
        let text = String::from_utf8_lossy(&written);
        text.lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
    }

    /// The end of a link is told in one line: a warning if somebody is at fault.
    pub(super) fn tells_once(&self, reason: CloseReason) {
        let lines = self.lines("a link was closed");
        let [line] = &lines[..] else { panic!("not told once: {lines:?}") };
        assert!(line.contains(&format!("reason=\"{}\"", reason.code())), "{line}");
        assert!(line.contains(&reason.to_string()), "{line}");
        assert_eq!(line.contains("WARN"), reason.is_fault(), "{line}");
    }
}

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
