//! The stream's sound by its place in time: what has been made of the source so far, kept for a while so that an encoder that is started again
//! can be given it once more. Before and beside what is kept there is silence.

use std::collections::VecDeque;
use std::time::Duration;

use super::Pcm;
use crate::tick::SAMPLE_RATE;

/// Samples counted from the epoch, without holes up to its end.
pub(super) struct Timeline {
    end: u64,
    /// How many samples are kept at most.
    most: usize,
    samples: VecDeque<Pcm>,
}

impl Timeline {
    /// An empty one, which begins at sample `end` and keeps those of the time `kept`.
    pub(super) fn new(end: u64, kept: Duration) -> Self {
        let most = kept.as_nanos() * u128::from(SAMPLE_RATE.get()) / 1_000_000_000;
        Self {
            end,
            most: usize::try_from(most).unwrap_or(usize::MAX),
            samples: VecDeque::new(),
        }
    }

    /// The first sample that is not there yet.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The first sample that is kept.
    pub(super) fn first(&self) -> u64 {
        self.end - self.samples.len() as u64
    }

    /// Adds what comes next.
    pub(super) fn push(&mut self, samples: &[Pcm]) {
        self.end += samples.len() as u64;
        self.samples.extend(samples);
        let surplus = self.samples.len().saturating_sub(self.most);
        self.samples.drain(..surplus);
    }

    /// The samples from `from` to before `to`, which is not after the end.
    pub(super) fn get(&self, from: u64, to: u64) -> impl Iterator<Item = Pcm> {
        let first = self.first();
        (from..to).map(move |at| {
            let kept = at.checked_sub(first);
            let kept = kept.and_then(|at| self.samples.get(usize::try_from(at).ok()?));
            kept.copied().unwrap_or_default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_can_be_had_again_and_the_rest_is_silent() {
        let mut timeline = Timeline::new(1000, Duration::from_secs(12));
        timeline.push(&[[1.0; 2], [2.0; 2]]);
        assert_eq!(timeline.end(), 1002);
        let heard: Vec<Pcm> = timeline.get(998, 1002).collect();
        assert_eq!(heard, [[0.0; 2], [0.0; 2], [1.0; 2], [2.0; 2]]);
        for _ in 0..20 {
            timeline.push(&vec![[0.5; 2]; 48_000]);
        }
        assert_eq!(timeline.samples.len(), 12 * 48_000);
        let end = timeline.end();
        assert_eq!(timeline.get(end - 1, end).next(), Some([0.5; 2]));
        assert_eq!(timeline.get(1000, 1001).next(), Some([0.0; 2]));
    }
}
