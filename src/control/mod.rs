//! The control socket: producers open and close their sessions here, `ringgear status` and `ringgear stop` ask here.
//! A connection carries at most one session, and its end is the session's end, however it comes. The messages are
//! `ringgear_producer::messages`; `docs/protocol.md` is their reference.

mod accounts;
mod connection;
mod lines;
mod listen;
mod pace;
mod unreadable;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use interprocess::local_socket::traits::tokio::Listener as _;
use ringgear_producer::messages::{Ended, FrameCounts, Open, OpenSound, Opened, Refused};
use tokio::sync::{Semaphore, oneshot, watch};

pub use accounts::{Accounts, Hold, LimitError};
pub use listen::Listener;

use crate::complaint::Complaint;
use crate::config::{Changes, ConfigErrors};

/// How many rings may be in the making at once: that is zeroing memory, on a core that streams need.
const RINGS_AT_ONCE: usize = 1;
/// After so many connections that were turned away, a breath is taken, so that a flood costs a part of a core at most...
const TURNED_AWAY_AT_ONCE: u32 = 64;
/// ...of this length: the kernel's queue of 4096 at most is still worked off in a fraction of a second.
const BREATH: Duration = Duration::from_millis(2);

/// The control socket could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another process listens there.
    #[error("another ringgear already listens on {}: stop it first, or set [daemon] socket to another path", .0.display())]
    InUse(PathBuf),
    /// Something that is no socket has the name.
    #[error("{} is there but is no socket: move it away, or set [daemon] socket to another path", .0.display())]
    NotASocket(PathBuf),
    /// Anything else.
    #[error("the control socket {} can't be made: {source}; its folder has to exist and be writable for this user ([daemon] socket)", path.display())]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
}

impl ControlError {
    /// Whether somebody listens at the socket.
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::InUse(_))
    }
}

/// What came of reading the config again.
pub struct Reloaded {
    /// The file.
    pub config: PathBuf,
    /// What it changes.
    pub changes: Changes,
}

/// Why the config was not read again.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// It is wrong. One error a line; nothing has changed.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The machine lacks what it needs; nothing has changed.
    #[error("nothing has changed: {0}")]
    Lacking(String),
    /// The daemon has none.
    #[error("this daemon has no config file to be read again: it is a demo")]
    NoFile,
    /// There is nothing left to change.
    #[error("ringgear is stopping: the next daemon reads the config at its start")]
    Stopping,
    /// Some of it could not be done.
    #[error("the config is taken, but not all of it could be done: {0}")]
    Partly(String),
}

/// Who is at the other end, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// A session that has begun.
pub struct Granted {
    /// What the producer is told.
    pub opened: Opened,
    /// The ring's memory, to be passed with it; none where the producer opens it by name.
    pub memory: Option<OwnedFd>,
    /// The session's end as the stream decides it.
    pub ended: watch::Receiver<Option<Ended>>,
    /// Whether the log was told of its begin: then it is told of its end.
    pub logged: bool,
    /// Ends the session when it is closed or dropped.
    pub seat: Box<dyn Seat>,
}

/// A producer's hold on a stream. Dropping it is what the producer's death does.
pub trait Seat: Send + Sync {
    /// Ends the session after its last waiting frame has been shown; the account of its frames comes then.
    fn close(self: Box<Self>) -> oneshot::Receiver<FrameCounts>;
}

/// What a producer wants to feed a stream with.
#[derive(Clone, Debug)]
pub enum Offer {
    /// Its pictures.
    Frames(Open),
    /// Its sound.
    Sound(OpenSound),
}

impl Offer {
    /// The stream.
    pub fn stream(&self) -> &str {
        match self {
            Self::Frames(open) => &open.stream,
            Self::Sound(open) => &open.stream,
        }
    }

    /// The protocol that the producer speaks.
    pub(crate) fn protocol(&self) -> u32 {
        match self {
            Self::Frames(open) => open.protocol,
            Self::Sound(open) => open.protocol,
        }
    }
}

/// What the connections ask of the daemon.
pub trait Desk: Send + Sync + 'static {
    /// Whether `peer`, in its supplementary `groups`, may feed the stream by the config. A stream that is not there is no matter of this.
    fn may_feed(&self, offer: &Offer, peer: Peer, groups: &[u32]) -> Result<(), Refused>;
    /// Starts a session for a peer that may.
    fn open(&self, offer: &Offer, peer: Peer) -> Result<Granted, Refused>;
    /// The JSON of `/api/v1/streams`.
    fn status(&self) -> serde_json::Value;
    /// Stops the daemon, as SIGTERM does.
    fn stop(&self);
    /// Reads the config again, and says what that has changed, or would change. Takes as long as streams that end need for it.
    fn reload(&self, dry_run: bool) -> Result<Reloaded, ReloadError>;
    /// Whether `peer` may administer: root, or the daemon's own user.
    fn may_administer(&self, peer: Peer) -> bool;
}

/// Serves the socket until `stopping` says so; the connections then tell their producers and end.
pub async fn serve(
    listener: Listener,
    desk: Arc<dyn Desk>,
    accounts: Arc<Accounts>,
    mut stopping: watch::Receiver<bool>,
) {
    let doors = connection::Doors {
        desk,
        accounts,
        making: Arc::new(Semaphore::new(RINGS_AT_ONCE)),
        stopping: stopping.clone(),
    };
    let mut turned_away = 0;
    let mut complaint = Complaint::default();
    loop {
        // All users wait in the one queue of the kernel: it has to be worked off whoever fills it, or one of them would keep the
        // others waiting. So each connection is taken at once, and closed at once if its user has had its share.
        let accepted = tokio::select! {
            accepted = listener.inner().accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        match accepted {
            Ok(socket) => match connection::Connection::accept(socket, &doors) {
                Some(connection) => {
                    tokio::spawn(connection.run());
                }
                None => {
                    turned_away += 1;
                    if turned_away % TURNED_AWAY_AT_ONCE == 0 {
                        tokio::time::sleep(BREATH).await;
                    }
                }
            },
            Err(error) => {
                // Out of descriptors, most likely: waiting for one to come free is all that can be done.
                if complaint.is_due(Instant::now()) {
                    tracing::warn!(%error, "clients can't connect to the control socket; raise the limit of open files (LimitNOFILE=), should it be that");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
