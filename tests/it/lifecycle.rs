//! Stops and restarts: nothing that was published is lost, and numbers go on (rules 1, 6).

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use ringgear::status::StreamState;
use ringgear::tick::Framerate;
use rustix::process::Signal;

use crate::harness::broken_ffmpeg::BrokenFfmpeg;
use crate::harness::checker::Checker;
use crate::harness::daemon::Daemon;
use crate::harness::dash;
use crate::harness::hls::{self, MediaPlaylist};
use crate::harness::place::{Place, Who, give_to_daemon};
use crate::harness::process::run;
use crate::harness::service_manager::ServiceManager;
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

/// A killed daemon's child has its doors until it is FFmpeg.
#[test]
fn doors_that_somebody_still_holds_are_waited_for_but_not_forever() {
    let _machine = beside_others();
    let place = Place::new();
    let control = UnixListener::bind(place.socket()).unwrap();
    give_to_daemon(&place.socket());
    let origin = TcpListener::bind(("127.0.0.1", place.port)).unwrap();
    let held = std::thread::spawn(move || {
        control.accept().unwrap();
        drop(control);
        std::thread::sleep(Duration::from_millis(100));
        drop(origin);
    });
    let daemon = Daemon::start_in(place, &stream(), &[]);
    held.join().unwrap();
    let config = daemon.place.path().join("ringgear.toml");
    let mut second = daemon.place.command(Who::Daemon);
    let second = second.args(["serve", "--config"]).arg(config).output();
    let second = second.unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another ringgear already listens"), "{said}");
    assert_eq!(daemon.get("/healthz").status, 200);
}

/// Rules 11 and 31, of a live stream.
#[test]
fn a_stream_that_ends_with_the_daemon_says_so_in_both_formats() {
    let _machine = beside_others();
    let keys = "window = \"12s\"\nat_exit = \"end\"";
    let mut daemon = Daemon::start(&small_stream("cam", keys));
    let camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    daemon.wait_until_playable("cam");
    drop(camera);
    daemon.stop();
    let playlist = playlist(&daemon);
    assert!(playlist.ended, "{playlist:?}");
    let folder = daemon.place.live().join("cam");
    for segment in &playlist.segments {
        let file = folder.join("small").join(&segment.uri);
        assert!(file.exists(), "{file:?}");
    }
    let text = std::fs::read_to_string(folder.join("manifest.mpd")).unwrap();
    assert!(dash::read(&text).is_ok(), "{text}");
    assert!(text.contains("type=\"static\""), "{text}");
    assert!(!text.contains("minimumUpdatePeriod"), "{text}");
    let listed: f64 = playlist.segments.iter().map(|one| one.seconds).sum();
    let (_, period) = text.split_once("<Period ").unwrap();
    let seconds = |name: &str, within: &str| {
        let (_, value) = within.split_once(&format!("{name}=\"PT")).unwrap();
        let (value, _) = value.split_once("S\"").unwrap();
        value.parse::<f64>().unwrap()
    };
    let lasts = seconds("duration", period);
    assert!((lasts - listed).abs() < 0.001, "{listed} s: {text}");
    let end = seconds("start", period) + lasts;
    let ends = seconds("mediaPresentationDuration", &text);
    assert!((ends - end).abs() < 0.001, "{text}");
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
    let manager = ServiceManager::listen(&place);
    let environment = [manager.variable(), "WATCHDOG_USEC=300000".to_owned()];
    let mut daemon = Daemon::start_in(place, &stream(), &environment);
    assert_eq!(manager.next(), "READY=1");
    assert_eq!(manager.status(), "1 stream: 1 waiting");
    // A stream that nobody feeds goes on too.
    for _ in 0..5 {
        assert_eq!(manager.next(), "WATCHDOG=1");
    }
    let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    daemon.wait_until_playable("cam");
    wait_for("the status line says so", Duration::from_secs(15), || {
        assert_eq!(manager.next(), "WATCHDOG=1");
        (manager.status() == "1 stream: 1 live").then_some(())
    });
    daemon.stop();
    let last = std::iter::repeat_with(|| manager.next()).find(|text| text != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
}

/// Starts, encodes `cam` and stops: what to encode is remembered, so the next start tries an encoder at once.
pub(super) fn encode_once(daemon: &mut Daemon, manager: &ServiceManager) {
    assert_eq!(manager.next(), "READY=1");
    let camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    daemon.wait_until_playable("cam");
    drop(camera);
    daemon.stop();
    assert_eq!(manager.next(), "STOPPING=1");
}

#[test]
fn it_is_ready_once_the_encoders_that_it_starts_with_have_answered() {
    let _machine = beside_others();
    let place = Place::new();
    let manager = ServiceManager::listen(&place);
    let slow = BrokenFfmpeg::new("sleep 1; false");
    let config = slow.config("") + &stream();
    let mut daemon = Daemon::start_in(place, &config, &[manager.variable()]);
    encode_once(&mut daemon, &manager);
    daemon.restart();
    assert_eq!(manager.next(), "READY=1");
    let encoder = daemon.stream("cam").encoder;
    assert!(encoder.pid.is_some(), "{encoder:?}");
}

#[test]
fn a_stream_that_lacks_its_encoder_is_failed_and_others_run() {
    let _machine = beside_others();
    // It lists none of HEVC.
    let ffmpeg = BrokenFfmpeg::at("-encoders", "ffmpeg \"$@\" | grep -v libx265; exit 0");
    let yard = |codec: &str| {
        let codec = format!("codec = \"{codec}\"\npreset");
        small_stream("yard", "window = \"12s\"").replace("preset", &codec)
    };
    let config = ffmpeg.config("") + &stream();
    let daemon = Daemon::start(&(config.clone() + &yard("libx265")));
    let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    let before = daemon.wait_until_playable("cam");
    let failed = daemon.stream("yard");
    assert_eq!(failed.state, StreamState::Failed);
    let detail = failed.detail.unwrap();
    assert!(
        detail.contains("has no encoder libx265: install one that has it")
            && detail.ends_with("the daemon looks at FFmpeg when it starts"),
        "{detail}"
    );
    let log = daemon.log();
    assert!(log.contains("the stream can't be encoded: "), "{log}");

    // Another codec is taken up by a reload, for which the stream that fails is no hindrance either.
    let reload = || {
        let mut command = daemon.place.command(Who::Daemon);
        run(command.arg("reload"), Duration::from_secs(60))
    };
    let longer = config.replace("12s", "20s");
    daemon
        .place
        .write_config(&(longer.clone() + &yard("libx265")));
    let done = reload();
    let told = "stream cam goes on, changed: window\n";
    assert_eq!((done.code, &*done.stdout), (Some(0), told), "{done:?}");
    daemon
        .place
        .write_config(&(longer.clone() + &yard("libx264")));
    let done = reload();
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(daemon.stream("yard").state, StreamState::Waiting);
    assert_eq!(daemon.stream("cam").encoder.pid, before.encoder.pid);
    // A stream that runs is not changed to what can't be encoded.
    daemon.place.write_config(&(longer + &yard("libx265")));
    let refused = reload();
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert_eq!(daemon.stream("yard").state, StreamState::Waiting);
}

#[test]
fn while_a_stream_stands_still_the_watchdog_is_not_fed() {
    let _machine = beside_others();
    let place = Place::new();
    let manager = ServiceManager::listen(&place);
    let environment = [manager.variable(), "WATCHDOG_USEC=300000".to_owned()];
    let daemon = Daemon::start_in(place, &stream(), &environment);
    let stands_still = "streams stand still";
    let fault = daemon.place.faults().join("ingest.cam");
    let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    daemon.wait_until_playable("cam");
    std::fs::write(&fault, "hang").unwrap();
    wait_for("it is noticed", Duration::from_secs(30), || {
        manager.next_within(Duration::from_millis(200));
        daemon.log().contains(stands_still).then_some(())
    });
    while manager.next_within(Duration::from_secs(1)).is_some() {}
    assert_eq!(manager.next_within(Duration::from_secs(2)), None);
    std::fs::remove_file(&fault).unwrap();
    assert_eq!(manager.next(), "WATCHDOG=1");
}

mod alone {
    use rustix::process::{Pid, kill_process};

    use super::*;

    #[test]
    fn a_stop_ends_in_time_though_no_encoder_drains_and_starts_no_others() {
        let _machine = alone();
        // An FFmpeg that counts its starts, and once `hangs` is there reads nothing and never ends.
        let folder = tempfile::tempdir().unwrap();
        give_to_daemon(folder.path());
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
            http.wait_for_an_outage();
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
        // While nothing runs, nothing new can appear, and nothing is removed in time.
        folder.finish().assert_clean_but(&[2, 5]);
        let report = http.finish();
        report.assert_clean_but(&[5]);
    }
}
