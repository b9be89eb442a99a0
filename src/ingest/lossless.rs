//! Ingest for recordings: every frame that was committed is the next tick, in order and once. There is no clock: a frame is taken when the
//! encoder has room for it, and until then the ring is full and its producer waits.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::watch;

use super::session::Session;
use super::{Command, Counters, TickKind, TickPicture};
use crate::clock::{Anchor, MonotonicTime};
use crate::picture::Picture;
use crate::tick::Tick;

/// How long anything is waited for until commands are looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// No frame is passed over, however many wait.
const EVERY_FRAME: u32 = u32::MAX;
/// How often a recording under way is told of in the log.
const TOLD: Duration = Duration::from_secs(10);

/// Where pictures go.
pub(crate) trait Sink {
    /// Whether it takes any more; once not, never again.
    fn is_open(&self) -> bool;
    /// Whether who takes them is gone, without having been told to stop.
    fn is_dead(&self) -> bool;
    /// Only what was committed comes still.
    fn note_stop(&mut self);
    /// Waits until the next picture may come, for at most `time`; says whether it may.
    fn has_room(&mut self, time: Duration) -> bool;
    /// Takes the next picture.
    fn take(&mut self, picture: TickPicture);
}

/// A recording's ingest, on a thread of its own.
pub(crate) struct LosslessIngest<S> {
    stream: String,
    /// The tick of the next frame.
    next: Tick,
    anchor: Anchor,
    commands: Receiver<Command>,
    counters: Arc<Counters>,
    newest: watch::Sender<Option<Picture>>,
    sink: S,
    /// Whose frames are taken, and behind it those who have taken the stream over from each other: first come the frames of who had it before.
    sessions: VecDeque<Session>,
    /// How long it waits for its producer to come back, if that is gone without a close; then it ends as it is. None: for ever.
    patience: Option<Duration>,
    /// Since when there has been no session, if there is none.
    left: MonotonicTime,
    stopping: bool,
    told: Told,
}

/// A session that is over. Its producer waits to hear so until the recording is whole.
pub(crate) struct Farewell {
    session: Session,
    counters: Arc<Counters>,
}

impl Farewell {
    /// Tells the producer what became of its frames.
    pub(crate) fn say(self, now: MonotonicTime) {
        self.session.finish(now, &self.counters);
    }
}

/// How far the log was told.
struct Told {
    at: MonotonicTime,
    tick: Tick,
}

impl<S: Sink> LosslessIngest<S> {
    /// An ingest whose first frame is `next`; a producer that is gone without a close is waited for as long as `patience` says.
    pub(crate) fn new(
        (stream, patience): (String, Option<Duration>),
        next: Tick,
        anchor: Anchor,
        commands: Receiver<Command>,
        counters: Arc<Counters>,
        newest: watch::Sender<Option<Picture>>,
        sink: S,
    ) -> Self {
        let at = anchor.monotonic();
        Self {
            stream,
            next,
            anchor,
            commands,
            counters,
            newest,
            sink,
            sessions: VecDeque::new(),
            patience,
            left: at,
            stopping: false,
            told: Told { at, tick: next },
        }
    }

    /// Runs until a producer has closed and its last frame was taken, or none comes back. What is to be told to who waits for the recording's
    /// end is returned.
    pub(crate) fn run(mut self) -> Option<Farewell> {
        loop {
            self.counters.turned.set(self.anchor.monotonic().0);
            self.obey_commands();
            if !self.stopping && !self.sink.is_open() {
                tracing::info!(stream = %self.stream, frames = self.next.0, "the recording is as long as one may be: the next open begins another");
                self.stop();
            }
            if self.sink.is_dead() {
                return None;
            }
            let Some(session) = self.sessions.front_mut() else {
                if self.stopping || !self.may_come_back() {
                    return None;
                }
                continue;
            };
            if !self.sink.has_room(LOOK_AGAIN) {
                continue;
            }
            let clocks = (self.anchor.monotonic(), self.anchor.suspended());
            match session.take(EVERY_FRAME, clocks, &self.counters) {
                Ok(Some(fresh)) => self.pass_on(fresh.picture),
                Ok(None) if session.is_drained() => {
                    let session = self.leave()?;
                    if session.is_awaited() {
                        let counters = Arc::clone(&self.counters);
                        return Some(Farewell { session, counters });
                    }
                    session.finish(self.left, &self.counters);
                }
                Ok(None) => {
                    session.wait(LOOK_AGAIN);
                }
                Err(error) => {
                    tracing::debug!(stream = %self.stream, %error, "session ended: its ring can't be read");
                    self.leave()?.fail(&error, self.left, &self.counters);
                }
            }
        }
    }

    /// The first session is over.
    fn leave(&mut self) -> Option<Session> {
        self.left = self.anchor.monotonic();
        self.sessions.pop_front()
    }

    fn may_come_back(&self) -> bool {
        let alone = self.anchor.monotonic().saturating_since(self.left);
        let may = self.patience.is_none_or(|patience| alone <= patience);
        if !may {
            tracing::warn!(stream = %self.stream, frames = self.next.0, "the recording's producer did not come back: it ends as it is");
        }
        may
    }

    /// Does what it is told; without a session it waits a moment for that.
    fn obey_commands(&mut self) {
        loop {
            let wait = match self.sessions.is_empty() {
                true => LOOK_AGAIN,
                false => Duration::ZERO,
            };
            match self.commands.recv_timeout(wait) {
                Ok(Command::Begin(new)) => {
                    self.sessions.iter_mut().for_each(Session::stop);
                    let new = Session::new(*new, self.anchor.monotonic());
                    self.sessions.push_back(new);
                }
                Ok(Command::Close { session, done }) => {
                    let known = self.sessions.iter_mut().find(|known| known.id == session);
                    if let Some(left) = known {
                        left.close(done);
                    }
                }
                // Recordings have no slate.
                Ok(Command::StaleAfter(_)) => {}
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.stop();
                    return;
                }
                Err(RecvTimeoutError::Timeout) => return,
            }
        }
    }

    /// What was committed is taken; nothing more is.
    fn stop(&mut self) {
        self.stopping = true;
        self.sink.note_stop();
        self.sessions.iter_mut().for_each(Session::stop);
    }

    fn pass_on(&mut self, picture: Picture) {
        self.counters.fresh.add(1);
        self.newest.send_replace(Some(picture.clone()));
        self.sink.take(TickPicture {
            tick: self.next,
            picture,
            kind: TickKind::Fresh,
        });
        self.next = self.next.next();
        let now = self.anchor.monotonic();
        let since = now.saturating_since(self.told.at);
        if since >= TOLD {
            let frames = self.next.since(self.told.tick);
            let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            let per_second = frames.saturating_mul(1000) / millis.max(1);
            self.counters.used_last_second.set(per_second);
            tracing::info!(stream = %self.stream, frames = self.next.0, per_second, "recording");
            self.told = Told {
                at: now,
                tick: self.next,
            };
        }
    }
}
