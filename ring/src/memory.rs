//! A ring's memory: made by the daemon, of two kinds and one layout, checked and mapped by the producer.

use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat,
    ftruncate, memfd_create,
};
use rustix::io::{Errno, pread};
use rustix::thread::futex::{self, Timespec};
use serde::{Deserialize, Serialize};

use crate::error::RingError;
use crate::format::FrameFormat;
use crate::layout::{
    COMMITTED, FREED, Layout, POLICY, Policy, READER_WAITS, SLOT_CAPTURED, SLOT_FRAME_NUMBER,
    SLOT_WORD, SUPERSEDED, SlotFormat, TAKEN, WRITER_WAITS,
};
use crate::mapping::Mapping;
use crate::segment::Segment;
use crate::sigbus;
use crate::slots::{Count, Deadline, Words};
use crate::sync::{AtomicU64, Ordering};

/// What the memory is sealed against: no producer can make an access of the daemon's fault.
pub(crate) const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// The memfds' name in /proc.
const MEMFD_NAME: &str = "ringgear-ring";

/// Where a ring's memory comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemoryKind {
    /// A sealed memfd, handed over as a descriptor: no producer can take it away.
    #[default]
    Memfd,
    /// A POSIX shared memory object that a producer of the same user opens by name.
    Named,
}

/// A new ring's memory in the daemon, before and after it is handed to the producer.
#[derive(Debug)]
pub struct RingMemory<F = FrameFormat> {
    /// Before `backing`: the mapping is watched over until it is unmapped.
    pub(crate) mapped: MappedRing<F>,
    backing: Backing,
}

#[derive(Debug)]
enum Backing {
    Memfd(OwnedFd),
    Named(Segment),
}

impl<F: SlotFormat> RingMemory<F> {
    /// Makes a sealed memfd for `slots` slots of `format`, with [`Policy::Latest`].
    ///
    /// # Errors
    /// As [`Self::create_as`].
    pub fn create(format: &F, slots: u32) -> Result<Self, RingError> {
        Self::create_as(MemoryKind::Memfd, Policy::Latest, format, slots)
    }

    /// Makes the memory for `slots` slots of `format`: allocated in full, its header written.
    ///
    /// # Errors
    /// [`RingError::Slots`], [`RingError::TooLarge`]; [`RingError::NoRoom`], [`RingError::TooManyNamed`] and [`RingError::System`] where memory or
    /// descriptors ran out.
    pub fn create_as(
        kind: MemoryKind,
        policy: Policy,
        format: &F,
        slots: u32,
    ) -> Result<Self, RingError> {
        let layout = Layout::new(format, slots)?.with_policy(policy);
        let bytes = layout.bytes();
        let (backing, mapping) = match kind {
            MemoryKind::Memfd => {
                let fd = sealed_memfd(bytes)?;
                let mapping = map_memfd(&fd, &layout)?;
                (Backing::Memfd(fd), mapping)
            }
            MemoryKind::Named => {
                let segment = Segment::create(bytes)?;
                // The words alone: pixels are read by `pread`, which no truncation turns into a signal.
                let mut mapping = map(&segment.fd, layout.data_offset())?;
                if !mapping.survive_loss(layout.data_offset()) {
                    return Err(RingError::TooManyNamed { most: sigbus::MOST });
                }
                (Backing::Named(segment), mapping)
            }
        };
        for word in layout.header_words() {
            mapping
                .word(word.offset)
                .store(word.value, Ordering::Relaxed);
        }
        let mapped = MappedRing { mapping, layout };
        mapped.check_whole()?;
        Ok(Self { mapped, backing })
    }

    /// [`Self::create`] over a memfd whose seals the test has left out.
    #[cfg(test)]
    pub(crate) fn unsealed(fd: OwnedFd, layout: Layout<F>) -> Self {
        let mapping = map_memfd(&fd, &layout).unwrap();
        for word in layout.header_words() {
            mapping
                .word(word.offset)
                .store(word.value, Ordering::Relaxed);
        }
        Self {
            mapped: MappedRing { mapping, layout },
            backing: Backing::Memfd(fd),
        }
    }

    /// What the slots hold.
    pub fn format(&self) -> &F {
        self.mapped.layout.format()
    }
}

impl<F> RingMemory<F> {
    /// The descriptor: for a memfd, what is sent to the producer.
    pub fn fd(&self) -> BorrowedFd<'_> {
        match &self.backing {
            Backing::Memfd(fd) => fd.as_fd(),
            Backing::Named(segment) => segment.fd.as_fd(),
        }
    }

    /// A named segment's name, which the producer opens it by; the file's in /dev/shm.
    pub fn name(&self) -> Option<&str> {
        match &self.backing {
            Backing::Memfd(_) => None,
            Backing::Named(segment) => Some(segment.name()),
        }
    }

    /// The memory's size.
    pub fn bytes(&self) -> usize {
        self.mapped.layout.bytes()
    }

    /// How many slots it has.
    pub fn slots(&self) -> u32 {
        self.mapped.layout.slots()
    }

    /// What it does when it is full.
    pub fn policy(&self) -> Policy {
        self.mapped.layout.policy()
    }

    /// Copies bytes of a slot out; the caller holds their slot.
    pub(crate) fn copy_out(&self, offset: usize, target: &mut [u8]) -> Result<(), RingError> {
        match &self.backing {
            Backing::Memfd(_) => {
                self.mapped.mapping.copy_out(offset, target);
                self.mapped.check_whole()
            }
            Backing::Named(segment) => read_at(&segment.fd, offset, target),
        }
    }
}

fn map(fd: &OwnedFd, bytes: usize) -> Result<Mapping, RingError> {
    Mapping::new(fd, bytes).map_err(|error| RingError::System {
        call: "mmap",
        bytes,
        error,
    })
}

/// A memfd's mapping. Its seals let no producer cut it short, but holes may be punched, and where no memory is left to fill them (with
/// `vm.overcommit_memory` 2 that needs no shortage), an access raises SIGBUS; so it is watched over if more can be.
fn map_memfd<F>(fd: &OwnedFd, layout: &Layout<F>) -> Result<Mapping, RingError> {
    let mut mapping = map(fd, layout.bytes())?;
    mapping.survive_loss(layout.data_offset());
    Ok(mapping)
}

/// A memfd that can be sealed.
pub(crate) fn memfd(name: &str) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC;
    // Nobody runs a program from it, which some systems (`vm.memfd_noexec`) want to hear; kernels before 6.3 don't know the flag.
    match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create(name, flags),
        made => made,
    }
}

/// A memfd of `bytes` bytes, allocated and sealed.
fn sealed_memfd(bytes: usize) -> Result<OwnedFd, RingError> {
    let failed = |call| move |error| RingError::System { call, bytes, error };
    let fd = memfd(MEMFD_NAME).map_err(failed("memfd_create"))?;
    ftruncate(&fd, bytes as u64).map_err(failed("ftruncate"))?;
    // Every page now, so that a machine without memory says so here, and not by a signal at the first write.
    fallocate(&fd, FallocateFlags::empty(), 0, bytes as u64).map_err(failed("fallocate"))?;
    fcntl_add_seals(&fd, SEALS).map_err(failed("sealing"))?;
    Ok(fd)
}

/// Fills `target` from the file's byte `offset` on.
fn read_at(fd: &OwnedFd, offset: usize, target: &mut [u8]) -> Result<(), RingError> {
    let mut done = 0;
    while done < target.len() {
        match pread(fd, &mut target[done..], (offset + done) as u64) {
            Ok(0) => return Err(RingError::Truncated),
            Ok(read) => done += read,
            Err(Errno::INTR) => {}
            Err(error) => {
                return Err(RingError::System {
                    call: "pread",
                    bytes: target.len(),
                    error,
                });
            }
        }
    }
    Ok(())
}

impl<F> Drop for RingMemory<F> {
    fn drop(&mut self) {
        // The producer may keep its descriptor for ever, and the pages count for who made them: they are given back here. It may write on;
        // those pages are its own. A kernel that can't do this keeps them until the last descriptor is closed.
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let _ = fallocate(self.fd(), flags, 0, self.bytes() as u64);
    }
}

/// A mapped ring and where its words are.
#[derive(Debug)]
pub(crate) struct MappedRing<F> {
    pub(crate) mapping: Mapping,
    pub(crate) layout: Layout<F>,
}

impl<F: SlotFormat> MappedRing<F> {
    /// Maps a ring that was received, once everything about it is as `layout` says. Its policy is the daemon's to choose.
    pub(crate) fn received(
        fd: &OwnedFd,
        kind: MemoryKind,
        layout: Layout<F>,
    ) -> Result<Self, RingError> {
        let bytes = layout.bytes();
        let failed = |call| move |error| RingError::System { call, bytes, error };
        if kind == MemoryKind::Memfd {
            // Only memfds have seals; for anything else the call fails, which is the same news.
            let seals = fcntl_get_seals(fd).unwrap_or(SealFlags::empty());
            if !seals.contains(SEALS) {
                let found = seals.bits();
                return Err(RingError::NotSealed { found });
            }
        }
        let found = fstat(fd).map_err(failed("fstat"))?.st_size;
        let (expected, found) = (bytes as u64, u64::try_from(found).unwrap_or(0));
        if found != expected {
            return Err(RingError::Size { expected, found });
        }
        let mapping = Mapping::new(fd, bytes).map_err(failed("mmap"))?;
        let policy = mapping.word(POLICY).load(Ordering::Relaxed);
        let layout = layout.with_policy(Policy::from_code(policy).unwrap_or_default());
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

impl<F> MappedRing<F> {
    /// Whether all that was seen in the memory since it was mapped was there.
    pub(crate) fn check_whole(&self) -> Result<(), RingError> {
        if self.mapping.is_lost() {
            return Err(RingError::Truncated);
        }
        Ok(())
    }
}

fn offset_of(count: Count) -> usize {
    match count {
        Count::Committed => COMMITTED,
        Count::Freed => FREED,
    }
}

impl<F> Words for MappedRing<F> {
    fn slots(&self) -> u32 {
        self.layout.slots()
    }

    fn policy(&self) -> Policy {
        self.layout.policy()
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

    fn writer_waits(&self) -> &AtomicU64 {
        self.mapping.word(WRITER_WAITS)
    }

    fn taken(&self) -> &AtomicU64 {
        self.mapping.word(TAKEN)
    }

    fn reader_waits(&self) -> &AtomicU64 {
        self.mapping.word(READER_WAITS)
    }

    fn freed(&self) -> &AtomicU64 {
        self.mapping.word(FREED)
    }

    fn sleep(&self, count: Count, seen: u64, until: Deadline) -> Result<bool, RingError> {
        let [b0, b1, b2, b3, ..] = seen.to_le_bytes();
        let low = u32::from_le_bytes([b0, b1, b2, b3]);
        // A deadline beyond the clock's end is the clock's end.
        let timeout = Timespec {
            tv_sec: i64::try_from(until.0 / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(until.0 % 1_000_000_000).unwrap_or(0),
        };
        // Zeros in place of what was cut off never change.
        self.check_whole()?;
        let word = self.mapping.futex(offset_of(count));
        // With a bitset, the deadline is a point of CLOCK_MONOTONIC. Shared, for the other side is another process.
        let any = NonZeroU32::MAX;
        match futex::wait_bitset(word, futex::Flags::empty(), low, Some(&timeout), any) {
            Err(Errno::TIMEDOUT) => Ok(false),
            // Woken, or the count was another already. Who is woken for nothing again and again still keeps the deadline.
            Ok(()) | Err(Errno::AGAIN | Errno::INTR) => Ok(Deadline::after(Duration::ZERO) < until),
            Err(error) => {
                // The kernel says FAULT where an access would raise a signal: let it, so that it is seen.
                self.mapping.word(offset_of(count)).load(Ordering::Relaxed);
                self.check_whole()?;
                let (call, bytes) = ("futex", self.layout.bytes());
                Err(RingError::System { call, bytes, error })
            }
        }
    }

    fn wake(&self, count: Count) {
        // It fails where the memory is gone, and then nobody sleeps there.
        let _ = futex::wake(
            self.mapping.futex(offset_of(count)),
            futex::Flags::empty(),
            1,
        );
    }
}
