//! A part of a copied stream, whose samples are all there: nothing of it follows from a tick, as parts of an encoded one do.

use std::collections::TryReserveError;

use super::Part;
use super::chunk::{ChunkHeader, chunk};
use crate::sample::Sample;
use crate::tick::{Grid, PartNumber, SegmentNumber, Tick, UnixTime};

/// So many parts are counted for a segment: more than any has.
const MOST_PARTS: u64 = 4096;

/// Where a part of a copied stream belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopiedPlace {
    /// Its segment.
    pub segment: SegmentNumber,
    /// Its number in it, counted from 0.
    pub number: PartNumber,
    /// Whether it is known to be the segment's last.
    pub last: bool,
}

/// The part of a copied stream at `place`, of these samples in decode order: at least one, together at most [`super::MAX_PART_BYTES`]. Its
/// `mfhd.sequence_number` is that of parts which are counted through, if segments have as many as fit, plus one.
///
/// # Errors
/// When the system has no memory for it.
pub fn copied_part(
    grid: &Grid,
    place: CopiedPlace,
    samples: &[Sample],
    captured: UnixTime,
) -> Result<Part, TryReserveError> {
    let decode_time = samples.first().map_or(0, |sample| sample.decode_time);
    let ticks: u64 = samples
        .iter()
        .map(|sample| u64::from(sample.duration / grid.tick_duration()))
        .sum();
    let most = if grid.is_cut_in_parts() {
        MOST_PARTS
    } else {
        1
    };
    let before = place.segment.0.wrapping_mul(most);
    let sequence_number = before.wrapping_add(u64::from(place.number) + 1) & u64::from(u32::MAX);
    let header = ChunkHeader {
        sequence_number: u32::try_from(sequence_number).expect("masked to 32 bits above"),
        decode_time,
        captured,
        starts_segment: place.number == 0,
    };
    Ok(Part {
        segment: place.segment,
        number: place.number,
        first_tick: Tick(decode_time / u64::from(grid.tick_duration())),
        ticks: u32::try_from(ticks).unwrap_or(u32::MAX),
        independent: samples.first().is_some_and(|sample| sample.keyframe),
        last: place.last,
        captured,
        bytes: chunk(&header, samples)?,
    })
}
