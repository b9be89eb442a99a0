//! Rows of the encoder.

use std::time::Duration;

use ringgear::status::StreamState;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::broken_ffmpeg::BrokenFfmpeg;
use crate::harness::{asked_for, wait_for};
use crate::scene::{Allowed, Scene, longest_wait_for_a_part, stream, stream_for};

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Breaks the encoder so often, and gives how long viewers waited for a part each time, sorted.
fn break_it(scene: &mut Scene, times: u64, how: Signal) -> Vec<Duration> {
    let mut waits: Vec<Duration> = (0..times)
        .map(|_| {
            let pid = scene.encoder_pid();
            signal(pid, how);
            let wait = longest_wait_for_a_part(&scene.daemon, Duration::from_millis(2500));
            wait_for("another encoder runs", Duration::from_secs(5), || {
                (scene.encoder_pid() != pid).then_some(())
            });
            wait
        })
        .collect();
    waits.sort();
    waits
}

#[track_caller]
fn within_a_second(row: &str, waits: &[Duration]) {
    let p95 = waits[(waits.len() * 95).div_ceil(100) - 1];
    eprintln!(
        "{row}: {} times, a part after {:?} (median), {p95:?} (p95), {:?} (longest)",
        waits.len(),
        waits[waits.len() / 2],
        waits[waits.len() - 1]
    );
    assert!(p95 < Duration::from_secs(1), "{row}: {waits:?}");
}

#[test]
fn killed() {
    let times = asked_for("RINGGEAR_KILLS", 5);
    let mut scene = Scene::begin("encoder killed", &stream_for(90 + 3 * times));
    let waits = break_it(&mut scene, times, Signal::KILL);
    scene.recovers();
    let status = scene.daemon.stream("cam");
    assert_eq!(status.encoder.restarts, times);
    assert_eq!(status.encoder.replaced, 0);
    scene.end(Allowed::default());
    within_a_second("encoder killed", &waits);
}

/// Nothing tells of a stopped process but that nothing comes: half a second of `encoder_timeout` goes by first.
#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn stopped() {
    let times = asked_for("RINGGEAR_KILLS", 5);
    let mut scene = Scene::begin("encoder stopped", &stream_for(90 + 4 * times));
    let waits = break_it(&mut scene, times, Signal::STOP);
    scene.recovers();
    assert_eq!(scene.daemon.stream("cam").encoder.restarts, times);
    scene.end(Allowed::default());
    within_a_second("encoder stopped", &waits);
}

/// Players play the slate, and the camera's pictures again.
#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn keeps_failing() {
    const SOON: Duration = Duration::from_secs(10);
    let ffmpeg = BrokenFfmpeg::new("[ -e BROKEN ]");
    let config = ffmpeg.config("failures = 3\nretry_every = \"4s\"") + &stream();
    let mut scene = Scene::begin("encoder keeps failing", &config);
    wait_for("the slate", SOON, || {
        scene.daemon.log().contains("slate encoded").then_some(())
    });
    ffmpeg.break_it();
    signal(scene.encoder_pid(), Signal::KILL);
    scene
        .daemon
        .wait_for_state("cam", StreamState::Failed, SOON);
    scene.plays_the_slate();
    ffmpeg.mend_it();
    scene.daemon.wait_for_state("cam", StreamState::Live, SOON);
    scene.recovers();
    let status = scene.daemon.stream("cam");
    assert_eq!(status.ticks.missed, 0);
    // Of each part of the slate, one tick has a picture, which holds for the others.
    scene.end(Allowed {
        replaced: status.encoder.slate.div_ceil(5),
        held: status.encoder.slate,
        ..Allowed::default()
    });
}
