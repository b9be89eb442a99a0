//! Streams with a source of their own: a file's pictures are published in order and at their speed, a camera may fall silent, die and come
//! back, and nobody else feeds them (STREAMGEAR's single-source mode, live).

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ringgear::status::{SourceState, StreamState};
use ringgear_producer::pattern::{Bars, PatternPainter};
use ringgear_producer::{FrameFormat, PixelFormat};

use crate::harness::daemon::Daemon;
use crate::harness::place::Place;
use crate::harness::rtsp::RtspCamera;
use crate::harness::streams::small_stream;
use crate::harness::tick_log::{self, Kind};
use crate::harness::{beside_others, hls, media, wait_for};

const PATIENCE: Duration = Duration::from_secs(40);

/// `frames` pictures of 320x180 whose bars count from 0, 25 a second.
pub(crate) fn pattern_file(path: &Path, frames: u32) {
    let format = FrameFormat::packed(PixelFormat::Yuv420p, 320, 180).unwrap();
    let painter = PatternPainter::new(format.clone());
    let arguments = "-v error -f rawvideo -pix_fmt yuv420p -s 320x180 -r 25 -i - -c:v libx264 -preset ultrafast -bf 2 -crf 18";
    let mut child = Command::new("ffmpeg")
        .args(arguments.split(' '))
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let mut picture = vec![0; format.bytes()];
    for frame_number in 0..frames {
        let bars = Bars {
            frame_number,
            captured_ms: 0,
        };
        painter.paint(bars, &mut picture);
        pipe.write_all(&picture).unwrap();
    }
    drop(pipe);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_file_is_published_in_order_and_at_its_speed_and_its_end_is_told() {
    let _machine = beside_others();
    let place = Place::new();
    pattern_file(&place.path().join("once.mp4"), 100);
    pattern_file(&place.path().join("again.mp4"), 30);
    let streams = [
        small_stream(
            "once",
            "window = \"30s\"\nstale_after = \"1s\"\nsource = \"once.mp4\"",
        ),
        small_stream(
            "again",
            "window = \"30s\"\nsource = \"again.mp4\"\nsource_loop = true",
        ),
        small_stream(
            "drawn",
            "source = \"testsrc2=s=320x180:r=25\"\ninput_args = [\"-f\", \"lavfi\"]",
        ),
    ];
    let mut daemon = Daemon::start_in(place, &streams.concat(), &[]);
    daemon.wait_until_playable("drawn");
    let refused = daemon.producer(&["pattern", "drawn", "--size", "64x64"]);
    refused.wait_for_line("has a source of its own", PATIENCE);
    let ended = wait_for("the end of the file is told", PATIENCE, || {
        let stream = daemon.stream("once");
        let source = stream.source.clone()?;
        let over = source.state == SourceState::Ended && stream.state == StreamState::NoSignal;
        over.then_some(stream)
    });
    let detail = ended.detail.unwrap();
    assert!(
        detail.starts_with("its source has ended: ") && detail.ends_with("/once.mp4"),
        "{detail}"
    );
    assert_eq!(ended.source.unwrap().codec.as_deref(), Some("h264"));
    assert_eq!(ended.frames.received, 100);
    wait_for("the other file has begun again", PATIENCE, || {
        (daemon.stream("again").frames.used > 70).then_some(())
    });
    daemon.stop();
    assert_published(&daemon, "once", 100);
    assert_its_own_speed(&daemon, "once");
    assert_published(&daemon, "again", 30);
    assert_its_own_speed(&daemon, "again");
}

/// Every published picture is the one of its file, of `frames` frames, that ingest took for its tick.
#[track_caller]
fn assert_published(daemon: &Daemon, stream: &str, frames: u64) {
    let folder = daemon.place.live().join(stream).join("small");
    let playlist = std::fs::read_to_string(folder.join("media.m3u8")).unwrap();
    let shown = media::decode_published(&folder, &hls::media(&playlist).unwrap());
    let rows = tick_log::read(&daemon.place.tick_logs(), stream);
    let mut compared = 0;
    for picture in &shown {
        let row = rows.iter().find(|row| row.tick == picture.time);
        // The slate lies over the last picture, and a stop completes what is open.
        let Some(row) = row.filter(|row| row.kind != Kind::Slate) else {
            continue;
        };
        let bars = picture
            .bars
            .as_ref()
            .map(|bars| u64::from(bars.frame_number));
        assert_eq!(
            bars,
            row.frame.map(|frame| frame % frames),
            "{stream}: {row:?}"
        );
        compared += 1;
    }
    assert!(compared > 70, "{stream}: {compared}");
}

/// Each frame's capture time lies as long after the one before as the file says; a machine that stands still for a second is no excuse to
/// run after it.
#[track_caller]
fn assert_its_own_speed(daemon: &Daemon, stream: &str) {
    let rows = tick_log::read(&daemon.place.tick_logs(), stream);
    let fresh: Vec<_> = rows.iter().filter(|row| row.kind == Kind::Fresh).collect();
    for pair in fresh.windows(2) {
        let frames = pair[1].frame.unwrap() - pair[0].frame.unwrap();
        let nanos = pair[1].captured - pair[0].captured;
        assert!(frames > 0, "{stream}: {pair:?}");
        let expected = i64::try_from(frames).unwrap() * 40_000_000;
        assert!(nanos >= expected - 1_000_000, "{stream}: {pair:?}");
    }
}

#[test]
fn a_camera_that_falls_silent_or_dies_is_shown_again_once_it_is_back() {
    let _machine = beside_others();
    let camera = RtspCamera::start(0, "320x180");
    let port = camera.port;
    let keys = format!(
        "stale_after = \"1s\"\nsource = \"rtsp://me:s3cret@127.0.0.1:{port}/1\"\nsource_timeout = \"2s\""
    );
    let mut daemon = Daemon::start(&small_stream("cam", &keys));
    daemon.wait_until_playable("cam");
    let source = daemon.stream("cam").source.unwrap();
    assert_eq!((source.width, source.height), (Some(320), Some(180)));
    assert_eq!(
        (
            source.container.as_deref(),
            source.codec.as_deref(),
            source.openings
        ),
        (Some("rtsp"), Some("h264"), 1)
    );

    camera.mute(true);
    let stream = daemon.wait_for_state("cam", StreamState::NoSignal, PATIENCE);
    assert_eq!(stream.session.map(|session| session.width), Some(320));
    let failed = wait_for("its silence is noticed", PATIENCE, || {
        let source = daemon.stream("cam").source?;
        (source.failures > 0).then_some(source)
    });
    assert!(
        failed.error.is_some() && failed.next_try.is_some()
            || failed.state == SourceState::Connecting
    );
    camera.mute(false);
    daemon.wait_for_state("cam", StreamState::Live, PATIENCE);

    drop(camera);
    wait_for("its death is told with the mend", PATIENCE, || {
        let detail = daemon.stream("cam").detail?;
        detail
            .contains("switch it on, or mend host and port in source of [streams.cam]")
            .then_some(())
    });
    let camera = RtspCamera::start(port, "640x480");
    let stream = wait_for("it is back, with another size", PATIENCE, || {
        let stream = daemon.stream("cam");
        let width = stream.source.as_ref()?.width?;
        (width == 640 && stream.state == StreamState::Live).then_some(stream)
    });
    assert_eq!(
        stream.renditions[0].width,
        Some(320),
        "viewers keep their size"
    );
    assert_eq!(stream.detail, None);
    let everything = daemon.log() + &daemon.get("/api/v1/streams").text();
    assert!(!everything.contains("s3cret"), "{everything}");

    // One that waits for a camera would notice nothing.
    camera.mute(true);
    let pid = daemon.stream("cam").source.unwrap().pid.unwrap();
    daemon.kill();
    wait_for(
        "its FFmpeg dies with the daemon",
        Duration::from_secs(5),
        || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.map_or(true, |stat| stat.contains(") Z "))
                .then_some(())
        },
    );
}
