//! Recorded streams: every frame that was committed is published once and in order, as fast as it can be encoded; a recording ends with its
//! producer's close, and nothing that dies meanwhile costs a frame that was published.

use std::ops::Range;
use std::time::Duration;

use ringgear::status::{StreamState, StreamStatus};
use ringgear_producer::pattern::{Bars, PatternPainter};
use ringgear_producer::{FrameFormat, PixelFormat, Producer, ProducerError, ProducerOptions};
use rustix::process::{Pid, Signal, kill_process};

use super::sources::pattern_file;
use crate::harness::broken_ffmpeg::BrokenFfmpeg;
use crate::harness::daemon::Daemon;
use crate::harness::hls::{self, MediaPlaylist};
use crate::harness::place::Place;
use crate::harness::process::run;
use crate::harness::streams::small_stream;
use crate::harness::{dash, http, media, wait_for};

const SOON: Duration = Duration::from_secs(10);
/// Of the stream's grid: 25 ticks a second, segments of one second.
const PER_SEGMENT: u64 = 25;

fn format() -> FrameFormat {
    FrameFormat::packed(PixelFormat::Bgr24, 320, 180).unwrap()
}

pub(crate) fn open(daemon: &Daemon) -> Producer {
    let mut options = ProducerOptions::new("cam", format());
    options.socket = daemon.place.socket();
    Producer::open(&options).unwrap()
}

/// Commits the frames of these numbers as fast as the ring takes them.
pub(crate) fn feed(producer: &mut Producer, frames: Range<u64>) -> Result<(), ProducerError> {
    let painter = PatternPainter::new(format());
    for number in frames {
        let mut frame = producer.begin()?;
        let bars = Bars {
            frame_number: u32::try_from(number).unwrap(),
            captured_ms: number,
        };
        painter.paint(bars, frame.bytes_mut());
        frame.commit(None);
    }
    Ok(())
}

fn recording(daemon: &Daemon) -> StreamStatus {
    daemon.stream("cam")
}

/// What the publish folder's playlist of the recording lists.
fn playlist(daemon: &Daemon, name: &str) -> (String, MediaPlaylist) {
    let folder = daemon.place.live().join("cam").join(name).join("small");
    let text = std::fs::read_to_string(folder.join("media.m3u8")).unwrap();
    let playlist = hls::media(&text).unwrap();
    (text, playlist)
}

/// The frames that the recording shows, tick by tick from the first.
fn shown(daemon: &Daemon, name: &str) -> Vec<u64> {
    let folder = daemon.place.live().join("cam").join(name).join("small");
    let (_, playlist) = playlist(daemon, name);
    let pictures = media::decode_published(&folder, &playlist);
    for (tick, picture) in pictures.iter().enumerate() {
        assert_eq!(picture.time, u64::try_from(tick).unwrap(), "each tick once");
    }
    let frames = pictures.into_iter().map(|picture| {
        let bars = picture.bars.expect("every picture is a frame of ours");
        u64::from(bars.frame_number)
    });
    frames.collect()
}

#[test]
fn every_frame_of_an_event_is_published_once_and_its_close_ends_it() {
    const FRAMES: u64 = 260;
    let daemon = Daemon::start(&small_stream("cam", "mode = \"event\""));
    let page = daemon.get("/cam/index.m3u8");
    assert_eq!(page.status, 503, "{}", page.text());
    let mut producer = open(&daemon);
    feed(&mut producer, 0..FRAMES).unwrap();
    let name = recording(&daemon).recording.expect("it is under way");
    let counts = producer.close().unwrap();
    assert_eq!(
        (counts.used, counts.superseded, counts.late),
        (FRAMES, 0, 0)
    );

    // Who is told that it is closed finds it whole.
    let status = recording(&daemon);
    assert_eq!(status.recording, None);
    assert_eq!(status.recordings, std::slice::from_ref(&name));
    assert_eq!(shown(&daemon, &name), Vec::from_iter(0..FRAMES));
    let (text, listed) = playlist(&daemon, &name);
    assert!(listed.ended && text.contains("#EXT-X-PLAYLIST-TYPE:EVENT\n"));
    assert_eq!(listed.media_sequence, 0);
    assert_eq!(listed.segments.len() as u64, FRAMES.div_ceil(PER_SEGMENT));
    let times: Vec<_> = listed
        .segments
        .iter()
        .map(|s| s.program_date_time)
        .collect();
    assert!(
        times.is_sorted() && times[0] > Some(1_700_000_000_000),
        "capture times: {times:?}"
    );
    let folder = daemon.place.live().join("cam").join(&name);
    let mpd = std::fs::read_to_string(folder.join("manifest.mpd")).unwrap();
    assert!(
        mpd.contains("type=\"static\"") && mpd.contains("mediaPresentationDuration=\"PT10.4S\""),
        "{mpd}"
    );
    assert!(dash::read(&mpd).is_ok());
    for path in ["index.m3u8", "manifest.mpd"] {
        let url = daemon.url(&format!("/cam/{name}/{path}"));
        let probe = std::process::Command::new("ffprobe")
            .args(["-v", "error", "-count_packets", "-select_streams", "v:0"])
            .args([
                "-show_entries",
                "stream=nb_read_packets",
                "-of",
                "csv=p=0",
                &url,
            ])
            .output();
        let counted = String::from_utf8(probe.unwrap().stdout).unwrap();
        // Programs and their streams are counted by themselves.
        let counts: Vec<&str> = counted
            .split([',', '\n'])
            .filter(|text| !text.is_empty())
            .collect();
        assert!(
            !counts.is_empty() && counts.iter().all(|count| *count == FRAMES.to_string()),
            "{url}: {counted}"
        );
    }
    serves_what_the_folder_has(&daemon, &name);
}

/// Segments come from the folder, whole and in ranges; what is not there is said to be so.
fn serves_what_the_folder_has(daemon: &Daemon, name: &str) {
    let to = daemon.get("/cam/");
    assert_eq!(to.status, 307);
    assert_eq!(to.header("location"), Some(format!("{name}/").as_str()));
    assert_eq!(daemon.get("/cam/index.m3u8").status, 404);
    let path = format!("/cam/{name}/small/3.m4s");
    let file = daemon.place.live().join(&path[1..]);
    let whole = std::fs::read(file).unwrap();
    let answer = daemon.get(&path);
    assert_eq!((answer.status, &answer.body), (200, &whole));
    let ranged = http::request(daemon.place.port, "GET", &path, &[("Range", "bytes=10-99")]);
    let ranged = ranged.unwrap();
    assert_eq!((ranged.status, &ranged.body[..]), (206, &whole[10..100]));
    for path in [
        format!("/cam/{name}/small/99.m4s"),
        format!("/cam/{name}/manifest-ll.mpd"),
        "/cam/20200101t000000z/index.m3u8".to_owned(),
    ] {
        assert_eq!(daemon.get(&path).status, 404, "{path}");
    }
}

#[test]
fn the_next_open_begins_another_recording_and_a_restart_finds_both() {
    let mut daemon = Daemon::start(&small_stream("cam", "mode = \"vod\""));
    for _ in 0..2 {
        let mut producer = open(&daemon);
        feed(&mut producer, 0..60).unwrap();
        let name = recording(&daemon).recording.unwrap();
        wait_for("two segments are there", SOON, || {
            (recording(&daemon).window.segments >= 2).then_some(())
        });
        let early = daemon.get(&format!("/cam/{name}/index.m3u8"));
        assert_eq!(
            early.status,
            503,
            "not before it is whole: {}",
            early.text()
        );
        producer.close().unwrap();
        let (text, _) = playlist(&daemon, &name);
        assert!(text.contains("#EXT-X-PLAYLIST-TYPE:VOD\n"));
    }
    // Who opens and closes without a frame leaves nothing.
    open(&daemon).close().unwrap();
    let before = recording(&daemon).recordings;
    assert_eq!(before.len(), 2, "{before:?}");
    daemon.stop();
    daemon.restart();
    let after = recording(&daemon);
    assert_eq!((after.recording, &after.recordings), (None, &before));
    for name in before {
        let answer = daemon.get(&format!("/cam/{name}/small/media.m3u8"));
        assert!(answer.text().ends_with("#EXT-X-ENDLIST\n"));
        // Rule 17: at the end there is nothing to wait for.
        for query in ["_HLS_msn=99&_HLS_part=1", "_HLS_part=1", "_HLS_skip=YES"] {
            let asked = daemon.get(&format!("/cam/{name}/small/media.m3u8?{query}"));
            assert_eq!(
                (asked.status, asked.text()),
                (200, answer.text()),
                "{query}"
            );
        }
        assert_eq!(daemon.get(&format!("/cam/{name}/small/1.m4s")).status, 200);
        assert_eq!(shown(&daemon, &name), Vec::from_iter(0..60));
    }
}

#[test]
fn an_encoder_that_is_killed_costs_a_recording_no_frame() {
    const FRAMES: u64 = 600;
    let daemon = Daemon::start(&small_stream("cam", "mode = \"event\""));
    let mut producer = open(&daemon);
    let mut killed = Vec::new();
    for half in 0..4 {
        feed(&mut producer, half * FRAMES / 4..(half + 1) * FRAMES / 4).unwrap();
        let pid = wait_for("another encoder runs", SOON, || {
            let pid = recording(&daemon).encoder.pid?;
            (!killed.contains(&pid)).then_some(pid)
        });
        kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
        killed.push(pid);
    }
    let name = recording(&daemon).recording.unwrap();
    producer.close().unwrap();
    assert_eq!(shown(&daemon, &name), Vec::from_iter(0..FRAMES));
    assert!(!playlist(&daemon, &name).0.contains("DISCONTINUITY\n"));
}

#[test]
fn a_recording_goes_on_after_the_daemons_death_from_what_was_published() {
    let mut daemon = Daemon::start(&small_stream("cam", "mode = \"event\""));
    let mut producer = open(&daemon);
    feed(&mut producer, 0..200).unwrap();
    let name = recording(&daemon).recording.unwrap();
    let folder = daemon.place.live().join("cam").join(&name).join("small");
    // Only what the folder has is there after the daemon's death.
    wait_for("most of it is in the folder", SOON, || {
        let text = std::fs::read_to_string(folder.join("media.m3u8")).ok()?;
        (hls::media(&text).unwrap().segments.len() >= 5).then_some(())
    });
    daemon.kill();
    assert!(
        feed(&mut producer, 200..10_000).is_err(),
        "the daemon is gone"
    );
    daemon.restart();
    assert_eq!(recording(&daemon).recording.as_ref(), Some(&name));
    let mut producer = open(&daemon);
    feed(&mut producer, 20_000..20_100).unwrap();
    producer.close().unwrap();
    let frames = shown(&daemon, &name);
    let before = frames.iter().take_while(|frame| **frame < 10_000).count();
    assert!(before >= 125, "{before} frames were published before");
    let expected = (0..before as u64).chain(20_000..20_100);
    assert_eq!(frames, Vec::from_iter(expected));
    assert!(playlist(&daemon, &name).1.ended);
}

#[test]
fn a_panic_of_the_stream_ends_its_session_and_the_recording_goes_on_with_the_next() {
    let daemon = Daemon::start(&small_stream("cam", "mode = \"event\""));
    let mut producer = open(&daemon);
    feed(&mut producer, 0..100).unwrap();
    let name = recording(&daemon).recording.unwrap();
    wait_for("some of it is published", SOON, || {
        (recording(&daemon).window.segments >= 2).then_some(())
    });
    std::fs::write(daemon.place.faults().join("stream.cam"), "").unwrap();
    // Full speed, so that frames are held back when nobody takes them any more.
    let ended = feed(&mut producer, 100..10_000).unwrap_err();
    assert!(matches!(&ended, ProducerError::Ended(_)), "{ended}");
    wait_for("the stream runs again", SOON, || {
        let status = recording(&daemon);
        (status.restarts == 1 && status.session.is_none()).then_some(())
    });
    let mut producer = open(&daemon);
    feed(&mut producer, 20_000..20_100).unwrap();
    producer.close().unwrap();
    assert_eq!(recording(&daemon).recordings, std::slice::from_ref(&name));
    let frames = shown(&daemon, &name);
    let before = frames.iter().take_while(|frame| **frame < 10_000).count() as u64;
    assert!(
        before >= 2 * PER_SEGMENT,
        "{before} frames were published before"
    );
    assert_eq!(frames, Vec::from_iter((0..before).chain(20_000..20_100)));
}

#[test]
fn a_recorded_file_survives_a_panic_its_ffmpeg_and_the_daemon_with_each_picture_once() {
    const FRAMES: u32 = 2000;
    let place = Place::new();
    pattern_file(&place.path().join("film.mp4"), FRAMES);
    let keys = "mode = \"event\"\nsource = \"film.mp4\"";
    let mut daemon = Daemon::start_in(place, &small_stream("cam", keys), &[]);
    let name = recording(&daemon).recording.unwrap();
    let goes_on = |daemon: &Daemon, more: u64| {
        let begun = recording(daemon).window.segments;
        wait_for("it goes on", Duration::from_secs(60), || {
            let status = recording(daemon);
            let over = status.recording.is_none();
            (over || status.window.segments >= begun + more).then_some(())
        });
    };
    goes_on(&daemon, 5);
    std::fs::write(daemon.place.faults().join("stream.cam"), "").unwrap();
    wait_for("the stream has panicked", Duration::from_secs(60), || {
        (recording(&daemon).restarts == 1).then_some(())
    });
    goes_on(&daemon, 5);
    if let Some(pid) = recording(&daemon).source.and_then(|source| source.pid) {
        kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
    }
    goes_on(&daemon, 5);
    daemon.kill();
    daemon.wait(Duration::from_secs(10));
    daemon.restart();
    assert_eq!(recording(&daemon).recordings, std::slice::from_ref(&name));
    wait_for("it ends", Duration::from_secs(90), || {
        recording(&daemon).recording.is_none().then_some(())
    });
    assert_eq!(shown(&daemon, &name), Vec::from_iter(0..u64::from(FRAMES)));
    assert!(playlist(&daemon, &name).1.ended);
}

#[test]
fn a_recording_of_another_file_is_not_gone_on_with() {
    let place = Place::new();
    pattern_file(&place.path().join("one.mp4"), 1000);
    pattern_file(&place.path().join("two.mp4"), 100);
    let stream =
        |file: &str| small_stream("cam", &format!("mode = \"event\"\nsource = \"{file}\""));
    let mut daemon = Daemon::start_in(place, &stream("one.mp4"), &[]);
    let first = recording(&daemon).recording.unwrap();
    let folder = daemon.place.live().join("cam").join(&first).join("small");
    wait_for(
        "some of it is in the folder",
        Duration::from_secs(60),
        || {
            let text = std::fs::read_to_string(folder.join("media.m3u8")).ok()?;
            (!hls::media(&text).ok()?.segments.is_empty()).then_some(())
        },
    );
    daemon.kill();
    daemon.wait(Duration::from_secs(10));
    daemon.place.write_config(&stream("two.mp4"));
    daemon.restart();
    wait_for("the other one is recorded", Duration::from_secs(60), || {
        let status = recording(&daemon);
        (status.recordings.len() == 2 && status.recording.is_none()).then_some(())
    });
    let second = recording(&daemon).recordings.remove(0);
    assert_eq!(shown(&daemon, &second), Vec::from_iter(0..100));
    wait_for("the first one has ended", Duration::from_secs(30), || {
        playlist(&daemon, &first).1.ended.then_some(())
    });
}

#[test]
fn a_producer_that_dies_leaves_its_recording_whole() {
    let daemon = Daemon::start(&small_stream("cam", "mode = \"event\""));
    let mut producer = open(&daemon);
    feed(&mut producer, 0..90).unwrap();
    let name = recording(&daemon).recording.unwrap();
    // As a crash would.
    drop(producer);
    wait_for("the recording ends", Duration::from_secs(30), || {
        recording(&daemon).recording.is_none().then_some(())
    });
    assert_eq!(shown(&daemon, &name), Vec::from_iter(0..90));
    assert!(playlist(&daemon, &name).1.ended);
}

#[test]
fn a_stop_does_not_wait_for_an_encoder_that_never_works() {
    let ffmpeg = BrokenFfmpeg::new("true");
    let streams = ffmpeg.config("") + &small_stream("cam", "mode = \"event\"");
    let mut daemon = Daemon::start(&streams);
    let mut producer = open(&daemon);
    // More than may wait for the encoder.
    feed(&mut producer, 0..12).unwrap();
    daemon.wait_for_state("cam", StreamState::Failed, Duration::from_secs(60));
    daemon.signal(Signal::TERM);
    assert!(daemon.wait(Duration::from_secs(30)).success());
}

#[test]
fn a_pipe_of_frames_becomes_a_file_that_plays() {
    let daemon = Daemon::start(&small_stream("cam", "mode = \"vod\""));
    let mut ffmpeg = std::process::Command::new("ffmpeg");
    ffmpeg
        .args([
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=320x180:rate=25:duration=4",
        ])
        .args(["-f", "yuv4mpegpipe", "-pix_fmt", "yuv420p"])
        .arg(daemon.place.path().join("frames.y4m"));
    run(&mut ffmpeg, Duration::from_secs(60));
    let frames = std::fs::File::open(daemon.place.path().join("frames.y4m")).unwrap();
    let mut push = daemon.producer_with(&["push", "cam"], frames.into());
    assert!(push.wait(Duration::from_secs(30)).success());
    let said = push.said();
    assert!(
        said.contains("100 frames: in the last session 100 used"),
        "{said}"
    );
    let name = recording(&daemon).recordings.remove(0);
    let (_, listed) = playlist(&daemon, &name);
    assert!(listed.ended);
    assert!(
        (listed.seconds() - 4.0).abs() < 0.001,
        "{} s",
        listed.seconds()
    );
}
