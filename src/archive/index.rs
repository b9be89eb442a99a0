//! A reel's index: one line of JSON for each thing that happens to it, so that keeping a segment costs one short write. A line
//! names what is about to be written, and so all that is in the folder is named. Lines that make no sense are passed over: the
//! last may have been cut by a crash, and then the next one begins on a line of its own. Pure.

use serde::{Deserialize, Serialize};

use crate::publish::{MAX_FILE_BYTES, MAX_NUMBER, PeriodState, most_ticks};
use crate::tick::{SegmentNumber, Tick, UnixTime};

/// A reel is read no further than this.
const MAX_COLUMNS: usize = 20_000;
/// No stream has more tracks.
const MAX_TRACKS: usize = 32;

/// A line of the index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// The first one: the stream's tracks, by their folders.
    Tracks(Vec<String>),
    /// What the columns after it are encoded as.
    Encoding(PeriodState),
    /// The segments of one number.
    Column(Column),
    /// Of a column that begins then, something is missing.
    Lost(UnixTime),
    /// What begins before that is removed.
    Gone(UnixTime),
}

/// The segments of one number, in all tracks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Column {
    /// When it begins.
    pub(crate) starts: UnixTime,
    /// When it ends.
    pub(crate) ends: UnixTime,
    /// Its number, which names its files.
    pub(crate) number: SegmentNumber,
    /// Whether timestamps or the encoding break where it begins.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) breaks: bool,
    /// One for each track.
    pub(crate) cells: Vec<Cell>,
    /// Which of the reel's encodings it has.
    #[serde(skip)]
    pub(crate) encoding: usize,
    /// Whether something of it is missing.
    #[serde(skip)]
    pub(super) lost: bool,
}

/// One track's segment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cell {
    /// Where it starts, in the track's own ticks.
    pub(crate) first_tick: Tick,
    /// How many it has.
    pub(crate) ticks: u32,
    /// The bytes of its file; 0 where there is none.
    pub(crate) bytes: u64,
}

impl Column {
    /// The bytes of its files.
    pub(crate) fn bytes(&self) -> u64 {
        self.cells.iter().map(|cell| cell.bytes).sum()
    }

    /// Whether it goes on where `before` ends, in the same encoding.
    pub(super) fn follows(&self, before: &Self) -> bool {
        let follows = |(cell, before): (&Cell, &Cell)| {
            cell.first_tick == before.first_tick.plus(u64::from(before.ticks))
        };
        !self.breaks
            && self.encoding == before.encoding
            && self.number == before.number.next()
            && self.cells.iter().zip(&before.cells).all(follows)
    }
}

/// What a reel's index says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Index {
    /// The tracks' names.
    pub(crate) tracks: Vec<String>,
    /// The encodings.
    pub(crate) encodings: Vec<PeriodState>,
    /// What is there, oldest first.
    pub(crate) columns: Vec<Column>,
    /// How many columns were there before these, and how many of them began with a discontinuity.
    pub(crate) left: (u64, u64),
}

impl Index {
    /// What `text` says; none if it doesn't begin with the tracks.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let lines = text.split(|byte| *byte == b'\n');
        let mut lines = lines.filter_map(|line| serde_json::from_slice(line).ok());
        let Some(Line::Tracks(tracks)) = lines.next() else {
            return None;
        };
        let mut index = Self::of(tracks);
        for line in lines {
            index.take(line);
        }
        Some(index)
    }

    /// An index with nothing in it.
    pub(super) fn of(tracks: Vec<String>) -> Self {
        Self {
            tracks,
            ..Self::default()
        }
    }

    /// Takes the next line, if it can be.
    pub(super) fn take(&mut self, line: Line) {
        match line {
            Line::Tracks(_) => {}
            Line::Encoding(encoding) => {
                if self.tracks.len() <= MAX_TRACKS && encoding.check(self.tracks.len()).is_ok() {
                    self.encodings.push(encoding);
                }
            }
            Line::Column(column) => self.add(column),
            Line::Lost(starts) => {
                let those = self.columns.iter_mut();
                for column in those.filter(|column| column.starts == starts) {
                    column.lost = true;
                }
            }
            Line::Gone(until) => {
                let gone = self.columns.partition_point(|column| column.starts < until);
                self.left.0 += gone as u64;
                // The first that stays has no discontinuity before it any more.
                let breaks = self.columns.windows(2).take(gone);
                self.left.1 += breaks.filter(|pair| !pair[1].follows(&pair[0])).count() as u64;
                self.columns.drain(..gone);
            }
        }
    }

    fn add(&mut self, mut column: Column) {
        let Some(encoding) = self.encodings.last() else {
            return;
        };
        let fits = |cell: &Cell| {
            cell.bytes <= MAX_FILE_BYTES && cell.first_tick.0 < most_ticks(&encoding.grid)
        };
        let is_possible = column.cells.len() == self.tracks.len()
            && column.cells.iter().all(fits)
            && column.number.0 < MAX_NUMBER
            && column.starts < column.ends
            && self.columns.len() < MAX_COLUMNS;
        if !is_possible {
            return;
        }
        column.encoding = self.encodings.len() - 1;
        // One that is written again takes the other's place.
        let from = self
            .columns
            .partition_point(|before| before.starts < column.starts);
        let until = self
            .columns
            .partition_point(|before| before.starts <= column.starts);
        self.columns.splice(from..until, [column]);
    }

    /// The bytes of all files that it names, but for the init segments.
    pub(super) fn bytes(&self) -> u64 {
        self.columns.iter().map(Column::bytes).sum()
    }
}
