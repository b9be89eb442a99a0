//! Clocks, as the rest of the house sees them: one trait, so that streams run on a simulated clock in tests.

use std::sync::Arc;
use std::time::Duration;

use rustix::thread::{ClockId, clock_nanosleep_absolute};
use rustix::time::{Timespec, clock_gettime};

use crate::tick::UnixTime;

/// An instant of CLOCK_MONOTONIC: nanoseconds since boot. Capture times in the ring are of this clock.
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
    /// The wall clock. Read once, for the [`Anchor`], and then only to notice steps.
    fn wall(&self) -> UnixTime;
    /// The monotonic clock.
    fn monotonic(&self) -> MonotonicTime;
    /// Sleeps until the monotonic clock has reached `deadline`; returns at once if it has.
    fn sleep_until(&self, deadline: MonotonicTime);
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
        let now = clock_gettime(ClockId::Monotonic);
        MonotonicTime(now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs())
    }

    fn sleep_until(&self, deadline: MonotonicTime) {
        let request = Timespec {
            tv_sec: i64::try_from(deadline.0 / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(deadline.0 % 1_000_000_000).unwrap_or(0),
        };
        // A signal may end the sleep early; the deadline is absolute, so sleeping again is exact.
        while clock_nanosleep_absolute(ClockId::Monotonic, &request) == Err(rustix::io::Errno::INTR)
        {
        }
    }
}

/// The wall clock and the monotonic clock, sampled together once. All streams pace by the monotonic clock from it, and
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

    /// This anchor with every published time later by `by`.
    #[must_use]
    pub fn ahead_by(&self, by: Duration) -> Self {
        Self {
            wall: self.wall.saturating_add(by),
            ..self.clone()
        }
    }

    /// The time now: the anchor's wall clock plus the monotonic time since.
    pub fn now(&self) -> UnixTime {
        self.to_unix(self.clock.monotonic())
    }

    /// The monotonic clock now.
    pub fn monotonic(&self) -> MonotonicTime {
        self.clock.monotonic()
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

    /// How far the wall clock has moved from the published time since the anchor, in nanoseconds; positive when the wall clock is ahead.
    pub fn wall_step_nanos(&self) -> i64 {
        let wall = i128::from(self.clock.wall().as_nanos());
        i64::try_from(wall - i128::from(self.now().as_nanos())).unwrap_or(i64::MAX)
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
