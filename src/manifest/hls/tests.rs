use proptest::prelude::*;
use quick_m3u8::config::ParsingOptionsBuilder;
use quick_m3u8::tag::KnownTag;
use quick_m3u8::tag::hls::Tag;
use quick_m3u8::{HlsLine, Reader};

use super::*;
use crate::manifest::testing::{
    ONE_TRACK, TWO_TRACKS, discontinuities, grid, lives, open, period, segment, snapshot,
};
use crate::picture::Size;

#[test]
fn a_media_playlist_of_a_small_window() {
    let grid = grid("30", 60);
    // 2027-01-15T08:00:00Z is tick 54 000 000 000 of this grid.
    let first = period(grid, 54_000_000_030, false, "a", ONE_TRACK);
    let second = period(grid, 54_000_000_300, true, "b", ONE_TRACK);
    let mut snapshot = snapshot(
        ONE_TRACK,
        &[
            segment(&first, 54_000_000_060, 54_000_000_120, false),
            segment(&first, 54_000_000_120, 54_000_000_130, false),
            segment(&first, 54_000_000_180, 54_000_000_240, true),
            segment(&first, 54_000_000_240, 54_000_000_300, true),
            segment(&second, 54_000_000_300, 54_000_000_360, false),
        ],
    );
    snapshot.discontinuity_sequence = 3;
    let expected = "\
#EXTM3U
#EXT-X-VERSION:6
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-TARGETDURATION:2
#EXT-X-MEDIA-SEQUENCE:900000001
#EXT-X-DISCONTINUITY-SEQUENCE:3
#EXT-X-MAP:URI=\"init-a0.mp4\"
#EXT-X-PROGRAM-DATE-TIME:2027-01-15T08:00:02.000Z
#EXTINF:2.000000,
900000001.m4s
#EXT-X-PROGRAM-DATE-TIME:2027-01-15T08:00:04.000Z
#EXTINF:0.333333,
900000002.m4s
#EXT-X-PROGRAM-DATE-TIME:2027-01-15T08:00:06.000Z
#EXT-X-GAP
#EXTINF:2.000000,
900000003.m4s
#EXT-X-PROGRAM-DATE-TIME:2027-01-15T08:00:08.000Z
#EXT-X-GAP
#EXTINF:2.000000,
900000004.m4s
#EXT-X-DISCONTINUITY
#EXT-X-MAP:URI=\"init-b0.mp4\"
#EXT-X-PROGRAM-DATE-TIME:2027-01-15T08:00:10.000Z
#EXTINF:2.000000,
900000005.m4s
";
    assert_eq!(media(&snapshot, 0), expected);
    snapshot.ended = true;
    assert_eq!(media(&snapshot, 0), format!("{expected}#EXT-X-ENDLIST\n"));
}

#[test]
fn rule_22_a_variant_says_its_codecs_size_rate_and_bandwidths() {
    let grid = grid("29.97", 60);
    let period = period(grid, 60, false, "a", TWO_TRACKS);
    let mut snapshot = snapshot(TWO_TRACKS, &[segment(&period, 60, 120, false)]);
    // The second has no whole segment yet: 8000 bits in 15 ticks, half a second and a bit.
    let low = &mut snapshot.tracks[1];
    (low.peak_bandwidth, low.average_bandwidth) = (0, 0);
    low.listed.clear();
    low.open = Some(open(&period, 60, 15));
    let text = multivariant(&snapshot);
    assert_eq!(
        text,
        "\
#EXTM3U
#EXT-X-VERSION:6
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-STREAM-INF:BANDWIDTH=2600000,AVERAGE-BANDWIDTH=2400000,CODECS=\"avc1.64001f\",RESOLUTION=1280x720,FRAME-RATE=29.970
720p/media.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=15985,AVERAGE-BANDWIDTH=15985,CODECS=\"avc1.42c00d\",RESOLUTION=320x180,FRAME-RATE=29.970
low/media.m3u8
"
    );
    let variants: Vec<_> = tags(&text)
        .into_iter()
        .filter_map(|line| match line {
            HlsLine::KnownTag(KnownTag::Hls(Tag::StreamInf(variant))) => Some(variant),
            _ => None,
        })
        .collect();
    assert_eq!(variants.len(), 2);
    assert_eq!(variants[0].codecs(), Some("avc1.64001f"));
    assert_eq!(variants[0].frame_rate(), Some(29.97));
    assert_eq!(variants[0].resolution().map(|size| size.width), Some(1280));
}

#[test]
fn a_stream_without_anything_lists_nothing() {
    let mut snapshot = snapshot(ONE_TRACK, &[]);
    assert!(!crate::manifest::playable(&snapshot));
    assert!(!multivariant(&snapshot).contains("STREAM-INF"));
    assert!(!media(&snapshot, 0).contains("EXTINF"));
    let period = period(grid("30", 60), 60, false, "a", ONE_TRACK);
    snapshot.tracks[0].listed = vec![segment(&period, 60, 120, false)];
    assert!(crate::manifest::playable(&snapshot));
}

#[test]
fn what_would_end_a_quoted_string_is_left_out() {
    let hostile: &[_] = &[("x", "avc1\",BANDWIDTH=1,X=\"\n", Size::new(2, 2))];
    let period = period(grid("30", 60), 60, false, "a", hostile);
    let text = multivariant(&snapshot(hostile, &[segment(&period, 60, 120, false)]));
    assert!(text.contains(",CODECS=\"avc1,BANDWIDTH=1,X=\",RESOLUTION=2x2,"));
}

fn tags(text: &str) -> Vec<HlsLine<'_>> {
    let options = ParsingOptionsBuilder::new()
        .with_parsing_for_all_tags()
        .build();
    let mut reader = Reader::from_str(text, options);
    std::iter::from_fn(|| reader.read_line().unwrap()).collect()
}

/// A listed segment with the tags that hold for it.
#[derive(Clone, Debug, Default)]
struct Entry {
    uri: String,
    seconds: f64,
    gap: bool,
    discontinuity: bool,
    map: String,
    map_here: bool,
    date_time: String,
}

/// A media playlist, read back.
#[derive(Debug, Default)]
struct Playlist {
    sequence: u64,
    discontinuity_sequence: u64,
    target: u64,
    ended: bool,
    entries: Vec<Entry>,
}

fn read(text: &str) -> Playlist {
    let date_times = text
        .lines()
        .filter_map(|line| line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:"));
    let mut date_times = date_times.map(str::to_owned);
    let (mut playlist, mut next) = (Playlist::default(), Entry::default());
    for line in tags(text) {
        match line {
            HlsLine::KnownTag(KnownTag::Hls(tag)) => match tag {
                Tag::M3u(_) | Tag::Version(_) | Tag::IndependentSegments(_) => {}
                Tag::MediaSequence(tag) => playlist.sequence = tag.media_sequence(),
                Tag::DiscontinuitySequence(tag) => {
                    playlist.discontinuity_sequence = tag.discontinuity_sequence();
                }
                Tag::Targetduration(tag) => playlist.target = tag.target_duration(),
                Tag::Endlist(_) => playlist.ended = true,
                Tag::Inf(tag) => next.seconds = tag.duration(),
                Tag::Gap(_) => next.gap = true,
                Tag::Discontinuity(_) => next.discontinuity = true,
                Tag::Map(tag) => (next.map, next.map_here) = (tag.uri().to_owned(), true),
                Tag::ProgramDateTime(_) => next.date_time = date_times.next().unwrap(),
                other => panic!("{other:?} has no place in a plain live playlist"),
            },
            HlsLine::Uri(uri) => {
                next.uri = uri.into_owned();
                playlist.entries.push(next.clone());
                let map = next.map;
                next = Entry {
                    map,
                    ..Entry::default()
                };
            }
            other => panic!("{other:?} is not for us to write"),
        }
    }
    playlist
}

proptest! {
    #[test]
    fn rules_1_and_10_numbers_and_discontinuities_go_on_from_what_left(life in lives()) {
        let playlist = read(&media(&life.snapshot, 1));
        prop_assert_eq!(playlist.ended, life.snapshot.ended);
        prop_assert_eq!(playlist.entries.len(), life.all.len() - life.dropped);
        for (number, entry) in (playlist.sequence..).zip(&playlist.entries) {
            prop_assert_eq!(&entry.uri, &format!("{number}.m4s"));
        }
        let listed = playlist.entries.iter().filter(|entry| entry.discontinuity).count() as u64;
        prop_assert_eq!(playlist.discontinuity_sequence + listed, discontinuities(&life.all));
    }

    #[test]
    fn rules_8_and_9_gaps_discontinuities_and_maps_stand_where_they_belong(life in lives()) {
        let playlist = read(&media(&life.snapshot, 1));
        let mut before: Option<&Segment> = None;
        let mut version = "";
        for (entry, segment) in playlist.entries.iter().zip(&life.all[life.dropped..]) {
            prop_assert_eq!(entry.gap, segment.gap);
            let starts = segment.first_tick == segment.period.first_tick;
            prop_assert_eq!(entry.discontinuity, starts && segment.period.discontinuity);
            let needed = &segment.period.tracks[1].version;
            prop_assert_eq!(&entry.map, &format!("init-{needed}.mp4"));
            let changes = before.is_none() || entry.discontinuity || version != needed;
            prop_assert_eq!(entry.map_here, changes, "a map only where it is needed");
            before = Some(segment);
            version = needed;
        }
    }

    #[test]
    fn rules_4_21_and_23_durations_and_dates_are_the_grids(life in lives()) {
        let listed = &life.all[life.dropped..];
        let text = media(&life.snapshot, 0);
        let playlist = read(&text);
        let mut run = (0.0, listed[0].starts());
        for (entry, segment) in playlist.entries.iter().zip(listed) {
            prop_assert_eq!(&entry.date_time, &segment.starts().rfc3339());
            prop_assert!(entry.seconds.round() <= playlist.target as f64);
            // Since the last break, the sum is the grid's distance to within a microsecond and what floats lose.
            let grid = &segment.period.grid;
            if segment.first_tick == segment.period.first_tick {
                run = (0.0, segment.starts());
            }
            if entry.seconds + 1e-6 >= grid.framerate.duration_of(u64::from(grid.ticks_per_segment.get())).as_secs_f64() {
                run.0 += entry.seconds;
                let exact = grid.time_of(segment.end_tick()).saturating_since(run.1).as_secs_f64();
                prop_assert!((run.0 - exact).abs() < 2e-6, "{} {}", run.0, exact);
            } else {
                run = (0.0, grid.time_of(grid.segment_end(segment.first_tick)));
            }
        }
        // The same instants and durations in every rendition: only the maps differ.
        let other = media(&life.snapshot, 1);
        let without_maps = |text: &str| -> Vec<String> {
            text.lines().filter(|line| !line.starts_with("#EXT-X-MAP")).map(str::to_owned).collect()
        };
        prop_assert_eq!(without_maps(&text), without_maps(&other));
    }
}
