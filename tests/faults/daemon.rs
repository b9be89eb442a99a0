//! Rows of the daemon itself.

use std::time::{Duration, Instant};

use crate::harness::wait_for;
use crate::scene::{Allowed, FRAMERATE, Scene, stream};

#[track_caller]
fn comes_back(scene: &mut Scene) -> Duration {
    let begun = Instant::now();
    scene.daemon.restart();
    wait_for("ticks are counted again", Duration::from_secs(10), || {
        (scene.daemon.stream("cam").ticks.total > 0).then_some(())
    });
    begun.elapsed()
}

#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn terminated_and_started_again() {
    let mut scene = Scene::begin("daemon restarted", &stream());
    scene.stop_daemon();
    let first_tick = comes_back(&mut scene);
    scene.recovers();
    eprintln!("daemon restarted: its first tick after {first_tick:?}");
    let account = scene.end(Allowed {
        // What was in flight at the stop is encoded; the time until the next start is filled in.
        filled: 2 * FRAMERATE,
        replaced: FRAMERATE,
        ..Allowed::AWAY
    });
    let lost = (account.filled.len() + account.replaced.len()) as u64;
    eprintln!("daemon restarted: {lost} ticks without a frame");
    assert!(lost <= 2 * FRAMERATE, "{lost} ticks without a frame");
}

#[test]
fn killed_under_three_players() {
    let mut scene = Scene::begin("daemon killed", &stream());
    for _ in 0..2 {
        scene.kill_daemon();
        std::thread::sleep(Duration::from_secs(1));
        comes_back(&mut scene);
        scene.recovers_from_stall(Duration::from_secs(2));
    }
    scene.end(Allowed {
        filled: 2 * 3 * FRAMERATE,
        // Frames of the part that was not durable yet, and of what the encoder had.
        replaced: 2 * FRAMERATE,
        ..Allowed::AWAY
    });
}

#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn killed_and_its_state_damaged() {
    let mut scene = Scene::begin("daemon killed, state.json damaged", &stream());
    let state = scene.daemon.place.live().join("cam/state.json");
    for damage in ["", "{\"version\": 99999999999999999999}", "\u{0}\u{0}\u{0}"] {
        scene.kill_daemon();
        std::fs::write(&state, damage).unwrap();
        comes_back(&mut scene);
        scene.recovers();
    }
    scene.kill_daemon();
    std::fs::remove_file(&state).unwrap();
    comes_back(&mut scene);
    scene.recovers();
    scene.end(Allowed {
        filled: 4 * 3 * FRAMERATE,
        replaced: 4 * FRAMERATE,
        ..Allowed::AWAY
    });
}

/// Longer than `backfill`: a gap, and a new period.
#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn away_for_longer_than_can_be_filled_in() {
    let mut scene = Scene::begin("daemon away for long", &stream());
    scene.kill_daemon();
    // `backfill` is 5 s.
    std::thread::sleep(Duration::from_secs(7));
    comes_back(&mut scene);
    // dash.js, which keeps its delay, waits before a gap for as long as the gap is.
    scene.recovers_within(Duration::from_secs(16));
    scene.end(Allowed {
        filled: 2 * FRAMERATE,
        replaced: FRAMERATE,
        missing: 11 * FRAMERATE,
        ..Allowed::AWAY
    });
}

/// Each of the `tasks` panics, and the players play on, stalled for at most `stall`. Needs a build with faults in it; see `src/faults.rs`.
#[track_caller]
fn panic_in(scene: &mut Scene, tasks: &[&str], stall: Duration) {
    const SOON: Duration = Duration::from_secs(10);
    let asked = |scene: &Scene, task: &str| scene.daemon.place.faults().join(format!("{task}.cam"));
    for task in tasks {
        std::fs::write(asked(scene, task), "").unwrap();
    }
    for task in tasks {
        let asked = asked(scene, task);
        wait_for(&format!("{task} panics"), SOON, || {
            (!asked.exists()).then_some(())
        });
    }
    scene.recovers_from_stall(stall);
    assert_eq!(scene.daemon.stream("cam").detail, None, "{tasks:?}");
}

#[track_caller]
fn ends_after(scene: Scene, restarts: u64) {
    assert_eq!(scene.daemon.stream("cam").restarts, restarts);
    scene.end(Allowed {
        // Until the stream has started again, nothing new appears.
        rules: &[5],
        // What was on its way, each time.
        replaced: restarts * FRAMERATE,
        filled: restarts * FRAMERATE,
        ..Allowed::NOTHING
    });
}

#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn panics_in_a_stream() {
    let config = stream() + "[streams.cam.record]\nkeep = \"1h\"\n";
    let mut scene = Scene::begin("a stream panics", &config);
    // The first two take the whole stream with them.
    for task in ["stream", "ingest", "disk", "encoder", "record"] {
        panic_in(&mut scene, &[task], Duration::from_millis(500));
    }
    ends_after(scene, 2);
}

/// What tries an encoder, and what encodes the slate, comes to work once the stream has started again. Each further death in a row rests for longer.
#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn panics_in_a_row() {
    let mut scene = Scene::begin("a stream panics in a row", &stream());
    for task in ["probe", "stand-in"] {
        panic_in(&mut scene, &[task, "stream"], Duration::from_secs(3));
    }
    ends_after(scene, 4);
}
