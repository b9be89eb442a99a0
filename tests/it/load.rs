//! Four cameras on two cores: no tick late, memory bounded. `RINGGEAR_SOAK_SECONDS` sets how long; 30 without it.

use std::time::Duration;

use crate::harness::asked_for;

/// Whether it is run for its figures.
fn soaks() -> bool {
    std::env::var_os("RINGGEAR_SOAK_SECONDS").is_some()
}

fn soak_time() -> Duration {
    Duration::from_secs(asked_for("RINGGEAR_SOAK_SECONDS", 30))
}

mod alone {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread::JoinHandle;
    use std::time::{Duration, Instant};

    use ringgear::status::{EncoderStatus, StreamState, StreamsStatus};

    use super::{soak_time, soaks};
    use crate::harness::daemon::Daemon;
    use crate::harness::held::{ProcessorTime, memory_kb};
    use crate::harness::{alone, pause, wait_for};

    /// Encoders that have so much of the processors' time left are not what ticks wait for.
    const SPARE: f64 = 0.1;
    const CAMERAS: [&str; 4] = ["one", "two", "three", "four"];

    #[test]
    fn four_720p30_streams_run_on_time_in_bounded_memory() {
        let _machine = alone();
        let streams: String = CAMERAS
            .iter()
            .map(|name| {
                format!(
                    "[streams.{name}]\nframerate = 30\n[[streams.{name}.renditions]]\nname = \"720p\"\n\
                     size = \"1280x720\"\nbitrate = \"2500k\"\npreset = \"ultrafast\"\n"
                )
            })
            .collect();
        let daemon = Daemon::start(&streams);
        let mut producers: Vec<_> = CAMERAS
            .iter()
            .map(|name| {
                daemon.producer(&["pattern", name, "--size", "1280x720", "--format", "yuv420p"])
            })
            .collect();
        for name in CAMERAS {
            daemon.wait_for_state(name, StreamState::Live, Duration::from_secs(20));
        }
        let settled = Instant::now() + Duration::from_secs(5);
        wait_for("the first 5 s are over", Duration::from_secs(6), || {
            (Instant::now() >= settled).then_some(())
        });
        // Four encoders that start at once may get fewer pictures at first; that one which gets them all again begins late is no fault of ticks.
        wait_for("encoders get all pictures", Duration::from_secs(60), || {
            let streams = daemon.status().streams;
            let in_step = |encoder: &EncoderStatus| {
                encoder.reduced_to_per_second.is_none() && encoder.pending < 10
            };
            let all = streams.iter().all(|stream| in_step(&stream.encoder));
            all.then_some(())
        });
        let before = daemon.status();
        let hiccups = Hiccups::count();
        let processors = ProcessorTime::now();
        let until = Instant::now() + soak_time();
        let mut most = 0;
        let mut look = Instant::now();
        while Instant::now() < until {
            pause();
            if look.elapsed() > Duration::from_secs(1) {
                look = Instant::now();
                most = most.max(memory_over_windows(&daemon));
            }
        }
        let after = daemon.status();
        eprintln!(
            "RssAnon less windows: at most {most} kB; ticks fed: {}",
            ticks(&after)
        );
        for stream in &after.streams {
            let latency = &stream.latency;
            eprintln!(
                "{}: tick lateness {:?}, encoder delay {:?}",
                stream.name, latency.tick_lateness, latency.encoder_delay
            );
        }
        // Where the machine itself stands still for a moment, so do our threads.
        let hiccups = hiccups.end();
        let late = overdue(&after) - overdue(&before);
        let idle = processors.idle_share();
        eprintln!(
            "overdue: {late}; moments in which the machine stood still: {hiccups}; processors idle: {idle:.2}"
        );
        if idle >= SPARE {
            assert!(
                late <= hiccups * u64::try_from(CAMERAS.len()).unwrap(),
                "{late} overdue ticks after the first 5 s, and {hiccups} hiccups of the machine"
            );
            assert!(
                most < 60 * 1024,
                "RssAnon less the windows' bytes: {most} kB"
            );
            let expected = 4 * 30 * soak_time().as_secs();
            let fed = ticks(&after) - ticks(&before);
            assert!(
                fed.abs_diff(expected) <= 4 * 30,
                "{fed} ticks fed, {expected} expected"
            );
            let missed = after.streams.iter().map(|stream| stream.ticks.missed);
            assert_eq!(missed.sum::<u64>(), 0);
        } else {
            assert!(
                !soaks(),
                "the processors were idle for {idle:.2} of the time: beside other work nothing can be measured"
            );
            eprintln!(
                "NOT JUDGED: the machine had no time left for four encoders, which then hold pictures up"
            );
        }
        for producer in &mut producers {
            assert!(producer.is_running());
        }
        for stream in &after.streams {
            assert_eq!(stream.encoder.restarts, 0, "{stream:?}");
        }
    }

    /// Counts how often threads that do nothing, one on each processor, are woken much too late: a virtual machine's processors stand still
    /// each by itself.
    struct Hiccups {
        stop: Arc<AtomicBool>,
        threads: Vec<JoinHandle<u64>>,
    }

    impl Hiccups {
        fn count() -> Self {
            let stop = Arc::new(AtomicBool::new(false));
            let processors = std::thread::available_parallelism().unwrap().get();
            let watch = |processor| {
                let stopped = Arc::clone(&stop);
                std::thread::spawn(move || {
                    let mut here = rustix::thread::CpuSet::new();
                    here.set(processor);
                    // Where it may not choose, it is woken anywhere.
                    let _ = rustix::thread::sched_setaffinity(None, &here);
                    let (rest, mut count) = (Duration::from_millis(5), 0);
                    while !stopped.load(Ordering::Relaxed) {
                        let asleep = Instant::now();
                        std::thread::sleep(rest);
                        // Three quarters of a tick.
                        count += u64::from(asleep.elapsed() > rest + Duration::from_millis(25));
                    }
                    count
                })
            };
            let threads = (0..processors).map(watch).collect();
            Self { stop, threads }
        }

        fn end(self) -> u64 {
            self.stop.store(true, Ordering::Relaxed);
            self.threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        }
    }

    fn overdue(status: &StreamsStatus) -> u64 {
        status
            .streams
            .iter()
            .map(|stream| stream.ticks.overdue)
            .sum()
    }

    fn ticks(status: &StreamsStatus) -> u64 {
        status.streams.iter().map(|stream| stream.ticks.total).sum()
    }

    fn memory_over_windows(daemon: &Daemon) -> u64 {
        let windows: u64 = daemon
            .status()
            .streams
            .iter()
            .map(|stream| stream.window.bytes)
            .sum();
        memory_kb(daemon.pid(), "RssAnon").saturating_sub(windows / 1024)
    }
}
