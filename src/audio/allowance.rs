//! How much sound a live stream takes of its producer: no more than can be heard. Pure: times are arguments.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::clock::MonotonicTime;

/// So much sound may be taken at once, after a time in which none was...
const AT_ONCE: Duration = Duration::from_secs(4);
/// ...and so many times as much as is heard in the long run. The rest stays in the ring, whose producer takes its oldest back.
const PACE: i64 = 2;

/// How many samples may be taken, by the time that has passed.
#[derive(Debug)]
pub(super) struct Allowance {
    rate: NonZeroU32,
    /// In samples. A block is taken whole, so it may fall below nothing, and is paid back.
    left: i64,
    looked: Option<MonotonicTime>,
}

impl Allowance {
    pub(super) fn new(rate: NonZeroU32) -> Self {
        Self {
            rate,
            left: Self::samples_in(rate, AT_ONCE),
            looked: None,
        }
    }

    fn samples_in(rate: NonZeroU32, time: Duration) -> i64 {
        let samples = time.as_nanos() * u128::from(rate.get()) / 1_000_000_000;
        i64::try_from(samples).unwrap_or(i64::MAX)
    }

    pub(super) fn is_used_up(&mut self, now: MonotonicTime) -> bool {
        let since = now.saturating_since(*self.looked.get_or_insert(now));
        let more = Self::samples_in(self.rate, since.min(AT_ONCE)) * PACE;
        if more > 0 {
            let most = Self::samples_in(self.rate, AT_ONCE);
            self.left = (self.left + more).min(most);
            self.looked = Some(now);
        }
        self.left <= 0
    }

    pub(super) fn use_up(&mut self, samples: u64) {
        let samples = i64::try_from(samples).unwrap_or(i64::MAX);
        self.left = self.left.saturating_sub(samples);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_sound_is_taken_than_twice_what_can_be_heard() {
        let rate = NonZeroU32::new(8000).unwrap();
        let mut allowance = Allowance::new(rate);
        let at = |millis: u64| MonotonicTime(1_000_000 * millis);
        let mut taken = 0;
        for millis in 0..10_000 {
            while !allowance.is_used_up(at(millis)) {
                allowance.use_up(80);
                taken += 80;
            }
        }
        assert!((8000 * 23..8000 * 25).contains(&taken), "{taken}");
    }
}
