//! The bytes of one part: a CMAF chunk (ISO/IEC 23000-19, 7.3.2.3), `moof` and `mdat`, with a `styp` where a segment starts.

use std::collections::TryReserveError;

use bytes::Bytes;

use super::boxes::BoxWriter;
use super::init::TRACK_ID;
use crate::sample::Sample;
use crate::tick::UnixTime;

// Sample flags (ISO/IEC 14496-12, 8.8.3.1).
const DEPENDS_ON_NO_OTHER: u32 = 0x0200_0000;
const DEPENDS_ON_OTHERS_AND_NO_SYNC: u32 = 0x0101_0000;

const STYP_BYTES: usize = 32;
// moof, mfhd, traf, tfhd, tfdt, trun up to its first sample.
const MOOF_BYTES: usize = 8 + 16 + 8 + 20 + 20 + 20;
// A full box of version 1.
const PRFT_BYTES: usize = 12 + 4 + 8 + 8;
const MDAT_HEADER_BYTES: usize = 8;

/// What a chunk's headers say beside its samples.
pub(super) struct ChunkHeader {
    /// `mfhd.sequence_number`.
    pub(super) sequence_number: u32,
    /// `tfdt.baseMediaDecodeTime`.
    pub(super) decode_time: u64,
    /// When what its first sample shows was captured.
    pub(super) captured: UnixTime,
    /// Whether the chunk is a segment's first.
    pub(super) starts_segment: bool,
}

/// The chunk that holds `samples`, together fewer than 2^31 bytes, in one buffer of the exact size.
///
/// # Errors
/// When the system has no memory for it.
pub(super) fn chunk(header: &ChunkHeader, samples: &[Sample]) -> Result<Bytes, TryReserveError> {
    let duration = samples.first().map_or(0, |sample| sample.duration);
    let optional = Optional {
        durations: samples.iter().any(|sample| sample.duration != duration),
        offsets: samples.iter().any(|sample| sample.composition_offset != 0),
    };
    let media_bytes: usize = samples.iter().map(|sample| sample.data.len()).sum();
    let moof_bytes = MOOF_BYTES + optional.row_bytes() * samples.len();
    let styp_bytes = if header.starts_segment { STYP_BYTES } else { 0 };
    let total = styp_bytes + PRFT_BYTES + moof_bytes + MDAT_HEADER_BYTES + media_bytes;

    let mut b = BoxWriter::try_with_capacity(total)?;
    if header.starts_segment {
        b.container(*b"styp", |b| {
            b.raw(b"cmfs");
            b.u32(0);
            b.raw(b"cmfscmffcmflmsdh");
        });
    }
    producer_reference_time(&mut b, header);
    b.container(*b"moof", |b| {
        b.full(*b"mfhd", 0, 0, |b| b.u32(header.sequence_number));
        b.container(*b"traf", |b| {
            const DEFAULT_BASE_IS_MOOF_AND_DURATION: u32 = 0x02_0008;
            b.full(*b"tfhd", 0, DEFAULT_BASE_IS_MOOF_AND_DURATION, |b| {
                b.u32(TRACK_ID);
                b.u32(duration);
            });
            b.full(*b"tfdt", 1, 0, |b| b.u64(header.decode_time));
            track_run(b, samples, optional, moof_bytes + MDAT_HEADER_BYTES);
        });
    });
    b.container(*b"mdat", |b| {
        for sample in samples {
            b.raw(&sample.data);
        }
    });
    debug_assert_eq!(
        b.len(),
        total,
        "the boxes have the sizes that were reckoned"
    );
    Ok(b.into_bytes())
}

/// What a track run says of each sample by itself, beside its size and flags.
#[derive(Clone, Copy)]
struct Optional {
    /// Durations, where they differ.
    durations: bool,
    /// Composition offsets, where there are any.
    offsets: bool,
}

impl Optional {
    fn row_bytes(self) -> usize {
        8 + 4 * usize::from(self.durations) + 4 * usize::from(self.offsets)
    }
}

// ISO/IEC 14496-12, 8.16.5; ISO/IEC 23000-19 has it right before the moof.
fn producer_reference_time(b: &mut BoxWriter, header: &ChunkHeader) {
    /// The time is that of the capture, not of something that the encoder or the file did.
    const CAPTURED: u32 = 24;
    b.full(*b"prft", 1, CAPTURED, |b| {
        b.u32(TRACK_ID);
        b.u64(ntp(header.captured));
        b.u64(header.decode_time);
    });
}

/// 32 bits of seconds since 1900, which begin again in 2036, and 32 bits of their fraction (RFC 5905, 6).
fn ntp(time: UnixTime) -> u64 {
    const FROM_1900_TO_1970: u64 = 2_208_988_800;
    const SECOND: u64 = 1_000_000_000;
    let (seconds, nanos) = (time.as_nanos() / SECOND, time.as_nanos() % SECOND);
    let fraction = (nanos << 32) / SECOND;
    ((seconds + FROM_1900_TO_1970) & u64::from(u32::MAX)) << 32 | fraction
}

// ISO/IEC 14496-12, 8.8.8. Version 1: composition offsets are signed.
fn track_run(b: &mut BoxWriter, samples: &[Sample], optional: Optional, data_offset: usize) {
    const DATA_OFFSET_SIZES_AND_FLAGS: u32 = 0x601;
    const DURATIONS: u32 = 0x100;
    const COMPOSITION_OFFSETS: u32 = 0x800;
    let mut flags = DATA_OFFSET_SIZES_AND_FLAGS;
    if optional.durations {
        flags |= DURATIONS;
    }
    if optional.offsets {
        flags |= COMPOSITION_OFFSETS;
    }
    const BOUNDED: &str = "the packager bounds a part's samples and bytes";
    b.full(*b"trun", 1, flags, |b| {
        b.u32(u32::try_from(samples.len()).expect(BOUNDED));
        b.u32(u32::try_from(data_offset).expect(BOUNDED));
        for sample in samples {
            if optional.durations {
                b.u32(sample.duration);
            }
            b.u32(u32::try_from(sample.data.len()).expect(BOUNDED));
            b.u32(if sample.keyframe {
                DEPENDS_ON_NO_OTHER
            } else {
                DEPENDS_ON_OTHERS_AND_NO_SYNC
            });
            if optional.offsets {
                b.i32(sample.composition_offset);
            }
        }
    });
}
