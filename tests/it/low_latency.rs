//! LL-HLS as a player asks for it, against the running origin: rules 12 to 20, each test named by its rule.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::harness::beside_others;
use crate::harness::daemon::Daemon;
use crate::harness::http::Answer;
use crate::harness::process::Process;

/// Target duration 1 s; parts of five ticks.
pub(crate) const STREAM: &str = r#"
    [streams.cam]
    framerate = 25
    segment = "1s"
    part = "200ms"
    window = "10s"
    [[streams.cam.renditions]]
    name = "high"
    size = "320x180"
    bitrate = "300k"
    preset = "ultrafast"
    [[streams.cam.renditions]]
    name = "low"
    size = "160x90"
    bitrate = "100k"
    preset = "ultrafast"
"#;

/// What a media playlist says of parts.
#[derive(Clone, Debug, Default)]
struct Playlist {
    text: String,
    media_sequence: u64,
    part_target: f64,
    control: BTreeMap<String, String>,
    skipped: u64,
    /// Whole segments, skipped ones included.
    segments: u64,
    /// Seconds, URI, and whether it is independent; by segment and index.
    parts: BTreeMap<(u64, usize), (f64, String, bool)>,
    hints: Vec<String>,
    reports: Vec<BTreeMap<String, String>>,
}

impl Playlist {
    fn read(text: &str) -> Self {
        let mut read = Self {
            text: text.to_owned(),
            ..Self::default()
        };
        let mut index = 0;
        for line in text.lines() {
            let (tag, value) = line.split_once(':').unwrap_or((line, ""));
            let attributes = || -> BTreeMap<String, String> {
                let fields = value.split(',').filter_map(|field| field.split_once('='));
                fields
                    .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
                    .collect()
            };
            match tag {
                "#EXT-X-MEDIA-SEQUENCE" => read.media_sequence = value.parse().unwrap(),
                "#EXT-X-PART-INF" => {
                    read.part_target = attributes()["PART-TARGET"].parse().unwrap()
                }
                "#EXT-X-SERVER-CONTROL" => read.control = attributes(),
                "#EXT-X-SKIP" => {
                    read.skipped = attributes()["SKIPPED-SEGMENTS"].parse().unwrap();
                    read.segments = read.skipped;
                }
                "#EXT-X-PART" => {
                    let said = attributes();
                    let part = (
                        said["DURATION"].parse().unwrap(),
                        said["URI"].clone(),
                        said.get("INDEPENDENT").is_some_and(|is| is == "YES"),
                    );
                    let segment = read.media_sequence + read.segments;
                    read.parts.insert((segment, index), part);
                    index += 1;
                }
                "#EXTINF" => {
                    read.segments += 1;
                    index = 0;
                }
                "#EXT-X-PRELOAD-HINT" => read.hints.push(attributes()["URI"].clone()),
                "#EXT-X-RENDITION-REPORT" => read.reports.push(attributes()),
                _ => {}
            }
        }
        read
    }

    /// The first segment that is not whole.
    fn open(&self) -> u64 {
        self.media_sequence + self.segments
    }

    /// The segment and index of the part after the newest.
    fn next(&self) -> (u64, usize) {
        // All parts of a segment may be there before it is listed: then the hint is of the next one.
        let hinted = self.hints.first().and_then(|hint| hint.split('.').next());
        let hinted = hinted.map_or(self.open(), |segment| segment.parse().unwrap());
        match self.parts.keys().next_back() {
            Some((segment, index)) if *segment == hinted => (*segment, index + 1),
            _ => (hinted, 0),
        }
    }

    fn seconds(&self, name: &str) -> f64 {
        self.control[name].parse().unwrap()
    }
}

fn started() -> (Daemon, Process) {
    let daemon = Daemon::start(STREAM);
    let camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    daemon.wait_until_playable("cam");
    (daemon, camera)
}

fn playlist(daemon: &Daemon, query: &str) -> Playlist {
    let answer = daemon.get(&format!("/cam/high/media.m3u8{query}"));
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    Playlist::read(&answer.text())
}

fn ask(daemon: &Daemon, query: &str) -> Answer {
    daemon.get(&format!("/cam/high/media.m3u8?{query}"))
}

#[test]
fn rules_12_to_14_and_19_to_20_hold_in_every_playlist_that_a_player_blocks_on() {
    let _machine = beside_others();
    let (daemon, _camera) = started();
    let mut before = playlist(&daemon, "");
    let mut segments: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let until = Instant::now() + Duration::from_secs(8);
    let mut rounds = 0;
    while Instant::now() < until {
        let (segment, part) = before.next();
        // Rule 19: asked for before it is there, the part comes whole.
        assert_eq!(before.hints.len(), 1, "{}", before.text);
        let hinted = daemon.get(&format!("/cam/high/{}", before.hints[0]));
        assert_eq!(hinted.status, 200, "{}: {}", before.hints[0], hinted.text());
        segments
            .entry(segment)
            .or_default()
            .extend_from_slice(&hinted.body);
        let now = playlist(&daemon, &format!("?_HLS_msn={segment}&_HLS_part={part}"));
        let (_, uri, independent) = now.parts.get(&(segment, part)).unwrap_or_else(|| {
            panic!(
                "rule 15: part {part} of {segment} was waited for:\n{}",
                now.text
            )
        });
        assert_eq!(*uri, before.hints[0], "rule 19: the hint was the next part");
        assert_eq!(
            *independent,
            part == 0,
            "a segment's first part is independent"
        );
        check_parts(&now);
        check_reports(&daemon, &now);
        before = now;
        rounds += 1;
    }
    assert!(rounds >= 30, "only {rounds} parts in 8 s");
    // The parts are the segment.
    for (number, parts) in segments.iter().skip(1).take(5) {
        let whole = daemon.get(&format!("/cam/high/{number}.m4s"));
        assert_eq!(
            (whole.status, &whole.body),
            (200, parts),
            "segment {number}"
        );
    }
}

/// Rules 12 to 14.
fn check_parts(playlist: &Playlist) {
    let text = &playlist.text;
    let target = 1.0;
    assert!(playlist.text.contains("#EXT-X-TARGETDURATION:1\n"));
    assert_eq!(playlist.control["CAN-BLOCK-RELOAD"], "YES", "rule 13");
    assert!(
        playlist.seconds("CAN-SKIP-UNTIL") >= 6.0 * target,
        "rule 13"
    );
    assert!(playlist.seconds("HOLD-BACK") >= 3.0 * target, "rule 13");
    let least = 3.0 * playlist.part_target - 1e-9;
    assert!(playlist.seconds("PART-HOLD-BACK") >= least, "rule 13");
    let mut listed = 0.0;
    for ((segment, index), (seconds, _, independent)) in &playlist.parts {
        assert!(*seconds <= playlist.part_target, "rule 12: {text}");
        let last = !playlist.parts.contains_key(&(*segment, index + 1));
        let whole = *seconds >= 0.85 * playlist.part_target;
        assert!(
            whole || last || *independent,
            "rule 12: {segment}.{index} {seconds}: {text}"
        );
        listed += seconds;
    }
    assert!(listed <= 3.0 * target + 1e-6, "rule 14: {listed} s: {text}");
    // A young stream lists less than it may.
    assert!(listed >= 1.2 * target, "rule 14: {listed} s: {text}");
}

/// Rule 20.
fn check_reports(daemon: &Daemon, playlist: &Playlist) {
    assert_eq!(playlist.reports.len(), 1, "{}", playlist.text);
    let report = &playlist.reports[0];
    assert_eq!(report["URI"], "../low/media.m3u8");
    let said = |name: &str| report[name].parse::<u64>().unwrap();
    let (segment, part) = (said("LAST-MSN"), said("LAST-PART"));
    let query = format!("_HLS_msn={segment}&_HLS_part={part}");
    let other = daemon.get(&format!("/cam/low/media.m3u8?{query}"));
    let other = Playlist::read(&other.text());
    let part = usize::try_from(part).unwrap();
    assert!(
        other.parts.contains_key(&(segment, part)),
        "rule 20: {query}"
    );
}

#[test]
fn rule_15_a_segment_alone_is_waited_for_until_it_is_whole() {
    let _machine = beside_others();
    let (daemon, _camera) = started();
    for _ in 0..3 {
        let open = playlist(&daemon, "").open();
        let then = playlist(&daemon, &format!("?_HLS_msn={open}"));
        assert!(then.open() > open, "{}", then.text);
        assert!(then.text.contains(&format!("\n{open}.m4s\n")));
    }
    let next = playlist(&daemon, "").open() + 1;
    assert!(playlist(&daemon, &format!("?_HLS_msn={next}")).open() > next);
}

#[test]
fn rule_16_a_part_past_the_end_means_the_next_segments_first() {
    let _machine = beside_others();
    let (daemon, _camera) = started();
    let open = playlist(&daemon, "").open();
    let last = open - 1;
    let then = playlist(&daemon, &format!("?_HLS_msn={last}&_HLS_part=5"));
    assert!(then.next() > (open, 0), "{}", then.text);
    // Gone long ago: the playlist as it is, at once.
    let asked = Instant::now();
    let gone = ask(&daemon, "_HLS_msn=1&_HLS_part=3");
    assert_eq!(gone.status, 200);
    assert!(asked.elapsed() < Duration::from_millis(150));
}

#[test]
fn rule_17_directives_that_nobody_can_mean_are_refused() {
    let _machine = beside_others();
    let (daemon, _camera) = started();
    for query in [
        "_HLS_part=0",
        "_HLS_msn=x",
        "_HLS_msn=-1",
        "_HLS_msn=1&_HLS_part=1.5",
        "_HLS_skip=MAYBE",
    ] {
        let answer = ask(&daemon, query);
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{query}");
    }
    let open = playlist(&daemon, "").open();
    // The window may move on by a segment meanwhile.
    for query in [
        format!("_HLS_msn={}", open + 3),
        format!("_HLS_msn={}&_HLS_part=0", open + 3),
        format!("_HLS_msn={}", u64::MAX),
        format!("_HLS_msn={}&_HLS_part=40", open + 1),
    ] {
        assert_eq!(ask(&daemon, &query).status, 400, "{query}");
    }
}

#[test]
fn rule_17_what_never_comes_is_answered_503_after_three_target_durations() {
    let _machine = beside_others();
    let (daemon, _camera) = started();
    // An encoder that is stopped returns nothing, and its successor is stopped likewise.
    let open = playlist(&daemon, "").open();
    let stopper = EncoderStopper::start(&daemon);
    let asked = Instant::now();
    let answer = ask(&daemon, &format!("_HLS_msn={}", open + 1));
    let took = asked.elapsed();
    drop(stopper);
    assert_eq!(answer.status, 503, "after {took:?}: {}", answer.text());
    assert!(answer.header("retry-after").is_some());
    assert!(
        took >= Duration::from_millis(2900) && took < Duration::from_millis(4500),
        "{took:?}"
    );
}

/// Stops every encoder that the daemon starts, for as long as it lives.
struct EncoderStopper {
    stop: std::sync::mpsc::Sender<()>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl EncoderStopper {
    fn start(daemon: &Daemon) -> Self {
        let port = daemon.place.port;
        let (stop, stopped) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            loop {
                let status = crate::harness::http::get(port, "/api/v1/streams/cam").unwrap();
                let status: serde_json::Value = serde_json::from_slice(&status.body).unwrap();
                if let Some(pid) = status["encoder"]["pid"].as_i64() {
                    let pid = i32::try_from(pid)
                        .ok()
                        .and_then(rustix::process::Pid::from_raw);
                    // It may have been replaced just now.
                    let _ =
                        rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::STOP);
                }
                let pause = Duration::from_millis(5);
                let told = stopped.recv_timeout(pause);
                if told != Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for EncoderStopper {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn rule_18_a_delta_update_is_the_playlist_with_its_old_segments_skipped() {
    let _machine = beside_others();
    let (daemon, _camera) = started();
    // Ten seconds have to be listed before any are older than six.
    while playlist(&daemon, "").segments < 9 {
        let open = playlist(&daemon, "").open();
        playlist(&daemon, &format!("?_HLS_msn={open}"));
    }
    for version in ["YES", "v2"] {
        let (segment, part) = playlist(&daemon, "").next();
        let query = format!("_HLS_msn={segment}&_HLS_part={part}");
        let delta = playlist(&daemon, &format!("?{query}&_HLS_skip={version}"));
        let full = playlist(&daemon, &format!("?{query}"));
        assert!(delta.skipped >= 2, "{}", delta.text);
        assert_eq!(
            (delta.segments, delta.media_sequence),
            (full.segments, full.media_sequence)
        );
        let rest = |text: &str| {
            let first = format!(
                "#EXTINF:1.000000,\n{}.m4s",
                delta.media_sequence + delta.skipped
            );
            let at = text
                .find(&first)
                .unwrap_or_else(|| panic!("{first} in {text}"));
            text[at..].to_owned()
        };
        // A part may have come between the two.
        let shorter = rest(&delta.text);
        let shorter = shorter.split("#EXT-X-PRELOAD-HINT").next().unwrap();
        assert!(rest(&full.text).starts_with(shorter), "{shorter}");
    }
}

#[test]
fn rule_19_only_the_announced_part_is_waited_for() {
    let _machine = beside_others();
    let (daemon, _camera) = started();
    let (segment, _) = playlist(&daemon, "").next();
    for uri in [
        format!("{}.0.m4s", segment + 3),
        format!("{segment}.77.m4s"),
        "1.0.m4s".to_owned(),
    ] {
        let asked = Instant::now();
        assert_eq!(daemon.get(&format!("/cam/high/{uri}")).status, 404, "{uri}");
        assert!(asked.elapsed() < Duration::from_millis(150), "{uri}");
    }
}

#[test]
fn rule_35_the_publish_folder_stays_plain() {
    let _machine = beside_others();
    let (daemon, _camera) = started();
    let folder = daemon.place.live().join("cam");
    let playlist = daemon.folder_playlist("cam", "high");
    for tag in [
        "EXT-X-PART",
        "PRELOAD-HINT",
        "SERVER-CONTROL",
        "RENDITION-REPORT",
    ] {
        assert!(!playlist.contains(tag), "{playlist}");
    }
    assert!(!folder.join("manifest-ll.mpd").exists());
}
