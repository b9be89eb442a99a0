//! Streams that are copied, part by part: rules 12 to 20 hold for them as for any other, however the source's pictures and keyframes come, and over kills.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use crate::copies::{copied_stream, video};
use crate::harness::checker::Checker;
use crate::harness::daemon::Daemon;
use crate::harness::place::Place;
use crate::harness::process::run;
use crate::harness::{beside_others, hls, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

/// The parts of a segment that the origin has, from the first on.
fn parts_of(daemon: &Daemon, segment: u64) -> Vec<Vec<u8>> {
    let answers = (0..).map(|part| daemon.get(&format!("/slow/cam/{segment}.{part}.m4s")));
    let there = answers.take_while(|answer| answer.status == 200);
    there.map(|answer| answer.body).collect()
}

/// Reads the playlist of what is copied, and fetches each part that it lists: none ever has other bytes than before. Its newest part's place.
#[track_caller]
fn fetch_parts(daemon: &Daemon, seen: &mut BTreeMap<(u64, u64), Vec<u8>>) -> Option<(u64, u64)> {
    let answer = daemon.get("/slow/cam/media.m3u8");
    if answer.status != 200 {
        return None;
    }
    let playlist = hls::media(&answer.text()).unwrap();
    let parts = &playlist.low_latency.parts;
    for part in parts.iter().filter(|part| !part.gap) {
        let (segment, number) = part.place;
        let fetched = daemon.get(&format!("/slow/cam/{segment}.{number}.m4s"));
        if fetched.status == 200 {
            let before = seen
                .entry(part.place)
                .or_insert_with(|| fetched.body.clone());
            assert_eq!(*before, fetched.body, "part {number} of segment {segment}");
        }
    }
    parts.last().map(|part| part.place)
}

#[test]
fn a_slow_copied_camera_has_parts_whose_names_are_never_given_twice_however_often_the_daemon_is_killed()
 {
    let _machine = beside_others();
    let place = Place::new();
    // Five pictures a second, each a part.
    video(
        &place.path().join("slow.mp4"),
        6,
        10,
        "-r 5 -c:v libx264 -bf 0",
    );
    let keys = "window = \"14s\"\npart = \"200ms\"\nsource = \"slow.mp4\"\nsource_loop = true";
    let stream = copied_stream("slow", keys).replace("\"1s\"", "\"2s\"");
    let mut daemon = Daemon::start_in(place, &stream, &[]);
    daemon.wait_until_playable("slow");
    let checker = Checker::over_http(&daemon, "slow");
    let mut seen = BTreeMap::new();
    let (mut last, mut left) = (0, Vec::new());
    for _ in 0..3 {
        let killed_in = wait_for("a segment is half written", PATIENCE, || {
            let (segment, part) = fetch_parts(&daemon, &mut seen)?;
            (segment >= last + 2 && (3..6).contains(&part)).then_some(segment)
        });
        daemon.kill();
        checker.wait_for_an_outage();
        daemon.restart();
        last = killed_in;
        left = parts_of(&daemon, last);
        assert!(!left.is_empty(), "nothing is left of segment {last}");
    }
    wait_for("it goes on", PATIENCE, || {
        let (segment, _) = fetch_parts(&daemon, &mut seen)?;
        (segment >= last + 2).then_some(())
    });
    // Where a segment was cut off, those after it begin a period.
    checker.finish().assert_clean_but(&[5]);
    // What the folder had of the last one that was cut off is all that there is of it.
    assert!(parts_of(&daemon, last) == left, "parts of segment {last}");
}

#[test]
fn a_player_that_asks_for_a_part_past_the_end_of_a_copied_segment_gets_the_next_ones_first() {
    let _machine = beside_others();
    let place = Place::new();
    video(&place.path().join("cam.mp4"), 6, 25, "-c:v libx264");
    let keys = "part = \"200ms\"\nsource = \"cam.mp4\"\nsource_loop = true";
    let daemon = Daemon::start_in(place, &copied_stream("cam", keys), &[]);
    daemon.wait_until_playable("cam");
    let playlist = |query: &str| {
        let answer = daemon.get(&format!("/cam/cam/media.m3u8{query}"));
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        hls::media(&answer.text()).unwrap()
    };
    let newest = |listed: &hls::MediaPlaylist| listed.low_latency.parts.last().unwrap().place;
    for _ in 0..3 {
        let (segment, _) = newest(&playlist(""));
        // A segment of a second has six parts of 160 ms and one of the rest, whatever is asked for.
        let after = playlist(&format!("?_HLS_msn={segment}&_HLS_part=8"));
        assert!(newest(&after) >= (segment + 1, 0), "{segment}");
        let parts = &after.low_latency.parts;
        let count = parts.iter().filter(|part| part.place.0 == segment).count();
        assert_eq!(count, 7, "{after:?}");
        // The part that is announced comes, or the playlist says that it does not.
        let [hint] = &after.low_latency.hints[..] else {
            panic!("one part is announced: {after:?}");
        };
        assert_eq!(daemon.get(&format!("/cam/cam/{hint}")).status, 200);
        // A delta update leaves nothing out that is new.
        let delta = daemon.get("/cam/cam/media.m3u8?_HLS_skip=YES").text();
        assert!(delta.contains("#EXT-X-PART:"), "{delta}");
    }
}

/// What the origin lists of the stream `cam`.
#[track_caller]
fn listed(daemon: &Daemon) -> Option<hls::MediaPlaylist> {
    let answer = daemon.get("/cam/cam/media.m3u8");
    (answer.status == 200).then(|| hls::media(&answer.text()).unwrap())
}

/// Waits for so many more segments.
fn wait_for_segments(daemon: &Daemon, count: u64) -> hls::MediaPlaylist {
    let newest = |listed: &hls::MediaPlaylist| Some(listed.segments.last()?.number);
    let first = wait_for("it is listed", PATIENCE, || newest(&listed(daemon)?));
    wait_for("more is listed", PATIENCE, || {
        listed(daemon).filter(|listed| newest(listed) >= Some(first + count))
    })
}

#[test]
fn where_keyframes_come_later_than_ever_pictures_are_left_out_once_with_a_warning() {
    let _machine = beside_others();
    let place = Place::new();
    let keyframes = "0,0.4,0.8,1.2,1.6,2,2.4,2.8,4.8,6.8,7.8,9.8";
    video(
        &place.path().join("cam.mp4"),
        11,
        1000,
        &format!("-c:v libx264 -bf 0 -force_key_frames {keyframes}"),
    );
    let keys = "window = \"30s\"\npart = \"200ms\"\nsource = \"cam.mp4\"\nsource_loop = true";
    let stream = copied_stream("cam", keys).replace("\"1s\"", "\"2s\"");
    let daemon = Daemon::start_in(place, &stream, &[]);
    daemon.wait_until_playable("cam");
    let checker = Checker::over_http(&daemon, "cam");
    let playlist = wait_for_segments(&daemon, 9);
    let report = checker.finish();
    report.assert_clean_but(&[5]);
    assert!(report.in_parts >= 5);
    // The file has come round since: what is known of it does.
    let breaks = playlist.segments.iter().filter(|one| one.discontinuity);
    assert_eq!(breaks.count(), 1, "{playlist:?}");
    let said = daemon.log();
    let told = said.matches("the source's keyframes are uneven: one came 2.00 s after");
    assert_eq!(told.count(), 1, "{said}");
}

#[test]
fn a_camera_that_gets_slower_gets_longer_parts_and_no_discontinuity() {
    let _machine = beside_others();
    let place = Place::new();
    // 25 pictures a second for four seconds, and then five.
    video(
        &place.path().join("cam.mp4"),
        12,
        1000,
        "-c:v libx264 -bf 0 -force_key_frames expr:gte(t,2*n_forced) -vf select=lt(t\\,4)+not(mod(n\\,5)) -fps_mode vfr",
    );
    let keys = "window = \"30s\"\npart = \"200ms\"\nsource = \"cam.mp4\"\nsource_loop = true";
    let stream = copied_stream("cam", keys).replace("\"1s\"", "\"2s\"");
    let daemon = Daemon::start_in(place, &stream, &[]);
    daemon.wait_until_playable("cam");
    let checker = Checker::over_http(&daemon, "cam");
    let part_target = |listed: &hls::MediaPlaylist| listed.low_latency.part_target.unwrap();
    wait_for("its parts are longer", PATIENCE, || {
        let slow = part_target(&listed(&daemon)?);
        (0.229..0.231).contains(&slow).then_some(())
    });
    // Those before are listed for three target durations.
    let playlist = wait_for_segments(&daemon, 4);
    checker.finish().assert_clean_but(&[5, 12]);
    assert!(
        playlist
            .segments
            .iter()
            .all(|one| !one.discontinuity && !one.gap)
    );
    // These suit the whole file.
    let checker = Checker::over_http(&daemon, "cam");
    wait_for_segments(&daemon, 7);
    checker.finish().assert_clean_but(&[5]);
}

#[test]
fn sound_that_opens_late_and_ends_early_is_silence_there_and_its_parts_obey_the_rules() {
    let _machine = beside_others();
    let place = Place::new();
    let mut command = Command::new("ffmpeg");
    command
        .args([
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=320x180:rate=25:duration=8",
        ])
        .args(["-itsoffset", "3", "-f", "lavfi", "-i", "sine=duration=3"])
        .args([
            "-preset",
            "ultrafast",
            "-sc_threshold",
            "0",
            "-g",
            "25",
            "-c:a",
            "aac",
            "-ar",
            "48000",
        ])
        .arg(place.path().join("cam.mp4"));
    let out = run(&mut command, PATIENCE);
    assert_eq!(out.code, Some(0), "{}", out.stderr);
    let keys = "window = \"20s\"\npart = \"200ms\"\nsource = \"cam.mp4\"\nsource_loop = true";
    let stream = copied_stream("cam", keys) + "[streams.cam.audio]\n";
    let daemon = Daemon::start_in(place, &stream, &[]);
    daemon.wait_until_playable("cam");
    let checker = Checker::over_http(&daemon, "cam");
    let playlist = wait_for_segments(&daemon, 14);
    let report = checker.finish();
    // What is waited for in vain is waited for two seconds, once.
    report.assert_clean_but(&[5]);
    assert!(report.in_parts >= 10);
    // Until it comes nobody knows what it is.
    let breaks = playlist.segments.iter().filter(|one| one.discontinuity);
    assert!(breaks.count() <= 1, "{playlist:?}");
    assert!(playlist.segments.iter().all(|one| !one.gap));
}

mod alone {
    use super::*;
    use crate::harness::alone;

    #[test]
    fn rule_5_a_new_part_of_a_copied_stream_comes_within_one_part_target() {
        let _machine = alone();
        let place = Place::new();
        video(&place.path().join("cam.mp4"), 20, 25, "-c:v libx264");
        let keys = "part = \"200ms\"\nsource = \"cam.mp4\"\nsource_loop = true";
        let daemon = Daemon::start_in(place, &copied_stream("cam", keys), &[]);
        daemon.wait_until_playable("cam");
        let checker = Checker::over_http(&daemon, "cam");
        wait_for_segments(&daemon, 8);
        let report = checker.finish();
        report.assert_clean();
        assert!(report.in_parts >= 5);
    }
}
