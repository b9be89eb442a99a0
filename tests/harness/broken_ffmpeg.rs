//! An FFmpeg that can be broken and mended while the daemon uses it.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::place;

/// An FFmpeg that ends at once whenever it is to encode live, or as it is said, and a condition of the shell holds, in a folder of its own.
pub(crate) struct BrokenFfmpeg {
    folder: tempfile::TempDir,
}

impl BrokenFfmpeg {
    /// Broken while `condition` holds. `[ -e BROKEN ]` holds between [`Self::break_it`] and [`Self::mend_it`], `[ -s BROKEN ]` from
    /// [`Self::let_it_hang`] on; then it does not end, and does nothing.
    pub(crate) fn new(condition: &str) -> Self {
        Self::at("-f nut", condition)
    }

    /// The same wherever its arguments have `words`.
    pub(crate) fn at(words: &str, condition: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        place::give_to_daemon(folder.path());
        let path = folder.path().join("ffmpeg");
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in\n*\"{words}\"*) if {condition}; then [ -s BROKEN ] && exec sleep 1000; echo '[error] the device is lost' >&2; exit 1; fi ;;\nesac\n\
             exec ffmpeg \"$@\"\n"
        );
        let script = script.replace("BROKEN", folder.path().join("broken").to_str().unwrap());
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        Self { folder }
    }

    /// `[ffmpeg]` with it, and `more` of its keys.
    pub(crate) fn config(&self, more: &str) -> String {
        format!("[ffmpeg]\npath = {:?}\n{more}\n", self.program())
    }

    /// Its path.
    pub(crate) fn program(&self) -> PathBuf {
        self.folder.path().join("ffmpeg")
    }

    pub(crate) fn break_it(&self) {
        std::fs::write(self.broken(), "").unwrap();
    }

    pub(crate) fn let_it_hang(&self) {
        std::fs::write(self.broken(), "hang").unwrap();
    }

    pub(crate) fn mend_it(&self) {
        std::fs::remove_file(self.broken()).unwrap();
    }

    fn broken(&self) -> PathBuf {
        self.folder.path().join("broken")
    }
}
