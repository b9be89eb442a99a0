//! The DASH MPD with a SegmentTimeline (ISO/IEC 23009-1), for every player. A period becomes a Period as soon as one of its
//! segments is listed, and leaves with its last.

mod low_latency;

use std::fmt::Write;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::tick::{Grid, Tick};
use crate::window::{Mode, Period, Segment, Snapshot, TrackInit, TrackView};

use super::same_period;

pub use low_latency::mpd_low_latency;

/// Where players learn the time (ISO/IEC 23009-1, 5.8.4.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UtcTiming {
    /// GET of this URL answers an ISO 8601 time; it is resolved against the MPD's. For the origin: `time`.
    HttpIso(String),
    /// The `Date` header of a HEAD of this URL, resolved likewise. For plain web servers: the MPD itself, `manifest.mpd`.
    HttpHead(String),
}

/// What an MPD says beside the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MpdOptions {
    /// Where players learn the time while the stream is live.
    pub utc_timing: UtcTiming,
}

/// The segments of one period in one track, without holes.
type Run<'a> = Vec<&'a Segment>;

/// The MPD: dynamic while the stream is live, static when it has ended, or is a recording. It claims exactly the listed segments.
///
/// Period@start stays what it was for ever, so a Period usually starts before its first listed segment; an ended stream's
/// mediaPresentationDuration is the end of its last Period, counted from the same zero.
pub fn mpd(snapshot: &Snapshot, options: &MpdOptions) -> String {
    let periods = listed_periods(snapshot);
    let mut text = String::with_capacity(1024 + 1024 * snapshot.tracks.len() * periods.len());
    text.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    open_mpd(&mut text, snapshot, &periods);
    for (index, listed) in periods.iter().enumerate() {
        let closed = index + 1 < periods.len() || snapshot.ended;
        write_period(&mut text, snapshot, listed, closed);
    }
    if !is_static(snapshot) {
        write_utc_timing(&mut text, 1, &options.utc_timing);
    }
    text.push_str("</MPD>\n");
    text
}

// A recording that grows says how long it is so far (ISO/IEC 23009-1, 5.3.1.2): it has no clock that players could follow.
fn is_static(snapshot: &Snapshot) -> bool {
    snapshot.ended || snapshot.mode.is_recorded()
}

fn write_utc_timing(text: &mut String, depth: usize, timing: &UtcTiming) {
    let (scheme, value) = match timing {
        UtcTiming::HttpIso(url) => ("urn:mpeg:dash:utc:http-iso:2014", url),
        UtcTiming::HttpHead(url) => ("urn:mpeg:dash:utc:http-head:2014", url),
    };
    let value = escaped(value);
    line(
        text,
        depth,
        format_args!("<UTCTiming schemeIdUri=\"{scheme}\" value=\"{value}\"/>"),
    );
}

/// A period with listed media, and its segments in each track.
struct ListedPeriod<'a> {
    period: &'a Arc<Period>,
    tracks: Vec<Run<'a>>,
    /// The time on its grid at which the presentation would have begun, had there been no hole since.
    zero: u64,
}

impl ListedPeriod<'_> {
    fn end(&self) -> Tick {
        let segments = self.tracks.iter().flatten();
        // Audio's ticks are its own.
        let video = segments.filter(|segment| segment.period.grid.audio.is_none());
        let ends = video.map(|segment| segment.end_tick());
        ends.max().unwrap_or(self.period.first_tick)
    }

    fn nanos(&self, tick: Tick) -> u64 {
        let nanos = self.period.grid.time_of(tick).as_nanos();
        nanos.saturating_sub(self.zero)
    }

    fn end_nanos(&self) -> u64 {
        self.nanos(self.end())
    }

    fn start_nanos(&self) -> u64 {
        self.nanos(self.period.first_tick)
    }
}

// The periods that have listed media, oldest first.
fn listed_periods(snapshot: &Snapshot) -> Vec<ListedPeriod<'_>> {
    let mut periods: Vec<ListedPeriod<'_>> = Vec::new();
    for (index, track) in snapshot.tracks.iter().enumerate() {
        for segment in track.listed.iter().filter(|segment| !segment.gap) {
            let known = periods
                .iter()
                .rposition(|listed| same_period(listed.period.of(index), &segment.period));
            if known.is_none() && segment.period.grid.audio.is_some() {
                // Audio follows the video: without any there is no period.
                continue;
            }
            let at = known.unwrap_or_else(|| {
                periods.push(ListedPeriod {
                    period: &segment.period,
                    tracks: vec![Vec::new(); snapshot.tracks.len()],
                    zero: 0,
                });
                periods.len() - 1
            });
            append(&mut periods[at].tracks[index], segment);
        }
    }
    periods.sort_by_key(ListedPeriod::start_nanos);
    // A Period is there once all its AdaptationSets are (rule 26): audio's first segment comes a moment after the video's.
    let lacks_audio = |listed: &ListedPeriod<'_>| {
        let mut tracks = listed.tracks.iter().enumerate();
        tracks.any(|(track, run)| run.is_empty() && listed.period.is_audio(track))
    };
    if periods.len() > 1 && periods.last().is_some_and(lacks_audio) {
        periods.pop();
    }
    if snapshot.mode == Mode::Kept {
        join(&mut periods);
    }
    periods
}

// What is kept of the past begins at zero, and nobody waits through a hole in it.
fn join(periods: &mut [ListedPeriod<'_>]) {
    let mut end = 0;
    for period in periods {
        period.zero = period.start_nanos() - end;
        end = period.end_nanos();
    }
}

// $Number$ is counted along the timeline, so a hole would give every later segment another's name. The window starts a new
// period after each gap; should it ever not, what comes before the hole is left out (rule 30).
fn append<'a>(run: &mut Run<'a>, segment: &'a Segment) {
    let follows = run.last().is_none_or(|before| {
        before.number.next() == segment.number && before.end_tick() == segment.first_tick
    });
    if !follows {
        run.clear();
    }
    run.push(segment);
}

fn open_mpd(text: &mut String, snapshot: &Snapshot, periods: &[ListedPeriod<'_>]) {
    let (kind, mut attributes) = if is_static(snapshot) {
        let end = periods.last().map_or(0, ListedPeriod::end_nanos);
        (
            "static",
            vec![("mediaPresentationDuration", iso_duration(end))],
        )
    } else {
        (
            "dynamic",
            live_attributes(snapshot, periods.last().map(|listed| listed.period.grid)),
        )
    };
    let longest = periods
        .iter()
        .map(|listed| nanos_of(listed.period.grid, segment_ticks(listed.period.grid)));
    let longest = iso_duration(
        longest
            .max()
            .unwrap_or(snapshot.target_duration * 1_000_000_000),
    );
    attributes.push(("maxSegmentDuration", longest.clone()));
    attributes.push(("minBufferTime", longest));
    text.push_str("<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\"");
    text.push_str(
        " profiles=\"urn:mpeg:dash:profile:isoff-live:2011,urn:mpeg:dash:profile:cmaf:2019\"",
    );
    put(text, format_args!(" type=\"{kind}\""));
    for (name, value) in attributes {
        put(text, format_args!("\n  {name}=\"{value}\""));
    }
    text.push_str(">\n");
}

// Rules 25 and 29. Three segments' delay: a viewer may learn of a segment when it is already two segments old, and needs one more to load it.
fn live_attributes(snapshot: &Snapshot, newest: Option<Grid>) -> Vec<(&'static str, String)> {
    let mut attributes = vec![
        ("availabilityStartTime", "1970-01-01T00:00:00Z".to_owned()),
        ("publishTime", snapshot.updated.rfc3339()),
    ];
    if let Some(grid) = newest {
        let depth = snapshot.window_ticks;
        let delay = (3 * segment_ticks(grid)).min(depth / 2);
        let duration = |ticks| iso_duration(nanos_of(grid, ticks));
        attributes.push(("minimumUpdatePeriod", duration(segment_ticks(grid))));
        attributes.push(("timeShiftBufferDepth", duration(depth)));
        attributes.push(("suggestedPresentationDelay", duration(delay)));
    } else {
        let target = iso_duration(snapshot.target_duration * 1_000_000_000);
        attributes.push(("minimumUpdatePeriod", target));
    }
    attributes
}

fn write_period(text: &mut String, snapshot: &Snapshot, listed: &ListedPeriod<'_>, closed: bool) {
    let start = iso_duration(listed.start_nanos());
    let id = listed.period.first_tick;
    let duration = if closed {
        let nanos = listed.end_nanos().saturating_sub(listed.start_nanos());
        format!(" duration=\"{}\"", iso_duration(nanos))
    } else {
        String::new()
    };
    line(
        text,
        1,
        format_args!("<Period id=\"p{id}\" start=\"{start}\"{duration}>"),
    );
    for set in adaptation_sets(listed.period) {
        write_adaptation_set(text, snapshot, listed, &set);
    }
    line(text, 1, format_args!("</Period>"));
}

// Players switch within an AdaptationSet, and can do so only between tracks of one codec. Each set is named by its first track's place.
fn adaptation_sets(period: &Period) -> Vec<Vec<usize>> {
    let family = |track: usize| {
        let codecs = &period.tracks[track].description.codecs;
        codecs
            .split_once('.')
            .map_or(codecs.as_str(), |(family, _)| family)
    };
    let mut sets: Vec<Vec<usize>> = Vec::new();
    for track in 0..period.tracks.len() {
        match sets.iter_mut().find(|set| family(set[0]) == family(track)) {
            Some(set) => set.push(track),
            None => sets.push(vec![track]),
        }
    }
    sets
}

fn write_adaptation_set(
    text: &mut String,
    snapshot: &Snapshot,
    listed: &ListedPeriod<'_>,
    set: &[usize],
) {
    let has_media = |&track: &usize| listed.tracks.get(track).is_some_and(|run| !run.is_empty());
    if !set.iter().any(has_media) {
        return;
    }
    line(
        text,
        2,
        format_args!(
            "<AdaptationSet id=\"{}\" contentType=\"{}\" segmentAlignment=\"true\" startWithSAP=\"1\">",
            set[0] + 1,
            content_type(listed.period, set)
        ),
    );
    for &track in set.iter().filter(|track| has_media(track)) {
        write_representation(text, snapshot, listed, track);
    }
    line(text, 2, format_args!("</AdaptationSet>"));
}

fn content_type(period: &Period, set: &[usize]) -> &'static str {
    match set.first().is_some_and(|track| period.is_audio(*track)) {
        true => "audio",
        false => "video",
    }
}

fn write_representation(
    text: &mut String,
    snapshot: &Snapshot,
    listed: &ListedPeriod<'_>,
    track: usize,
) {
    let (view, init, run) = (
        &snapshot.tracks[track],
        &listed.period.tracks[track],
        &listed.tracks[track],
    );
    open_representation(text, view, init);
    let grid = listed.period.of(track).grid;
    line(
        text,
        4,
        format_args!(
            "<SegmentTemplate timescale=\"{}\" presentationTimeOffset=\"{}\" startNumber=\"{}\" media=\"{}/$Number$.m4s\" initialization=\"{}/init-{}.mp4\">",
            grid.timescale(),
            time_in(&grid, &listed.period.grid, listed.period.first_tick),
            run[0].number,
            template_escaped(&view.name),
            template_escaped(&view.name),
            template_escaped(&init.version),
        ),
    );
    write_timeline(text, grid, run);
    line(text, 4, format_args!("</SegmentTemplate>"));
    line(text, 3, format_args!("</Representation>"));
}

fn open_representation(text: &mut String, view: &TrackView, init: &TrackInit) {
    let (name, description) = (escaped(&view.name), &init.description);
    let (size, rate) = (description.size, description.framerate);
    if let Some(audio) = description.audio {
        line(
            text,
            3,
            format_args!(
                "<Representation id=\"{name}\" mimeType=\"audio/mp4\" codecs=\"{}\" audioSamplingRate=\"{}\" bandwidth=\"{}\">",
                escaped(&description.codecs),
                audio.rate(),
                view.peak_bandwidth.max(1),
            ),
        );
        // ISO/IEC 23009-1, 5.8.5.4: its value is the number of channels.
        line(
            text,
            4,
            format_args!(
                "<AudioChannelConfiguration schemeIdUri=\"urn:mpeg:dash:23003:3:audio_channel_configuration:2011\" value=\"{}\"/>",
                audio.channels
            ),
        );
        return;
    }
    line(
        text,
        3,
        format_args!(
            "<Representation id=\"{name}\" mimeType=\"video/mp4\" codecs=\"{}\" width=\"{}\" height=\"{}\" frameRate=\"{}/{}\" bandwidth=\"{}\">",
            escaped(&description.codecs),
            size.width,
            size.height,
            rate.num(),
            rate.den(),
            view.peak_bandwidth.max(1),
        ),
    );
}

// ISO/IEC 23009-1, 5.3.9.6: one S for each stretch of equal segments; @t on the first, the rest follow.
fn write_timeline(text: &mut String, grid: Grid, run: &[&Segment]) {
    let mut time = format!(" t=\"{}\"", grid.decode_time(run[0].first_tick));
    line(text, 5, format_args!("<SegmentTimeline>"));
    for equal in run.chunk_by(|a, b| a.ticks == b.ticks) {
        let duration = u64::from(equal[0].ticks) * u64::from(grid.tick_duration());
        let repeat = match equal.len() - 1 {
            0 => String::new(),
            more => format!(" r=\"{more}\""),
        };
        line(text, 6, format_args!("<S{time} d=\"{duration}\"{repeat}/>"));
        time.clear();
    }
    line(text, 5, format_args!("</SegmentTimeline>"));
}

/// The time of `tick` of the stream's grid `video` in the timescale of a track whose grid is `grid`; of audio, to the nearest sample.
fn time_in(grid: &Grid, video: &Grid, tick: Tick) -> u64 {
    let (scale, units) = (u128::from(grid.timescale()), u128::from(video.timescale()));
    let time = (u128::from(video.decode_time(tick)) * scale + units / 2) / units;
    u64::try_from(time).unwrap_or(u64::MAX)
}

fn segment_ticks(grid: Grid) -> u64 {
    u64::from(NonZeroU32::get(grid.ticks_per_segment))
}

fn nanos_of(grid: Grid, ticks: u64) -> u64 {
    u64::try_from(grid.framerate.duration_of(ticks).as_nanos()).unwrap_or(u64::MAX)
}

// An xs:duration in seconds, to the nanosecond: what is on the grid stays on it.
fn iso_duration(nanos: u64) -> String {
    let text = format!("PT{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}S")
}

fn put(text: &mut String, piece: std::fmt::Arguments<'_>) {
    text.write_fmt(piece).expect("writing to a String succeeds");
}

fn line(text: &mut String, depth: usize, line: std::fmt::Arguments<'_>) {
    put(text, format_args!("{:1$}{line}\n", "", depth * 2));
}

// In a template, `$` starts an identifier; twice, it is itself (ISO/IEC 23009-1, 5.3.9.4.4).
fn template_escaped(value: &str) -> String {
    escaped(&value.replace('$', "$$"))
}

fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\'' => text.push_str("&apos;"),
            // XML 1.0 can't hold other control characters at all.
            '\t' | '\n' | '\r' => put(&mut text, format_args!("&#{};", u32::from(character))),
            _ if character.is_control() => text.push('\u{fffd}'),
            _ => text.push(character),
        }
    }
    text
}

#[cfg(test)]
mod tests;
