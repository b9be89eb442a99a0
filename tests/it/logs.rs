//! What the daemon logs: lines that name their stream, in the form that was asked for.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::harness::daemon::Daemon;
use crate::harness::place::{Place, Who, is_root};
use crate::harness::process::run;
use crate::harness::{beside_others, not_shown, wait_for};

/// Modules whose every line is of one stream.
const ROOMS: [&str; 6] = ["audio", "encode", "ingest", "publish", "source", "stream"];

#[test]
fn every_line_is_an_object_and_names_its_stream() {
    let _machine = beside_others();
    let environment =
        ["RINGGEAR_LOG_FORMAT=json", "RINGGEAR_LOG=debug,hyper=off"].map(str::to_owned);
    let config = "[streams.cam]\nframerate = 25\nsource = \"testsrc2=s=320x180:r=25\"\ninput_args = [\"-f\", \"lavfi\"]\n";
    let mut daemon = Daemon::start_in(Place::new(), config, &environment);
    daemon.wait_until_playable("cam");
    wait_for("FFmpeg's own words", Duration::from_secs(30), || {
        daemon.log().contains("ffmpeg: ").then_some(())
    });
    daemon.stop();
    let log = daemon.log();
    let mut of_streams = 0;
    for line in log.lines() {
        let object: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        for key in ["time", "level", "target", "message"] {
            assert!(object[key].is_string(), "{key} is missing in {line}");
        }
        let mut target = object["target"].as_str().unwrap().split("::");
        let of_stream = target.next() == Some("ringgear")
            && target.next().is_some_and(|room| ROOMS.contains(&room));
        if of_stream {
            assert_eq!(object["stream"], "cam", "{line}");
            of_streams += 1;
        }
    }
    assert!(of_streams > 5, "{log}");
}

/// A journal of the test's own reads the standard error of a daemon as it does a unit's, and says what it has of the stream `gate`.
const JOURNAL: &str = r#"
mount -t tmpfs none /run
mkdir -p /run/systemd/journal /run/log/journal
/lib/systemd/systemd-journald & journal=$!
trap 'kill $journal $daemon' EXIT
tries=300
until [ -S /run/systemd/journal/socket ] && [ -S /run/systemd/journal/stdout ] || [ $((tries -= 1)) -lt 0 ]; do sleep 0.1; done
systemd-cat sh -c 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$0" serve --config "$1"' "$0" "$1" & daemon=$!
until journalctl -o json RINGGEAR_STREAM=gate | grep -q . || [ $((tries -= 1)) -lt 0 ]; do sleep 0.1; done
journalctl -o json RINGGEAR_STREAM=gate | head -n 1
"#;

#[test]
fn a_journal_that_reads_the_daemon_gets_fields() {
    if !is_root() {
        not_shown("a journal of one's own takes root");
        return;
    }
    let _machine = beside_others();
    let place = Place::new();
    let source = "source = \"rtsp://127.0.0.1:9/away\"";
    let config = place.write_config(&format!("[streams.gate]\nframerate = 25\n{source}\n"));
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", JOURNAL]);
    command.arg(place.program()).arg(config);
    let out = run(&mut command, Duration::from_secs(120));
    let line: Value =
        serde_json::from_str(&out.stdout).unwrap_or_else(|error| panic!("{error}: {out:?}"));
    for (field, told) in [
        ("PRIORITY", "4"),
        ("SYSLOG_IDENTIFIER", "ringgear"),
        ("TARGET", "ringgear::source"),
        ("CODE_FILE", "src/source/mod.rs"),
        ("_TRANSPORT", "journal"),
    ] {
        assert_eq!(line[field], told, "{line}");
    }
    let message = line["MESSAGE"].as_str().unwrap();
    assert!(
        message.starts_with("the source gives no pictures"),
        "{line}"
    );
}

#[test]
fn levels_and_formats_that_are_none_end_with_status_2_and_what_there_is() {
    let place = Place::new();
    for (variable, said) in [
        (
            "RINGGEAR_LOG=info,ringgear::http=loud",
            "'loud' is not a level: use error, warn, info",
        ),
        (
            "RINGGEAR_LOG_FORMAT=xml",
            "[possible values: text, json, journal]",
        ),
    ] {
        let mut command = place.command_of(Who::Daemon, "env");
        command.arg(variable).arg(place.program()).arg("serve");
        let out = run(&mut command, Duration::from_secs(20));
        assert_eq!(out.code, Some(2), "{out:?}");
        assert!(out.stderr.contains(said), "{out:?}");
    }
}
