//! The ring: shared memory that carries raw frames, or sound, from one producer to the daemon, for one session.
//!
//! The daemon creates a [`RingMemory`], hands its descriptor over, and reads through a [`Reader`]; the producer maps it
//! as a [`Writer`]. A full ring gives the writer its oldest ready frame's slot back, or, if it is lossless, makes the writer wait. The reader
//! trusts nothing in the memory: each word is loaded once and checked, and an impossible value is a [`RingError`] that names it.
//! `docs/protocol.md` describes the memory to the byte; [`layout`] is the same in code.

#![cfg_attr(loom, allow(dead_code))]

#[cfg(not(all(
    target_os = "linux",
    target_endian = "little",
    target_pointer_width = "64"
)))]
compile_error!(
    "the ring's memory is laid out for 64-bit little-endian Linux: build for x86_64 or aarch64 Linux"
);

pub mod format;
pub mod layout;
pub mod sound;

mod error;
mod slots;
mod sync;

// The model checker has atomics of its own, which no shared memory can hold: it checks `slots` alone.
#[cfg(not(loom))]
mod blocks;
#[cfg(not(loom))]
mod mapping;
#[cfg(not(loom))]
mod media;
#[cfg(not(loom))]
mod memory;
#[cfg(not(loom))]
mod peer;
#[cfg(not(loom))]
mod reader;
#[cfg(not(loom))]
mod segment;
#[cfg(not(loom))]
mod sigbus;
#[cfg(not(loom))]
mod writer;

#[cfg(not(loom))]
pub use blocks::{Block, BlockPool, Kept};
pub use error::RingError;
#[cfg(not(loom))]
pub use media::{LEAST_MEDIA, Media, MediaPlace, MediaRun};
#[cfg(not(loom))]
pub use memory::{MemoryKind, RingMemory};
#[cfg(not(loom))]
pub use peer::peer_groups;
#[cfg(not(loom))]
pub use reader::{Reader, Taken};
#[cfg(not(loom))]
pub use segment::sweep_leftovers;
pub use slots::{Captured, Deadline, ReadySlot, ReadySlots};
#[cfg(not(loom))]
pub use writer::{ParkedSlot, Slot, SlotMemory, Writer};

#[cfg(test)]
mod model;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
