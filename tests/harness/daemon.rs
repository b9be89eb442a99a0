//! The daemon under test, and producers for it.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use ringgear::status::{StreamState, StreamStatus, StreamsStatus};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use super::http::{self, Answer};
use super::place::{Place, Who};
use super::process::Process;
use super::wait_for;

/// A running `ringgear serve`. Dropping it stops it; its log is shown if the test is failing.
pub(crate) struct Daemon {
    process: Process,
    config: PathBuf,
    /// Variables of its own, as `NAME=value`.
    environment: Vec<String>,
    /// Its folder; after the process, so that it goes last.
    pub(crate) place: Place,
}

impl Daemon {
    /// Starts a daemon in a new place, with the `[streams.*]` tables given, and waits until it answers.
    #[track_caller]
    pub(crate) fn start(streams: &str) -> Self {
        Self::start_in(Place::new(), streams, &[])
    }

    /// The same in a place that is there already, with `NAME=value` variables for the daemon alone.
    #[track_caller]
    pub(crate) fn start_in(place: Place, streams: &str, environment: &[String]) -> Self {
        let config = place.write_config(streams);
        let process = serve(&place, &config, environment);
        let daemon = Self {
            process,
            config,
            environment: environment.to_vec(),
            place,
        };
        daemon.wait_until_healthy();
        daemon
    }

    #[track_caller]
    fn wait_until_healthy(&self) {
        wait_for(
            "the daemon answers at /healthz",
            Duration::from_secs(15),
            || {
                let answer = http::get(self.place.port, "/healthz").ok()?;
                (answer.status == 200).then_some(())
            },
        );
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        self.process.said()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.place.port)
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        http::get(self.place.port, path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    #[track_caller]
    pub(crate) fn status(&self) -> StreamsStatus {
        let answer = self.get("/api/v1/streams");
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_slice(&answer.body)
            .unwrap_or_else(|error| panic!("/api/v1/streams: {error}: {}", answer.text()))
    }

    #[track_caller]
    pub(crate) fn stream(&self, name: &str) -> StreamStatus {
        let found = self
            .status()
            .streams
            .into_iter()
            .find(|stream| stream.name == name);
        found.unwrap_or_else(|| panic!("no stream {name} in /api/v1/streams"))
    }

    /// How far its published time is ahead of the clock that the tick log goes by, in nanoseconds: at least and at most. It stays the same as
    /// long as the daemon runs.
    #[track_caller]
    pub(crate) fn published_time_ahead(&self) -> RangeInclusive<i64> {
        const CUT_OFF: i64 = 1_000_000;
        let boot = || {
            let now = clock_gettime(ClockId::Boottime);
            now.tv_sec * 1_000_000_000 + now.tv_nsec
        };
        let (mut least, mut most) = (i64::MIN, i64::MAX);
        for _ in 0..5 {
            let before = boot();
            let told = self.get("/time").text();
            let after = boot();
            let told = humantime::parse_rfc3339(&told).unwrap();
            let told = told.duration_since(UNIX_EPOCH).unwrap().as_nanos();
            let told = i64::try_from(told).unwrap();
            least = least.max(told - after);
            most = most.min(told + CUT_OFF - before);
        }
        least..=most
    }

    /// The media playlist in the publish folder. The origin lists segments a moment before the folder does, so the first one is waited for.
    #[track_caller]
    pub(crate) fn folder_playlist(&self, stream: &str, rendition: &str) -> String {
        let folder = self.place.live().join(stream).join(rendition);
        wait_for("the folder's playlist", Duration::from_secs(10), || {
            std::fs::read_to_string(folder.join("media.m3u8")).ok()
        })
    }

    /// Waits until the stream is live with segments listed.
    #[track_caller]
    pub(crate) fn wait_until_playable(&self, name: &str) -> StreamStatus {
        wait_for(
            &format!("{name} is live and lists segments"),
            Duration::from_secs(30),
            || {
                let stream = self.stream(name);
                (stream.state == StreamState::Live && stream.window.segments >= 2).then_some(stream)
            },
        )
    }

    /// Waits until the slates of these streams are encoded, which each does once, when its encoder works: the last that a stream's start takes of
    /// the machine.
    #[track_caller]
    pub(crate) fn wait_for_slates(&self, streams: &[&str]) {
        for name in streams {
            let of = format!("stream={name}");
            let is_its = |line: &str| {
                line.contains("slate encoded") && line.split(' ').any(|word| word == of)
            };
            let what = format!("the slate of {name} is encoded");
            wait_for(&what, Duration::from_secs(60), || {
                self.log().lines().any(is_its).then_some(())
            });
        }
    }

    #[track_caller]
    pub(crate) fn wait_for_state(
        &self,
        name: &str,
        state: StreamState,
        within: Duration,
    ) -> StreamStatus {
        wait_for(&format!("{name} is {state}"), within, || {
            let stream = self.stream(name);
            (stream.state == state).then_some(stream)
        })
    }

    /// A producer of this daemon, in a process and under a user of its own: `arguments` as on the command line.
    pub(crate) fn producer(&self, arguments: &[&str]) -> Process {
        self.producer_with(arguments, Stdio::null())
    }

    /// A producer that reads frames from `stdin`.
    pub(crate) fn producer_with(&self, arguments: &[&str], stdin: Stdio) -> Process {
        let mut command = self.place.command(Who::Camera);
        command.args(arguments).stdin(stdin);
        Process::start(&arguments.join(" "), &mut command)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    #[track_caller]
    pub(crate) fn wait(&mut self, within: Duration) -> ExitStatus {
        self.process.wait(within)
    }

    /// Ends it as a service manager does, and checks that it ends well, in the time that it may take.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.wait(Duration::from_secs(6));
        assert_eq!(status.code(), Some(0), "exit status after SIGTERM");
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again, in the same place with the same config; it must have ended.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.restart_unawaited();
        self.wait_until_healthy();
    }

    /// The same, and returns while it is still starting.
    #[track_caller]
    pub(crate) fn restart_unawaited(&mut self) {
        assert!(!self.process.is_running());
        self.process = serve(&self.place, &self.config, &self.environment);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Asked first, so that it ends its encoders; the process's own drop kills what is left.
        self.signal(Signal::TERM);
        let deadline = std::time::Instant::now() + Duration::from_secs(6);
        while self.process.is_running() && std::time::Instant::now() < deadline {
            super::pause();
        }
    }
}

fn serve(place: &Place, config: &std::path::Path, environment: &[String]) -> Process {
    // By env(1), so that a preloaded library is not loaded into the program that changes users.
    let mut command = match environment {
        [] => place.command(place.daemon),
        variables => {
            let mut command = place.command_of(place.daemon, "env");
            command.args(variables).arg(place.program());
            command
        }
    };
    command
        .args(["serve", "--config"])
        .arg(config)
        .stdin(Stdio::null());
    Process::start("ringgear serve", &mut command)
}
