//! The ring: shared memory that carries raw frames from one producer to the daemon, for one session.
//!
//! The daemon creates a [`RingMemory`], hands its descriptor over, and reads through a [`Reader`]; the producer maps it
//! as a [`Writer`]. The writer never waits: a full ring gives it its oldest ready frame's slot back. The reader trusts nothing
//! in the memory: each word is loaded once and checked, and an impossible value is a [`RingError`] that names it.
//! `docs/protocol.md` describes the memory to the byte; [`layout`] is the same in code.

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

mod error;
mod mapping;
mod memory;
mod peer;
mod reader;
mod slots;
mod sync;
mod writer;

pub use error::RingError;
pub use memory::RingMemory;
pub use peer::peer_groups;
pub use reader::{Reader, Taken};
pub use slots::{Captured, ReadySlot, ReadySlots};
pub use writer::{ParkedSlot, Slot, SlotMemory, Writer};

#[cfg(test)]
mod tests;
