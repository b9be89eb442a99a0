//! Why nothing is recorded: what was being done, where, and what mends it. What the folders below say is told by the keys that a recording has.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::publish::PublishError;

/// Why a segment can't be kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    /// The system refused something.
    #[error("cannot {action} {}: {source}; {}", path.display(), mend(source))]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Keeping it would leave less free space than the config reserves, and there is nothing that could go for it.
    #[error(
        "{free} bytes are free at {}, and {needed} more would leave less than {floor}, twice the keep_free of [publish]; \
         free some space, lower keep_free, or set dir of record to a folder on another disk", path.display()
    )]
    Floor {
        /// The folder of the recordings.
        path: PathBuf,
        /// What its file system has for this user, in bytes.
        free: u64,
        /// What was to be written, in bytes.
        needed: u64,
        /// What has to stay free, in bytes.
        floor: u64,
    },
    /// It alone is more than the recordings may have.
    #[error(
        "one segment has {needed} bytes in all renditions, more than the max_bytes = {limit} of record allows in {}; raise max_bytes, or lower \
         the bitrate", path.display()
    )]
    Budget {
        /// The folder of the recordings.
        path: PathBuf,
        /// What the segment needs, in bytes.
        needed: u64,
        /// The config's word.
        limit: u64,
    },
    /// The stream's renditions have changed too often within an hour.
    #[error(
        "the hour {hour} has {most} recordings in {}, one for each change of the stream's renditions; the next hour is recorded again, \
         and this one once some of them are moved away", path.display()
    )]
    Crowded {
        /// The folder of the recordings.
        path: PathBuf,
        /// The hour, as its first recording is named.
        hour: String,
        /// How many one hour may have.
        most: u32,
    },
}

impl From<PublishError> for RecordError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Io {
                action,
                path,
                source,
            } => Self::Io {
                action,
                path,
                source,
            },
            PublishError::Floor {
                path,
                free,
                needed,
                floor,
            } => Self::Floor {
                path,
                free,
                needed,
                floor,
            },
            PublishError::Budget {
                path,
                needed,
                limit,
            } => Self::Budget {
                path,
                needed,
                limit,
            },
        }
    }
}

fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space, or give record a max_bytes that fits"
        }
        io::ErrorKind::PermissionDenied => {
            "let the daemon's user write there, or set dir of record to another folder"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "mount it writable, under systemd by ReadWritePaths= of the dir of record in the unit (systemctl edit ringgear), or set another"
        }
        _ if matches!(
            Errno::from_io_error(error),
            Some(Errno::NOTDIR | Errno::LOOP)
        ) =>
        {
            "it has to be a folder and no symbolic link: move away what stands there"
        }
        io::ErrorKind::IsADirectory => {
            "it has to be a file: move away the folder that stands there"
        }
        _ => "it is tried again with the next segment",
    }
}
