//! Removes what is left of a recording that has no media.

use std::path::Path;

use super::folder::{Folder, PublishError};
use super::state::{STATE_COPY, STATE_FILE};

/// Removes `dir` if it holds nothing but an empty window's state and folders; says whether it is gone.
///
/// # Errors
/// When it can't be looked at, or what is in it can't be removed.
pub fn discard_if_empty(dir: &Path) -> Result<bool, PublishError> {
    // Should somebody have put something there meanwhile, it stays.
    Ok(clear_if_empty(dir)? && (std::fs::remove_dir(dir).is_ok() || !dir.exists()))
}

/// The same, but `dir` itself stays; says whether it is empty.
///
/// # Errors
/// Likewise.
pub fn clear_if_empty(dir: &Path) -> Result<bool, PublishError> {
    let Some(folder) = Folder::open(dir)? else {
        return Ok(true);
    };
    let mut folders = Vec::new();
    for name in folder.names()? {
        match name.as_str() {
            "." | ".." | STATE_FILE | STATE_COPY => {}
            _ if folder.len(&name)?.is_some() => return Ok(false),
            _ => folders.push(name),
        }
    }
    for name in &folders {
        folder.remove_child_if_empty(name);
    }
    if folder.names()?.iter().any(|name| folders.contains(name)) {
        return Ok(false);
    }
    folder.remove(STATE_FILE)?;
    folder.remove(STATE_COPY)?;
    Ok(true)
}
