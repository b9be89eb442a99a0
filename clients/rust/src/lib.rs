//! Write camera frames into Ringgear, the live video daemon.
//!
//! [`SteadyProducer`] is what a camera process wants: it never makes the camera's loop wait, and reconnects by itself when the daemon
//! comes back. [`Producer`] is one session of it. [`AudioProducer`] feeds a stream's sound, likewise. [`messages`] and `docs/protocol.md` are the protocol, [`pattern`] paints and decodes test frames.
//!
//! ```no_run
//! use ringgear_producer::{FrameFormat, PixelFormat, ProducerOptions, SteadyProducer};
//!
//! # fn grab(_: &mut [u8]) {}
//! # fn main() -> Result<(), ringgear_producer::ProducerError> {
//! let format = FrameFormat::packed(PixelFormat::Bgr24, 1280, 720)?;
//! let options = ProducerOptions::new("door", format);
//! let mut producer = SteadyProducer::open(options, |event| eprintln!("{event:?}"))?;
//! loop {
//!     if let Some(mut frame) = producer.begin()? {
//!         grab(frame.bytes_mut());
//!         frame.commit(None);
//!     }
//! }
//! # }
//! ```

#![forbid(unsafe_code)]

mod audio;
mod connection;
mod error;
mod link;
pub mod messages;
pub mod pattern;
mod producer;
mod session;
mod steady;

pub use audio::{AudioProducer, AudioProducerOptions};
pub use error::ProducerError;
pub use link::LinkEvent;
pub use producer::{Frame, ParkedFrame, Producer, ProducerOptions, now};
pub use ringgear_ring::format::{FormatError, FrameFormat, PixelFormat};
pub use ringgear_ring::sound::{SampleFormat, SoundFormat, SoundFormatError};
pub use ringgear_ring::{Captured, MemoryKind, RingError, SlotMemory};
pub use steady::SteadyProducer;

#[cfg(test)]
mod tests;
