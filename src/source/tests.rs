//! A source with the real FFmpeg, and a ring whose other end the test holds.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use ringgear_producer::messages::{FrameCounts, Opened, PROTOCOL};
use ringgear_producer::pattern::{Bars, PatternPainter, decode_luma};
use ringgear_ring::format::{FrameFormat, PixelFormat};
use ringgear_ring::{Captured, Deadline, MemoryKind, Reader, RingMemory};
use tokio::sync::{oneshot, watch};

use super::*;
use crate::clock::SystemClock;
use crate::config::SourceInput;
use crate::control::Seat;

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pictures a second, where a test has no reason for others.
const RATE: u32 = 25;

/// The daemon's end of one session.
struct Session {
    reader: Reader,
    size: Size,
    closed: oneshot::Receiver<()>,
    /// Whether the seat was closed, or only left: known with the end.
    at_end: Option<bool>,
}

/// A picture as it came out of the ring.
struct Taken {
    number: u64,
    captured: Option<Captured>,
    pixels: Vec<u8>,
}

struct HeldSeat(Option<oneshot::Sender<()>>);

impl Seat for HeldSeat {
    fn close(mut self: Box<Self>) -> oneshot::Receiver<FrameCounts> {
        let _ = self.0.take().map(|closed| closed.send(()));
        oneshot::channel().1
    }
}

/// A source that runs.
struct Running {
    sessions: Receiver<Session>,
    told: Receiver<SourceStatus>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(plan: SourcePlan, policy: Policy) -> Self {
        Self::start_at(plan, policy, Tick(0), Path::new("ffmpeg"))
    }

    fn start_at(plan: SourcePlan, policy: Policy, first_tick: Tick, ffmpeg: &Path) -> Self {
        Self::start_with(plan, policy, RATE, first_tick, ffmpeg)
    }

    /// A source of a stream of `rate` pictures a second.
    fn start_with(
        plan: SourcePlan,
        policy: Policy,
        rate: u32,
        first_tick: Tick,
        ffmpeg: &Path,
    ) -> Self {
        let (opened, sessions) = channel();
        let (tell, told) = channel();
        let stop = Stop::default();
        let seat = move |open: &Open, _| {
            let size = Size::new(open.width, open.height);
            let format =
                FrameFormat::packed(PixelFormat::Yuv420p, size.width, size.height).unwrap();
            let memory = RingMemory::create_as(MemoryKind::Memfd, policy, &format, 4).unwrap();
            let fd = memory.fd().try_clone_to_owned().unwrap();
            let rate = std::num::NonZeroU32::MIN;
            let reply = Opened {
                protocol: PROTOCOL,
                session: 1,
                memory_bytes: memory.bytes() as u64,
                slots: 4,
                name: None,
                framerate_num: rate,
                framerate_den: rate,
            };
            let (close, closed) = oneshot::channel();
            let reader = Reader::new(memory);
            opened
                .send(Session {
                    reader,
                    size,
                    closed,
                    at_end: None,
                })
                .unwrap();
            Ok(Granted {
                opened: reply,
                memory: Some(fd),
                ended: watch::channel(None).1,
                logged: false,
                seat: Box::new(HeldSeat(Some(close))),
            })
        };
        let source = Source::new(SourceParts {
            copy: None,
            stream: "door".to_owned(),
            plan,
            framerate: Framerate::new(rate, 1).unwrap(),
            first_sound: MonotonicTime(0),
            first_tick,
            sound: None,
            policy,
            ffmpeg: ffmpeg.to_owned(),
            anchor: Anchor::new(Arc::new(SystemClock)),
            seat: Box::new(seat),
            tell: Box::new(move |status| drop(tell.send(status.clone()))),
            stop: stop.clone(),
        });
        Self {
            sessions,
            told,
            stop,
            thread: Some(std::thread::spawn(move || source.run())),
        }
    }

    fn session(&self) -> Session {
        self.sessions.recv_timeout(PATIENCE).unwrap()
    }

    /// Waits until it tells what `wanted` looks for.
    fn wait_until(&self, wanted: impl Fn(&SourceStatus) -> bool) -> SourceStatus {
        loop {
            let status = self.told.recv_timeout(PATIENCE).unwrap();
            if wanted(&status) {
                return status;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.set();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(ended.is_some_and(|ended| ended.is_ok()) || std::thread::panicking());
    }
}

impl Session {
    /// The next picture; none once the seat was given back and all were taken.
    fn next(&mut self) -> Option<Taken> {
        let until = Instant::now() + PATIENCE;
        loop {
            // In this order: what was committed before the close is there after it.
            match self.closed.try_recv() {
                Ok(()) => self.at_end = Some(true),
                Err(oneshot::error::TryRecvError::Empty) => {}
                Err(oneshot::error::TryRecvError::Closed) => _ = self.at_end.get_or_insert(false),
            }
            let over = self.at_end.is_some();
            if let Some(taken) = self.reader.take_oldest().unwrap() {
                let mut pixels = Vec::new();
                for (index, plane) in taken.format().planes().iter().enumerate() {
                    let start = pixels.len();
                    pixels.resize(start + plane.row_bytes * plane.rows, 0);
                    taken
                        .copy_rows(index, 0, plane.rows, &mut pixels[start..])
                        .unwrap();
                }
                return Some(Taken {
                    number: taken.frame_number(),
                    captured: taken.captured(),
                    pixels,
                });
            }
            if over {
                return None;
            }
            assert!(Instant::now() < until, "no picture and no end");
            self.reader
                .wait(Deadline::after(Duration::from_millis(20)))
                .unwrap();
        }
    }
}

fn plan(input: SourceInput, arguments: &[&str]) -> SourcePlan {
    SourcePlan {
        input,
        input_args: arguments.iter().map(|&word| word.to_owned()).collect(),
        repeat: false,
        timeout: Duration::from_secs(10),
    }
}

fn file(path: &Path) -> SourcePlan {
    plan(SourceInput::File(path.to_owned()), &[])
}

fn ffmpeg(arguments: &str, output: &Path) {
    let mut command = Command::new("ffmpeg");
    command
        .args(["-v", "error", "-y"])
        .args(arguments.split(' '))
        .arg(output);
    assert!(command.status().unwrap().success(), "{arguments}");
}

/// `frames` pictures of 320x180 whose bars count from 0, with reordered pictures, [`RATE`] a second.
fn pattern(folder: &Path, frames: u32) -> PathBuf {
    pattern_at(RATE, folder, frames)
}

/// The same with `rate` pictures a second.
fn pattern_at(rate: u32, folder: &Path, frames: u32) -> PathBuf {
    let format = FrameFormat::packed(PixelFormat::Yuv420p, 320, 180).unwrap();
    let painter = PatternPainter::new(format.clone());
    let path = folder.join("pattern.mp4");
    let mut child = Command::new("ffmpeg")
        .args("-v error -f rawvideo -pix_fmt yuv420p -s 320x180 -r".split(' '))
        .arg(rate.to_string())
        .args("-i - -c:v libx264 -preset ultrafast -bf 2 -crf 18".split(' '))
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let mut picture = vec![0; format.bytes()];
    for frame_number in 0..frames {
        painter.paint(
            Bars {
                frame_number,
                captured_ms: 0,
            },
            &mut picture,
        );
        pipe.write_all(&picture).unwrap();
    }
    drop(pipe);
    assert!(child.wait().unwrap().success());
    path
}

fn bars(taken: &Taken) -> Option<u64> {
    let bars = decode_luma(&taken.pixels[..320 * 180], 320, 180, 320)?;
    Some(bars.frame_number.into())
}

/// What a recorded stream will ask for.
#[test]
fn a_lossless_ring_gets_each_picture_of_a_file_once_and_as_fast_as_it_takes_them() {
    let folder = tempfile::tempdir().unwrap();
    // Few a second: at their own pace they would take a minute.
    let rate = 5;
    let path = pattern_at(rate, folder.path(), 300);
    let begun = Instant::now();
    let ffmpeg = Path::new("ffmpeg");
    let source = Running::start_with(file(&path), Policy::Lossless, rate, Tick(0), ffmpeg);
    let mut session = source.session();
    assert_eq!(session.size, Size::new(320, 180));
    for expected in 0..300 {
        let taken = session.next().unwrap();
        assert_eq!((taken.number, bars(&taken)), (expected, Some(expected)));
    }
    assert!(session.next().is_none());
    assert_eq!(
        session.at_end,
        Some(true),
        "a recording ends with its source"
    );
    let status = source.wait_until(|status| status.state == SourceState::Ended);
    let took = begun.elapsed();
    assert!(
        took < Duration::from_secs(30),
        "{took:?}, which is half of it"
    );
    assert_eq!(
        (status.openings, status.failures, status.error),
        (1, 0, None)
    );
    assert_eq!(status.codec.as_deref(), Some("h264"));
    assert_eq!(
        (status.framerate, status.duration_seconds),
        (Some(5.0), Some(60.0))
    );
}

#[test]
fn a_recording_of_a_file_goes_on_with_the_next_picture() {
    let folder = tempfile::tempdir().unwrap();
    let path = pattern(folder.path(), 40);
    for (repeat, ticks) in [(false, 25..40), (true, 65..95)] {
        let plan = SourcePlan {
            repeat,
            ..file(&path)
        };
        let first = Tick(ticks.start);
        let source = Running::start_at(plan, Policy::Lossless, first, Path::new("ffmpeg"));
        let mut session = source.session();
        for tick in ticks {
            let taken = session.next().unwrap();
            assert_eq!((taken.number, bars(&taken)), (tick, Some(tick % 40)));
        }
        if !repeat {
            assert!(session.next().is_none() && session.at_end == Some(true));
            source.wait_until(|status| status.state == SourceState::Ended);
        }
    }
}

#[test]
fn a_recording_whose_ffmpeg_is_killed_goes_on_with_the_next_picture() {
    let folder = tempfile::tempdir().unwrap();
    let path = pattern(folder.path(), 300);
    let source = Running::start(file(&path), Policy::Lossless);
    let mut session = source.session();
    let status = source.wait_until(|status| status.state == SourceState::Running);
    let mut seen = vec![bars(&session.next().unwrap()).unwrap()];
    let pid = i32::try_from(status.pid.unwrap()).unwrap();
    let process = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    // The ring and the pipe hold some more.
    seen.extend(std::iter::from_fn(|| bars(&session.next()?)));
    assert!(
        seen.len() < 100 && session.at_end == Some(false),
        "{seen:?}"
    );
    let status = source.wait_until(|status| status.state == SourceState::Waiting);
    assert!(status.error.unwrap().contains("signal: 9"));
    let mut session = source.session();
    seen.extend(std::iter::from_fn(|| bars(&session.next()?)));
    assert_eq!(seen, Vec::from_iter(0..300));
    assert_eq!(session.at_end, Some(true));
    source.wait_until(|status| status.state == SourceState::Ended);
}

#[test]
fn a_recording_whose_source_fails_twice_at_one_place_ends_there() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = pattern(folder.path(), 40);
    let broken = folder.path().join("ffmpeg");
    std::fs::write(&broken, "#!/bin/sh\nffmpeg \"$@\"\nexit 7\n").unwrap();
    std::fs::set_permissions(&broken, std::fs::Permissions::from_mode(0o755)).unwrap();
    let source = Running::start_at(file(&path), Policy::Lossless, Tick(0), &broken);
    let mut session = source.session();
    let seen: Vec<_> = std::iter::from_fn(|| bars(&session.next()?)).collect();
    assert_eq!(seen, Vec::from_iter(0..40));
    let mut session = source.session();
    assert!(session.next().is_none() && session.at_end == Some(true));
    let status = source.wait_until(|status| status.state == SourceState::Ended);
    assert!(status.failures == 2 && status.error.is_some(), "{status:?}");
    assert!(source.sessions.try_recv().is_err());
}

#[test]
fn a_recording_has_the_streams_rate_whatever_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mkv");
    ffmpeg("-f lavfi -i testsrc2=s=64x36:r=50:d=2 -c:v ffv1", &path);
    let source = Running::start(file(&path), Policy::Lossless);
    let mut session = source.session();
    let pictures = std::iter::from_fn(|| session.next()).count();
    assert_eq!(pictures, 50, "two seconds of 25 pictures");
}

#[test]
fn a_file_that_repeats_goes_on_at_its_own_pace() {
    let folder = tempfile::tempdir().unwrap();
    let path = pattern(folder.path(), 20);
    let repeated = SourcePlan {
        repeat: true,
        ..file(&path)
    };
    let source = Running::start(repeated, Policy::Latest);
    let mut session = source.session();
    let taken: Vec<Taken> = (0..50).map(|_| session.next().unwrap()).collect();
    for pair in taken.windows(2) {
        let step = pair[1].number - pair[0].number;
        let time = pair[1].captured.unwrap().0 - pair[0].captured.unwrap().0;
        // A machine that stands still for a second begins the count anew.
        assert!(
            time + 1_000_000 >= step * 40_000_000,
            "{step} pictures in {time} ns"
        );
    }
    for taken in &taken {
        assert_eq!(bars(taken), Some(taken.number % 20));
    }
}

#[test]
fn a_file_keeps_the_size_that_it_begins_with() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second, both] = ["1.ts", "2.ts", "both.ts"].map(|name| folder.path().join(name));
    ffmpeg(
        "-f lavfi -i color=white:s=320x180:r=25:d=1 -c:v libx264",
        &first,
    );
    ffmpeg(
        "-f lavfi -i color=white:s=180x180:r=25:d=1 -c:v libx264",
        &second,
    );
    let bytes = [
        std::fs::read(&first).unwrap(),
        std::fs::read(&second).unwrap(),
    ]
    .concat();
    std::fs::write(&both, bytes).unwrap();
    let source = Running::start(file(&both), Policy::Lossless);
    let mut session = source.session();
    assert_eq!(session.size, Size::new(320, 180));
    let corners: Vec<u8> = std::iter::from_fn(|| session.next())
        .map(|taken| taken.pixels[0])
        .collect();
    assert_eq!(corners.len(), 50);
    assert!(corners[..25].iter().all(|&luma| luma > 200), "{corners:?}");
    assert!(
        corners[26..].iter().all(|&luma| luma < 32),
        "black beside what is narrower: {corners:?}"
    );
}

#[test]
fn a_live_source_that_changes_its_size_is_opened_anew_and_has_it_then() {
    // Pictures that need no other filters than the usual, so that one opening does.
    let tagged = "-c:v libx264 -g 25 -colorspace bt709 -color_primaries bt709 -color_trc bt709";
    let folder = tempfile::tempdir().unwrap();
    let [small, large] = ["small.ts", "large.ts"].map(|name| folder.path().join(name));
    ffmpeg(
        &format!("-f lavfi -i color=white:s=128x72:r=25:d=12 {tagged}"),
        &small,
    );
    ffmpeg(
        &format!("-f lavfi -i color=white:s=64x64:r=25:d=12 {tagged}"),
        &large,
    );
    let [small, large] = [small, large].map(|path| std::fs::read(path).unwrap());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    let camera = std::thread::spawn(move || {
        // Each connection stays open, as a camera's does.
        let mut first = listener.accept().unwrap().0;
        first.write_all(&[small, large.clone()].concat()).unwrap();
        let mut second = listener.accept().unwrap().0;
        second.write_all(&large).unwrap();
        (first, second)
    });
    let input = SourceInput::Url {
        scheme: "tcp".to_owned(),
        url,
    };
    let source = Running::start(plan(input, &[]), Policy::Latest);
    let mut first = source.session();
    assert_eq!(first.size, Size::new(128, 72));
    while first.next().is_some() {}
    assert_eq!(
        first.at_end,
        Some(false),
        "whoever holds its ring may wait for it"
    );
    let mut second = source.session();
    assert_eq!(second.size, Size::new(64, 64));
    assert!(second.next().is_some());
    drop(source);
    drop(camera.join().unwrap());
}

#[test]
fn colours_are_those_of_the_file_whatever_its_matrix_and_range() {
    let folder = tempfile::tempdir().unwrap();
    let red = "-f lavfi -i color=red:s=64x64:r=25:d=0.2,format=rgb24";
    let tagged = |space: &str, range: &str| {
        format!(
            "{red} -vf scale=out_color_matrix={space}:out_range={range},format=yuv444p,setparams=colorspace={space}:range={range} -c:v ffv1"
        )
    };
    for (name, arguments) in [
        ("bt709.mkv", tagged("bt709", "tv")),
        ("smpte170m.mkv", tagged("smpte170m", "tv")),
        ("full.mkv", tagged("bt709", "pc")),
        // As players take a small one that says nothing.
        (
            "untagged.mkv",
            format!("{red} -vf scale=out_color_matrix=bt601,format=yuv420p -c:v libx264 -qp 0"),
        ),
        (
            "jpegs.avi",
            format!("{red} -c:v mjpeg -q:v 1 -pix_fmt yuvj444p"),
        ),
        ("rgb.mkv", format!("{red} -c:v ffv1")),
    ] {
        let path = folder.path().join(name);
        ffmpeg(&arguments, &path);
        let source = Running::start(file(&path), Policy::Lossless);
        let taken = source.session().next().unwrap();
        let (y, u, v) = (
            taken.pixels[0],
            taken.pixels[64 * 64],
            taken.pixels[64 * 64 * 5 / 4],
        );
        // Red in BT.709 of limited range; in BT.601 it is 81, 90, 240.
        for (found, expected) in [(y, 63), (u, 102), (v, 240)] {
            assert!(u8::abs_diff(found, expected) <= 3, "{name}: {y} {u} {v}");
        }
    }
}

#[test]
fn odd_sides_and_long_pixels_become_even_and_square() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mkv");
    for (arguments, size) in [
        (
            "-f lavfi -i color=red:s=63x35:d=0.2,format=rgb24 -c:v ffv1",
            Size::new(64, 36),
        ),
        (
            "-f lavfi -i color=red:s=72x57:d=0.2,format=rgb24,setsar=4/3 -c:v ffv1",
            Size::new(96, 58),
        ),
    ] {
        ffmpeg(arguments, &path);
        assert_eq!(
            Running::start(file(&path), Policy::Latest).session().size,
            size,
            "{arguments}"
        );
    }
}

#[test]
fn what_fails_says_why_and_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let device = |format: &str, name: &str| SourceInput::Device {
        format: format.to_owned(),
        name: name.to_owned(),
    };
    let url = |url: &str| SourceInput::Url {
        scheme: url.split(':').next().unwrap().to_owned(),
        url: url.to_owned(),
    };
    let sound = folder.path().join("sound.wav");
    ffmpeg("-f lavfi -i sine=d=0.1", &sound);
    let words = folder.path().join("words.txt");
    std::fs::write(&words, "no video").unwrap();
    let missing = folder.path().join("missing.mp4");
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let closed = format!("rtsp://me:s3cret@127.0.0.1:{port}/1");
    let troubles = [
        (file(&missing), "there is no such file as", "put it there"),
        (
            file(folder.path()),
            "it is a folder",
            "name a file in source of [streams.door]",
        ),
        (
            file(&words),
            "no video that FFmpeg can read",
            "in input_args",
        ),
        (file(&sound), "it has no pictures", "another source"),
        (
            plan(device("v4l2", "/dev/video-none"), &[]),
            "no such device as v4l2:/dev/video-none",
            "plug it in",
        ),
        (
            plan(url("gopher3://x/y"), &[]),
            "does not know its protocol",
            "another URL in source of [streams.door]",
        ),
        (
            plan(url(&closed), &[]),
            "nobody listens there",
            "host and port in source of [streams.door]",
        ),
        (
            file(&words).with(&["-f", "nothing"]),
            "does not know the format of -f",
            "input_args of [streams.door]",
        ),
        (
            file(&words).with(&["-nothing", "1"]),
            "an option",
            "mend input_args of [streams.door]",
        ),
    ];
    let started =
        troubles.map(|(plan, what, mend)| (Running::start(plan, Policy::Latest), what, mend));
    for (source, what, mend) in started {
        let status = source.wait_until(|status| status.state == SourceState::Waiting);
        let error = status.error.clone().unwrap();
        assert!(
            error.contains(what) && error.contains(mend),
            "{what}, {mend}: {status:?}"
        );
        assert!(!format!("{status:?}").contains("s3cret"), "{status:?}");
        assert!(
            status.next_try.is_some() && status.failures == 1,
            "{status:?}"
        );
        source.wait_until(|status| status.state == SourceState::Connecting);
    }
}

impl SourcePlan {
    fn with(self, arguments: &[&str]) -> Self {
        Self {
            input_args: arguments.iter().map(|&word| word.to_owned()).collect(),
            ..self
        }
    }
}

#[test]
fn pauses_grow_and_vary_within_bounds() {
    let pauses: Vec<_> = (0..12).map(pause_after).collect();
    assert!(pauses.is_sorted());
    assert_eq!((pauses[0], pauses[11]), (FIRST_PAUSE, LONGEST_PAUSE));
    assert_eq!(pause_after(u32::MAX), LONGEST_PAUSE);
    for seed in 0..2048 {
        let pause = jittered(Duration::from_secs(4), seed);
        assert!(pause >= Duration::from_secs(3) && pause < Duration::from_secs(5));
    }
}
