//! Bad configs and arguments through the real program: exit status 2, and a line with place, cause and mend.

use std::time::Duration;

use crate::harness::beside_others;
use crate::harness::place::{Place, Who};
use crate::harness::process::run;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_bad_config_ends_check_and_serve_with_status_2_and_all_errors_with_their_places() {
    let _machine = beside_others();
    let place = Place::new();
    // Line and column are counted from the text below, which `write_config` puts behind its own.
    let path = place.write_config(concat!(
        "[streams.door]\n",
        "framerate = 0\n",
        "segmnt = \"2s\"\n",
        "[[streams.door.renditions]]\n",
        "name = \"a\"\n",
        "size = \"641x360\"\n",
        "[[streams.door.renditions]]\n",
        "name = \"a\"\n",
    ));
    let text = std::fs::read_to_string(&path).unwrap();
    let line = |what: &str| {
        1 + text
            .lines()
            .position(|line| line.starts_with(what))
            .unwrap()
    };
    for command in ["check", "check --config", "serve --config"] {
        let words = command.split(' ');
        let out = run(place.command(Who::Daemon).args(words).arg(&path), PATIENCE);
        assert_eq!(out.code, Some(2), "{command}: {out:?}");
        for (line, word) in [
            (line("framerate"), "framerate"),
            (line("segmnt"), "segment"),
            (line("size = \"641"), "641x360"),
        ] {
            let place = format!("ringgear.toml:{line}:");
            let said = out.stderr.lines().find(|said| said.contains(&place));
            // Editors look for the place at the line's beginning.
            assert!(said.is_none_or(|said| said.starts_with('/')), "{said:?}");
            let said = said.unwrap_or_else(|| panic!("{command}: nothing about {place}: {out:?}"));
            assert!(said.contains(word), "{command}: {said}");
        }
        assert!(!out.stderr.contains("panicked"), "{out:?}");
    }
    let mut both = place.command(Who::Daemon);
    let both = both.arg("check").arg(&path).arg("--config").arg(&path);
    assert_eq!(run(both, PATIENCE).code, Some(2));
}

#[test]
fn a_good_config_passes_check() {
    let _machine = beside_others();
    let place = Place::new();
    let path = place.write_config("[streams.door]\nframerate = 30\n");
    let out = run(
        place
            .command(Who::Daemon)
            .arg("check")
            .arg("--config")
            .arg(path),
        PATIENCE,
    );
    assert_eq!(out.code, Some(0), "{out:?}");
}

#[test]
fn a_config_that_is_not_there_and_arguments_that_make_no_sense_are_status_2() {
    let _machine = beside_others();
    let place = Place::new();
    for arguments in [
        &["check", "--config", "nowhere.toml"][..],
        &["serve", "--config", "nowhere.toml"],
        &["pattern"],
        &["pattern", "cam", "--size", "wide"],
        &["dance"],
    ] {
        let out = run(place.command(Who::Daemon).args(arguments), PATIENCE);
        assert_eq!(out.code, Some(2), "{arguments:?}: {out:?}");
        assert!(!out.stderr.is_empty(), "{arguments:?} says nothing");
    }
}

#[test]
fn a_missing_ffmpeg_is_named_with_what_to_install() {
    let _machine = beside_others();
    let place = Place::new();
    let path =
        place.write_config("[ffmpeg]\npath = \"no-such-ffmpeg\"\n[streams.door]\nframerate = 30\n");
    for command in ["check", "check --config", "serve --config"] {
        let words = command.split(' ');
        let out = run(place.command(Who::Daemon).args(words).arg(&path), PATIENCE);
        assert!(matches!(out.code, Some(1 | 2)), "{command}: {out:?}");
        assert!(out.stderr.contains("no-such-ffmpeg"), "{command}: {out:?}");
        assert!(
            out.stderr.to_lowercase().contains("install"),
            "{command}: {out:?}"
        );
    }
}

#[test]
fn a_socket_option_that_would_change_nothing_is_refused() {
    let _machine = beside_others();
    let place = Place::new();
    for command in ["serve", "check", "demo"] {
        let arguments = [command, "--socket", "/nowhere"];
        let out = run(place.command(Who::Daemon).args(arguments), PATIENCE);
        assert_eq!(out.code, Some(2), "{out:?}");
        assert!(out.stderr.contains("[daemon] socket"), "{out:?}");
    }
}
