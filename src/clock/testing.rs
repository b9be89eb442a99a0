//! A clock that stands still until it is told to go on, or that somebody sleeps: then it is at once as late as they asked for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Clock, MonotonicTime};
use crate::tick::UnixTime;

/// The simulated clock. Clones are the same clock.
#[derive(Clone, Debug)]
pub(crate) struct FakeClock(Arc<Mutex<Hands>>);

#[derive(Debug)]
struct Hands {
    wall: UnixTime,
    boot: Duration,
    suspended: Duration,
    /// How much faster than the monotonic clock the wall clock goes, in millionths.
    slew_ppm: i64,
}

impl Hands {
    fn advance(&mut self, by: Duration) {
        let nanos = i128::try_from(by.as_nanos()).unwrap();
        let slewed = nanos + nanos * i128::from(self.slew_ppm) / 1_000_000;
        self.boot += by;
        let slewed = Duration::from_nanos(u64::try_from(slewed).unwrap());
        self.wall = self.wall.saturating_add(slewed);
    }
}

impl FakeClock {
    /// A machine that has run for an hour, whose wall clock shows `wall`.
    pub(crate) fn at(wall: UnixTime) -> Self {
        Self(Arc::new(Mutex::new(Hands {
            wall,
            boot: Duration::from_secs(3600),
            suspended: Duration::ZERO,
            slew_ppm: 0,
        })))
    }

    fn with<T>(&self, change: impl FnOnce(&mut Hands) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Time passes.
    pub(crate) fn advance(&self, by: Duration) {
        self.with(|hands| hands.advance(by));
    }

    /// The machine is suspended for so long.
    pub(crate) fn suspend(&self, by: Duration) {
        self.with(|hands| {
            hands.advance(by);
            hands.suspended += by;
        });
    }

    /// Somebody sets the wall clock by so many seconds, back if negative.
    pub(crate) fn step(&self, seconds: i64) {
        let by = Duration::from_secs(seconds.unsigned_abs());
        self.with(|hands| {
            hands.wall = match seconds {
                0.. => hands.wall.saturating_add(by),
                _ => hands.wall.saturating_sub(by),
            };
        });
    }

    /// From now on the wall clock goes faster by so many millionths, slower if negative.
    pub(crate) fn slew(&self, ppm: i64) {
        self.with(|hands| hands.slew_ppm = ppm);
    }
}

impl Clock for FakeClock {
    fn wall(&self) -> UnixTime {
        self.with(|hands| hands.wall)
    }

    fn monotonic(&self) -> MonotonicTime {
        let nanos = self.with(|hands| hands.boot).as_nanos();
        MonotonicTime(u64::try_from(nanos).unwrap())
    }

    fn suspended(&self) -> Duration {
        self.with(|hands| hands.suspended)
    }

    fn sleep_until(&self, deadline: MonotonicTime) {
        let left = deadline.saturating_since(self.monotonic());
        self.advance(left);
    }
}
