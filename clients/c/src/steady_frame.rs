//! A producer together with the frame that it has begun: Rust's `Frame` borrows its producer, and C keeps both between two calls.

use std::ptr::NonNull;

use ringgear_producer::messages::FrameCounts;
use ringgear_producer::{Captured, Frame, ProducerError, SteadyProducer};

/// A producer, and at most one frame of it.
#[derive(Debug)]
pub(crate) struct SteadyFrame {
    /// While this is there, `producer` is not touched.
    frame: Option<Frame<'static>>,
    /// From a `Box`, which can't stay one: it would claim to be the only way to what the frame borrows.
    producer: NonNull<SteadyProducer>,
}

// SAFETY: both are owned by this alone, and `movable` below has the compiler show that both may change threads.
unsafe impl Send for SteadyFrame {}

const _: () = {
    const fn movable<T: Send>() {}
    movable::<SteadyProducer>();
    movable::<Frame<'static>>();
};

impl SteadyFrame {
    pub(crate) fn new(producer: SteadyProducer) -> Self {
        Self {
            frame: None,
            producer: NonNull::from(Box::leak(Box::new(producer))),
        }
    }

    /// The frame that was begun.
    pub(crate) fn frame(&mut self) -> Option<&mut [u8]> {
        self.frame.as_mut().map(Frame::bytes_mut)
    }

    /// The producer; none while a frame is begun.
    pub(crate) fn idle(&self) -> Option<&SteadyProducer> {
        if self.frame.is_some() {
            return None;
        }
        // SAFETY: the producer lives until `self` is dropped, which the result's lifetime ends before; no frame borrows it, and who gets a `&mut`
        // to it below has `self` by `&mut`.
        Some(unsafe { self.producer.as_ref() })
    }

    /// The producer; none while a frame is begun.
    pub(crate) fn idle_mut(&mut self) -> Option<&mut SteadyProducer> {
        if self.frame.is_some() {
            return None;
        }
        // SAFETY: as in `idle`, and exclusive by `&mut self`.
        Some(unsafe { self.producer.as_mut() })
    }

    /// Begins a frame; false if it is dropped, or one is begun already.
    pub(crate) fn begin(&mut self) -> Result<bool, ProducerError> {
        if self.frame.is_some() {
            return Ok(false);
        }
        // SAFETY: the producer lives until `self` is dropped, and the frame, which is all that keeps this borrow, is dropped before it (see
        // `producer_alone`). While the frame is there, nothing else makes a reference to the producer: every method looks at `frame` first.
        let producer: &'static mut SteadyProducer = unsafe { self.producer.as_mut() };
        self.frame = producer.begin()?;
        Ok(self.frame.is_some())
    }

    /// Commits the frame that was begun; false if there is none.
    pub(crate) fn commit(&mut self, captured: Option<Captured>) -> bool {
        self.frame.take().is_some_and(|frame| {
            frame.commit(captured);
            true
        })
    }

    /// Gives up the frame that was begun; false if there is none.
    pub(crate) fn abandon(&mut self) -> bool {
        self.frame.take().is_some()
    }

    /// Gives up the frame and closes the producer.
    pub(crate) fn close(self) -> Result<Option<FrameCounts>, ProducerError> {
        let mut this = std::mem::ManuallyDrop::new(self);
        this.producer_alone().close()
    }

    /// Takes the producer out. Only for the last thing that is done with `self`.
    fn producer_alone(&mut self) -> Box<SteadyProducer> {
        self.frame = None;
        // SAFETY: it came from a `Box`, the frame that borrowed it is gone, and each of the two callers is the last to touch `self`: `drop`, and
        // `close`, which keeps `drop` from running.
        unsafe { Box::from_raw(self.producer.as_ptr()) }
    }
}

impl Drop for SteadyFrame {
    fn drop(&mut self) {
        drop(self.producer_alone());
    }
}
