//! Rows of the daemon itself.

use std::time::{Duration, Instant};

use crate::harness::wait_for;
use crate::scene::{Allowed, FRAMERATE, Scene, stream};

/// While the daemon is away nothing new appears, and nothing that its origin served is served.
const AWAY: &[u8] = &[2, 5];

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
    scene.daemon.stop();
    let first_tick = comes_back(&mut scene);
    scene.recovers();
    eprintln!("daemon restarted: its first tick after {first_tick:?}");
    let account = scene.end(Allowed {
        rules: AWAY,
        // What was in flight at the stop is encoded; the time until the next start is filled in.
        filled: 2 * FRAMERATE,
        replaced: FRAMERATE,
        ..Allowed::default()
    });
    let lost = account.filled.len() + account.replaced.len();
    eprintln!("daemon restarted: {lost} ticks without a frame");
}

#[test]
fn killed_under_three_players() {
    let mut scene = Scene::begin("daemon killed", &stream());
    for _ in 0..2 {
        scene.daemon.kill();
        std::thread::sleep(Duration::from_secs(1));
        comes_back(&mut scene);
        scene.recovers();
    }
    scene.end(Allowed {
        rules: AWAY,
        filled: 2 * 3 * FRAMERATE,
        // Frames of the part that was not durable yet, and of what the encoder had.
        replaced: 2 * FRAMERATE,
        ..Allowed::default()
    });
}

#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn killed_and_its_state_damaged() {
    let mut scene = Scene::begin("daemon killed, state.json damaged", &stream());
    let state = scene.daemon.place.live().join("cam/state.json");
    for damage in ["", "{\"version\": 99999999999999999999}", "\u{0}\u{0}\u{0}"] {
        scene.daemon.kill();
        std::fs::write(&state, damage).unwrap();
        comes_back(&mut scene);
        scene.recovers();
    }
    scene.daemon.kill();
    std::fs::remove_file(&state).unwrap();
    comes_back(&mut scene);
    scene.recovers();
    scene.end(Allowed {
        rules: AWAY,
        filled: 4 * 3 * FRAMERATE,
        replaced: 4 * FRAMERATE,
        ..Allowed::default()
    });
}

/// Longer than `backfill`: a gap, and a new period.
#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn away_for_longer_than_can_be_filled_in() {
    let mut scene = Scene::begin("daemon away for long", &stream());
    scene.daemon.kill();
    // `backfill` is 5 s.
    std::thread::sleep(Duration::from_secs(7));
    comes_back(&mut scene);
    // dash.js, which keeps its delay, waits before a gap for as long as the gap is.
    scene.recovers_within(Duration::from_secs(16));
    scene.end(Allowed {
        rules: AWAY,
        filled: 2 * FRAMERATE,
        replaced: FRAMERATE,
        missing: 11 * FRAMERATE,
        ..Allowed::default()
    });
}
