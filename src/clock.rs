//! Clocks, as the rest of the house sees them: one trait, so that streams run on a simulated clock in tests.

use std::sync::Arc;
use std::time::Duration;

use rustix::thread::{ClockId, clock_nanosleep_absolute};
use rustix::time::{Timespec, clock_gettime};

use crate::tick::UnixTime;

/// How far the wall clock may move against the anchor from one look to the next until it counts as stepped. Slewing stays
/// far below.
const STEP: Duration = Duration::from_millis(500);

/// An instant of CLOCK_BOOTTIME: nanoseconds since boot, the time that the machine was suspended included. It never jumps
/// back and no setting of the wall clock moves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MonotonicTime(pub u64);

impl MonotonicTime {
    /// The time since `earlier`, zero if `earlier` is later.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// What a stream needs of time.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock. Read once, for the [`Anchor`], and then only to notice steps and what has expired.
    fn wall(&self) -> UnixTime;
    /// The monotonic clock.
    fn monotonic(&self) -> MonotonicTime;
    /// How long the machine has been suspended since its boot: by so much CLOCK_MONOTONIC, which capture times in the ring are of,
    /// is behind [`Self::monotonic`].
    fn suspended(&self) -> Duration;
    /// Sleeps until the monotonic clock has reached `deadline`; returns at once if it has.
    fn sleep_until(&self, deadline: MonotonicTime);
    /// Waits for at most `pause` for what `wait` waits for, which says whether it has come. A simulated clock may pass its own time instead.
    fn wait(&self, pause: Duration, wait: &mut dyn FnMut(Duration) -> bool) -> bool {
        wait(pause)
    }
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> UnixTime {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        UnixTime::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> MonotonicTime {
        MonotonicTime(nanos_of(ClockId::Boottime))
    }

    fn suspended(&self) -> Duration {
        // In this order, so that a preemption between the two can't make it too large: a capture time would lie in the future.
        let boot = nanos_of(ClockId::Boottime);
        let running = nanos_of(ClockId::Monotonic);
        Duration::from_nanos(boot.saturating_sub(running))
    }

    fn sleep_until(&self, deadline: MonotonicTime) {
        let request = Timespec {
            tv_sec: i64::try_from(deadline.0 / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(deadline.0 % 1_000_000_000).unwrap_or(0),
        };
        // A signal may end the sleep early; the deadline is absolute, so sleeping again is exact. A machine that was suspended
        // meanwhile wakes at once if the deadline has passed.
        while clock_nanosleep_absolute(ClockId::Boottime, &request) == Err(rustix::io::Errno::INTR)
        {
        }
    }
}

fn nanos_of(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// The wall clock and the monotonic clock, sampled together once: the one anchor of a daemon's time. All streams pace by the monotonic clock from it, and
/// every published time comes from it: a step of the wall clock disturbs nothing.
#[derive(Clone)]
pub struct Anchor {
    clock: Arc<dyn Clock>,
    wall: UnixTime,
    monotonic: MonotonicTime,
}

impl Anchor {
    /// Samples both clocks now.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        // The middle of two monotonic readings around the wall clock's: a preemption between them does not shift the anchor.
        let before = clock.monotonic();
        let wall = clock.wall();
        let after = clock.monotonic();
        let monotonic = MonotonicTime(before.0 + (after.0 - before.0) / 2);
        Self {
            clock,
            wall,
            monotonic,
        }
    }

    /// This anchor, moved so that the time now is `time` if it would be earlier: for what was published before by a clock
    /// that was ahead of this one.
    #[must_use]
    pub fn not_before(self, time: UnixTime) -> Self {
        let behind = time.saturating_since(self.now());
        Self {
            wall: self.wall.saturating_add(behind),
            ..self
        }
    }

    /// The time now: the anchor's wall clock plus the monotonic time since.
    pub fn now(&self) -> UnixTime {
        self.to_unix(self.clock.monotonic())
    }

    /// The wall clock as it is now, whatever the anchor says: what others have dated goes by it.
    pub fn wall(&self) -> UnixTime {
        self.clock.wall()
    }

    /// The monotonic clock now.
    pub fn monotonic(&self) -> MonotonicTime {
        self.clock.monotonic()
    }

    /// How long the machine has been suspended since its boot.
    pub fn suspended(&self) -> Duration {
        self.clock.suspended()
    }

    /// The published time of a monotonic instant.
    pub fn to_unix(&self, time: MonotonicTime) -> UnixTime {
        let wall = self.wall.as_nanos();
        if time >= self.monotonic {
            UnixTime::from_nanos(wall.saturating_add(time.0 - self.monotonic.0))
        } else {
            UnixTime::from_nanos(wall.saturating_sub(self.monotonic.0 - time.0))
        }
    }

    /// The monotonic instant of a published time.
    pub fn to_monotonic(&self, time: UnixTime) -> MonotonicTime {
        if time >= self.wall {
            MonotonicTime(
                self.monotonic
                    .0
                    .saturating_add(time.as_nanos() - self.wall.as_nanos()),
            )
        } else {
            MonotonicTime(
                self.monotonic
                    .0
                    .saturating_sub(self.wall.as_nanos() - time.as_nanos()),
            )
        }
    }

    /// Sleeps until the published time `deadline`.
    pub fn sleep_until(&self, deadline: UnixTime) {
        self.clock.sleep_until(self.to_monotonic(deadline));
    }

    /// Waits for at most `pause` for what `wait` waits for, which says whether it has come.
    pub fn wait(&self, pause: Duration, mut wait: impl FnMut(Duration) -> bool) -> bool {
        self.clock.wait(pause, &mut wait)
    }

    /// How far the wall clock is ahead of the published time, in nanoseconds; negative when it is behind.
    fn wall_ahead_nanos(&self) -> i64 {
        let wall = i128::from(self.clock.wall().as_nanos());
        i64::try_from(wall - i128::from(self.now().as_nanos())).unwrap_or(i64::MAX)
    }
}

/// Notices when the wall clock is stepped. Nothing follows from it but a line in the log: the streams go on by the anchor.
#[derive(Debug)]
pub struct StepWatch {
    /// At the look before.
    ahead_nanos: i64,
}

/// A step of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// How far it jumped since the look before, in seconds; negative when it was set back.
    pub by_seconds: f64,
    /// How far it is ahead of the published time now, in seconds; negative when it is behind.
    pub ahead_seconds: f64,
}

impl StepWatch {
    /// A watch that counts from now on: an anchor that was moved at the start is no step.
    pub fn new(anchor: &Anchor) -> Self {
        Self {
            ahead_nanos: anchor.wall_ahead_nanos(),
        }
    }

    /// Whether the wall clock was stepped since the look before. To be asked every ten seconds or so: what it is slewed by
    /// meanwhile is no step.
    pub fn look(&mut self, anchor: &Anchor) -> Option<Step> {
        let ahead = anchor.wall_ahead_nanos();
        let before = std::mem::replace(&mut self.ahead_nanos, ahead);
        let moved = Duration::from_nanos(ahead.abs_diff(before));
        // To the millisecond: more says nothing to a person.
        let seconds = |nanos: i64| (nanos as f64 / 1e6).round() / 1e3;
        (moved > STEP).then(|| Step {
            by_seconds: seconds(ahead.saturating_sub(before)),
            ahead_seconds: seconds(ahead),
        })
    }
}

impl std::fmt::Debug for Anchor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Anchor")
            .field("wall", &self.wall)
            .field("monotonic", &self.monotonic)
            .finish()
    }
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests;
