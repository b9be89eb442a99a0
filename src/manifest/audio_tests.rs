//! A window of picture and sound, and how it is written down.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::dash::{self, MpdOptions, UtcTiming};
use super::hls::{self, Extent};
use crate::package::Part;
use crate::picture::Size;
use crate::sample::{AudioFormat, TrackDescription};
use crate::tick::{Framerate, Grid, Tick};
use crate::window::{Mode, PushError, Snapshot, TrackInit, Window, WindowSettings};

fn grid(rate: &str) -> Grid {
    let second = Duration::from_secs(1);
    Grid::new(rate.parse().unwrap(), 2 * second, second / 3)
}

fn track(version: &str, codecs: &str, framerate: Framerate, frame: Option<u32>) -> TrackInit {
    let audio = frame.map(|samples| AudioFormat {
        channels: 2,
        frame: NonZeroU32::new(samples).unwrap(),
        copied_rate: None,
    });
    TrackInit {
        description: TrackDescription {
            sample_entry: Bytes::new(),
            codecs: codecs.to_owned(),
            size: if frame.is_some() {
                Size::new(0, 0)
            } else {
                Size::new(1280, 720)
            },
            framerate,
            audio,
        },
        version: version.to_owned(),
        init: Bytes::from_static(b"init"),
    }
}

fn tracks(grid: &Grid) -> Vec<TrackInit> {
    let frames = |samples| Framerate::new(48_000, samples).unwrap();
    vec![
        track("v", "avc1.64001f", grid.framerate, None),
        track("a", "mp4a.40.2", frames(1024), Some(1024)),
        track("o", "opus", frames(960), Some(960)),
    ]
}

fn settings() -> WindowSettings {
    WindowSettings {
        mode: Mode::Live,
        stream: "door".to_owned(),
        tracks: ["720p", "aac", "opus"].map(str::to_owned).to_vec(),
        window: Duration::from_secs(14),
        target_duration: 2,
    }
}

fn started(grid: Grid, first: Tick) -> Window {
    let mut window = Window::new(settings(), None);
    window.begin_period(grid, first, tracks(&grid), false, grid.time_of(first));
    window
}

/// The next part of `track`.
fn next_part(window: &Window, track: usize) -> Part {
    let first_tick = window.next_tick(track).unwrap();
    let grid = window.period().unwrap().of(track).grid;
    let end = grid.part_end(first_tick);
    Part {
        segment: grid.segment_of(first_tick),
        number: grid.part_of(first_tick),
        first_tick,
        ticks: u32::try_from(end.since(first_tick)).unwrap(),
        independent: true,
        captured: grid.time_of(first_tick),
        last: grid.starts_segment(end),
        bytes: Bytes::from_static(&[7; 500]),
    }
}

/// Pushes the video's parts up to `until` and then the sound's, as far as they may.
fn feed(window: &mut Window, until: Tick) {
    let now = window.period().unwrap().grid.time_of(until);
    while window.next_tick(0).unwrap() < until {
        window.push(0, next_part(window, 0), now).unwrap();
    }
    for track in [1, 2] {
        loop {
            match window.push(track, next_part(window, track), now) {
                Ok(()) => {}
                Err(PushError::Ahead { .. }) => break,
                Err(error) => panic!("{error}"),
            }
            let grid = window.period().unwrap().of(track).grid;
            if grid.time_of(window.next_tick(track).unwrap()) >= now {
                break;
            }
        }
    }
}

fn begin(grid: &Grid) -> Tick {
    // In the middle of a segment.
    grid.segment_start(Tick(54_000_000_000)).plus(17)
}

fn window(rate: &str, seconds: u64) -> (Grid, Window) {
    let grid = grid(rate);
    let first = begin(&grid);
    let mut window = started(grid, first);
    for second in 1..=seconds {
        let ticks = grid.framerate.ticks_in(Duration::from_secs(second));
        feed(&mut window, first.plus(u64::from(ticks.get())));
    }
    (grid, window)
}

fn snapshot(window: &Window, grid: &Grid) -> Arc<Snapshot> {
    window.snapshot(grid.time_of(window.next_tick(0).unwrap()))
}

fn options() -> MpdOptions {
    MpdOptions {
        utc_timing: UtcTiming::HttpIso("time".to_owned()),
    }
}

#[test]
fn sound_follows_the_picture_and_rotates_with_it() {
    for rate in ["30", "29.97", "25", "59.94", "7"] {
        let (grid, window) = window(rate, 60);
        let snapshot = snapshot(&window, &grid);
        for view in &snapshot.tracks {
            assert_eq!(view.listed[0].number, snapshot.media_sequence, "{rate}");
            assert!(view.listed.len() >= 7 && view.listed.iter().all(|segment| !segment.gap));
            for pair in view.listed.windows(2) {
                assert_eq!(
                    pair[0].end_tick(),
                    pair[1].first_tick,
                    "{rate} {}",
                    view.name
                );
            }
        }
        let video = &snapshot.tracks[0].listed;
        for audio in &snapshot.tracks[1..] {
            assert!(audio.is_audio() && audio.listed.len() == video.len());
            for (picture, sound) in video.iter().zip(&audio.listed) {
                let late = sound.starts().saturating_since(picture.starts());
                assert!(sound.starts() >= picture.starts());
                assert!(late < Duration::from_micros(21_334), "{rate}: {late:?}");
            }
        }
    }
}

#[test]
fn sound_is_never_ahead_of_the_picture() {
    let grid = grid("30");
    let mut window = started(grid, begin(&grid));
    let part = next_part(&window, 1);
    let now = grid.time_of(begin(&grid));
    let refused = window.push(1, part.clone(), now);
    assert!(matches!(refused, Err(PushError::Ahead { track: 1, .. })));
    window.push(0, next_part(&window, 0), now).unwrap();
    window.push(1, part, now).unwrap();
    // Its first frame is the first that starts with the picture or after it.
    let first = snapshot(&window, &grid).tracks[1].open.clone().unwrap();
    assert!(first.period.grid.time_of(first.first_tick) >= now);
}

#[test]
fn a_window_that_is_gone_on_with_goes_on_in_sound_too() {
    let (grid, before) = window("30", 31);
    let snapshot = snapshot(&before, &grid);
    let mut after = Window::new(settings(), Some(&snapshot));
    for track in 0..3 {
        assert_eq!(after.next_tick(track), before.next_tick(track), "{track}");
    }
    assert_eq!(after.resume_tick(), before.next_tick(0));
    let until = before.next_tick(0).unwrap().plus(600);
    for step in 1..=20 {
        feed(&mut after, before.next_tick(0).unwrap().plus(30 * step));
    }
    let listed = &after.snapshot(grid.time_of(until)).tracks;
    assert!(
        listed
            .iter()
            .all(|view| view.listed.iter().all(|segment| !segment.gap))
    );
}

#[test]
fn after_missing_ticks_sound_begins_again_with_the_picture() {
    let (grid, mut window) = window("30", 31);
    let from = window.next_tick(0).unwrap();
    let to = grid.segment_end(from.plus(200));
    window.mark_missing(from, to, grid.time_of(to));
    assert_eq!(window.next_tick(0), Some(to));
    for track in [1, 2] {
        let view = window.period().unwrap().of(track).grid;
        let next = window.next_tick(track).unwrap();
        assert_eq!(next, view.first_beside(to));
        assert_eq!(view.segment_of(next), grid.segment_of(to));
    }
    feed(&mut window, to.plus(240));
    let snapshot = snapshot(&window, &grid);
    let text = dash::mpd(&snapshot, &options());
    let document = roxmltree::Document::parse(&text).unwrap();
    let periods = document
        .descendants()
        .filter(|node| node.has_tag_name("Period"));
    for period in periods {
        let sets = period
            .children()
            .filter(|node| node.has_tag_name("AdaptationSet"));
        let ids: Vec<_> = sets.filter_map(|set| set.attribute("id")).collect();
        assert_eq!(ids, ["1", "2", "3"], "{text}");
    }
}

#[test]
fn a_period_is_told_of_once_its_sound_is_there() {
    let (grid, mut window) = window("30", 31);
    let at = grid.segment_end(window.next_tick(0).unwrap());
    let now = grid.time_of(at);
    window.mark_missing(window.next_tick(0).unwrap(), at, now);
    let periods = |window: &Window| {
        let text = dash::mpd(&window.snapshot(now), &options());
        text.matches("<Period").count()
    };
    while window.next_tick(0).unwrap() < grid.segment_end(at) {
        window.push(0, next_part(&window, 0), now).unwrap();
    }
    assert_eq!(periods(&window), 1);
    feed(&mut window, grid.segment_end(at).plus(30));
    assert_eq!(periods(&window), 2);
}

#[test]
fn every_picture_is_offered_with_every_sound() {
    let (grid, window) = window("30", 40);
    let text = hls::multivariant(&snapshot(&window, &grid));
    let lines: Vec<&str> = text.lines().skip(3).collect();
    assert_eq!(
        lines[..2],
        [
            "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"aac\",NAME=\"audio\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\",URI=\"aac/media.m3u8\"",
            "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"opus\",NAME=\"audio\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\",URI=\"opus/media.m3u8\"",
        ]
    );
    assert_eq!(
        (lines[3], lines[5], lines.len()),
        ("720p/media.m3u8", "720p/media.m3u8", 6)
    );
    let with = |line: &str, codecs: &str, group: &str| {
        line.starts_with("#EXT-X-STREAM-INF:BANDWIDTH=")
            && line.contains(&format!(
                ",CODECS=\"avc1.64001f,{codecs}\",RESOLUTION=1280x720,"
            ))
            && line.ends_with(&format!(",FRAME-RATE=30.000,AUDIO=\"{group}\""))
    };
    assert!(with(lines[2], "mp4a.40.2", "aac"), "{}", lines[2]);
    assert!(with(lines[4], "opus", "opus"), "{}", lines[4]);
}

#[test]
fn parts_of_sound_have_a_target_of_their_own_and_hold_back_like_the_pictures() {
    let (grid, window) = window("30", 40);
    let snapshot = snapshot(&window, &grid);
    let [video, aac, opus] =
        [0, 1, 2].map(|track| hls::low_latency_media(&snapshot, track, Extent::Full));
    assert!(
        video.contains("#EXT-X-PART-INF:PART-TARGET=0.333334\n"),
        "{video}"
    );
    // Fifteen frames of AAC fit into a part, and sixteen of Opus.
    assert!(aac.contains("#EXT-X-PART:DURATION=0.320000,"), "{aac}");
    assert!(opus.contains("#EXT-X-PART:DURATION=0.320000,"), "{opus}");
    for text in [&video, &aac, &opus] {
        assert!(text.contains(",PART-HOLD-BACK=1.000002\n"), "{text}");
        assert_eq!(text.matches("#EXT-X-RENDITION-REPORT").count(), 2, "{text}");
        assert_eq!(text.matches("#EXT-X-PRELOAD-HINT").count(), 1, "{text}");
    }
    let parts = aac.lines().filter(|line| line.starts_with("#EXT-X-PART:"));
    assert!(
        parts.clone().count() > 12 && parts.clone().all(|part| part.ends_with("INDEPENDENT=YES"))
    );
}

#[test]
fn the_mpd_has_a_set_for_each_codec_of_sound_that_ends_where_its_samples_do() {
    let (grid, window) = window("29.97", 40);
    let snapshot = snapshot(&window, &grid);
    let text = dash::mpd(&snapshot, &options());
    let document = roxmltree::Document::parse(&text).unwrap();
    let sets: Vec<_> = document
        .descendants()
        .filter(|node| node.has_tag_name("AdaptationSet"))
        .collect();
    let kinds: Vec<_> = sets
        .iter()
        .filter_map(|set| set.attribute("contentType"))
        .collect();
    assert_eq!(kinds, ["video", "audio", "audio"]);
    for (set, view, frame) in [
        (sets[1], &snapshot.tracks[1], 1024),
        (sets[2], &snapshot.tracks[2], 960),
    ] {
        let find = |name: &str| {
            set.descendants()
                .find(|node| node.has_tag_name(name))
                .unwrap()
        };
        let representation = find("Representation");
        assert_eq!(representation.attribute("mimeType"), Some("audio/mp4"));
        assert_eq!(representation.attribute("audioSamplingRate"), Some("48000"));
        assert_eq!(
            find("AudioChannelConfiguration").attribute("value"),
            Some("2")
        );
        let template = find("SegmentTemplate");
        assert_eq!(template.attribute("timescale"), Some("48000"));
        let mut time = 0;
        let timeline = set.descendants().filter(|node| node.has_tag_name("S"));
        for entry in timeline {
            let number = |name: &str| {
                entry
                    .attribute(name)
                    .map(|text| text.parse::<u64>().unwrap())
            };
            time = number("t").unwrap_or(time);
            time += number("d").unwrap() * (number("r").unwrap_or(0) + 1);
        }
        assert_eq!(time, view.listed.last().unwrap().end_tick().0 * frame);
        // A period starts at the same moment in all sets, to half a sample.
        let start = snapshot.tracks[0].listed[0].period.first_tick;
        let start = start.0 * 1001 * 48_000 / 30_000;
        let said: u64 = template
            .attribute("presentationTimeOffset")
            .unwrap()
            .parse()
            .unwrap();
        assert!(said.abs_diff(start) <= 1, "{said} {start}");
    }
}

#[test]
fn the_low_latency_mpd_counts_the_sounds_segments_without_drift() {
    for (rate, timescale) in [
        ("30", 48_000),
        ("29.97", 48_000),
        ("13", 48_000),
        ("29.9", 299),
    ] {
        let (grid, window) = window(rate, 40);
        let snapshot = snapshot(&window, &grid);
        let text = dash::mpd_low_latency(&snapshot, &options());
        let document = roxmltree::Document::parse(&text).unwrap();
        let set = document
            .descendants()
            .find(|node| node.attribute("contentType") == Some("audio"));
        let template = set
            .unwrap()
            .descendants()
            .find(|node| node.has_tag_name("SegmentTemplate"));
        let number = |name: &str| {
            template
                .unwrap()
                .attribute(name)
                .unwrap()
                .parse::<u128>()
                .unwrap()
        };
        assert_eq!(number("timescale"), timescale, "{rate}");
        let (num, den) = (
            u128::from(grid.framerate.num()),
            u128::from(grid.framerate.den()),
        );
        let ticks = u128::from(grid.ticks_per_segment.get());
        assert_eq!(number("duration") * num, ticks * den * timescale, "{rate}");
        let start = number("startNumber") * ticks * den * timescale / num;
        assert_eq!(number("presentationTimeOffset"), start, "{rate}");
    }
}
