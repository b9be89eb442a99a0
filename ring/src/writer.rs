//! The producer's end of a ring. When the ring is full, the oldest frame that waits gives way, or in a lossless ring, the writer.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::error::RingError;
use crate::format::FrameFormat;
use crate::layout::{Layout, Policy, SLOT_BLOCK_BYTES, SlotFormat};
use crate::mapping::Pages;
use crate::memory::{MappedRing, MemoryKind};
use crate::segment::open_named;
use crate::slots::{Captured, Deadline, WriterState};
use crate::sound::SoundFormat;
use crate::sync::Ordering;

/// Puts frames, or blocks of sound, into a ring.
#[derive(Debug)]
pub struct Writer<F = FrameFormat> {
    ring: MappedRing<F>,
    state: WriterState,
}

impl<F: SlotFormat> Writer<F> {
    /// Maps the ring behind `fd`, which has to be what `format` and `slots` come to in every word, and sealed. `memory_bytes` is
    /// what the daemon said. The descriptor is closed; the mapping stays.
    ///
    /// # Errors
    /// Whatever differs; [`RingError::System`] where mapping fails.
    pub fn from_fd(
        fd: OwnedFd,
        format: &F,
        memory_bytes: u64,
        slots: u32,
    ) -> Result<Self, RingError> {
        Self::map(&fd, MemoryKind::Memfd, format, memory_bytes, slots)
    }

    /// Opens and maps the ring that the daemon has made under `name`, checked as in [`Self::from_fd`] but for the seals, which it can't have: any
    /// process of this user's that truncates it makes accesses here fault.
    ///
    /// # Errors
    /// As [`Self::from_fd`]; [`RingError::NotARing`].
    pub fn open_named(
        name: &str,
        format: &F,
        memory_bytes: u64,
        slots: u32,
    ) -> Result<Self, RingError> {
        let fd = open_named(name)?;
        Self::map(&fd, MemoryKind::Named, format, memory_bytes, slots)
    }

    fn map(
        fd: &OwnedFd,
        kind: MemoryKind,
        format: &F,
        memory_bytes: u64,
        slots: u32,
    ) -> Result<Self, RingError> {
        let layout = Layout::new(format, slots)?;
        let expected = layout.bytes() as u64;
        if memory_bytes != expected {
            let found = memory_bytes;
            return Err(RingError::Size { expected, found });
        }
        let ring = MappedRing::received(fd, kind, layout)?;
        let state = WriterState::default();
        Ok(Self { ring, state })
    }
}

impl<F> Writer<F> {
    /// What the ring does when it is full, as the daemon chose.
    pub fn policy(&self) -> Policy {
        self.ring.layout.policy()
    }

    /// What the slots hold.
    pub fn format(&self) -> &F {
        self.ring.layout.format()
    }

    /// A slot for the next frame, without waiting: a free one, else the one of the oldest frame that waits, which is then lost and counted.
    ///
    /// # Errors
    /// [`RingError::Full`] in a lossless ring; [`RingError::NoSlot`] if the reading side breaks the protocol.
    pub fn begin(&mut self) -> Result<Slot<'_, F>, RingError> {
        let slot = match self.policy() {
            Policy::Latest => self.state.begin(&self.ring)?,
            Policy::Lossless => self.state.begin_free(&self.ring).ok_or(RingError::Full {
                slots: self.ring.layout.slots(),
            })?,
        };
        Ok(Slot {
            writer: self,
            slot,
            committed: false,
        })
    }

    /// Sleeps, in a lossless ring that is full, until the reader frees a slot; false if `deadline` is over before. True at once where
    /// [`Self::begin`] finds a slot. With the reader's death nothing wakes this: keep deadlines short, and look at the connection between.
    ///
    /// # Errors
    /// [`RingError::System`] if the kernel can't wait.
    pub fn wait_for_room(&mut self, deadline: Deadline) -> Result<bool, RingError> {
        match self.policy() {
            Policy::Latest => Ok(true),
            Policy::Lossless => self.state.wait_free(&self.ring, deadline),
        }
    }

    /// How many frames were committed.
    pub fn committed(&self) -> u64 {
        self.state.committed()
    }

    /// How many of them gave way to newer ones because the ring was full.
    pub fn superseded(&self) -> u64 {
        self.state.superseded()
    }
}

impl Writer {
    /// Whether the parked slot is this ring's.
    pub fn knows(&self, parked: &ParkedSlot) -> bool {
        Arc::ptr_eq(self.ring.mapping.pages(), &parked.memory.pages)
    }

    /// The slot that was parked, to go on with; none if it is another ring's.
    pub fn resume(&mut self, parked: ParkedSlot) -> Option<Slot<'_>> {
        self.knows(&parked).then_some(Slot {
            writer: self,
            slot: parked.slot,
            committed: false,
        })
    }
}

/// A slot being filled. Dropped without [`Self::commit`], it is free again.
#[derive(Debug)]
pub struct Slot<'a, F = FrameFormat> {
    writer: &'a mut Writer<F>,
    slot: u32,
    /// Whether dropping it leaves the slot alone.
    committed: bool,
}

/// A slot that is being filled by somebody who does not borrow its [`Writer`].
#[derive(Debug)]
#[must_use = "a slot that is never resumed is out of use until the ring's end"]
pub struct ParkedSlot {
    slot: u32,
    memory: SlotMemory,
}

impl ParkedSlot {
    /// Where its bytes are.
    pub fn memory(&self) -> &SlotMemory {
        &self.memory
    }
}

/// The address of a slot's bytes. They stay mapped for as long as this, or a clone of it, lives; they are the caller's to write from
/// [`Slot::park`] to [`Writer::resume`]. Who writes later spoils a frame of this producer's, and nothing else.
#[derive(Clone, Debug)]
pub struct SlotMemory {
    pages: Arc<Pages>,
    start: usize,
    bytes: usize,
}

impl SlotMemory {
    /// The address of the first byte.
    pub fn address(&self) -> usize {
        self.start
    }

    /// How many bytes the frame has, padding of rows included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Slot<'_> {
    /// The frames' format, with the planes' offsets in [`Self::bytes_mut`].
    pub fn format(&self) -> &FrameFormat {
        self.writer.format()
    }

    /// Writes whole rows of a plane, given without padding, from `first_row` on.
    ///
    /// # Errors
    /// [`RingError::Rows`] if `rows` is no whole number of rows, or more than the plane has.
    pub fn write_plane_rows(
        &mut self,
        plane: usize,
        first_row: usize,
        rows: &[u8],
    ) -> Result<(), RingError> {
        let lies = self.format().planes().get(plane).copied();
        let count = lies.map_or(0, |lies| rows.len() / lies.row_bytes);
        let end_row = first_row.saturating_add(count);
        let wrong = RingError::Rows {
            plane,
            first_row,
            end_row,
            bytes: rows.len(),
        };
        let Some(lies) = lies else { return Err(wrong) };
        if end_row > lies.rows || count * lies.row_bytes != rows.len() {
            return Err(wrong);
        }
        let start = lies.offset + lies.stride * first_row;
        let target = &mut self.bytes_mut()[start..];
        if lies.stride == lies.row_bytes {
            target[..rows.len()].copy_from_slice(rows);
        } else {
            for (target, row) in target
                .chunks_mut(lies.stride)
                .zip(rows.chunks_exact(lies.row_bytes))
            {
                target[..lies.row_bytes].copy_from_slice(row);
            }
        }
        Ok(())
    }

    /// Writes a whole frame, given plane after plane without padding.
    ///
    /// # Errors
    /// [`RingError::FrameBytes`] if it has another length.
    pub fn fill(&mut self, frame: &[u8]) -> Result<(), RingError> {
        let planes = self.format().planes();
        let expected = planes
            .iter()
            .map(|plane| plane.row_bytes * plane.rows)
            .sum();
        if frame.len() != expected {
            let given = frame.len();
            return Err(RingError::FrameBytes { expected, given });
        }
        let mut rest = frame;
        for index in 0..planes.len() {
            let plane = self.format().planes()[index];
            let (rows, after) = rest.split_at(plane.row_bytes * plane.rows);
            self.write_plane_rows(index, 0, rows)?;
            rest = after;
        }
        Ok(())
    }

    /// Lays the slot aside, still being filled, so that the writer isn't borrowed meanwhile: for other languages, whose
    /// code fills it by its address. [`Writer::resume`] goes on with it; without that it is out of use until the ring's end.
    pub fn park(mut self) -> ParkedSlot {
        self.committed = true;
        let ring = &self.writer.ring;
        let bytes = ring.layout.format().bytes();
        let start = ring
            .mapping
            .address(ring.layout.slot_offset(self.slot), bytes);
        let pages = Arc::clone(ring.mapping.pages());
        ParkedSlot {
            slot: self.slot,
            memory: SlotMemory {
                pages,
                start,
                bytes,
            },
        }
    }

    /// Hands the frame to the daemon. Returns its place among the ring's committed frames, from 1.
    pub fn commit(mut self, frame_number: u64, captured: Option<Captured>) -> u64 {
        self.committed = true;
        let writer = &mut *self.writer;
        writer
            .state
            .commit(&writer.ring, self.slot, frame_number, captured)
    }
}

impl<F: SlotFormat> Slot<'_, F> {
    /// The slot's bytes: a frame's, padding of rows included, or a whole block's. They hold something older.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let ring = &mut self.writer.ring;
        let (offset, bytes) = (
            ring.layout.slot_offset(self.slot),
            ring.layout.format().bytes(),
        );
        ring.mapping.bytes_mut(offset, bytes)
    }
}

impl Slot<'_, SoundFormat> {
    /// Hands a block of sound to the daemon: `samples` as they lie in memory, whole ones, no more than fit. `first_sample` is the producer's own
    /// number for the first of them, and `captured` when that was heard. Returns the block's place among the ring's committed ones, from 1.
    ///
    /// # Errors
    /// [`RingError::BlockBytes`] and [`RingError::BlockUneven`]; the slot is free again then.
    pub fn commit_block(
        mut self,
        samples: &[u8],
        first_sample: u64,
        captured: Option<Captured>,
    ) -> Result<u64, RingError> {
        self.writer.format().check_block(samples.len() as u64)?;
        self.bytes_mut()[..samples.len()].copy_from_slice(samples);
        self.committed = true;
        let writer = &mut *self.writer;
        // Relaxed: the commit below releases it with the samples.
        let header = writer.ring.layout.slot_header(self.slot);
        let length = writer.ring.mapping.word(header + SLOT_BLOCK_BYTES);
        length.store(samples.len() as u64, Ordering::Relaxed);
        let state = &mut writer.state;
        Ok(state.commit(&writer.ring, self.slot, first_sample, captured))
    }
}

impl<F> Drop for Slot<'_, F> {
    fn drop(&mut self) {
        if !self.committed {
            self.writer.state.abandon(&self.writer.ring, self.slot);
        }
    }
}
