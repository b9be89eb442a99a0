//! What an ordinary user meets: sockets that are closed to it, folders that it can't write, pipes that it may not enlarge.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::Duration;

use crate::harness::daemon::Daemon;
use crate::harness::place::{Place, Who, command_as, is_root};
use crate::harness::process::{Process, run};
use crate::harness::{alone, beside_others};

const STREAM: &str = "[streams.cam]\nframerate = 25\nwindow = \"12s\"\n[[streams.cam.renditions]]\nname = \"small\"\n\
                      size = \"320x180\"\nbitrate = \"300k\"\npreset = \"ultrafast\"\n";

#[test]
fn the_socket_has_the_mode_of_the_config_and_a_stranger_is_told_so() {
    let _machine = beside_others();
    let daemon = Daemon::start(STREAM);
    let socket = daemon.place.socket();
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o660, "{mode:o}");
    if !is_root() {
        eprintln!("not root: the rest needs a second user");
        return;
    }
    let out = run(
        daemon
            .place
            .command(Who::Stranger)
            .args(["pattern", "cam", "--size", "320x180", "--frames", "1"]),
        Duration::from_secs(10),
    );
    assert_eq!(out.code, Some(1), "{out:?}");
    let said = out.stderr.trim();
    assert!(said.contains(&socket.display().to_string()), "{said}");
    assert!(
        said.to_lowercase().contains("permission") && said.contains("group"),
        "{said}"
    );
    let camera = daemon
        .place
        .command(Who::Camera)
        .args(["pattern", "cam", "--size", "320x180", "--frames", "10"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        camera.status.success(),
        "a member of the group may feed it: {camera:?}"
    );
}

#[test]
fn a_publish_folder_that_cant_be_written_is_an_error_of_the_config() {
    let _machine = beside_others();
    let place = Place::new();
    let path = place.write_config(STREAM);
    std::fs::set_permissions(place.live(), PermissionsExt::from_mode(0o555)).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let line = 1 + text
        .lines()
        .position(|line| line.starts_with("dir = "))
        .unwrap();
    for command in ["check", "serve"] {
        let out = run(
            place
                .command(Who::Daemon)
                .arg(command)
                .arg("--config")
                .arg(&path),
            Duration::from_secs(20),
        );
        assert_eq!(out.code, Some(2), "{command}: {out:?}");
        assert!(
            out.stderr.contains(&format!("ringgear.toml:{line}:")),
            "{command}: {out:?}"
        );
        assert!(
            out.stderr.contains(&place.live().display().to_string()),
            "{command}: {out:?}"
        );
    }
}

mod alone {
    use super::*;

    /// Takes what a user may have of pipe memory, says so, and keeps it until it is killed.
    const HOLD_PIPES: &str = "
import fcntl, os, sys
kept = []
while True:
    pipe = os.pipe()
    kept.append(pipe)
    try:
        fcntl.fcntl(pipe[1], 1031, 1 << 20)
    except OSError:
        break
    if len(kept) > 400:
        break
print('held', len(kept), flush=True)
sys.stdin.read()
";

    #[test]
    fn refused_pipe_memory_gives_a_warning_and_a_working_stream() {
        let _machine = alone();
        let mut holder = Process::start(
            "the holder of pipes",
            command_as(Who::LoneDaemon, "python3")
                .args(["-c", HOLD_PIPES])
                .stdin(Stdio::piped()),
        );
        let _open = holder.take_stdin();
        let held = holder.wait_for_line("held", Duration::from_secs(10));
        assert!(
            !held.ends_with("401"),
            "this user has no limit on pipe memory: {held}"
        );
        let daemon = Daemon::start_in(Place::of(Who::LoneDaemon), STREAM, &[]);
        let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
        daemon.wait_until_playable("cam");
        let log = daemon.log();
        let warnings: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("WARN") && line.to_lowercase().contains("pipe"))
            .collect();
        assert_eq!(
            warnings.len(),
            1,
            "one warning about the pipe's size: {log}"
        );
    }
}
