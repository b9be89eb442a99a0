//! Players that people use: browsers by `tests/browser/run.mjs`, GStreamer, ffprobe.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::asked_for;
use super::process::run;

/// How long a browser run watches each player.
pub(crate) const WATCHED_SECONDS: u64 = 20;

/// One player on one URL, for [`watch_in_browser`].
pub(crate) fn player(player: &str, url: &str, framerate: u32) -> Value {
    json!({"name": format!("{player} {url}"), "player": player, "url": url, "framerate": framerate})
}

/// One of the daemon's own pages. How soon it shows a picture is the machine's doing, too: `make bench-latency-players` asks for 3 s.
pub(crate) fn page(url: &str, framerate: u32) -> Value {
    let within = asked_for("RINGGEAR_FIRST_PICTURE_SECONDS", 15);
    json!({"name": format!("page {url}"), "page": url, "framerate": framerate, "startWithin": within})
}

/// Where the pages and the drivers of the browser are, with the players installed.
#[track_caller]
fn browser_folder() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    if !folder.join("node_modules/playwright-core").exists() {
        let out = run(
            Command::new("npm")
                .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
                .current_dir(&folder),
            Duration::from_secs(180),
        );
        assert_eq!(out.code, Some(0), "npm ci in tests/browser: {out:?}");
    }
    folder
}

/// Node on a script of the browser's folder. Viewers have machines of their own: here they must not take the processor from the encoder, which is
/// at nice 5, and Chromium would raise its own priority where root lets it.
pub(crate) fn browser_driver(script: &str) -> Command {
    let mut command = match super::place::is_root() {
        true => {
            let mut command = Command::new("setpriv");
            command.args(["--bounding-set=-sys_nice", "nice"]);
            command
        }
        false => Command::new("nice"),
    };
    command
        .args(["-n", "15", "node", script])
        .current_dir(browser_folder());
    command
}

/// Plays `runs` in headless Chromium, `together` at a time, and fails the test if any does not play well.
#[track_caller]
pub(crate) fn watch_in_browser(runs: &[Value], together: usize) {
    let dir = tempfile::tempdir().unwrap();
    let plan = dir.path().join("plan.json");
    let text = json!({"seconds": WATCHED_SECONDS, "together": together, "runs": runs}).to_string();
    std::fs::write(&plan, text).unwrap();
    let rounds = u64::try_from(runs.len().div_ceil(together)).unwrap();
    let out = run(
        browser_driver("run.mjs").arg(&plan),
        Duration::from_secs(30 + rounds * (WATCHED_SECONDS + 40)),
    );
    eprint!("{}", out.stdout);
    assert_eq!(out.code, Some(0), "{}{}", out.stdout, out.stderr);
    let expected = format!("{} passed, 0 failed\n", runs.len());
    assert!(out.stdout.ends_with(&expected), "{}", out.stdout);
}

/// What a player showed that was to hold the live edge.
#[derive(Clone, Debug, serde::Deserialize)]
pub(crate) struct AtTheEdge {
    pub(crate) name: String,
    /// Age of the pictures when they are shown, in seconds; none if none could be read.
    pub(crate) p50: Option<f64>,
    pub(crate) p95: Option<f64>,
    pub(crate) max: Option<f64>,
    /// Pictures whose bars were read, and all that were shown.
    pub(crate) read: u64,
    pub(crate) pictures: u64,
    /// The gap between two pictures that was longest without the machine's own standstills, in seconds.
    pub(crate) longest_gap: f64,
    /// Seconds of media per second.
    pub(crate) speed: f64,
    /// Requests of parts, of segments, and of segments that were not whole yet.
    pub(crate) parts: u64,
    pub(crate) segments: u64,
    pub(crate) open_segments: u64,
    /// For how much of that gap the machine itself stood still, by a timer, in seconds.
    pub(crate) held_up: f64,
    pub(crate) errors: Vec<String>,
}

impl std::fmt::Display for AtTheEdge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = |value: Option<f64>| value.map_or("-".to_owned(), |one| format!("{one:.2}"));
        write!(
            f,
            "{:<10} p50 {} p95 {} max {} s of latency, {} of {} pictures read, at most {:.2} s between two (the machine stood still for {:.2} s), {} parts, {} segments, {} of them open",
            self.name,
            seconds(self.p50),
            seconds(self.p95),
            seconds(self.max),
            self.read,
            self.pictures,
            self.longest_gap,
            self.held_up,
            self.parts,
            self.segments,
            self.open_segments
        )
    }
}

/// A stream whose players are to hold the live edge: where it is, and what its parts and segments last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LiveStream<'a> {
    /// Without a slash at its end.
    pub(crate) url: &'a str,
    /// In the API.
    pub(crate) status: &'a str,
    pub(crate) part: Duration,
    pub(crate) segment: Duration,
}

/// The players, each with the settings of `docs/players.md`.
pub(crate) fn players_at_the_edge(stream: LiveStream<'_>) -> Vec<Value> {
    let url = stream.url;
    [
        ("hls.js", "hls.js", "index.m3u8"),
        ("Shaka HLS", "shaka", "index.m3u8"),
        ("Shaka DASH", "shaka", "manifest-ll.mpd"),
        ("dash.js", "dash.js", "manifest-ll.mpd"),
    ]
    .map(|(name, player, manifest)| {
        json!({"name": name, "player": player, "url": format!("{url}/{manifest}"), "live": stream.part.as_secs_f64()})
    })
    .into()
}

/// The stream's own page, for either format.
pub(crate) fn pages_at_the_edge(stream: LiveStream<'_>) -> Vec<Value> {
    let url = stream.url;
    vec![
        json!({"name": "page HLS", "page": format!("{url}/")}),
        json!({"name": "page DASH", "page": format!("{url}/?format=dash")}),
    ]
}

/// Lets `runs` play side by side at the live edge, once the stream lists four segments; and when they had time to `settle`, measures how old
/// their pictures are, by the bars in them.
#[track_caller]
pub(crate) fn hold_the_edge(
    stream: LiveStream<'_>,
    runs: &[Value],
    settle: Duration,
    measured: Duration,
) -> Vec<AtTheEdge> {
    let dir = tempfile::tempdir().unwrap();
    let plan = dir.path().join("plan.json");
    let text = json!({
        "seconds": measured.as_secs_f64(),
        "settle": settle.as_secs_f64(),
        "segment": stream.segment.as_secs_f64(),
        "status": stream.status,
        "runs": runs,
    });
    std::fs::write(&plan, text.to_string()).unwrap();
    let opening = Duration::from_secs(35) * u32::try_from(runs.len()).unwrap();
    let out = run(
        browser_driver("latency.mjs").arg(&plan),
        opening + settle + measured + Duration::from_secs(60),
    );
    assert_eq!(out.code, Some(0), "{}{}", out.stdout, out.stderr);
    serde_json::from_str(&out.stdout).unwrap_or_else(|error| panic!("{error}: {}", out.stdout))
}

/// Plays `url` with GStreamer's `demuxer` (an element of adaptivedemux2) until `pictures` pictures were decoded, without a warning.
#[track_caller]
pub(crate) fn play_with_gstreamer(url: &str, demuxer: &str, pictures: u32) {
    let out = run(
        Command::new("gst-launch-1.0")
            .args(["-e", "playbin3"])
            .arg(format!("uri={url}"))
            .arg("audio-sink=fakesink")
            .arg(format!(
                "video-sink=fakesink name=seen sync=true num-buffers={pictures}"
            ))
            // The same manifests have an older demuxer in another package.
            .env(
                "GST_PLUGIN_FEATURE_RANK",
                format!("{demuxer}:512,hlsdemux:0,dashdemux:0"),
            )
            // "structure" warns of how GStreamer logs its own sessions, whatever it plays.
            .env("GST_DEBUG", "2,GST_ELEMENT_FACTORY:4,structure:1")
            .env("GST_DEBUG_NO_COLOR", "1"),
        Duration::from_secs(60),
    );
    let said = format!("{}{}", out.stdout, out.stderr);
    assert_eq!(out.code, Some(0), "gst-launch-1.0 {url}: {said}");
    assert!(
        said.contains(demuxer),
        "{demuxer} had no part in it: {said}"
    );
    assert_no_complaints(url, &said);
}

/// Lets GStreamer's dashdemux2 read the MPD at `url` and its updates for some seconds: without a warning, each update taken for the
/// same stream's. It does not play live timelines (`docs/design/players.md`), so no picture is asked for.
#[track_caller]
pub(crate) fn read_mpd_with_gstreamer(url: &str) {
    let out = run(
        Command::new("timeout")
            .args(["--signal=INT", "8", "gst-launch-1.0", "playbin3"])
            .arg(format!("uri={url}"))
            .args(["audio-sink=fakesink", "video-sink=fakesink"])
            .env("GST_PLUGIN_FEATURE_RANK", "dashdemux2:512,dashdemux:0")
            .env("GST_DEBUG", "2,structure:1,dashdemux2:5")
            .env("GST_DEBUG_NO_COLOR", "1"),
        Duration::from_secs(60),
    );
    let said = format!("{}{}", out.stdout, out.stderr);
    let updates = said.matches("Manifest file successfully updated").count();
    assert!(
        updates >= 2,
        "{updates} updates of {url} were taken: {said}"
    );
    assert!(
        said.contains("Found and set up matching representation"),
        "{said}"
    );
    assert_no_complaints(url, &said);
}

#[track_caller]
fn assert_no_complaints(url: &str, said: &str) {
    let words = [" WARN ", "WARNING", "ERROR", "CRITICAL"];
    // GStreamer 1.22 doesn't know the boxes that tell when a part was captured (ISO/IEC 14496-12, 8.16.5), and skips them, as it should.
    let known = "Unknown fourcc while parsing header : prft";
    let complains =
        |line: &&str| words.iter().any(|word| line.contains(word)) && !line.contains(known);
    let complaints: Vec<&str> = said.lines().filter(complains).collect();
    assert!(
        complaints.is_empty(),
        "GStreamer warns of {url}: {complaints:#?}"
    );
}

/// Opens `url` with ffprobe, which has to find its video and to print no warning.
#[track_caller]
pub(crate) fn probe(url: &str) -> String {
    let out = run(
        Command::new("ffprobe").args([
            "-loglevel",
            "warning",
            "-of",
            "compact=p=0",
            "-show_streams",
            url,
        ]),
        Duration::from_secs(60),
    );
    assert_eq!(
        (out.code, out.stderr.as_str()),
        (Some(0), ""),
        "ffprobe {url}: {}",
        out.stdout
    );
    assert!(
        out.stdout.contains("codec_type=video"),
        "ffprobe {url}: {}",
        out.stdout
    );
    out.stdout
}
