//! What became of every frame and every tick, for status and tests.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::status::{FrameStatus, TickStatus};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// One stream's counts over all of its sessions. Each is written by one thread and only read by others, so no order
        /// between them is promised.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $($(#[$doc])* pub(crate) $name: Count,)+
        }
    };
}

/// A number that grows, or is set by its one writer.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, to: u64) {
        self.0.store(to, Ordering::Relaxed);
    }

    pub(crate) fn raise(&self, to: u64) {
        self.0.fetch_max(to, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

counters! {
    /// Frames committed by producers.
    received,
    /// Frames shown by a tick.
    used,
    /// Frames passed over for a newer one.
    superseded,
    /// Frames committed when their session had ended.
    late,
    /// Frames committed in the present session.
    session_committed,
    /// Frames used in the last whole second.
    used_last_second,
    /// Ticks with a frame of their own.
    fresh,
    /// Ticks with the picture before.
    repeated,
    /// Ticks with the slate.
    slate,
    /// Ticks given to the encoder after the next one's deadline.
    overdue,
    /// Ticks that were never published, because the encoder was away for too long.
    missed,
    /// The newest tick given to the encoder.
    last_tick,
    /// When ingest last reached a tick, in nanoseconds of the monotonic clock.
    turned,
}

impl Counters {
    /// As `/api/v1/streams` tells it.
    pub(crate) fn frames(&self) -> FrameStatus {
        FrameStatus {
            received: self.received.get(),
            used: self.used.get(),
            superseded: self.superseded.get(),
            late: self.late.get(),
            per_second: self.used_last_second.get() as f64,
        }
    }

    /// As `/api/v1/streams` tells it.
    pub(crate) fn ticks(&self) -> TickStatus {
        let (fresh, repeated, slate) = (self.fresh.get(), self.repeated.get(), self.slate.get());
        TickStatus {
            total: fresh + repeated + slate,
            fresh,
            repeated,
            slate,
            overdue: self.overdue.get(),
            missed: self.missed.get(),
            last: self.last_tick.get(),
        }
    }
}
