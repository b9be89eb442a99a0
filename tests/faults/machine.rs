//! Rows of the machine: its clock and its descriptors.

use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use crate::harness::daemon::Daemon;
use crate::harness::held::{Held, limit_descriptors};
use crate::harness::place::Place;
use crate::harness::wall_clock::WallClock;
use crate::harness::{beside_others, tick_log, wait_for};
use crate::scene::{Allowed, CAMERA, FRAMERATE, Scene, newest_is_old, stream};

const HOUR: f64 = 3600.0;
const SOON: Duration = Duration::from_secs(30);

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
        let (_, rest) = line.split_once("by_seconds=")?;
        rest.split(' ').next()?.parse().ok()
    };
    lines.filter_map(by).collect()
}

/// An hour forward, two back; then a start with the clock an hour behind what is stored, as on a machine that booted without one.
#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn wall_clock_stepped_then_behind_at_a_start() {
    let machine = beside_others();
    let place = Place::new();
    let clock = WallClock::of(&place);
    let daemon = Daemon::start_in(place, &stream(), &clock.environment());
    let camera = daemon.producer(&CAMERA);
    let mut scene = Scene::of("wall clock stepped", machine, daemon, Some(camera));
    for (offset, step) in [(HOUR, HOUR), (-HOUR, -2.0 * HOUR)] {
        clock.set(offset);
        wait_for("the step is logged", SOON, || {
            let logged = steps(&scene.daemon);
            logged
                .iter()
                .any(|by| (by - step).abs() < 1.0)
                .then_some(())
        });
        scene.recovers();
        let (off, old) = (ahead(&scene.daemon), newest_is_old(&scene.daemon));
        assert!(off.abs() < 0.5, "/time is {off} s ahead");
        assert!(
            (0.0..4.0).contains(&old),
            "the newest segment is {old} s old"
        );
    }
    assert_eq!(steps(&scene.daemon).len(), 2, "{}", scene.daemon.log());
    let stream = scene.daemon.stream("cam");
    assert_eq!((stream.ticks.missed, stream.encoder.restarts), (0, 0));
    let rows = || tick_log::read(&scene.daemon.place.tick_logs(), "cam");
    assert!(
        rows()
            .windows(2)
            .all(|pair| pair[1].tick == pair[0].tick + 1)
    );

    scene.stop_daemon();
    let last = tick_log::read(&scene.daemon.place.tick_logs(), "cam");
    let last = last.last().unwrap().tick;
    scene.daemon.restart();
    scene.recovers();
    let log = scene.daemon.log();
    assert!(
        log.contains("the clock is behind what was published before"),
        "{log}"
    );
    let rows = tick_log::read(&scene.daemon.place.tick_logs(), "cam");
    let first = rows.iter().find(|row| row.tick > last).unwrap().tick;
    assert!(first - last <= 50, "{first} follows {last}");
    assert_eq!(scene.daemon.stream("cam").ticks.missed, 0);
    scene.end(Allowed {
        filled: 2 * FRAMERATE,
        replaced: FRAMERATE,
        ..Allowed::AWAY
    });
}

/// Viewers and cameras that come meanwhile wait; those that are there notice nothing.
#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn no_descriptors_left() {
    let mut scene = Scene::begin("no descriptors left", &stream());
    let before = scene.daemon.stream("cam");
    limit_descriptors(&scene.daemon, Held::by(&scene.daemon).descriptors + 4);
    let address = format!("127.0.0.1:{}", scene.daemon.place.port);
    let viewers: Vec<_> = (0..40)
        .map(|_| TcpStream::connect(&address).unwrap())
        .collect();
    let mut arguments = CAMERA.to_vec();
    arguments.push("--take-over");
    let late = scene.daemon.producer(&arguments);
    // Players have their connections, and the stream has what it needs.
    std::thread::sleep(Duration::from_secs(3));
    drop(late);
    drop(viewers);
    limit_descriptors(&scene.daemon, 4096);
    scene.recovers();
    let after = scene.daemon.stream("cam");
    assert_eq!((after.ticks.missed, after.restarts), (0, 0));
    assert_eq!(after.encoder.pid, before.encoder.pid);
    scene.end(Allowed {
        // Nothing is answered meanwhile.
        rules: &[2, 5],
        another_camera: true,
        ..Allowed::NOTHING
    });
}
