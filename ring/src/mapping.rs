//! A shared mapping and the three things that may be done with it: look at a word, copy bytes out, and, on the
//! producer's side, write bytes.

use std::ffi::c_void;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::sigbus::Watch;
use crate::sync::AtomicU64;

/// A shared, writable mapping of a file's first bytes, unmapped when it and all its [`Pages`] are dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// Where the file may be cut short. Before `pages`, for it has to go before the range is somebody else's.
    watch: Option<Watch>,
    pages: Arc<Pages>,
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is an address range of the process, bound to no thread, and only `Mapping` accesses it.
unsafe impl Send for Mapping {}
// SAFETY: through `&Mapping` one gets atomics, which are made for sharing, and copies out of memory that is foreign anyway;
// Rust-visible writes to pixels need `&mut Mapping`.
unsafe impl Sync for Mapping {}

/// What keeps the pages mapped. It gives no access to them, so sharing it lets nobody break [`Mapping`]'s rules.
#[derive(Debug)]
pub(crate) struct Pages {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: an address range of the process, bound to no thread; all that can be done with it is to unmap it, once.
unsafe impl Send for Pages {}
// SAFETY: `&Pages` gives no access to anything but the range's numbers.
unsafe impl Sync for Pages {}

impl Mapping {
    /// Maps `bytes` bytes of `file`. Accesses inside can't fault if it is sealed against shrinking, or [`Self::survive_loss`] is
    /// called; without either, who cuts it short ends this process.
    pub(crate) fn new(file: impl AsFd, bytes: usize) -> Result<Self, Errno> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: the address is the kernel's choice (null hint, no MAP_FIXED), so no memory that Rust knows of is touched.
        let start = unsafe { mmap(std::ptr::null_mut(), bytes, protection, flags, file, 0) }?;
        // A null mapping is not handed out without MAP_FIXED; should it be, it is refused here.
        let start = NonNull::new(start.cast::<u8>()).ok_or(Errno::NOMEM)?;
        let pages = Arc::new(Pages { start, bytes });
        Ok(Self {
            watch: None,
            pages,
            start,
            bytes,
        })
    }

    /// The pages, to keep them mapped for longer than `self`.
    pub(crate) fn pages(&self) -> &Arc<Pages> {
        &self.pages
    }

    /// From now on the mapping turns into zeros, and [`Self::is_lost`], when pages of the file are gone and can't be had again. Only the first
    /// `words` bytes may be written then, by [`Self::word`]. False if that can't be had.
    pub(crate) fn survive_loss(&mut self, words: usize) -> bool {
        self.watch = Watch::over(self.start, self.bytes, words);
        self.watch.is_some()
    }

    /// Whether pages were gone and an access noticed.
    pub(crate) fn is_lost(&self) -> bool {
        self.watch.as_ref().is_some_and(Watch::is_lost)
    }

    /// The low half of the word at `offset`, for futex calls alone: the kernel reads it, and nobody here does.
    pub(crate) fn futex(&self, offset: usize) -> &AtomicU32 {
        let word = std::ptr::from_ref(self.word(offset)).cast_mut();
        // SAFETY: the first four of a live word's eight bytes, aligned as the word is; the low half, as the layout is for little-endian machines. The
        // reference only carries the address to the kernel, so this process never mixes accesses of two sizes.
        unsafe { AtomicU32::from_ptr(word.cast()) }
    }

    /// The word at `offset`.
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(
            offset.is_multiple_of(8) && offset < self.bytes && self.bytes - offset >= 8,
            "words lie inside of the layout"
        );
        // SAFETY: `offset` is inside of the mapping, by the assertion.
        let word = unsafe { self.start.as_ptr().add(offset) };
        // SAFETY: the 8 bytes are mapped readable and writable for as long as `self` lives, which the returned lifetime is bound to; they
        // are aligned (a mapping starts on a page, `offset` is a multiple of 8); and this process accesses them by atomics only: `copy_out`
        // and `bytes_mut` are used on slots' data alone, which `Layout` puts behind all words.
        unsafe { AtomicU64::from_ptr(word.cast()) }
    }

    /// Copies the bytes from `offset` into `target`. Another process may change them meanwhile; then `target` holds a mixture.
    pub(crate) fn copy_out(&self, offset: usize, target: &mut [u8]) {
        assert!(
            offset <= self.bytes && self.bytes - offset >= target.len(),
            "rows lie inside of the layout"
        );
        // SAFETY: `offset` is inside of the mapping or just past it, by the assertion.
        let from = unsafe { self.start.as_ptr().add(offset) };
        // SAFETY: `target.len()` bytes from `from` are mapped (assertion) and can't vanish (who reads this way has sealed the file against shrinking; a page that can't be had again becomes zeros by `survive_loss`);
        // `target` is exclusive memory of Rust's, so the two don't overlap. No reference to the shared bytes is made. A writer in another process
        // that breaks the protocol and writes meanwhile does so outside of this program: every value of a byte is a valid u8. A writer in
        // this process is a `Writer`, which writes only to slots that are not in state reading.
        unsafe { std::ptr::copy_nonoverlapping(from, target.as_mut_ptr(), target.len()) }
    }

    /// The address of the `bytes` bytes from `offset`, for who keeps [`Self::pages`]. No reference to them is made.
    pub(crate) fn address(&self, offset: usize, bytes: usize) -> usize {
        assert!(
            offset <= self.bytes && self.bytes - offset >= bytes,
            "slots lie inside of the layout"
        );
        self.start.as_ptr().expose_provenance() + offset
    }

    /// The `bytes` bytes from `offset`, for writing. The caller must own them by the ring's protocol: a slot in state writing.
    pub(crate) fn bytes_mut(&mut self, offset: usize, bytes: usize) -> &mut [u8] {
        assert!(
            offset <= self.bytes && self.bytes - offset >= bytes,
            "slots lie inside of the layout"
        );
        // SAFETY: `offset` is inside of the mapping or just past it, by the assertion.
        let start = unsafe { self.start.as_ptr().add(offset) };
        // SAFETY: the bytes are mapped, initialised (shared memory starts as zeros) and valid for `self`'s borrow. Exclusive in this mapping by
        // `&mut self`; the other end, the daemon, never writes pixels, and reads a slot's only in state reading, which this slot
        // is not in. No word's atomic overlaps: slots' data lies behind all words.
        unsafe { std::slice::from_raw_parts_mut(start, bytes) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let start = self.start.as_ptr().cast::<c_void>();
        // SAFETY: exactly what `mmap` returned, unmapped once; every borrow of it has ended, for they all borrow the `Mapping`, which holds `self`.
        // An error is impossible for such a range, and there is nothing to be done about one.
        let _ = unsafe { munmap(start, self.bytes) };
    }
}
