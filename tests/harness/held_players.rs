//! Players that are held open in a browser while something happens to what they play.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::browser_session::BrowserSession;

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
    /// What the page itself says, if it is one of the daemon's.
    pub(crate) page: Option<PageSays>,
}

/// What a player page shows.
#[derive(Clone, Debug, serde::Deserialize)]
pub(crate) struct PageSays {
    /// The query of its address, which holds what was chosen.
    pub(crate) query: String,
    /// What lies over the picture; empty when nothing does.
    pub(crate) veil: String,
    /// Its latency in seconds, if it plays.
    pub(crate) latency: Option<f64>,
    /// What is buffered before it, in seconds.
    pub(crate) buffer: Option<f64>,
    /// The rendition on screen and its size.
    pub(crate) rendition: String,
    /// How many pictures were dropped, of how many.
    pub(crate) dropped: String,
    /// The player that plays.
    pub(crate) engine: String,
    /// The names of renditions to choose from; an empty one lets the player choose.
    pub(crate) qualities: Vec<String>,
    /// What each chart shows now, in words.
    pub(crate) charts: Vec<String>,
}

impl Seen {
    /// Whether it plays: media passes about as fast as the clock, and at least so many pictures are shown a second.
    pub(crate) fn plays(&self, watched: Duration, pictures: f64) -> bool {
        let watched = watched.as_secs_f64();
        self.advanced > 0.75 * watched && f64::from(self.pictures) > pictures * watched
    }
}

/// hls.js, dash.js and Shaka on a stream.
fn runs_of(stream_url: &str) -> Vec<Value> {
    let run = |player: &str, manifest: &str| json!({"player": player, "url": format!("{stream_url}/{manifest}")});
    vec![
        run("hls.js", "index.m3u8"),
        run("dash.js", "manifest.mpd"),
        run("shaka", "manifest.mpd"),
    ]
}

/// Players in headless Chromium, each on a page that is never reloaded.
pub(crate) struct HeldPlayers {
    session: BrowserSession,
    _plan: tempfile::TempDir,
}

impl HeldPlayers {
    /// Opens hls.js, dash.js and Shaka on a stream, and waits until they play.
    #[track_caller]
    pub(crate) fn open(stream_url: &str) -> Self {
        Self::open_runs(&runs_of(stream_url))
    }

    /// The same, and the player page at `page_url` beside them.
    #[track_caller]
    pub(crate) fn open_with_page(stream_url: &str, page_url: &str) -> Self {
        let mut runs = runs_of(stream_url);
        runs.push(json!({"player": "page", "page": page_url}));
        Self::open_runs(&runs)
    }

    /// Opens the player page at each of these addresses, and waits until they play.
    #[track_caller]
    pub(crate) fn open_pages(urls: &[String]) -> Self {
        let runs: Vec<Value> = urls
            .iter()
            .map(|url| json!({"player": url, "page": url}))
            .collect();
        Self::open_runs(&runs)
    }

    #[track_caller]
    fn open_runs(runs: &[Value]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let plan = dir.path().join("plan.json");
        std::fs::write(&plan, json!({"runs": runs}).to_string()).unwrap();
        let session = BrowserSession::start("hold.mjs", Some(&plan), Duration::from_secs(120));
        Self {
            session,
            _plan: dir,
        }
    }

    /// What each player does in the next while.
    #[track_caller]
    pub(crate) fn look(&mut self, watched: Duration) -> Vec<Seen> {
        let line = self.ask(&format!("look {}", watched.as_secs_f64()), watched);
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Looks again and again, until all players are as they should be.
    #[track_caller]
    pub(crate) fn wait_until(
        &mut self,
        what: &str,
        within: Duration,
        mut all_well: impl FnMut(&[Seen]) -> bool,
    ) -> Vec<Seen> {
        let deadline = Instant::now() + within;
        loop {
            let seen = self.look(Duration::from_secs(1));
            if all_well(&seen) {
                return seen;
            }
            assert!(
                Instant::now() < deadline,
                "not within {within:?}: {what}: {seen:#?}"
            );
        }
    }

    /// Does something to all pages: `press KEY`, `choose NAME VALUE`, `offline`, `online`, `hide`, `show`.
    #[track_caller]
    pub(crate) fn act(&mut self, command: &str) {
        self.ask(command, Duration::ZERO);
    }

    #[track_caller]
    fn ask(&mut self, command: &str, takes: Duration) -> String {
        self.session.ask(command, takes + Duration::from_secs(20))
    }
}
