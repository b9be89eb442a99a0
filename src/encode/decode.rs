//! One picture out of encoded media, by FFmpeg: what the past of a stream looked like.

use std::path::Path;
use std::time::Duration;

use super::EncodeError;
use super::probe::{Finished, run};
use crate::picture::{PictureFormat, Size};

/// Decoding a segment up to its last picture takes a fraction of this on a machine that keeps up with encoding it.
const DEADLINE: Duration = Duration::from_secs(8);
/// The largest picture whose pixels are taken.
const MOST_PIXELS: u64 = 1 << 24;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    /// It could not be asked.
    #[error(transparent)]
    Ffmpeg(#[from] EncodeError),
    /// It took too long.
    #[error(
        "FFmpeg had not decoded the picture after {DEADLINE:?}: the machine is overloaded, try again"
    )]
    TooSlow,
    /// It is no picture of that size.
    #[error("FFmpeg found no picture of {size} there: {said}")]
    NoPicture {
        /// The encoding's size.
        size: Size,
        /// FFmpeg's last words.
        said: String,
    },
}

/// The first picture of `media`, an init segment and a segment of one video track, whose time is `time` in the track's timescale or later: the
/// pixels of a [`PictureFormat::I420`] picture of `size`. Takes a process and up to some seconds.
///
/// # Errors
/// When there is no such picture, or FFmpeg does not come up with it in time.
pub(crate) fn decode_picture(
    ffmpeg: &Path,
    media: Vec<u8>,
    time: u64,
    size: Size,
) -> Result<Vec<u8>, DecodeError> {
    let nothing = |said: String| DecodeError::NoPicture { size, said };
    if u64::from(size.width) * u64::from(size.height) > MOST_PIXELS || !size.is_even() {
        return Err(nothing("it is of a size that is not decoded".to_owned()));
    }
    let arguments = format!(
        "-hide_banner -nostats -loglevel error -threads 1 -copyts -f mp4 -i pipe:0 -an -sn -dn -vf select=gte(pts\\,{time}) \
         -fps_mode passthrough -frames:v 1 -f rawvideo -pix_fmt {} pipe:1",
        PictureFormat::I420.pix_fmt()
    );
    let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
    match run(ffmpeg, &arguments, media, 1, DEADLINE)? {
        None => Err(DecodeError::TooSlow),
        Some(Finished { output, .. }) if output.len() == PictureFormat::I420.bytes(size) => {
            Ok(output)
        }
        Some(Finished { status, lines, .. }) => {
            let said = lines.last().cloned();
            Err(nothing(said.unwrap_or_else(|| status.to_string())))
        }
    }
}
