//! Stops and restarts: nothing that was published is lost, and numbers go on (rules 1, 6).

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use ringgear::tick::Framerate;
use rustix::process::Signal;

use crate::harness::checker::Checker;
use crate::harness::daemon::Daemon;
use crate::harness::hls::{self, MediaPlaylist};
use crate::harness::place::Place;
use crate::harness::streams::small_stream;
use crate::harness::{alone, beside_others, tick_log, wait_for};

fn stream() -> String {
    small_stream("cam", "window = \"12s\"")
}

fn playlist(daemon: &Daemon) -> MediaPlaylist {
    hls::media(&daemon.folder_playlist("cam", "small")).unwrap()
}

#[test]
fn sigterm_publishes_the_last_segment_and_ends_with_status_0() {
    let _machine = beside_others();
    let mut daemon = Daemon::start(&stream());
    let camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    daemon.wait_until_playable("cam");
    daemon.stop();
    camera.wait_for_line("wait", Duration::from_secs(5));
    let log = tick_log::read(&daemon.place.tick_logs(), "cam");
    let playlist = playlist(&daemon);
    let rate: Framerate = "25".parse().unwrap();
    let last = playlist.segments.last().unwrap();
    let starts_ms = last.program_date_time.unwrap();
    let lasts = Duration::from_secs_f64(last.seconds);
    let end_ms = starts_ms + u64::try_from(lasts.as_millis()).unwrap();
    let fed_until = rate.duration_of(log.last().unwrap().tick + 1);
    let fed_until_ms = u64::try_from(fed_until.as_millis()).unwrap();
    // Up to the edge of the grid, so that a restart begins at one.
    assert!(
        starts_ms < fed_until_ms && fed_until_ms <= end_ms + 1,
        "the last segment is {starts_ms} to {end_ms}, the last tick ends at {fed_until_ms}"
    );
    assert!((last.seconds - 1.0).abs() < 0.001, "it is whole: {last:?}");
    assert!(
        !playlist.ended,
        "a live stream that goes on after a restart has no ENDLIST"
    );
}

#[test]
fn a_second_signal_stops_at_once() {
    let _machine = beside_others();
    let mut daemon = Daemon::start(&stream());
    let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    daemon.wait_until_playable("cam");
    daemon.signal(Signal::INT);
    daemon.signal(Signal::TERM);
    let asked = Instant::now();
    daemon.wait(Duration::from_secs(3));
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "it took {:?}",
        asked.elapsed()
    );
}

#[test]
fn a_service_manager_is_told_of_the_start_the_life_and_the_stop() {
    let _machine = beside_others();
    let place = Place::new();
    let path = place.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let next = || {
        let mut text = [0; 100];
        let read = manager.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..read]).trim().to_owned()
    };
    let environment = [
        format!("NOTIFY_SOCKET={}", path.display()),
        "WATCHDOG_USEC=300000".to_owned(),
    ];
    let mut daemon = Daemon::start_in(place, &stream(), &environment);
    assert_eq!(next(), "READY=1");
    // A stream that nobody feeds goes on too.
    for _ in 0..5 {
        assert_eq!(next(), "WATCHDOG=1");
    }
    daemon.stop();
    let last = std::iter::repeat_with(next).find(|text| text != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
}

mod alone {
    use rustix::process::{Pid, kill_process};

    use super::*;
    use crate::harness::place;

    #[test]
    fn a_stop_ends_in_time_though_no_encoder_drains_and_starts_no_others() {
        let _machine = alone();
        // An FFmpeg that counts its starts, and once `hangs` is there reads nothing and never ends.
        let folder = tempfile::tempdir().unwrap();
        place::give_to_daemon(folder.path());
        let [ffmpeg, starts, hangs] =
            ["ffmpeg", "starts", "hangs"].map(|name| folder.path().join(name));
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in\n*\"-f nut\"*) echo start >> {starts:?}; if [ -e {hangs:?} ]; then exec sleep 60; fi ;;\nesac\n\
             exec ffmpeg \"$@\"\n"
        );
        std::fs::write(&ffmpeg, script).unwrap();
        std::fs::set_permissions(&ffmpeg, PermissionsExt::from_mode(0o755)).unwrap();
        let mut daemon = Daemon::start(&format!("[ffmpeg]\npath = {ffmpeg:?}\n{}", stream()));
        let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
        daemon.wait_until_playable("cam");
        let started = || std::fs::read_to_string(&starts).unwrap().lines().count();
        let before = started();
        std::fs::write(&hangs, "").unwrap();
        let pid = daemon.stream("cam").encoder.pid.unwrap();
        let stopped = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        kill_process(stopped, Signal::STOP).unwrap();
        wait_for(
            "another one holds pictures",
            Duration::from_secs(10),
            || {
                let encoder = daemon.stream("cam").encoder;
                let other = encoder.pid.is_some_and(|other| other != pid);
                (other && encoder.pending > 0).then_some(())
            },
        );
        daemon.stop();
        let log = daemon.log();
        assert!(log.contains("did not drain in time"), "{log}");
        let more = started() - before;
        assert_eq!(more, 1, "encoders were started after the stop: {log}");
        assert!(
            playlist(&daemon).segments.len() >= 2,
            "what was published stays"
        );
    }

    #[test]
    fn a_restart_goes_on_in_the_same_folder_with_the_right_numbers() {
        let _machine = alone();
        let mut daemon = Daemon::start(&stream());
        let camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
        daemon.wait_until_playable("cam");
        let folder = Checker::of_folder(&daemon, "cam");
        let http = Checker::over_http(&daemon, "cam");
        for end in ["SIGTERM", "SIGKILL"] {
            let before = playlist(&daemon);
            if end == "SIGTERM" {
                daemon.stop()
            } else {
                daemon.kill()
            }
            let at_end = playlist(&daemon);
            let foreign = daemon.place.live().join("cam/small/readme.txt");
            std::fs::write(&foreign, "not the daemon's").unwrap();
            daemon.restart();
            let now = wait_for(
                &format!("new segments after {end}"),
                Duration::from_secs(15),
                || {
                    let now = playlist(&daemon);
                    let last = |playlist: &MediaPlaylist| playlist.segments.last().unwrap().number;
                    (last(&now) >= last(&at_end) + 2).then_some(now)
                },
            );
            assert!(now.media_sequence >= before.media_sequence, "{end}");
            for segment in &at_end.segments {
                let kept = now
                    .segments
                    .iter()
                    .find(|other| other.number == segment.number);
                assert!(
                    kept.is_none_or(|kept| kept.uri == segment.uri && !kept.gap),
                    "{end}: {kept:?}"
                );
            }
            let breaks = now
                .segments
                .iter()
                .filter(|segment| segment.discontinuity)
                .count();
            assert_eq!(breaks, 0, "{end}: same settings, no discontinuity");
            assert!(
                foreign.exists(),
                "{end}: files that the daemon did not write stay"
            );
        }
        assert!(
            camera.said().contains("back"),
            "the producer says that it is back: {}",
            camera.said()
        );
        // While nothing runs, nothing new can appear, and nothing is removed in time: rules 2 and 5 count from the restart.
        folder.finish().assert_clean_but(&[2, 5]);
        let report = http.finish();
        assert!(report.outages > 0, "the checker saw no outage: {report:?}");
        report.assert_clean_but(&[2, 5]);
    }
}
