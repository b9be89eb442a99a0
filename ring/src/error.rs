//! What can be wrong with a ring: its making, its memory as a producer receives it, and its words as the daemon reads them.

use rustix::io::Errno;

use crate::layout::{MAX_MEMORY_BYTES, MAX_SLOTS, MIN_SLOTS};

/// Why a ring can't be made, mapped or gone on with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// A number of slots that no ring has.
    #[error("a ring of {slots} slots is out of range: ask for {MIN_SLOTS} to {MAX_SLOTS}")]
    Slots {
        /// How many were asked for.
        slots: u32,
    },
    /// The frames don't fit the largest ring.
    #[error(
        "{slots} slots of {frame_bytes} bytes are more than a ring's {MAX_MEMORY_BYTES} bytes: use fewer slots or smaller frames"
    )]
    TooLarge {
        /// How many slots were asked for.
        slots: u32,
        /// One frame's bytes.
        frame_bytes: usize,
    },
    /// The kernel refused a call that a ring needs.
    #[error("{call} of a ring of {bytes} bytes failed: {error}")]
    System {
        /// The system call.
        call: &'static str,
        /// The ring's size.
        bytes: usize,
        /// The kernel's reason.
        error: Errno,
    },
    /// The descriptor is no sealed memfd, so its memory could vanish under the reader's feet.
    #[error(
        "the ring's memory is not sealed against shrinking, growing and unsealing (seals {found:#x}): it is no ring of the daemon's"
    )]
    NotSealed {
        /// The seals that it has, as F_GET_SEALS gives them; 0 where it can't have any.
        found: u32,
    },
    /// The memory's size is not what was agreed on.
    #[error("the ring's memory has {found} bytes instead of {expected}")]
    Size {
        /// What the format and slots come to.
        expected: u64,
        /// What fstat, or the daemon's message, says.
        found: u64,
    },
    /// A header word differs from what was agreed on.
    #[error("the ring's header says {found} for {word}, not {expected}")]
    Header {
        /// The word's name in `docs/protocol.md`.
        word: &'static str,
        /// What the format and slots come to.
        expected: u64,
        /// What the memory holds.
        found: u64,
    },
    /// A slot in use without a sequence number.
    #[error("slot {slot} is in state {state} with sequence number 0")]
    SequenceZero {
        /// The slot.
        slot: u32,
        /// Its state's name.
        state: &'static str,
    },
    /// A ready frame that was not committed yet by the writer's own count.
    #[error("slot {slot} holds frame {sequence}, but only {committed} are committed")]
    SequenceAhead {
        /// The slot.
        slot: u32,
        /// Its frame's sequence number.
        sequence: u64,
        /// The writer's count, loaded after the slot's word.
        committed: u64,
    },
    /// A slot whose frame is not newer than the one that was read from it before.
    #[error("slot {slot} holds frame {sequence} though its frame {last} was read already")]
    SequenceBack {
        /// The slot.
        slot: u32,
        /// Its frame's sequence number.
        sequence: u64,
        /// The last one that the reader freed there.
        last: u64,
    },
    /// Two slots with the same frame.
    #[error("slots {first} and {second} both hold frame {sequence}")]
    SequenceTwice {
        /// One slot.
        first: u32,
        /// The other.
        second: u32,
        /// Their frames' sequence number.
        sequence: u64,
    },
    /// A slot in state reading that the reader did not put there.
    #[error("slot {slot} is in state reading, but nobody reads it")]
    NotReading {
        /// The slot.
        slot: u32,
    },
    /// A counter that only rises has fallen.
    #[error("the counter {counter} fell from {before} to {now}")]
    CounterBack {
        /// The counter's name in `docs/protocol.md`.
        counter: &'static str,
        /// Its value at an earlier look.
        before: u64,
        /// Its value now.
        now: u64,
    },
    /// More frames stolen back than were ever committed.
    #[error("{superseded} frames were stolen back, but only {committed} committed")]
    SupersededAhead {
        /// The writer's count of stolen frames.
        superseded: u64,
        /// The writer's count of committed frames.
        committed: u64,
    },
    /// Frames stolen back from a ring that loses none.
    #[error(
        "the producer took {superseded} waiting frames back, but this ring is lossless: it has to wait for a free slot"
    )]
    StolenBack {
        /// The writer's count of stolen frames.
        superseded: u64,
    },
    /// The producer has cut its named segment short, or punched holes into its memfd that the machine has no memory to fill.
    #[error("the ring's memory was truncated by its producer's side, or punched full of holes")]
    Truncated,
    /// The directory of named segments is full.
    #[error(
        "no room for a named ring of {bytes} bytes: enlarge /dev/shm (mount -o remount,size=...) or ask for the memory \"memfd\""
    )]
    NoRoom {
        /// The ring's size.
        bytes: usize,
    },
    /// The process reads as many rings as it can watch over, and a named one can't do without.
    #[error("{most} rings are open already: close some, or ask for the memory \"memfd\"")]
    TooManyNamed {
        /// How many can be.
        most: usize,
    },
    /// A named segment that isn't the daemon's by its name, owner or kind.
    #[error("'{name}' is no ring of the daemon's: {why}")]
    NotARing {
        /// The segment's name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Every slot of a lossless ring holds a frame that was not read yet.
    #[error("all {slots} slots are full and none may be lost: wait for the reader")]
    Full {
        /// How many the ring has.
        slots: u32,
    },
    /// No slot is free or ready, which a reader that takes one at a time can't bring about.
    #[error("the ring's {slots} slots are all taken: the reading side is broken")]
    NoSlot {
        /// How many it has.
        slots: u32,
    },
    /// A block of sound of a length that no slot holds.
    #[error("a block of {bytes} bytes of sound: 1 to {most} fit into a slot")]
    BlockBytes {
        /// The block's length, by its producer's word.
        bytes: u64,
        /// A slot's bytes.
        most: usize,
    },
    /// A block of sound that ends inside of a sample.
    #[error(
        "a block of {bytes} bytes of sound is no whole number of samples, which have {sample} bytes"
    )]
    BlockUneven {
        /// The block's length, by its producer's word.
        bytes: u64,
        /// Bytes of a sample of all channels.
        sample: usize,
    },
    /// A caller's rows or bytes lie outside of the frame.
    #[error(
        "rows {first_row}..{end_row} of plane {plane} with a buffer of {bytes} bytes do not fit the frame"
    )]
    Rows {
        /// The plane.
        plane: usize,
        /// The first row.
        first_row: usize,
        /// Just past the last row.
        end_row: usize,
        /// The caller's buffer.
        bytes: usize,
    },
    /// A packed frame of the wrong length.
    #[error("a packed frame has {expected} bytes, not {given}")]
    FrameBytes {
        /// What the format comes to.
        expected: usize,
        /// What was given.
        given: usize,
    },
}
