//! Players that are held open in a browser while something happens to what they play.

use std::io::Write as _;
use std::process::{ChildStdin, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::harness::players::browser_driver;
use crate::harness::process::Process;
use crate::harness::wait_for;

/// What a held player did in the time that it was watched.
#[derive(Clone, Debug, serde::Deserialize)]
pub(crate) struct Seen {
    pub(crate) player: String,
    /// Seconds of media played.
    pub(crate) advanced: f64,
    /// Pictures shown.
    pub(crate) pictures: u32,
    /// The longest stall since it was last looked at, in seconds.
    pub(crate) stalled: f64,
    pub(crate) errors: Vec<String>,
}

impl Seen {
    /// Whether it plays: media passes about as fast as the clock, and at least so many pictures are shown a second.
    pub(crate) fn plays(&self, watched: Duration, pictures: f64) -> bool {
        let watched = watched.as_secs_f64();
        self.advanced > 0.75 * watched && f64::from(self.pictures) > pictures * watched
    }
}

/// hls.js, dash.js and Shaka in headless Chromium, each on a page that is never reloaded.
pub(crate) struct HeldPlayers {
    process: Process,
    commands: ChildStdin,
    looks: usize,
    _plan: tempfile::TempDir,
}

impl HeldPlayers {
    /// Opens the three players on a stream, and waits until they play.
    #[track_caller]
    pub(crate) fn open(stream_url: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let plan = dir.path().join("plan.json");
        let run = |player: &str, manifest: &str| json!({"player": player, "url": format!("{stream_url}/{manifest}")});
        let runs = [
            run("hls.js", "index.m3u8"),
            run("dash.js", "manifest.mpd"),
            run("shaka", "manifest.mpd"),
        ];
        std::fs::write(&plan, json!({"runs": runs}).to_string()).unwrap();
        let mut process = Process::start(
            "held players",
            browser_driver("hold.mjs").arg(&plan).stdin(Stdio::piped()),
        );
        let commands = process.take_stdin().unwrap();
        let line = wait_for("the players play", Duration::from_secs(60), || {
            let said = process.said();
            let line = said.lines().last()?;
            (line == "ready" || line.starts_with("failed")).then(|| line.to_owned())
        });
        assert_eq!(line, "ready");
        Self {
            process,
            commands,
            looks: 0,
            _plan: dir,
        }
    }

    /// What each player does in the next while.
    #[track_caller]
    pub(crate) fn look(&mut self, watched: Duration) -> Vec<Seen> {
        writeln!(self.commands, "look {}", watched.as_secs_f64()).unwrap();
        self.looks += 1;
        let looks = self.looks;
        wait_for(
            "the players answer",
            watched + Duration::from_secs(20),
            || {
                let said = self.process.said();
                let line = said
                    .lines()
                    .filter(|line| line.starts_with('['))
                    .nth(looks - 1)?;
                Some(serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            },
        )
    }
}
