//! The demo's temporary folder. A demo that was killed can't remove its own, so the next one does.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

const PREFIX: &str = "ringgear-demo-";
/// Locked as long as the folder's demo lives.
const OWNER: &str = "owner.lock";

/// The folder, which goes when this does.
pub(super) struct DemoFolder {
    dir: TempDir,
    _owner: File,
}

impl DemoFolder {
    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Makes a folder, and removes those of demos that were killed.
pub(super) fn make() -> io::Result<DemoFolder> {
    make_in(&std::env::temp_dir())
}

fn make_in(parent: &Path) -> io::Result<DemoFolder> {
    for left in left_behind(parent)? {
        match std::fs::remove_dir_all(&left) {
            Ok(()) => tracing::info!(folder = %left.display(), "removed what a killed demo left"),
            Err(error) => {
                tracing::warn!(folder = %left.display(), %error, "what a killed demo left can't be removed");
            }
        }
    }
    let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
    // Locked before it has its name, so that no other demo ever finds it without an owner.
    let owner = tempfile::NamedTempFile::new_in(dir.path())?;
    flock(&owner, FlockOperation::NonBlockingLockExclusive)?;
    let owner = owner.persist(dir.path().join(OWNER))?;
    Ok(DemoFolder { dir, _owner: owner })
}

/// This user's folders of demos that live no more. What has not our mark in it stays, whatever its name is.
fn left_behind(parent: &Path) -> io::Result<Vec<PathBuf>> {
    let own = rustix::process::geteuid().as_raw();
    let mut left = Vec::new();
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        // Not followed: a link is no folder of ours.
        let is_own = |found: std::fs::Metadata| found.is_dir() && found.uid() == own;
        if !ours || !entry.metadata().is_ok_and(is_own) {
            continue;
        }
        let Ok(owner) = File::open(entry.path().join(OWNER)) else {
            continue;
        };
        if flock(&owner, FlockOperation::NonBlockingLockExclusive).is_ok() {
            left.push(entry.path());
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_demo_left_goes_and_a_living_ones_and_others_stay() {
        let parent = tempfile::tempdir().unwrap();
        let living = make_in(parent.path()).unwrap();
        let dead = make_in(parent.path()).unwrap();
        let left = dead.path().to_owned();
        std::fs::write(left.join("part"), "x").unwrap();
        let DemoFolder { dir, _owner } = dead;
        // As after a kill: the lock is gone, the folder is not.
        std::mem::forget(dir);
        drop(_owner);
        let foreign = parent.path().join("ringgear-demo-notes");
        std::fs::create_dir(&foreign).unwrap();
        let link = parent.path().join("ringgear-demo-link");
        std::os::unix::fs::symlink(living.path(), &link).unwrap();
        let next = make_in(parent.path()).unwrap();
        assert!(!left.exists());
        assert!(living.path().exists() && foreign.exists() && next.path().exists());
        assert!(link.is_symlink());
    }
}
