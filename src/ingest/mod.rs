//! The ring's end of the street: one picture per tick, by absolute deadlines. Each tick takes a waiting frame, or shows
//! the last picture again, or the slate; every frame and every tick is accounted for. A tick never waits for a producer.

#[cfg(test)]
mod arrival_tests;
mod choose;
#[cfg(test)]
mod clock_tests;
mod convert;
mod counters;
mod lossless;
mod session;
mod slate;
mod tick_log;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use ringgear_producer::messages::FrameCounts;
use tokio::sync::{oneshot, watch};

pub(crate) use convert::input_of;
pub use convert::{ConvertError, Converter, Rows};
pub(crate) use counters::{Count, Counters};
pub(crate) use lossless::{Farewell, LosslessIngest, Sink};
pub(crate) use session::{NewSession, possible};
pub(crate) use tick_log::TickLog;
pub(crate) use tick_log::TickLogError;

use crate::clock::{Anchor, MonotonicTime};
use crate::config::Pace;
use crate::picture::{Picture, PictureFormat, Size};
use crate::tick::{Grid, Tick, UnixTime};
use session::{Fresh, Session};
use slate::Slate;
pub(crate) use slate::notice;

/// How often within a tick a producer may wake its stream without a frame. One that does so more often is looked at when
/// the tick is due.
const MOST_WAKES: usize = 8;

/// What a tick shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TickKind {
    /// A frame of its own.
    Fresh,
    /// The picture before.
    Repeated,
    /// No signal.
    Slate,
}

/// One tick's picture, on its way to the encoder.
#[derive(Clone)]
pub(crate) struct TickPicture {
    pub(crate) tick: Tick,
    pub(crate) picture: Picture,
    pub(crate) kind: TickKind,
}

/// What ingest is told by the stream.
pub(crate) enum Command {
    /// A producer has come; it replaces any session there is.
    Begin(Box<NewSession>),
    /// The session's producer commits no more; the account goes to `done`.
    Close {
        session: u64,
        done: Option<oneshot::Sender<FrameCounts>>,
    },
    /// From now on the slate is shown after so long without a frame.
    StaleAfter(Duration),
    /// No more ticks.
    Stop,
}

/// What ingest works by.
pub(crate) struct IngestPlan {
    pub(crate) stream: String,
    pub(crate) grid: Grid,
    pub(crate) slack: u32,
    pub(crate) pace: Pace,
    pub(crate) stale_after: Duration,
    /// How far behind the clock ticks are still made one by one; beyond, they are skipped.
    pub(crate) backfill: Duration,
    /// The pictures of an earlier run, so that the slate can be shown before any producer comes.
    pub(crate) remembered: Option<(PictureFormat, Size)>,
    pub(crate) tick_log: Option<TickLog>,
}

/// The newest frame that a tick took.
struct Last {
    tick: Tick,
    session: u64,
    frame: u64,
    picture: Picture,
}

/// A stream's ingest, on a thread of its own.
pub(crate) struct Ingest<S> {
    plan: IngestPlan,
    anchor: Anchor,
    commands: Receiver<Command>,
    counters: Arc<Counters>,
    newest: watch::Sender<Option<Picture>>,
    sink: S,
    session: Option<Session>,
    last: Option<Last>,
    slate: Option<Slate>,
    /// When a frame was last looked for: what was committed before it was seen.
    looked: MonotonicTime,
    /// Whether it was said that there is no memory for the slate.
    told_of_memory: bool,
    /// At the pace of arrivals, whether the tick before took a frame that had waited for it.
    took_waiting: bool,
    /// For how many ticks in a row each has, while the next one's frame waited already for half of their interval.
    behind: u32,
    second: (u64, u64),
}

impl<S: FnMut(TickPicture)> Ingest<S> {
    /// An ingest that gives each tick's picture to `sink` and shows the newest in `newest`.
    pub(crate) fn new(
        plan: IngestPlan,
        anchor: Anchor,
        commands: Receiver<Command>,
        counters: Arc<Counters>,
        newest: watch::Sender<Option<Picture>>,
        sink: S,
    ) -> Self {
        // Without memory for it, the first picture is a producer's.
        let slate = plan
            .remembered
            .and_then(|(format, size)| Slate::plain(&plan.stream, format, size).ok());
        Self {
            plan,
            looked: anchor.monotonic(),
            anchor,
            commands,
            counters,
            newest,
            sink,
            session: None,
            last: None,
            slate,
            told_of_memory: false,
            took_waiting: false,
            behind: 0,
            second: (0, 0),
        }
    }

    /// Runs until it is told to stop.
    pub(crate) fn run(mut self) {
        let grid = self.plan.grid;
        let backfill = u64::from(grid.framerate.ticks_in(self.plan.backfill).get());
        let mut tick = grid.tick_at(self.anchor.now()).next();
        let mut goes_on = true;
        if self.slate.is_some() {
            // The ticks that were missed while nobody ran show what this one does: the slate, and not what a camera sees only now.
            goes_on = self.turn(grid.time_of(tick)).is_some();
            if goes_on {
                self.make(tick, None);
                tick = tick.next();
            }
        }
        while goes_on && let Some(fresh) = self.await_frame(tick) {
            let due = grid.tick_at(self.anchor.now());
            if due > tick && due.since(tick) > backfill {
                tick = due;
            }
            self.make(tick, fresh);
            self.finish_drained();
            tick = tick.next();
        }
        if let Some(session) = self.session.take() {
            session.finish(self.anchor.monotonic(), &self.counters);
        }
    }

    /// Whether to go on.
    fn obey_commands(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Begin(new)) => {
                    if let Some(old) = self
                        .session
                        .replace(Session::new(*new, self.anchor.monotonic()))
                    {
                        old.finish(self.anchor.monotonic(), &self.counters);
                    }
                }
                Ok(Command::Close { session, done }) => match &mut self.session {
                    Some(current) if current.id == session => current.close(done),
                    _ => {}
                },
                Ok(Command::StaleAfter(silence)) => self.plan.stale_after = silence,
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    /// The frame of `tick`, if there is one: at its deadline, or before, when the stream's pace is that of arrivals. Nothing once
    /// it is told to stop.
    fn await_frame(&mut self, tick: Tick) -> Option<Option<Fresh>> {
        let deadline = self.plan.grid.time_of(tick);
        if self.plan.pace == Pace::Arrival {
            self.await_interval(tick)?;
            for wake in 0..MOST_WAKES {
                let fresh = self.take_fresh();
                self.took_waiting = fresh.is_some() && wake == 0;
                if fresh.is_some() {
                    return Some(fresh);
                }
                let Some(session) = &mut self.session else {
                    break;
                };
                let left = deadline.saturating_since(self.anchor.now());
                if left.is_zero() || !self.anchor.wait(left, |pause| session.wait(pause)) {
                    break;
                }
            }
        }
        if self.plan.pace == Pace::Tick && self.plan.slack > 0 && self.session.is_some() {
            self.turn(deadline.saturating_sub(self.lead()))?;
            let fresh = self.take_fresh();
            if fresh.is_some() {
                // Nothing is obeyed meanwhile: it is this session's frame that the tick shows.
                self.anchor.sleep_until(deadline);
                return Some(fresh);
            }
        }
        self.turn(deadline)?;
        Some(self.take_fresh())
    }

    /// How long before its deadline a tick's frame is taken, if it waits then: so many streams, whose ticks all have the same moment, don't
    /// keep each other waiting with their copies. A newer one that comes meanwhile would have waited for the next tick as well.
    fn lead(&self) -> Duration {
        const LEAD: Duration = Duration::from_millis(8);
        LEAD.min(self.plan.grid.framerate.duration_of(1) / 4)
    }

    /// Sleeps until frames may be taken for `tick`: until the deadline of the tick before. After one frame that came late, each would be
    /// shown a tick later than it could be: where that goes on for a second, the one that waits is passed over for the next.
    fn await_interval(&mut self, tick: Tick) -> Option<()> {
        let grid = self.plan.grid;
        let begin = grid.time_of(Tick(tick.0.saturating_sub(1)));
        let mut behind = 0;
        if self.took_waiting {
            // One that comes in the second half of an interval, or just before its end, would gain little.
            self.turn(begin.saturating_sub(grid.framerate.duration_of(1) / 2))?;
            if self.session.as_mut().is_some_and(Session::has_frames) {
                behind = self.behind + 1;
            }
        }
        self.behind = behind;
        self.turn(begin)?;
        if self.behind >= grid.framerate.ticks_in(Duration::from_secs(1)).get() {
            self.behind = 0;
            self.session
                .as_mut()
                .into_iter()
                .for_each(Session::pass_over);
        }
        Some(())
    }

    /// Sleeps until `time` and does what it is told then; nothing once that is to stop.
    fn turn(&mut self, time: UnixTime) -> Option<()> {
        self.anchor.sleep_until(time);
        self.counters.turned.set(self.anchor.monotonic().0);
        self.obey_commands().then_some(())
    }

    fn make(&mut self, tick: Tick, fresh: Option<Fresh>) {
        self.count_second(tick);
        let session = self.session.as_ref().map_or(0, |session| session.id);
        let (kind, frame, picture) = match fresh {
            Some(fresh) => {
                self.counters.fresh.add(1);
                self.second.1 += 1;
                self.slate = None;
                let (frame, picture) = (fresh.frame_number, fresh.picture);
                self.last = Some(Last {
                    tick,
                    session,
                    frame,
                    picture: picture.clone(),
                });
                (TickKind::Fresh, Some(frame), picture)
            }
            None => match self.repeat_or_slate(tick) {
                Some(shown) => shown,
                None => return,
            },
        };
        if let Some(log) = &mut self.plan.tick_log {
            // Whose frame is shown, which may be one of a session before.
            let session = match (kind, &self.last) {
                (TickKind::Slate, _) | (_, None) => 0,
                (_, Some(last)) => last.session,
            };
            let times = [picture.captured, self.looked, self.anchor.monotonic()];
            log.write(tick, kind, session, frame, times);
        }
        self.newest.send_replace(Some(picture.clone()));
        (self.sink)(TickPicture {
            tick,
            picture,
            kind,
        });
    }

    /// Answers a close whose last frame was shown: after the tick is counted, so that who asks then finds frames and ticks equal.
    fn finish_drained(&mut self) {
        if self.session.as_mut().is_some_and(Session::is_drained) {
            self.session
                .take()
                .into_iter()
                .for_each(|session| session.finish(self.anchor.monotonic(), &self.counters));
        }
    }

    fn take_fresh(&mut self) -> Option<Fresh> {
        self.looked = self.anchor.monotonic();
        let session = self.session.as_mut()?;
        let now = (self.looked, self.anchor.suspended());
        match session.take(self.plan.slack, now, &self.counters) {
            Ok(fresh) => fresh,
            Err(error) => {
                // Its connection tells the log, as often as its user may have it told.
                tracing::debug!(stream = %self.plan.stream, session = session.id, %error, "session ended: its ring can't be read");
                self.session.take().into_iter().for_each(|session| {
                    session.fail(&error, self.anchor.monotonic(), &self.counters)
                });
                None
            }
        }
    }

    fn repeat_or_slate(&mut self, tick: Tick) -> Option<(TickKind, Option<u64>, Picture)> {
        let framerate = self.plan.grid.framerate;
        let silent = self
            .last
            .as_ref()
            .map(|last| framerate.duration_of(tick.since(last.tick)));
        if let (Some(last), Some(silent)) = (&self.last, silent)
            && silent <= self.plan.stale_after
        {
            self.counters.repeated.add(1);
            return Some((TickKind::Repeated, Some(last.frame), last.picture.clone()));
        }
        if self.slate.is_none() && self.last.is_none() {
            return None;
        }
        match self.draw_slate(silent) {
            Ok(picture) => {
                self.told_of_memory = false;
                self.counters.slate.add(1);
                Some((TickKind::Slate, None, picture))
            }
            Err(error) => {
                if !std::mem::replace(&mut self.told_of_memory, true) {
                    tracing::warn!(stream = %self.plan.stream, %error, "the last picture stays, because there is no memory for the slate: leave the machine more, or choose a smaller source");
                }
                let last = self.last.as_ref()?;
                self.counters.repeated.add(1);
                Some((TickKind::Repeated, Some(last.frame), last.picture.clone()))
            }
        }
    }

    /// The slate over the last picture, of which there is one if there is no slate yet.
    fn draw_slate(&mut self, silent: Option<Duration>) -> std::io::Result<Picture> {
        let slate = match (&mut self.slate, &self.last) {
            (Some(slate), _) => slate,
            (none, Some(last)) => none.insert(Slate::over(&self.plan.stream, &last.picture)?),
            (None, None) => return Err(std::io::ErrorKind::NotFound.into()),
        };
        slate.picture(silent, self.anchor.monotonic())
    }

    /// Keeps the figure of frames in the last whole second.
    fn count_second(&mut self, tick: Tick) {
        let second = self.plan.grid.time_of(tick).as_nanos() / 1_000_000_000;
        if second != self.second.0 {
            self.counters.used_last_second.set(self.second.1);
            self.second = (second, 0);
        }
    }
}
