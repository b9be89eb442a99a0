//! `ringgear push --audio`: a producer of sound for anything that writes samples to a pipe.

use std::io::{ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

use ringgear_producer::{SampleFormat, SoundFormat};

use super::CliError;
use super::feed::{self, Stop};
use crate::clock::{Clock, MonotonicTime, SystemClock};

/// So many blocks a second are written.
const BLOCKS_PER_SECOND: u32 = 100;
/// Sound from a pipe may be so much ahead of the clock: what records it hands it over a good deal at a time.
const AHEAD: Duration = Duration::from_millis(200);

/// What comes in.
#[derive(Clone, Copy, Debug)]
pub(super) struct AudioInput {
    pub(super) samples: SampleFormat,
    pub(super) rate: u32,
    pub(super) channels: u32,
    /// Whether it is there all at once, as a file is; else somebody may be recording it.
    pub(super) is_file: bool,
    pub(super) unpaced: bool,
}

/// Pushes the samples that come from `input`.
pub(super) fn push(
    (stream, take_over): (&str, bool),
    given: AudioInput,
    socket: &Path,
    mut input: impl Read,
    stop: &Stop,
) -> Result<(), CliError> {
    let format = SoundFormat::new(given.samples, given.rate, given.channels)
        .map_err(|error| CliError::Usage(error.to_string()))?;
    let mut producer = feed::open_sound(socket, stream, format, take_over, "ringgear-push")?;
    let block = format.rate().div_ceil(BLOCKS_PER_SECOND) as usize * format.sample_bytes();
    let mut block = vec![0; block];
    let ahead = match given.is_file {
        true => Duration::ZERO,
        false => AHEAD,
    };
    let mut pace = Pace::new(format.rate(), ahead);
    let result = loop {
        let asked = SystemClock.monotonic();
        let length = match read_block(&mut input, &mut block) {
            Ok(length) => length,
            Err(error) => break Err(CliError::Failed(format!("can't read the input: {error}"))),
        };
        if stop.is_set() {
            break Ok(());
        }
        let whole = length - length % format.sample_bytes();
        if whole > 0 {
            let count = (whole / format.sample_bytes()) as u64;
            let due = pace.next((asked, SystemClock.monotonic()), count);
            if !given.unpaced {
                SystemClock.sleep_until(due);
            }
            producer.write(&block[..whole], None)?;
        }
        if length < block.len() {
            break match length - whole {
                0 => Ok(()),
                rest => Err(CliError::Failed(format!(
                    "the input ends within a sample: {rest} of its {} bytes came; are --format and --channels right?",
                    format.sample_bytes()
                ))),
            };
        }
    };
    feed::close_sound(producer);
    result
}

/// Fills `block`; how much of it, which is less at the input's end alone.
fn read_block(input: &mut impl Read, block: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < block.len() {
        match input.read(&mut block[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// When blocks may go out. What is recorded at this moment keeps its own pace: whenever the input has to be waited for, the count begins anew. What is there
/// already, as a file's sound is, is held to the clock.
#[derive(Debug)]
struct Pace {
    rate: u32,
    ahead: Duration,
    began: Option<MonotonicTime>,
    /// Samples since then.
    samples: u64,
}

impl Pace {
    fn new(rate: u32, ahead: Duration) -> Self {
        Self {
            rate,
            ahead,
            began: None,
            samples: 0,
        }
    }

    /// When a block of `count` samples, which was asked for and came at these times, may go out.
    fn next(&mut self, (asked, came): (MonotonicTime, MonotonicTime), count: u64) -> MonotonicTime {
        let lasts = self.time_of(count);
        if self.began.is_none() || came.saturating_since(asked) >= lasts / 2 {
            self.began = Some(came);
            self.samples = 0;
        }
        let due = self.time_of(self.samples).saturating_sub(self.ahead);
        self.samples += count;
        let began = self.began.unwrap_or(came);
        MonotonicTime(
            began
                .0
                .saturating_add(u64::try_from(due.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    fn time_of(&self, samples: u64) -> Duration {
        let nanos = u128::from(samples) * 1_000_000_000 / u128::from(self.rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> MonotonicTime {
        MonotonicTime(millis * 1_000_000)
    }

    /// When blocks of 10 ms go out that come at these times, each asked for when the one before is out.
    fn sent(ahead: Duration, comes: impl Iterator<Item = u64>) -> Vec<u64> {
        let mut pace = Pace::new(8000, ahead);
        let mut out = at(0);
        let send = |comes| {
            let came = out.max(at(comes));
            out = pace.next((out, came), 80).max(came);
            out.0 / 1_000_000
        };
        comes.map(send).collect()
    }

    #[test]
    fn a_file_goes_out_at_the_pace_at_which_it_is_heard() {
        let out = sent(Duration::ZERO, (0..1000).map(|_| 3));
        assert_eq!(out, (0..1000).map(|n| 3 + 10 * n).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_recorded_goes_out_as_it_comes() {
        // A microphone whose clock is a thousandth too fast, in periods of an eighth of a second: never held back, in a minute or an hour.
        let comes = |n: u64| 125 + n / 12 * 125 * 999 / 1000;
        let out = sent(AHEAD, (0..6000).map(comes));
        let late = out.iter().zip((0..6000).map(comes));
        let late = late.map(|(out, comes)| out - comes).max().unwrap();
        assert!(late < 10, "{late} ms");
    }

    #[test]
    fn a_pipe_that_is_always_full_is_held_to_the_clock_too() {
        let out = sent(AHEAD, (0..1000).map(|_| 3));
        assert_eq!((out[0], out[20], out[999]), (3, 3, 3 + 9990 - 200));
    }
}
