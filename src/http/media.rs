//! How long media stays fetchable: what the cache headers of rule 7 promise, from rule 2's retention.

use std::time::Duration;

use crate::tick::UnixTime;
use crate::window::{Segment, Snapshot, TrackView};

/// How much longer `segment` of `track` is fetchable, at least: none when it has expired.
pub(super) fn segment_life(
    snapshot: &Snapshot,
    track: &TrackView,
    segment: &Segment,
    now: UnixTime,
) -> Option<Duration> {
    if let Some(expires) = segment.expires {
        return (expires > now).then(|| expires.saturating_since(now));
    }
    // Still listed: it leaves the playlist once the window has moved past its start, then stays for its own duration
    // plus that of the playlist.
    let listed = match (track.listed.first(), track.listed.last()) {
        (Some(first), Some(last)) => end(last).saturating_since(first.starts()),
        _ => Duration::ZERO,
    };
    let newest = track
        .listed
        .last()
        .map_or(segment.starts(), |last| end(last));
    let window = segment
        .period
        .grid
        .video_framerate()
        .duration_of(snapshot.window_ticks);
    let until_left = segment
        .starts()
        .saturating_add(window)
        .saturating_since(newest);
    let own = segment.framerate().duration_of(u64::from(segment.ticks));
    Some(until_left + own + listed)
}

/// How much longer the init segment `version` of the track at `index` is fetchable, at least.
pub(super) fn init_life(
    snapshot: &Snapshot,
    index: usize,
    track: &TrackView,
    version: &str,
    now: UnixTime,
) -> Option<Duration> {
    let uses = |segment: &&Segment| {
        let init = segment.period.tracks.get(index);
        init.is_some_and(|init| init.version == version)
    };
    let segments = track.listed.iter().rev().chain(track.retained.iter().rev());
    match segments.map(|segment| &**segment).find(uses) {
        Some(newest) => segment_life(snapshot, track, newest, now),
        None => Some(open_life(snapshot, track)),
    }
}

/// How much longer what belongs to the open segment is fetchable, at least: it will be listed for a whole window.
pub(super) fn open_life(snapshot: &Snapshot, track: &TrackView) -> Duration {
    let grid = track.newest_period().map(|period| period.grid);
    grid.map_or(Duration::ZERO, |grid| {
        grid.video_framerate().duration_of(snapshot.window_ticks)
    })
}

fn end(segment: &Segment) -> UnixTime {
    segment.period.grid.time_of(segment.end_tick())
}
