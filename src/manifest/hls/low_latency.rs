//! The media playlist with parts (draft rfc8216bis): what the origin serves. Players that know no parts find the same segments in it as in the
//! plain one.

use std::time::Duration;

use super::{begin_segment, decimal, end_segment, line, open_media, open_sequences, seconds};
use crate::sample::TrackIndex;
use crate::tick::{Framerate, Grid, Tick, UnixTime};
use crate::window::{ListedPart, Snapshot, TrackView};

/// What playlists with EXT-X-SKIP need (draft rfc8216bis, 8).
const VERSION: u32 = 9;
/// In target durations: parts are listed for as long (rule 14), and a player that plays whole segments holds back so much (rule 13).
const HOLD_BACK: u32 = 3;
/// In target durations: what is older may be left out of a delta update (rule 13).
const SKIP_UNTIL: u32 = 6;
/// In part targets: how far low-latency players stay behind the newest part (rule 13).
const PART_HOLD_BACK: u64 = 3;

/// How much of the playlist is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// All of it.
    Full,
    /// A delta update: EXT-X-SKIP stands for what is older than CAN-SKIP-UNTIL, if anything is.
    Delta,
}

/// The media playlist of one track, with the parts of its newest segments.
///
/// # Panics
/// If the snapshot has no such track.
pub fn low_latency_media(snapshot: &Snapshot, track: TrackIndex, extent: Extent) -> String {
    let view = &snapshot.tracks[track];
    let target = Duration::from_secs(snapshot.target_duration);
    let end = end_of(view);
    let mut text = String::with_capacity(2048 + 512 * view.listed.len());
    open_media(&mut text, snapshot, VERSION);
    let part_target = part_target_micros(snapshot, view.is_audio());
    // The same in all renditions.
    let longest_part = part_target.max(part_target_micros(snapshot, !view.is_audio()));
    line(
        &mut text,
        format_args!(
            "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL={},HOLD-BACK={},PART-HOLD-BACK={}",
            decimal(micros(target * SKIP_UNTIL)),
            decimal(micros(target * HOLD_BACK)),
            decimal(longest_part * PART_HOLD_BACK),
        ),
    );
    let part_seconds = decimal(part_target);
    line(
        &mut text,
        format_args!("#EXT-X-PART-INF:PART-TARGET={part_seconds}"),
    );
    open_sequences(&mut text, snapshot);
    let skipped = match extent {
        Extent::Full => 0,
        Extent::Delta => skipped(view, end, target * SKIP_UNTIL),
    };
    if skipped > 0 {
        line(
            &mut text,
            format_args!("#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}"),
        );
    }
    let parts_from = end.saturating_sub(target * HOLD_BACK);
    let mut map = None;
    for segment in &view.listed[skipped..] {
        let grid = &segment.period.grid;
        begin_segment(
            &mut text,
            &segment.period,
            (segment.first_tick, segment.starts()),
            track,
            &mut map,
        );
        if segment.starts() >= parts_from {
            for part in segment.listed_parts() {
                write_part(&mut text, segment.number.0, grid, &part);
            }
        }
        end_segment(&mut text, segment);
    }
    if snapshot.ended {
        line(&mut text, format_args!("#EXT-X-ENDLIST"));
        return text;
    }
    if let Some(open) = &view.open {
        let starts = open.period.grid.time_of(open.first_tick);
        let place = (open.first_tick, starts);
        begin_segment(&mut text, &open.period, place, track, &mut map);
        for part in &open.parts {
            let grid = &open.period.grid;
            write_part(&mut text, open.number.0, grid, &ListedPart::Whole(part));
        }
    }
    if let Some((segment, part)) = view.next_part() {
        line(
            &mut text,
            format_args!("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{segment}.{part}.m4s\""),
        );
    }
    for other in snapshot
        .tracks
        .iter()
        .filter(|other| other.name != view.name)
    {
        if let Some(last) = other.last_place() {
            line(
                &mut text,
                format_args!(
                    "#EXT-X-RENDITION-REPORT:URI=\"../{}/media.m3u8\",LAST-MSN={},LAST-PART={}",
                    other.name, last.segment, last.part
                ),
            );
        }
    }
    text
}

/// How many parts ahead of the newest one a player may ask for, of pictures or of sound (draft rfc8216bis, 6.2.5.2: the Advance Part Limit).
pub fn advance_part_limit(snapshot: &Snapshot, audio: bool) -> u64 {
    const UPPER: u64 = 3;
    let part = part_target_micros(snapshot, audio).max(1);
    (UPPER * 1_000_000).div_ceil(part).max(UPPER)
}

fn write_part(text: &mut String, segment: u64, grid: &Grid, part: &ListedPart<'_>) {
    let (number, first, ticks, attribute) = match part {
        ListedPart::Whole(part) => {
            let independent = if part.independent {
                ",INDEPENDENT=YES"
            } else {
                ""
            };
            (part.number, part.first_tick, part.ticks, independent)
        }
        ListedPart::Missing {
            number,
            first_tick,
            ticks,
        } => (*number, *first_tick, *ticks, ",GAP=YES"),
    };
    let length = seconds(grid, first, first.plus(u64::from(ticks)));
    line(
        text,
        format_args!("#EXT-X-PART:DURATION={length},URI=\"{segment}.{number}.m4s\"{attribute}"),
    );
}

/// PART-TARGET: no listed part of video, or of audio, is longer. It is the same in every such rendition, and another one only after the config
/// has changed it, or the distances of a copied source's samples; 0 for audio where there is none.
fn part_target_micros(snapshot: &Snapshot, audio: bool) -> u64 {
    let tracks = snapshot.tracks.iter();
    let tracks = tracks.filter(|view| view.is_audio() == audio);
    let grids = tracks.flat_map(|view| {
        let open = view.open.as_ref().map(|open| open.period.grid);
        let end = end_of(view);
        let target = Duration::from_secs(snapshot.target_duration);
        let with_parts = end.saturating_sub(target * HOLD_BACK);
        let listed = view.listed.iter().rev();
        listed
            .take_while(move |segment| segment.starts() >= with_parts)
            .map(|segment| segment.period.grid)
            .chain(open)
    });
    let longest = grids.map(|grid| {
        let part = grid.time_of(Tick(u64::from(grid.ticks_per_part.get())));
        part.as_nanos().div_ceil(1_000)
    });
    let longest = longest.max();
    longest
        .max(longest_part_micros(snapshot, audio))
        .unwrap_or(if audio { 0 } else { 1_000_000 })
}

/// The longest part that is listed of a copied stream, whose samples may last longer than any before.
fn longest_part_micros(snapshot: &Snapshot, audio: bool) -> Option<u64> {
    if !snapshot.is_copied() {
        return None;
    }
    let tracks = snapshot.tracks.iter();
    let tracks = tracks.filter(|view| view.is_audio() == audio);
    let longest = tracks.flat_map(|view| {
        let target = Duration::from_secs(snapshot.target_duration);
        let with_parts = end_of(view).saturating_sub(target * HOLD_BACK);
        let listed = view.listed.iter().rev();
        let listed = listed.take_while(move |segment| segment.starts() >= with_parts);
        let whole = listed.flat_map(|segment| &segment.parts);
        let open = view.open.iter().flat_map(|open| &open.parts);
        whole.chain(open).map(|part| part.ticks).max()
    });
    let micros = |ticks: u32| {
        let length = Framerate::COPIED.duration_of(ticks.into());
        length.as_nanos().div_ceil(1000)
    };
    longest
        .max()
        .and_then(|ticks| u64::try_from(micros(ticks)).ok())
}

/// How many of the oldest segments lie before the skip boundary, which is `until` before the end.
fn skipped(view: &TrackView, end: UnixTime, until: Duration) -> usize {
    let boundary = end.saturating_sub(until);
    let old = view.listed.iter().take_while(|segment| {
        let ends = segment.period.grid.time_of(segment.end_tick());
        ends < boundary
    });
    old.count()
}

/// Where the playlist ends, parts of the open segment included.
fn end_of(view: &TrackView) -> UnixTime {
    let listed = view.listed.last();
    let listed = listed.map(|last| last.period.grid.time_of(last.end_tick()));
    let open = view.open.as_ref();
    let open = open.map(|open| open.period.grid.time_of(open.end_tick()));
    open.or(listed).unwrap_or_default()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
