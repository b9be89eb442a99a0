//! What the control socket's clients hold of the daemon, by user, and how fast they ask for more: the one place where
//! `[limits]` are counted. What is held is given back by dropping its [`Hold`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::pace::Pace;
use crate::config::Limits;

/// How many users are remembered before those who hold nothing are forgotten.
const USERS_KEPT: usize = 256;
/// How often one user's sessions and refusals are logged once it has come too often; the others are counted.
const LOGGED_EVERY: Duration = Duration::from_secs(3);
/// A session counts once for each so many bytes of its ring, as zeroing them takes the time that it does.
const RING_UNIT: u64 = 32 << 20;
/// The largest share of a whole that is kept back: a part of it for users who hold little, the rest for those who administer.
const RESERVE: u64 = 8;
/// The least that is kept back, one half for either.
const LEAST_RESERVE: u64 = 2;
/// Who holds no more than this has a right to the first half of the reserve.
const FEW: u32 = 3;

/// Why a client gets no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Too many connections.
    #[error(
        "{open} of {limit} connections to the control socket are open, and the rest is kept for others: close some, or raise [limits] connections"
    )]
    Connections {
        /// How many there are.
        open: u32,
        /// The config's word.
        limit: u32,
    },
    /// Too many new connections of one user.
    #[error(
        "user {uid} connects more than {limit} times a second: come back less often, or raise [limits] connections_per_second"
    )]
    ConnectionsTooFast {
        /// The user.
        uid: u32,
        /// The config's word.
        limit: u32,
    },
    /// Too many connections of one user.
    #[error(
        "user {uid} has {limit} connections to the control socket, which is the limit: close some, or raise [limits] connections_per_user"
    )]
    UserConnections {
        /// The user.
        uid: u32,
        /// The config's word.
        limit: u32,
    },
    /// Too many sessions of one user.
    #[error(
        "user {uid} has {limit} sessions, which is the limit: close some, or raise [limits] sessions_per_user"
    )]
    UserSessions {
        /// The user.
        uid: u32,
        /// The config's word.
        limit: u32,
    },
    /// Too many new sessions of one user.
    #[error(
        "user {uid} begins more than {limit} sessions (of 32 MiB) a second: come back less often, or raise [limits] sessions_per_second"
    )]
    SessionsTooFast {
        /// The user.
        uid: u32,
        /// The config's word.
        limit: u32,
    },
    /// One ring is too large.
    #[error(
        "a ring of {bytes} bytes is beyond the limit of {limit}: ask for fewer slots or a smaller size, or raise [limits] memory_per_session"
    )]
    SessionMemory {
        /// The ring.
        bytes: u64,
        /// The config's word.
        limit: u64,
    },
    /// One user's rings are too large.
    #[error(
        "the rings of user {uid} would have {bytes} bytes, beyond the limit of {limit}: close some sessions, or raise [limits] memory_per_user"
    )]
    UserMemory {
        /// The user.
        uid: u32,
        /// With the new one.
        bytes: u64,
        /// The config's word.
        limit: u64,
    },
    /// All rings together are too large.
    #[error(
        "all rings would have {bytes} bytes, and of the limit of {limit} the rest is kept for others: close some sessions, or raise [limits] memory"
    )]
    Memory {
        /// With the new one.
        bytes: u64,
        /// The config's word.
        limit: u64,
    },
}

/// The books of all that clients hold.
#[derive(Debug)]
pub struct Accounts {
    limits: Limits,
    /// The daemon's own user, who may administer like root.
    own_uid: u32,
    books: Mutex<Books>,
}

#[derive(Debug)]
struct Books {
    connections: u32,
    memory: u64,
    users: HashMap<u32, User>,
}

#[derive(Debug)]
struct User {
    connections: u32,
    sessions: u32,
    memory: u64,
    connected: Pace,
    begun: Pace,
    logged: Pace,
    unlogged: u64,
}

/// Something that counts for a user until it is dropped.
#[derive(Debug)]
pub struct Hold {
    accounts: Arc<Accounts>,
    uid: u32,
    what: Held,
}

#[derive(Clone, Copy, Debug)]
enum Held {
    Connection,
    /// With its ring's bytes.
    Session(u64),
}

impl Accounts {
    /// Books in which nobody holds anything.
    pub fn new(limits: Limits) -> Arc<Self> {
        let books = Books {
            connections: 0,
            memory: 0,
            users: HashMap::new(),
        };
        Arc::new(Self {
            limits,
            own_uid: rustix::process::geteuid().as_raw(),
            books: Mutex::new(books),
        })
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether `uid` is root or the daemon's own user: they are not paced, and the last of everything is theirs, so that a daemon
    /// under attack can be asked and stopped.
    pub fn administers(&self, uid: u32) -> bool {
        uid == 0 || uid == self.own_uid
    }

    /// How much of `whole` may be used up in all so that user `uid`, who holds `few` or not, still gets more.
    fn share(&self, whole: u64, uid: u32, few: bool) -> u64 {
        let reserve = (whole / RESERVE).max(LEAST_RESERVE);
        let kept = match few {
            _ if self.administers(uid) => 0,
            true => reserve / 2,
            false => reserve,
        };
        whole.saturating_sub(kept)
    }

    /// Counts a connection of user `uid`.
    ///
    /// # Errors
    /// The limit that it would be beyond.
    pub fn connection(self: &Arc<Self>, uid: u32) -> Result<Hold, LimitError> {
        self.connection_at(uid, Instant::now())
    }

    fn connection_at(self: &Arc<Self>, uid: u32, now: Instant) -> Result<Hold, LimitError> {
        let limits = &self.limits;
        let mut books = self.books();
        let open = books.connections;
        let user = books.user(uid, limits);
        if user.connections >= limits.connections_per_user {
            let limit = limits.connections_per_user;
            return Err(LimitError::UserConnections { uid, limit });
        }
        let share = self.share(limits.connections.into(), uid, user.connections <= FEW);
        if u64::from(open) >= share {
            let limit = limits.connections;
            return Err(LimitError::Connections { open, limit });
        }
        if !self.administers(uid) && !user.connected.try_take(now) {
            let limit = limits.connections_per_second;
            return Err(LimitError::ConnectionsTooFast { uid, limit });
        }
        user.connections += 1;
        books.connections += 1;
        Ok(self.hold(uid, Held::Connection))
    }

    /// Counts a session of user `uid` with a ring of `bytes` bytes. It counts until its memory is gone.
    ///
    /// # Errors
    /// The limit that it would be beyond.
    pub fn session(self: &Arc<Self>, uid: u32, bytes: u64) -> Result<Hold, LimitError> {
        self.session_at(uid, bytes, Instant::now())
    }

    fn session_at(
        self: &Arc<Self>,
        uid: u32,
        bytes: u64,
        now: Instant,
    ) -> Result<Hold, LimitError> {
        let limits = &self.limits;
        if bytes > limits.memory_per_session {
            let limit = limits.memory_per_session;
            return Err(LimitError::SessionMemory { bytes, limit });
        }
        let mut books = self.books();
        let of_all = books.memory.saturating_add(bytes);
        let user = books.user(uid, limits);
        let of_user = user.memory.saturating_add(bytes);
        if user.sessions >= limits.sessions_per_user {
            let limit = limits.sessions_per_user;
            return Err(LimitError::UserSessions { uid, limit });
        }
        if of_user > limits.memory_per_user {
            let (bytes, limit) = (of_user, limits.memory_per_user);
            return Err(LimitError::UserMemory { uid, bytes, limit });
        }
        if of_all > self.share(limits.memory, uid, user.sessions <= FEW) {
            let (bytes, limit) = (of_all, limits.memory);
            return Err(LimitError::Memory { bytes, limit });
        }
        let units = u32::try_from(bytes.div_ceil(RING_UNIT).max(1)).unwrap_or(u32::MAX);
        if !user.begun.try_take_many(now, units) {
            let limit = limits.sessions_per_second;
            return Err(LimitError::SessionsTooFast { uid, limit });
        }
        user.sessions += 1;
        user.memory = of_user;
        books.memory = of_all;
        Ok(self.hold(uid, Held::Session(bytes)))
    }

    /// Whether something that user `uid` can do as often as it likes may be logged now: a flood of it must not fill the log. Logs how
    /// much was not since the last time.
    pub(crate) fn may_log(&self, uid: u32) -> bool {
        self.may_log_at(uid, Instant::now())
            .is_some_and(|unlogged| {
                if unlogged > 0 {
                    tracing::warn!(
                        uid,
                        unlogged,
                        "this user came and was refused more often than is logged"
                    );
                }
                true
            })
    }

    fn may_log_at(&self, uid: u32, now: Instant) -> Option<u64> {
        let mut books = self.books();
        let user = books.user(uid, &self.limits);
        if user.logged.try_take(now) {
            Some(std::mem::take(&mut user.unlogged))
        } else {
            user.unlogged += 1;
            None
        }
    }

    fn hold(self: &Arc<Self>, uid: u32, what: Held) -> Hold {
        let accounts = Arc::clone(self);
        Hold {
            accounts,
            uid,
            what,
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn user(&mut self, uid: u32, limits: &Limits) -> &mut User {
        if self.users.len() >= USERS_KEPT && !self.users.contains_key(&uid) {
            // Who holds nothing loses no more than the memory of its haste.
            self.users
                .retain(|_, user| user.connections > 0 || user.sessions > 0);
        }
        self.users.entry(uid).or_insert_with(|| User {
            connections: 0,
            sessions: 0,
            memory: 0,
            connected: Pace::new(limits.connections_per_second, limits.connections_per_user),
            begun: Pace::new(limits.sessions_per_second, limits.sessions_per_user),
            // As many as may begin when the daemon has restarted.
            logged: Pace::every(LOGGED_EVERY, limits.sessions_per_user),
            unlogged: 0,
        })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut books = self.accounts.books();
        match self.what {
            Held::Connection => books.connections -= 1,
            Held::Session(bytes) => books.memory -= bytes,
        }
        if let Some(user) = books.users.get_mut(&self.uid) {
            match self.what {
                Held::Connection => user.connections -= 1,
                Held::Session(bytes) => {
                    user.sessions -= 1;
                    user.memory -= bytes;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
