use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::tick::{Framerate, Grid, UnixTime};
use crate::window::{Mode, TrackInit, Window, WindowSettings};

const START: Tick = Tick(54_000_000_000);

/// Two seconds of 30 frames, in parts of 10.
fn grid() -> Grid {
    let framerate = Framerate::new(30, 1).unwrap();
    Grid::new(
        framerate,
        Duration::from_secs(2),
        Duration::from_millis(333),
    )
}

/// A window whose track has all parts from `first` to before `to`.
fn window(first: Tick, to: Tick) -> Window {
    let settings = WindowSettings {
        stream: "door".to_owned(),
        mode: Mode::Live,
        tracks: vec!["720p".to_owned()],
        window: Duration::from_secs(12),
        target_duration: 2,
    };
    let mut window = Window::new(settings, None);
    let init = TrackInit {
        description: crate::sample::TrackDescription {
            sample_entry: Bytes::new(),
            codecs: "avc1.64001f".to_owned(),
            size: crate::picture::Size::new(1280, 720),
            framerate: grid().framerate,
            audio: None,
        },
        version: "a".to_owned(),
        init: Bytes::new(),
    };
    let now = UnixTime::from_secs(1_800_000_000);
    window.begin_period(grid(), first, vec![init], false, now);
    let mut tick = first;
    while tick < to {
        let end = grid().part_end(tick);
        let part = Part {
            segment: grid().segment_of(tick),
            number: grid().part_of(tick),
            first_tick: tick,
            ticks: u32::try_from(end.since(tick)).unwrap(),
            independent: tick == first || grid().starts_segment(tick),
            last: grid().starts_segment(end),
            captured: now,
            bytes: Bytes::from(tick.0.to_be_bytes().to_vec()),
        };
        window.push(0, part, now).unwrap();
        tick = end;
    }
    window
}

fn view(window: &Window) -> TrackView {
    let snapshot = window.snapshot(UnixTime::from_secs(1_800_000_000));
    Arc::into_inner(snapshot).unwrap().tracks.remove(0)
}

fn place(segment: u64, part: u32) -> Place {
    let segment = grid().segment_of(START).plus(segment);
    Place { segment, part }
}

#[test]
fn places_count_from_a_segments_first_part_and_names_come_from_the_grid() {
    // The first segment starts in its third part.
    let late = view(&window(START.plus(25), START.plus(40)));
    assert_eq!(late.next_place(), Some(place(0, 2)));
    assert_eq!(late.last_place(), Some(place(0, 1)));
    assert_eq!(late.next_part(), Some((place(0, 0).segment, 4)));
    let whole = view(&window(START, START.plus(60)));
    assert_eq!(whole.next_place(), Some(place(1, 0)));
    assert_eq!(whole.last_place(), Some(place(0, 5)));
    assert_eq!(whole.next_part(), Some((place(1, 0).segment, 0)));
    let empty = view(&window(START, START));
    assert_eq!((empty.next_place(), empty.next_part()), (None, None));
}

#[test]
fn a_place_past_a_closed_segments_end_is_the_next_segments_first() {
    let closed = view(&window(START, START.plus(120)));
    assert!(closed.has(place(1, 5)) && !closed.has(place(1, 6)) && !closed.has(place(2, 0)));
    assert!(
        closed.has(place(0, 6)),
        "the first part of the segment after"
    );
    let begun = view(&window(START, START.plus(130)));
    assert!(begun.has(place(1, 6)) && begun.has(place(1, 99)) && begun.has(place(2, 0)));
    assert!(!begun.has(place(2, 1)));
}

#[test]
fn parts_ahead_are_counted_over_the_segments_edge() {
    let open = view(&window(START, START.plus(80)));
    assert_eq!(open.next_place(), Some(place(1, 2)));
    for (wanted, ahead) in [
        ((1, 1), 0),
        ((1, 2), 1),
        ((1, 5), 4),
        ((2, 0), 5),
        ((2, 3), 8),
    ] {
        let wanted = place(wanted.0, wanted.1);
        assert_eq!(open.parts_until(wanted), ahead, "{wanted:?}");
    }
    let closed = view(&window(START, START.plus(60)));
    assert_eq!(closed.parts_until(place(1, 0)), 1);
    assert_eq!(closed.parts_until(place(2, 0)), 7);
}

#[test]
fn a_segment_that_is_given_up_keeps_its_parts_and_lists_the_others_as_missing() {
    let mut window = window(START, START.plus(80));
    let now = UnixTime::from_secs(1_800_000_000);
    window.mark_missing(START.plus(80), START.plus(120), now);
    let view = view(&window);
    let gap = view.listed.last().unwrap();
    assert!(gap.gap && gap.parts.is_empty());
    let parts: Vec<(u32, u64, bool)> = gap
        .listed_parts()
        .iter()
        .map(|part| match part {
            ListedPart::Whole(part) => (part.number, part.first_tick.0 - START.0, true),
            ListedPart::Missing {
                number,
                first_tick,
                ticks,
            } => {
                assert_eq!(*ticks, 10);
                (*number, first_tick.0 - START.0, false)
            }
        })
        .collect();
    let expected = [(0, 60), (1, 70), (2, 80), (3, 90), (4, 100), (5, 110)];
    let expected = expected.map(|(number, tick)| (number, tick, tick < 80));
    assert_eq!(parts, expected);
    assert!(
        view.part(gap.number, 1).is_some(),
        "what was listed stays fetchable"
    );
    assert!(view.part(gap.number, 2).is_none());
    assert!(view.segment(gap.number).is_none());
    assert_eq!(view.last_place(), Some(place(1, 5)));
    assert!(view.has(place(1, 3)) && !view.has(place(2, 0)));
}
