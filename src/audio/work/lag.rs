//! How long after their captures the pictures are shown, as the sound beside them goes by it.

use std::time::Duration;

use crate::clock::MonotonicTime;

/// A change by no more is left to the sound's own control loop.
const STEP: u64 = 20_000_000;
/// One by more is believed once it has lasted so long: a camera whose frames come about when their ticks fall due is now a tick earlier, now a tick
/// later, and sound that followed it each time would have a hole each time.
const BELIEVED: Duration = Duration::from_secs(1);

/// The lag that holds, in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct PictureLag {
    held: Option<u64>,
    /// Since when another has been told of, if it has.
    off: Option<MonotonicTime>,
}

impl PictureLag {
    /// Goes by `told`, if it can: says by how many nanoseconds all sound has to be moved for it.
    pub(super) fn follow(&mut self, told: u64, now: MonotonicTime) -> Option<i64> {
        let held = *self.held.get_or_insert(told);
        if told.abs_diff(held) <= STEP {
            self.held = Some(told);
            self.off = None;
            return None;
        }
        let since = *self.off.get_or_insert(now);
        // As long as no picture has been shown, there is nothing to be in step with.
        if held > 0 && now.saturating_since(since) < BELIEVED {
            return None;
        }
        self.held = Some(told);
        self.off = None;
        let [told, held] = [told, held].map(|lag| i64::try_from(lag).unwrap_or(i64::MAX));
        Some(told - held)
    }

    /// The lag that holds.
    pub(super) fn nanos(&self) -> u64 {
        self.held.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;

    #[test]
    fn a_lag_that_lasts_moves_the_sound_and_one_that_does_not_leaves_it() {
        let mut lag = PictureLag::default();
        let mut at = |millis: u64, told: u64| {
            let moved = lag.follow(told * MILLI, MonotonicTime(millis * MILLI));
            (moved.map(|nanos| nanos / 1_000_000), lag.nanos() / MILLI)
        };
        assert_eq!(at(0, 0), (None, 0));
        assert_eq!(at(10, 35), (Some(35), 35), "the first pictures are shown");
        assert_eq!(at(20, 25), (None, 25), "the control loop's");
        assert_eq!(at(100, 65), (None, 25));
        assert_eq!(at(1050, 65), (None, 25), "not a second yet");
        assert_eq!(at(1060, 30), (None, 30));
        assert_eq!(at(1070, 65), (None, 30), "again from the beginning");
        assert_eq!(at(2069, 65), (None, 30));
        assert_eq!(at(2070, 70), (Some(40), 70));
        assert_eq!(at(3000, 30), (None, 70));
        assert_eq!(at(4000, 30), (Some(-40), 30));
    }
}
