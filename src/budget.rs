//! Memory that all streams share: one budget in bytes for their windows, one for pictures. Each account may have its equal share of it whatever the
//! others do, and more while there is some left. Together they pass the limit only while one comes into its share, until the others have given
//! back what they have beyond theirs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The budget.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    books: Mutex<Books>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Books {
    accounts: u64,
    used: u64,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            books: Mutex::default(),
        })
    }

    /// The bytes that all accounts hold.
    pub fn used(&self) -> u64 {
        self.books().used
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one window, or whoever else, has of a budget; all of it is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Account {
    budget: Arc<Budget>,
    own: u64,
}

impl Account {
    /// One more account, which holds `own` bytes already, whether they fit or not.
    pub(crate) fn open(budget: &Arc<Budget>, own: u64) -> Self {
        let mut books = budget.books();
        books.accounts += 1;
        books.used += own;
        drop(books);
        Self {
            budget: Arc::clone(budget),
            own,
        }
    }

    /// Takes `bytes` more, unless all would pass the limit and this one its share.
    pub(crate) fn take(&mut self, bytes: u64) -> bool {
        let mut books = self.budget.books();
        if self.is_beyond(&books, bytes) {
            return false;
        }
        books.used += bytes;
        self.own += bytes;
        true
    }

    /// Takes `bytes` more, whether they fit or not.
    pub(crate) fn note(&mut self, bytes: u64) {
        self.budget.books().used += bytes;
        self.own += bytes;
    }

    pub(crate) fn give(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.own, "no more than was taken");
        let bytes = bytes.min(self.own);
        self.budget.books().used -= bytes;
        self.own -= bytes;
    }

    /// Whether all have passed the limit, and this one its share.
    pub(crate) fn is_over(&self) -> bool {
        self.is_beyond(&self.budget.books(), 0)
    }

    pub(crate) fn limit(&self) -> u64 {
        self.budget.limit
    }

    /// Whether [`Self::take`] would take so much more.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        !self.is_beyond(&self.budget.books(), bytes)
    }

    /// Has so many bytes from now on, whether they fit or not.
    pub(crate) fn hold(&mut self, bytes: u64) {
        let mut books = self.budget.books();
        books.used = books.used - self.own + bytes;
        self.own = bytes;
    }

    /// The bytes that it has.
    pub(crate) fn own(&self) -> u64 {
        self.own
    }

    fn is_beyond(&self, books: &Books, more: u64) -> bool {
        let share = self.budget.limit / books.accounts.max(1);
        books.used.saturating_add(more) > self.budget.limit && self.own.saturating_add(more) > share
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let mut books = self.budget.books();
        books.used -= self.own;
        books.accounts -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_takes_what_is_left_and_always_its_share() {
        let budget = Budget::new(100);
        let mut large = Account::open(&budget, 0);
        let mut small = Account::open(&budget, 0);
        assert!(large.take(90), "the other has not used its share");
        assert!(!large.take(20) && !large.is_over());
        assert!(small.take(50), "its share is its own");
        assert!(large.is_over() && !small.is_over());
        large.give(40);
        assert!(!large.is_over() && budget.used() == 100);
        assert!(!small.take(1) && !large.take(1) && !large.has_room(1));
        large.hold(49);
        assert!(large.has_room(1) && !large.has_room(2));
        large.hold(50);
        drop(small);
        assert!(large.take(50) && !large.take(1));
        drop(large);
        assert_eq!(budget.used(), 0);
    }
}
