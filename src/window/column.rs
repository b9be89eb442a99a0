//! The segments of one number, in all tracks: what the window rotates.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::package::Part;
use crate::sample::TrackIndex;
use crate::tick::{SegmentNumber, Tick, UnixTime};

use super::{Period, Segment};

/// One track's share of a column.
#[derive(Debug)]
pub(super) enum Cell {
    Empty,
    /// At least one part.
    Open(Vec<Part>),
    Done(Arc<Segment>),
}

/// The segments of one number, in all tracks.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) number: SegmentNumber,
    pub(super) period: Arc<Period>,
    pub(super) first_tick: Tick,
    pub(super) cells: Vec<Cell>,
    /// Of a recording: when its first picture was captured.
    pub(super) captured: Option<UnixTime>,
    /// The longest playlist that has listed it.
    pub(super) longest: Duration,
    pub(super) expires: Option<UnixTime>,
}

impl Column {
    pub(super) fn done(&self, track: TrackIndex) -> Option<&Arc<Segment>> {
        match self.cells.get(track) {
            Some(Cell::Done(segment)) => Some(segment),
            _ => None,
        }
    }

    /// The bytes of all parts that it holds.
    pub(super) fn bytes(&self) -> u64 {
        let parts = self.cells.iter().flat_map(|cell| match cell {
            Cell::Empty => [].iter().chain(&[]),
            Cell::Open(parts) => parts.iter().chain(&[]),
            Cell::Done(segment) => segment.parts.iter().chain(&segment.remains),
        });
        parts.map(|part| part.bytes.len() as u64).sum()
    }

    /// Whether nobody can fetch anything of it.
    pub(super) fn is_bare(&self) -> bool {
        self.cells.iter().all(
            |cell| matches!(cell, Cell::Done(segment) if segment.gap && segment.remains.is_empty()),
        )
    }

    /// How long it is shown, in the track where that is longest.
    pub(super) fn duration(&self) -> Duration {
        let done = (0..self.cells.len()).filter_map(|track| self.done(track));
        done.map(|segment| segment.duration())
            .max()
            .unwrap_or_default()
    }

    /// Where it starts in the ticks of `track`.
    pub(super) fn first_tick_of(&self, track: TrackIndex) -> Tick {
        let period = self.period.of(track);
        if period.grid.audio.is_none() {
            return self.first_tick;
        }
        if self.first_tick == self.period.first_tick {
            return period.first_tick;
        }
        period.grid.first_beside(self.first_tick)
    }

    pub(super) fn starts_discontinuity(&self) -> bool {
        self.period.starts_discontinuity_at(self.first_tick)
    }

    /// Gives up what is not finished; the parts that are whole remain.
    pub(super) fn give_up(&mut self, track: TrackIndex) {
        let pictures = self.done(0).map(|video| video.ticks);
        let remains = match &mut self.cells[track] {
            Cell::Done(_) => return,
            Cell::Open(parts) => std::mem::take(parts),
            Cell::Empty => Vec::new(),
        };
        let period = Arc::clone(self.period.of(track));
        let mut gap = gap(self.number, period, self.first_tick_of(track));
        if let Some(nominal) = gap.period.grid.cut {
            // A copied segment is as long as its pictures are, if there are any.
            gap.ticks = pictures.unwrap_or(nominal.get());
        }
        self.cells[track] = Cell::Done(Arc::new(Segment { remains, ..gap }));
    }
}

pub(super) fn gap(number: SegmentNumber, period: Arc<Period>, first_tick: Tick) -> Segment {
    let ticks = period.grid.segment_end(first_tick).since(first_tick);
    let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
    Segment {
        number,
        first_tick,
        ticks,
        period,
        parts: Vec::new(),
        stored: 0,
        captured: None,
        remains: Vec::new(),
        gap: true,
        expires: None,
    }
}

/// The column of `segment`'s number, which is a video track's, made if there is none, in the order of the numbers.
pub(super) fn place<'a>(
    columns: &'a mut VecDeque<Column>,
    segment: &Segment,
    tracks: usize,
) -> &'a mut Column {
    let at = columns.binary_search_by_key(&segment.number, |column| column.number);
    let at = at.unwrap_or_else(|at| {
        columns.insert(
            at,
            Column {
                number: segment.number,
                period: Arc::clone(&segment.period),
                first_tick: segment.first_tick,
                cells: (0..tracks).map(|_| Cell::Empty).collect(),
                captured: segment.captured,
                longest: Duration::ZERO,
                expires: segment.expires,
            },
        );
        at
    });
    &mut columns[at]
}

pub(super) fn end_of(parts: &[Part]) -> Option<Tick> {
    parts
        .last()
        .map(|part| part.first_tick.plus(u64::from(part.ticks)))
}
