//! Why a producer can't feed its stream, in words that say what to do.

use std::io;
use std::path::{Path, PathBuf};

use ringgear_ring::RingError;
use ringgear_ring::format::FormatError;
use ringgear_ring::sound::SoundFormatError;

use crate::messages::{EndCode, Ended, RefusalCode, Refused};

/// Why a session can't begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum ProducerError {
    /// No socket is there.
    #[error("no control socket at {}: is the daemon running? (`ringgear serve`, or `systemctl status ringgear`; another path: --socket or $RINGGEAR_SOCKET)", .0.display())]
    NoSocket(PathBuf),
    /// A socket is there, and nobody listens.
    #[error("nobody listens at {}: the daemon has stopped; start it with `ringgear serve`", .0.display())]
    NobodyListens(PathBuf),
    /// The socket's permissions keep this process out.
    #[error("no permission to use {}: {mend}", path.display())]
    NoPermission {
        /// The socket.
        path: PathBuf,
        /// Who may use it, and how to become one of them.
        mend: String,
    },
    /// Connecting failed for another reason.
    #[error("connecting to {} failed: {error}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The kernel's reason.
        error: io::Error,
    },
    /// The daemon refused the request.
    #[error("the daemon refuses: {}", .0.message)]
    Refused(Refused),
    /// The daemon ended the session.
    #[error("the daemon ended the session: {}", .0.message)]
    Ended(Ended),
    /// The connection broke without a word.
    #[error("the daemon went away: its connection closed")]
    Gone,
    /// The daemon didn't answer in time.
    #[error("the daemon did not answer within {seconds} s: is it stopped or overloaded?")]
    NoAnswer {
        /// How long was waited.
        seconds: u64,
    },
    /// Reading from or writing to the connection failed.
    #[error("the connection to the daemon failed: {0}")]
    Io(io::Error),
    /// The daemon said something that the protocol does not have here.
    #[error(
        "the daemon's answer makes no sense here ({what}): are daemon and client of the same version?"
    )]
    Protocol {
        /// What is wrong with it.
        what: String,
    },
    /// The ring is not what was agreed on, or its reading side is broken.
    #[error("the ring can't be used: {0}")]
    Ring(#[from] RingError),
    /// The frame format is impossible.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The sound format is impossible.
    #[error(transparent)]
    SoundFormat(#[from] SoundFormatError),
    /// No thread for reconnecting could be started.
    #[error("no thread for reconnecting could be started: {0}")]
    Thread(io::Error),
}

impl ProducerError {
    /// Whether a daemon that comes back, or a holder that lets go, can heal this: whether to try again.
    pub fn can_heal(&self) -> bool {
        match self {
            Self::NoSocket(_)
            | Self::NobodyListens(_)
            | Self::NoPermission { .. } // a daemon that starts makes its socket before it sets the mode
            | Self::Connect { .. }
            | Self::Gone
            | Self::NoAnswer { .. }
            | Self::Io(_) => true,
            Self::Refused(refused) => matches!(
                refused.code,
                RefusalCode::StreamBusy | RefusalCode::OutOfResources | RefusalCode::Stopping
            ),
            Self::Ended(ended) => ended.code != EndCode::TakenOver,
            Self::Protocol { .. }
            | Self::Ring(_)
            | Self::Format(_)
            | Self::SoundFormat(_)
            | Self::Thread(_) => false,
        }
    }

    pub(crate) fn connecting(path: &Path, error: io::Error) -> Self {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::NotFound => Self::NoSocket(path),
            io::ErrorKind::ConnectionRefused => Self::NobodyListens(path),
            io::ErrorKind::PermissionDenied => {
                let mend = permission_mend(&path);
                Self::NoPermission { path, mend }
            }
            _ => Self::Connect { path, error },
        }
    }
}

/// Who may use the socket at `path`, as far as can be seen from here.
fn permission_mend(path: &Path) -> String {
    let Ok(stat) = rustix::fs::stat(path) else {
        return "its folder can't be entered by this user".to_owned();
    };
    let (uid, gid, mode) = (stat.st_uid, stat.st_gid, stat.st_mode & 0o777);
    if mode & 0o020 == 0 {
        return format!(
            "its mode is {mode:04o}, so only its owner (uid {uid}) may: set `socket_mode` in the daemon's config"
        );
    }
    let group = group_name(gid).unwrap_or_else(|| gid.to_string());
    format!(
        "its mode is {mode:04o}: add this user to the group '{group}' (`usermod -aG {group} USER`, then log in again)"
    )
}

/// The group's name in /etc/group.
fn group_name(gid: u32) -> Option<String> {
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    let gid = gid.to_string();
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == gid).then(|| name.to_owned())
    })
}
