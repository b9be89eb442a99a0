//! Rows of the producer.

use std::time::{Duration, Instant};

use ringgear::status::StreamState;
use ringgear_producer::pattern::{Bars, PatternPainter};
use ringgear_producer::{Captured, FrameFormat, PixelFormat, Producer, ProducerOptions};
use rustix::process::Signal;

use crate::harness::{beside_others, daemon::Daemon};
use crate::scene::{Allowed, CAMERA, Scene, stream};

const PATIENCE: Duration = Duration::from_secs(10);

/// Another camera counts its frames from 0, so the order of numbers is the log's alone to show.
const ANOTHER: Allowed = Allowed {
    another_camera: true,
    ..Allowed::NOTHING
};

#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn killed_and_back() {
    let mut scene = Scene::begin("producer killed", &stream());
    scene.camera = None;
    scene
        .daemon
        .wait_for_state("cam", StreamState::NoSignal, PATIENCE);
    scene.recovers();
    scene.camera = Some(scene.daemon.producer(&CAMERA));
    scene
        .daemon
        .wait_for_state("cam", StreamState::Live, PATIENCE);
    scene.recovers();
    scene.end(ANOTHER);
}

#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn stopped_and_continued() {
    let mut scene = Scene::begin("producer stopped", &stream());
    let camera = scene.camera.take().unwrap();
    camera.signal(Signal::STOP);
    scene
        .daemon
        .wait_for_state("cam", StreamState::NoSignal, PATIENCE);
    scene.recovers();
    camera.signal(Signal::CONT);
    scene
        .daemon
        .wait_for_state("cam", StreamState::Live, PATIENCE);
    scene.camera = Some(camera);
    scene.recovers();
    scene.end(Allowed::NOTHING);
}

#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn too_slow_then_too_fast() {
    let mut scene = Scene::begin("producer of another rate", &stream());
    for rate in ["7", "60"] {
        let before = scene.daemon.stream("cam");
        scene.camera = None;
        let mut arguments = CAMERA.to_vec();
        arguments.extend(["--framerate", rate]);
        scene.camera = Some(scene.daemon.producer(&arguments));
        scene.recovers();
        let now = scene.daemon.stream("cam");
        let repeated = now.ticks.repeated - before.ticks.repeated;
        let superseded = now.frames.superseded - before.frames.superseded;
        if rate == "7" {
            assert!(repeated > 80, "{repeated} repeated of {now:?}");
        } else {
            assert!(superseded > 100, "{superseded} superseded of {now:?}");
        }
    }
    scene.end(ANOTHER);
}

#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn another_size() {
    let mut scene = Scene::begin("producer of another size", &stream());
    for size in ["1280x720", "640x480", "320x180"] {
        scene.camera = None;
        scene.camera = Some(scene.daemon.producer(&["pattern", "cam", "--size", size]));
        scene.recovers();
        let session = scene.daemon.stream("cam").session.unwrap();
        assert_eq!(format!("{}x{}", session.width, session.height), size);
    }
    let published = scene.daemon.stream("cam").renditions;
    assert_eq!(
        (published[0].width, published[0].height),
        (Some(320), Some(180))
    );
    scene.end(ANOTHER);
}

/// A camera of the test's own, whose frames come in bursts and whose capture times make no sense.
#[test]
#[ignore = "the whole matrix takes minutes: make faults"]
fn bursts_and_foolish_capture_times() {
    let machine = beside_others();
    let daemon = Daemon::start(&stream());
    let format = FrameFormat::packed(PixelFormat::Bgr24, 320, 180).unwrap();
    let mut options = ProducerOptions::new("cam", format.clone());
    options.socket = daemon.place.socket();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let camera = std::thread::spawn(move || {
        let painter = PatternPainter::new(format);
        let mut producer = Producer::open(&options).unwrap();
        let begun = Instant::now();
        let mut burst = 0;
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            // Five frames at once, every fifth of a second.
            for within in 0..5_u64 {
                let mut frame = producer.begin().unwrap();
                let number = frame.number();
                let bars = Bars {
                    frame_number: u32::try_from(number).unwrap(),
                    captured_ms: number,
                };
                painter.paint(bars, frame.bytes_mut());
                let now = ringgear_producer::now().0;
                let captured = match number % 5 {
                    // Of the past, of another clock, of the future, backwards.
                    0 => 1,
                    1 => u64::MAX,
                    2 => now + 3_600_000_000_000,
                    3 => now.saturating_sub(3_600_000_000_000),
                    _ => now - within * 1_000_000_000,
                };
                frame.commit(Some(Captured(captured)));
            }
            burst += 1;
            let next = begun + burst * Duration::from_millis(200);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        producer.close().unwrap()
    });
    let mut scene = Scene::of("producer in bursts", machine, daemon, None);
    scene.recovers();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let counts = camera.join().unwrap();
    assert!(counts.used > 0, "{counts:?}");
    let stream = scene.daemon.stream("cam");
    let frames = &stream.frames;
    assert_eq!(
        frames.received,
        frames.used + frames.superseded + frames.late,
        "every frame is accounted for: {frames:?}"
    );
    scene.end(Allowed::NOTHING);
}
