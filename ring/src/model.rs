//! The slots' state machine on plain memory, with a writer and a reader on two threads, for what a shared mapping can't be put through: the
//! interleavings that the memory model allows (`--cfg loom`), and races on the pixels (Miri, ThreadSanitizer). What a frame holds is no atomic
//! here: an access that is not ordered after the other side's is reported.
//!
//! Loom tries every interleaving of the smallest cases, and of the larger ones those in which a thread is interrupted only so often, where it could
//! have gone on (`scripts/loom` says how often); what other threads' stores a load may see is tried in full in all of them.

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

/// How a writer uses its slots.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Habit {
    /// A frame at a time.
    Plain,
    /// Before each frame it gives one up, half painted.
    GivesUp,
    /// It drops its newest frame when no slot is free, as a client without a compare-and-swap does.
    NeverSteals,
    /// It paints two frames side by side, and the one that was begun last is ready first.
    TwoAtOnce,
}

/// A writer on a thread of its own with a habit, which commits up to `frames` frames; returns how many it committed and stole back.
fn writer_with(habit: Habit, ring: &Arc<Ring>, frames: u64) -> thread::JoinHandle<(u64, u64)> {
    let ring = Arc::clone(ring);
    thread::spawn(move || {
        let mut state = WriterState::default();
        let commit = |state: &mut WriterState, slot| {
            let number = state.committed() + 1;
            ring.write(slot, number);
            assert_eq!(
                state.commit(&*ring, slot, number, Some(Captured(number))),
                number
            );
        };
        for _ in 0..frames {
            match habit {
                Habit::Plain => {
                    let slot = state.begin(&*ring).unwrap();
                    commit(&mut state, slot);
                }
                Habit::GivesUp => {
                    let slot = state.begin(&*ring).unwrap();
                    ring.write(slot, u64::MAX);
                    state.abandon(&*ring, slot);
                    let slot = state.begin(&*ring).unwrap();
                    commit(&mut state, slot);
                }
                Habit::NeverSteals => {
                    if let Some(slot) = state.begin_free(&*ring) {
                        commit(&mut state, slot);
                    }
                }
                Habit::TwoAtOnce => {
                    let first = state.begin(&*ring).unwrap();
                    let second = state.begin(&*ring).unwrap();
                    ring.write(first, u64::MAX);
                    commit(&mut state, second);
                    commit(&mut state, first);
                }
            }
        }
        (state.committed(), state.superseded())
    })
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
fn steals(habit: Habit, slots: usize, frames: u64, looks: u64) {
    let ring = Ring::new(Policy::Latest, slots);
    let writer = writer_with(habit, &ring, frames);
    let mut seen = Seen::default();
    for _ in 0..looks {
        seen.take(&ring);
    }
    let (committed, stolen) = writer.join().unwrap();
    while seen.take(&ring) {}
    match habit {
        Habit::Plain | Habit::GivesUp => assert_eq!(committed, frames),
        Habit::NeverSteals => assert!((1..=frames).contains(&committed) && stolen == 0),
        Habit::TwoAtOnce => assert_eq!(committed, 2 * frames),
    }
    assert_eq!(seen.last, committed, "the newest frame is never lost");
    assert_eq!(seen.frames + stolen, committed);
    assert_eq!(seen.state.counters(&*ring).unwrap(), (committed, stolen));
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
    let writer = writer_with(Habit::Plain, &ring, frames);
    let mut state = ReaderState::default();
    let ready = state.ready(&*ring).unwrap();
    let skipped = ready.iter().filter(|&old| state.skip(&*ring, old)).count() as u64;
    let (_, stolen) = writer.join().unwrap();
    let waiting = state.ready(&*ring).unwrap().len() as u64;
    assert_eq!(skipped + stolen + waiting, frames);
}

/// Without a bound: every interleaving there is, of cases that are small enough for that.
#[cfg(loom)]
mod every_interleaving {
    use super::*;

    fn all(case: impl Fn() + Sync + Send + 'static) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = None;
        model.check(case);
    }

    #[test]
    fn of_steals_and_a_take() {
        all(|| steals(Habit::Plain, 2, 2, 1));
    }

    #[test]
    fn of_one_frame_and_a_sleeping_reader() {
        all(|| sleeps(Policy::Latest, 1));
    }
}

/// With at most as many interruptions as $LOOM_MAX_PREEMPTIONS says.
#[cfg(loom)]
mod bounded_interleavings {
    use super::*;

    #[test]
    fn of_steals_and_takes() {
        loom::model(|| steals(Habit::Plain, 2, 3, 2));
    }

    #[test]
    fn of_frames_given_up_and_takes() {
        loom::model(|| steals(Habit::GivesUp, 2, 2, 2));
    }

    #[test]
    fn of_a_writer_that_never_steals_and_takes() {
        loom::model(|| steals(Habit::NeverSteals, 2, 3, 2));
    }

    #[test]
    fn of_two_frames_painted_at_once_and_takes() {
        loom::model(|| steals(Habit::TwoAtOnce, 3, 2, 2));
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
        for (habit, slots) in [
            (Habit::Plain, 2),
            (Habit::GivesUp, 2),
            (Habit::NeverSteals, 2),
            (Habit::TwoAtOnce, 3),
        ] {
            steals(habit, slots, FRAMES, FRAMES * 2);
        }
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
