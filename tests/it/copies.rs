//! Streams that are copied: what is published are the source's own bytes at its own distances, cut at its own keyframes, and the rules of a window
//! hold for them as for any other.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ringgear::status::StreamState;

use crate::harness::checker::Checker;
use crate::harness::clap::{apart, clap_film, claps, listed};
use crate::harness::daemon::Daemon;
use crate::harness::place::{Place, Who};
use crate::harness::process::run;
use crate::harness::rtsp::RtspCamera;
use crate::harness::{beside_others, dash, hls, media, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

/// So many seconds of 25 pictures each, with a keyframe after so many; `more` are FFmpeg's arguments.
pub(super) fn video(path: &Path, seconds: u32, keyframes: u32, more: &str) {
    let out = run(
        Command::new("ffmpeg")
            .args(["-v", "error", "-f", "lavfi", "-i"])
            .arg(format!("testsrc2=size=320x180:rate=25:duration={seconds}"))
            .args(["-preset", "ultrafast", "-sc_threshold", "0", "-g"])
            .arg(keyframes.to_string())
            .args(more.split_ascii_whitespace())
            .arg(path),
        PATIENCE,
    );
    assert_eq!(out.code, Some(0), "{}", out.stderr);
}

/// Every packet of a file's pictures: when it is shown, in milliseconds since the first, and a hash of its bytes.
#[track_caller]
fn packets(file: &Path) -> Vec<(i64, String)> {
    packets_of(file, "v:0")
}

#[track_caller]
fn packets_of(file: &Path, stream: &str) -> Vec<(i64, String)> {
    let out = run(
        Command::new("ffprobe")
            .args(["-v", "error", "-select_streams", stream, "-of", "json"])
            .args(["-show_data_hash", "md5", "-show_entries"])
            .arg("packet=pts_time,data_hash")
            .arg(file),
        PATIENCE,
    );
    assert_eq!(out.stderr, "", "ffprobe {}", file.display());
    let said: serde_json::Value = serde_json::from_str(&out.stdout).unwrap();
    let packets = said["packets"].as_array().unwrap();
    let time = |packet: &serde_json::Value| -> f64 {
        packet["pts_time"].as_str().unwrap().parse().unwrap()
    };
    let first = packets.first().map_or(0.0, time);
    let told = packets.iter().map(|packet| {
        #[expect(clippy::cast_possible_truncation, reason = "a few seconds")]
        let millis = ((time(packet) - first) * 1000.0).round() as i64;
        (millis, packet["data_hash"].as_str().unwrap().to_owned())
    });
    told.collect()
}

pub(super) fn copied_stream(name: &str, keys: &str) -> String {
    format!(
        "[streams.{name}]\nsegment = \"1s\"\n{keys}\n[[streams.{name}.renditions]]\nname = \"cam\"\ncodec = \"copy\"\n"
    )
}

#[test]
fn a_file_is_copied_byte_for_byte_without_a_daemon_and_what_cannot_be_is_said() {
    let place = Place::new();
    let path = |name: &str| place.path().join(name);
    video(&path("in.mp4"), 7, 25, "-c:v libx264 -bf 2");
    video(&path("far.mp4"), 6, 125, "-c:v libx264");
    video(&path("old.mp4"), 2, 25, "-c:v mpeg4");
    video(
        &path("hevc.mkv"),
        3,
        25,
        "-c:v libx265 -x265-params log-level=none:open-gop=0",
    );
    video(
        &path("open.mkv"),
        4,
        25,
        "-c:v libx265 -x265-params log-level=none:open-gop=1",
    );
    let transcode = |input: &str, out: &str, more: &[&str]| {
        let mut command = place.command(Who::Daemon);
        command
            .args(["transcode", "--copy"])
            .arg(path(input))
            .arg(path(out))
            .args(more);
        run(&mut command, PATIENCE)
    };
    for (input, out, lengths) in [
        ("in.mp4", "out", &[2.0, 2.0, 2.0, 1.0][..]),
        ("hevc.mkv", "hevc", &[2.0, 1.0]),
    ] {
        let done = transcode(input, out, &["--segment", "2s"]);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        assert!(done.stderr.contains(", without sound"), "{}", done.stderr);
        let folder = path(out).join("source");
        let text = std::fs::read_to_string(folder.join("media.m3u8")).unwrap();
        let listed = hls::media(&text).unwrap();
        let found: Vec<f64> = listed.segments.iter().map(|one| one.seconds).collect();
        assert!(listed.ended && listed.target_duration == 2, "{text}");
        assert_eq!(found, lengths, "{text}");
        let whole = path(&format!("{out}.mp4"));
        media::join(&folder, &listed, &whole);
        let published = packets(&whole);
        if out == "out" {
            assert_eq!(published, packets(&path(input)));
        } else {
            // Matroska has the pictures' times in milliseconds, and the same bytes.
            assert_eq!(published.len(), 75);
            let hashes = |packets: Vec<(i64, String)>| -> Vec<String> {
                packets.into_iter().map(|(_, hash)| hash).collect()
            };
            assert_eq!(hashes(published), hashes(packets(&path(input))));
        }
    }
    let multivariant = std::fs::read_to_string(path("hevc").join("index.m3u8")).unwrap();
    assert!(
        multivariant.contains("CODECS=\"hvc1.") && multivariant.contains("FRAME-RATE=25.000"),
        "{multivariant}"
    );
    let too_far = transcode("far.mp4", "new", &["--segment", "2s"]);
    assert_eq!(too_far.code, Some(1), "{}", too_far.stderr);
    for said in ["5 s apart", "\"5000ms\""] {
        assert!(too_far.stderr.contains(said), "{}", too_far.stderr);
    }
    let done = transcode("far.mp4", "far", &["--segment", "5s"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let open = transcode("open.mkv", "open", &["--segment", "2s"]);
    assert_eq!(open.code, Some(1), "{}", open.stderr);
    assert!(
        open.stderr.contains("open groups of pictures"),
        "{}",
        open.stderr
    );
    let turn = "-v error -i in.mp4 -c copy -metadata:s:v rotate=90 turned.mp4";
    let mut ffmpeg = Command::new("ffmpeg");
    let turned = ffmpeg.args(turn.split(' ')).current_dir(place.path());
    assert!(turned.status().unwrap().success());
    let turned = transcode("turned.mp4", "turned", &["--segment", "2s"]);
    for said in [
        ", turned by 90 degrees, without sound\n",
        "leave out --copy",
    ] {
        assert!(turned.stderr.contains(said), "{}", turned.stderr);
    }
    let other = transcode("old.mp4", "old", &[]);
    assert!(
        other.stderr.contains("only H.264 and HEVC can be copied"),
        "{}",
        other.stderr
    );
}

#[test]
fn the_sound_of_a_copied_file_is_copied_with_it_or_encoded_beside_it_in_step() {
    let place = Place::new();
    let path = |name: &str| place.path().join(name);
    // With B-frames, whose first picture is shown two later than it is decoded.
    clap_film(&path("clap.mp4"), 7, "-g 25 -ar 48000");
    clap_film(&path("other.mkv"), 7, "-g 25 -c:a pcm_s16le");
    let transcode = |input: &str, out: &str| {
        let mut command = place.command(Who::Daemon);
        command
            .args(["transcode", "--copy", "--segment", "2s"])
            .args([path(input), path(out)]);
        let done = run(&mut command, PATIENCE);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        done.stderr
    };
    let said = transcode("clap.mp4", "out");
    assert!(said.contains(", with aac sound, copied\n"), "{said}");
    let out = path("out");
    let (pictures, sound) = (listed(&out.join("source")), listed(&out.join("audio")));
    assert_eq!(pictures.segments.len(), 4);
    assert_eq!(sound.segments.len(), 4);
    assert!((pictures.seconds() - 7.0).abs() < 0.001 && sound.ended);
    let longer = sound.seconds() - 7.0;
    assert!((0.0..0.0214).contains(&longer), "{longer} s");
    let index = std::fs::read_to_string(out.join("index.m3u8")).unwrap();
    assert!(index.contains(",mp4a.40.2\""), "{index}");
    let mpd = std::fs::read_to_string(out.join("manifest.mpd")).unwrap();
    assert!(mpd.contains("audioSamplingRate=\"48000\""), "{mpd}");
    assert!(dash::read(&mpd).is_ok());
    // What begins before the first picture is left out, and nothing else; nor is anything else there.
    let whole = path("sound.mp4");
    media::join(&out.join("audio"), &sound, &whole);
    let hashes = |file: &Path| -> Vec<String> {
        let packets = packets_of(file, "a:0").into_iter();
        packets.map(|(_, hash)| hash).collect()
    };
    let (own, published) = (hashes(&path("clap.mp4")), hashes(&whole));
    let copied = &own[1..own.len().min(published.len() + 1)];
    assert_eq!(&published[..copied.len()], copied);
    assert!(
        published.len() <= copied.len() + 1,
        "{} {}",
        published.len(),
        own.len()
    );

    let said = transcode("other.mkv", "encoded");
    assert!(said.contains("only AAC can be copied"), "{said}");
    for folder in ["out", "encoded"] {
        let claps = claps(&path(folder), "source", "audio");
        let apart = apart(&claps);
        eprintln!("{folder}: clicks after their flashes, in ms: {apart:.1?}");
        assert_eq!(apart.len(), 3, "{folder}: {claps:?}");
        assert!(
            apart.iter().all(|off| off.abs() < 20.0),
            "{folder}: {apart:?}"
        );
    }
}

#[test]
fn a_copied_file_obeys_the_rules_of_a_window_and_goes_on_after_a_restart() {
    let _machine = beside_others();
    let place = Place::new();
    let path = |name: &str| place.path().join(name);
    clap_film(&path("again.mp4"), 5, "-g 25 -sc_threshold 0 -ar 48000");
    // Its sound begins long after its pictures, none of which may be shown.
    clap_film(
        &path("mp3.mp4"),
        3,
        "-g 25 -c:a libmp3lame -af asetpts=PTS+1.5/TB",
    );
    video(&path("far.mp4"), 6, 125, "-c:v libx264");
    let looped = |name: &str, keys: &str| {
        let source = format!("source = \"{name}.mp4\"\nsource_loop = true{keys}");
        copied_stream(name, &source)
    };
    let streams = [
        looped("again", "\nwindow = \"6s\"\npart = \"200ms\"")
            + "[streams.again.audio]\n[[streams.again.audio.renditions]]\nname = \"own\"\n\
               [[streams.again.audio.renditions]]\nname = \"opus\"\ncodec = \"libopus\"\n",
        looped("far", "") + "[streams.far.audio]\n",
        looped("mp3", "") + "[streams.mp3.audio]\n",
    ];
    let mut daemon = Daemon::start_in(place, &streams.concat(), &[]);
    daemon.wait_until_playable("again");
    // What the others read and find is no part of what is checked.
    let [far, mp3] =
        ["far", "mp3"].map(|name| daemon.wait_for_state(name, StreamState::Failed, PATIENCE));
    let checkers = [
        Checker::over_http(&daemon, "again"),
        Checker::of_folder(&daemon, "again"),
    ];
    let status = wait_for("it has been through its file", PATIENCE, || {
        let status = daemon.stream("again");
        (status.window.last_segment? >= 6).then_some(status)
    });
    let [over_http, of_folder] = checkers.map(Checker::finish);
    // Beside others nobody's parts are all in time; `low_latency` judges that alone.
    over_http.assert_clean_but(&[5]);
    of_folder.assert_clean();
    assert!(over_http.in_parts > 0 && of_folder.in_parts == 0);
    assert_eq!(status.state, StreamState::Live);
    assert_eq!(status.framerate, "25");
    let source = status.source.unwrap();
    assert_eq!(source.codec.as_deref(), Some("h264"));
    // Its sound is a bit longer than its pictures, whose last one waits for it.
    let apart = source.keyframe_seconds.unwrap();
    assert!((1.0..1.1).contains(&apart), "{apart} s");
    for nothing in ["manifest-ll.mpd", "snapshot.jpg"] {
        assert_eq!(daemon.get(&format!("/again/{nothing}")).status, 404);
    }
    let playlist = |daemon: &Daemon| {
        let answer = daemon.get("/again/cam/media.m3u8");
        hls::media(&answer.text()).unwrap()
    };
    let before = playlist(&daemon);
    assert!(
        before
            .segments
            .iter()
            .all(|one| !one.discontinuity && !one.gap)
    );
    assert_loops(&daemon, &before);

    let detail = far.detail.unwrap();
    for said in ["5 s apart", "set segment = \"5150ms\" in [streams.far]"] {
        assert!(detail.contains(said), "{detail}");
    }

    // The file that can't be cut has no sound either, which is silence and no fault.
    let sound = daemon.stream("far").audio.unwrap();
    assert!(
        sound.source.ends_with("far.mp4") && !sound.playing,
        "{sound:?}"
    );
    let detail = mp3.detail.unwrap();
    for said in [
        "its sound is mp3",
        "write codec = \"aac\" in [[streams.mp3.audio.renditions]]",
    ] {
        assert!(detail.contains(said), "{detail}");
    }
    assert_eq!(daemon.stream("mp3").window.last_segment, None);
    let again = daemon.stream("again");
    assert!(again.audio.is_some_and(|audio| audio.playing));
    let index = daemon.get("/again/index.m3u8").text();
    for codecs in [",mp4a.40.2\"", ",opus\""] {
        assert!(index.contains(codecs), "{index}");
    }

    daemon.kill();
    daemon.restart();
    let last = before.segments.last().unwrap().number;
    let after = wait_for("it goes on", PATIENCE, || {
        let listed = playlist(&daemon);
        (listed.segments.last()?.number >= last + 2).then_some(listed)
    });
    let mut next = None;
    for segment in &after.segments {
        assert_eq!(segment.number, next.unwrap_or(segment.number));
        next = Some(segment.number + 1);
    }
    assert!(
        daemon
            .get("/again/manifest.mpd")
            .text()
            .contains("contentType=\"audio\"")
    );
    let overlap = after.segments.iter().find(|one| one.number == last);
    assert!(overlap.is_some(), "{after:?}");
}

/// What is listed are the file's packets, again and again.
#[track_caller]
fn assert_loops(daemon: &Daemon, listed: &hls::MediaPlaylist) {
    let folder = daemon.place.live().join("again").join("cam");
    let whole = daemon.place.path().join("listed.mp4");
    let mut newest = listed.clone();
    // Those that leave the window while this reads are gone.
    newest.segments = newest.segments.split_off(newest.segments.len() - 3);
    let last = folder.join(&newest.segments.last().unwrap().uri);
    wait_for("a slow disk has what is listed", PATIENCE, || {
        last.exists().then_some(())
    });
    media::join(&folder, &newest, &whole);
    let file = packets(&daemon.place.path().join("again.mp4"));
    let published = packets(&whole);
    assert_eq!(published.len(), 75);
    // Packets may be alike: it begins at one from where all of them follow.
    let follow = |start: &usize| {
        let own = file.iter().cycle().skip(*start);
        let mut pairs = published.iter().zip(own);
        pairs.all(|((_, one), (_, other))| one == other)
    };
    let begins = (0..file.len()).find(follow);
    assert!(
        begins.is_some(),
        "not the file's: {published:?}, but {file:?}"
    );
}

#[test]
fn a_copied_camera_that_comes_back_with_another_size_is_a_discontinuity() {
    let _machine = beside_others();
    let camera = RtspCamera::start(0, "320x180");
    let port = camera.port;
    let keys = format!(
        "window = \"30s\"\npart = \"200ms\"\nsource = \"rtsp://127.0.0.1:{port}/1\"\nsource_timeout = \"2s\""
    );
    let daemon = Daemon::start(&copied_stream("cam", &keys));
    daemon.wait_until_playable("cam");
    let checker = Checker::over_http(&daemon, "cam");
    wait_for("some segments", PATIENCE, || {
        let window = daemon.stream("cam").window;
        (window.segments >= 3).then_some(())
    });
    let seen = daemon.stream("cam").latency.commit_to_part;
    eprintln!(
        "from a part's first picture to its viewers: {:?} s, 95 %: {:?} s",
        seen.p50_seconds, seen.p95_seconds
    );
    // A busy machine loses packets on the way from this camera: a lost keyframe makes the next segment late, and a lost picture a part short.
    let report = checker.finish();
    report.assert_clean_but(&[5, 12]);
    assert!(report.in_parts > 0);

    drop(camera);
    daemon.wait_for_state("cam", StreamState::NoSignal, PATIENCE);
    let _camera = RtspCamera::start(port, "640x480");
    let stream = wait_for("it is back, with another size", PATIENCE, || {
        let stream = daemon.stream("cam");
        let is_new = stream.renditions[0].width == Some(640);
        (is_new && stream.state == StreamState::Live).then_some(stream)
    });
    assert_eq!(stream.detail, None);
    // Its period begins before its first segment is whole and shown.
    let (text, listed) = wait_for("a break is listed", PATIENCE, || {
        let text = daemon.get("/cam/cam/media.m3u8").text();
        let listed = hls::media(&text).unwrap();
        let first = &listed.segments[0].map;
        let is_break = |one: &hls::Listed| one.discontinuity && one.map != *first;
        let breaks = listed.segments.iter().any(is_break);
        breaks.then_some((text, listed))
    });
    let mut inits: Vec<_> = listed.segments.iter().map(|one| &one.map).collect();
    inits.dedup();
    assert_eq!(inits.len(), 2, "{text}");
}
