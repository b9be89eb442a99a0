//! A copied stream, whose segments follow one another in number and in time: nothing of either follows from a clock.

use std::sync::Arc;
use std::time::Duration;

use super::{Cell, Column, Period, TrackInit, Window};
use crate::sample::TrackIndex;
use crate::tick::{Grid, Tick, UnixTime};
use crate::window::Segment;

impl Window {
    /// Begins a period of a copied stream at `first_tick`. The time since the newest segment becomes gaps if it is half a segment or more. It is
    /// a discontinuity if `other`, or if ticks are missing that are no gap. What was published of another grid leaves the playlists at once.
    pub fn begin_cut_period(
        &mut self,
        grid: Grid,
        first_tick: Tick,
        tracks: Vec<TrackInit>,
        other: bool,
        now: UnixTime,
    ) {
        debug_assert_eq!(tracks.len(), self.settings.tracks.len());
        self.ended = false;
        self.finish_cut();
        let before = self.period.as_ref().map(|before| before.grid);
        match before {
            Some(before) if !before.same_edges(&grid) => self.retire_all(now),
            _ => self.fill_time(&grid, first_tick, now),
        }
        let end = self.end_of_cut(0);
        let broken = other || end.is_some_and(|end| end != first_tick);
        if let Some(unused) = self.period_without_media() {
            self.owed_discontinuity |= unused.discontinuity;
        }
        let discontinuity = broken || std::mem::take(&mut self.owed_discontinuity);
        self.period = Some(Arc::new(Period::new(
            first_tick,
            grid,
            discontinuity,
            tracks,
        )));
        self.rotate(now);
    }

    /// A copied stream's source gives nothing: the time up to `until` becomes gaps.
    pub fn mark_away(&mut self, until: Tick, now: UnixTime) {
        let Some(grid) = self.period.as_ref().map(|period| period.grid) else {
            return;
        };
        self.finish_cut();
        self.fill_time(&grid, until, now);
        self.rotate(now);
        self.expire(now);
    }

    /// A copied stream goes on from what an earlier run has left: nothing comes to the segment that it was writing.
    pub fn cut_off(&mut self, now: UnixTime) {
        if self.is_cut() && self.is_writing() {
            self.finish_cut();
            self.rotate(now);
        }
    }

    /// What is being written is whole as far as it has come: it begins with a keyframe, and may end anywhere. What a track lacks becomes a gap.
    fn finish_cut(&mut self) {
        for index in 0..self.columns.len() {
            for track in 0..self.settings.tracks.len() {
                if matches!(self.columns[index].cells[track], Cell::Open(_)) && self.is_cut() {
                    self.close(index, track);
                }
            }
        }
        self.give_up_unfinished(None);
    }

    /// Where the newest segment ends, be it a gap or not.
    pub(super) fn end_of_cut(&self, track: TrackIndex) -> Option<Tick> {
        let last = self.columns.back()?.done(track)?;
        Some(last.end_tick())
    }

    /// Makes gaps of the time from the newest segment up to `until`, as many of them as the playlists will list.
    fn fill_time(&mut self, grid: &Grid, until: Tick, now: UnixTime) {
        let (Some(nominal), Some(end)) = (grid.cut, self.end_of_cut(0)) else {
            return;
        };
        let Some(period) = self.columns.back().map(|last| Arc::clone(&last.period)) else {
            return;
        };
        let nominal = u64::from(nominal.get());
        let mut missing = until.since(end);
        if missing < nominal / 2 {
            return;
        }
        let mut count = missing.div_ceil(nominal);
        let enough = self.segments_to_cover(grid);
        if count >= enough {
            self.retire_all(now);
            (count, missing) = (enough, enough * nominal);
        }
        let first = until.0 - missing;
        let edge = |index: u64| Tick(first + missing * index / count);
        for index in 0..count {
            let ticks = edge(index + 1).since(edge(index));
            self.push_gap(
                &period,
                edge(index),
                u32::try_from(ticks).unwrap_or(u32::MAX),
            );
        }
    }

    /// Whether a segment of any track is being written, or waited for.
    pub fn is_writing(&self) -> bool {
        let mut tracks = 0..self.settings.tracks.len();
        tracks.any(|track| self.frontier(track) < self.columns.len())
    }

    /// Whether the newest period is a copied stream's.
    pub(super) fn is_cut(&self) -> bool {
        let period = self.period.as_ref();
        period.is_some_and(|period| period.grid.cut.is_some())
    }

    /// The ticks from `first_tick` on are the next segment, without media.
    pub(super) fn push_gap(&mut self, period: &Arc<Period>, first_tick: Tick, ticks: u32) {
        let number = self.next_number();
        let tracks = 0..self.settings.tracks.len();
        let gap = |track| {
            Cell::Done(Arc::new(Segment {
                number,
                period: Arc::clone(period.of(track)),
                first_tick,
                ticks,
                parts: Vec::new(),
                stored: 0,
                captured: None,
                remains: Vec::new(),
                gap: true,
                expires: None,
            }))
        };
        self.columns.push_back(Column {
            number,
            period: Arc::clone(period),
            first_tick,
            cells: tracks.map(gap).collect(),
            captured: None,
            longest: Duration::ZERO,
            expires: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::package::Part;
    use crate::picture::Size;
    use crate::sample::TrackDescription;
    use crate::tick::{Framerate, SegmentNumber};
    use crate::window::{Mode, Place, PushError, WindowSettings};

    const START: u64 = 20_000 * 86_400 * 90_000;

    fn grid() -> Grid {
        Grid::copied(Duration::from_secs(2), None)
    }

    fn at(millis: u64) -> Tick {
        Tick(START + millis * 90)
    }

    fn time(millis: u64) -> UnixTime {
        grid().time_of(at(millis))
    }

    fn inits(version: &str) -> Vec<TrackInit> {
        vec![TrackInit {
            description: TrackDescription {
                sample_entry: Bytes::from_static(b"avc1"),
                codecs: "avc1.64001f".to_owned(),
                size: Size::new(1280, 720),
                framerate: Framerate::copied(3600),
                audio: None,
            },
            version: version.to_owned(),
            init: Bytes::from_static(b"init"),
        }]
    }

    fn settings() -> WindowSettings {
        WindowSettings {
            stream: "door".to_owned(),
            mode: Mode::Live,
            tracks: vec!["cam".to_owned()],
            window: Duration::from_secs(14),
            target_duration: 2,
        }
    }

    /// Pushes a segment of so many milliseconds behind the newest.
    fn push(window: &mut Window, millis: u64) {
        let first_tick = window.next_tick(0).unwrap();
        let part = Part {
            segment: window.next_number(),
            number: 0,
            first_tick,
            ticks: u32::try_from(millis * 90).unwrap(),
            independent: true,
            last: true,
            captured: UnixTime::default(),
            bytes: Bytes::from(vec![7; 1000]),
        };
        let now = grid().time_of(first_tick.plus(millis * 90));
        window.push(0, part, now).unwrap();
    }

    /// Number, beginning and length in milliseconds, and whether it is a gap or breaks with the one before, of what is listed.
    fn listed(window: &Window) -> Vec<(u64, u64, u64, bool, bool)> {
        let snapshot = window.snapshot(UnixTime::default());
        let of = |segment: &Arc<Segment>| {
            (
                segment.number.0,
                (segment.first_tick.0 - START) / 90,
                u64::from(segment.ticks) / 90,
                segment.gap,
                segment.starts_discontinuity(),
            )
        };
        snapshot.tracks[0].listed.iter().map(of).collect()
    }

    fn started() -> Window {
        let mut window = Window::new(settings(), None);
        window.begin_cut_period(grid(), at(0), inits("a"), false, time(0));
        for millis in [2000, 1960, 2400] {
            push(&mut window, millis);
        }
        window
    }

    #[test]
    fn segments_of_any_length_follow_one_another_in_number_and_time() {
        let window = started();
        assert_eq!(
            listed(&window),
            [
                (0, 0, 2000, false, false),
                (1, 2000, 1960, false, false),
                (2, 3960, 2400, false, false)
            ]
        );
        assert_eq!(window.next_tick(0), Some(at(6360)));
        let snapshot = window.snapshot(time(6360));
        assert!(snapshot.has_parts() && !snapshot.is_counted());
        let mut restored = Window::new(settings(), Some(&snapshot));
        assert_eq!(restored.next_tick(0), Some(at(6360)));
        assert_eq!(restored.next_number(), SegmentNumber(3));
        push(&mut restored, 2000);
        assert_eq!(
            listed(&restored).last(),
            Some(&(3, 6360, 2000, false, false))
        );
    }

    #[test]
    fn missing_time_is_gaps_and_a_little_of_it_a_discontinuity() {
        let mut window = started();
        // Five seconds: three gaps, and no break in the timestamps.
        window.begin_cut_period(grid(), at(11_360), inits("a"), false, time(11_360));
        push(&mut window, 2000);
        let gaps: Vec<_> = listed(&window)[3..].to_vec();
        assert_eq!(
            gaps.iter().map(|gap| gap.3).collect::<Vec<_>>(),
            [true, true, true, false]
        );
        assert_eq!(gaps.iter().map(|gap| gap.2).sum::<u64>(), 5000 - 2 + 2000);
        assert_eq!(gaps[3], (6, 11_360, 2000, false, false));
        // Half a second.
        window.begin_cut_period(grid(), at(13_860), inits("a"), false, time(13_860));
        push(&mut window, 2000);
        assert_eq!(
            listed(&window).last(),
            Some(&(7, 13_860, 2000, false, true))
        );
        // Another encoding.
        window.begin_cut_period(grid(), at(15_860), inits("b"), true, time(15_860));
        push(&mut window, 2000);
        assert_eq!(
            listed(&window).last(),
            Some(&(8, 15_860, 2000, false, true))
        );
    }

    #[test]
    fn while_the_source_is_away_the_window_goes_on_and_after_a_night_only_with_what_it_lists() {
        let mut window = started();
        window.mark_away(at(8360), time(9000));
        assert_eq!(listed(&window).last(), Some(&(3, 6360, 2000, true, false)));
        let night = at(6360 + 8 * 3_600_000);
        window.begin_cut_period(grid(), night, inits("a"), false, grid().time_of(night));
        push(&mut window, 2000);
        let after = listed(&window);
        let media = after.last().unwrap();
        assert_eq!(
            (media.1, media.3, media.4),
            (8 * 3_600_000 + 6360, false, false)
        );
        assert!(
            after.len() < 10 && after.iter().rev().skip(1).all(|one| one.3),
            "{after:?}"
        );
        for pair in after.windows(2) {
            assert_eq!(pair[0].0 + 1, pair[1].0);
        }
    }

    #[test]
    fn a_stream_that_was_encoded_goes_on_with_the_next_number() {
        let mut window = started();
        let other = Grid::copied(Duration::from_secs(4), None);
        window.begin_cut_period(other, at(6360), inits("a"), true, time(6360));
        push(&mut window, 4000);
        assert_eq!(listed(&window), [(3, 6360, 4000, false, true)]);
    }

    /// Pushes the next part of the segment that is being written, or of a new one.
    fn push_part(window: &mut Window, number: u32, millis: u64, last: bool) {
        let first_tick = window.next_tick(0).unwrap();
        let snapshot = window.snapshot(UnixTime::default());
        let open = snapshot.tracks[0].open.as_ref().map(|open| open.number);
        let part = Part {
            segment: open.unwrap_or(window.next_number()),
            number,
            first_tick,
            ticks: u32::try_from(millis * 90).unwrap(),
            independent: number == 0,
            last,
            captured: UnixTime::default(),
            bytes: Bytes::from(vec![7; 1000]),
        };
        let now = grid().time_of(first_tick.plus(millis * 90));
        window.push(0, part, now).unwrap();
    }

    #[test]
    fn a_segment_in_parts_ends_when_its_source_says_so_and_no_hint_counts_on_it() {
        let grid = Grid::copied(Duration::from_secs(2), Some(Duration::from_millis(200)));
        let mut window = Window::new(settings(), None);
        window.begin_cut_period(grid, at(0), inits("a"), false, time(0));
        let place = |segment, part| Place {
            segment: SegmentNumber(segment),
            part,
        };
        for part in 0..10 {
            push_part(&mut window, part, 200, false);
        }
        let snapshot = window.snapshot(time(2000));
        let view = &snapshot.tracks[0];
        assert_eq!(view.listed.len(), 0);
        assert_eq!(view.next_place(), Some(place(0, 10)));
        assert_eq!(view.next_part(), Some((SegmentNumber(0), 10)));
        // The next one may be the next segment's first.
        assert_eq!(view.parts_until(place(1, 0)), 1);
        window.finish_segment(0, time(2040));
        assert!(!window.is_writing());
        // Nothing is being written: there is nothing to finish.
        window.finish_segment(0, time(2040));
        let snapshot = window.snapshot(time(2040));
        let view = &snapshot.tracks[0];
        assert_eq!(listed(&window), [(0, 0, 2000, false, false)]);
        assert!(view.listed[0].parts.last().unwrap().last);
        assert_eq!(view.next_part(), Some((SegmentNumber(1), 0)));
        // Whoever asked for the part that was announced waits for the next one (rule 16).
        assert!(!view.has(place(0, 10)));
        push_part(&mut window, 0, 200, false);
        let snapshot = window.snapshot(time(2240));
        assert!(snapshot.tracks[0].has(place(0, 10)));
        assert_eq!(snapshot.tracks[0].next_place(), Some(place(1, 1)));
        // Parts that are too long together are refused.
        let long = Part {
            segment: SegmentNumber(1),
            number: 1,
            first_tick: at(2200),
            ticks: 224_999 - 200 * 90 + 1,
            independent: false,
            last: false,
            captured: UnixTime::default(),
            bytes: Bytes::from_static(b"part"),
        };
        let refused = window.push(0, long, time(4000));
        assert!(matches!(refused, Err(PushError::OffGrid { .. })));
    }

    #[test]
    fn what_was_being_written_when_the_daemon_was_killed_is_a_segment_that_ends_there() {
        let grid = Grid::copied(Duration::from_secs(2), Some(Duration::from_millis(200)));
        let mut window = Window::new(settings(), None);
        window.begin_cut_period(grid, at(0), inits("a"), false, time(0));
        push(&mut window, 2000);
        push_part(&mut window, 0, 200, false);
        push_part(&mut window, 1, 200, false);
        let snapshot = window.snapshot(time(2400));
        for away in [false, true] {
            let mut restored = Window::new(settings(), Some(&snapshot));
            assert_eq!(restored.next_tick(0), Some(at(2400)));
            restored.cut_off(time(8000));
            assert_eq!(
                listed(&restored).last(),
                Some(&(1, 2000, 400, false, false))
            );
            if away {
                restored.mark_away(at(8400), time(8400));
            }
            restored.begin_cut_period(grid, at(8400), inits("a"), false, time(8400));
            assert_eq!(restored.next_tick(0), Some(at(8400)));
            assert_eq!(restored.next_number(), SegmentNumber(5));
            push_part(&mut restored, 0, 200, false);
            let seen = listed(&restored);
            assert_eq!(
                seen[..2],
                [(0, 0, 2000, false, false), (1, 2000, 400, false, false)]
            );
            assert!(seen[2..].iter().all(|one| one.3), "{seen:?}");
            let parts = restored.snapshot(time(8600)).tracks[0].listed[1]
                .parts
                .len();
            assert_eq!(parts, 2);
        }
    }
}
