//! What never comes: ticks that are given up, and what slow tracks lack, become gaps.

use std::sync::Arc;
use std::time::Duration;

use super::{Cell, Column, MAX_LEAD, Window};
use crate::tick::{SegmentNumber, Tick, UnixTime};

impl Window {
    /// Nothing will come for the ticks from `from` to `to`, nor for what before them was not pushed: an unfinished segment
    /// becomes a gap, and so do the segments up to the one that `to` lies in. What a track has finished already stays, because
    /// a playlist may have listed it. The next part begins a period, which the caller may have begun itself.
    pub fn mark_missing(&mut self, from: Tick, to: Tick, now: UnixTime) {
        let Some(period) = &self.period else { return };
        if from >= to {
            return;
        }
        let until = period.grid.segment_of(to);
        self.give_up_unfinished(Some(until));
        self.fill_gaps(until, now);
        self.rotate(now);
        self.expire(now);
    }

    /// Gives up what the slowest tracks lack of the columns that lie too far behind column `index`.
    pub(super) fn leave_behind(&mut self, index: usize) {
        for column in self
            .columns
            .iter_mut()
            .take(index.saturating_sub(MAX_LEAD - 1))
        {
            for track in 0..column.cells.len() {
                column.give_up(track);
            }
        }
    }

    /// Makes gaps of what is unfinished before `until`, or of all that is.
    pub(super) fn give_up_unfinished(&mut self, until: Option<SegmentNumber>) {
        for index in 0..self.columns.len() {
            if until.is_some_and(|until| self.columns[index].number >= until) {
                break;
            }
            let touched = self.columns[index]
                .cells
                .iter()
                .any(|cell| !matches!(cell, Cell::Empty));
            // A period's first segment of which nobody has seen anything is a gap of the period before: no period is empty.
            if !touched && let Some(before) = index.checked_sub(1) {
                let before = Arc::clone(&self.columns[before].period);
                let column = &mut self.columns[index];
                if before.grid == column.period.grid && !Arc::ptr_eq(&before, &column.period) {
                    self.owed_discontinuity |= column.period.discontinuity;
                    column.first_tick = before
                        .grid
                        .first_tick_of(column.number)
                        .unwrap_or(column.first_tick);
                    column.period = before;
                }
            }
            for track in 0..self.settings.tracks.len() {
                self.columns[index].give_up(track);
            }
        }
    }

    /// Makes the numbers before `until` gaps, as many of them as the playlists will list.
    pub(super) fn fill_gaps(&mut self, until: SegmentNumber, now: UnixTime) {
        let missing = until.since(self.next_number());
        if missing == 0 {
            return;
        }
        let Some(last) = self.columns.back() else {
            self.media_sequence = until;
            return;
        };
        let newest = self.period.as_ref().unwrap_or(&last.period);
        let period = if last.period.grid.same_edges(&newest.grid)
            && last.period.grid.number_offset == newest.grid.number_offset
        {
            Arc::clone(&last.period)
        } else {
            Arc::clone(newest)
        };
        let enough = self.segments_to_cover(&period.grid);
        if missing >= enough {
            self.retire_all(now);
            self.media_sequence = SegmentNumber(until.0 - enough);
        }
        for number in self.next_number().0..until.0 {
            let number = SegmentNumber(number);
            let Some(edge) = period.grid.first_tick_of(number) else {
                continue;
            };
            let first_tick = edge.max(period.first_tick);
            let mut column = Column {
                number,
                period: Arc::clone(&period),
                first_tick,
                cells: self.settings.tracks.iter().map(|_| Cell::Empty).collect(),
                captured: None,
                longest: Duration::ZERO,
                expires: None,
            };
            for track in 0..column.cells.len() {
                column.give_up(track);
            }
            self.columns.push_back(column);
        }
    }
}
