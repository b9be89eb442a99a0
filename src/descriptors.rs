//! The process's descriptors, shared out before they run out: each stream takes what its files, pipes and session need
//! when it starts, or is refused with the figures; what is left is the origin's, for its viewers' connections.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Logs, listeners, the runtimes' own, the memory of media, the one slate that is encoded at a time, and a reserve.
const HOUSE: u64 = 64;
/// Clips, each of which has a file open, and the pipes of what decodes pictures of the past.
pub(crate) const PAST: usize = 32;
/// For so many viewers' connections there is a file of a recording that is sent.
const VIEWERS_OF_A_FILE: u64 = 4;
/// The fewest viewers' connections that are worth a start.
const LEAST_VIEWERS: u64 = 64;
/// A stream's claim, publisher, log, session and the ends of its encoder's stdin and stderr, at a restart twice.
const STREAM: u64 = 20;
/// A rendition's folder, and the ends of its pipes while its encoder or its probe starts.
const RENDITION: u64 = 8;

/// A stream that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it needs {needed} descriptors, but of the process's {limit} all but {left} are taken: raise its limit of open files to {enough} (LimitNOFILE= in the unit, ulimit -n)"
)]
pub(crate) struct TooFew {
    needed: u64,
    left: u64,
    limit: u64,
    enough: u64,
}

/// The books of who has taken how many.
#[derive(Debug)]
pub(crate) struct Descriptors {
    /// Taken by the house, clips and pictures of the past, and the control socket's clients.
    base: u64,
    by_streams: Mutex<u64>,
    limit: fn() -> u64,
}

/// A stream's share, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    books: Arc<Descriptors>,
    count: u64,
}

impl Descriptors {
    /// The books of a daemon that lets so many clients connect to its control socket.
    pub(crate) fn new(connections: u32) -> Arc<Self> {
        Self::with_limit(connections, soft_limit)
    }

    fn with_limit(connections: u32, limit: fn() -> u64) -> Arc<Self> {
        Arc::new(Self {
            base: HOUSE + PAST as u64 + u64::from(connections),
            by_streams: Mutex::new(0),
            limit,
        })
    }

    /// The share of a stream with so many renditions. The limit is asked for each time, for it may be raised from outside.
    ///
    /// # Errors
    /// When it does not fit into the limit beside the others.
    pub(crate) fn take(self: &Arc<Self>, renditions: usize) -> Result<Share, TooFew> {
        let count = STREAM + RENDITION * renditions as u64;
        let limit = (self.limit)();
        let mut by_streams = self.by_streams();
        let taken = self.base + with_files(LEAST_VIEWERS) + *by_streams;
        if taken + count > limit {
            return Err(TooFew {
                needed: count,
                left: limit.saturating_sub(taken),
                limit,
                enough: taken + count,
            });
        }
        *by_streams += count;
        Ok(Share {
            books: Arc::clone(self),
            count,
        })
    }

    /// How many of `most` viewers' connections there is room for, beside what streams have taken, and how many files for them.
    pub(crate) fn viewers(&self, most: u32) -> (u32, usize) {
        let taken = self.base + *self.by_streams();
        let left = (self.limit)().saturating_sub(taken);
        let connections = left / (VIEWERS_OF_A_FILE + 1) * VIEWERS_OF_A_FILE;
        let connections = u32::try_from(connections.max(LEAST_VIEWERS));
        let connections = connections.map_or(most, |connections| connections.min(most));
        let files = u64::from(connections) / VIEWERS_OF_A_FILE;
        (connections, usize::try_from(files).unwrap_or(usize::MAX))
    }

    fn by_streams(&self) -> MutexGuard<'_, u64> {
        self.by_streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        *self.books.by_streams() -= self.count;
    }
}

/// So many connections, and files that are sent by them.
const fn with_files(connections: u64) -> u64 {
    connections + connections / VIEWERS_OF_A_FILE
}

/// Raises the soft limit of open files to the hard one: the low one is for programs that use `select`.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the soft limit of open files can't be raised to the hard one");
    }
}

fn soft_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_do_not_fit_are_refused_with_the_figures_and_what_is_left_is_the_viewers() {
        let books = Descriptors::with_limit(8, || 248);
        let first = books.take(1).unwrap();
        let second = books.take(1).unwrap();
        let refused = books.take(1).unwrap_err();
        assert_eq!(
            (refused.needed, refused.left, refused.limit, refused.enough),
            (28, 8, 248, 268)
        );
        assert!(refused.to_string().contains("LimitNOFILE"), "{refused}");
        assert_eq!(books.viewers(4096), (68, 17));
        drop(first);
        let _third = books.take(1).unwrap();
        drop(second);
        let many = Descriptors::with_limit(256, || u64::MAX);
        assert_eq!(many.viewers(4096), (4096, 1024));
    }
}
