//! So many in a time: the measure of what clients may do again and again.

use std::time::{Duration, Instant};

/// So many a second, and so many at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    interval: Duration,
    at_once: Duration,
    /// When all that was taken so far is paid for.
    paid: Option<Instant>,
}

impl Pace {
    /// `per_second` in a second, and `at_once` of them at once after a rest; both at least 1.
    pub(super) fn new(per_second: u32, at_once: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self::every(interval, at_once)
    }

    /// One in each `interval`, and `at_once` of them at once after a rest.
    pub(super) fn every(interval: Duration, at_once: u32) -> Self {
        Self {
            interval,
            at_once: interval * at_once.max(1).saturating_sub(1),
            paid: None,
        }
    }

    /// Takes one if there is one now.
    pub(super) fn try_take(&mut self, now: Instant) -> bool {
        self.try_take_many(now, 1)
    }

    /// Takes `count` if there is one now; those that come after wait for all of them.
    pub(super) fn try_take_many(&mut self, now: Instant, count: u32) -> bool {
        let free = self.wait(now).is_zero();
        if free {
            let from = self.paid.map_or(now, |paid| paid.max(now));
            self.paid = Some(from + self.interval * count);
        }
        free
    }

    /// How long until the next can be taken.
    fn wait(&self, now: Instant) -> Duration {
        self.paid.map_or(Duration::ZERO, |paid| {
            paid.saturating_duration_since(now)
                .saturating_sub(self.at_once)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_gives_so_many_at_once_and_then_so_many_a_second() {
        let start = Instant::now();
        let mut pace = Pace::new(10, 3);
        let taken = |pace: &mut Pace, at: u64| pace.try_take(start + Duration::from_millis(at));
        assert!(taken(&mut pace, 0) && taken(&mut pace, 0) && taken(&mut pace, 0));
        assert!(!taken(&mut pace, 0) && !taken(&mut pace, 99));
        assert_eq!(pace.wait(start), Duration::from_millis(100));
        assert!(taken(&mut pace, 100) && !taken(&mut pace, 100));
        assert!((0..3).all(|_| taken(&mut pace, 5000)), "after a rest");
        assert!(!taken(&mut pace, 5000), "a long rest gives no more");

        let mut pace = Pace::every(Duration::from_millis(100), 3);
        assert!(pace.try_take_many(start, 5));
        assert!(!taken(&mut pace, 299) && taken(&mut pace, 300));
    }
}
