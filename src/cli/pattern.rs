//! `ringgear pattern`: a producer of test frames, for trying a stream out and for tests.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringgear_producer::pattern::{Bars, PatternPainter};
use ringgear_producer::{FrameFormat, PixelFormat};

use super::clicks::Clap;
use super::feed::{self, Pacer, Stop};
use super::{CliError, parse_format};
use crate::clock::{Clock, MonotonicTime, SystemClock};
use crate::picture::Size;
use crate::tick::Framerate;

/// How often a picture flashes.
const BETWEEN_FLASHES: Duration = Duration::from_secs(2);

/// Feeds a stream with a moving test picture that carries each frame's number and capture time (docs/test-pattern.md).
#[derive(Clone, Debug, clap::Args)]
pub(super) struct PatternArgs {
    /// The stream to feed.
    pub stream: String,
    /// The frames' size.
    #[arg(long, value_name = "WxH", default_value = "1280x720")]
    pub size: Size,
    /// The frames' pixel format, by FFmpeg's name.
    #[arg(long, value_name = "FMT", default_value = "bgr24", value_parser = parse_format)]
    pub format: PixelFormat,
    /// Frames per second: 30, 29.97 or 30000/1001; the stream's by default.
    #[arg(long, value_name = "R")]
    pub framerate: Option<Framerate>,
    /// Capture each frame late by a random time of up to this.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    pub jitter: Duration,
    /// What the random times follow from; the same seed gives the same ones.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// End after this many frames.
    #[arg(long, value_name = "N")]
    pub frames: Option<u64>,
    /// End after this time.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub for_time: Option<Duration>,
    /// Flash every two seconds, and click at each flash: in the stream's own sound, whose source has to be "producer", or in this FIFO, as one channel of
    /// s16le at 48000 Hz.
    #[arg(long, value_name = "FIFO", num_args = 0..=1)]
    pub clap: Option<Option<PathBuf>>,
    /// End the session of another producer that holds the stream.
    #[arg(long)]
    pub take_over: bool,
    /// End when the process with this number ends, which has started this one.
    #[arg(long, value_name = "PID", hide = true)]
    pub with_parent: Option<i32>,
    /// Say of each frame when it was committed, for tests: `committed,FRAME,NANOSECONDS`, by the clock of the daemon's tick log.
    #[arg(long, hide = true)]
    pub tell_commits: bool,
}

/// Runs the subcommand until its end is reached or a signal asks for it.
///
/// # Errors
/// An impossible format, and whatever keeps the session from beginning or going on.
pub(super) fn run(args: PatternArgs, socket: &Path) -> Result<(), CliError> {
    let format = FrameFormat::packed(args.format, args.size.width, args.size.height)
        .map_err(|error| CliError::Usage(error.to_string()))?;
    let stop = Stop::on_signals()?;
    if let Some(parent) = args.with_parent {
        feed::end_with(parent)?;
    }
    let painter = PatternPainter::new(format.clone());
    let mut producer = feed::open(
        socket,
        &args.stream,
        format,
        args.take_over,
        "ringgear-pattern",
    )?;
    let framerate = match args.framerate {
        Some(framerate) => framerate,
        None => feed::stream_framerate(&producer)?,
    };
    let clock = SystemClock;
    let start = clock.monotonic();
    let mut pacer = Pacer::new(framerate, start);
    let mut clap = match &args.clap {
        None => None,
        Some(Some(path)) => Some(Clap::to_fifo(path, start)?),
        Some(None) => Some(Clap::to_stream(
            socket,
            (&args.stream, args.take_over),
            start,
        )?),
    };
    let between_flashes = u64::from(framerate.ticks_in(BETWEEN_FLASHES).get());
    let mut frames_captured = 0_u64;
    let mut jitter = Jitter::new(args.seed, args.jitter);
    while !stop.is_set() {
        let deadline = pacer.next_deadline(clock.monotonic());
        let over = args
            .frames
            .is_some_and(|frames| producer.next_frame_number() >= frames)
            || args
                .for_time
                .is_some_and(|time| deadline.saturating_since(start) >= time);
        if over {
            break;
        }
        clock.sleep_until(MonotonicTime(
            deadline.0.saturating_add(jitter.next_nanos()),
        ));
        let captured_ms = clock.wall().as_millis();
        let captured = ringgear_producer::now();
        let flashes = clap.is_some() && frames_captured.is_multiple_of(between_flashes);
        frames_captured += 1;
        if let Some(clap) = &mut clap {
            let now = clock.monotonic();
            clap.hear_until(now)?;
            if flashes {
                clap.click(now);
            }
        }
        let Some(mut frame) = producer.begin()? else {
            continue;
        };
        let number = frame.number();
        let frame_number = u32::try_from(number & u64::from(u32::MAX)).unwrap_or(0);
        let bars = Bars {
            frame_number,
            captured_ms,
        };
        painter.paint(bars, frame.bytes_mut());
        if flashes {
            painter.flash(frame.bytes_mut());
        }
        frame.commit(Some(captured));
        if args.tell_commits {
            // Not before: by then the daemon can see it.
            let committed = clock.monotonic().0;
            writeln!(std::io::stdout(), "committed,{number},{committed}")
                .map_err(|error| CliError::Failed(format!("can't write to stdout: {error}")))?;
        }
    }
    if let Some(clap) = clap {
        clap.close();
    }
    feed::close(producer);
    Ok(())
}

/// Random delays from 0 up to a limit, the same ones for the same seed (SplitMix64).
struct Jitter {
    state: u64,
    limit: u64,
}

impl Jitter {
    fn new(seed: u64, limit: Duration) -> Self {
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        Self { state: seed, limit }
    }

    fn next_nanos(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        u64::try_from((u128::from(mixed) * u128::from(self.limit)) >> 64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_even_bounded_and_repeatable() {
        let delays = |seed| {
            let mut jitter = Jitter::new(seed, Duration::from_millis(5));
            (0..10_000).map(|_| jitter.next_nanos()).collect::<Vec<_>>()
        };
        let first = delays(7);
        assert_eq!(first, delays(7));
        assert_ne!(first, delays(8));
        assert!(first.iter().all(|&nanos| nanos < 5_000_000));
        let mean = first.iter().sum::<u64>() / 10_000;
        assert!((2_400_000..2_600_000).contains(&mean), "{mean}");
        assert_eq!(Jitter::new(1, Duration::ZERO).next_nanos(), 0);
    }
}
