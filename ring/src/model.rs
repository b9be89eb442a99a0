//! The slots' state machine on plain memory, with a writer and a reader on two threads, for what a shared mapping can't be put through: every
//! interleaving that the memory model allows (`--cfg loom`), and races on the pixels (Miri, ThreadSanitizer). What a frame holds is no atomic
//! here: an access that is not ordered after the other side's is reported.

#[cfg(loom)]
use loom::{
    cell::UnsafeCell,
    sync::{Arc, Condvar, Mutex},
    thread,
};
#[cfg(not(loom))]
use std::{
    sync::{Arc, Condvar, Mutex},
    thread,
};

use crate::error::RingError;
use crate::layout::Policy;
use crate::slots::{Captured, Count, Deadline, ReaderState, ReadySlot, Words, WriterState};
use crate::sync::{AtomicU64, Ordering};

/// Model checking ends a sleep by waking alone: a wake that is lost is a deadlock, which it reports.
const NEVER: Deadline = Deadline(u64::MAX);

#[cfg(not(loom))]
struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    fn with<R>(&self, look: impl FnOnce(*const T) -> R) -> R {
        look(self.0.get())
    }

    fn with_mut<R>(&self, change: impl FnOnce(*mut T) -> R) -> R {
        change(self.0.get())
    }
}

struct Slot {
    word: AtomicU64,
    frame_number: AtomicU64,
    captured: AtomicU64,
    pixels: UnsafeCell<[u64; 2]>,
}

struct Ring {
    policy: Policy,
    slots: Vec<Slot>,
    committed: AtomicU64,
    superseded: AtomicU64,
    writer_waits: AtomicU64,
    taken: AtomicU64,
    reader_waits: AtomicU64,
    freed: AtomicU64,
    /// The kernel's part of a futex: comparing and falling asleep are one step.
    kernel: Mutex<()>,
    woken: Condvar,
}

// SAFETY: the pixels are the only part that isn't shareable by itself; that their accesses are ordered is what is checked here.
unsafe impl Sync for Ring {}

impl Ring {
    fn new(policy: Policy, slots: usize) -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        let slot = || Slot {
            word: zero(),
            frame_number: zero(),
            captured: zero(),
            pixels: UnsafeCell::new([0; 2]),
        };
        Arc::new(Self {
            policy,
            slots: (0..slots).map(|_| slot()).collect(),
            committed: zero(),
            superseded: zero(),
            writer_waits: zero(),
            taken: zero(),
            reader_waits: zero(),
            freed: zero(),
            kernel: Mutex::new(()),
            woken: Condvar::new(),
        })
    }

    fn count(&self, count: Count) -> &AtomicU64 {
        match count {
            Count::Committed => &self.committed,
            Count::Freed => &self.freed,
        }
    }

    fn write(&self, slot: u32, number: u64) {
        self.slots[slot as usize].pixels.with_mut(|pixels| {
            // SAFETY: the slot is in state writing, so this is the only access; loom reports it where that is not so.
            unsafe { *pixels = [number, !number] }
        });
    }

    fn read(&self, ready: &ReadySlot) -> [u64; 2] {
        self.slots[ready.slot as usize].pixels.with(|pixels| {
            // SAFETY: the slot is in state reading, so nobody writes; loom reports it where that is not so.
            unsafe { *pixels }
        })
    }
}

impl Words for Ring {
    fn slots(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap()
    }

    fn policy(&self) -> Policy {
        self.policy
    }

    fn word(&self, slot: u32) -> &AtomicU64 {
        &self.slots[slot as usize].word
    }

    fn frame_number(&self, slot: u32) -> &AtomicU64 {
        &self.slots[slot as usize].frame_number
    }

    fn captured(&self, slot: u32) -> &AtomicU64 {
        &self.slots[slot as usize].captured
    }

    fn committed(&self) -> &AtomicU64 {
        &self.committed
    }

    fn superseded(&self) -> &AtomicU64 {
        &self.superseded
    }

    fn writer_waits(&self) -> &AtomicU64 {
        &self.writer_waits
    }

    fn taken(&self) -> &AtomicU64 {
        &self.taken
    }

    fn reader_waits(&self) -> &AtomicU64 {
        &self.reader_waits
    }

    fn freed(&self) -> &AtomicU64 {
        &self.freed
    }

    fn sleep(&self, count: Count, seen: u64, _: Deadline) -> Result<bool, RingError> {
        let kernel = self.kernel.lock().unwrap();
        if self.count(count).load(Ordering::Relaxed) == seen {
            drop(self.woken.wait(kernel).unwrap());
        }
        Ok(true)
    }

    fn wake(&self, _: Count) {
        let _kernel = self.kernel.lock().unwrap();
        self.woken.notify_all();
    }
}

/// A writer on a thread of its own that commits frames 1 to `frames`; returns how many it stole back.
fn writer(ring: &Arc<Ring>, frames: u64) -> thread::JoinHandle<u64> {
    let ring = Arc::clone(ring);
    thread::spawn(move || {
        let mut state = WriterState::default();
        for number in 1..=frames {
            let slot = match ring.policy {
                Policy::Latest => state.begin(&*ring).unwrap(),
                Policy::Lossless => {
                    assert!(state.wait_free(&*ring, NEVER).unwrap());
                    state.begin_free(&*ring).unwrap()
                }
            };
            ring.write(slot, number);
            assert_eq!(
                state.commit(&*ring, slot, number, Some(Captured(number))),
                number
            );
        }
        state.superseded()
    })
}

/// The reading side, with what it has seen.
#[derive(Default)]
struct Seen {
    state: ReaderState,
    frames: u64,
    last: u64,
}

impl Seen {
    /// Takes the oldest frame if there is one, and checks it.
    fn take(&mut self, ring: &Ring) -> bool {
        let Some(taken) = self.state.take_oldest(ring).unwrap() else {
            return false;
        };
        let number = taken.frame_number;
        assert_eq!(ring.read(&taken), [number, !number], "a torn frame");
        assert_eq!(
            (taken.sequence, taken.captured),
            (number, Some(Captured(number))),
            "a torn header"
        );
        assert!(number > self.last, "frame {number} after {}", self.last);
        self.state.free(ring, &taken);
        (self.last, self.frames) = (number, self.frames + 1);
        true
    }
}

/// A writer that never waits against a reader that looks now and then.
fn steals(frames: u64, looks: u64) {
    let ring = Ring::new(Policy::Latest, 2);
    let writer = writer(&ring, frames);
    let mut seen = Seen::default();
    for _ in 0..looks {
        seen.take(&ring);
    }
    let stolen = writer.join().unwrap();
    while seen.take(&ring) {}
    assert_eq!(seen.last, frames, "the newest frame is never lost");
    assert_eq!(seen.frames + stolen, frames);
    assert_eq!(seen.state.counters(&*ring).unwrap(), (frames, stolen));
}

/// A reader that sleeps whenever nothing is there, until the last frame.
fn sleeps(policy: Policy, frames: u64) {
    let ring = Ring::new(policy, 2);
    let writer = writer(&ring, frames);
    let mut seen = Seen::default();
    while seen.last < frames {
        if !seen.take(&ring) {
            seen.state.wait(&*ring, NEVER).unwrap();
        }
    }
    let stolen = writer.join().unwrap();
    assert_eq!(seen.frames + stolen, frames);
    assert!(policy == Policy::Latest || stolen == 0);
}

/// A reader that passes a frame over while the writer may be stealing it.
fn skips(frames: u64) {
    let ring = Ring::new(Policy::Latest, 2);
    let writer = writer(&ring, frames);
    let mut state = ReaderState::default();
    let ready = state.ready(&*ring).unwrap();
    let skipped = ready.iter().filter(|&old| state.skip(&*ring, old)).count() as u64;
    let stolen = writer.join().unwrap();
    let waiting = state.ready(&*ring).unwrap().len() as u64;
    assert_eq!(skipped + stolen + waiting, frames);
}

#[cfg(loom)]
mod every_interleaving {
    use super::*;

    #[test]
    fn of_steals_and_takes() {
        loom::model(|| steals(3, 2));
    }

    #[test]
    fn of_steals_and_skips() {
        loom::model(|| skips(3));
    }

    #[test]
    fn of_commits_and_a_sleeping_reader() {
        loom::model(|| sleeps(Policy::Latest, 2));
    }

    #[test]
    fn of_a_lossless_writer_and_reader_that_wait_for_each_other() {
        loom::model(|| sleeps(Policy::Lossless, 3));
    }
}

#[cfg(not(loom))]
mod many_interleavings {
    use super::*;

    const FRAMES: u64 = if cfg!(miri) { 60 } else { 20_000 };

    #[test]
    fn of_steals_and_takes() {
        steals(FRAMES, FRAMES * 2);
    }

    #[test]
    fn of_steals_and_skips() {
        for _ in 0..FRAMES / 20 {
            skips(3);
        }
    }

    #[test]
    fn of_commits_and_a_sleeping_reader() {
        sleeps(Policy::Latest, FRAMES);
    }

    #[test]
    fn of_a_lossless_writer_and_reader_that_wait_for_each_other() {
        sleeps(Policy::Lossless, FRAMES);
    }
}
