//! HLS playlists (RFC 8216 and draft rfc8216bis).

use std::fmt::Write;

use crate::sample::TrackIndex;
use crate::tick::{Framerate, UnixTime};
use crate::window::{OpenSegment, Segment, Snapshot, TrackInit, TrackView};

/// What playlists with EXT-X-MAP need (RFC 8216, section 7).
const VERSION: u32 = 6;

/// The multivariant playlist: one variant for each track whose encoding is known, in the order of the config.
pub fn multivariant(snapshot: &Snapshot) -> String {
    let mut text = String::with_capacity(128 + 256 * snapshot.tracks.len());
    line(&mut text, format_args!("#EXTM3U"));
    line(&mut text, format_args!("#EXT-X-VERSION:{VERSION}"));
    line(&mut text, format_args!("#EXT-X-INDEPENDENT-SEGMENTS"));
    for (index, track) in snapshot.tracks.iter().enumerate() {
        let encoding = track
            .newest_period()
            .and_then(|period| period.tracks.get(index));
        let Some(TrackInit { description, .. }) = encoding else {
            continue;
        };
        let (peak, average) = bandwidths(track);
        let (size, codecs) = (description.size, quotable(&description.codecs));
        let rate = three_decimals(description.framerate);
        line(
            &mut text,
            format_args!(
                "#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average},CODECS=\"{codecs}\",RESOLUTION={size},FRAME-RATE={rate}"
            ),
        );
        line(&mut text, format_args!("{}/media.m3u8", track.name));
    }
    text
}

/// The media playlist of one track.
///
/// # Panics
/// If the snapshot has no such track.
pub fn media(snapshot: &Snapshot, track: TrackIndex) -> String {
    let view = &snapshot.tracks[track];
    let mut text = String::with_capacity(256 + 128 * view.listed.len());
    line(&mut text, format_args!("#EXTM3U"));
    line(&mut text, format_args!("#EXT-X-VERSION:{VERSION}"));
    line(&mut text, format_args!("#EXT-X-INDEPENDENT-SEGMENTS"));
    line(
        &mut text,
        format_args!("#EXT-X-TARGETDURATION:{}", snapshot.target_duration),
    );
    line(
        &mut text,
        format_args!("#EXT-X-MEDIA-SEQUENCE:{}", snapshot.media_sequence),
    );
    line(
        &mut text,
        format_args!(
            "#EXT-X-DISCONTINUITY-SEQUENCE:{}",
            snapshot.discontinuity_sequence
        ),
    );
    let mut map: Option<&str> = None;
    for segment in &view.listed {
        if segment.starts_discontinuity() {
            line(&mut text, format_args!("#EXT-X-DISCONTINUITY"));
            map = None;
        }
        let version = segment
            .period
            .tracks
            .get(track)
            .map(|init| init.version.as_str());
        if let Some(version) = version
            && map != Some(version)
        {
            line(
                &mut text,
                format_args!("#EXT-X-MAP:URI=\"init-{version}.mp4\""),
            );
            map = Some(version);
        }
        line(
            &mut text,
            format_args!("#EXT-X-PROGRAM-DATE-TIME:{}", segment.starts()),
        );
        if segment.gap {
            line(&mut text, format_args!("#EXT-X-GAP"));
        }
        let micros = duration_micros(segment);
        line(
            &mut text,
            format_args!("#EXTINF:{}.{:06},", micros / 1_000_000, micros % 1_000_000),
        );
        line(&mut text, format_args!("{}.m4s", segment.number));
    }
    if snapshot.ended {
        line(&mut text, format_args!("#EXT-X-ENDLIST"));
    }
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a String succeeds");
}

// The difference of rounded instants instead of a rounded difference: sums stay within a microsecond, however long.
fn duration_micros(segment: &Segment) -> u64 {
    let micros = |time: UnixTime| time.as_nanos() / 1_000;
    let end = segment.period.grid.time_of(segment.end_tick());
    micros(end) - micros(segment.starts())
}

// Measured over the listed segments; before the first, over what there is of the open one. A variant has to say something.
fn bandwidths(track: &TrackView) -> (u64, u64) {
    let open = track.open.as_ref().map_or(0, open_bandwidth);
    let peak = if track.peak_bandwidth > 0 {
        track.peak_bandwidth
    } else {
        open
    };
    let average = if track.average_bandwidth > 0 {
        track.average_bandwidth
    } else {
        peak
    };
    (peak.max(1), average.max(1))
}

fn open_bandwidth(open: &OpenSegment) -> u64 {
    let bytes: usize = open.parts.iter().map(|part| part.bytes.len()).sum();
    let ticks: u64 = open.parts.iter().map(|part| u64::from(part.ticks)).sum();
    let rate = open.period.grid.framerate;
    let bits = bytes as u64 * 8;
    (bits * u64::from(rate.num())).div_ceil((ticks * u64::from(rate.den())).max(1))
}

fn three_decimals(rate: Framerate) -> String {
    let (num, den) = (u64::from(rate.num()), u64::from(rate.den()));
    let thousandths = (num * 1000 + den / 2) / den;
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
}

// A quoted string has no way to hold these (RFC 8216, 4.2); no codecs parameter has them.
fn quotable(text: &str) -> String {
    text.replace(['"', '\r', '\n'], "")
}

#[cfg(test)]
mod tests;
