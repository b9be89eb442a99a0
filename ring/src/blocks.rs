//! Blocks of this process's own memory whose pages a pipe can be given without a copy: a memfd, mapped once.

use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FallocateFlags, fallocate, fcntl_add_seals, ftruncate};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::pipe::{SpliceFlags, splice};

use crate::memory::{SEALS, memfd};

/// The memfds' name in /proc.
const MEMFD_NAME: &str = "ringgear-pictures";

/// Memory for equal blocks, which takes room only for those that are in use and a few more. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BlockPool(Arc<Memory>);

#[derive(Debug)]
struct Memory {
    /// Never handed out: what is in it changes by its [`Block`]s alone.
    file: OwnedFd,
    start: NonNull<u8>,
    /// A block's bytes, and from one block to the next, in whole pages.
    bytes: usize,
    stride: usize,
    kept: Kept,
    state: Mutex<State>,
}

/// How many blocks' memory is kept while they are not in use.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// What a pause leaves, and what is not needed for [`SURVEY`] blocks goes down to.
    pub least: usize,
    /// More is given back at once.
    pub most: usize,
}

/// After so many blocks the memory that none of them has needed is given back.
const SURVEY: u32 = 256;

#[derive(Debug)]
struct State {
    uses: Vec<Use>,
    /// How many blocks were taken since the last survey, and how many idle ones there were at least.
    taken: u32,
    never_needed: usize,
}

/// What a block's place is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// It takes no memory.
    None,
    /// Its memory is kept for the next block.
    Idle,
    /// There is a [`Block`] of it.
    Taken,
}

impl State {
    fn find(&self, wanted: Use) -> Option<usize> {
        self.uses.iter().position(|found| *found == wanted)
    }

    fn idle(&self) -> usize {
        let idle = self.uses.iter().filter(|found| **found == Use::Idle);
        idle.count()
    }
}

// SAFETY: an address range of the process, bound to no thread; only `Block`s access it, each of them its own part.
unsafe impl Send for Memory {}
// SAFETY: as above; what is shared beside the range is behind a mutex, or never changes.
unsafe impl Sync for Memory {}

impl BlockPool {
    /// A pool of at most `count` blocks of `bytes` bytes, which keeps the memory of some that are not in use.
    ///
    /// # Errors
    /// What the system says: no memory, no descriptors, or no memfds.
    pub fn new(bytes: usize, count: usize, kept: Kept) -> Result<Self, Errno> {
        let stride = bytes.checked_next_multiple_of(rustix::param::page_size());
        let stride = stride.filter(|stride| *stride > 0).ok_or(Errno::INVAL)?;
        let all = stride.checked_mul(count).ok_or(Errno::NOMEM)?;
        let file = memfd(MEMFD_NAME)?;
        ftruncate(&file, all as u64)?;
        fcntl_add_seals(&file, SEALS)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: the address is the kernel's choice (null hint, no MAP_FIXED), so no memory that Rust knows of is touched.
        let start = unsafe { mmap(std::ptr::null_mut(), all, protection, flags, &file, 0) }?;
        let start = NonNull::new(start.cast::<u8>()).ok_or(Errno::NOMEM)?;
        Ok(Self(Arc::new(Memory {
            file,
            start,
            bytes,
            stride,
            kept,
            state: Mutex::new(State {
                uses: vec![Use::None; count],
                taken: 0,
                never_needed: count,
            }),
        })))
    }

    /// A block with arbitrary content; none when all are in use.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub fn take(&self) -> Result<Option<Block>, Errno> {
        let mut state = self.0.state();
        let index = match state.find(Use::Idle) {
            Some(idle) => idle,
            None => {
                let Some(free) = state.find(Use::None) else {
                    return Ok(None);
                };
                self.0.allocate(free)?;
                free
            }
        };
        state.uses[index] = Use::Taken;
        state.taken += 1;
        state.never_needed = state.never_needed.min(state.idle());
        if state.taken == SURVEY {
            self.0.survey(&mut state);
        }
        Ok(Some(Block {
            memory: Arc::clone(&self.0),
            index,
        }))
    }
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back what was not needed since the last time.
    fn survey(&self, state: &mut State) {
        for _ in self.kept.least..state.never_needed {
            if let Some(index) = state.find(Use::Idle)
                && self.free(index)
            {
                state.uses[index] = Use::None;
            }
        }
        (state.taken, state.never_needed) = (0, state.idle());
    }

    /// Every page now, so that a machine without memory says so here, and not by a signal at the first write.
    fn allocate(&self, index: usize) -> Result<(), Errno> {
        let (offset, bytes) = ((index * self.stride) as u64, self.stride as u64);
        loop {
            match fallocate(&self.file, FallocateFlags::empty(), offset, bytes) {
                Err(Errno::INTR) => {}
                done => return done,
            }
        }
    }

    /// Gives a place's memory back; false if the system does not take it.
    fn free(&self, index: usize) -> bool {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let (offset, bytes) = ((index * self.stride) as u64, self.stride as u64);
        fallocate(&self.file, flags, offset, bytes).is_ok()
    }

    fn address(&self, index: usize) -> *mut u8 {
        // SAFETY: `index` is one of the pool's, so the place is inside of the mapping, which has a stride for each.
        unsafe { self.start.as_ptr().add(index * self.stride) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let all = self.stride * self.state().uses.len();
        // SAFETY: exactly what `mmap` returned, unmapped once; every `Block` that could access it holds an `Arc` of `self`. An error is impossible for
        // such a range, and there is nothing to be done about one.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), all) };
    }
}

/// A block, which goes back to its pool when it is dropped.
#[derive(Debug)]
pub struct Block {
    memory: Arc<Memory>,
    index: usize,
}

impl Block {
    /// Puts what is in it from its byte `from` on into `pipe`, as far as that has room; says how many bytes. They are not copied: the pipe's reader
    /// sees what is in the block when it reads, so until then the block is to be kept as it is.
    ///
    /// # Errors
    /// `AGAIN` where the pipe is full, and what else the system says: `INVAL` where it can't do this.
    ///
    /// # Panics
    /// When `from` is not inside of the block.
    pub fn splice_into(&self, from: usize, pipe: impl AsFd) -> Result<usize, Errno> {
        assert!(from < self.memory.bytes, "there is something left to write");
        let mut offset = (self.index * self.memory.stride + from) as u64;
        let bytes = self.memory.bytes - from;
        splice(
            &self.memory.file,
            Some(&mut offset),
            pipe,
            None,
            bytes,
            SpliceFlags::NONBLOCK,
        )
    }
}

impl std::ops::Deref for Block {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let start = self.memory.address(self.index);
        // SAFETY: `bytes` bytes from `start` are mapped for as long as `memory` lives, can't be cut off (the file is sealed), are allocated and so
        // initialised, and are this block's alone: it is `Taken` until it is dropped. Only `deref_mut` writes to them, by `&mut self`; the file's
        // descriptor is not handed out, and who opens it through /proc may write to all of this process's memory anyway.
        unsafe { std::slice::from_raw_parts(start, self.memory.bytes) }
    }
}

impl std::ops::DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        let start = self.memory.address(self.index);
        // SAFETY: as in `deref`, and exclusive by `&mut self`. Pipes only read.
        unsafe { std::slice::from_raw_parts_mut(start, self.memory.bytes) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut state = self.memory.state();
        let kept = state.idle() < self.memory.kept.most || !self.memory.free(self.index);
        state.uses[self.index] = if kept { Use::Idle } else { Use::None };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const ONE: Kept = Kept { least: 1, most: 1 };

    #[test]
    fn blocks_are_apart_and_come_again() {
        let pool = BlockPool::new(5000, 3, ONE).unwrap();
        let mut blocks: Vec<Block> = (0..3).map(|_| pool.take().unwrap().unwrap()).collect();
        assert!(pool.take().unwrap().is_none(), "all are in use");
        for (block, mark) in blocks.iter_mut().zip(1..) {
            block.fill(mark);
        }
        for (block, mark) in blocks.iter().zip(1_u8..) {
            assert!(block.len() == 5000 && block.iter().all(|byte| *byte == mark));
        }
        drop(blocks);
        assert_eq!(pool.0.state().idle(), 1);
        let again = pool.take().unwrap().unwrap();
        assert_eq!(pool.0.state().idle(), 0);
        drop(pool);
        assert_eq!(again.len(), 5000);
    }

    #[test]
    fn memory_that_no_block_needs_for_long_is_given_back() {
        let pool = BlockPool::new(5000, 10, Kept { least: 2, most: 8 }).unwrap();
        let together = |count: usize| {
            let blocks: Vec<_> = (0..count).map(|_| pool.take().unwrap().unwrap()).collect();
            drop(blocks);
        };
        together(10);
        assert_eq!(pool.0.state().idle(), 8);
        for _ in 0..SURVEY / 4 {
            together(8);
        }
        assert_eq!(pool.0.state().idle(), 8, "eight are needed all the time");
        (0..2 * SURVEY).for_each(|_| together(1));
        assert_eq!(
            pool.0.state().idle(),
            3,
            "one is needed, and two stay beside it"
        );
    }

    #[test]
    fn a_pipe_is_given_a_block_as_far_as_it_has_room() {
        let pool = BlockPool::new(100_000, 1, ONE).unwrap();
        let mut block = pool.take().unwrap().unwrap();
        let bytes: Vec<u8> = (0..100_000_u32).map(|at| at.to_le_bytes()[1]).collect();
        block.copy_from_slice(&bytes);
        let (mut reader, writer) = std::io::pipe().unwrap();
        let (mut given, mut read) = (0, Vec::new());
        while read.len() < bytes.len() {
            while given < bytes.len() {
                match block.splice_into(given, &writer) {
                    Ok(count) => given += count,
                    Err(error) => {
                        assert_eq!(error, Errno::AGAIN);
                        break;
                    }
                }
            }
            let mut some = [0; 30_000];
            let count = reader.read(&mut some).unwrap();
            read.extend_from_slice(&some[..count]);
        }
        assert_eq!(read, bytes);
    }

    #[test]
    fn what_no_machine_has_is_refused() {
        assert!(BlockPool::new(usize::MAX >> 2, 8, ONE).is_err());
        assert!(BlockPool::new(usize::MAX, 1, ONE).is_err());
        assert!(BlockPool::new(0, 1, ONE).is_err());
    }
}
