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
        let gap = |_| {
            Cell::Done(Arc::new(Segment {
                number,
                period: Arc::clone(period),
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
