//! What keeps this process alive when pages of a file that it maps are taken away by somebody else: the file cut short, or holes punched into
//! it that the machine has no memory to fill again. Access to such a page raises SIGBUS; for watched ranges the handler here maps zeros over the range and
//! marks it as lost, and the access goes on. Every other SIGBUS goes to the handler that was there before.

use std::ffi::{c_int, c_void};
use std::ptr::{NonNull, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use libc::{sigaction, siginfo_t};

/// How many ranges can be watched at a time.
pub(crate) const MOST: usize = 1024;

/// A watched range. A handler can't allocate or lock, so there is a fixed number of them.
struct Range {
    taken: AtomicBool,
    /// 0 while nothing is watched here.
    start: AtomicUsize,
    bytes: AtomicUsize,
    /// How many of the bytes, from the start on, this process writes too.
    written: AtomicUsize,
    lost: AtomicBool,
}

static RANGES: [Range; MOST] = [const {
    Range {
        taken: AtomicBool::new(false),
        start: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
        written: AtomicUsize::new(0),
        lost: AtomicBool::new(false),
    }
}; MOST];

/// The handler that was there before ours; none if ours could not be installed.
static BEFORE: OnceLock<Option<sigaction>> = OnceLock::new();

/// Watches over one mapped range until dropped, which has to be before the range is unmapped.
#[derive(Debug)]
pub(crate) struct Watch {
    range: usize,
}

impl Watch {
    /// Watches `bytes` bytes from `start`, a mapping of the caller's, of which this process writes the first `written` alone. None when
    /// [`MOST`] are watched already, or the system lets no handler be installed.
    pub(crate) fn over(start: NonNull<u8>, bytes: usize, written: usize) -> Option<Self> {
        BEFORE.get_or_init(install).as_ref()?;
        // Acquire: pairs with the Release in `drop`: the range before is forgotten.
        let free = |range: &Range| !range.taken.swap(true, Ordering::Acquire);
        let range = RANGES.iter().position(free)?;
        RANGES[range].lost.store(false, Ordering::Relaxed);
        RANGES[range].bytes.store(bytes, Ordering::Relaxed);
        let written = written.next_multiple_of(rustix::param::page_size());
        RANGES[range]
            .written
            .store(written.min(bytes), Ordering::Relaxed);
        // Release: pairs with the Acquire in `handle`: who sees the start sees the length.
        RANGES[range]
            .start
            .store(start.as_ptr() as usize, Ordering::Release);
        Some(Self { range })
    }

    /// Whether an access inside has failed: the range is zeros of this process's own since then.
    pub(crate) fn is_lost(&self) -> bool {
        // Acquire: pairs with the Release in `handle`, should another thread's access have failed.
        RANGES[self.range].lost.load(Ordering::Acquire)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        RANGES[self.range].start.store(0, Ordering::Relaxed);
        // Release: pairs with the Acquire in `over`.
        RANGES[self.range].taken.store(false, Ordering::Release);
    }
}

fn install() -> Option<sigaction> {
    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = handle;
    // SAFETY: a `sigaction` is plain data, for which all zeros are a valid value: the default action, no flags, an empty mask.
    let mut ours: sigaction = unsafe { std::mem::zeroed() };
    ours.sa_sigaction = handler as usize;
    // Threads that Rust starts have a stack for handlers of their own; the default stack serves all others.
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: as above.
    let mut before: sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the right type. The handler does only what a handler may: atomic loads and stores, and
    // the system calls mmap and sigaction.
    let failed = unsafe { sigaction(libc::SIGBUS, &raw const ours, &raw mut before) } != 0;
    (!failed).then_some(before)
}

extern "C" fn handle(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands a valid siginfo over to a handler with SA_SIGINFO, and it lives as long as the handler runs.
    let info_there = unsafe { &*info };
    // A positive code is the kernel's own: a fault, and not a signal that a process has sent.
    if info_there.si_code > 0 {
        // SAFETY: a SIGBUS that the kernel raises has an address.
        let address = unsafe { info_there.si_addr() } as usize;
        if RANGES.iter().any(|range| mend(range, address)) {
            return;
        }
    }
    pass_on(signal, info, context);
}

/// Maps zeros over the range, writable where this process writes, if `address` is inside; whether it was, and the access can go on.
fn mend(range: &Range, address: usize) -> bool {
    // Acquire: pairs with the Release in `Watch::over`.
    let start = range.start.load(Ordering::Acquire);
    let bytes = range.bytes.load(Ordering::Relaxed);
    if start == 0 || address < start || address - start >= bytes {
        return false;
    }
    // Release: pairs with the Acquire in `Watch::is_lost`.
    range.lost.store(true, Ordering::Release);
    let written = range.written.load(Ordering::Relaxed);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // Where memory ran out, there may be none for zeros that can be written either: so those are few, and the others cost nothing.
    let parts = [
        (start, written, libc::PROT_READ | libc::PROT_WRITE),
        (start + written, bytes - written, libc::PROT_READ),
    ];
    // SAFETY: errno's place is this thread's own and always there.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; a handler has to leave errno as it was.
    let before = unsafe { *errno };
    let mended = parts.into_iter().all(|(start, bytes, protection)| {
        if bytes == 0 {
            return true;
        }
        // SAFETY: the range is a part of a mapping of a `Mapping` that lives: this thread is inside of an access to it. Replacing its pages changes
        // no promise that Rust was given: words are used by atomics alone, pixels only copied out, and any value may stand there at any time.
        let mapped = unsafe { libc::mmap(start as *mut c_void, bytes, protection, flags, -1, 0) };
        mapped != libc::MAP_FAILED
    });
    // SAFETY: as above.
    unsafe { *errno = before };
    mended
}

/// Does what would have been done without this handler.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let before = BEFORE.get().and_then(Option::as_ref);
    match before.map_or(libc::SIG_DFL, |before| before.sa_sigaction) {
        libc::SIG_DFL | libc::SIG_IGN => {
            // The access is tried again when this returns, and then the default action ends the process.
            // SAFETY: all zeros are the default action, see `install`.
            let default: sigaction = unsafe { std::mem::zeroed() };
            // SAFETY: a pointer to a live value, and null, which sigaction allows.
            unsafe { sigaction(signal, &raw const default, null_mut()) };
        }
        handler if before.is_some_and(|before| before.sa_flags & libc::SA_SIGINFO != 0) => {
            // SAFETY: an action with SA_SIGINFO that is neither SIG_DFL nor SIG_IGN is the address of a function of this type.
            let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: an action without SA_SIGINFO that is neither SIG_DFL nor SIG_IGN is the address of a function of this type.
            let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}
