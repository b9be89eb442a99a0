//! One picture encoded ahead, for a time when no encoder runs. It is encoded by the encoder and with the arguments of the live
//! pictures, and checked as these are, so its samples fit their init segment.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::setpriority_process;

use super::{EncodeError, EncodePlan, EncodeRendition, Encoder, EncoderEvent, EncoderStart};
use crate::picture::Picture;
use crate::sample::{Sample, TrackDescription};
use crate::tick::Tick;

/// Nobody waits for it, and it yields to everybody: on a busy machine it takes a while.
const DEADLINE: Duration = Duration::from_secs(30);
/// It is made while live encoders run, and leaves them the processor.
const LOWEST_PRIORITY: i32 = 19;
/// How many bytes all renditions' samples may have together: they are kept. A dark 2160p picture has a hundred thousand.
const MOST_BYTES: usize = 4 << 20;

/// The streams of a daemon start together, and an encoder takes much memory: they take turns.
static TURN: Mutex<()> = Mutex::new(());

/// Encodes `picture`, shown `count` times, and gives each rendition's samples in the renditions' order. The first of them is a
/// keyframe, and with `second_keyframe` so is the second. Times are of no stream: they count from 0.
/// Blocks for half a minute at most, and for as long as others have their turn; lowers the calling thread's priority for good.
///
/// # Errors
/// When the encoder does not start, does not end in time, or yields what does not fit `descriptions` or the bound.
pub fn encode_ahead(
    plan: &EncodePlan,
    descriptions: &[TrackDescription],
    picture: &Picture,
    count: NonZeroUsize,
    second_keyframe: bool,
) -> Result<Vec<Vec<Sample>>, EncodeError> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // The encoder inherits it. Where that is refused, it has the priority of the others.
    let _ = setpriority_process(None, LOWEST_PRIORITY);
    // A rendition that shows fewer pictures needs more of them for as many samples.
    let every = |rendition: &EncodeRendition| rendition.every.get();
    let longest = plan.renditions.iter().map(every).max().unwrap_or(1) as usize;
    let pictures = count.saturating_mul(NonZeroUsize::new(longest).unwrap_or(NonZeroUsize::MIN));
    let second = plan
        .renditions
        .iter()
        .map(|rendition| second_keyframe.then_some(Tick(u64::from(every(rendition)))));
    let start = EncoderStart {
        first_tick: Tick(0),
        keyframes_at: second.collect(),
        step: NonZeroU32::MIN,
        queue: pictures,
        large_pipe: false,
    };
    let (sender, events) = sync_channel(64);
    let encoder = Encoder::start(plan, descriptions, &start, move |event| {
        // Who has given up waiting wants no more.
        let _ = sender.send(event);
    })?;
    for _ in 0..pictures.get() {
        // The queue has room for all. An encoder that is gone already says why.
        let _ = encoder.feed(picture.clone());
    }
    encoder.finish();
    let until = Instant::now() + DEADLINE;
    let mut samples = vec![Vec::with_capacity(count.get()); plan.renditions.len()];
    let mut bytes = 0;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match events.recv_timeout(left) {
            // More than that come of renditions that show more pictures than others.
            Ok(EncoderEvent::Sample(sample)) if samples[sample.track].len() == count.get() => {}
            Ok(EncoderEvent::Sample(sample)) => {
                bytes += sample.data.len();
                if bytes > MOST_BYTES {
                    return Err(EncodeError::AheadTooLarge { bound: MOST_BYTES });
                }
                samples[sample.track].push(sample);
            }
            Ok(EncoderEvent::Failed { error, .. }) => return Err(error),
            // One that ends without having read anything ends as expected, too.
            Ok(EncoderEvent::Exited(report))
                if report.expected && report.pictures == pictures.get() as u64 =>
            {
                return Ok(samples);
            }
            Ok(EncoderEvent::Exited(report)) => {
                return Err(EncodeError::AheadRefused {
                    status: report.status.clone(),
                    last_words: report.last_words(),
                });
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return Err(EncodeError::AheadTimeout { deadline: DEADLINE });
            }
        }
    }
}
