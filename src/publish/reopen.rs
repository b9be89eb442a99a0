//! Makes a recording that has ended one that can be gone on with.

use std::path::Path;

use super::folder::{Folder, PublishError};
use super::restore::{Restored, restore, take_over};
use super::state::{Found, STATE_COPY, STATE_FILE, State};
use crate::tick::UnixTime;

/// Makes the ended recording of `stream` in `dir` one that was cut off at a segment's edge: whoever publishes there next goes on from that edge,
/// and removes what lies behind it, and the playlists, which say that it has ended. Behind it are segments that are shorter than others, those
/// that not all renditions have, and with sound one more. What has not ended stays as it is.
///
/// # Errors
/// When the folder can't be read or written.
pub fn reopen(dir: &Path, stream: &str) -> Result<(), PublishError> {
    let Some(folder) = Folder::open(dir)? else {
        return Ok(());
    };
    let Found::State(mut state, _) = State::read(&folder, stream)? else {
        return Ok(());
    };
    if !state.ended {
        return Ok(());
    }
    state.reopen();
    let text = serde_json::to_vec(&state).map_err(|error| PublishError::Io {
        action: "write",
        path: dir.join(STATE_FILE),
        source: error.into(),
    })?;
    folder.write(STATE_FILE, [text.as_slice()], true)?;
    folder.write(STATE_COPY, [text.as_slice()], false)?;
    folder.sync()
}

/// What [`restore`] is going to read once `dir` is reopened, which it is not by this.
///
/// # Errors
/// When the folder can't be read.
pub fn reopened(
    dir: &Path,
    stream: &str,
    renditions: &[String],
    now: UnixTime,
) -> Result<Restored, PublishError> {
    if let Some(folder) = Folder::open(dir)?
        && let Found::State(mut state, _) = State::read(&folder, stream)?
        && state.ended
    {
        state.reopen();
        return take_over(&folder, &state, renditions, now);
    }
    restore(dir, stream, renditions, now)
}
