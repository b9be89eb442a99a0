//! What encoders yield and the packager takes: samples and the description of the track that they belong to.

use std::num::NonZeroU32;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::picture::Size;
use crate::tick::{Framerate, SAMPLE_RATE};

/// Which of a stream's tracks, by its place in the config: 0 is the first rendition.
pub type TrackIndex = usize;

/// One encoded picture or audio frame. Times are in the track's timescale: for video, the framerate's numerator; for audio, its sample rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The track that it belongs to.
    pub track: TrackIndex,
    /// When it is decoded, since the epoch.
    pub decode_time: u64,
    /// How long it is shown.
    pub duration: u32,
    /// Presentation minus decode time; 0 in live streams, which never reorder.
    pub composition_offset: i32,
    /// Whether decoding can start here (an IDR picture).
    pub keyframe: bool,
    /// The sample as ISO/IEC 14496-15 stores it: length-prefixed NAL units for H.264 and HEVC; of audio, the raw frame.
    pub data: Bytes,
}

/// What the init segment and the manifests say of a track. Two equal descriptions make equal init segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackDescription {
    /// The sample entry box (`avc1`, `hvc1`, `av01`, `mp4a`, `Opus`...) with its configuration, byte for byte as FFmpeg's MP4 muxer wrote it.
    pub sample_entry: Bytes,
    /// The RFC 6381 codecs parameter: `avc1.64001f`.
    pub codecs: String,
    /// The encoded size; 0x0 for audio.
    pub size: Size,
    /// Samples per second. Of video, its numerator is the timescale, its denominator a sample's duration.
    pub framerate: Framerate,
    /// What makes it an audio track; none for video.
    pub audio: Option<AudioFormat>,
}

/// What audio tracks have beside their codec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioFormat {
    /// Channels.
    pub channels: u16,
    /// How many of the [`SAMPLE_RATE`] samples of a second one frame has: 1024 for AAC, 960 for Opus.
    pub frame: NonZeroU32,
    /// Beside copied pictures, whose timescale its track has: how many samples a second are heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied_rate: Option<NonZeroU32>,
}

impl AudioFormat {
    /// How many samples a second are heard.
    pub fn rate(&self) -> NonZeroU32 {
        self.copied_rate.unwrap_or(SAMPLE_RATE)
    }
}

impl TrackDescription {
    /// Units per second of its decode times.
    pub fn timescale(&self) -> u32 {
        match self.audio {
            Some(audio) if audio.copied_rate.is_none() => SAMPLE_RATE.get(),
            _ => self.framerate.num(),
        }
    }

    /// How long its samples last in units of the timescale, where none is longer than the others.
    pub fn sample_duration(&self) -> u32 {
        let counted = self.audio.filter(|audio| audio.copied_rate.is_none());
        counted.map_or(self.framerate.den(), |audio| audio.frame.get())
    }
}
