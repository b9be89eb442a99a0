//! How long segments stay: listed until every track has enough newer ones, then fetchable for as long as a player may ask for them.

use std::sync::Arc;
use std::time::Duration;

use super::{Cell, MAX_LEAD, MIN_SEGMENTS, Window};
use crate::tick::{Grid, UnixTime};

/// A playlist may be seen for a moment longer than it holds: until viewers are shown the next one, which waits for the disk.
const SEEN_ON: Duration = Duration::from_secs(1);

impl Window {
    /// Lets go of what nobody may fetch any more at `now`, and of what there is no memory for; says whether there was anything.
    pub fn expire(&mut self, now: UnixTime) -> bool {
        let before = self.retained.len();
        let mut expired = 0;
        self.retained.retain(|column| {
            let stays = column.expires.is_none_or(|expires| expires > now);
            expired += if stays { 0 } else { column.bytes() };
            stays
        });
        self.account.give(expired);
        let expired = self.retained.len() < before;
        self.shed(now) || expired
    }

    /// Lists so much from now on. What a longer one lacks comes with time.
    pub fn set_length(&mut self, window: Duration) {
        self.settings.window = window;
    }

    /// No playlist is ever shorter.
    pub(super) fn three_targets(&self) -> Duration {
        Duration::from_secs(self.settings.target_duration).saturating_mul(3)
    }

    fn least_duration(&self) -> Duration {
        self.settings.window.max(self.three_targets())
    }

    /// How many whole segments of `grid` a playlist lists at least.
    pub(super) fn segments_to_cover(&self, grid: &Grid) -> u64 {
        let segment = grid
            .framerate
            .duration_of(u64::from(grid.ticks_per_segment.get()));
        let count = self
            .least_duration()
            .as_nanos()
            .div_ceil(segment.as_nanos().max(1));
        u64::try_from(count)
            .unwrap_or(u64::MAX)
            .max(MIN_SEGMENTS as u64)
    }

    /// The hard limit on listed columns: twice what whole segments need, and the lead of the fastest track.
    fn most_listed(&self) -> usize {
        let newest = self.period.as_ref();
        let cover = newest.map_or(0, |period| self.segments_to_cover(&period.grid));
        usize::try_from(cover)
            .unwrap_or(usize::MAX)
            .saturating_mul(2)
            .saturating_add(MAX_LEAD)
    }

    /// Retires columns while every track has enough newer ones.
    pub(super) fn rotate(&mut self, now: UnixTime) {
        if self.settings.mode.is_recorded() {
            return;
        }
        let least = self.least_duration();
        while !self.ended
            && !self.columns.is_empty()
            && (self.front_may_leave(MIN_SEGMENTS, least)
                || self.columns.len() > self.most_listed())
        {
            self.retire(now);
        }
        self.note_lengths(Duration::ZERO);
        let most = self.most_listed().saturating_mul(2);
        while self.retained.len() > most
            && let Some(column) = self.retained.pop_front()
        {
            self.account.give(column.bytes());
        }
    }

    /// Whether every track has so many whole segments of so long together after the first.
    pub(super) fn front_may_leave(&self, least: usize, least_duration: Duration) -> bool {
        (0..self.settings.tracks.len()).all(|track| {
            let newer = self
                .columns
                .iter()
                .map_while(|column| column.done(track))
                .skip(1);
            let (count, duration) = newer.fold((0, Duration::ZERO), |(count, sum), segment| {
                (count + 1, sum + segment.duration())
            });
            count >= least && duration >= least_duration
        })
    }

    pub(super) fn retire_all(&mut self, now: UnixTime) {
        while !self.columns.is_empty() {
            self.retire(now);
        }
    }

    pub(super) fn retire(&mut self, now: UnixTime) {
        let Some(mut column) = self.columns.pop_front() else {
            return;
        };
        self.media_sequence = column.number.next();
        self.discontinuity_sequence += u64::from(column.starts_discontinuity());
        // A part's own URI stays for at least three target durations, even where no playlist has ever listed its segment.
        let stays = (column.duration() + column.longest).max(self.three_targets()) + SEEN_ON;
        let expires = now.saturating_add(stays);
        column.expires = Some(expires);
        for cell in &mut column.cells {
            if let Cell::Done(segment) = cell {
                *segment = Arc::new(segment.leaving(expires));
            }
        }
        if !column.is_bare() {
            self.retained.push_back(column);
        }
    }

    /// Notes for each listed column how long the playlists are that list it now, at least `floor`.
    pub(super) fn note_lengths(&mut self, floor: Duration) {
        let longest = (0..self.settings.tracks.len())
            .map(|track| {
                self.columns
                    .iter()
                    .filter_map(|column| column.done(track))
                    .map(|segment| segment.duration())
                    .sum::<Duration>()
            })
            .max()
            .unwrap_or_default()
            .max(floor);
        for column in &mut self.columns {
            column.longest = column.longest.max(longest);
        }
    }
}
