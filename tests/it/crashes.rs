//! Death at any instruction: of producers, whose frames are whole or not shown at all, and of the daemon, whose producers
//! all come back. `RINGGEAR_KILLS` says how often; 50 times without it.

mod alone {
    use std::path::Path;
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    use crate::harness::daemon::Daemon;
    use crate::harness::dice::Dice;
    use crate::harness::held::Held;
    use crate::harness::place::{Who, command_as};
    use crate::harness::process::Process;
    use crate::harness::truth::published_is_what_ingest_meant;
    use crate::harness::{alone, asked_for, pause, wait_for};

    const CAMERAS: usize = 10;
    /// How long a session lasts before the end of which its producer begins its backoff anew.
    const GOOD_SESSION: Duration = Duration::from_secs(2);
    /// Kills after which everything that is made once has been made.
    const WARM: u64 = 10;

    /// Microseconds, to the microsecond: the moment of death is the test's input.
    fn spin(micros: u64) {
        let until = Instant::now() + Duration::from_micros(micros);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    }

    #[track_caller]
    fn settled(daemon: &Daemon, within: &Held) -> Held {
        wait_for("the last session is gone", Duration::from_secs(5), || {
            let held = Held::by(daemon);
            let gone = daemon.stream("cam").session.is_none() && (held.rings, held.names) == (0, 0);
            gone.then_some(())
        });
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let held = Held::by(daemon);
            if held.is_no_more_than(within) || Instant::now() > deadline {
                return held;
            }
            pause();
        }
    }

    /// The example in plain Python as a producer of `stream`, of the daemon's own user where its ring is to be named.
    fn in_python(daemon: &Daemon, stream: &str, memory: &str, size: &str, rate: &str) -> Process {
        let who = match memory {
            "named" => Who::Daemon,
            _ => Who::Camera,
        };
        let example = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/clients/python/examples/pure_python_producer.py"
        );
        // Where all users can read it.
        let folder = daemon.place.path();
        let copy = folder.join("pure_python_producer.py");
        if !Path::exists(&copy) {
            std::fs::copy(example, copy).unwrap();
        }
        let mut command = command_as(who, "python3");
        command.args(["-c", include_str!("named_producer.py")]);
        command.arg(folder).args([memory, stream]);
        command.args(["--size", size, "--framerate", rate]);
        command.arg("--socket").arg(daemon.place.socket());
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
        Process::start(
            &format!("python, {memory}, {stream}"),
            command.stdin(Stdio::null()),
        )
    }

    #[test]
    fn a_producer_killed_anywhere_leaves_nothing_behind_and_tears_no_frame() {
        let _machine = alone();
        let mut daemon = Daemon::start(
            "[limits]\nsessions_per_second = 1000\n[streams.cam]\nframerate = 25\nsegment = \"1s\"\nwindow = \"3600s\"\n\
             stale_after = \"1h\"\n[[streams.cam.renditions]]\nname = \"small\"\nsize = \"640x360\"\nbitrate = \"600k\"\n\
             preset = \"ultrafast\"\n",
        );
        // Frames so quick that most of a producer's time goes into writing them.
        let pattern = [
            "pattern",
            "cam",
            "--size",
            "640x360",
            "--framerate",
            "240",
            "--take-over",
        ];
        let warm_up = daemon.producer(&pattern);
        daemon.wait_until_playable("cam");
        daemon.wait_for_slates(&["cam"]);
        drop(warm_up);
        let any = Held {
            descriptors: usize::MAX,
            threads: usize::MAX,
            mappings: usize::MAX,
            rings: 0,
            names: 0,
        };
        let mut warm = settled(&daemon, &any);
        let (mut young, mut streaming) = (0, 0);
        let mut dice = Dice(1);
        for kill in 0..asked_for("RINGGEAR_KILLS", 50) {
            // In Rust and in Python, with a memfd and with a named ring; each of them in both of its ages.
            let python = |memory| in_python(&daemon, "cam", memory, "640x360", "240");
            let (mut camera, youth) = match kill / 2 % 4 {
                0 | 1 => (daemon.producer(&pattern), 60_000),
                2 => (python("memfd"), 400_000),
                _ => (python("named"), 400_000),
            };
            if kill % 2 == 0 {
                // Anywhere from its first instruction to its first frames.
                spin(dice.below(youth));
                young += 1;
            } else {
                wait_for("its frames arrive", Duration::from_secs(10), || {
                    let session = daemon.stream("cam").session?;
                    let its = u32::try_from(session.pid) == Ok(camera.pid());
                    (its && session.committed > 0).then_some(())
                });
                spin(dice.below(10_000));
                streaming += 1;
            }
            camera.kill();
            if kill == WARM {
                warm = settled(&daemon, &any);
            }
        }
        let held = settled(&daemon, &warm);
        eprintln!("{young} killed young, {streaming} while streaming: {warm:?} -> {held:?}");
        assert!(
            held.is_no_more_than(&warm),
            "{warm:?} before, {held:?} after"
        );

        let _camera = daemon.producer(&pattern);
        let before = daemon.stream("cam");
        wait_for("the next producer is heard", Duration::from_secs(5), || {
            let now = daemon.stream("cam");
            (now.ticks.fresh > before.ticks.fresh + 25).then_some(())
        });
        let ticks = daemon.stream("cam").ticks;
        assert_eq!(ticks.missed, 0, "{ticks:?}");
        daemon.stop();
        let (shown, fresh) = published_is_what_ingest_meant(&daemon, "cam", "small");
        eprintln!("{shown} pictures published, {fresh} of them fresh, none torn");
        assert!(fresh > 25);
    }

    #[test]
    fn ten_live_producers_come_back_within_two_seconds_of_the_daemon() {
        let _machine = alone();
        let name = |camera: usize| format!("cam{camera}");
        let streams: String = (0..CAMERAS)
            .map(|camera| {
                format!(
                    "[streams.{}]\nframerate = 5\nwindow = \"12s\"\n[[streams.{}.renditions]]\nname = \"small\"\nsize = \"160x90\"\n\
                     bitrate = \"100k\"\npreset = \"ultrafast\"\n",
                    name(camera),
                    name(camera)
                )
            })
            .collect();
        let mut daemon = Daemon::start(&streams);
        // Two of them are in Python, one with a named ring.
        let mut cameras: Vec<_> = (0..CAMERAS)
            .map(|camera| match camera {
                0 => in_python(&daemon, &name(camera), "memfd", "160x90", "5"),
                1 => in_python(&daemon, &name(camera), "named", "160x90", "5"),
                _ => daemon.producer(&["pattern", &name(camera), "--size", "160x90"]),
            })
            .collect();
        let fed = |daemon: &Daemon| {
            let sessions = daemon.status().streams.into_iter();
            let sessions = sessions.filter_map(|stream| stream.session);
            sessions.filter(|session| session.committed > 0).count()
        };
        wait_for("all cameras stream", Duration::from_secs(30), || {
            (fed(&daemon) == CAMERAS).then_some(())
        });
        // Three without it, twenty of a thousand.
        let rounds = asked_for("RINGGEAR_KILLS", 150) / 50;
        for round in 0..rounds.max(1) {
            // Each has noticed its session before it has fed it.
            let good = Instant::now() + GOOD_SESSION;
            while Instant::now() < good {
                pause();
            }
            daemon.kill();
            daemon.restart();
            let back = Instant::now();
            wait_for("all cameras are back", Duration::from_secs(10), || {
                (fed(&daemon) == CAMERAS).then_some(())
            });
            let took = back.elapsed();
            eprintln!("round {round}: all back after {took:?}");
            assert!(
                took <= Duration::from_secs(2),
                "they came back after {took:?}"
            );
        }
        for camera in &mut cameras {
            assert!(camera.is_running(), "{}", camera.said());
        }
    }
}
