//! The real daemon under a wall clock that others set, by libfaketime: nothing that viewers see jumps.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::harness::checker::Checker;
use crate::harness::daemon::Daemon;
use crate::harness::streams::small_stream;
use crate::harness::{hls, tick_log, wait_for};

fn stream() -> String {
    small_stream("cam", "window = \"8s\"")
}

const HOUR: f64 = 3600.0;

/// Debian's library, wherever this machine's architecture has it.
fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap();
    let candidates =
        folders.map(|folder| folder.unwrap().path().join("faketime/libfaketimeMT.so.1"));
    let mut found = candidates.filter(|path| path.exists());
    found
        .next()
        .expect("libfaketime is installed: scripts/setup test, or apt install libfaketime")
}

/// Sets the daemon's wall clock off the machine's.
fn set(file: &Path, seconds: f64) {
    let next = file.with_extension("next");
    std::fs::write(&next, format!("{seconds:+}\n")).unwrap();
    std::fs::rename(next, file).unwrap();
}

/// How far the daemon's published time is ahead of the machine's, in seconds.
fn ahead(daemon: &Daemon) -> f64 {
    let text = daemon.get("/time").text();
    let now = SystemTime::now();
    let told = humantime::parse_rfc3339(text.trim()).unwrap();
    match told.duration_since(now) {
        Ok(ahead) => ahead.as_secs_f64(),
        Err(behind) => -behind.duration().as_secs_f64(),
    }
}

/// The steps of the wall clock that the daemon has logged, in seconds.
fn steps(daemon: &Daemon) -> Vec<f64> {
    let log = daemon.log();
    let lines = log
        .lines()
        .filter(|line| line.contains("the wall clock was stepped"));
    let by = |line: &str| {
        line.split_once("by_seconds=")?
            .1
            .split(' ')
            .next()?
            .parse()
            .ok()
    };
    lines.filter_map(by).collect()
}

fn newest_starts(daemon: &Daemon) -> (u64, f64) {
    let text = daemon.get("/cam/small/media.m3u8").text();
    let playlist = hls::media(&text).unwrap();
    let newest = playlist.segments.last().unwrap();
    let starts = Duration::from_millis(newest.program_date_time.unwrap());
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    (newest.number, starts.as_secs_f64() - now.as_secs_f64())
}

mod alone {
    use super::*;
    use crate::harness::{alone, place::Place};

    #[test]
    #[ignore = "the whole matrix takes minutes: make faults"]
    fn a_wall_clock_that_is_stepped_or_behind_at_the_start_moves_nothing() {
        let _machine = alone();
        let place = Place::new();
        let file = place.path().join("faketime");
        set(&file, 0.0);
        let environment = [
            format!("LD_PRELOAD={}", library().display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
            "DONT_FAKE_MONOTONIC=1".to_owned(),
        ];
        let mut daemon = Daemon::start_in(place, &stream(), &environment);
        let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
        daemon.wait_until_playable("cam");
        let checker = Checker::over_http(&daemon, "cam");
        for (offset, step) in [(HOUR, HOUR), (-HOUR, -2.0 * HOUR)] {
            set(&file, offset);
            wait_for("the step is logged", Duration::from_secs(10), || {
                steps(&daemon)
                    .iter()
                    .any(|logged| (logged - step).abs() < 1.0)
                    .then_some(())
            });
            let before = newest_starts(&daemon).0;
            wait_for("segments go on", Duration::from_secs(10), || {
                (newest_starts(&daemon).0 >= before + 2).then_some(())
            });
            let (off, (_, starts)) = (ahead(&daemon), newest_starts(&daemon));
            assert!(off.abs() < 0.5, "/time is {off} s ahead");
            assert!(
                (-4.0..0.0).contains(&starts),
                "the newest segment is of {starts} s"
            );
        }
        assert_eq!(steps(&daemon).len(), 2, "{}", daemon.log());
        let stream = daemon.stream("cam");
        assert_eq!((stream.ticks.missed, stream.encoder.restarts), (0, 0));
        checker.finish().assert_clean();

        // The clock is an hour behind what is stored: as on a machine that booted without one.
        let newest = newest_starts(&daemon).0;
        daemon.stop();
        let rows = tick_log::read(&daemon.place.tick_logs(), "cam");
        assert!(rows.windows(2).all(|pair| pair[1].tick == pair[0].tick + 1));
        let last = rows.last().unwrap().tick;
        daemon.restart();
        let checker = Checker::over_http(&daemon, "cam");
        wait_for(
            "segments go on from the last",
            Duration::from_secs(15),
            || (newest_starts(&daemon).0 >= newest + 3).then_some(()),
        );
        assert!(
            daemon
                .log()
                .contains("the clock is behind what was published before")
        );
        let rows = tick_log::read(&daemon.place.tick_logs(), "cam");
        let first = rows.iter().find(|row| row.tick > last).unwrap().tick;
        assert!(first - last <= 50, "{first} follows {last}");
        let off = ahead(&daemon);
        assert!(
            (-30.0..1.5).contains(&off),
            "/time is {off} s ahead of the machine's"
        );
        assert_eq!(daemon.stream("cam").ticks.missed, 0);
        checker.finish().assert_clean();
    }
}
