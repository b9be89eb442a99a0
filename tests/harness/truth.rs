//! What was published against what ingest meant to: the bars in each picture tell the frame, the tick log which one it was to be.

use std::collections::HashMap;

use super::daemon::Daemon;
use super::tick_log::{self, Kind};
use super::{hls, media};

/// Decodes every picture that the folder's playlist of `stream` lists in `rendition`, and compares it with the tick log. Says how many
/// there were, and how many of them fresh.
#[track_caller]
pub(crate) fn published_is_what_ingest_meant(
    daemon: &Daemon,
    stream: &str,
    rendition: &str,
) -> (usize, usize) {
    compare(daemon, stream, rendition, false)
}

/// The same of a daemon with `backfill = "5s"` that was killed: where its last pictures had not reached the folder, the slate stands, and a gap where
/// nothing could be published for longer than that.
#[track_caller]
pub(crate) fn published_is_what_ingest_meant_or_the_slate(
    daemon: &Daemon,
    stream: &str,
    rendition: &str,
) -> (usize, usize) {
    compare(daemon, stream, rendition, true)
}

#[track_caller]
fn compare(daemon: &Daemon, stream: &str, rendition: &str, or_the_slate: bool) -> (usize, usize) {
    let rows: HashMap<u64, _> = tick_log::read(&daemon.place.tick_logs(), stream)
        .into_iter()
        .map(|row| (row.tick, row))
        .collect();
    let last = *rows.keys().max().expect("ticks are logged");
    let folder = daemon.place.live().join(stream).join(rendition);
    let playlist = std::fs::read_to_string(folder.join("media.m3u8")).unwrap();
    let mut playlist = hls::media(&playlist).unwrap();
    if or_the_slate {
        for gap in playlist.segments.chunk_by(|a, b| a.gap == b.gap) {
            let seconds: f64 = gap.iter().map(|segment| segment.seconds).sum();
            // It ends at the segment's edge before the first tick that is encoded again. What the list begins with may have begun before it.
            let begun = gap[0].number > playlist.segments[0].number;
            let short = gap[0].gap && begun && seconds < 5.0 - gap[0].seconds;
            assert!(!short, "a gap of {seconds} s at {:?}", gap[0]);
        }
        playlist.segments.retain(|segment| !segment.gap);
    }
    let shown = media::decode_published(&folder, &playlist);
    let mut fresh = 0;
    for picture in &shown {
        let decoded = picture
            .bars
            .as_ref()
            .map(|bars| u64::from(bars.frame_number));
        if or_the_slate && decoded.is_none() {
            continue;
        }
        // A stop completes what is open with the last picture.
        let row = rows.get(&picture.time.min(last)).unwrap_or_else(|| {
            panic!(
                "tick {} of {stream} was published and not logged",
                picture.time
            )
        });
        assert_eq!(
            decoded, row.frame,
            "the picture of tick {} of {stream}, {:?}",
            row.tick, row.kind
        );
        fresh += usize::from(row.kind == Kind::Fresh);
    }
    (shown.len(), fresh)
}
