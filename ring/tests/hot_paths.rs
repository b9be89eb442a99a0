//! What happens for each frame allocates nothing, and calls the kernel only for who waits: as a counting allocator has it, and as a process
//! has it that the kernel kills at any call but `exit` (seccomp(2), SECCOMP_MODE_STRICT).

#![cfg(not(loom))]
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout as MemoryLayout, System};
use std::cell::Cell;
use std::time::Duration;

use ringgear_ring::format::{FrameFormat, PixelFormat};
use ringgear_ring::layout::Policy;
use ringgear_ring::{Captured, Deadline, MemoryKind, Reader, RingMemory, Writer};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: all is left to the system's allocator; the count is a thread-local number without a destructor, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: MemoryLayout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps to `alloc`'s contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: MemoryLayout) {
        // SAFETY: the caller keeps to `dealloc`'s contract, and `memory` is of `System`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn ring(policy: Policy) -> (Reader, Writer) {
    let format = FrameFormat::packed(PixelFormat::Nv12, 64, 48).unwrap();
    let memory = RingMemory::create_as(MemoryKind::Memfd, policy, &format, 3).unwrap();
    let fd = memory.fd().try_clone_to_owned().unwrap();
    let writer = Writer::from_fd(fd, &format, memory.bytes() as u64, 3).unwrap();
    (Reader::new(memory), writer)
}

/// A thousand frames, each written, committed, taken and copied out; of a ring that steals, as many again that are taken back. Whether all
/// of them were there.
fn pass_frames(reader: &mut Reader, writer: &mut Writer, rows: &mut [u8]) -> bool {
    let steals = writer.policy() == Policy::Latest;
    let mut commit = |number: u64| {
        let Ok(mut slot) = writer.begin() else {
            return false;
        };
        slot.bytes_mut().fill(7);
        slot.commit(number, Some(Captured(number + 1))) > number
    };
    for number in 0..1000 {
        if !commit(number) {
            return false;
        }
        let Ok(Some(taken)) = reader.take_oldest() else {
            return false;
        };
        if taken.copy_rows(0, 0, 48, rows).is_err() || rows[0] != 7 {
            return false;
        }
    }
    let more = if steals { 1000..2000 } else { 1000..1003 };
    more.into_iter().all(&mut commit)
}

#[test]
fn frames_are_passed_without_an_allocation() {
    for policy in [Policy::Latest, Policy::Lossless] {
        let (mut reader, mut writer) = ring(policy);
        let mut rows = [0; 64 * 48];
        let before = ALLOCATIONS.get();
        assert!(pass_frames(&mut reader, &mut writer, &mut rows));
        assert_eq!(ALLOCATIONS.get() - before, 0, "{policy:?}");
    }
}

#[test]
fn frames_are_passed_without_a_call_of_the_kernel() {
    for policy in [Policy::Latest, Policy::Lossless] {
        let (mut reader, mut writer) = ring(policy);
        // Lazily made things are made.
        let mut rows = [0; 64 * 48];
        let warmed = reader.wait(Deadline::after(Duration::ZERO)).unwrap();
        assert!(!warmed, "nothing was committed");
        // SAFETY: the child is a copy of this thread alone. It uses the ring that is there, which takes no lock and allocates nothing, and
        // leaves by `exit`; it never returns into the test runner.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "{}", std::io::Error::last_os_error());
        if child == 0 {
            // SAFETY: the call takes numbers alone. Whatever of the kernel is called from here on but `exit` ends the child by SIGKILL.
            let strict =
                unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT, 0, 0, 0) };
            let passed = strict == 0 && pass_frames(&mut reader, &mut writer, &mut rows);
            // SAFETY: it ends the child's only thread, and with it the child; nothing is dropped, which would call the kernel.
            unsafe { libc::syscall(libc::SYS_exit, i32::from(!passed)) };
        }
        let mut status = 0;
        // SAFETY: `status` is a whole number that the kernel may write; the child is ours and not waited for by anybody else.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(waited, child);
        let ended = (libc::WIFEXITED(status), libc::WEXITSTATUS(status));
        assert_eq!(ended, (true, 0), "{policy:?}: wait status {status:#x}");
    }
}
