//! The C library as its users have it: installed, found by pkg-config, built against by gcc and g++, fed to a real daemon that dies
//! and comes back.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ringgear::status::StreamState;

use crate::harness::beside_others;
use crate::harness::daemon::Daemon;
use crate::harness::place::{Who, command_as};
use crate::harness::process::Process;
use crate::harness::streams::small_stream;

fn stream() -> String {
    small_stream("cam", "window = \"6s\"\nstale_after = \"1m\"")
}

/// How a program is built and linked.
#[derive(Clone, Copy)]
struct Build {
    compiler: &'static str,
    arguments: &'static [&'static str],
    linked: Linked,
}

#[derive(Clone, Copy, PartialEq)]
enum Linked {
    Shared,
    Static,
}

const C: Build = Build {
    compiler: "gcc",
    arguments: &["-std=c99"],
    linked: Linked::Shared,
};
const STATIC_C: Build = Build {
    linked: Linked::Static,
    ..C
};
const CPP: Build = Build {
    compiler: "g++",
    arguments: &["-x", "c++", "-std=c++11"],
    linked: Linked::Shared,
};

/// `make install` into a folder of the daemon's place.
struct Installed {
    prefix: PathBuf,
}

impl Installed {
    fn new(daemon: &Daemon) -> Self {
        let prefix = daemon.place.path().join("prefix");
        let mut make = Command::new("make");
        make.args(["--silent", "-C"])
            .arg(repository("clients/c"))
            .arg("install")
            .arg(format!("PREFIX={}", prefix.display()));
        match std::env::var("RINGGEAR_C_BUILT") {
            // Built with the tests: a build of it alone would choose other features of what it stands on, and begin anew.
            Ok(folder) => make.args(["CARGO=true", &format!("built={folder}")]),
            Err(_) => make.args(["PROFILE=debug", concat!("CARGO=", env!("CARGO"))]),
        };
        run(&mut make);
        Self { prefix }
    }

    /// Builds the program from `source`, with every warning an error.
    fn build(&self, source: &Path, build: Build) -> PathBuf {
        let program = self.prefix.join(source.file_stem().unwrap());
        let mut pkg_config = Command::new("pkg-config");
        pkg_config
            .env("PKG_CONFIG_PATH", self.lib().join("pkgconfig"))
            .args(["--cflags", "--libs", "ringgear"]);
        if build.linked == Linked::Static {
            pkg_config.arg("--static");
        }
        let flags = run(&mut pkg_config);
        let mut compiler = Command::new(build.compiler);
        compiler
            .args(build.arguments)
            .args(["-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-o"])
            .arg(&program)
            .arg(source)
            .args(["-x", "none"]);
        for flag in flags.split_whitespace() {
            match flag {
                "-lringgear" if build.linked == Linked::Static => {
                    compiler.arg(self.lib().join("libringgear.a"))
                }
                flag => compiler.arg(flag),
            };
        }
        run(&mut compiler);
        program
    }

    fn lib(&self) -> PathBuf {
        self.prefix.join("lib")
    }

    /// The program as a producer of `daemon`. Without the shared library in reach where it was linked without.
    fn command(&self, daemon: &Daemon, program: &Path, linked: Linked) -> Command {
        let mut command = command_as(Who::Camera, program);
        command.env("RINGGEAR_SOCKET", daemon.place.socket());
        if linked == Linked::Shared {
            command.env("LD_LIBRARY_PATH", self.lib());
        }
        command
    }
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a command that has to succeed, and returns what it printed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; scripts/setup test installs it"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_example_feeds_a_stream_from_c_and_from_cpp() {
    let _machine = beside_others();
    let sound = "[streams.cam.audio]\nsource = \"producer\"\n";
    let daemon = Daemon::start(&(stream() + sound));
    let installed = Installed::new(&daemon);
    let count = |said: &str, name: &str| -> u64 {
        let after = said.split_once(name).unwrap().1.trim_start();
        after.split([',', '\n']).next().unwrap().parse().unwrap()
    };
    for build in [C, STATIC_C, CPP] {
        let program = installed.build(&repository("clients/c/example.c"), build);
        let mut example = installed.command(&daemon, &program, build.linked);
        let said = run(example.args(["cam", "30"]));
        let account = ["used", "superseded", "late"].map(|name| count(&said, name));
        assert_eq!(account.iter().sum::<u64>(), 30, "{said}");
        assert!(account[0] >= 15, "{said}");
        let mut wrong = installed.command(&daemon, &program, build.linked);
        let refused = wrong.args(["gate", "30"]).output().unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains("gate") && said.lines().count() == 1, "{said}");
    }
    let program = installed.build(&repository("clients/c/example_audio.c"), C);
    let said = run(installed
        .command(&daemon, &program, C.linked)
        .args(["cam", "1"]));
    let account = ["used", "superseded", "late"].map(|name| count(&said, name));
    assert_eq!(account.iter().sum::<u64>(), 100, "{said}");
}

#[test]
fn a_c_producer_outlives_its_daemon_twice() {
    life(C);
}

#[test]
fn a_cpp_producer_outlives_its_daemon_twice() {
    life(CPP);
}

fn life(build: Build) {
    let _machine = beside_others();
    let mut daemon = Daemon::start(&stream());
    let installed = Installed::new(&daemon);
    let program = installed.build(&repository("tests/it/c_client.c"), build);
    let mut command = installed.command(&daemon, &program, build.linked);
    let mut producer = Process::start("c_client.c", command.stdin(Stdio::piped()));
    let stdin = producer.take_stdin();
    producer.wait_for_line("feeding", Duration::from_secs(20));
    daemon.wait_for_state("cam", StreamState::Live, Duration::from_secs(10));
    let session = daemon.stream("cam").session.unwrap();
    assert_eq!((session.format.as_str(), session.width), ("nv12", 320));
    assert!(session.client.unwrap().starts_with("ringgear-c/"));
    let pixels = snapshot(&daemon);
    assert_eq!(pixels.len(), 320 * 180);
    // Luma 200 of 16 to 235, in the full range of JPEG; the source's padding would be black.
    let wrong = pixels.iter().find(|pixel| pixel.abs_diff(214) > 4);
    assert_eq!(wrong, None);
    daemon.kill();
    let away = producer.wait_for_line("away:", Duration::from_secs(5));
    assert!(away.contains("frames are dropped"), "{away}");
    daemon.restart();
    producer.wait_for_line("back:", Duration::from_secs(10));
    daemon.kill();
    drop(stdin);
    let status = producer.wait(Duration::from_secs(10));
    assert!(status.success(), "{status}: {}", producer.said());
}

/// The stream's newest picture, as luma of JPEG's range.
fn snapshot(daemon: &Daemon) -> Vec<u8> {
    let picture = daemon.place.path().join("snapshot.jpg");
    let answer = daemon.get("/cam/snapshot.jpg");
    assert_eq!(answer.status, 200);
    std::fs::write(&picture, &answer.body).unwrap();
    let output = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(&picture)
        .args(["-f", "rawvideo", "-pix_fmt", "gray", "-"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}
