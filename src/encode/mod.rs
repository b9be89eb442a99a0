//! Pictures in, samples out: FFmpeg's command line, its processes, and what they say. One process encodes all of a
//! stream's renditions; [`probe()`] tries each encoder first and yields its track's description, [`Encoder`] runs them.
//! When one is dead ([`StallWatch`]) and how soon another one follows ([`Breaker`]) are rules that pictures and sound share; whose encoder it is starts it.

mod aac;
mod ahead;
mod arguments;
pub mod audio;
mod bitstream;
mod breaker;
mod cadence;
mod codec;
pub(crate) mod copied;
pub(crate) mod copied_sound;
mod decode;
pub(crate) mod description;
mod encoder;
mod ffmpeg;
mod graph;
mod hardware;
pub mod nut;
mod picture_pipe;
mod probe;
pub(crate) mod process;
mod stall;
mod track_reader;
mod vitals;

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

pub use ahead::encode_ahead;
pub use bitstream::BitstreamError;
pub(crate) use breaker::Breaker;
pub use cadence::Cadence;
pub(crate) use decode::{DecodeError, decode_picture};
pub use encoder::{Encoder, EncoderEvent, EncoderStart, ExitReport, FeedError};
pub use ffmpeg::{FfmpegInfo, find_ffmpeg};
pub(crate) use probe::ends_before;
pub use probe::{ProbeCache, probe, probe_each};
pub(crate) use stall::{Patience, START_ALLOWANCE, StallWatch, UNKILLABLE, WORKING};
pub use vitals::Vitals;

use crate::config::{RateControl, RenditionPlan, StreamPlan};
use crate::picture::{PictureFormat, Size};
use crate::tick::{Framerate, Grid, Tick};
use crate::window::Mode;

/// What a stream's encoder is to do, for one input format.
#[derive(Clone, Debug)]
pub struct EncodePlan {
    /// The FFmpeg that does it.
    pub ffmpeg: FfmpegInfo,
    /// How its pictures are stored.
    pub input_format: PictureFormat,
    /// Its pictures' size, even.
    pub input_size: Size,
    /// Framerate and segment edges.
    pub grid: Grid,
    /// How many pictures an encoder may work on at once: 1 where each is to come back as soon as it can.
    pub at_once: NonZeroU32,
    /// One track each, in this order; at least one.
    pub renditions: Vec<EncodeRendition>,
}

/// One rendition, its size resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodeRendition {
    /// Its name, for messages.
    pub name: String,
    /// The encoded size, even.
    pub size: Size,
    /// How many ticks each of its samples lasts.
    pub every: NonZeroU32,
    /// FFmpeg's name of the encoder.
    pub codec: String,
    /// Which of several hardware encoders it is.
    pub device: Option<String>,
    /// The encoder's preset; `-cpu-used` for libvpx-vp9 and libaom-av1.
    pub preset: Option<String>,
    /// Bits per second or constant quality.
    pub rate: RateControl,
    /// More encoder options, after ours.
    pub options: Vec<(String, String)>,
    /// FFmpeg's filters that its pictures go through before they are scaled.
    pub filter: Option<String>,
    /// FFmpeg's output options and their values in turn, after all others.
    pub output_args: Vec<String>,
}

impl EncodeRendition {
    /// What `plan` says, for pictures of `size`.
    pub fn new(plan: &RenditionPlan, size: Size) -> Self {
        Self {
            name: plan.name.clone(),
            size,
            every: plan.every,
            codec: plan.codec.clone(),
            device: plan.device.clone(),
            preset: plan.preset.clone(),
            rate: plan.rate,
            options: plan.options.clone(),
            filter: plan.filter.clone(),
            output_args: plan.output_args.clone(),
        }
    }
}

impl EncodePlan {
    /// The plan for `stream` when its pictures are `input_size` (even) in `input_format`.
    pub fn new(
        ffmpeg: FfmpegInfo,
        stream: &StreamPlan,
        input_format: PictureFormat,
        input_size: Size,
    ) -> Self {
        let renditions = stream
            .renditions
            .iter()
            .map(|plan| EncodeRendition::new(plan, plan.size.unwrap_or(input_size)));
        Self {
            ffmpeg,
            input_format,
            input_size,
            grid: stream.grid,
            at_once: at_once(stream.mode),
            renditions: renditions.collect(),
        }
    }

    /// How many pictures a second a rendition has; its numerator is the stream's timescale.
    pub fn rate_of(&self, rendition: &EncodeRendition) -> Framerate {
        let framerate = self.grid.framerate;
        framerate.every(rendition.every).unwrap_or(framerate)
    }
}

/// How many pictures the encoders of a stream may work on at once. Each of a live stream is awaited; a recording is to be made quickly, which takes half
/// as many again as there are processors, since some wait for others. Each is kept until it comes back, so there is a bound.
pub(crate) fn at_once(mode: Mode) -> NonZeroU32 {
    const MOST: usize = 16;
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let pictures = match mode {
        Mode::Live | Mode::Kept => 1,
        Mode::Event | Mode::Vod => (processors * 3 / 2).min(MOST),
    };
    u32::try_from(pictures)
        .ok()
        .and_then(NonZeroU32::new)
        .unwrap_or(NonZeroU32::MIN)
}

/// What can go wrong with FFmpeg.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// There is no such program.
    #[error(
        "no FFmpeg at '{path}': install it (Debian, Ubuntu: apt install ffmpeg), or name it in [ffmpeg] path"
    )]
    NotFound {
        /// What was looked for.
        path: String,
    },
    /// It does not run, or does not talk like FFmpeg.
    #[error("'{path}' is no working FFmpeg: {why}; name another in [ffmpeg] path")]
    Unusable {
        /// The program.
        path: String,
        /// What it did.
        why: String,
    },
    /// It lacks options that are needed.
    #[error("'{path}' is FFmpeg {version}: version 5.1 or newer is needed")]
    TooOld {
        /// The program.
        path: String,
        /// Its version.
        version: String,
    },
    /// It was built without an encoder.
    #[error("this FFmpeg ({path}, {version}) has no encoder {codec}: {mend}")]
    NoEncoder {
        /// The program.
        path: String,
        /// Its version.
        version: String,
        /// What it lacks.
        codec: String,
        /// What to do.
        mend: String,
    },
    /// An encoder refused its options, or failed.
    #[error(
        "rendition '{rendition}': the encoder {codec} does not start: {last_words}; mend its size, preset, rate or options"
    )]
    Refused {
        /// Whose encoder.
        rendition: String,
        /// FFmpeg's name of it.
        codec: String,
        /// The end of what FFmpeg said.
        last_words: String,
    },
    /// An encoder did not answer its probe.
    #[error(
        "rendition '{rendition}': the encoder {codec} yields nothing in {deadline:?}; try a faster preset or a smaller size"
    )]
    ProbeTimeout {
        /// Whose encoder.
        rendition: String,
        /// FFmpeg's name of it.
        codec: String,
        /// How long it was given.
        deadline: Duration,
    },
    /// A probe's MP4 file has no usable sample entry.
    #[error(
        "rendition '{rendition}': the encoder {codec} yields an MP4 file that can't be published: {why}; choose another codec"
    )]
    ProbeOutput {
        /// Whose encoder.
        rendition: String,
        /// FFmpeg's name of it.
        codec: String,
        /// What is wrong with it.
        why: String,
    },
    /// The system refused a process, a pipe or a thread.
    #[error("FFmpeg can't be started: {what}: {source}")]
    Start {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The plan, its descriptions and its start don't belong together.
    #[error("the encoder's plan is for {renditions} renditions, but {given} {what} are given")]
    Mismatch {
        /// How many the plan has.
        renditions: usize,
        /// What is counted.
        what: &'static str,
        /// How many there are.
        given: usize,
    },
    /// FFmpeg's output can't be read.
    #[error("rendition '{rendition}': {source}")]
    Nut {
        /// Whose output.
        rendition: String,
        /// Why.
        source: nut::NutError,
    },
    /// The encoder's packets don't fit their track.
    #[error("rendition '{rendition}': {source}")]
    Bitstream {
        /// Whose output.
        rendition: String,
        /// Why.
        source: BitstreamError,
    },
    /// A live encoder may not reorder pictures.
    #[error(
        "rendition '{rendition}': the encoder reorders pictures; take B-frames out of its options (bf=0)"
    )]
    Reordered {
        /// Whose output.
        rendition: String,
    },
    /// A sample's time is not the next tick's.
    #[error(
        "rendition '{rendition}': a sample at {pts} of time base {num}/{den} where tick {expected} was due; take options that change timestamps or drop frames out"
    )]
    OffGrid {
        /// Whose output.
        rendition: String,
        /// The sample's time.
        pts: u64,
        /// The time base's numerator.
        num: u64,
        /// The time base's denominator.
        den: u64,
        /// What was due.
        expected: Tick,
    },
    /// A segment would start without a keyframe.
    #[error(
        "rendition '{rendition}': no keyframe at tick {tick}, where one was asked for; the encoder or its options don't allow forced keyframes"
    )]
    NoKeyframe {
        /// Whose output.
        rendition: String,
        /// Where it was due.
        tick: Tick,
    },
    /// A picture that was to be encoded ahead was not: the encoder ended.
    #[error("the encoder ended on a single picture ({status}): {last_words}")]
    AheadRefused {
        /// How it ended.
        status: String,
        /// The end of what FFmpeg said.
        last_words: String,
    },
    /// A picture that was to be encoded ahead was not in time.
    #[error(
        "the encoder did not return a single picture in {deadline:?}; try a faster preset or a smaller size"
    )]
    AheadTimeout {
        /// How long it was given.
        deadline: Duration,
    },
    /// A picture that was encoded ahead is too large to be kept.
    #[error(
        "the encoder makes more than {bound} bytes of a dark picture; choose a lower bitrate or a higher crf"
    )]
    AheadTooLarge {
        /// The most that is kept, all renditions together.
        bound: usize,
    },
}
