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
        self.give_up_unfinished(None);
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
        self.fill_time(&grid, until, now);
        self.rotate(now);
        self.expire(now);
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
    use crate::window::{Mode, WindowSettings};

    const START: u64 = 20_000 * 86_400 * 90_000;

    fn grid() -> Grid {
        Grid::copied(Duration::from_secs(2))
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
        assert!(!snapshot.has_parts());
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
        let other = Grid::copied(Duration::from_secs(4));
        window.begin_cut_period(other, at(6360), inits("a"), true, time(6360));
        push(&mut window, 4000);
        assert_eq!(listed(&window), [(3, 6360, 4000, false, true)]);
    }
}
