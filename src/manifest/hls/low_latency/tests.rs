use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::manifest::hls::media;
use crate::manifest::testing::{
    ONE_TRACK, TWO_TRACKS, grid, lives, open, period, segment, snapshot,
};
use crate::package::Part;
use crate::window::{OpenSegment, Period, Segment};
use std::sync::Arc;

/// The parts of `period` from `first` to before `end`.
fn parts(period: &Period, first: u64, end: u64) -> Vec<Part> {
    let grid = &period.grid;
    let mut parts = Vec::new();
    let mut tick = Tick(first);
    while tick.0 < end {
        let next = grid.part_end(tick).min(Tick(end));
        parts.push(Part {
            segment: grid.segment_of(tick),
            number: grid.part_of(tick),
            first_tick: tick,
            ticks: u32::try_from(next.since(tick)).unwrap(),
            independent: tick.0 == first,
            last: grid.starts_segment(next),
            captured: UnixTime::default(),
            bytes: Bytes::from_static(b"part"),
        });
        tick = next;
    }
    parts
}

fn in_parts(period: &Arc<Period>, first: u64, end: u64) -> Arc<Segment> {
    let whole = segment(period, first, end, false);
    Arc::new(Segment {
        parts: parts(period, first, end),
        ..Arc::into_inner(whole).unwrap()
    })
}

#[test]
fn a_low_latency_playlist_with_a_gap_and_an_open_segment() {
    // Segments of 60 ticks, parts of 15.
    let grid = grid("30", 60);
    let first = period(grid, 54_000_000_000, false, "a", TWO_TRACKS);
    let second = period(grid, 54_000_000_180, true, "b", TWO_TRACKS);
    let gap = segment(&first, 54_000_000_120, 54_000_000_180, true);
    let gap = Arc::new(Segment {
        remains: parts(&first, 54_000_000_120, 54_000_000_150),
        ..Arc::into_inner(gap).unwrap()
    });
    let listed = [
        in_parts(&first, 54_000_000_000, 54_000_000_060),
        in_parts(&first, 54_000_000_060, 54_000_000_120),
        gap,
    ];
    let mut snapshot = snapshot(TWO_TRACKS, &listed);
    snapshot.tracks[0].open = Some(OpenSegment {
        parts: parts(&second, 54_000_000_180, 54_000_000_210),
        ..open(&second, 54_000_000_180, 15)
    });
    let expected = "\
#EXTM3U
#EXT-X-VERSION:9
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-TARGETDURATION:2
#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=12.000000,HOLD-BACK=6.000000,PART-HOLD-BACK=1.500000
#EXT-X-PART-INF:PART-TARGET=0.500000
#EXT-X-MEDIA-SEQUENCE:900000000
#EXT-X-DISCONTINUITY-SEQUENCE:0
#EXT-X-MAP:URI=\"init-a0.mp4\"
#EXT-X-PROGRAM-DATE-TIME:2027-01-15T08:00:00.000Z
#EXTINF:2.000000,
900000000.m4s
#EXT-X-PROGRAM-DATE-TIME:2027-01-15T08:00:02.000Z
#EXT-X-PART:DURATION=0.500000,URI=\"900000001.0.m4s\",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.500000,URI=\"900000001.1.m4s\"
#EXT-X-PART:DURATION=0.500000,URI=\"900000001.2.m4s\"
#EXT-X-PART:DURATION=0.500000,URI=\"900000001.3.m4s\"
#EXTINF:2.000000,
900000001.m4s
#EXT-X-PROGRAM-DATE-TIME:2027-01-15T08:00:04.000Z
#EXT-X-PART:DURATION=0.500000,URI=\"900000002.0.m4s\",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.500000,URI=\"900000002.1.m4s\"
#EXT-X-PART:DURATION=0.500000,URI=\"900000002.2.m4s\",GAP=YES
#EXT-X-PART:DURATION=0.500000,URI=\"900000002.3.m4s\",GAP=YES
#EXT-X-GAP
#EXTINF:2.000000,
900000002.m4s
#EXT-X-DISCONTINUITY
#EXT-X-MAP:URI=\"init-b0.mp4\"
#EXT-X-PROGRAM-DATE-TIME:2027-01-15T08:00:06.000Z
#EXT-X-PART:DURATION=0.500000,URI=\"900000003.0.m4s\",INDEPENDENT=YES
#EXT-X-PART:DURATION=0.500000,URI=\"900000003.1.m4s\"
#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"900000003.2.m4s\"
#EXT-X-RENDITION-REPORT:URI=\"../low/media.m3u8\",LAST-MSN=900000002,LAST-PART=3
";
    assert_eq!(low_latency_media(&snapshot, 0, Extent::Full), expected);
    snapshot.ended = true;
    let ended = low_latency_media(&snapshot, 1, Extent::Delta);
    assert!(ended.ends_with("#EXT-X-ENDLIST\n") && !ended.contains("PRELOAD-HINT"));
}

#[test]
fn rule_18_a_delta_update_stands_for_what_lies_before_the_skip_boundary() {
    let period = period(grid("30", 60), 54_000_000_000, false, "a", ONE_TRACK);
    let first = 54_000_000_000;
    let listed: Vec<_> = (0..10)
        .map(|n| in_parts(&period, first + 60 * n, first + 60 * n + 60))
        .collect();
    let mut snapshot = snapshot(ONE_TRACK, &listed);
    let delta = low_latency_media(&snapshot, 0, Extent::Delta);
    // 20 s are listed: three segments end more than 12 s before the end.
    assert!(
        delta.contains("#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n"),
        "{delta}"
    );
    assert!(delta.contains("#EXT-X-MEDIA-SEQUENCE:900000000\n"));
    let full = low_latency_media(&snapshot, 0, Extent::Full);
    let rest = |text: &str| {
        let at = text
            .find("#EXT-X-PROGRAM-DATE-TIME:2027-01-15T08:00:06")
            .unwrap();
        text[at..].to_owned()
    };
    assert_eq!(rest(&delta), rest(&full));
    snapshot.tracks[0].listed.drain(..3);
    snapshot.media_sequence = snapshot.tracks[0].listed[0].number;
    let short = low_latency_media(&snapshot, 0, Extent::Delta);
    assert!(!short.contains("EXT-X-SKIP"));
}

#[test]
fn the_advance_part_limit_is_three_seconds_of_parts_and_at_least_three() {
    for (rate, ticks, limit) in [
        ("30", 60, 6),
        ("30", 24, 15),
        ("25", 100, 3),
        ("24", 120, 3),
    ] {
        let period = period(grid(rate, ticks), 0, false, "a", ONE_TRACK);
        let listed = [in_parts(&period, 0, u64::from(ticks))];
        let snapshot = snapshot(ONE_TRACK, &listed);
        assert_eq!(
            advance_part_limit(&snapshot, false),
            limit,
            "{rate} {ticks}"
        );
    }
}

fn attribute<'a>(line: &'a str, name: &str) -> &'a str {
    let (_, rest) = line.split_once(&format!("{name}=")).unwrap();
    rest.split(',').next().unwrap()
}

/// A decimal in microseconds.
fn micros_of(text: &str) -> u64 {
    let (whole, fraction) = text.split_once('.').unwrap();
    assert_eq!(fraction.len(), 6);
    whole.parse::<u64>().unwrap() * 1_000_000 + fraction.parse::<u64>().unwrap()
}

proptest! {
    #[test]
    fn rules_12_to_14_hold_in_any_window(life in lives()) {
        let mut snapshot = life.snapshot;
        for view in &mut snapshot.tracks {
            for listed in &mut view.listed {
                if !listed.gap {
                    *listed = in_parts(&listed.period, listed.first_tick.0, listed.end_tick().0);
                }
            }
        }
        let text = low_latency_media(&snapshot, 0, Extent::Full);
        // Without its parts it lists what the plain playlist does.
        let own = ["#EXT-X-PART", "#EXT-X-SERVER", "#EXT-X-PRELOAD", "#EXT-X-RENDITION", "#EXT-X-VERSION"];
        let without = |text: &str| -> Vec<String> {
            text.lines().filter(|line| !own.iter().any(|own| line.starts_with(own))).map(str::to_owned).collect()
        };
        prop_assert_eq!(without(&text), without(&media(&snapshot, 0)));
        let target = snapshot.target_duration * 1_000_000;
        let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap();
        let part_target = micros_of(attribute(line("#EXT-X-PART-INF"), "PART-TARGET"));
        let control = line("#EXT-X-SERVER-CONTROL");
        prop_assert!(micros_of(attribute(control, "CAN-SKIP-UNTIL")) >= 6 * target);
        prop_assert!(micros_of(attribute(control, ",HOLD-BACK")) >= 3 * target);
        prop_assert!(micros_of(attribute(control, "PART-HOLD-BACK")) >= 3 * part_target);
        let (mut parts, mut in_segment, mut all) = (0, 0, 0);
        for line in text.lines() {
            if line.starts_with("#EXT-X-PART:") {
                let length = micros_of(attribute(line, "DURATION"));
                prop_assert!(length <= part_target, "{line}");
                parts += 1;
                in_segment += length;
                all += length;
            } else if let Some(length) = line.strip_prefix("#EXTINF:") {
                if parts > 0 {
                    prop_assert_eq!(in_segment, micros_of(length.trim_end_matches(',')));
                }
                (parts, in_segment) = (0, 0);
            }
        }
        prop_assert!(all <= 3 * target, "parts of {all} µs are listed");
    }
}

#[test]
fn a_copied_picture_that_lasts_longer_than_a_part_raises_the_target_while_it_is_listed() {
    use std::time::Duration;

    use crate::tick::{Framerate, SegmentNumber};
    use crate::window::{Mode, Window, WindowSettings};

    let grid = Grid::copied(Duration::from_secs(2), Some(Duration::from_millis(200)));
    let mut tracks = period(grid, 0, false, "a", ONE_TRACK).tracks.clone();
    tracks[0].description.framerate = Framerate::copied(3600);
    let settings = WindowSettings {
        stream: "door".to_owned(),
        mode: Mode::Live,
        tracks: vec!["cam".to_owned()],
        window: Duration::from_secs(14),
        target_duration: 2,
    };
    let mut window = Window::new(settings, None);
    let start = Tick(20_000 * 86_400 * 90_000);
    let now = grid.time_of(start);
    window.begin_cut_period(grid, start, tracks, false, now);
    let mut push = |segment: u64, number: u32, millis: u32, last: bool| {
        let part = Part {
            segment: SegmentNumber(segment),
            number,
            first_tick: window.next_tick(0).unwrap(),
            ticks: millis * 90,
            independent: number == 0,
            last,
            captured: now,
            bytes: Bytes::from_static(b"part"),
        };
        window.push(0, part, now).unwrap();
        low_latency_media(&window.snapshot(now), 0, Extent::Full)
    };
    push(0, 0, 200, false);
    push(0, 1, 500, false);
    let text = push(0, 2, 160, true);
    for line in [
        "#EXT-X-PART-INF:PART-TARGET=0.500000",
        "PART-HOLD-BACK=1.500000",
        "#EXTINF:0.860000,",
        "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"1.0.m4s\"",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    for segment in 1..4 {
        for part in 0..9 {
            push(segment, part, 200, false);
        }
        push(segment, 9, 200, true);
    }
    let text = push(4, 0, 200, false);
    assert!(
        text.contains("#EXT-X-PART-INF:PART-TARGET=0.200000"),
        "{text}"
    );
    assert!(text.contains("URI=\"4.1.m4s\""), "{text}");
}
