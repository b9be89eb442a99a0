//! The memory of all streams' windows: one budget in bytes. Each window may have its share of it whatever the others do, and
//! more while there is some left. Together they pass the limit only while a window comes into its share, until the others have
//! given back what they have beyond theirs, which takes them a tenth of a second.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The budget.
#[derive(Debug)]
pub struct WindowMemory {
    limit: u64,
    books: Mutex<Books>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Books {
    windows: u64,
    used: u64,
}

impl WindowMemory {
    /// A budget of so many bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            books: Mutex::default(),
        })
    }

    /// The bytes that all windows hold.
    pub fn used(&self) -> u64 {
        self.books().used
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one window has of a budget; all of it is given back when it is dropped.
#[derive(Debug)]
pub(super) struct Account {
    memory: Arc<WindowMemory>,
    own: u64,
}

impl Account {
    /// The account of one more window, which holds `own` bytes already, whether they fit or not.
    pub(super) fn open(memory: &Arc<WindowMemory>, own: u64) -> Self {
        let mut books = memory.books();
        books.windows += 1;
        books.used += own;
        drop(books);
        Self {
            memory: Arc::clone(memory),
            own,
        }
    }

    /// Takes `bytes` more, unless all windows would pass the limit and this one its share.
    pub(super) fn take(&mut self, bytes: u64) -> bool {
        let mut books = self.memory.books();
        if self.is_beyond(&books, bytes) {
            return false;
        }
        books.used += bytes;
        self.own += bytes;
        true
    }

    /// Takes `bytes` more, whether they fit or not.
    pub(super) fn note(&mut self, bytes: u64) {
        self.memory.books().used += bytes;
        self.own += bytes;
    }

    pub(super) fn give(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.own, "no more than was taken");
        let bytes = bytes.min(self.own);
        self.memory.books().used -= bytes;
        self.own -= bytes;
    }

    /// Whether all windows have passed the limit, and this one its share.
    pub(super) fn is_over(&self) -> bool {
        self.is_beyond(&self.memory.books(), 0)
    }

    pub(super) fn limit(&self) -> u64 {
        self.memory.limit
    }

    /// The bytes that this window has.
    pub(super) fn own(&self) -> u64 {
        self.own
    }

    fn is_beyond(&self, books: &Books, more: u64) -> bool {
        let share = self.memory.limit / books.windows.max(1);
        books.used.saturating_add(more) > self.memory.limit && self.own.saturating_add(more) > share
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let mut books = self.memory.books();
        books.used -= self.own;
        books.windows -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_takes_what_is_left_and_always_its_share() {
        let memory = WindowMemory::new(100);
        let mut large = Account::open(&memory, 0);
        let mut small = Account::open(&memory, 0);
        assert!(large.take(90), "the other has not used its share");
        assert!(!large.take(20) && !large.is_over());
        assert!(small.take(50), "its share is its own");
        assert!(large.is_over() && !small.is_over());
        large.give(40);
        assert!(!large.is_over() && memory.used() == 100);
        assert!(!small.take(1) && !large.take(1));
        drop(small);
        assert!(large.take(50) && !large.take(1));
        drop(large);
        assert_eq!(memory.used(), 0);
    }
}
