//! LL-HLS as a player asks for it, against the running origin: rules 12 to 20, each test named by its rule.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::harness::beside_others;
use crate::harness::daemon::Daemon;
use crate::harness::http::Answer;
use crate::harness::process::Process;
use crate::harness::wait_for;

/// Target duration 1 s; parts of five ticks; and silence, of which a part is nine frames.
pub(crate) const STREAM: &str = r#"
    [streams.cam]
    framerate = 25
    segment = "1s"
    part = "200ms"
    window = "10s"
    [streams.cam.audio]
    source = "producer"
    [[streams.cam.audio.renditions]]
    name = "sound"
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

const RENDITIONS: [&str; 3] = ["high", "low", "sound"];
/// One of each kind.
const PICTURE_AND_SOUND: [&str; 2] = ["high", "sound"];

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

/// With all of [`RENDITIONS`] listed.
pub(crate) fn started() -> (Daemon, Process) {
    let daemon = Daemon::start(STREAM);
    let camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    daemon.wait_until_playable("cam");
    wait_for("all are listed", Duration::from_secs(20), || {
        let listed = RENDITIONS.iter().all(|rendition| {
            let text = daemon.get(&format!("/cam/{rendition}/media.m3u8")).text();
            // What an encoder missed that was slow to start is a gap.
            text.matches("#EXTINF").count() > text.matches("#EXT-X-GAP").count()
        });
        listed.then_some(())
    });
    (daemon, camera)
}

fn playlist(daemon: &Daemon, rendition: &str, query: &str) -> Playlist {
    let answer = daemon.get(&format!("/cam/{rendition}/media.m3u8{query}"));
    assert_eq!(answer.status, 200, "{rendition} {query}: {}", answer.text());
    Playlist::read(&answer.text())
}

fn ask(daemon: &Daemon, rendition: &str, query: &str) -> Answer {
    daemon.get(&format!("/cam/{rendition}/media.m3u8?{query}"))
}

#[test]
fn rules_12_to_14_and_19_to_20_hold_in_every_playlist_that_a_player_blocks_on() {
    let _machine = beside_others();
    let (daemon, _camera) = started();
    let followed = follow_both(&daemon);
    let [pictures, sound] = followed.map(|followed| followed.control);
    assert_eq!(pictures, sound, "rule 13: the same in all");
}

mod alone {
    use super::{follow_both, started};

    #[test]
    fn rule_5_a_new_part_comes_within_one_part_target() {
        let _machine = crate::harness::alone();
        let (daemon, _camera) = started();
        for followed in follow_both(&daemon) {
            followed.check_pace();
        }
    }
}

/// What one saw who asked for one part after the other.
struct Followed {
    /// The SERVER-CONTROL of the last playlist.
    control: BTreeMap<String, String>,
    part_target: f64,
    /// When there were so many parts.
    came: Vec<(Instant, usize)>,
}

fn follow_both(daemon: &Daemon) -> [Followed; 2] {
    std::thread::scope(|scope| {
        let followers =
            PICTURE_AND_SOUND.map(|rendition| scope.spawn(move || follow(daemon, rendition)));
        followers.map(|follower| follower.join().unwrap())
    })
}

/// Blocks on one part after the other, by its hint and by a reload, as players do.
fn follow(daemon: &Daemon, rendition: &str) -> Followed {
    /// Eight segments' of pictures.
    const PARTS: usize = 40;
    let patience = Duration::from_secs(30);
    let is_sound = rendition == "sound";
    let get = |uri: &str| {
        let answer = daemon.get(&format!("/cam/{rendition}/{uri}"));
        assert_eq!(answer.status, 200, "{uri}: {}", answer.text());
        answer.body
    };
    let mut before = playlist(daemon, rendition, "");
    let first = before.next();
    let mut parts: BTreeMap<(u64, usize), Vec<u8>> = BTreeMap::new();
    let mut came = Vec::new();
    let began = Instant::now();
    while parts.len() < PARTS {
        let count = parts.len();
        assert!(began.elapsed() < patience, "{count} parts in {patience:?}");
        let (segment, part) = before.next();
        // Rule 19: asked for before it is there, the part comes whole.
        assert_eq!(before.hints.len(), 1, "{}", before.text);
        parts.insert((segment, part), get(&before.hints[0]));
        let query = format!("?_HLS_msn={segment}&_HLS_part={part}");
        let now = playlist(daemon, rendition, &query);
        let (_, uri, independent) = now.parts.get(&(segment, part)).unwrap_or_else(|| {
            panic!(
                "rule 15: part {part} of {segment} was waited for:\n{}",
                now.text
            )
        });
        assert_eq!(*uri, before.hints[0], "rule 19: the hint was the next part");
        assert_eq!(
            *independent,
            part == 0 || is_sound,
            "a segment's first part is independent, as all sound is"
        );
        check_parts(&now, is_sound);
        check_reports(daemon, rendition, &now);
        // On a busy machine more than one comes at once.
        for (place, (_, uri, _)) in now.parts.range(first..) {
            parts.entry(*place).or_insert_with(|| get(uri));
        }
        came.push((Instant::now(), parts.len()));
        before = now;
    }
    // The parts are the segment.
    for number in first.0 + 1..before.open() {
        let joined: Vec<u8> = parts
            .range((number, 0)..(number + 1, 0))
            .flat_map(|(_, part)| part.iter().copied())
            .collect();
        assert!(get(&format!("{number}.m4s")) == joined, "segment {number}");
    }
    Followed {
        control: before.control,
        part_target: before.part_target,
        came,
    }
}

impl Followed {
    /// Rule 5, as far as a busy machine lets that be seen: on the whole.
    fn check_pace(&self) {
        let (first, last) = (self.came.first().unwrap(), self.came.last().unwrap());
        let parts = u32::try_from(last.1 - first.1).unwrap();
        let apart = (last.0 - first.0).as_secs_f64() / f64::from(parts);
        let target = self.part_target;
        eprintln!("a part every {apart:.3} s, PART-TARGET is {target}");
        assert!(
            apart <= target * 1.1,
            "rule 5: a part every {apart} s, PART-TARGET is {target}"
        );
    }
}

/// Rules 12 to 14.
fn check_parts(playlist: &Playlist, is_sound: bool) {
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
    // Nine frames of 1024 samples, or five ticks.
    let part = if is_sound { 9.0 * 1024.0 / 48e3 } else { 0.2 };
    assert!(
        (playlist.part_target - part).abs() < 1e-6,
        "rule 12: {text}"
    );
    let mut listed = 0.0;
    for ((segment, index), (seconds, ..)) in &playlist.parts {
        // A stream begins where it may, inside of a segment too.
        let first = *index == 0;
        let last = !playlist.parts.contains_key(&(*segment, index + 1));
        assert!(
            (seconds - part).abs() < 1e-6 || ((first || last) && *seconds < part),
            "rule 12: {segment}.{index} {seconds}: {text}"
        );
        listed += seconds;
    }
    // Where the edges of segments are between two frames of sound, these are by one frame longer.
    let edges = if is_sound { 1024.0 / 48e3 } else { 1e-6 };
    assert!(
        listed <= 3.0 * target + edges,
        "rule 14: {listed} s: {text}"
    );
    // A young stream lists less than it may.
    let young = playlist.segments < 3;
    assert!(
        young || listed >= 1.2 * target,
        "rule 14: {listed} s: {text}"
    );
}

/// Rule 20.
fn check_reports(daemon: &Daemon, rendition: &str, playlist: &Playlist) {
    let reported: Vec<&str> = playlist
        .reports
        .iter()
        .map(|report| report["URI"].as_str())
        .collect();
    let others: Vec<String> = RENDITIONS
        .iter()
        .filter(|other| **other != rendition)
        .map(|other| format!("../{other}/media.m3u8"))
        .collect();
    assert_eq!(reported, others, "rule 20: {}", playlist.text);
    // Neither of a part that is not there yet, nor of an older one.
    let newest = |other: &str| {
        let playlist = self::playlist(daemon, other, "");
        let (segment, part) = playlist.parts.keys().next_back().copied().unwrap();
        (segment, u64::try_from(part).unwrap())
    };
    for (at, uri) in others.iter().enumerate() {
        let other = uri.split('/').nth(1).unwrap();
        let before = newest(other);
        let reports = self::playlist(daemon, rendition, "").reports;
        let after = newest(other);
        let said = |name: &str| reports[at][name].parse::<u64>().unwrap();
        let reported = (said("LAST-MSN"), said("LAST-PART"));
        assert!(
            (before..=after).contains(&reported),
            "rule 20: {before:?} <= {reported:?} <= {after:?}: {other}"
        );
    }
}

#[test]
fn rule_15_a_segment_alone_is_waited_for_until_it_is_whole() {
    let _machine = beside_others();
    let (daemon, _camera) = started();
    for rendition in ["high", "sound", "low"] {
        let open = playlist(&daemon, rendition, "").open();
        let then = playlist(&daemon, rendition, &format!("?_HLS_msn={open}"));
        assert!(then.open() > open, "{}", then.text);
        assert!(then.text.contains(&format!("\n{open}.m4s\n")));
    }
    let next = playlist(&daemon, "high", "").open() + 1;
    assert!(playlist(&daemon, "high", &format!("?_HLS_msn={next}")).open() > next);
}

#[test]
fn rule_16_a_part_past_the_end_means_the_next_segments_first() {
    let _machine = beside_others();
    let (daemon, _camera) = started();
    // Segments of sound have a short sixth part.
    for (rendition, past) in [("high", 5), ("sound", 6)] {
        let open = playlist(&daemon, rendition, "").open();
        let query = format!("?_HLS_msn={}&_HLS_part={past}", open - 1);
        let then = playlist(&daemon, rendition, &query);
        assert!(then.next() > (open, 0), "{}", then.text);
    }
    // Gone long ago: the playlist as it is, at once. What waits for a part that never comes is answered 503.
    let _stopper = EncoderStopper::start(&daemon);
    for rendition in PICTURE_AND_SOUND {
        wait_until_nothing_comes(&daemon, rendition);
        let gone = ask(&daemon, rendition, "_HLS_msn=1&_HLS_part=3");
        assert_eq!(gone.status, 200, "{rendition}: {}", gone.text());
    }
}

/// Waits until no part has come for as long as two last.
fn wait_until_nothing_comes(daemon: &Daemon, rendition: &str) {
    let next = || playlist(daemon, rendition, "").next();
    let (mut before, mut since) = (next(), Instant::now());
    wait_for("no part comes", Duration::from_secs(10), || {
        let now = next();
        if now != before {
            (before, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_millis(400)).then_some(())
    });
}

#[test]
fn rule_17_directives_that_nobody_can_mean_are_refused() {
    let _machine = beside_others();
    let (daemon, _camera) = started();
    for rendition in PICTURE_AND_SOUND {
        for query in [
            "_HLS_part=0",
            "_HLS_msn=x",
            "_HLS_msn=-1",
            "_HLS_msn=1&_HLS_part=1.5",
            "_HLS_skip=MAYBE",
        ] {
            let answer = ask(&daemon, rendition, query);
            assert_eq!(answer.status, 400, "{query}: {}", answer.text());
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{query}");
        }
        let open = playlist(&daemon, rendition, "").open();
        // The window may move on by a segment meanwhile.
        for query in [
            format!("_HLS_msn={}", open + 3),
            format!("_HLS_msn={}&_HLS_part=0", open + 3),
            format!("_HLS_msn={}", u64::MAX),
            format!("_HLS_msn={}&_HLS_part=40", open + 1),
        ] {
            let answer = ask(&daemon, rendition, &query);
            assert_eq!(answer.status, 400, "{rendition} {query}");
        }
    }
}

#[test]
fn rule_17_what_never_comes_is_answered_503_after_three_target_durations() {
    let _machine = beside_others();
    let (daemon, _camera) = started();
    // An encoder that is stopped returns nothing, and its successor is stopped likewise.
    let open = playlist(&daemon, "high", "").open();
    let stopper = EncoderStopper::start(&daemon);
    let asked = Instant::now();
    let answer = ask(&daemon, "high", &format!("_HLS_msn={}", open + 1));
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
    while playlist(&daemon, "sound", "").segments < 9 {
        let open = playlist(&daemon, "sound", "").open();
        playlist(&daemon, "sound", &format!("?_HLS_msn={open}"));
    }
    for (rendition, version) in [("high", "YES"), ("high", "v2"), ("sound", "YES")] {
        let (segment, part) = playlist(&daemon, rendition, "").next();
        let query = format!("?_HLS_msn={segment}&_HLS_part={part}");
        let [full, delta] = wait_for("no part comes meanwhile", Duration::from_secs(20), || {
            let full = playlist(&daemon, rendition, &query);
            let delta = playlist(&daemon, rendition, &format!("{query}&_HLS_skip={version}"));
            let same = of_its_own(&full) == of_its_own(&playlist(&daemon, rendition, &query));
            same.then_some([full, delta])
        });
        assert!(delta.skipped >= 2, "{}", delta.text);
        assert_eq!(
            (delta.segments, delta.media_sequence),
            (full.segments, full.media_sequence)
        );
        let rest = |playlist: &Playlist| {
            let text = of_its_own(playlist);
            let first = format!("\n{}.m4s\n", delta.media_sequence + delta.skipped);
            let at = text
                .find(&first)
                .unwrap_or_else(|| panic!("{first} in {text}"));
            text[at..].to_owned()
        };
        assert_eq!(rest(&delta), rest(&full));
    }
}

/// What a playlist says, but for where other renditions are.
fn of_its_own(playlist: &Playlist) -> &str {
    let (own, _) = playlist
        .text
        .split_once("#EXT-X-RENDITION-REPORT")
        .expect("there are other renditions");
    own
}

#[test]
fn rule_19_only_the_announced_part_is_waited_for() {
    let _machine = beside_others();
    let (daemon, _camera) = started();
    // What is waited for never comes, and is answered 503.
    let _stopper = EncoderStopper::start(&daemon);
    for rendition in PICTURE_AND_SOUND {
        wait_until_nothing_comes(&daemon, rendition);
        let (segment, _) = playlist(&daemon, rendition, "").next();
        for uri in [
            format!("{}.0.m4s", segment + 3),
            format!("{segment}.77.m4s"),
            "1.0.m4s".to_owned(),
        ] {
            let answer = daemon.get(&format!("/cam/{rendition}/{uri}"));
            assert_eq!(answer.status, 404, "{rendition} {uri}");
        }
    }
}

#[test]
fn rule_35_two_mpds_describe_the_same_segments_and_the_publish_folder_stays_plain() {
    let _machine = beside_others();
    let (daemon, _camera) = started();
    let plain = daemon.get("/cam/manifest.mpd").text();
    let low_latency = daemon.get("/cam/manifest-ll.mpd").text();
    for rendition in RENDITIONS {
        // Times in the one, numbers in the other, of the same files.
        let media = format!("media=\"{rendition}/$Number$.m4s\"");
        assert!(plain.contains(&media), "{plain}");
        assert!(low_latency.contains(&media), "{low_latency}");
    }
    assert_eq!(plain.matches("<SegmentTimeline>").count(), 3, "{plain}");
    assert!(!low_latency.contains("<SegmentTimeline>"), "{low_latency}");
    assert_eq!(low_latency.matches(" duration=\"").count(), 3);

    let folder = daemon.place.live().join("cam");
    for rendition in RENDITIONS {
        let playlist = daemon.folder_playlist("cam", rendition);
        for tag in [
            "EXT-X-PART",
            "PRELOAD-HINT",
            "SERVER-CONTROL",
            "RENDITION-REPORT",
        ] {
            assert!(!playlist.contains(tag), "{playlist}");
        }
    }
    let published = std::fs::read_to_string(folder.join("manifest.mpd")).unwrap();
    for mpd in [&plain, &published] {
        for word in ["availabilityTimeOffset", "ServiceDescription"] {
            assert!(!mpd.contains(word), "{mpd}");
        }
    }
    assert!(!folder.join("manifest-ll.mpd").exists());
}
