//! Samples in, parts out: CMAF chunks (ISO/IEC 23000-19) cut at the grid's edges. Pure: no I/O, no clock.

mod boxes;
mod chunk;
mod copied;
mod init;
mod movie;
mod packager;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;

use crate::tick::{PartNumber, SegmentNumber, Tick, UnixTime};

pub use copied::{CopiedPlace, copied_part};
pub use init::{init_segment, init_version};
pub use movie::{
    BOX_HEADER, MoviePlace, NoFragment, Reference, box_header, movie_start, put_in_place,
};
pub use packager::{MAX_PART_BYTES, PackageError, TrackPackager};

/// A few samples of one track in one CMAF chunk (moof + mdat): what the window lists, stores and serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The segment that it belongs to.
    pub segment: SegmentNumber,
    /// Its place in the segment on the grid, from 0; a segment that starts late starts with a later one.
    pub number: PartNumber,
    /// Its first sample's tick.
    pub first_tick: Tick,
    /// How many ticks it covers.
    pub ticks: u32,
    /// Whether it starts with a keyframe.
    pub independent: bool,
    /// Whether it is its segment's last.
    pub last: bool,
    /// When what its first sample shows was captured: its `prft` box.
    pub captured: UnixTime,
    /// The CMAF chunk.
    pub bytes: Bytes,
}

impl Part {
    /// How long it is shown at `framerate`.
    pub fn duration(&self, framerate: crate::tick::Framerate) -> Duration {
        framerate.duration_of(u64::from(self.ticks))
    }
}
