//! The daemon's end of a ring. It waits only where it is asked to, allocates nothing, and believes nothing that the memory says without a check.

use crate::error::RingError;
use crate::format::FrameFormat;
use crate::layout::SLOT_BLOCK_BYTES;
use crate::memory::RingMemory;
use crate::slots::{Captured, Deadline, ReaderState, ReadySlot, ReadySlots};
use crate::sound::SoundFormat;
use crate::sync::Ordering;

/// Takes frames, or blocks of sound, out of a ring. A [`RingError`] from it means that the producer broke the protocol: end the session.
#[derive(Debug)]
pub struct Reader<F = FrameFormat> {
    memory: RingMemory<F>,
    state: ReaderState,
}

impl<F> Reader<F> {
    /// The reading end of `memory`.
    pub fn new(memory: RingMemory<F>) -> Self {
        Self {
            memory,
            state: ReaderState::default(),
        }
    }

    /// The ring's memory, with its descriptor.
    pub fn memory(&self) -> &RingMemory<F> {
        &self.memory
    }

    /// What the slots hold.
    pub fn format(&self) -> &F {
        self.memory.mapped.layout.format()
    }

    /// The frames that wait, oldest first. The writer may steal the oldest back at any time.
    ///
    /// # Errors
    /// An impossible word in the memory.
    pub fn ready(&mut self) -> Result<ReadySlots, RingError> {
        let ready = self.state.ready(&self.memory.mapped);
        self.memory.mapped.check_whole().and(ready)
    }

    /// Sleeps until frames are committed that the last look ([`Self::ready`], [`Self::take_oldest`]) did not cover, or `deadline` is over: then
    /// false. Producers that wake nobody are allowed, so a deadline is due in any case. A producer that lies can end the sleep without a frame
    /// each time: who calls this in a loop sets itself a pace.
    ///
    /// # Errors
    /// An impossible word in the memory.
    pub fn wait(&mut self, deadline: Deadline) -> Result<bool, RingError> {
        let more = self.state.wait(&self.memory.mapped, deadline);
        self.memory.mapped.check_whole().and(more)
    }

    /// Takes the oldest frame that waits.
    ///
    /// # Errors
    /// An impossible word in the memory.
    pub fn take_oldest(&mut self) -> Result<Option<Taken<'_, F>>, RingError> {
        let taken = self.state.take_oldest(&self.memory.mapped);
        self.memory.mapped.check_whole()?;
        let taken = taken?;
        Ok(taken.map(|ready| Taken {
            reader: self,
            ready,
        }))
    }

    /// Takes one of the frames that [`Self::ready`] listed; none if the writer has stolen it back meanwhile.
    pub fn take(&mut self, ready: ReadySlot) -> Option<Taken<'_, F>> {
        self.state
            .take(&self.memory.mapped, &ready)
            .then_some(Taken {
                reader: self,
                ready,
            })
    }

    /// Frees the slot of one of the frames that [`Self::ready`] listed without reading it: a newer one is wanted. False if the writer has
    /// stolen it back meanwhile, which [`Self::superseded`] then counts.
    pub fn skip(&mut self, ready: ReadySlot) -> bool {
        self.state.skip(&self.memory.mapped, &ready)
    }

    /// How many frames the writer has committed.
    ///
    /// # Errors
    /// A counter that fell or contradicts the other.
    pub fn committed(&mut self) -> Result<u64, RingError> {
        Ok(self.counters()?.0)
    }

    /// How many committed frames the writer has stolen back because the ring was full.
    ///
    /// # Errors
    /// A counter that fell or contradicts the other.
    pub fn superseded(&mut self) -> Result<u64, RingError> {
        Ok(self.counters()?.1)
    }

    fn counters(&mut self) -> Result<(u64, u64), RingError> {
        let counters = self.state.counters(&self.memory.mapped);
        self.memory.mapped.check_whole().and(counters)
    }
}

/// A frame or a block being read. Its slot is the writer's again when this is dropped.
#[derive(Debug)]
pub struct Taken<'a, F = FrameFormat> {
    reader: &'a mut Reader<F>,
    ready: ReadySlot,
}

impl<F> Taken<'_, F> {
    /// The frame's place among the ring's committed frames, from 1.
    pub fn sequence(&self) -> u64 {
        self.ready.sequence
    }

    /// The producer's own number for the frame, or for the block's first sample.
    pub fn frame_number(&self) -> u64 {
        self.ready.frame_number
    }

    /// When the frame, or the block's first sample, was captured, if the producer says. Its word: check it against the clock.
    pub fn captured(&self) -> Option<Captured> {
        self.ready.captured
    }

    /// What the slot holds.
    pub fn format(&self) -> &F {
        self.reader.format()
    }
}

impl Taken<'_> {
    /// Copies `rows` rows of a plane from `first_row` on into `target`, without padding: row after row of [`row_bytes`] bytes.
    /// `target` has to be of just that length.
    ///
    /// [`row_bytes`]: crate::format::Plane::row_bytes
    ///
    /// # Errors
    /// [`RingError::Rows`] if the plane has no such rows or `target` another length; [`RingError::Truncated`] if the memory is gone.
    pub fn copy_rows(
        &self,
        plane: usize,
        first_row: usize,
        rows: usize,
        target: &mut [u8],
    ) -> Result<(), RingError> {
        let end_row = first_row.saturating_add(rows);
        let wrong = RingError::Rows {
            plane,
            first_row,
            end_row,
            bytes: target.len(),
        };
        let ring = &self.reader.memory.mapped;
        let Some(lies) = ring.layout.format().planes().get(plane) else {
            return Err(wrong);
        };
        if end_row > lies.rows || target.len() != rows * lies.row_bytes {
            return Err(wrong);
        }
        let start =
            ring.layout.slot_offset(self.ready.slot) + lies.offset + lies.stride * first_row;
        if lies.stride == lies.row_bytes {
            self.reader.memory.copy_out(start, target)?;
        } else {
            for (row, target) in target.chunks_exact_mut(lies.row_bytes).enumerate() {
                self.reader
                    .memory
                    .copy_out(start + lies.stride * row, target)?;
            }
        }
        Ok(())
    }
}

impl Taken<'_, SoundFormat> {
    /// Copies the block's samples into `target`, which then holds just them.
    ///
    /// # Errors
    /// [`RingError::BlockBytes`] and [`RingError::BlockUneven`] for a length that no block has; [`RingError::Truncated`] if the memory is gone.
    pub fn copy_block(&self, target: &mut Vec<u8>) -> Result<(), RingError> {
        let (memory, slot) = (&self.reader.memory, self.ready.slot);
        let layout = &memory.mapped.layout;
        // Relaxed: taking the slot has acquired what its commit released. Loaded once: what its producer writes here now changes nothing.
        let length = memory
            .mapped
            .mapping
            .word(layout.slot_header(slot) + SLOT_BLOCK_BYTES)
            .load(Ordering::Relaxed);
        memory.mapped.check_whole()?;
        let length = layout.format().check_block(length)?;
        target.resize(length, 0);
        memory.copy_out(layout.slot_offset(slot), target)
    }
}

impl<F> Drop for Taken<'_, F> {
    fn drop(&mut self) {
        let reader = &mut *self.reader;
        reader.state.free(&reader.memory.mapped, &self.ready);
    }
}
