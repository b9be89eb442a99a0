//! Cuts one track's samples into parts and segments at the grid's edges, and refuses every sample that would
//! leave a hole, an overlap or a segment that can't be decoded from its start.

use std::collections::TryReserveError;

use crate::package::Part;
use crate::package::chunk::{ChunkHeader, chunk};
use crate::sample::{Sample, TrackIndex};
use crate::tick::{Grid, SegmentNumber, Tick, UnixTime};

/// The most bytes of samples in one part. The highest bitrates of the codecs stay far below.
pub const MAX_PART_BYTES: usize = 256 << 20;

/// Why a sample or a move is refused. What had been taken before stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackageError {
    /// The sample is another track's.
    #[error("a sample of track {got} came to the packager of track {expected}")]
    WrongTrack {
        /// The packager's track.
        expected: TrackIndex,
        /// The sample's.
        got: TrackIndex,
    },
    /// The decode time lies between two ticks.
    #[error(
        "decode time {decode_time} is on no tick of {tick_duration} units; expected tick {expected}"
    )]
    OffGrid {
        /// The sample's decode time.
        decode_time: u64,
        /// A tick's duration in the timescale.
        tick_duration: u32,
        /// The tick that has to come next.
        expected: Tick,
    },
    /// Samples are missing.
    #[error(
        "the encoder returned tick {got}, but tick {expected} has to come next: samples are missing"
    )]
    Hole {
        /// The tick that has to come next.
        expected: Tick,
        /// The sample's.
        got: Tick,
    },
    /// A tick came again.
    #[error("the encoder returned tick {got} again: tick {expected} has to come next")]
    Overlap {
        /// The tick that has to come next.
        expected: Tick,
        /// The sample's.
        got: Tick,
    },
    /// The sample does not last whole ticks, or goes on into the next part.
    #[error(
        "the sample of tick {tick} lasts {got} units: it has to last whole ticks of {expected} units, at most until its part's end"
    )]
    Duration {
        /// The sample's tick.
        tick: Tick,
        /// A tick's duration in the timescale.
        expected: u32,
        /// The sample's.
        got: u32,
    },
    /// Decoding can't start where it has to.
    #[error(
        "the sample of tick {tick} is no keyframe, but segment {segment} or a new encoder starts there"
    )]
    NoKeyframe {
        /// The sample's tick.
        tick: Tick,
        /// The segment that it falls into.
        segment: SegmentNumber,
    },
    /// The sample has no bytes.
    #[error("the sample of tick {tick} is empty")]
    Empty {
        /// The sample's tick.
        tick: Tick,
    },
    /// The part would be larger than any real one.
    #[error("the part that holds tick {tick} would have {bytes} bytes, more than {MAX_PART_BYTES}")]
    TooLarge {
        /// The sample's tick.
        tick: Tick,
        /// What the part's samples would have together.
        bytes: usize,
    },
    /// The system has no memory for the part that the sample completes. Both are as they were before it.
    #[error(
        "there is no memory for the part that ends with tick {tick} ({source}): give the machine more, or lower the bitrates"
    )]
    Memory {
        /// The sample's tick.
        tick: Tick,
        /// The system's word.
        source: TryReserveError,
    },
    /// The segment is closed; its number can't be given twice.
    #[error(
        "segment {segment} is closed, so nothing can start at its tick {tick}: the next start is tick {next_start}"
    )]
    SegmentClosed {
        /// Where packaging was to go on.
        tick: Tick,
        /// The segment that holds it.
        segment: SegmentNumber,
        /// The first tick that packaging can go on from.
        next_start: Tick,
    },
}

/// One track's packager.
///
/// A part is returned by the very [`push`](Self::push) that completes it, never by the one after. A keyframe in the
/// middle of a segment is fine (an encoder was started again): it starts no part and no segment.
///
/// What a part's `mfhd.sequence_number` is follows from its place on the grid alone, so that it is the same after a
/// restart and on two machines: the number of parts that the grid has had before it since its first segment,
/// plus one, modulo 2^32.
#[derive(Debug)]
pub struct TrackPackager {
    track: TrackIndex,
    grid: Grid,
    next: Tick,
    samples: Vec<Sample>,
    sample_bytes: usize,
    // When the first of them was captured.
    captured: UnixTime,
    // Whether the next part, begun or not, is the first of its segment.
    segment_start: bool,
    // Whether the next sample is the first of an encoder.
    encoder_start: bool,
}

impl TrackPackager {
    /// A packager whose first sample is `first`'s. A segment begins there, even if `first` is not at an edge.
    pub fn start_at(track: TrackIndex, grid: Grid, first: Tick) -> Self {
        Self {
            track,
            grid,
            next: first,
            samples: Vec::with_capacity(sample_capacity(&grid)),
            sample_bytes: 0,
            captured: UnixTime::default(),
            segment_start: true,
            encoder_start: true,
        }
    }

    /// A packager whose first sample is `first`'s, in a segment whose parts up to there exist already: for a daemon
    /// that goes on from durable parts. At an edge this is [`Self::start_at`].
    pub fn continue_at(track: TrackIndex, grid: Grid, first: Tick) -> Self {
        Self {
            segment_start: grid.starts_segment(first),
            ..Self::start_at(track, grid, first)
        }
    }

    /// The tick whose sample has to come next.
    pub fn next_tick(&self) -> Tick {
        self.next
    }

    /// Takes the next sample, in decode order, which lasts a tick or more within its part and shows what was captured at its tick; returns the
    /// part that it completes.
    pub fn push(&mut self, sample: Sample) -> Result<Option<Part>, PackageError> {
        let captured = self.grid.time_of(self.next);
        self.push_captured(sample, captured)
    }

    /// When the first picture of the part under way was captured, or if none is, that of the part before.
    pub fn captured(&self) -> UnixTime {
        self.captured
    }

    /// Takes the next sample as [`Self::push`] does, with the time at which its picture was captured: each part's `prft` box tells that
    /// of its first sample.
    pub fn push_captured(
        &mut self,
        sample: Sample,
        captured: UnixTime,
    ) -> Result<Option<Part>, PackageError> {
        let ticks = self.check(&sample)?;
        if self.samples.is_empty() {
            self.captured = captured;
        }
        let (tick, bytes) = (self.next, sample.data.len());
        self.sample_bytes += bytes;
        self.samples.push(sample);
        self.next = self.next.plus(u64::from(ticks));
        let complete = self.grid.ends_part(Tick(self.next.0 - 1));
        let part = complete.then(|| self.close(self.grid.starts_segment(self.next)));
        match part.transpose() {
            Ok(part) => {
                self.encoder_start = false;
                Ok(part)
            }
            Err(source) => {
                self.samples.pop();
                self.sample_bytes -= bytes;
                self.next = tick;
                Err(PackageError::Memory { tick, source })
            }
        }
    }

    /// Closes the segment early: the end of the stream, or of what this encoder can give. Returns the unfinished part,
    /// marked as its segment's last. None if there is none: the segment then ends with the part before, which was not marked
    /// as last when it was returned. So it does where there is no memory for that part. What comes after starts in a later segment.
    pub fn flush(&mut self) -> Option<Part> {
        let next_start = self.next_start();
        let part = match self.samples.is_empty() {
            true => None,
            false => self.close(true).ok(),
        };
        self.samples.clear();
        self.sample_bytes = 0;
        self.next = next_start;
        self.segment_start = true;
        self.encoder_start = true;
        part
    }

    /// Goes on at `tick` after a gap: flushes as [`Self::flush`] does, returning what it returns; then a segment begins at
    /// `tick`. Refused without any change if `tick` is in or before a segment that already has samples.
    pub fn resume_at(&mut self, tick: Tick) -> Result<Option<Part>, PackageError> {
        let next_start = self.next_start();
        if tick < next_start {
            return Err(PackageError::SegmentClosed {
                tick,
                segment: self.grid.segment_of(tick),
                next_start,
            });
        }
        let part = self.flush();
        self.next = tick;
        Ok(part)
    }

    /// Says that the next sample comes from a new encoder, which goes on without a gap: it has to be a keyframe.
    pub fn encoder_restarted(&mut self) {
        self.encoder_start = true;
    }

    // The first tick at which a segment can begin: not in one that has samples already.
    fn next_start(&self) -> Tick {
        let begun = !self.segment_start || !self.samples.is_empty();
        if begun && !self.grid.starts_segment(self.next) {
            self.grid.segment_end(self.next)
        } else {
            self.next
        }
    }

    // How many ticks the sample lasts, if it is the one that has to come.
    fn check(&self, sample: &Sample) -> Result<u32, PackageError> {
        if sample.track != self.track {
            return Err(PackageError::WrongTrack {
                expected: self.track,
                got: sample.track,
            });
        }
        let expected = self.next;
        let got =
            self.grid
                .tick_of_decode_time(sample.decode_time)
                .ok_or(PackageError::OffGrid {
                    decode_time: sample.decode_time,
                    tick_duration: self.grid.tick_duration(),
                    expected,
                })?;
        match got.cmp(&expected) {
            std::cmp::Ordering::Greater => return Err(PackageError::Hole { expected, got }),
            std::cmp::Ordering::Less => return Err(PackageError::Overlap { expected, got }),
            std::cmp::Ordering::Equal => {}
        }
        let tick = got;
        let ticks = sample.duration / self.grid.tick_duration();
        let last = Tick((tick.0 + u64::from(ticks)).saturating_sub(1));
        let fits = ticks > 0
            && sample.duration.is_multiple_of(self.grid.tick_duration())
            && self.grid.segment_of(last) == self.grid.segment_of(tick)
            && self.grid.part_of(last) == self.grid.part_of(tick);
        if !fits {
            return Err(PackageError::Duration {
                tick,
                expected: self.grid.tick_duration(),
                got: sample.duration,
            });
        }
        let starts_segment = self.segment_start && self.samples.is_empty();
        if !sample.keyframe && (starts_segment || self.encoder_start) {
            return Err(PackageError::NoKeyframe {
                tick,
                segment: self.grid.segment_of(tick),
            });
        }
        if sample.data.is_empty() {
            return Err(PackageError::Empty { tick });
        }
        let bytes = self.sample_bytes.saturating_add(sample.data.len());
        if bytes > MAX_PART_BYTES {
            return Err(PackageError::TooLarge { tick, bytes });
        }
        Ok(ticks)
    }

    // Without memory nothing is changed.
    fn close(&mut self, last: bool) -> Result<Part, TryReserveError> {
        let den = self.grid.tick_duration();
        let ticks: u32 = self
            .samples
            .iter()
            .map(|sample| sample.duration / den)
            .sum();
        let first_tick = Tick(self.next.0 - u64::from(ticks));
        let header = ChunkHeader {
            sequence_number: sequence_number(&self.grid, first_tick),
            decode_time: self.grid.decode_time(first_tick),
            captured: self.captured,
            starts_segment: self.segment_start,
        };
        let part = Part {
            segment: self.grid.segment_of(first_tick),
            number: self.grid.part_of(first_tick),
            first_tick,
            ticks,
            independent: self.samples.first().is_some_and(|sample| sample.keyframe),
            last,
            captured: self.captured,
            bytes: chunk(&header, &self.samples)?,
        };
        self.samples.clear();
        self.sample_bytes = 0;
        self.segment_start = last;
        Ok(part)
    }
}

fn sample_capacity(grid: &Grid) -> usize {
    const MOST_ALLOCATED_AHEAD: u32 = 1024;
    grid.ticks_per_part.get().min(MOST_ALLOCATED_AHEAD) as usize
}

fn sequence_number(grid: &Grid, first_tick: Tick) -> u32 {
    let parts_per_segment = u64::from(grid.parts_per_segment());
    let segment = grid.segment_index(first_tick);
    let parts_before = segment
        .wrapping_mul(parts_per_segment)
        .wrapping_add(u64::from(grid.part_of(first_tick)));
    u32::try_from(parts_before.wrapping_add(1) & u64::from(u32::MAX))
        .expect("masked to 32 bits in this line")
}
