//! When a source's pictures count as captured, and when they are due. Pure: the clock is an argument, CLOCK_MONOTONIC in nanoseconds as
//! capture times have it.

use std::time::Duration;

use ringgear_ring::Captured;

/// A picture that is so far from where it is expected begins a new count.
const OFF: i64 = 1_000_000_000;
/// For so long the least delay of a live source's pictures is looked for, before it is taken out.
const WINDOW: u64 = 5_000_000_000;
/// A gap in a file's times that is longer is none: nobody waits for it.
const LONGEST_GAP: i64 = 10_000_000_000;

fn signed(nanos: u64) -> i64 {
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

/// A live source's clock as seen from here. Pictures come through a network and a decoder, each later than it was captured by a delay
/// that varies; their own times are even, but of another clock, which drifts and jumps. The least delay counts as none.
#[derive(Debug, Default)]
pub(super) struct LiveClock {
    /// From the source's time to ours, once there was a picture.
    offset: Option<i64>,
    /// The least delay in this window, and the window's end.
    least: i64,
    end: u64,
}

impl LiveClock {
    /// When a picture of the source's time `at`, which has come `now`, was captured: never later than `now`.
    pub(super) fn captured(&mut self, at: Duration, now: Captured) -> Captured {
        let at = i64::try_from(at.as_nanos()).unwrap_or(i64::MAX);
        let here = signed(now.0);
        let fresh = here.saturating_sub(at);
        let offset = match self.offset {
            Some(offset) if (0..=OFF).contains(&fresh.saturating_sub(offset)) => offset,
            // The first one, an early one, or one after a jump.
            _ => {
                (self.least, self.end) = (i64::MAX, now.0.saturating_add(WINDOW));
                fresh
            }
        };
        let delay = fresh.saturating_sub(offset);
        self.least = self.least.min(delay);
        let mut next = offset;
        if now.0 >= self.end {
            // A clock that is slower than ours makes every delay grow.
            next = next.saturating_add(self.least);
            (self.least, self.end) = (i64::MAX, now.0.saturating_add(WINDOW));
        }
        self.offset = Some(next);
        Captured(now.0.saturating_sub(delay.unsigned_abs()))
    }
}

/// Paces what has no pace of its own, as a file: each picture is due as long after the first as their times say.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    /// When the first picture's time was, and the time of the one before.
    origin: Option<i64>,
    before: i64,
}

impl Pacer {
    /// When a picture of the source's time `at` is due, asked `now`. One after a jump is due now, as is one that comes too late by more
    /// than a second: nothing is made up for.
    pub(super) fn due(&mut self, at: Duration, now: Captured) -> Captured {
        let at = i64::try_from(at.as_nanos()).unwrap_or(i64::MAX);
        let here = signed(now.0);
        let step = at.saturating_sub(self.before);
        self.before = at;
        let origin = match self.origin {
            Some(origin)
                if (0..=LONGEST_GAP).contains(&step)
                    && here.saturating_sub(origin.saturating_add(at)) <= OFF =>
            {
                origin
            }
            _ => here.saturating_sub(at),
        };
        self.origin = Some(origin);
        Captured(u64::try_from(origin.saturating_add(at)).unwrap_or(now.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const MILLI: u64 = 1_000_000;
    const START: u64 = 100 * SECOND;

    fn at(nanos: u64) -> Duration {
        Duration::from_nanos(nanos)
    }

    #[test]
    fn jitter_of_the_network_is_not_in_a_live_sources_capture_times() {
        let mut clock = LiveClock::default();
        let mut captured = Vec::new();
        // 25 pictures a second, each 20 to 29 ms after its capture; the first was late.
        for frame in 0..500 {
            let jitter = if frame == 0 { 80 } else { 20 + frame * 7 % 10 };
            let now = START + frame * 40 * MILLI + jitter * MILLI;
            captured.push(clock.captured(at(frame * 40 * MILLI), Captured(now)).0);
        }
        for pair in captured[20..].windows(2) {
            assert_eq!(pair[1] - pair[0], 40 * MILLI);
        }
        assert_eq!(captured[499], START + 499 * 40 * MILLI + 20 * MILLI);
    }

    #[test]
    fn a_drifting_clock_is_followed_in_both_directions() {
        for drift_millionths in [-300_i64, 300] {
            let mut clock = LiveClock::default();
            for frame in 0..90_000_u64 {
                let now = START + frame * 40 * MILLI;
                let off = i64::try_from(frame * 40 * MILLI).unwrap() / 1_000_000 * drift_millionths;
                let source = (frame * 40 * MILLI).checked_add_signed(off).unwrap();
                let captured = clock.captured(at(source), Captured(now)).0;
                let delay = now - captured;
                assert!(delay <= 4 * MILLI, "{delay} ns at frame {frame}");
            }
        }
    }

    #[test]
    fn a_jump_begins_anew_and_a_stall_is_caught_up_with() {
        let mut clock = LiveClock::default();
        let mut of = |source: u64, now: u64| {
            START + now - clock.captured(at(source), Captured(START + now)).0
        };
        assert_eq!(of(5 * SECOND, 0), 0);
        assert_eq!(of(9000 * SECOND, 40 * MILLI), 0, "forwards");
        assert_eq!(of(SECOND, 80 * MILLI), 0, "backwards");
        // 3 s without a picture, which then come at once.
        assert_eq!(of(SECOND + 40 * MILLI, 3 * SECOND), 0);
        assert_eq!(of(4 * SECOND, 3 * SECOND + MILLI), 0);
        assert_eq!(
            of(4 * SECOND + 40 * MILLI, 3 * SECOND + 61 * MILLI),
            20 * MILLI
        );
    }

    #[test]
    fn a_file_plays_at_the_speed_of_its_times() {
        let mut pacer = Pacer::default();
        let mut due =
            |source: u64, now: u64| pacer.due(at(source), Captured(START + now)).0 - START;
        assert_eq!(due(7 * SECOND, 0), 0);
        assert_eq!(due(7 * SECOND + 40 * MILLI, 0), 40 * MILLI);
        assert_eq!(due(12 * SECOND, 40 * MILLI), 5 * SECOND, "a slide show");
        assert_eq!(
            due(12 * SECOND + 40 * MILLI, 5 * SECOND + 900 * MILLI),
            5 * SECOND + 40 * MILLI,
            "a hiccup"
        );
        assert_eq!(
            due(12 * SECOND + 80 * MILLI, 9 * SECOND),
            9 * SECOND,
            "a standstill"
        );
        assert_eq!(
            due(12 * SECOND + 120 * MILLI, 9 * SECOND),
            9 * SECOND + 40 * MILLI
        );
        assert_eq!(due(500 * SECOND, 10 * SECOND), 10 * SECOND, "a hole");
        assert_eq!(due(0, 11 * SECOND), 11 * SECOND, "backwards");
    }
}
