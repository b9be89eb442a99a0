//! What a window does when its memory runs short: it lets go of what viewers miss least, and leaves other streams alone.

use std::sync::Arc;
use std::time::Duration;

use super::{Cell, PushError, Window};
use crate::budget::{Account, Budget};
use crate::package::Part;
use crate::sample::TrackIndex;
use crate::tick::UnixTime;

/// A shortage is told of for so long after it was last felt.
const RECENT: Duration = Duration::from_secs(60);

/// What was given up for want of memory, the least harm first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GivenUp {
    /// Segments that no playlist lists any more, before their time.
    Retained,
    /// The oldest listed segments: the playlists are shorter than they should be.
    Listed,
    /// New segments, which became gaps: what three target durations need does not fit.
    New,
}

/// A window's lack of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// The worst of what was given up lately.
    pub given_up: GivenUp,
    /// What all windows may hold, in bytes.
    pub limit: u64,
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let given_up = match self.given_up {
            GivenUp::Retained => "segments that have left the playlists go before their time",
            GivenUp::Listed => "the playlists are shorter than its window",
            GivenUp::New => "new segments are left out",
        };
        write!(
            f,
            "{given_up}: it needs more than its share of the {} MiB for all windows; raise [limits] window_memory, shorten its window or lower its bitrates",
            self.limit >> 20
        )
    }
}

impl Window {
    /// This window, its memory taken from `memory` from now on.
    #[must_use]
    pub fn within(mut self, memory: &Arc<Budget>) -> Self {
        self.account = Account::open(memory, self.account.own());
        self
    }

    /// The worst that was given up lately for want of memory.
    pub fn shortage(&self, now: UnixTime) -> Option<Shortage> {
        let lately = |at: &Option<UnixTime>| at.is_some_and(|at| now.saturating_since(at) < RECENT);
        let worst = [GivenUp::New, GivenUp::Listed, GivenUp::Retained]
            .into_iter()
            .find(|&given_up| lately(&self.given_up[given_up as usize]))?;
        Some(Shortage {
            given_up: worst,
            limit: self.account.limit(),
        })
    }

    /// Takes the memory of `part`, the next of `track`. Without any the whole segment becomes a gap, and what there is of it goes.
    pub(super) fn take_room(
        &mut self,
        track: TrackIndex,
        part: &Part,
        now: UnixTime,
    ) -> Result<(), PushError> {
        let bytes = part.bytes.len() as u64;
        if self.settings.mode.is_recorded() {
            // Nothing of a recording is given up: its owner holds it back before it gets too far ahead of the disk.
            self.account.note(bytes);
            return Ok(());
        }
        while !self.account.take(bytes) {
            if !self.give_up_oldest(now) {
                self.give_up_newest(track, part, now);
                let limit = self.account.limit();
                return Err(PushError::Memory { bytes, limit });
            }
        }
        Ok(())
    }

    /// Gives back what this window has beyond its share while all have too much; says whether there was anything.
    pub(super) fn shed(&mut self, now: UnixTime) -> bool {
        let mut shed = false;
        if self.settings.mode.is_recorded() {
            return shed;
        }
        while self.account.is_over() && self.give_up_oldest(now) {
            shed = true;
        }
        shed
    }

    /// Lets the oldest segments of all tracks go, first those that no playlist lists; false if the playlists have three target
    /// durations left, which players need.
    fn give_up_oldest(&mut self, now: UnixTime) -> bool {
        if self.retained.is_empty() {
            if !self.front_may_leave(0, self.three_targets()) {
                return false;
            }
            self.retire(now);
            self.note_given_up(GivenUp::Listed, now);
        } else {
            self.note_given_up(GivenUp::Retained, now);
        }
        if let Some(column) = self.retained.pop_front() {
            self.account.give(column.bytes());
        }
        true
    }

    fn give_up_newest(&mut self, track: TrackIndex, part: &Part, now: UnixTime) {
        let index = self.frontier(track);
        if index == self.columns.len() && self.is_cut() {
            let period = self.period_for(part.first_tick);
            self.push_gap(&period, part.first_tick, part.ticks);
        } else if index == self.columns.len() {
            self.add_column(part.segment, part.first_tick);
        }
        for column in self.columns.iter_mut().take(index + 1) {
            for cell in &mut column.cells {
                if let Cell::Open(parts) = cell {
                    let bytes: usize = parts.iter().map(|part| part.bytes.len()).sum();
                    parts.clear();
                    self.account.give(bytes as u64);
                }
            }
        }
        self.give_up_unfinished(Some(part.segment.next()));
        self.note_given_up(GivenUp::New, now);
        self.rotate(now);
    }

    fn note_given_up(&mut self, what: GivenUp, now: UnixTime) {
        self.given_up[what as usize] = Some(now);
    }
}
