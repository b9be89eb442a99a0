//! HLS playlists (RFC 8216 and draft rfc8216bis).

mod low_latency;

use std::fmt::Write;

use crate::sample::TrackIndex;
use crate::tick::{Framerate, Grid, Tick, UnixTime};
use crate::window::{Mode, OpenSegment, Period, Segment, Snapshot, TrackInit, TrackView};

pub use low_latency::{Extent, advance_part_limit, low_latency_media};

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
    open_media(&mut text, snapshot, VERSION);
    open_sequences(&mut text, snapshot);
    match snapshot.mode {
        Mode::Live => {}
        Mode::Event => line(&mut text, format_args!("#EXT-X-PLAYLIST-TYPE:EVENT")),
        Mode::Vod => line(&mut text, format_args!("#EXT-X-PLAYLIST-TYPE:VOD")),
    }
    let mut map = None;
    for segment in &view.listed {
        begin_segment(
            &mut text,
            &segment.period,
            (segment.first_tick, segment.starts()),
            track,
            &mut map,
        );
        end_segment(&mut text, segment);
    }
    if snapshot.ended {
        line(&mut text, format_args!("#EXT-X-ENDLIST"));
    }
    text
}

fn open_media(text: &mut String, snapshot: &Snapshot, version: u32) {
    line(text, format_args!("#EXTM3U"));
    line(text, format_args!("#EXT-X-VERSION:{version}"));
    line(text, format_args!("#EXT-X-INDEPENDENT-SEGMENTS"));
    let target = snapshot.target_duration;
    line(text, format_args!("#EXT-X-TARGETDURATION:{target}"));
}

fn open_sequences(text: &mut String, snapshot: &Snapshot) {
    let (media, discontinuity) = (snapshot.media_sequence, snapshot.discontinuity_sequence);
    line(text, format_args!("#EXT-X-MEDIA-SEQUENCE:{media}"));
    line(
        text,
        format_args!("#EXT-X-DISCONTINUITY-SEQUENCE:{discontinuity}"),
    );
}

/// What stands before a segment's media or its parts. `map` is the version of the EXT-X-MAP in force.
fn begin_segment<'a>(
    text: &mut String,
    period: &'a Period,
    (first_tick, starts): (Tick, UnixTime),
    track: TrackIndex,
    map: &mut Option<&'a str>,
) {
    if period.starts_discontinuity_at(first_tick) {
        line(text, format_args!("#EXT-X-DISCONTINUITY"));
        *map = None;
    }
    let version = period.tracks.get(track).map(|init| init.version.as_str());
    if let Some(version) = version
        && *map != Some(version)
    {
        line(text, format_args!("#EXT-X-MAP:URI=\"init-{version}.mp4\""));
        *map = Some(version);
    }
    line(text, format_args!("#EXT-X-PROGRAM-DATE-TIME:{starts}"));
}

fn end_segment(text: &mut String, segment: &Segment) {
    if segment.gap {
        line(text, format_args!("#EXT-X-GAP"));
    }
    let length = seconds(&segment.period.grid, segment.first_tick, segment.end_tick());
    line(text, format_args!("#EXTINF:{length},"));
    line(text, format_args!("{}.m4s", segment.number));
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a String succeeds");
}

// The difference of rounded instants instead of a rounded difference: sums stay within a microsecond, however long.
fn seconds(grid: &Grid, first: Tick, end: Tick) -> String {
    let micros = |tick| grid.time_of(tick).as_nanos() / 1_000;
    decimal(micros(end) - micros(first))
}

fn decimal(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
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
