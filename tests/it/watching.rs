//! `ringgear status --watch`, on a terminal and into a pipe.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::harness::daemon::Daemon;
use crate::harness::place::Who;
use crate::harness::process::Process;
use crate::harness::streams::small_stream;
use crate::harness::{beside_others, wait_for};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_terminal_has_bars_and_is_left_as_it_was_found() {
    let _machine = beside_others();
    let daemon = Daemon::start(&small_stream("cam", ""));
    let place = &daemon.place;
    // script(1) is the terminal; the shell in it goes on after Ctrl-C, and says what became of the terminal.
    let program = place.program().display();
    let watch = format!("trap : INT; {program} status --watch; echo ended with $?; stty -a");
    let mut command = place.command_of(Who::Daemon, "script");
    command.args(["-qec", &watch, "/dev/null"]);
    let mut terminal = Process::start("script", command.stdin(Stdio::piped()));
    let mut keys = terminal.take_stdin().unwrap();
    wait_for("a screen", SOON, || {
        terminal.said().contains("STREAM").then_some(())
    });
    // Ctrl-C, of which the terminal makes a signal.
    keys.write_all(b"\x03").unwrap();
    wait_for("the end", SOON, || {
        terminal.said().contains("icanon").then_some(())
    });
    let shown = terminal.said();
    let (screen, after) = shown.split_once("ended with").unwrap();
    assert!(
        screen.contains("\x1b[?1049h") && screen.contains("cam"),
        "{shown}"
    );
    let left = screen.rfind("\x1b[?25h\x1b[?1049l");
    assert!(left > screen.rfind("\x1b[?1049h"), "{shown}");
    assert!(after.starts_with(" 0"), "{after}");
    let words: Vec<_> = after.split([' ', ';', '\n', '\r']).collect();
    assert!(
        words.contains(&"echo") && words.contains(&"icanon"),
        "{after}"
    );
}

#[test]
fn a_pipe_has_plain_text_or_an_object_a_line() {
    let _machine = beside_others();
    let daemon = Daemon::start(&small_stream("cam", ""));
    for arguments in [&["status", "--watch"][..], &["status", "--watch", "--json"]] {
        let watch = daemon.producer(arguments);
        let twice = || {
            let said = watch.said();
            (said.matches("cam").count() >= 2).then_some(said)
        };
        let said = wait_for("it is shown twice", SOON, twice);
        assert!(!said.contains('\x1b'), "{said}");
        if arguments.contains(&"--json") {
            let first: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
            assert_eq!(first["streams"][0]["name"], "cam");
        }
    }
}
