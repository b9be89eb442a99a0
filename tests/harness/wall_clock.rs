//! A wall clock of a daemon's own, which a test sets, by Debian's libfaketime.

use std::path::PathBuf;

use super::place::Place;

/// The wall clock of the daemon in one place.
pub(crate) struct WallClock {
    file: PathBuf,
}

impl WallClock {
    /// One that is right.
    pub(crate) fn of(place: &Place) -> Self {
        let clock = Self {
            file: place.path().join("faketime"),
        };
        clock.set(0.0);
        clock
    }

    /// The variables by which the daemon gets it. The monotonic clock stays the machine's.
    pub(crate) fn environment(&self) -> Vec<String> {
        vec![
            format!("LD_PRELOAD={}", library().display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
            "DONT_FAKE_MONOTONIC=1".to_owned(),
        ]
    }

    /// Sets it off the machine's by so many seconds.
    pub(crate) fn set(&self, seconds: f64) {
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(next, &self.file).unwrap();
    }
}

/// The library, wherever this machine's architecture has it.
fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap();
    let candidates =
        folders.map(|folder| folder.unwrap().path().join("faketime/libfaketimeMT.so.1"));
    let mut found = candidates.filter(|path| path.exists());
    found
        .next()
        .expect("libfaketime is installed: scripts/setup test, or apt install libfaketime")
}
