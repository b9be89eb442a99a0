//! What a producer's blocks say of themselves: how much is missing before each, and when it was heard. All of it is the producer's word, and checked.
//! Pure: times are arguments.

use std::time::Duration;

use ringgear_ring::{Captured, RingError};

use crate::clock::MonotonicTime;

/// Sound that was heard longer ago can't be put in its place any more: what is published waits no longer for it.
const OLDEST: Duration = Duration::from_millis(1200);
/// By so much capture times may be off by chance.
const CHANCE: Duration = Duration::from_millis(100);
/// More than this is no gap, but a new beginning, whose place is found anew; of a live stream.
const LONGEST_GAP: Duration = Duration::from_millis(800);

/// A producer of sound breaks the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SoundError {
    /// Its ring's words.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// More blocks than anybody could have written.
    #[error("the counter committed rose by {blocks} blocks within {within:?}")]
    TooMany {
        /// How many since the look before.
        blocks: u64,
        /// When that was.
        within: Duration,
    },
    /// Samples that it has had already, or numbers beyond all counting.
    #[error(
        "a block of {count} samples begins with sample {first}, but the one before ended with {expected}"
    )]
    Number {
        /// The block's first sample, by its word.
        first: u64,
        /// How many it has.
        count: u64,
        /// Where the one before ended.
        expected: u64,
    },
}

/// Where a block belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// So many samples of silence come before it; none if it begins anew, as it does where more are missing than anybody would wait for.
    pub(super) missing: Option<u64>,
    /// When its end was captured, if its producer says, and is believed.
    pub(super) captured: Option<MonotonicTime>,
}

/// Follows the blocks of one session.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Samples a second.
    rate: u32,
    longest_gap: Duration,
    /// The number of the next sample; none before the first.
    next: Option<u64>,
    /// When the block before ended, by its producer's clock.
    ended: Option<MonotonicTime>,
    /// How many capture times were not believed.
    disbelieved: u64,
}

impl Blocks {
    pub(super) fn new(rate: u32) -> Self {
        Self {
            rate,
            longest_gap: LONGEST_GAP,
            next: None,
            ended: None,
            disbelieved: 0,
        }
    }

    /// The same with gaps of up to `longest`.
    pub(super) fn with_gaps(self, longest: Duration) -> Self {
        Self {
            longest_gap: longest,
            ..self
        }
    }

    /// How many capture times were not believed.
    pub(super) fn disbelieved(&self) -> u64 {
        self.disbelieved
    }

    /// A block of `count` samples was found at `now`. `suspended` is how long the machine has been suspended since its boot: CLOCK_MONOTONIC lacks that.
    pub(super) fn take(
        &mut self,
        first: u64,
        count: u64,
        captured: Option<Captured>,
        (now, suspended): (MonotonicTime, Duration),
    ) -> Result<Heard, SoundError> {
        let expected = self.next.unwrap_or(first);
        let (Some(next), true) = (first.checked_add(count), first >= expected) else {
            return Err(SoundError::Number {
                first,
                count,
                expected,
            });
        };
        self.next = Some(next);
        let most = self.samples_in(self.longest_gap);
        let by_number = first - expected;
        let lasts = self.time_of(count);
        let captured = captured.and_then(|captured| self.believe(captured, now, suspended));
        let by_time = match (captured, self.ended) {
            (Some(captured), Some(ended)) => {
                let leap = captured.saturating_since(ended);
                let leap = if leap > CHANCE { leap } else { Duration::ZERO };
                self.samples_in(leap)
            }
            _ => 0,
        };
        let missing = by_number.max(by_time);
        let ended = captured.map(|captured| after(captured, lasts));
        self.ended = ended;
        Ok(Heard {
            missing: (missing <= most).then_some(missing),
            captured: ended,
        })
    }

    /// A capture time as the rest of the house uses it; none if that can't be.
    fn believe(
        &mut self,
        captured: Captured,
        now: MonotonicTime,
        suspended: Duration,
    ) -> Option<MonotonicTime> {
        let captured = after(MonotonicTime(captured.0), suspended);
        let oldest = MonotonicTime(now.0.saturating_sub(nanos(OLDEST)));
        let known = (oldest..=now).contains(&captured);
        self.disbelieved += u64::from(!known);
        known.then_some(captured)
    }

    fn time_of(&self, samples: u64) -> Duration {
        let nanos = u128::from(samples) * 1_000_000_000 / u128::from(self.rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn samples_in(&self, time: Duration) -> u64 {
        let samples = time.as_nanos() * u128::from(self.rate) / 1_000_000_000;
        u64::try_from(samples).unwrap_or(u64::MAX)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn after(time: MonotonicTime, by: Duration) -> MonotonicTime {
    MonotonicTime(time.0.saturating_add(nanos(by)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(millis: u64) -> MonotonicTime {
        MonotonicTime(100 * SECOND + millis * 1_000_000)
    }

    fn captured(millis: u64) -> Option<Captured> {
        Some(Captured(at(millis).0))
    }

    fn now(millis: u64) -> (MonotonicTime, Duration) {
        (at(millis), Duration::ZERO)
    }

    #[test]
    fn a_block_says_when_its_end_was_heard() {
        let mut blocks = Blocks::new(8000);
        let heard = blocks.take(5, 80, captured(40), now(70)).unwrap();
        assert_eq!((heard.missing, heard.captured), (Some(0), Some(at(50))));
        let heard = blocks.take(85, 80, None, now(80)).unwrap();
        assert_eq!((heard.missing, heard.captured), (Some(0), None));
        let heard = blocks.take(165, 80, captured(60), now(90)).unwrap();
        assert_eq!((heard.missing, heard.captured), (Some(0), Some(at(70))));
        assert_eq!(blocks.disbelieved(), 0);
    }

    #[test]
    fn times_that_cannot_be_are_not_believed() {
        let mut blocks = Blocks::new(8000);
        let mut next = 0;
        for lie in [
            Some(Captured(1)),
            Some(Captured(u64::MAX)),
            captured(95),
            captured(5500),
        ] {
            // A lie about the future, and sound that is too old for its place.
            let heard = blocks.take(next, 80, lie, now(5000)).unwrap();
            assert_eq!(heard.captured, None, "{lie:?}");
            next += 80;
        }
        assert_eq!(blocks.disbelieved(), 4);
        // The clock of producers stands still while the machine sleeps.
        let slept = (at(5000), Duration::from_secs(50));
        let heard = blocks.take(next, 80, Some(Captured(at(4900).0 - 50 * SECOND)), slept);
        assert_eq!(heard.unwrap().captured, Some(at(4910)));
    }

    #[test]
    fn what_is_missing_by_number_or_time_is_silence() {
        let mut blocks = Blocks::new(8000);
        blocks.take(0, 80, captured(0), now(20)).unwrap();
        // The ring was full: ten blocks are gone, and the times say the same.
        let heard = blocks.take(880, 80, captured(110), now(130)).unwrap();
        assert_eq!((heard.missing, heard.captured), (Some(800), Some(at(120))));
        // The producer itself paused.
        let heard = blocks.take(960, 80, captured(620), now(640)).unwrap();
        assert_eq!(heard.missing, Some(4000));
        // Chance is no gap, whatever its sign.
        let mut next = 1040;
        for late in [60, 0, 95, 10] {
            let begins = 630 + (next - 1040) / 8 + late;
            let heard = blocks.take(next, 80, captured(begins), now(begins + 30));
            assert_eq!(heard.unwrap().missing, Some(0), "{late}");
            next += 80;
        }
        // After a long absence all begins anew, without hours of silence.
        let heard = blocks.take(next + (1 << 40), 80, None, now(9000)).unwrap();
        assert_eq!(heard.missing, None);
    }

    #[test]
    fn samples_that_were_there_already_are_a_lie() {
        let mut blocks = Blocks::new(8000);
        blocks.take(1000, 80, None, now(0)).unwrap();
        let error = blocks.take(1079, 80, None, now(10)).unwrap_err();
        assert_eq!(
            error,
            SoundError::Number {
                first: 1079,
                count: 80,
                expected: 1080
            }
        );
        assert!(blocks.take(u64::MAX, 80, None, now(20)).is_err());
    }
}
