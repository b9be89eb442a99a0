//! An immutable view of the window at one moment. One is made per change and shared by everyone who reads: the
//! origin's viewers, the publishers, `status`.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::package::Part;
use crate::picture::Size;
use crate::sample::{TrackDescription, TrackIndex};
use crate::tick::{Framerate, Grid, PartNumber, SegmentNumber, Tick, UnixTime};

/// What becomes of a stream's segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They rotate: viewers may fetch the newest.
    #[default]
    Live,
    /// A recording: every one stays, and the playlist grows while it is made.
    Event,
    /// A recording, published once it is whole.
    Vod,
    /// What is kept of a live stream's past: the oldest segments may leave.
    Kept,
}

impl Mode {
    /// As the config has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Event => "event",
            Self::Vod => "vod",
            Self::Kept => "kept",
        }
    }

    /// Whether every frame is kept, at the encoder's speed instead of the clock's.
    pub fn is_recorded(self) -> bool {
        self != Self::Live
    }
}

/// A stretch of the stream in which nothing is missing and no encoding changes: a DASH Period.
#[derive(Debug, PartialEq, Eq)]
pub struct Period {
    /// Where it starts on its grid; it is named `p{first_tick}`.
    pub first_tick: Tick,
    /// The grid that its ticks and numbers are of.
    pub grid: Grid,
    /// Whether timestamps or an encoding break at its start, so that HLS has EXT-X-DISCONTINUITY there; a Period after
    /// mere absence of media has none.
    pub discontinuity: bool,
    /// Each track's encoding, in the order of the tracks.
    pub tracks: Vec<TrackInit>,
    /// The same stretch as each audio track counts it, in its own ticks; none for the places of video tracks.
    audio: Vec<Option<Arc<Period>>>,
}

impl Period {
    /// The period that begins with `first_tick` of the stream's grid, or of an audio track's if `grid` is one.
    pub fn new(first_tick: Tick, grid: Grid, discontinuity: bool, tracks: Vec<TrackInit>) -> Self {
        let view = |track: &TrackInit| {
            let format = track.description.audio.filter(|_| grid.audio.is_none())?;
            let frame = match format.copied_rate {
                None => format.frame,
                Some(_) => NonZeroU32::new(track.description.sample_duration())?,
            };
            let grid = grid.for_audio(frame)?;
            let first_tick = grid.first_beside(first_tick);
            let tracks = tracks.clone();
            Some(Arc::new(Self::new(first_tick, grid, discontinuity, tracks)))
        };
        Self {
            audio: tracks.iter().map(view).collect(),
            first_tick,
            grid,
            discontinuity,
            tracks,
        }
    }

    /// The period as `track` counts it: in frames if it is audio.
    pub fn of(self: &Arc<Self>, track: TrackIndex) -> &Arc<Self> {
        match self.audio.get(track) {
            Some(Some(audio)) => audio,
            _ => self,
        }
    }

    /// Whether `track` is audio.
    pub fn is_audio(&self, track: TrackIndex) -> bool {
        let track = self.tracks.get(track);
        track.is_some_and(|track| track.description.audio.is_some())
    }
}

/// One track's encoding within a period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackInit {
    /// What the manifests say of it.
    pub description: TrackDescription,
    /// The init segment's version: a hash of its content, in hexadecimal. Its file is `init-{version}.mp4`.
    pub version: String,
    /// The init segment (ftyp + moov).
    pub init: Bytes,
}

/// A finished segment of one track, or the place of one that is missing.
#[derive(Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its media sequence number; its file is `{number}.m4s`.
    pub number: SegmentNumber,
    /// The period that it belongs to, as its track counts it. A gap belongs to the period before it.
    pub period: Arc<Period>,
    /// Where it starts: not at an edge of the grid only for a period's first.
    pub first_tick: Tick,
    /// How many ticks it covers.
    pub ticks: u32,
    /// Its parts in order; none for a gap, nor for what is stored.
    pub parts: Vec<Part>,
    /// Of a recording: its bytes, once they are in the publish folder and no longer in memory; 0 before.
    pub stored: u64,
    /// Of a recording: when its first picture was captured.
    pub captured: Option<UnixTime>,
    /// Of a gap: the parts that were whole when it was given up. Low-latency playlists have listed them, so they stay
    /// fetchable by themselves.
    pub remains: Vec<Part>,
    /// Whether its media is missing (EXT-X-GAP).
    pub gap: bool,
    /// When it stops being fetchable; none while a playlist lists it.
    pub expires: Option<UnixTime>,
}

/// The segment that is being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSegment {
    /// Its number.
    pub number: SegmentNumber,
    /// The period that it belongs to, as its track counts it.
    pub period: Arc<Period>,
    /// Where it starts.
    pub first_tick: Tick,
    /// The parts that are whole.
    pub parts: Vec<Part>,
    /// Of a recording: when its first picture was captured.
    pub captured: Option<UnixTime>,
}

/// One track in the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackView {
    /// The rendition's name; its folder.
    pub name: String,
    /// What the playlists list, oldest first, without holes in the numbers.
    pub listed: Vec<Arc<Segment>>,
    /// What has left the playlists but is still fetchable, oldest first.
    pub retained: Vec<Arc<Segment>>,
    /// The segment being written, if any part of it is whole.
    pub open: Option<OpenSegment>,
    /// The highest bitrate of any run of listed segments that lasts between half and one and a half target durations
    /// (RFC 8216, 4.3.4.2), in bits per second; 0 before the first.
    pub peak_bandwidth: u64,
    /// The listed segments' bits over their duration, in bits per second; 0 before the first.
    pub average_bandwidth: u64,
}

/// A stream's window at one moment.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The stream's name.
    pub stream: String,
    /// Whether it rotates.
    pub mode: Mode,
    /// EXT-X-TARGETDURATION in seconds, equal in every track and for ever.
    pub target_duration: u64,
    /// The number of the first listed segment (EXT-X-MEDIA-SEQUENCE), equal in every track; the next number when none is listed.
    pub media_sequence: SegmentNumber,
    /// How many discontinuities have left the window (EXT-X-DISCONTINUITY-SEQUENCE).
    pub discontinuity_sequence: u64,
    /// The window's nominal length in ticks of the newest grid.
    pub window_ticks: u64,
    /// The tracks, in the order of the config.
    pub tracks: Vec<TrackView>,
    /// The longest that a playlist has been while it listed any of what is listed now: decides how long that stays
    /// fetchable afterwards.
    pub longest_playlist: Duration,
    /// Whether the stream has ended (EXT-X-ENDLIST).
    pub ended: bool,
    /// When this was made.
    pub updated: UnixTime,
}

impl Snapshot {
    /// Whether players may have segments part by part: not those of a recording.
    pub fn has_parts(&self) -> bool {
        !self.mode.is_recorded()
    }

    /// Whether a segment's number and length follow from the time, so that players can ask for one that no manifest names: not those of a recording, nor
    /// those of a copied stream.
    pub fn is_counted(&self) -> bool {
        self.has_parts() && !self.is_copied()
    }

    /// Whether it is a copied stream's; not known before its first segment.
    pub fn is_copied(&self) -> bool {
        let view = self.tracks.first();
        let period = view.and_then(|view| view.newest_period());
        period.is_some_and(|period| period.grid.cut.is_some())
    }
}

impl Segment {
    /// The segment's size in bytes.
    pub fn len(&self) -> u64 {
        let held = self.parts.iter().map(|part| part.bytes.len() as u64);
        held.sum::<u64>() + self.stored
    }

    /// Whether it has no media.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tick after its last.
    pub fn end_tick(&self) -> Tick {
        self.first_tick.plus(u64::from(self.ticks))
    }

    /// Its PROGRAM-DATE-TIME: when it begins to be shown, or in a recording, when it was captured.
    pub fn starts(&self) -> UnixTime {
        let on_grid = || self.period.grid.time_of(self.first_tick);
        self.captured.unwrap_or_else(on_grid)
    }

    /// How long it is shown.
    pub fn duration(&self) -> Duration {
        self.framerate().duration_of(u64::from(self.ticks))
    }

    /// Whether EXT-X-DISCONTINUITY stands before it. The window counts those that left by the same rule.
    pub fn starts_discontinuity(&self) -> bool {
        self.period.starts_discontinuity_at(self.first_tick)
    }

    /// The same segment once no playlist lists it.
    pub(super) fn leaving(&self, expires: UnixTime) -> Self {
        Self {
            number: self.number,
            period: Arc::clone(&self.period),
            first_tick: self.first_tick,
            ticks: self.ticks,
            parts: self.parts.clone(),
            stored: self.stored,
            captured: self.captured,
            remains: self.remains.clone(),
            gap: self.gap,
            expires: Some(expires),
        }
    }

    /// The same segment once its bytes are in the publish folder, from where they are served.
    pub(super) fn kept_in_folder(&self) -> Self {
        Self {
            number: self.number,
            period: Arc::clone(&self.period),
            first_tick: self.first_tick,
            ticks: self.ticks,
            parts: Vec::new(),
            stored: self.len(),
            captured: self.captured,
            remains: Vec::new(),
            gap: self.gap,
            expires: self.expires,
        }
    }

    /// Its track's ticks per second while it was made.
    pub fn framerate(&self) -> Framerate {
        self.period.grid.framerate
    }
}

impl TrackView {
    /// A view of these segments, with the bitrates measured over them; `target` is the target duration.
    pub fn new(
        name: String,
        listed: Vec<Arc<Segment>>,
        retained: Vec<Arc<Segment>>,
        open: Option<OpenSegment>,
        target: Duration,
    ) -> Self {
        Self {
            name,
            peak_bandwidth: peak_bandwidth(&listed, target),
            average_bandwidth: bandwidth_of(&listed),
            listed,
            retained,
            open,
        }
    }

    /// The segment `number` of this track, listed or retained, if it has media.
    pub fn segment(&self, number: SegmentNumber) -> Option<&Arc<Segment>> {
        self.any_segment(number).filter(|segment| !segment.gap)
    }

    /// The segment `number` of this track, listed or retained, be it a gap or not.
    pub(crate) fn any_segment(&self, number: SegmentNumber) -> Option<&Arc<Segment>> {
        [&self.listed, &self.retained].into_iter().find_map(|list| {
            let at = list.binary_search_by_key(&number, |segment| segment.number);
            Some(&list[at.ok()?])
        })
    }

    /// Part `part` of segment `number`, and the segment if it is no longer open; a gap's remains are found too.
    pub fn part(
        &self,
        number: SegmentNumber,
        part: PartNumber,
    ) -> Option<(&Part, Option<&Arc<Segment>>)> {
        let (parts, segment) = match &self.open {
            Some(open) if open.number == number => (&open.parts, None),
            _ => {
                let segment = self.any_segment(number)?;
                let parts = match segment.gap {
                    true => &segment.remains,
                    false => &segment.parts,
                };
                (parts, Some(segment))
            }
        };
        let part = parts.iter().find(|candidate| candidate.number == part)?;
        Some((part, segment))
    }

    /// The init segment of `version`, if any segment in the window needs it.
    pub fn init(&self, track: usize, version: &str) -> Option<Bytes> {
        let open = self.open.as_ref().map(|open| &open.period);
        let periods = self
            .retained
            .iter()
            .chain(&self.listed)
            .map(|segment| &segment.period);
        periods
            .chain(open)
            .filter_map(|period| period.tracks.get(track))
            .find(|init| init.version == version)
            .map(|init| init.init.clone())
    }

    /// Whether it is audio; not known before the first period.
    pub fn is_audio(&self) -> bool {
        let retained = self.retained.last().map(|segment| &segment.period);
        let period = self.newest_period().or(retained);
        period.is_some_and(|period| period.grid.audio.is_some())
    }

    /// The newest period, as the track counts it.
    pub fn newest_period(&self) -> Option<&Arc<Period>> {
        match &self.open {
            Some(open) => Some(&open.period),
            None => self.listed.last().map(|segment| &segment.period),
        }
    }

    /// The size of the newest encoding of this track, `index` being its place in the stream.
    pub fn size(&self, index: usize) -> Option<Size> {
        Some(self.newest_period()?.tracks.get(index)?.description.size)
    }
}

/// Bits over duration; gaps count for neither.
fn bandwidth_of(segments: &[Arc<Segment>]) -> u64 {
    let media = segments.iter().filter(|segment| !segment.gap);
    let (bytes, duration) = media.fold((0_u128, Duration::ZERO), |(bytes, duration), segment| {
        (
            bytes + u128::from(segment.len()),
            duration + segment.duration(),
        )
    });
    (bytes * 8 * 1_000_000_000)
        .checked_div(duration.as_nanos())
        .map_or(0, |rate| u64::try_from(rate).unwrap_or(u64::MAX))
}

fn peak_bandwidth(segments: &[Arc<Segment>], target: Duration) -> u64 {
    let mut peak = None;
    for first in 0..segments.len() {
        let mut duration = Duration::ZERO;
        for (last, segment) in segments.iter().enumerate().skip(first) {
            duration += segment.duration();
            if segment.gap || duration > target * 3 / 2 {
                break;
            }
            if duration >= target / 2 {
                peak = peak.max(Some(bandwidth_of(&segments[first..=last])));
            }
        }
    }
    peak.unwrap_or_else(|| bandwidth_of(segments))
}
