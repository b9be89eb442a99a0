//! The slots' state machine, both sides of it, over words that lie anywhere: shared memory in service, plain atomics in a model.
//!
//! A slot's word is `sequence << 2 | state`. Free -> writing -> ready belongs to the writer; it needs a compare-and-swap only to
//! steal its oldest ready slot back. The reader takes by compare-and-swap, ready -> reading, and frees by a store.
//! A frame's sequence number is its place among the ring's committed frames, from 1 without holes.
//!
//! A side that finds nothing to do may sleep until the other's count moves: it says that it waits, looks once more, and
//! sleeps; the other side, having moved its count, wakes only who says so. Of the two SeqCst fences between, one comes first,
//! so that either the sleeper sees the count or the waker sees the sleeper.

use std::time::Duration;

use crate::error::RingError;
use crate::layout::{MAX_SLOTS, Policy};
use crate::sync::{AtomicU64, Ordering, fence};

/// When a frame was captured: CLOCK_MONOTONIC in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Captured(pub u64);

/// Until when a side may sleep: CLOCK_MONOTONIC in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(pub u64);

impl Deadline {
    /// `pause` from now.
    pub fn after(pause: Duration) -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
        Self(now.saturating_add(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// How often a side tries again when the other was quicker, before it gives up for now. Being overtaken once is rare already:
/// it takes a whole frame's writing between two loads.
const ATTEMPTS: u32 = 64;

/// A slot's state, the low two bits of its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum State {
    /// The writer may take it.
    Free = 0,
    /// The writer fills it.
    Writing = 1,
    /// It holds a whole frame.
    Ready = 2,
    /// The reader copies it out.
    Reading = 3,
}

/// A slot's word: the sequence number and state of its frame, in one load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotWord(pub(crate) u64);

impl SlotWord {
    pub(crate) const fn new(sequence: u64, state: State) -> Self {
        Self(sequence << 2 | state as u64)
    }

    pub(crate) const fn sequence(self) -> u64 {
        self.0 >> 2
    }

    pub(crate) const fn state(self) -> State {
        match self.0 & 3 {
            0 => State::Free,
            1 => State::Writing,
            2 => State::Ready,
            _ => State::Reading,
        }
    }
}

/// A count that one side moves and the other may sleep on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// The writer's committed frames.
    Committed,
    /// The slots that the reader gave back.
    Freed,
}

/// Where a ring's live words are, and how a side sleeps on them.
pub(crate) trait Words {
    fn slots(&self) -> u32;
    fn policy(&self) -> Policy;
    fn word(&self, slot: u32) -> &AtomicU64;
    fn frame_number(&self, slot: u32) -> &AtomicU64;
    fn captured(&self, slot: u32) -> &AtomicU64;
    fn committed(&self) -> &AtomicU64;
    fn superseded(&self) -> &AtomicU64;
    fn writer_waits(&self) -> &AtomicU64;
    fn taken(&self) -> &AtomicU64;
    fn reader_waits(&self) -> &AtomicU64;
    fn freed(&self) -> &AtomicU64;

    /// Sleeps until woken, or at once no more if the count is not `seen`. False when `until` is over; true for no reason now and then.
    fn sleep(&self, count: Count, seen: u64, until: Deadline) -> Result<bool, RingError>;

    /// Wakes who sleeps on the count.
    fn wake(&self, count: Count);
}

/// The writer's side. One per ring; its counters are its own memory, the shared ones are copies for the reader.
#[derive(Debug, Default)]
pub(crate) struct WriterState {
    committed: u64,
    superseded: u64,
}

impl WriterState {
    pub(crate) fn committed(&self) -> u64 {
        self.committed
    }

    pub(crate) fn superseded(&self) -> u64 {
        self.superseded
    }

    /// Puts a slot into state writing and returns it: a free one, else the oldest ready one, whose frame is lost.
    pub(crate) fn begin(&mut self, words: &impl Words) -> Result<u32, RingError> {
        let writing = SlotWord::new(self.committed + 1, State::Writing).0;
        for _ in 0..ATTEMPTS {
            let (slot, word) = match self.claim(words) {
                Claim::Got(slot) => return Ok(slot),
                Claim::Full(Some(oldest)) => oldest,
                Claim::Full(None) => continue,
            };
            // Acquire keeps our writes behind the swap. It fails when the reader takes the frame at this moment; then it also
            // frees, or has freed, the one that it held before.
            let swapped = words.word(slot).compare_exchange(
                word.0,
                writing,
                Ordering::Acquire,
                Ordering::Relaxed,
            );
            if swapped.is_ok() {
                fence(Ordering::Release); // as in `claim`
                self.superseded += 1;
                // Release: pairs with the Acquire in `ReaderState::counters`.
                words.superseded().store(self.superseded, Ordering::Release);
                return Ok(slot);
            }
        }
        let slots = words.slots();
        Err(RingError::NoSlot { slots })
    }

    /// Puts a free slot into state writing and returns it; none if there is none.
    pub(crate) fn begin_free(&self, words: &impl Words) -> Option<u32> {
        match self.claim(words) {
            Claim::Got(slot) => Some(slot),
            Claim::Full(_) => None,
        }
    }

    /// Sleeps until the reader gives a slot back if none is free; false if `until` is over before.
    pub(crate) fn wait_free(&self, words: &impl Words, until: Deadline) -> Result<bool, RingError> {
        if has_free(words) {
            return Ok(true);
        }
        words.writer_waits().store(1, Ordering::Relaxed);
        let outcome = loop {
            // Acquire: pairs with the Release in `ReaderState::give_back`: who sees the count sees those slots free.
            let freed = words.freed().load(Ordering::Acquire);
            // SeqCst: pairs with the fence in `ReaderState::give_back`.
            fence(Ordering::SeqCst);
            if has_free(words) {
                break Ok(true);
            }
            match words.sleep(Count::Freed, freed, until) {
                Ok(true) => {}
                Ok(false) => break Ok(has_free(words)),
                Err(error) => break Err(error),
            }
        };
        words.writer_waits().store(0, Ordering::Relaxed);
        outcome
    }

    /// Puts a free slot into state writing, or says which ready one is the oldest.
    fn claim(&self, words: &impl Words) -> Claim {
        let mut oldest: Option<(u32, SlotWord)> = None;
        for slot in 0..words.slots() {
            // Acquire: pairs with the Release in `ReaderState::give_back`, so the reader's copying is over before we write.
            let word = SlotWord(words.word(slot).load(Ordering::Acquire));
            match word.state() {
                State::Free => {
                    // A plain store does: nobody else takes a free slot.
                    let writing = SlotWord::new(self.committed + 1, State::Writing).0;
                    words.word(slot).store(writing, Ordering::Relaxed);
                    // Release: a reader that sees one of the header words stored after this, and fences (`ReaderState::peek`), sees the
                    // state writing too, and so throws its torn look away.
                    fence(Ordering::Release);
                    return Claim::Got(slot);
                }
                State::Ready if oldest.is_none_or(|(_, o)| word.sequence() < o.sequence()) => {
                    oldest = Some((slot, word));
                }
                _ => {}
            }
        }
        Claim::Full(oldest)
    }

    /// Makes the slot that `begin` returned ready, with the next sequence number, which is returned.
    pub(crate) fn commit(
        &mut self,
        words: &impl Words,
        slot: u32,
        frame_number: u64,
        captured: Option<Captured>,
    ) -> u64 {
        words
            .frame_number(slot)
            .store(frame_number, Ordering::Relaxed);
        let captured = captured.map_or(0, |captured| captured.0);
        words.captured(slot).store(captured, Ordering::Relaxed);
        self.committed += 1;
        let ready = SlotWord::new(self.committed, State::Ready).0;
        // Release: pairs with the Acquire of `ReaderState::take` and `peek`: who sees ready sees the whole frame.
        words.word(slot).store(ready, Ordering::Release);
        // Release: pairs with the Acquire in `ReaderState::ready`: who sees the count sees those frames ready.
        words.committed().store(self.committed, Ordering::Release);
        // SeqCst: pairs with the fence in `ReaderState::wait`.
        fence(Ordering::SeqCst);
        if words.reader_waits().load(Ordering::Relaxed) != 0 {
            words.wake(Count::Committed);
        }
        self.committed
    }

    /// Gives the slot that `begin` returned back without a frame. Its sequence number goes to the next frame.
    pub(crate) fn abandon(&self, words: &impl Words, slot: u32) {
        let free = SlotWord::new(self.committed + 1, State::Free).0;
        // Relaxed: only the writer itself takes a free slot, and the reader looks for ready ones.
        words.word(slot).store(free, Ordering::Relaxed);
    }
}

/// Whether a slot is free. It stays so until the writer itself takes it.
fn has_free(words: &impl Words) -> bool {
    (0..words.slots()).any(|slot| {
        // Relaxed: who takes the slot loads its word again (`WriterState::claim`).
        let word = SlotWord(words.word(slot).load(Ordering::Relaxed));
        word.state() == State::Free
    })
}

/// What a look for a free slot came to.
enum Claim {
    /// This slot, in state writing now.
    Got(u32),
    /// None is free; this is the oldest ready one.
    Full(Option<(u32, SlotWord)>),
}

/// A ready frame as it was when the reader looked. The writer may steal it back until it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadySlot {
    /// The frame's place among the ring's committed frames, from 1.
    pub sequence: u64,
    /// The producer's own number for it, which goes on over sessions.
    pub frame_number: u64,
    /// When it was captured, if the producer says.
    pub captured: Option<Captured>,
    pub(crate) slot: u32,
}

/// The ready frames of one look, oldest first.
#[derive(Clone, Copy, Debug)]
pub struct ReadySlots {
    slots: [ReadySlot; MAX_SLOTS as usize],
    count: usize,
}

impl std::ops::Deref for ReadySlots {
    type Target = [ReadySlot];

    fn deref(&self) -> &[ReadySlot] {
        &self.slots[..self.count]
    }
}

impl ReadySlots {
    const fn empty() -> Self {
        let none = ReadySlot {
            sequence: 0,
            frame_number: 0,
            captured: None,
            slot: 0,
        };
        Self {
            slots: [none; MAX_SLOTS as usize],
            count: 0,
        }
    }

    /// Adds a frame in its place; two of one sequence number can't be.
    fn insert(&mut self, ready: ReadySlot) -> Result<(), RingError> {
        let at = self.partition_point(|other| other.sequence < ready.sequence);
        if let Some(other) = self.get(at)
            && other.sequence == ready.sequence
        {
            return Err(RingError::SequenceTwice {
                first: other.slot,
                second: ready.slot,
                sequence: ready.sequence,
            });
        }
        self.slots.copy_within(at..self.count, at + 1);
        self.slots[at] = ready;
        self.count += 1;
        Ok(())
    }
}

/// The reader's side, against a writer that may lie. It holds at most one slot at a time.
#[derive(Debug, Default)]
pub(crate) struct ReaderState {
    committed: u64,
    superseded: u64,
    taken: u64,
    freed: u64,
    /// How many frames were committed when the last look began.
    looked: u64,
    /// For each slot, the last sequence number that was freed there.
    last: [u64; MAX_SLOTS as usize],
}

impl ReaderState {
    /// The frames that were committed when the look began and are still there, oldest first.
    pub(crate) fn ready(&mut self, words: &impl Words) -> Result<ReadySlots, RingError> {
        // Acquire: pairs with the Release in `WriterState::commit`. Every frame up to this count has been made ready before, so the
        // loads below miss none of them; newer ones wait for the next look. That keeps the order: without it a look could
        // pass a slot, and find a newer frame than the one that is committed there meanwhile.
        let settled = words.committed().load(Ordering::Acquire);
        self.committed = risen("committed", self.committed, settled)?;
        self.looked = settled;
        let mut found = ReadySlots::empty();
        let mut newest: Option<(u32, u64)> = None;
        for slot in 0..words.slots() {
            let Some(ready) = self.peek(words, slot)? else {
                continue;
            };
            if newest.is_none_or(|(_, sequence)| sequence < ready.sequence) {
                newest = Some((slot, ready.sequence));
            }
            if ready.sequence <= settled {
                found.insert(ready)?;
            }
        }
        self.counters(words)?;
        // The count follows the word, so a frame may be ahead of it by one.
        match newest {
            Some((slot, sequence)) if sequence > self.committed.saturating_add(1) => {
                Err(RingError::SequenceAhead {
                    slot,
                    sequence,
                    committed: self.committed,
                })
            }
            _ => Ok(found),
        }
    }

    /// The frame in `slot`, if it is ready and stays so while its header is read.
    fn peek(&self, words: &impl Words, slot: u32) -> Result<Option<ReadySlot>, RingError> {
        // Acquire: pairs with the Release in `WriterState::commit`.
        let word = SlotWord(words.word(slot).load(Ordering::Acquire));
        let sequence = word.sequence();
        let state = match word.state() {
            State::Free => return Ok(None),
            State::Reading => return Err(RingError::NotReading { slot }),
            State::Writing => "writing",
            State::Ready => "ready",
        };
        if sequence == 0 {
            return Err(RingError::SequenceZero { slot, state });
        }
        let last = self.last[slot as usize];
        if sequence <= last {
            return Err(RingError::SequenceBack {
                slot,
                sequence,
                last,
            });
        }
        if word.state() == State::Writing {
            return Ok(None);
        }
        let frame_number = words.frame_number(slot).load(Ordering::Relaxed);
        let captured = words.captured(slot).load(Ordering::Relaxed);
        // Acquire: pairs with the Release fences in `WriterState::claim` and `begin`: had one of the two loads seen a newer frame's value, this one
        // would see a newer word.
        fence(Ordering::Acquire);
        if words.word(slot).load(Ordering::Relaxed) != word.0 {
            return Ok(None);
        }
        Ok(Some(ReadySlot {
            sequence,
            frame_number,
            captured: (captured != 0).then_some(Captured(captured)),
            slot,
        }))
    }

    /// Takes a frame for reading; false if the writer has stolen it back meanwhile.
    pub(crate) fn take(&mut self, words: &impl Words, ready: &ReadySlot) -> bool {
        let from = SlotWord::new(ready.sequence, State::Ready).0;
        let to = SlotWord::new(ready.sequence, State::Reading).0;
        // Acquire: pairs with the Release in `WriterState::commit`: the frame is whole.
        let taken = words
            .word(ready.slot)
            .compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed)
            .is_ok();
        if taken {
            self.taken += 1;
            words.taken().store(self.taken, Ordering::Relaxed);
        }
        taken
    }

    /// Takes the oldest frame; none if none is ready, or the writer is quicker again and again.
    pub(crate) fn take_oldest(
        &mut self,
        words: &impl Words,
    ) -> Result<Option<ReadySlot>, RingError> {
        for _ in 0..ATTEMPTS {
            let ready = self.ready(words)?;
            let Some(oldest) = ready.first() else {
                return Ok(None);
            };
            if self.take(words, oldest) {
                return Ok(Some(*oldest));
            }
        }
        Ok(None)
    }

    /// Gives a slot that `take` took back to the writer.
    pub(crate) fn free(&mut self, words: &impl Words, ready: &ReadySlot) {
        self.last[ready.slot as usize] = ready.sequence;
        let free = SlotWord::new(ready.sequence, State::Free).0;
        // Release: pairs with the Acquire in `WriterState::claim`: our copying is over.
        words.word(ready.slot).store(free, Ordering::Release);
        self.give_back(words);
    }

    /// Frees a ready slot unread; false if the writer has stolen it back meanwhile.
    pub(crate) fn skip(&mut self, words: &impl Words, ready: &ReadySlot) -> bool {
        let from = SlotWord::new(ready.sequence, State::Ready).0;
        let to = SlotWord::new(ready.sequence, State::Free).0;
        // Relaxed: nothing of the frame was read that the writer would have to wait for.
        let freed = words
            .word(ready.slot)
            .compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok();
        if freed {
            self.last[ready.slot as usize] = ready.sequence;
            self.give_back(words);
        }
        freed
    }

    /// Counts a slot that has just become free, for a writer that waits for one.
    fn give_back(&mut self, words: &impl Words) {
        self.freed += 1;
        // Release: pairs with the Acquire in `WriterState::wait_free`.
        words.freed().store(self.freed, Ordering::Release);
        // SeqCst: pairs with the fence in `WriterState::wait_free`.
        fence(Ordering::SeqCst);
        if words.writer_waits().load(Ordering::Relaxed) != 0 {
            words.wake(Count::Freed);
        }
    }

    /// Sleeps until frames are committed that the last look (`ready`) did not cover; false if `until` is over before.
    pub(crate) fn wait(&mut self, words: &impl Words, until: Deadline) -> Result<bool, RingError> {
        if self.has_more(words)? {
            return Ok(true);
        }
        words.reader_waits().store(1, Ordering::Relaxed);
        let outcome = loop {
            // SeqCst: pairs with the fence in `WriterState::commit`.
            fence(Ordering::SeqCst);
            match self.has_more(words) {
                Ok(false) => {}
                other => break other,
            }
            match words.sleep(Count::Committed, self.looked, until) {
                Ok(true) => {}
                Ok(false) => break self.has_more(words),
                Err(error) => break Err(error),
            }
        };
        words.reader_waits().store(0, Ordering::Relaxed);
        outcome
    }

    fn has_more(&mut self, words: &impl Words) -> Result<bool, RingError> {
        // Acquire: pairs with the Release in `WriterState::commit`.
        let committed = words.committed().load(Ordering::Acquire);
        self.committed = risen("committed", self.committed, committed)?;
        Ok(committed != self.looked)
    }

    /// The writer's counts of committed and of stolen frames, checked.
    pub(crate) fn counters(&mut self, words: &impl Words) -> Result<(u64, u64), RingError> {
        // Acquire: pairs with the Release in `WriterState::begin`: a stolen frame was committed before, so `committed`, loaded after, covers it.
        let superseded = words.superseded().load(Ordering::Acquire);
        // Acquire: pairs with the Release in `WriterState::commit`.
        let committed = words.committed().load(Ordering::Acquire);
        self.superseded = risen("superseded", self.superseded, superseded)?;
        self.committed = risen("committed", self.committed, committed)?;
        if superseded > committed {
            return Err(RingError::SupersededAhead {
                superseded,
                committed,
            });
        }
        if superseded > 0 && words.policy() == Policy::Lossless {
            return Err(RingError::StolenBack { superseded });
        }
        Ok((committed, superseded))
    }
}

fn risen(counter: &'static str, before: u64, now: u64) -> Result<u64, RingError> {
    if now < before {
        return Err(RingError::CounterBack {
            counter,
            before,
            now,
        });
    }
    Ok(now)
}
