//! Which frame a tick takes, out of those that wait in the ring.

/// A tick's choice among the waiting frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// None waits: the picture before is shown again.
    Repeat,
    /// The oldest.
    Oldest,
    /// The newest; all older ones are superseded.
    Newest,
}

/// The oldest frame while at most `slack` newer ones wait, else the newest. One frame of slack absorbs the jitter
/// between a camera's clock and the grid's; more would only add delay.
pub(crate) fn choose(waiting: usize, slack: u32) -> Choice {
    match waiting {
        0 => Choice::Repeat,
        n if n - 1 <= slack as usize => Choice::Oldest,
        _ => Choice::Newest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_taken_while_no_more_than_the_slack_wait_behind_it() {
        assert_eq!(choose(0, 1), Choice::Repeat);
        assert_eq!(choose(1, 1), Choice::Oldest);
        assert_eq!(choose(2, 1), Choice::Oldest);
        assert_eq!(choose(3, 1), Choice::Newest);
    }

    #[test]
    fn without_slack_the_newest_is_taken() {
        assert_eq!(choose(1, 0), Choice::Oldest);
        assert_eq!(choose(2, 0), Choice::Newest);
    }

    /// A camera of the stream's own rate whose frames come up to `jitter` early or late, against ticks that read the ring.
    fn repeats_and_drops(slack: u32, jitter_us: i64) -> (u32, u32) {
        let period_us = 33_333_i64;
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut arrivals: Vec<i64> = (0..9_000)
            .map(|frame| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let spread = i64::try_from(random % 2_000).unwrap() - 1_000;
                // The phase drifts by one period in the run, so every phase between camera and grid is met.
                frame * period_us + frame * period_us / 9_000 / 10 + spread * jitter_us / 1_000
            })
            .collect();
        arrivals.sort_unstable();
        let (mut next, mut waiting, mut repeats, mut drops) = (0, 0_usize, 0, 0);
        for tick in 3..8_900_i64 {
            while next < arrivals.len() && arrivals[next] <= tick * period_us {
                waiting += 1;
                next += 1;
            }
            if tick < 30 {
                // Settle.
                waiting = waiting.min(1 + slack as usize);
            }
            match choose(waiting, slack) {
                Choice::Repeat => repeats += 1,
                Choice::Oldest => waiting -= 1,
                Choice::Newest => {
                    drops += u32::try_from(waiting - 1).unwrap();
                    waiting = 0;
                }
            }
        }
        (repeats, drops)
    }

    #[test]
    fn one_frame_of_slack_absorbs_jitter_that_would_beat_into_drops_and_repeats() {
        let (repeats, drops) = repeats_and_drops(1, 5_000);
        assert!(
            repeats + drops <= 4,
            "{repeats} repeats and {drops} drops with slack"
        );
        let (repeats, drops) = repeats_and_drops(0, 5_000);
        assert!(
            repeats + drops > 100,
            "{repeats} repeats and {drops} drops without"
        );
    }
}
