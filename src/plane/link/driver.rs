use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

use super::frame::{HEAD_BYTES, Kind};
use super::intake::{ACCUSED, Intake};
use super::reason::CloseReason;
use super::shared::Shared;
use crate::plane::tls::fault_of;

/// A read has this room at first, and when nothing came for long; it grows with what comes.
const READ_BYTES_MIN: usize = 4 * 1024;
const READ_BYTES_MAX: usize = 128 * 1024;
/// So many reads, then others have their turn.
const READS_MAX: usize = 4;
/// With more streams than this, those who may have something to say come first, so that it goes out at once.
const EAGER_STREAMS_MAX: usize = 2;

/// The task of a link: it reads, delivers, writes what others did not, and watches the clock.
pub(super) struct Driver {
    shared: Arc<Shared>,
    intake: Intake,
    /// How much room the next read has.
    read_bytes: usize,
    sleep: Pin<Box<Sleep>>,
    /// When anything was heard last, or was first to be expected.
    heard: Instant,
    /// When a stream was last seen open.
    busy: Instant,
    /// When the peer was pinged, if it was not heard since.
    pinged: Option<Instant>,
    /// When the frame began to arrive that is not whole.
    partial: Option<Instant>,
    /// When the last stream ended after this end had gone away.
    emptied: Option<Instant>,
    /// This end went away because no stream had been open for long.
    idle: bool,
    /// Others had their turn; now it is written.
    yielded: bool,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        Self {
            sleep: Box::pin(sleep_until(now + shared.local.limits.ping_after)),
            shared,
            intake: Intake::default(),
            read_bytes: READ_BYTES_MIN,
            heard: now,
            busy: now,
            pinged: None,
            partial: None,
            emptied: None,
            idle: false,
            yielded: false,
        }
    }

    /// Drives the link until it is closed.
    pub(super) async fn run(mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        #[cfg(test)]
        self.shared.polled();
        match self.step(cx) {
            Ok(()) => Poll::Pending,
            Err(reason) => {
                self.part(reason, cx);
                Poll::Ready(())
            }
        }
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        self.begin()?;
        self.read(cx)?;
        self.look_at_the_clock(cx)?;
        loop {
            if self.lets_others_go_first() {
                cx.waker().wake_by_ref();
                return Ok(());
            }
            let drained = self.shared.wire().poll_drain(&self.shared, cx);
            if let Poll::Ready(Err(error)) = drained {
                tracing::debug!(%error, "writing failed");
                return Err(CloseReason::Cut);
            }
            if self.rest(cx, drained.is_pending())? {
                return Ok(());
            }
        }
    }

    fn begin(&mut self) -> Result<(), CloseReason> {
        let mut streams = self.shared.streams();
        streams.awake = true;
        if let Some(reason) = streams.closing {
            return Err(reason);
        }
        Ok(())
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        for _ in 0..READS_MAX {
            self.intake.input.reserve(self.read_bytes);
            let room = self.intake.input.capacity() - self.intake.input.len();
            let read = self.shared.wire().poll_read(cx, &mut self.intake.input);
            let n = match read {
                Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "reading failed");
                    if fault_of(&error).is_some() {
                        return Err(CloseReason::Tampered);
                    }
                    return Err(self.ended(error.kind() != io::ErrorKind::UnexpectedEof));
                }
                Poll::Ready(Ok(0)) => return Err(self.ended(false)),
                Poll::Ready(Ok(n)) => n,
            };
            self.shared.received(n);
            self.heard = Instant::now();
            self.pinged = None;
            if n == room {
                self.read_bytes = (2 * self.read_bytes).min(READ_BYTES_MAX);
            }
            let before = self.intake.input.len();
            self.intake.take(&self.shared)?;
            if self.intake.input.is_empty() {
                self.partial = None;
            } else if self.intake.input.len() < before || self.partial.is_none() {
                self.partial = Some(self.heard);
                self.sleep_at_most_until(self.heard + self.shared.local.limits.frame_within, cx);
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// The connection ended or broke. Where nothing was left to be said, that is how it should be, even if the
    /// peer's last word, that it lets go, was lost.
    fn ended(&self, broke: bool) -> CloseReason {
        match (self.shared.streams().is_drained(), broke, self.intake.input.is_empty()) {
            (true, _, _) => CloseReason::Drained,
            (false, true, _) => CloseReason::Cut,
            (false, false, true) => CloseReason::PeerClosed,
            (false, false, false) => CloseReason::Truncated,
        }
    }

    /// With many streams open it pays to let those go first, once, that were just woken: what they say goes out
    /// together.
    fn lets_others_go_first(&mut self) -> bool {
        if std::mem::take(&mut self.yielded) {
            return false;
        }
        let streams = self.shared.streams();
        let many = streams.open() > EAGER_STREAMS_MAX;
        self.yielded = many && !(streams.batch.is_empty() && streams.bodies.is_empty());
        self.yielded
    }

    /// All that could be done was done; false if there is something new.
    fn rest(&mut self, cx: &mut Context<'_>, blocked: bool) -> Result<bool, CloseReason> {
        let shared = self.shared.clone();
        let mut streams = shared.streams();
        if let Some(reason) = streams.closing {
            return Err(reason);
        }
        if streams.is_drained() && streams.batch.is_empty() && !blocked {
            return Err(CloseReason::Drained);
        }
        if streams.peer_gone && streams.open() == 0 && streams.gone_away.is_none() {
            drop(streams);
            // The peer may now close the link: nothing of ours is on its way.
            shared.go_away();
            return Ok(false);
        }
        if streams.is_unread(&shared.local.limits) {
            return Err(CloseReason::Unread);
        }
        if std::mem::take(&mut streams.wakes_sooner)
            && let Some(at) = streams.wakes_at
        {
            self.sleep_at_most_until(at, cx);
        }
        if streams.open() > 0 {
            self.emptied = None;
            if std::mem::take(&mut streams.dozing) {
                self.heard = Instant::now();
                self.sleep_at_most_until(self.heard + shared.local.limits.ping_after, cx);
            }
        } else {
            shared.emptied.notify_waiters();
            if streams.gone_away.is_some() && self.emptied.is_none() {
                let now = Instant::now();
                self.emptied = Some(now);
                self.sleep_at_most_until(now + shared.local.limits.pong_within, cx);
            }
        }
        if !streams.batch.is_empty() && !blocked {
            return Ok(false);
        }
        // While the connection takes no more, it wakes this task when it does; nobody else has to.
        streams.awake = blocked;
        match &mut streams.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Ok(true)
    }

    fn sleep_at_most_until(&mut self, until: Instant, cx: &mut Context<'_>) {
        if until < self.sleep.deadline() {
            self.sleep.as_mut().reset(until);
            // The clock is looked at anew, and with it asked to wake this task.
            cx.waker().wake_by_ref();
        }
    }

    fn look_at_the_clock(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        while self.sleep.as_mut().poll(cx).is_ready() {
            let next = self.tick(Instant::now())?;
            self.sleep.as_mut().reset(next);
        }
        Ok(())
    }

    /// Does what is due; returns when something may be due next.
    fn tick(&mut self, now: Instant) -> Result<Instant, CloseReason> {
        let limits = self.shared.local.limits;
        let mut streams = self.shared.streams();
        let open = streams.open() > 0;
        streams.dozing = !open;
        let (due_now, wakes_at) = (streams.due(now), streams.wakes_at);
        drop(streams);
        due_now.iter().for_each(|sink| sink.wake());
        let mut next = now + limits.idle_timeout.max(limits.ping_after);
        next = next.min(wakes_at.unwrap_or(next));
        if let Some(since) = self.partial {
            next = next.min(due(now, since + limits.frame_within, CloseReason::Stalled)?);
        }
        if let Some(since) = self.pinged {
            next = next.min(due(now, since + limits.pong_within, CloseReason::Silent)?);
        }
        if let Some(since) = self.emptied.filter(|_| !open) {
            next = next.min(due(now, since + limits.pong_within, CloseReason::Drained)?);
        }
        if open {
            self.busy = now;
            let ping_at = self.heard + limits.ping_after;
            return Ok(next.min(if self.pinged.is_some() { next } else { self.ping_if_due(now, ping_at) }));
        }
        self.intake.shrink();
        self.read_bytes = READ_BYTES_MIN;
        self.shared.wire().shrink();
        let idle_at = self.heard.max(self.busy) + limits.idle_timeout;
        if self.emptied.is_some() || self.pinged.is_some() {
            return Ok(next);
        }
        if !self.shared.dialler {
            // The dialler closes idle links; whether it is still there at all is asked now and then.
            return Ok(next.min(self.ping_if_due(now, idle_at + limits.idle_timeout)));
        }
        if now < idle_at {
            return Ok(next.min(idle_at));
        }
        self.idle = true;
        self.shared.go_away();
        Ok(next)
    }

    /// Pings the peer if it is time to; returns when to look again.
    fn ping_if_due(&mut self, now: Instant, at: Instant) -> Instant {
        if now < at {
            return at;
        }
        self.pinged = Some(now);
        let mut streams = self.shared.streams();
        streams.totals.pings_sent += 1;
        let number = streams.totals.pings_sent;
        streams.batch.head(Kind::Ping, 0, 0, 8);
        streams.batch.part(&number.to_le_bytes());
        self.shared.send(streams);
        now + self.shared.local.limits.pong_within
    }

    /// Says why, as far as that is possible, and lets the connection go.
    fn part(&mut self, reason: CloseReason, cx: &mut Context<'_>) {
        let idle = self.idle && reason == CloseReason::Drained;
        let reason = if idle { CloseReason::Idle } else { reason };
        let mut streams = self.shared.streams();
        streams.closing.get_or_insert(reason);
        let code = match reason {
            CloseReason::Violation(_) => Some(ACCUSED),
            CloseReason::Cut | CloseReason::PeerClosed | CloseReason::Truncated => None,
            _ => Some(0),
        };
        if let Some(code) = code {
            streams.batch.head(Kind::Close, 0, 0, 1);
            streams.batch.part(&[code]);
        }
        drop(streams);
        if code.is_some() {
            self.shared.wire().part(&self.shared, cx);
        }
        self.shared.finish(reason);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.finish(CloseReason::Abandoned);
    }
}

fn due(now: Instant, at: Instant, reason: CloseReason) -> Result<Instant, CloseReason> {
    if now >= at { Err(reason) } else { Ok(at) }
}

const _: () = assert!(READ_BYTES_MIN >= HEAD_BYTES);
