//! HLS playlists (RFC 8216 and draft rfc8216bis).

mod low_latency;

use std::fmt::Write;

use crate::sample::{TrackDescription, TrackIndex};
use crate::tick::{Framerate, Grid, Tick, UnixTime};
use crate::window::{Mode, OpenSegment, Period, Segment, Snapshot, TrackView};

pub use low_latency::{Extent, advance_part_limit, low_latency_media};

/// What playlists with EXT-X-MAP need (RFC 8216, section 7).
const VERSION: u32 = 6;

/// The multivariant playlist: one variant for each video track whose encoding is known, in the order of the config; with audio, so many for each of its
/// tracks, each of which is a group of its own, for players switch between groups as they do between bitrates.
pub fn multivariant(snapshot: &Snapshot) -> String {
    let mut text = String::with_capacity(128 + 256 * snapshot.tracks.len());
    line(&mut text, format_args!("#EXTM3U"));
    line(&mut text, format_args!("#EXT-X-VERSION:{VERSION}"));
    line(&mut text, format_args!("#EXT-X-INDEPENDENT-SEGMENTS"));
    let encodings = snapshot.tracks.iter().enumerate();
    let encodings = encodings.filter_map(|(index, track)| {
        let period = track.newest_period()?;
        Some((track, &period.tracks.get(index)?.description))
    });
    let (audio, video): (Vec<_>, Vec<_>) =
        encodings.partition(|(_, description)| description.audio.is_some());
    for (track, description) in &audio {
        write_group(&mut text, track, description);
    }
    if audio.is_empty() {
        for (track, description) in &video {
            write_variant(&mut text, track, description, None);
        }
    }
    for group in &audio {
        for (track, description) in &video {
            write_variant(&mut text, track, description, Some(*group));
        }
    }
    text
}

/// An audio track as the one rendition of its group.
fn write_group(text: &mut String, track: &TrackView, description: &TrackDescription) {
    let channels = description.audio.map_or(0, |audio| audio.channels);
    let name = &track.name;
    line(
        text,
        format_args!(
            "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"{name}\",NAME=\"audio\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"{channels}\",URI=\"{name}/media.m3u8\""
        ),
    );
}

fn write_variant(
    text: &mut String,
    track: &TrackView,
    description: &TrackDescription,
    audio: Option<(&TrackView, &TrackDescription)>,
) {
    let (mut peak, mut average) = bandwidths(track);
    let (size, mut codecs) = (description.size, quotable(&description.codecs));
    let mut group = String::new();
    if let Some((audio, description)) = audio {
        let (audio_peak, audio_average) = bandwidths(audio);
        peak += audio_peak;
        average += audio_average;
        codecs = format!("{codecs},{}", quotable(&description.codecs));
        group = format!(",AUDIO=\"{}\"", audio.name);
    }
    let rate = three_decimals(description.framerate);
    line(
        text,
        format_args!(
            "#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average},CODECS=\"{codecs}\",RESOLUTION={size},FRAME-RATE={rate}{group}"
        ),
    );
    line(text, format_args!("{}/media.m3u8", track.name));
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
        Mode::Live | Mode::Kept => {}
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
