//! A segment of a copied stream: one part, whose samples are all there.

use std::collections::TryReserveError;

use super::Part;
use super::chunk::{ChunkHeader, chunk};
use crate::sample::Sample;
use crate::tick::{Grid, SegmentNumber, Tick, UnixTime};

/// Segment `number` of a copied stream, of these samples in decode order: at least one, the first of which is a keyframe, together at most
/// [`super::MAX_PART_BYTES`]. Its `mfhd.sequence_number` is its own number, plus one.
///
/// # Errors
/// When the system has no memory for it.
pub fn whole_segment(
    grid: &Grid,
    number: SegmentNumber,
    samples: &[Sample],
    captured: UnixTime,
) -> Result<Part, TryReserveError> {
    let decode_time = samples.first().map_or(0, |sample| sample.decode_time);
    let ticks: u64 = samples
        .iter()
        .map(|sample| u64::from(sample.duration / grid.tick_duration()))
        .sum();
    let sequence_number = number.0.wrapping_add(1) & u64::from(u32::MAX);
    let header = ChunkHeader {
        sequence_number: u32::try_from(sequence_number).expect("masked to 32 bits above"),
        decode_time,
        captured,
        starts_segment: true,
    };
    Ok(Part {
        segment: number,
        number: 0,
        first_tick: Tick(decode_time / u64::from(grid.tick_duration())),
        ticks: u32::try_from(ticks).unwrap_or(u32::MAX),
        independent: true,
        last: true,
        captured,
        bytes: chunk(&header, samples)?,
    })
}
