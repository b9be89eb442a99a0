//! The MPD for low latency (ISO/IEC 23009-1 with the DASH-IF guidelines for low-latency modes): the same segments as in the plain one, counted by
//! @duration and $Number$, so that a player asks for a segment when its first part is there, without reading the MPD again.

use std::sync::Arc;
use std::time::Duration;

use super::{
    MpdOptions, adaptation_sets, content_type, iso_duration, line, mpd, nanos_of,
    open_representation, put, same_period, segment_ticks, template_escaped, time_in,
    write_utc_timing,
};
use crate::tick::{Grid, Tick};
use crate::window::{Period, Snapshot};

/// In parts: how far behind the newest picture players are to stay, and at least how long that is.
const LATENCY_PARTS: u32 = 4;
const LEAST_LATENCY: Duration = Duration::from_millis(800);
/// How much faster and slower players may play to hold that.
const PLAYBACK_RATES: (&str, &str) = ("0.96", "1.04");

/// The low-latency MPD. An ended stream has none of its own: that one is [`mpd`]'s, which claims only what can still be fetched.
///
/// A period that began inside a segment (the very first) starts here at the next edge: numbers then follow from the time alone.
pub fn mpd_low_latency(snapshot: &Snapshot, options: &MpdOptions) -> String {
    if snapshot.ended {
        return mpd(snapshot, options);
    }
    let spans = spans(snapshot);
    let mut text = String::with_capacity(2048 + 1024 * snapshot.tracks.len() * spans.len());
    text.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    open_mpd(&mut text, snapshot, spans.last());
    for (index, span) in spans.iter().enumerate() {
        let closed = index + 1 < spans.len();
        write_period(&mut text, snapshot, options, span, closed);
    }
    write_utc_timing(&mut text, 1, &options.utc_timing);
    text.push_str("</MPD>\n");
    text
}

/// A period, and the whole segments of it that there are or were.
struct Span<'a> {
    period: &'a Arc<Period>,
    /// An edge of the grid.
    start: Tick,
    end: Tick,
}

/// The periods that have media in the window from an edge on, oldest first; the newest even if that is still to come.
fn spans(snapshot: &Snapshot) -> Vec<Span<'_>> {
    let mut spans: Vec<Span<'_>> = Vec::new();
    // Audio has the same, in ticks of its own.
    let video = snapshot.tracks.iter().filter(|view| !view.is_audio());
    let listed = video.flat_map(|view| {
        let open = view.open.as_ref();
        let open = open.map(|open| (&open.period, open.end_tick()));
        let media = view.listed.iter().filter(|segment| !segment.gap);
        media
            .map(|segment| (&segment.period, segment.end_tick()))
            .chain(open)
    });
    for (period, end) in listed {
        match spans
            .iter_mut()
            .find(|span| same_period(span.period, period))
        {
            Some(span) => span.end = span.end.max(end),
            None => spans.push(Span {
                period,
                start: first_edge(period),
                end,
            }),
        }
    }
    spans.sort_by_key(|span| span.period.grid.time_of(span.period.first_tick));
    let newest = spans.len().saturating_sub(1);
    let mut index = 0;
    spans.retain(|span| {
        index += 1;
        span.start < span.end || index > newest
    });
    spans
}

fn first_edge(period: &Period) -> Tick {
    match period.grid.starts_segment(period.first_tick) {
        true => period.first_tick,
        false => period.grid.segment_end(period.first_tick),
    }
}

fn part_ticks(grid: Grid) -> u64 {
    u64::from(grid.ticks_per_part.get())
}

fn open_mpd(text: &mut String, snapshot: &Snapshot, newest: Option<&Span<'_>>) {
    text.push_str(
        "<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" profiles=\"urn:mpeg:dash:profile:isoff-live:2011,urn:mpeg:dash:profile:cmaf:2019,http://www.dashif.org/guidelines/low-latency-live-v5\" type=\"dynamic\"",
    );
    put(
        text,
        format_args!(
            "\n  availabilityStartTime=\"1970-01-01T00:00:00Z\"\n  publishTime=\"{}\"",
            snapshot.updated
        ),
    );
    let Some(Span { period, .. }) = newest else {
        let target = iso_duration(snapshot.target_duration * 1_000_000_000);
        put(text, format_args!("\n  minimumUpdatePeriod=\"{target}\""));
        put(text, format_args!("\n  minBufferTime=\"{target}\">\n"));
        return;
    };
    let grid = period.grid;
    let duration = |ticks| iso_duration(nanos_of(grid, ticks));
    let latency = latency(grid);
    for (name, value) in [
        ("minimumUpdatePeriod", duration(segment_ticks(grid))),
        ("timeShiftBufferDepth", duration(snapshot.window_ticks)),
        (
            "suggestedPresentationDelay",
            iso_duration(latency * 1_000_000),
        ),
        ("maxSegmentDuration", duration(segment_ticks(grid))),
        ("minBufferTime", duration(part_ticks(grid))),
    ] {
        put(text, format_args!("\n  {name}=\"{value}\""));
    }
    text.push_str(">\n");
    let (slowest, fastest) = PLAYBACK_RATES;
    line(text, 1, format_args!("<ServiceDescription id=\"0\">"));
    let least = nanos_of(grid, 2 * part_ticks(grid)) / 1_000_000;
    line(
        text,
        2,
        format_args!(
            "<Latency referenceId=\"0\" target=\"{latency}\" min=\"{least}\" max=\"{}\"/>",
            latency * 3
        ),
    );
    line(
        text,
        2,
        format_args!("<PlaybackRate min=\"{slowest}\" max=\"{fastest}\"/>"),
    );
    line(text, 1, format_args!("</ServiceDescription>"));
}

/// In milliseconds.
fn latency(grid: Grid) -> u64 {
    let parts = nanos_of(grid, part_ticks(grid) * u64::from(LATENCY_PARTS)) / 1_000_000;
    parts.max(u64::try_from(LEAST_LATENCY.as_millis()).unwrap_or(u64::MAX))
}

fn write_period(
    text: &mut String,
    snapshot: &Snapshot,
    options: &MpdOptions,
    span: &Span<'_>,
    closed: bool,
) {
    let grid = span.period.grid;
    let nanos = |tick| grid.time_of(tick).as_nanos();
    let (id, start) = (span.start, iso_duration(nanos(span.start)));
    let duration = match closed {
        true => {
            let length = iso_duration(nanos(span.end).saturating_sub(nanos(span.start)));
            format!(" duration=\"{length}\"")
        }
        false => String::new(),
    };
    line(
        text,
        1,
        format_args!("<Period id=\"p{id}\" start=\"{start}\"{duration}>"),
    );
    for set in adaptation_sets(span.period) {
        line(
            text,
            2,
            format_args!(
                "<AdaptationSet id=\"{}\" contentType=\"{}\" segmentAlignment=\"true\" startWithSAP=\"1\">",
                set[0] + 1,
                content_type(span.period, &set)
            ),
        );
        // Rule 33. Presentation times are the grid's, and each part's own prft box has the exact capture time.
        line(
            text,
            3,
            format_args!(
                "<ProducerReferenceTime id=\"0\" inband=\"true\" type=\"captured\" wallClockTime=\"{}\" presentationTime=\"{}\">",
                grid.time_of(span.start),
                start_in(span, set[0]),
            ),
        );
        write_utc_timing(text, 4, &options.utc_timing);
        line(text, 3, format_args!("</ProducerReferenceTime>"));
        for track in set {
            write_representation(text, snapshot, span, track);
        }
        line(text, 2, format_args!("</AdaptationSet>"));
    }
    line(text, 1, format_args!("</Period>"));
}

// Rules 33 and 34: a segment may be asked for when its first part is there.
fn write_representation(text: &mut String, snapshot: &Snapshot, span: &Span<'_>, track: usize) {
    let (view, init) = (&snapshot.tracks[track], &span.period.tracks[track]);
    let grid = span.period.grid;
    let part = span.period.of(track).grid;
    let ahead = nanos_of(grid, segment_ticks(grid)) - nanos_of(part, part_ticks(part));
    let template = template_grid(span, track);
    open_representation(text, view, init);
    let (name, version) = (
        template_escaped(&view.name),
        template_escaped(&init.version),
    );
    line(
        text,
        4,
        format_args!(
            "<SegmentTemplate timescale=\"{}\" duration=\"{}\" presentationTimeOffset=\"{}\" startNumber=\"{}\" availabilityTimeOffset=\"{}.{:09}\" availabilityTimeComplete=\"false\" media=\"{name}/$Number$.m4s\" initialization=\"{name}/init-{version}.mp4\"/>",
            template.timescale(),
            time_in(&template, &grid, Tick(segment_ticks(grid))),
            time_in(&template, &grid, span.start),
            grid.segment_of(span.start),
            ahead / 1_000_000_000,
            ahead % 1_000_000_000,
        ),
    );
    line(text, 3, format_args!("</Representation>"));
}

/// The grid whose timescale counts the segments of `track`: audio's own if a segment is a whole number of samples, else the video's, for @duration
/// is a whole number and may not drift.
fn template_grid(span: &Span<'_>, track: usize) -> Grid {
    let (video, own) = (span.period.grid, span.period.of(track).grid);
    let units = segment_ticks(video) * u64::from(video.tick_duration());
    match (units * u64::from(own.timescale())).is_multiple_of(u64::from(video.timescale())) {
        true => own,
        false => video,
    }
}

/// Where `span` starts in the timescale in which the segments of `track` are counted.
fn start_in(span: &Span<'_>, track: usize) -> u64 {
    time_in(&template_grid(span, track), &span.period.grid, span.start)
}

#[cfg(test)]
mod tests;
