//! Windows for the tests of playlists and MPDs: a life of a stream is invented, and a window cut out of it.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use crate::package::Part;
use crate::picture::Size;
use crate::sample::TrackDescription;
use crate::tick::{Framerate, Grid, SegmentNumber, Tick, UnixTime};
use crate::window::{Mode, OpenSegment, Period, Segment, Snapshot, TrackInit, TrackView};

pub(super) fn grid(rate: &str, ticks_per_segment: u32) -> Grid {
    let framerate: Framerate = rate.parse().unwrap();
    Grid {
        framerate,
        ticks_per_segment: NonZeroU32::new(ticks_per_segment).unwrap(),
        ticks_per_part: NonZeroU32::new(ticks_per_segment.div_ceil(4)).unwrap(),
        number_offset: 0,
        audio: None,
        cut: None,
    }
}

/// A track's name, codecs and size.
pub(super) type TrackSpec<'a> = (&'a str, &'a str, Size);

pub(super) const ONE_TRACK: &[TrackSpec<'_>] = &[("720p", "avc1.64001f", Size::new(1280, 720))];
pub(super) const TWO_TRACKS: &[TrackSpec<'_>] = &[
    ("720p", "avc1.64001f", Size::new(1280, 720)),
    ("low", "avc1.42c00d", Size::new(320, 180)),
];

/// A period whose init segments' versions are `encoding` and the track's place.
pub(super) fn period(
    grid: Grid,
    first: u64,
    discontinuity: bool,
    encoding: &str,
    tracks: &[TrackSpec<'_>],
) -> Arc<Period> {
    let track = |(index, (_, codecs, size)): (usize, &TrackSpec<'_>)| TrackInit {
        description: TrackDescription {
            sample_entry: Bytes::new(),
            codecs: (*codecs).to_owned(),
            size: *size,
            framerate: grid.framerate,
            audio: None,
        },
        version: format!("{encoding}{index}"),
        init: Bytes::from_static(b"init"),
    };
    let tracks = tracks.iter().enumerate().map(track).collect();
    Arc::new(Period::new(Tick(first), grid, discontinuity, tracks))
}

/// The segment from `first` to before `end`, with one part of 1000 bytes unless it is a gap.
pub(super) fn segment(period: &Arc<Period>, first: u64, end: u64, gap: bool) -> Arc<Segment> {
    let ticks = u32::try_from(end - first).unwrap();
    let number = period.grid.segment_of(Tick(first));
    let part = Part {
        segment: number,
        number: 0,
        first_tick: Tick(first),
        ticks,
        independent: true,
        last: true,
        captured: UnixTime::default(),
        bytes: Bytes::from(vec![0; 1000]),
    };
    Arc::new(Segment {
        number,
        period: period.clone(),
        first_tick: Tick(first),
        ticks,
        parts: if gap { Vec::new() } else { vec![part] },
        stored: 0,
        captured: None,
        remains: Vec::new(),
        gap,
        expires: None,
    })
}

/// The open segment at `first` with one part of 1000 bytes and `ticks` ticks.
pub(super) fn open(period: &Arc<Period>, first: u64, ticks: u64) -> OpenSegment {
    let whole = segment(period, first, first + ticks, false);
    OpenSegment {
        number: whole.number,
        period: period.clone(),
        first_tick: Tick(first),
        parts: whole.parts.clone(),
        captured: None,
    }
}

/// A snapshot in which every track lists `listed`.
pub(super) fn snapshot(tracks: &[TrackSpec<'_>], listed: &[Arc<Segment>]) -> Snapshot {
    let view = |(name, _, _): &TrackSpec<'_>| TrackView {
        name: (*name).to_owned(),
        listed: listed.to_vec(),
        retained: Vec::new(),
        open: None,
        peak_bandwidth: 2_600_000,
        average_bandwidth: 2_400_000,
    };
    let longest = listed.iter().map(|segment| {
        let grid = &segment.period.grid;
        let ticks = u64::from(grid.ticks_per_segment.get());
        let nanos = grid.framerate.duration_of(ticks).as_nanos();
        u64::try_from((nanos + 500_000_000) / 1_000_000_000).unwrap()
    });
    Snapshot {
        stream: "door".to_owned(),
        mode: Mode::Live,
        target_duration: longest.max().unwrap_or(2).max(1),
        longest_playlist: Duration::ZERO,
        media_sequence: listed.first().map_or(SegmentNumber(0), |s| s.number),
        discontinuity_sequence: 0,
        window_ticks: listed.last().map_or(900, |last| {
            u64::from(last.period.grid.ticks_per_segment.get()) * 15
        }),
        tracks: tracks.iter().map(view).collect(),
        ended: false,
        updated: UnixTime::from_secs(1_800_000_000),
    }
}

/// A window somewhere in the invented life of a stream, with what the life has had before it.
#[derive(Debug)]
pub(super) struct Life {
    /// Every segment that there ever was.
    pub(super) all: Vec<Arc<Segment>>,
    /// How many of them have left.
    pub(super) dropped: usize,
    /// The window: two tracks.
    pub(super) snapshot: Snapshot,
}

#[derive(Clone, Debug)]
enum Event {
    Segment,
    // The encoder stopped `short` ticks into a segment; `missing` whole segments later there is media again.
    Gap { short: u32, missing: u64 },
    Discontinuity { same_encoding: bool },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => Just(Event::Segment),
        1 => (0_u32..40, 1_u64..4).prop_map(|(short, missing)| Event::Gap { short, missing }),
        1 => any::<bool>().prop_map(|same_encoding| Event::Discontinuity { same_encoding }),
    ];
    proptest::collection::vec(event, 1..30)
}

/// Lives at any framerate and segment length, in any year, with gaps, discontinuities and an end.
pub(super) fn lives() -> impl Strategy<Value = Life> {
    let rates = prop_oneof![
        (1_u32..=240).prop_map(|n| Framerate::new(n, 1).unwrap()),
        (2_u32..=240).prop_map(|n| Framerate::new(n * 1000, 1001).unwrap()),
    ];
    (
        rates,
        500_u64..10_000,
        1_600_000_000_u64..4_000_000_000,
        (0_u64..1000, 0_u64..100, any::<bool>()),
        events(),
    )
        .prop_map(
            |(rate, segment_ms, second, (late, dropped, ended), events)| {
                let length = Duration::from_millis(segment_ms);
                let grid = Grid::new(rate, length, Duration::from_millis(333));
                let first = grid.tick_at(UnixTime::from_secs(second)).plus(late);
                live(grid, first, &events, dropped, ended)
            },
        )
}

fn live(grid: Grid, first: Tick, events: &[Event], dropped: u64, ended: bool) -> Life {
    let mut now = first;
    let mut encoding = 0;
    let mut current = period(grid, now.0, false, "e0", TWO_TRACKS);
    let mut all: Vec<Arc<Segment>> = Vec::new();
    for event in events {
        match event {
            Event::Segment => {}
            Event::Gap { short, missing } => {
                let until = now.plus(u64::from(*short));
                if until > now && until < grid.segment_end(now) {
                    all.push(segment(&current, now.0, until.0, false));
                    now = grid.segment_end(now);
                }
                for _ in 0..*missing {
                    let end = grid.segment_end(now);
                    if !all.is_empty() {
                        all.push(segment(&current, now.0, end.0, true));
                    }
                    now = end;
                }
                current = period(grid, now.0, false, &format!("e{encoding}"), TWO_TRACKS);
            }
            Event::Discontinuity { same_encoding } => {
                encoding += u32::from(!same_encoding);
                if !all.is_empty() && current.first_tick != now {
                    current = period(grid, now.0, true, &format!("e{encoding}"), TWO_TRACKS);
                }
            }
        }
        let end = grid.segment_end(now);
        all.push(segment(&current, now.0, end.0, false));
        now = end;
    }
    let dropped = usize::try_from(dropped).unwrap() % all.len();
    let mut snapshot = snapshot(TWO_TRACKS, &all[dropped..]);
    snapshot.discontinuity_sequence = discontinuities(&all[..dropped]);
    snapshot.ended = ended;
    Life {
        all,
        dropped,
        snapshot,
    }
}

/// How many of `segments` start a discontinuity.
pub(super) fn discontinuities(segments: &[Arc<Segment>]) -> u64 {
    let starts =
        |s: &&Arc<Segment>| !s.gap && s.period.discontinuity && s.first_tick == s.period.first_tick;
    segments.iter().filter(starts).count() as u64
}
