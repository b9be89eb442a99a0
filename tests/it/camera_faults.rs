//! Cameras that don't keep to the stream's rate, clock or size: each tick still has its picture, in order, and the timeline never breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringgear_producer::pattern::{Bars, PatternPainter};
use ringgear_producer::{Captured, FrameFormat, PixelFormat, Producer, ProducerOptions};

use crate::harness::daemon::Daemon;
use crate::harness::tick_log::{self, Kind, Row};
use crate::harness::truth::published_is_what_ingest_meant;
use crate::harness::{hls, wait_for};

fn stream(name: &str) -> String {
    format!(
        "[streams.{name}]\nframerate = 25\nsegment = \"1s\"\npart = \"200ms\"\nwindow = \"30s\"\n\
         [[streams.{name}.renditions]]\nname = \"small\"\nsize = \"320x180\"\nbitrate = \"600k\"\npreset = \"ultrafast\"\n"
    )
}

fn options(daemon: &Daemon, stream: &str, width: u32, height: u32) -> ProducerOptions {
    let format = FrameFormat::packed(PixelFormat::Bgr24, width, height).unwrap();
    ProducerOptions {
        socket: daemon.place.socket(),
        ..ProducerOptions::new(stream, format)
    }
}

/// Feeds a stream from a thread, as `pace` says: after how long each frame comes, and when it claims to have been captured.
struct Camera {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Camera {
    fn start(
        daemon: &Daemon,
        stream: &str,
        mut pace: impl FnMut(u64) -> (Duration, Option<Captured>) + Send + 'static,
    ) -> Self {
        let options = options(daemon, stream, 320, 180);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let painter = PatternPainter::new(options.format.clone());
            let mut producer = Producer::open(&options).unwrap();
            let mut due = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                let number = producer.next_frame_number();
                let (after, captured) = pace(number);
                due += after;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let mut frame = producer.begin().unwrap();
                let bars = Bars {
                    frame_number: u32::try_from(number).unwrap(),
                    captured_ms: 0,
                };
                painter.paint(bars, frame.bytes_mut());
                frame.commit(captured);
            }
            let committed = producer.committed();
            producer.close().unwrap();
            committed
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// The share of ticks in `rows` that showed a frame of their own, between the first such and the last.
fn fresh_share(rows: &[Row]) -> f64 {
    let is_fresh = |row: &&Row| row.kind == Kind::Fresh;
    let first = rows.iter().position(|row| is_fresh(&row)).unwrap();
    let last = rows.iter().rposition(|row| is_fresh(&row)).unwrap();
    let between = &rows[first..=last];
    between.iter().filter(is_fresh).count() as f64 / between.len() as f64
}

mod alone {
    use super::*;
    use crate::harness::alone;

    #[test]
    #[ignore = "the whole matrix takes minutes: make faults"]
    fn slow_fast_bursty_and_ill_clocked_cameras_leave_the_timeline_whole() {
        let _machine = alone();
        let names = ["slow", "fast", "bursty", "backwards", "foreign"];
        let config: String = names.iter().map(|name| stream(name)).collect();
        let mut daemon = Daemon::start(&config);
        let millis = Duration::from_millis;
        let cameras = [
            Camera::start(&daemon, "slow", move |_| (millis(100), None)),
            Camera::start(&daemon, "fast", move |_| (millis(10), None)),
            // Ten frames at once, then nothing for as long as they last.
            Camera::start(&daemon, "bursty", move |frame| {
                (
                    if frame % 10 == 0 {
                        millis(400)
                    } else {
                        Duration::ZERO
                    },
                    None,
                )
            }),
            // A clock that runs back, from now to before the boot.
            Camera::start(&daemon, "backwards", move |frame| {
                let now = ringgear_producer::now().0;
                (
                    millis(40),
                    Some(Captured(now.saturating_sub(frame * frame * 1_000_000_000))),
                )
            }),
            // Unix time, and then nonsense.
            Camera::start(&daemon, "foreign", move |frame| {
                let nanos = if frame % 2 == 0 {
                    1_800_000_000_000_000_000
                } else {
                    u64::MAX
                };
                (millis(40), Some(Captured(nanos)))
            }),
        ];
        for name in names {
            daemon.wait_until_playable(name);
        }
        wait_for("ten seconds of each", Duration::from_secs(30), || {
            let status = daemon.status();
            let enough = |stream: &ringgear::status::StreamStatus| stream.ticks.total > 250;
            status.streams.iter().all(enough).then_some(())
        });
        let committed = cameras.map(Camera::end);
        for (name, committed) in names.iter().zip(committed) {
            let status = wait_for("the session's account", Duration::from_secs(5), || {
                let status = daemon.stream(name);
                status.session.is_none().then_some(status)
            });
            let (frames, ticks) = (&status.frames, &status.ticks);
            assert_eq!(frames.received, committed, "{name}");
            assert_eq!(
                frames.used + frames.superseded + frames.late,
                committed,
                "{name}: {frames:?}"
            );
            assert_eq!((ticks.missed, status.encoder.restarts), (0, 0), "{name}");
        }
        daemon.stop();
        for name in names {
            let rows = tick_log::read(&daemon.place.tick_logs(), name);
            assert!(
                rows.windows(2).all(|pair| pair[1].tick == pair[0].tick + 1),
                "{name}: each tick once, in order"
            );
            let frames: Vec<_> = rows.iter().filter_map(|row| row.frame).collect();
            assert!(
                frames.is_sorted(),
                "{name}: frames are never shown in another order"
            );
            let share = fresh_share(&rows);
            // Of a burst that lies between two ticks the newest is shown, or two.
            let expected = match name {
                "slow" => 0.35..=0.45,
                "bursty" => 0.08..=0.3,
                _ => 0.9..=1.0,
            };
            eprintln!("{name}: {share:.3} of {} ticks fresh", rows.len());
            assert!(
                expected.contains(&share),
                "{name}: {share} of the ticks are fresh"
            );
            let (shown, fresh) = published_is_what_ingest_meant(&daemon, name, "small");
            assert!(
                shown >= 200 && fresh > 20,
                "{name}: {shown} shown, {fresh} fresh"
            );
        }
    }

    #[test]
    #[ignore = "the whole matrix takes minutes: make faults"]
    fn another_size_at_the_reopening_is_scaled_and_taking_turns_is_refused_with_the_reason() {
        let _machine = alone();
        let mut daemon = Daemon::start(&stream("cam"));
        let sizes = [(320, 180), (640, 360), (160, 120), (1280, 720), (320, 180)];
        for (width, height) in sizes {
            let size = format!("{width}x{height}");
            let camera = daemon.producer(&["pattern", "cam", "--size", &size]);
            wait_for("its frames are encoded", Duration::from_secs(20), || {
                let stream = daemon.stream("cam");
                let session = stream.session?;
                (session.width == width && session.committed > 50 && stream.ticks.fresh > 50)
                    .then_some(())
            });
            drop(camera);
            wait_for("its session is over", Duration::from_secs(5), || {
                daemon.stream("cam").session.is_none().then_some(())
            });
        }
        let stream = daemon.stream("cam");
        assert_eq!(
            (stream.ticks.missed, stream.encoder.restarts),
            (0, 0),
            "{stream:?}"
        );
        assert_eq!(
            (stream.renditions[0].width, stream.renditions[0].height),
            (Some(320), Some(180))
        );

        // Two producers that take turns: each start of an encoder would cost the machine more than the picture is worth.
        let refused = (0..10).find_map(|turn| {
            let (width, height) = if turn % 2 == 0 {
                (640, 360)
            } else {
                (320, 180)
            };
            Producer::open(&options(&daemon, "cam", width, height))
                .map(drop)
                .err()
        });
        let told = refused.expect("some turn is refused").to_string();
        assert!(
            told.contains("stream 'cam' can't take") && told.contains("try again in"),
            "{told}"
        );
        let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180", "--take-over"]);
        let before = daemon.stream("cam").ticks;
        wait_for("the stream goes on", Duration::from_secs(70), || {
            (daemon.stream("cam").ticks.fresh > before.fresh + 50).then_some(())
        });
        daemon.stop();
        let folder = daemon.place.live().join("cam/small");
        let playlist =
            hls::media(&std::fs::read_to_string(folder.join("media.m3u8")).unwrap()).unwrap();
        assert!(
            playlist
                .segments
                .iter()
                .all(|segment| !segment.gap && !segment.discontinuity)
        );
        let maps: std::collections::BTreeSet<_> = playlist
            .segments
            .iter()
            .map(|segment| &segment.map)
            .collect();
        assert_eq!(maps.len(), 1, "one init segment: {maps:?}");
    }
}
