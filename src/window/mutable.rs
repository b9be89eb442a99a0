//! The window itself: parts come in, segments rotate out in step in all tracks, and time is an argument. It promises the
//! rules of a live playlist: numbers without holes, a media sequence that never falls, and that whatever was listed stays
//! fetchable for its own duration plus that of the longest playlist that listed it, and no longer.
//!
//! Memory is bounded by construction. A segment has at most as many parts as its grid has ticks for it; a track can be at
//! most [`MAX_LEAD`] segments ahead of the slowest one, whose missing segments then become gaps; a longer gap than the
//! window makes only as many entries as the window lists; and there are hard limits on what is listed and retained, which
//! only a stream of nothing but shortened segments, or a clock that stands still, can reach.

mod cut;
mod gaps;
mod recorded;
mod room;
mod rotation;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringgear_ring::MediaRun;

use crate::clock::MonotonicTime;
use crate::package::Part;
use crate::sample::TrackIndex;
use crate::tick::{Grid, SegmentNumber, Tick, UnixTime};

use super::column::{Cell, Column, end_of, gap, place};
use super::{Mode, OpenSegment, Period, Segment, Snapshot, TrackInit, TrackView};
use crate::budget::{Account, Budget};

pub use room::{GivenUp, Shortage};

/// A playlist lists at least this many segments once the stream is old enough.
pub const MIN_SEGMENTS: usize = 6;
/// How many segments a track may be ahead of another before the other's missing ones become gaps.
pub const MAX_LEAD: usize = 6;

/// What a stream's window is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowSettings {
    /// The stream's name.
    pub stream: String,
    /// Whether segments rotate.
    pub mode: Mode,
    /// The renditions' names, in the order of the config.
    pub tracks: Vec<String>,
    /// What the playlists list at least.
    pub window: Duration,
    /// EXT-X-TARGETDURATION in seconds.
    pub target_duration: u64,
}

/// Why a part was not taken. The window is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The stream has ended.
    #[error("the stream has ended")]
    Ended,
    /// No period has begun.
    #[error("no period has begun")]
    NoPeriod,
    /// The stream has no such track.
    #[error("there is no track {0}")]
    UnknownTrack(TrackIndex),
    /// Those ticks are there already, or were given up: nothing is lost by dropping the part.
    #[error("tick {got} of track {track} is past: the next is {expected}")]
    Past {
        /// The part's track.
        track: TrackIndex,
        /// The track's next tick.
        expected: Tick,
        /// The part's first tick.
        got: Tick,
    },
    /// Video has not come to that segment: audio follows it.
    #[error("segment {segment} of audio track {track} is ahead of the video: offer it again")]
    Ahead {
        /// The part's track.
        track: TrackIndex,
        /// Its segment.
        segment: SegmentNumber,
    },
    /// Ticks before it are missing: mark them so, and begin a period.
    #[error("tick {got} of track {track} follows a hole: the next is {expected}")]
    Hole {
        /// The part's track.
        track: TrackIndex,
        /// The track's next tick.
        expected: Tick,
        /// The part's first tick.
        got: Tick,
    },
    /// Its memory can't be had: its segment has become a gap, so that later ones may fit.
    #[error(
        "there is no room for a part of {bytes} bytes within the {limit} bytes of all windows: raise [limits] window_memory, shorten the window or lower the bitrates"
    )]
    Memory {
        /// The part's size.
        bytes: u64,
        /// What all windows may hold.
        limit: u64,
    },
    /// The part's numbers or length contradict the grid.
    #[error(
        "part {part} of segment {segment} in track {track} does not fit the grid: {ticks} ticks from {first}"
    )]
    OffGrid {
        /// The part's track.
        track: TrackIndex,
        /// The segment that it claims.
        segment: SegmentNumber,
        /// The place that it claims.
        part: u32,
        /// Its first tick.
        first: Tick,
        /// Its length.
        ticks: u32,
    },
}

/// What viewers may fetch, and the rules by which that changes.
#[derive(Debug)]
pub struct Window {
    settings: WindowSettings,
    /// The newest period, which the next part belongs to.
    period: Option<Arc<Period>>,
    /// A discontinuity whose period got no media: the next period takes it over.
    owed_discontinuity: bool,
    /// Left the playlists, oldest first.
    retained: VecDeque<Column>,
    /// In the playlists or being written, oldest first, numbers without holes. In each track: done, then at most one open, then empty.
    columns: VecDeque<Column>,
    /// The number of the first column, or of the next one when there is none.
    media_sequence: SegmentNumber,
    discontinuity_sequence: u64,
    ended: bool,
    /// Of each track, where its parts are kept.
    media: Vec<MediaRun>,
    /// The bytes of all parts that are held.
    account: Account,
    /// When each kind of thing was last given up for want of memory.
    given_up: [Option<UnixTime>; 3],
}

impl Window {
    /// An empty window, or one that goes on from `restored`, which has to be of the same tracks.
    pub fn new(settings: WindowSettings, restored: Option<&Snapshot>) -> Self {
        let mut window = Self {
            media: settings
                .tracks
                .iter()
                .map(|_| MediaRun::default())
                .collect(),
            settings,
            period: None,
            owed_discontinuity: false,
            retained: VecDeque::new(),
            columns: VecDeque::new(),
            media_sequence: SegmentNumber(0),
            discontinuity_sequence: 0,
            ended: false,
            account: Account::open(&Budget::new(u64::MAX), 0),
            given_up: [None; 3],
        };
        if let Some(snapshot) = restored {
            window.load(snapshot);
        }
        window
    }

    fn load(&mut self, snapshot: &Snapshot) {
        assert_eq!(
            snapshot.tracks.len(),
            self.settings.tracks.len(),
            "a restored window has the tracks of its stream"
        );
        self.media_sequence = snapshot.media_sequence;
        self.discontinuity_sequence = snapshot.discontinuity_sequence;
        self.ended = snapshot.ended;
        let is_video = |(_, view): &(TrackIndex, &TrackView)| !view.is_audio();
        for (track, view) in snapshot.tracks.iter().enumerate().filter(is_video) {
            for segment in &view.retained {
                place(&mut self.retained, segment, snapshot.tracks.len()).cells[track] =
                    Cell::Done(Arc::clone(segment));
            }
            for segment in &view.listed {
                place(&mut self.columns, segment, snapshot.tracks.len()).cells[track] =
                    Cell::Done(Arc::clone(segment));
            }
        }
        for (track, view) in snapshot.tracks.iter().enumerate().filter(is_video) {
            if let Some(open) = view.open.as_ref().filter(|open| !open.parts.is_empty()) {
                let like = Segment {
                    captured: open.captured,
                    ..gap(open.number, Arc::clone(&open.period), open.first_tick)
                };
                place(&mut self.columns, &like, snapshot.tracks.len()).cells[track] =
                    Cell::Open(open.parts.clone());
            }
        }
        for (track, view) in snapshot.tracks.iter().enumerate() {
            if view.is_audio() {
                self.load_audio(track, view);
            }
        }
        self.period = self
            .columns
            .back()
            .or(self.retained.back())
            .map(|column| Arc::clone(&column.period));
        self.note_lengths(snapshot.longest_playlist);
        let columns = self.retained.iter().chain(&self.columns);
        let bytes = columns.map(Column::bytes).sum();
        // What was published is there, whether it fits or not.
        self.account = Account::open(&Budget::new(u64::MAX), bytes);
    }

    /// Takes over an audio track's segments, beside those of video, whose ticks the columns are of.
    fn load_audio(&mut self, track: TrackIndex, view: &TrackView) {
        let columns = self.retained.iter_mut().chain(&mut self.columns);
        for column in columns {
            let listed = view.retained.iter().chain(&view.listed);
            let begins =
                |tick, grid: &Grid| grid.cut.is_some() || tick == column.first_tick_of(track);
            let done = listed
                .filter(|segment| segment.number == column.number)
                .find(|segment| begins(segment.first_tick, &segment.period.grid));
            let open = view.open.as_ref().filter(|open| {
                open.number == column.number && begins(open.first_tick, &open.period.grid)
            });
            column.cells[track] = match (done, open) {
                (Some(segment), _) => Cell::Done(Arc::clone(segment)),
                (None, Some(open)) if !open.parts.is_empty() => Cell::Open(open.parts.clone()),
                _ => Cell::Empty,
            };
        }
        // What of its older segments has no place beside the video's is a gap: in each track only the newest are unfinished.
        let newest = (0..self.columns.len())
            .rev()
            .find(|index| !matches!(self.columns[*index].cells[track], Cell::Empty));
        let before = newest.unwrap_or(0);
        let listed = self.columns.iter_mut().take(before);
        for column in self.retained.iter_mut().chain(listed) {
            column.give_up(track);
        }
    }

    /// Begins a period at `first_tick`: what is unfinished becomes a gap, and so do the numbers up to it. A period that would
    /// begin inside a segment that has already been taken up begins at the next edge instead. When `grid` makes the
    /// numbers jump (it was changed between runs), all that is listed leaves the playlists at once.
    pub fn begin_period(
        &mut self,
        grid: Grid,
        first_tick: Tick,
        tracks: Vec<TrackInit>,
        discontinuity: bool,
        now: UnixTime,
    ) {
        debug_assert_eq!(tracks.len(), self.settings.tracks.len());
        self.ended = false;
        self.give_up_unfinished(None);
        let number = grid.segment_of(first_tick);
        let same_numbers = self.period.as_ref().is_none_or(|old| {
            old.grid.same_edges(&grid) && old.grid.number_offset == grid.number_offset
        });
        if same_numbers {
            self.fill_gaps(number, now);
        } else if number > self.next_number() {
            self.retire_all(now);
            self.media_sequence = number;
        }
        let next = self.next_number();
        let first_tick = if number < next {
            grid.first_tick_of(next).unwrap_or(first_tick)
        } else {
            first_tick
        };
        if let Some(unused) = self.period_without_media() {
            self.owed_discontinuity |= unused.discontinuity;
        }
        let discontinuity = discontinuity || std::mem::take(&mut self.owed_discontinuity);
        self.period = Some(Arc::new(Period::new(
            first_tick,
            grid,
            discontinuity,
            tracks,
        )));
        self.rotate(now);
    }

    /// Takes the next part of `track`. Its segment closes when the part says that it is the last, or when it reaches the edge. Where memory is
    /// short, the oldest segments go for it.
    pub fn push(
        &mut self,
        track: TrackIndex,
        mut part: Part,
        now: UnixTime,
    ) -> Result<(), PushError> {
        if self.ended {
            return Err(PushError::Ended);
        }
        if track >= self.settings.tracks.len() {
            return Err(PushError::UnknownTrack(track));
        }
        let expected = self.next_tick(track).ok_or(PushError::NoPeriod)?;
        let index = self.frontier(track);
        if index == self.columns.len() && self.is_audio(track) {
            let segment = part.segment;
            return Err(PushError::Ahead { track, segment });
        }
        self.check(track, index, expected, &part)?;
        self.take_room(track, &part, now)?;
        // Those before it may have left for it.
        let index = self.frontier(track);
        if index == self.columns.len() {
            self.add_column(part.segment, part.first_tick);
        }
        let recorded = self.settings.mode.is_recorded();
        let column = &mut self.columns[index];
        if recorded {
            column.captured.get_or_insert(part.captured);
        }
        let end = part.first_tick.plus(u64::from(part.ticks));
        if let Some(media) = self.media[track].keep(&part.bytes) {
            part.bytes = Bytes::from_owner(media);
        }
        let grid = &column.period.of(track).grid;
        // Of a copied stream only its source knows.
        let closes = part.last || grid.cut.is_none() && grid.starts_segment(end);
        match &mut column.cells[track] {
            Cell::Open(parts) => parts.push(part),
            cell => *cell = Cell::Open(vec![part]),
        }
        if closes {
            self.finish(index, track, now);
        }
        Ok(())
    }

    /// The segment of `track` that is being written has ended with the part before, which did not say so.
    pub fn finish_segment(&mut self, track: TrackIndex, now: UnixTime) {
        let index = self.frontier(track);
        let column = self.columns.get(index);
        if column.is_some_and(|column| matches!(column.cells.get(track), Some(Cell::Open(_)))) {
            self.finish(index, track, now);
        }
    }

    fn finish(&mut self, index: usize, track: TrackIndex, now: UnixTime) {
        self.close(index, track);
        if !self.settings.mode.is_recorded() {
            self.leave_behind(index);
        }
        self.rotate(now);
        self.expire(now);
    }

    fn check(
        &self,
        track: TrackIndex,
        index: usize,
        expected: Tick,
        part: &Part,
    ) -> Result<(), PushError> {
        let got = part.first_tick;
        if got < expected {
            return Err(PushError::Past {
                track,
                expected,
                got,
            });
        }
        let period = match self.columns.get(index) {
            Some(column) => Some(&column.period),
            None => self.period.as_ref(),
        };
        let grid = &period.ok_or(PushError::NoPeriod)?.of(track).grid;
        if got.since(expected) >= grid.begins_within() {
            return Err(PushError::Hole {
                track,
                expected,
                got,
            });
        }
        let number = match self.columns.get(index) {
            Some(column) => column.number,
            None => self.next_number(),
        };
        let before = match self.columns.get(index).map(|column| &column.cells[track]) {
            Some(Cell::Open(parts)) => parts.last().map(|part| part.number),
            _ => None,
        };
        let room = match before_first(self.columns.get(index), track, grid) {
            Some(first) => grid.segment_end(first).since(got),
            None => grid.segment_end(got).since(got),
        };
        let fits = part.segment == number
            && part.ticks > 0
            && u64::from(part.ticks) <= room
            && before.is_none_or(|before| before < part.number);
        if fits {
            Ok(())
        } else {
            Err(PushError::OffGrid {
                track,
                segment: part.segment,
                part: part.number,
                first: got,
                ticks: part.ticks,
            })
        }
    }

    /// The stream ends: open segments close where they are, and nothing rotates any more.
    pub fn end(&mut self, now: UnixTime) {
        for index in 0..self.columns.len() {
            for track in 0..self.settings.tracks.len() {
                if matches!(self.columns[index].cells[track], Cell::Open(_)) {
                    self.close(index, track);
                }
            }
        }
        self.rotate(now);
        self.ended = true;
    }

    /// The first tick of `track` that is not there: where to go on. None before the first period.
    pub fn next_tick(&self, track: TrackIndex) -> Option<Tick> {
        let index = self.frontier(track);
        if let Some(column) = self.columns.get(index) {
            return Some(match column.cells.get(track) {
                Some(Cell::Open(parts)) => {
                    end_of(parts).unwrap_or_else(|| column.first_tick_of(track))
                }
                _ => column.first_tick_of(track),
            });
        }
        let period = self.period.as_ref()?.of(track);
        let next = self.next_number();
        if period.grid.cut.is_some() {
            return self.end_of_cut(track).max(Some(period.first_tick));
        }
        if period.grid.segment_of(period.first_tick) == next {
            return Some(period.first_tick);
        }
        period.grid.first_tick_of(next)
    }

    /// The first tick that some video track lacks: where a restarted encoder goes on, those of its parts that a track has already being refused as past.
    pub fn resume_tick(&self) -> Option<Tick> {
        (0..self.settings.tracks.len())
            .filter(|track| !self.is_audio(*track))
            .filter_map(|track| self.next_tick(track))
            .min()
    }

    /// From where on some audio track lacks sound, as time since tick 0. 0 before the first period, and without sound.
    pub fn sound_goes_on_at(&self) -> MonotonicTime {
        let tracks = (0..self.settings.tracks.len()).filter(|track| self.is_audio(*track));
        let times = tracks.filter_map(|track| {
            let framerate = self.period.as_ref()?.of(track).grid.framerate;
            let time = framerate.duration_of(self.next_tick(track)?.0);
            u64::try_from(time.as_nanos()).ok()
        });
        MonotonicTime(times.min().unwrap_or(0))
    }

    /// Whether `track` is audio in the newest period.
    fn is_audio(&self, track: TrackIndex) -> bool {
        let period = self.period.as_ref();
        period.is_some_and(|period| period.is_audio(track))
    }

    /// Whether the stream has ended.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The newest period.
    pub fn period(&self) -> Option<&Arc<Period>> {
        self.period.as_ref()
    }

    /// The window as it is now.
    pub fn snapshot(&self, now: UnixTime) -> Arc<Snapshot> {
        let views = self.settings.tracks.iter().enumerate();
        let grid = self.period.as_ref().map(|period| period.grid);
        Arc::new(Snapshot {
            stream: self.settings.stream.clone(),
            mode: self.settings.mode,
            target_duration: self.settings.target_duration,
            media_sequence: self.media_sequence,
            discontinuity_sequence: self.discontinuity_sequence,
            window_ticks: grid.map_or(0, |grid| self.window_ticks(&grid, now)),
            tracks: views.map(|(track, name)| self.view(track, name)).collect(),
            longest_playlist: self
                .columns
                .iter()
                .map(|column| column.longest)
                .max()
                .unwrap_or_default(),
            ended: self.ended,
            updated: now,
        })
    }

    /// The window's length in ticks, or what is left of it where memory is short.
    fn window_ticks(&self, grid: &Grid, now: UnixTime) -> u64 {
        let nominal = u64::from(grid.framerate.ticks_in(self.settings.window).get());
        let shortage = self.shortage(now);
        if shortage.is_none_or(|shortage| shortage.given_up == GivenUp::Retained) {
            return nominal;
        }
        let listed = self.columns.iter().map_while(|column| column.done(0));
        let listed = listed.map(|segment| u64::from(segment.ticks)).sum::<u64>();
        nominal.min(listed)
    }

    fn view(&self, track: TrackIndex, name: &str) -> TrackView {
        let done = |columns: &VecDeque<Column>| -> Vec<Arc<Segment>> {
            columns
                .iter()
                .filter_map(|column| column.done(track).cloned())
                .collect()
        };
        let open =
            self.columns
                .get(self.frontier(track))
                .and_then(|column| match &column.cells[track] {
                    Cell::Open(parts) => Some(OpenSegment {
                        number: column.number,
                        period: Arc::clone(column.period.of(track)),
                        first_tick: column.first_tick_of(track),
                        parts: parts.clone(),
                        captured: column.captured,
                    }),
                    _ => None,
                });
        TrackView::new(
            name.to_owned(),
            done(&self.columns),
            done(&self.retained),
            open,
            Duration::from_secs(self.settings.target_duration),
        )
    }

    /// The index of the first column that `track` has not finished.
    fn frontier(&self, track: TrackIndex) -> usize {
        self.columns
            .iter()
            .position(|column| column.done(track).is_none())
            .unwrap_or(self.columns.len())
    }

    /// Whether sound lacks the end of a segment whose pictures are whole.
    pub fn sound_is_behind(&self) -> bool {
        let tracks = 0..self.settings.tracks.len();
        let (sound, pictures): (Vec<_>, Vec<_>) = tracks.partition(|track| self.is_audio(*track));
        let lacks = |column: &Column, tracks: &[TrackIndex]| {
            tracks.iter().any(|track| column.done(*track).is_none())
        };
        let mut columns = self.columns.iter();
        columns.any(|column| !lacks(column, &pictures) && lacks(column, &sound))
    }

    /// The number of the segment after the newest.
    pub fn next_number(&self) -> SegmentNumber {
        self.columns
            .back()
            .map_or(self.media_sequence, |column| column.number.next())
    }

    /// The newest period, if nothing belongs to it yet though something belongs to one before.
    fn period_without_media(&self) -> Option<&Arc<Period>> {
        let newest = self.period.as_ref()?;
        let last = &self.columns.back()?.period;
        (!Arc::ptr_eq(newest, last)).then_some(newest)
    }

    fn add_column(&mut self, number: SegmentNumber, first_tick: Tick) {
        let period = self.period_for(first_tick);
        if self.columns.is_empty() {
            self.media_sequence = number;
        }
        let cells = self.settings.tracks.iter().map(|_| Cell::Empty).collect();
        self.columns.push_back(Column {
            number,
            period,
            first_tick,
            cells,
            captured: None,
            longest: Duration::ZERO,
            expires: None,
        });
    }

    /// The newest period if a segment at `first_tick` begins it or follows on in it, else a new one of the same encodings:
    /// nothing is ever missing inside a period.
    fn period_for(&mut self, first_tick: Tick) -> Arc<Period> {
        let newest = self
            .period
            .as_ref()
            .expect("parts are taken only once a period has begun");
        let last = self
            .columns
            .back()
            .filter(|column| Arc::ptr_eq(&column.period, newest));
        let fits = match last {
            Some(column) => {
                let mut done = (0..column.cells.len()).filter_map(|track| column.done(track));
                // A gap in one track alone breaks the period too. Audio's ticks are its own.
                done.all(|segment| {
                    let is_audio = segment.period.grid.audio.is_some();
                    !segment.gap && (is_audio || segment.end_tick() == first_tick)
                })
            }
            None => newest.first_tick == first_tick,
        };
        if fits {
            return Arc::clone(newest);
        }
        let unused = last.is_none() && newest.discontinuity;
        let period = Arc::new(Period::new(
            first_tick,
            newest.grid,
            std::mem::take(&mut self.owed_discontinuity) || unused,
            newest.tracks.clone(),
        ));
        self.period = Some(Arc::clone(&period));
        period
    }

    fn close(&mut self, index: usize, track: TrackIndex) {
        let column = &mut self.columns[index];
        let Cell::Open(mut parts) = std::mem::replace(&mut column.cells[track], Cell::Empty) else {
            return;
        };
        if let Some(last) = parts.last_mut() {
            last.last = true;
        }
        let first_tick = parts
            .first()
            .map_or_else(|| column.first_tick_of(track), |part| part.first_tick);
        let end = end_of(&parts).unwrap_or(first_tick);
        column.cells[track] = Cell::Done(Arc::new(Segment {
            number: column.number,
            period: Arc::clone(column.period.of(track)),
            first_tick,
            ticks: u32::try_from(end.since(first_tick)).unwrap_or(u32::MAX),
            parts,
            stored: 0,
            captured: column.captured,
            remains: Vec::new(),
            gap: false,
            expires: None,
        }));
    }
}

/// Of a copied stream's segment, where it begins in `track`, if it has a part.
fn before_first(column: Option<&Column>, track: TrackIndex, grid: &Grid) -> Option<Tick> {
    match column?.cells.get(track)? {
        Cell::Open(parts) if grid.cut.is_some() => parts.first().map(|part| part.first_tick),
        _ => None,
    }
}

#[cfg(test)]
#[path = "mutable_tests.rs"]
mod tests;
