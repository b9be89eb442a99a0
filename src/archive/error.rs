//! Why nothing is recorded: what was being done, where, and what mends it.

use std::io;
use std::path::PathBuf;

use crate::publish::{PublishError, in_the_way};

/// Why a segment can't be kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    /// The folder refuses something, or has no room: told by the keys that a recording has.
    #[error("{}", told(.0))]
    Folder(#[from] PublishError),
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

fn told(error: &PublishError) -> String {
    match error {
        PublishError::Io {
            action,
            path,
            source,
        } => format!(
            "cannot {action} {}: {source}; {}",
            path.display(),
            mend(source)
        ),
        PublishError::Floor {
            path,
            free,
            needed,
            floor,
        } => format!(
            "{free} bytes are free at {}, and {needed} more would leave less than {floor}, twice the keep_free of [publish]; \
             free some space, lower keep_free, or set dir of record to a folder on another disk",
            path.display()
        ),
        PublishError::Budget {
            path,
            needed,
            limit,
        } => format!(
            "one segment has {needed} bytes in all renditions, more than the max_bytes = {limit} of record allows in {}; raise max_bytes, or lower \
             the bitrate",
            path.display()
        ),
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
        _ => in_the_way(error).unwrap_or("it is tried again with the next segment"),
    }
}
