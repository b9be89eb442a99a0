//! What encoders yield and the packager takes: samples and the description of the track that they belong to.

use bytes::Bytes;

use crate::picture::Size;
use crate::tick::Framerate;

/// Which of a stream's tracks, by its place in the config: 0 is the first rendition.
pub type TrackIndex = usize;

/// One encoded picture. Times are in the track's timescale: for video, the framerate's numerator.
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
    /// The sample as ISO/IEC 14496-15 stores it: length-prefixed NAL units for H.264 and HEVC.
    pub data: Bytes,
}

/// What the init segment and the manifests say of a track. Two equal descriptions make equal init segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackDescription {
    /// The sample entry box (`avc1`, `hvc1`, `av01`...) with its configuration, byte for byte as FFmpeg's MP4 muxer wrote it.
    pub sample_entry: Bytes,
    /// The RFC 6381 codecs parameter: `avc1.64001f`.
    pub codecs: String,
    /// The encoded size.
    pub size: Size,
    /// Its numerator is the timescale, its denominator a sample's duration.
    pub framerate: Framerate,
}
