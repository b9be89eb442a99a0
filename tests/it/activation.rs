//! Doors that a service manager has opened: they stay open while one daemon follows the other.

use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use ringgear::status::{StreamState, StreamStatus, StreamsStatus};

use crate::harness::place::{Place, Who, give_to_daemon};
use crate::harness::process::{Process, run};
use crate::harness::streams::small_stream;
use crate::harness::{beside_others, http, wait_for};

/// `ringgear serve` with `doors` as a service manager passes them on: sd_listen_fds(3).
fn serve(place: &Place, doors: &[BorrowedFd<'_>]) -> Command {
    let config = place.write_config(&small_stream("cam", ""));
    // The process's number is known to nobody before it runs.
    let script = format!(
        "LISTEN_PID=$$ exec {:?} serve --config {config:?}",
        place.program()
    );
    let mut command = place.command_of(Who::Daemon, "/bin/sh");
    command
        .args(["-c", &script])
        .env("LISTEN_FDS", doors.len().to_string());
    let mappings = (3..).zip(doors).map(|(child_fd, door)| FdMapping {
        parent_fd: door.try_clone_to_owned().unwrap(),
        child_fd,
    });
    command.fd_mappings(mappings.collect()).unwrap();
    command
}

fn stream(place: &Place) -> StreamStatus {
    let answer = http::get(place.port, "/api/v1/streams").unwrap();
    let mut status: StreamsStatus = serde_json::from_slice(&answer.body).unwrap();
    status.streams.remove(0)
}

#[test]
fn viewers_and_producers_who_come_while_there_is_no_daemon_meet_the_next_one() {
    let _machine = beside_others();
    let place = Place::new();
    let control = UnixListener::bind(place.socket()).unwrap();
    std::fs::set_permissions(place.socket(), PermissionsExt::from_mode(0o666)).unwrap();
    let origin = TcpListener::bind(("127.0.0.1", place.port)).unwrap();
    let doors = [control.as_fd(), origin.as_fd()];
    let start = || Process::start("ringgear serve", &mut serve(&place, &doors));

    // Both are there before the daemon, and wait for it.
    let mut camera = place.command(Who::Camera);
    let _camera = Process::start(
        "camera",
        camera.args(["pattern", "cam", "--size", "320x180"]),
    );
    let mut daemon = std::thread::scope(|scope| {
        let viewer = scope.spawn(|| http::get(place.port, "/healthz"));
        let daemon = start();
        assert_eq!(viewer.join().unwrap().unwrap().status, 200);
        daemon
    });
    let live = |what| {
        wait_for(what, Duration::from_secs(20), || {
            (stream(&place).state == StreamState::Live).then(|| stream(&place))
        })
    };
    let first = live("the stream is live").session.unwrap();
    daemon.kill();

    // Nobody holds the doors but who has opened them: no encoder of the daemon that is dead.
    let next = std::thread::scope(|scope| {
        let viewer = scope.spawn(|| http::get(place.port, "/healthz"));
        let next = start();
        assert_eq!(viewer.join().unwrap().unwrap().status, 200);
        next
    });
    let second = live("the producer has come back").session.unwrap();
    assert_eq!(second.pid, first.pid);
    drop(next);
    assert!(
        place.socket().exists(),
        "whose door it is not does not take it away"
    );
}

#[test]
fn what_the_config_says_of_doors_in_vain_is_warned_of() {
    let _machine = beside_others();
    let place = Place::new();
    let control = UnixListener::bind(place.path().join("other.sock")).unwrap();
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = origin.local_addr().unwrap();
    let daemon = Process::start(
        "ringgear serve",
        &mut serve(&place, &[control.as_fd(), origin.as_fd()]),
    );
    wait_for("it answers", Duration::from_secs(20), || {
        http::get(other.port(), "/healthz").ok()
    });
    let said = daemon.said();
    let socket = place.socket();
    for (key, asked, opened) in [
        (
            "[http] listen",
            format!("127.0.0.1:{}", place.port),
            other.to_string(),
        ),
        (
            "[daemon] socket",
            socket.display().to_string(),
            place.path().join("other.sock").display().to_string(),
        ),
    ] {
        let line = format!("{key} says {asked}, but the socket unit has opened {opened}");
        assert!(said.contains(&line), "{line}: {said}");
    }
    assert!(said.contains("systemctl edit ringgear.socket"), "{said}");
    drop(daemon);

    // The same path with other rights.
    let control = UnixListener::bind(&socket).unwrap();
    give_to_daemon(&socket);
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o600)).unwrap();
    let daemon = Process::start("ringgear serve", &mut serve(&place, &[control.as_fd()]));
    wait_for("it answers", Duration::from_secs(20), || {
        http::get(place.port, "/healthz").ok()
    });
    let said = daemon.said();
    let line = "[daemon] socket_mode says 0660, but the socket unit has opened 0600";
    assert!(said.contains(line), "{said}");
    assert!(!said.contains("[http] listen says"), "{said}");
}

#[test]
fn doors_that_are_of_no_use_are_an_error() {
    let _machine = beside_others();
    let place = Place::new();
    let [one, other] = [0, 0].map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap());
    let begun = Instant::now();
    let refused = run(
        &mut serve(&place, &[one.as_fd(), other.as_fd()]),
        Duration::from_secs(20),
    );
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("listener 2 is of no use"),
        "{refused:?}"
    );
    // A service manager starts it again at once. A busy machine only takes longer.
    assert!(
        begun.elapsed() > Duration::from_secs(2),
        "it has not rested"
    );
}

#[test]
fn a_door_to_other_machines_is_opened_only_if_the_config_says_how() {
    let _machine = beside_others();
    let place = Place::new();
    let door = TcpListener::bind("0.0.0.0:0").unwrap();
    let refused = run(&mut serve(&place, &[door.as_fd()]), Duration::from_secs(20));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("allow_anyone"), "{refused:?}");
}

#[test]
fn the_unit_gives_the_daemon_no_more_than_it_needs() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/ringgear.service");
    // Ten times the exposure level that is passed.
    let judged = run(
        Command::new("systemd-analyze").args([
            "security",
            "--offline=true",
            "--threshold=20",
            unit,
        ]),
        Duration::from_secs(20),
    );
    assert_eq!(judged.code, Some(0), "{}", judged.stdout);
    assert!(
        judged.stdout.contains("Overall exposure level"),
        "{judged:?}"
    );
}
