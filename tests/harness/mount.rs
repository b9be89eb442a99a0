//! File systems of a test's own: real ones, mounted for it. That takes root.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::place::give_to_daemon;
use super::wait_for;

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

/// A file system of its own, unmounted when this goes.
pub(crate) struct Mount {
    pub(crate) at: PathBuf,
    frozen: bool,
    _dir: TempDir,
}

impl Mount {
    /// In memory, with room for `size`.
    pub(crate) fn tmpfs(size: &str) -> Self {
        let mount = Self::prepare();
        let options = format!("size={size},mode=0755");
        run(
            "mount",
            &["-t", "tmpfs", "-o", &options, "none", mount.shown()],
        );
        mount
    }

    /// In a file of so many bytes.
    pub(crate) fn ext4(bytes: u64) -> Self {
        let mount = Self::prepare();
        let image = mount._dir.path().join("image");
        std::fs::File::create(&image)
            .unwrap()
            .set_len(bytes)
            .unwrap();
        run("mkfs.ext4", &["-q", image.to_str().unwrap()]);
        run(
            "mount",
            &["-o", "loop", image.to_str().unwrap(), mount.shown()],
        );
        mount
    }

    fn prepare() -> Self {
        let dir = TempDir::with_prefix("ringgear-disk-").unwrap();
        give_to_daemon(dir.path());
        let at = dir.path().join("mount");
        std::fs::create_dir(&at).unwrap();
        Self {
            at,
            frozen: false,
            _dir: dir,
        }
    }

    fn shown(&self) -> &str {
        self.at.to_str().unwrap()
    }

    /// Changes its options.
    pub(crate) fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        // While a file is being written, it is refused.
        wait_for(&options, Duration::from_secs(5), || {
            let done = Command::new("mount")
                .args(["-o", &options, self.shown()])
                .output();
            done.unwrap().status.success().then_some(())
        });
    }

    /// From now on every write waits in the kernel, uninterruptibly, until [`Self::thaw`].
    pub(crate) fn freeze(&mut self) {
        run("fsfreeze", &["-f", self.shown()]);
        self.frozen = true;
    }

    /// It answers again.
    pub(crate) fn thaw(&mut self) {
        if std::mem::take(&mut self.frozen) {
            run("fsfreeze", &["-u", self.shown()]);
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.frozen {
            let _ = Command::new("fsfreeze").args(["-u", self.shown()]).status();
        }
        let _ = Command::new("umount").args(["-l", self.shown()]).status();
    }
}
