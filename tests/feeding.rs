//! The commands of docs/feeding.md, as they stand there, with real FFmpeg and GStreamer against a real daemon. Cameras are
//! replaced by what FFmpeg and GStreamer draw themselves; nothing else is changed.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// What every source shows: a plain orange.
const ORANGE: [u8; 3] = [255, 165, 0];
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon with the stream that the page feeds, in a folder where the page's commands find their files.
struct Daemon {
    process: Child,
    port: u16,
    folder: TempDir,
    /// The machine, shared with the other tests that don't measure.
    _machine: File,
}

impl Daemon {
    fn start() -> Self {
        let tests = Path::new(env!("CARGO_TARGET_TMPDIR"));
        std::fs::create_dir_all(tests).unwrap();
        let machine = File::create(tests.join("machine.lock")).unwrap();
        flock(&machine, FlockOperation::LockShared).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let place = folder.path().display();
        let config = format!(
            r#"
            [daemon]
            socket = "{place}/control.sock"
            [http]
            listen = "127.0.0.1:{port}"
            [publish]
            dir = "{place}/live"
            [streams.door]
            framerate = 25
            segment = "1s"
            part = "200ms"
            [[streams.door.renditions]]
            name = "small"
            size = "320x180"
            preset = "ultrafast"
            "#
        );
        std::fs::write(folder.path().join("ringgear.toml"), config).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_ringgear"))
            .args(["serve", "--config"])
            .arg(folder.path().join("ringgear.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let daemon = Self {
            process,
            port,
            folder,
            _machine: machine,
        };
        daemon.wait_until("the daemon answers", || {
            daemon.run("ringgear status").status.success()
        });
        daemon
    }

    #[track_caller]
    fn wait_until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "not yet: {what}; {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// A shell for `script`, in the folder, in which `ringgear` is ours.
    fn shell(&self, script: &str) -> Command {
        let ours = Path::new(env!("CARGO_BIN_EXE_ringgear")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let mut shell = Command::new("bash");
        shell
            .args(["-c", &format!("set -o pipefail\n{script}")])
            .current_dir(self.folder.path())
            .env("PATH", format!("{}:{path}", ours.display()))
            .env("RINGGEAR_SOCKET", self.folder.path().join("control.sock"))
            .stdin(Stdio::null());
        shell
    }

    fn run(&self, script: &str) -> Output {
        self.shell(script).output().unwrap()
    }

    /// Makes a file by FFmpeg: four seconds of orange.
    #[track_caller]
    fn film(&self, options: &str, file: &str) {
        let drawn = self.run(&format!(
            "ffmpeg -v error -nostdin -f lavfi -i color=c=orange:size=320x180:rate=25:duration=4 {options} {file}"
        ));
        assert!(drawn.status.success(), "{drawn:?}");
    }

    /// Runs a command that feeds 100 frames or more to its end: they were sent, were shown, and have their true colour.
    #[track_caller]
    fn feeds(&self, script: &str) {
        self.feeds_at_least(100, script);
    }

    #[track_caller]
    fn feeds_at_least(&self, frames: u64, script: &str) {
        let fed = self.run(script);
        let said = String::from_utf8_lossy(&fed.stderr).into_owned();
        assert!(fed.status.success(), "{script}: {said}");
        let number = |word: &str| {
            let before = said.split(word).next()?;
            before.rsplit(' ').next()?.parse::<u64>().ok()
        };
        let (sent, used) = (number(" frames:"), number(" used"));
        // A loaded machine may pass some over.
        let whole = sent >= Some(frames) && used >= Some(frames / 2);
        assert!(whole, "{script}: {said}");
        self.shows_orange();
    }

    /// The stream's newest picture is orange.
    #[track_caller]
    fn shows_orange(&self) {
        let port = self.port;
        let script = format!(
            "ffmpeg -v error -nostdin -i http://127.0.0.1:{port}/door/snapshot.jpg -vf scale=1:1 -f rawvideo -pix_fmt rgb24 -"
        );
        self.wait_until("the picture is orange", || {
            let seen = self.run(&script).stdout;
            let near = |(&seen, wanted): (&u8, u8)| seen.abs_diff(wanted) < 30;
            seen.len() == 3 && seen.iter().zip(ORANGE).all(near)
        });
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = i32::try_from(self.process.id()).unwrap();
        let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM);
        self.process.wait().unwrap();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

fn free_port() -> u16 {
    let probe = TcpListener::bind("127.0.0.1:0").unwrap();
    probe.local_addr().unwrap().port()
}

/// The first command of the page's section, with some of its words replaced, each of which has to be there.
#[track_caller]
fn documented(heading: &str, replaced: &[(&str, &str)]) -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/feeding.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, section) = page
        .split_once(&format!("# {heading}\n"))
        .unwrap_or_else(|| panic!("no section '{heading}'"));
    let (_, command) = section.split_once("```sh\n").unwrap();
    let (command, _) = command.split_once("```").unwrap();
    let mut command = command.to_owned();
    for (from, to) in replaced {
        assert!(command.contains(from), "'{from}' is not in: {command}");
        command = command.replace(from, to);
    }
    command
}

#[test]
fn ffmpeg_feeds_a_file() {
    let daemon = Daemon::start();
    daemon.film("-pix_fmt yuv420p", "movie.mp4");
    daemon.feeds(&documented("A file", &[]));
}

#[test]
fn ffmpeg_feeds_raw_frames() {
    let daemon = Daemon::start();
    daemon.film("-pix_fmt yuv420p", "movie.mp4");
    daemon.feeds(&documented("Raw frames", &[]));
}

#[test]
fn ffmpeg_feeds_a_webcam() {
    let daemon = Daemon::start();
    let camera = [(
        "-f v4l2 -input_format mjpeg -video_size 1280x720 -framerate 30 -i /dev/video0",
        "-re -f lavfi -i color=c=orange:size=1280x720:rate=30:duration=4",
    )];
    daemon.feeds(&documented("A webcam", &camera));
}

/// FFmpeg is the camera, too: one publishes, the page's waits for it.
#[test]
fn ffmpeg_feeds_an_rtsp_camera() {
    let daemon = Daemon::start();
    daemon.film("-c:v libx264 -g 25 -pix_fmt yuv420p", "movie.mp4");
    let address = format!("rtsp://127.0.0.1:{}/stream1", free_port());
    let listening = format!("-rtsp_flags listen -i {address}");
    let camera = [("-i rtsp://camera.local/stream1", listening.as_str())];
    let mut script = String::new();
    // The publisher is there before the listener, or after: it tries until it is heard.
    writeln!(
        script,
        "(for _ in $(seq 100); do ffmpeg -v quiet -nostdin -re -i movie.mp4 -c copy -f rtsp -rtsp_transport tcp {address} && break; sleep 0.1; done) &"
    )
    .unwrap();
    script += &documented("An RTSP camera", &camera);
    // What FFmpeg reads to know the stream by is not decoded with `nobuffer`: a second, at least.
    daemon.feeds_at_least(40, &script);
}

#[test]
fn gstreamer_feeds_a_file() {
    let daemon = Daemon::start();
    daemon.film("-pix_fmt yuv420p", "movie.mp4");
    daemon.feeds(&documented("A file by GStreamer", &[]));
}

#[test]
fn gstreamer_feeds_a_webcam() {
    let daemon = Daemon::start();
    let camera = [(
        "v4l2src device=/dev/video0",
        "videotestsrc is-live=true num-buffers=100 pattern=solid-color foreground-color=0xffffa500 ! video/x-raw,framerate=25/1",
    )];
    // Its queue lets go what comes while the machine stands still.
    daemon.feeds_at_least(50, &documented("A webcam by GStreamer", &camera));
}

#[test]
fn gstreamer_feeds_raw_frames() {
    let daemon = Daemon::start();
    daemon.film("-pix_fmt yuv420p", "movie.mp4");
    daemon.feeds(&documented("Raw frames by GStreamer", &[]));
}

#[test]
fn raw_images_are_fed_as_ros_has_them() {
    let daemon = Daemon::start();
    daemon.film("-f rawvideo -pix_fmt bgr24", "images.raw");
    daemon.feeds(&documented("ROS", &[]));
}
