//! Stills of a past moment: FFmpeg decodes the segment that has it, a few at a time at most.

use std::time::Duration;

use bytes::Bytes;
use hyper::http::StatusCode;

use super::body::Response;
use super::cut::{CutError, Piece, Stock, Taken, taken, video_track};
use super::origin::JPEG;
use super::reply::{self, Asked, Cache};
use super::{Site, StreamPort, clip, jpeg, moment, stills};
use crate::clock::MonotonicTime;
use crate::encode::{DecodeError, decode_picture};
use crate::package::MoviePlace;
use crate::picture::{Picture, PictureFormat, PixelBuffer, Size};
use crate::tick::{Tick, UnixTime};

/// Decoders that run at once.
pub(super) const MOST_AT_ONCE: usize = 2;
/// The same for one address.
pub(super) const MOST_OF_ONE: usize = 1;
/// How long a viewer waits for one of them.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest segment that is taken into memory.
const MOST_BYTES: u64 = 64 << 20;

/// Why there is no still.
#[derive(Debug, thiserror::Error)]
enum ThenError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("the segment of that moment can't be read: {0}")]
    Read(#[from] std::io::Error),
    #[error("the segment of that moment has {0} bytes, more than are taken for a picture")]
    TooLong(u64),
    #[error("the picture can't be encoded as JPEG: {0}")]
    Jpeg(#[from] jpeg_encoder::EncodingError),
    #[error("the decoding was cut off: {0}")]
    Cut(#[from] tokio::task::JoinError),
}

/// What has to be decoded.
struct Found {
    piece: Piece,
    init: Bytes,
    size: Size,
    /// The picture's time in the track's timescale.
    time: u64,
}

/// Answers with what the stream showed at `at`.
pub(super) async fn answer(
    site: &Site,
    asked: &Asked,
    port: &StreamPort,
    at: UnixTime,
    query: Option<&str>,
) -> Response {
    let Some(ffmpeg) = port.ffmpeg.clone() else {
        return reply::not_found("no_such_media", "this stream has no past");
    };
    if let Some(refusal) = clip::without_clock(port) {
        return refusal;
    }
    let rendition = moment::value(query, "rendition");
    let width = moment::value(query, "width").and_then(|width| width.parse().ok());
    let until = at.saturating_add(Duration::from_nanos(1));
    let owned = port.clone();
    let stocks = tokio::task::spawn_blocking(move || clip::stocks(&owned, (at, until))).await;
    let stocks = stocks.unwrap_or_default();
    let found = match find(&port.name, &stocks, at, rendition.as_deref()) {
        Ok(found) => found,
        Err(error) => return clip::no_cut(&error),
    };
    drop(stocks);
    let Some(share) = site.decoders.take(asked.counted, PATIENCE).await else {
        return reply::not_yet(&format!(
            "{MOST_AT_ONCE} pictures of the past are being decoded, or {MOST_OF_ONE} for this address: try again in a moment"
        ));
    };
    let (window, archive) = (port.window.clone(), port.archive.clone());
    let made = tokio::task::spawn_blocking(move || {
        let _share = share;
        let bytes = found.piece.bytes;
        if bytes > MOST_BYTES {
            return Err(ThenError::TooLong(bytes));
        }
        let source = clip::Source::of(&found.piece, &window.borrow(), archive.as_ref())?;
        let length = usize::try_from(bytes).map_err(std::io::Error::other)?;
        let mut media = found.init.to_vec();
        media.extend_from_slice(&source.read(0, length)?);
        let pixels = decode_picture(&ffmpeg, media, found.time, found.size)?;
        let pixels = PixelBuffer::unpooled(pixels);
        let picture = Picture::new(PictureFormat::I420, found.size, MonotonicTime(0), pixels);
        let width = stills::offered_width(width, found.size.width);
        Ok(Bytes::from(jpeg::encode(&picture, width)?))
    });
    match made.await.map_err(ThenError::from).and_then(|made| made) {
        Ok(jpeg) => reply::media(asked, JPEG, Cache::NoStore, [jpeg]),
        Err(error) => {
            tracing::warn!(stream = port.name, %error, "no snapshot of the past");
            let message = error.to_string();
            reply::error(StatusCode::INTERNAL_SERVER_ERROR, "no_snapshot", &message)
        }
    }
}

/// The segment of `rendition`, or of the best, that shows `at`.
fn find(
    stream: &str,
    stocks: &[Stock],
    at: UnixTime,
    rendition: Option<&str>,
) -> Result<Found, CutError> {
    let mut bounds: Option<(UnixTime, UnixTime)> = None;
    let mut known = rendition.is_none();
    for (snapshot, folder) in stocks {
        let Some(track) = video_track(snapshot, rendition) else {
            continue;
        };
        known = true;
        let view = &snapshot.tracks[track];
        for one in taken(view) {
            let bounds = bounds.get_or_insert((one.starts, one.ends));
            bounds.1 = bounds.1.max(one.ends);
            let Some(init) = one.period.tracks.get(track) else {
                continue;
            };
            if !(one.starts..one.ends).contains(&at) {
                continue;
            }
            let place = MoviePlace {
                track: 1,
                from: 0,
                to: 0,
                sequence: 0,
            };
            return Ok(Found {
                piece: one.piece(&view.name, folder.as_ref(), place),
                init: init.init.clone(),
                size: init.description.size,
                time: time_of(&one, at, init.description.sample_duration()),
            });
        }
    }
    let to = at;
    match bounds {
        _ if !known => Err(CutError::UnknownRendition(
            rendition.unwrap_or_default().to_owned(),
        )),
        None => Err(CutError::Nothing(stream.to_owned())),
        Some((oldest, newest)) if (oldest..newest).contains(&at) => {
            Err(CutError::Hole { from: at, to })
        }
        Some((oldest, newest)) => Err(CutError::Outside {
            from: at,
            to,
            oldest,
            newest,
        }),
    }
}

/// The decode time of the sample of `one` that is shown at `at`, each of which lasts `sample`.
fn time_of(one: &Taken<'_>, at: UnixTime, sample: u32) -> u64 {
    let (grid, sample) = (&one.period.grid, u64::from(sample.max(1)));
    let shown = grid.tick_at(at).max(one.first_tick).0;
    let last = one.first_tick.0 + one.ticks.max(1) - 1;
    let time = grid.decode_time(Tick(shown.min(last)));
    if grid.cut.is_none() {
        return time - time % sample;
    }
    // A copied stream's pictures are no whole number of samples from anywhere: the next one, or the last there is.
    let end = grid.decode_time(one.first_tick.plus(one.ticks));
    time.min(end.saturating_sub(sample * 3 / 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fixtures::snapshot;
    use crate::tick::Grid;

    fn time(grid: &Grid, tick: u64) -> UnixTime {
        grid.time_of(Tick(tick))
    }

    #[test]
    fn the_segment_and_the_sample_of_a_moment_are_found() {
        let window = snapshot("door", 7, 3, 6);
        let grid = window.tracks[0].listed[0].period.grid;
        let stocks = [(window, None)];
        for (tick, segment) in [(4 * 60, 4), (7 * 60 + 59, 7), (13 * 60 + 29, 13)] {
            let found = find("door", &stocks, time(&grid, tick), None).unwrap();
            assert_eq!((found.piece.number.0, found.time), (segment, tick));
        }
        // Between two ticks, the first is shown.
        let moment = time(&grid, 8 * 60 + 3).saturating_add(Duration::from_millis(20));
        assert_eq!(
            find("door", &stocks, moment, None).unwrap().time,
            8 * 60 + 3
        );
    }

    #[test]
    fn a_moment_that_is_not_there_is_told() {
        let window = snapshot("door", 7, 3, 6);
        let grid = window.tracks[0].listed[0].period.grid;
        let stocks = [(window, None)];
        for tick in [0, 14 * 60] {
            let error = find("door", &stocks, time(&grid, tick), None).err();
            assert!(matches!(error, Some(CutError::Outside { .. })), "{error:?}");
        }
        let error = find("door", &stocks, time(&grid, 500), Some("other")).err();
        assert_eq!(error, Some(CutError::UnknownRendition("other".to_owned())));
        assert_eq!(
            find("door", &[], time(&grid, 500), None).err(),
            Some(CutError::Nothing("door".to_owned()))
        );
    }
}
