//! How long to rest before what has ended or can't be had is tried again.

use std::time::Duration;

use crate::clock::MonotonicTime;

/// The first rest of what can't be had at once; it doubles up to the longest.
pub(super) const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// What has lived so long is healthy: its next end is a first one.
const HEALTHY: Duration = Duration::from_secs(10);

/// Rests between attempts, each twice as long as the one before.
#[derive(Debug, Default)]
pub(super) struct Rests {
    in_a_row: u32,
    until: MonotonicTime,
    began: MonotonicTime,
}

impl Rests {
    pub(super) fn begin(&mut self, now: MonotonicTime) {
        self.began = now;
    }

    pub(super) fn are_over(&self, now: MonotonicTime) -> bool {
        now >= self.until
    }

    /// What began has ended: how long to rest.
    pub(super) fn rest(&mut self, now: MonotonicTime, first: Duration) -> Duration {
        if now.saturating_since(self.began) >= HEALTHY {
            self.in_a_row = 0;
        }
        let rest = match self.in_a_row {
            0 => first,
            before => (FIRST * (1 << before.min(10))).min(LONGEST),
        };
        self.in_a_row = self.in_a_row.saturating_add(1);
        let nanos = u64::try_from(rest.as_nanos()).unwrap_or(0);
        self.until = MonotonicTime(now.0.saturating_add(nanos));
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_ever_more_seldom_until_it_has_lived() {
        let mut rests = Rests::default();
        let at = |seconds: u64| MonotonicTime(seconds * 1_000_000_000);
        rests.begin(at(0));
        let mut waits = Vec::new();
        for _ in 0..10 {
            waits.push(rests.rest(at(1), FIRST));
        }
        assert_eq!(waits[..3], [FIRST, FIRST * 2, FIRST * 4]);
        assert_eq!(waits[9], LONGEST);
        assert!(!rests.are_over(at(30)) && rests.are_over(at(31)));
        assert_eq!(rests.rest(at(11), FIRST), FIRST);
    }
}
