//! Parts as low-latency players count them (draft rfc8216bis, 6.2.5.2): by their index within a segment, from 0. A segment that starts
//! late has its first part at index 0, whatever that part's number on the grid is.

use crate::package::Part;
use crate::tick::{PartNumber, SegmentNumber, Tick};

use super::{OpenSegment, Period, Segment, TrackView};

/// A part's place in a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Its segment.
    pub segment: SegmentNumber,
    /// Its index among the segment's parts.
    pub part: u32,
}

/// A part as a low-latency playlist lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListedPart<'a> {
    /// It can be fetched.
    Whole(&'a Part),
    /// It will never be (GAP=YES).
    Missing {
        /// Its place on the grid.
        number: PartNumber,
        /// Where it would have started.
        first_tick: Tick,
        /// How many ticks it would have had.
        ticks: u32,
    },
}

impl Segment {
    /// Its parts in order: of a gap, what remains, and what is missing up to its end.
    pub fn listed_parts(&self) -> Vec<ListedPart<'_>> {
        let whole = match self.gap {
            true => &self.remains,
            false => &self.parts,
        };
        let mut parts: Vec<_> = whole.iter().map(ListedPart::Whole).collect();
        if self.gap {
            let mut tick = whole.last().map_or(self.first_tick, |part| {
                part.first_tick.plus(u64::from(part.ticks))
            });
            while tick < self.end_tick() {
                let end = self.period.grid.part_end(tick).min(self.end_tick());
                let counted = u32::try_from(parts.len()).unwrap_or(u32::MAX);
                parts.push(ListedPart::Missing {
                    number: match self.period.grid.cut {
                        Some(_) => counted,
                        None => self.period.grid.part_of(tick),
                    },
                    first_tick: tick,
                    ticks: u32::try_from(end.since(tick)).unwrap_or(u32::MAX),
                });
                tick = end;
            }
        }
        parts
    }
}

impl OpenSegment {
    /// The tick after its last part.
    pub fn end_tick(&self) -> Tick {
        super::column::end_of(&self.parts).unwrap_or(self.first_tick)
    }

    /// Whether EXT-X-DISCONTINUITY stands before it.
    pub fn starts_discontinuity(&self) -> bool {
        self.period.starts_discontinuity_at(self.first_tick)
    }

    /// Whether all of its parts are here, though it is not listed yet.
    pub fn is_whole(&self) -> bool {
        self.parts.last().is_some_and(|part| part.last)
    }

    /// How many parts it will have; of a copied stream's, which may end at once, how many it has.
    fn expected_parts(&self) -> u32 {
        let grid = &self.period.grid;
        if grid.cut.is_some() {
            return u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        }
        let last = Tick(grid.segment_end(self.first_tick).0 - 1);
        grid.part_of(last) - grid.part_of(self.first_tick) + 1
    }
}

impl Period {
    /// Whether EXT-X-DISCONTINUITY stands before a segment that starts at `tick`.
    pub fn starts_discontinuity_at(&self, tick: Tick) -> bool {
        let within = self.first_tick.plus(self.grid.begins_within());
        self.discontinuity && (self.first_tick..within).contains(&tick)
    }
}

impl TrackView {
    /// The place of the first part that is not there yet; none before the first segment.
    pub fn next_place(&self) -> Option<Place> {
        if let Some(open) = &self.open {
            let part = u32::try_from(open.parts.len()).unwrap_or(u32::MAX);
            let segment = open.number;
            return Some(Place { segment, part });
        }
        let segment = self.listed.last()?.number.next();
        Some(Place { segment, part: 0 })
    }

    /// The newest part's place: LAST-MSN and LAST-PART of a rendition report.
    pub fn last_place(&self) -> Option<Place> {
        let next = self.next_place()?;
        if let Some(part) = next.part.checked_sub(1) {
            return Some(Place { part, ..next });
        }
        let last = self.listed.last()?;
        let count = u32::try_from(last.listed_parts().len()).unwrap_or(u32::MAX);
        Some(Place {
            segment: last.number,
            part: count.saturating_sub(1),
        })
    }

    /// The name on the grid of the part at [`Self::next_place`]: what EXT-X-PRELOAD-HINT announces.
    pub fn next_part(&self) -> Option<(SegmentNumber, PartNumber)> {
        match &self.open {
            Some(open) if open.is_whole() => Some((open.number.next(), 0)),
            Some(open) if open.period.grid.cut.is_some() => {
                // One that turns out to be the next segment's first is asked for in vain, and the playlist says so.
                let before = open.parts.last().map(|part| part.number);
                Some((
                    open.number,
                    before.map_or(0, |before| before.saturating_add(1)),
                ))
            }
            Some(open) => {
                let part = open.period.grid.part_of(open.end_tick());
                Some((open.number, part))
            }
            None => Some((self.listed.last()?.number.next(), 0)),
        }
    }

    /// Whether the part at `place` is there, or its segment is. A place past the end of a closed segment is the first of the next one.
    pub fn has(&self, place: Place) -> bool {
        let Some(next) = self.next_place() else {
            return false;
        };
        let last = self.listed.last();
        match last.filter(|last| last.number == place.segment) {
            Some(last) if place.part as usize >= last.listed_parts().len() => next.part > 0,
            _ => place < next,
        }
    }

    /// How many parts after the newest one lie up to and with `place`, which is in the segment of [`Self::next_place`] or the one
    /// after; 0 for what is there.
    pub fn parts_until(&self, place: Place) -> u64 {
        let Some(next) = self.next_place() else {
            return 0;
        };
        if place < next {
            return 0;
        }
        let wanted = u64::from(place.part) + 1;
        let before = match &self.open {
            Some(open) if place.segment > open.number => u64::from(open.expected_parts()),
            _ if place.segment > next.segment => {
                let grid = self.listed.last().map(|last| last.period.grid);
                let counted = grid.filter(|grid| grid.cut.is_none());
                counted.map_or(0, |grid| u64::from(grid.parts_per_segment()))
            }
            _ => 0,
        };
        before + wanted - u64::from(next.part)
    }
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
