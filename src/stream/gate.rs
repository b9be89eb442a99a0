//! How a recording's frames are held back: only so many pictures may be on their way to the encoder. What it holds itself is its own business.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How many pictures may wait for the encoder: enough that it never waits for one.
const MOST: usize = 8;

/// Counts the pictures on their way.
#[derive(Debug, Default)]
pub(super) struct Gate {
    waiting: Mutex<usize>,
    fewer: Condvar,
    shut: AtomicBool,
    stopped: AtomicBool,
    dead: AtomicBool,
}

impl Gate {
    /// Waits until another picture may come, for at most `time`: whether it may.
    pub(super) fn has_room(&self, time: Duration) -> bool {
        let waited = self
            .fewer
            .wait_timeout_while(self.waiting(), time, |waiting| *waiting >= MOST);
        let (waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *waiting < MOST
    }

    /// No more frames are wanted: the recording is as long as one may be.
    pub(super) fn shut(&self) {
        self.shut.store(true, Ordering::Relaxed);
    }

    /// Whether more frames are wanted.
    pub(super) fn is_open(&self) -> bool {
        !self.shut.load(Ordering::Relaxed)
    }

    /// Only what was committed comes still.
    pub(super) fn note_stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether that is so.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Nobody takes pictures any more, and who waits is to go.
    pub(super) fn die(&self) {
        self.dead.store(true, Ordering::Relaxed);
        self.fewer.notify_all();
    }

    /// Whether who took the pictures is gone.
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// A picture sets out.
    pub(super) fn enter(&self) {
        *self.waiting() += 1;
    }

    /// A picture was given to the encoder for the first time.
    pub(super) fn leave(&self) {
        let mut waiting = self.waiting();
        *waiting = waiting.saturating_sub(1);
        self.fewer.notify_one();
    }

    fn waiting(&self) -> MutexGuard<'_, usize> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_picture_waits_until_one_of_as_many_as_may_come_has_left() {
        let gate = Gate::default();
        for _ in 0..MOST {
            assert!(gate.has_room(Duration::ZERO));
            gate.enter();
        }
        assert!(!gate.has_room(Duration::from_millis(1)));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| gate.has_room(Duration::from_secs(30)));
            gate.leave();
            assert!(waiter.join().unwrap());
        });
    }
}
