//! A ring's memory: made and sealed by the daemon, checked and mapped by the producer.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat,
    ftruncate, memfd_create,
};

use crate::error::RingError;
use crate::format::FrameFormat;
use crate::layout::{
    COMMITTED, Layout, SLOT_CAPTURED, SLOT_FRAME_NUMBER, SLOT_WORD, SUPERSEDED, TAKEN,
};
use crate::mapping::Mapping;
use crate::slots::Words;
use crate::sync::{AtomicU64, Ordering};

/// What the memory is sealed against: no producer can make an access of the daemon's fault.
pub(crate) const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// A new ring's memory in the daemon, before and after its descriptor is handed to the producer.
#[derive(Debug)]
pub struct RingMemory {
    fd: OwnedFd,
    pub(crate) mapped: MappedRing,
}

impl RingMemory {
    /// Makes the memory for `slots` slots of frames of `format`: allocated in full, sealed, its header written.
    ///
    /// # Errors
    /// [`RingError::Slots`], [`RingError::TooLarge`], and [`RingError::System`] where memory or descriptors ran out.
    pub fn create(format: &FrameFormat, slots: u32) -> Result<Self, RingError> {
        let layout = Layout::new(format, slots)?;
        let bytes = layout.bytes();
        let failed = |call| move |error| RingError::System { call, bytes, error };
        let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC;
        let fd = memfd_create("ringgear-ring", flags).map_err(failed("memfd_create"))?;
        ftruncate(&fd, bytes as u64).map_err(failed("ftruncate"))?;
        // Every page now, so that a machine without memory says so here, and not by a signal at the first write.
        fallocate(&fd, FallocateFlags::empty(), 0, bytes as u64).map_err(failed("fallocate"))?;
        fcntl_add_seals(&fd, SEALS).map_err(failed("sealing"))?;
        let mapping = Mapping::new(&fd, bytes).map_err(failed("mmap"))?;
        for word in layout.header_words() {
            mapping
                .word(word.offset)
                .store(word.value, Ordering::Relaxed);
        }
        let mapped = MappedRing { mapping, layout };
        Ok(Self { fd, mapped })
    }

    /// The descriptor to be sent to the producer.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The memory's size.
    pub fn bytes(&self) -> usize {
        self.mapped.layout.bytes()
    }

    /// How many slots it has.
    pub fn slots(&self) -> u32 {
        self.mapped.layout.slots()
    }

    /// The frames' format.
    pub fn format(&self) -> &FrameFormat {
        self.mapped.layout.format()
    }
}

impl Drop for RingMemory {
    fn drop(&mut self) {
        // The producer may keep its descriptor for ever, and the pages count for who made them: they are given back here. It may write on;
        // those pages are its own. A kernel that can't do this keeps them until the last descriptor is closed.
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let _ = fallocate(&self.fd, flags, 0, self.bytes() as u64);
    }
}

/// A mapped ring and where its words are.
#[derive(Debug)]
pub(crate) struct MappedRing {
    pub(crate) mapping: Mapping,
    pub(crate) layout: Layout,
}

impl MappedRing {
    /// Maps a ring that was received, once everything about it is as `layout` says.
    pub(crate) fn received(fd: &OwnedFd, layout: Layout) -> Result<Self, RingError> {
        let bytes = layout.bytes();
        let failed = |call| move |error| RingError::System { call, bytes, error };
        // Only memfds have seals; for anything else the call fails, which is the same news.
        let seals = fcntl_get_seals(fd).unwrap_or(SealFlags::empty());
        if !seals.contains(SEALS) {
            let found = seals.bits();
            return Err(RingError::NotSealed { found });
        }
        let found = fstat(fd).map_err(failed("fstat"))?.st_size;
        let (expected, found) = (bytes as u64, u64::try_from(found).unwrap_or(0));
        if found != expected {
            return Err(RingError::Size { expected, found });
        }
        let mapping = Mapping::new(fd, bytes).map_err(failed("mmap"))?;
        for word in layout.header_words() {
            let found = mapping.word(word.offset).load(Ordering::Relaxed);
            if found != word.value {
                return Err(RingError::Header {
                    word: word.name,
                    expected: word.value,
                    found,
                });
            }
        }
        Ok(Self { mapping, layout })
    }
}

impl Words for MappedRing {
    fn slots(&self) -> u32 {
        self.layout.slots()
    }

    fn word(&self, slot: u32) -> &AtomicU64 {
        self.mapping.word(self.layout.slot_header(slot) + SLOT_WORD)
    }

    fn frame_number(&self, slot: u32) -> &AtomicU64 {
        self.mapping
            .word(self.layout.slot_header(slot) + SLOT_FRAME_NUMBER)
    }

    fn captured(&self, slot: u32) -> &AtomicU64 {
        self.mapping
            .word(self.layout.slot_header(slot) + SLOT_CAPTURED)
    }

    fn committed(&self) -> &AtomicU64 {
        self.mapping.word(COMMITTED)
    }

    fn superseded(&self) -> &AtomicU64 {
        self.mapping.word(SUPERSEDED)
    }

    fn taken(&self) -> &AtomicU64 {
        self.mapping.word(TAKEN)
    }
}
