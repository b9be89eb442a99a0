//! The encoder fails in every way that it can, and the stream goes on (rules 8, 9, 23).

mod alone {
    use std::collections::HashMap;
    use std::process::Command;
    use std::time::{Duration, Instant, SystemTime};

    use ringgear::status::{StreamState, StreamStatus};
    use rustix::process::{Pid, Signal, kill_process};
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    use crate::harness::broken_ffmpeg::BrokenFfmpeg;
    use crate::harness::checker::Checker;
    use crate::harness::daemon::Daemon;
    use crate::harness::media::Shown;
    use crate::harness::tick_log::Row;
    use crate::harness::{alone, asked_for, hls, media, pause, tick_log, wait_for};

    /// The first encodes at once, the second looks thirty pictures ahead.
    const STREAMS: [(&str, &str); 2] = [
        ("cam", "options = { threads = 1 }"),
        (
            "ahead",
            "options = { x264-params = \"rc-lookahead=30:sliced-threads=0\" }",
        ),
    ];

    /// Each takes a second until it encodes, and so few start at once that on a small machine all of them get somewhere. One that has worked stands in no line.
    #[test]
    fn encoders_of_many_streams_that_begin_together_start_a_few_at_a_time() {
        const AT_ONCE: usize = 2;
        let _machine = alone();
        // The daemon inherits it.
        let mut processors = CpuSet::new();
        let all = sched_getaffinity(None).unwrap();
        let two = (0..CpuSet::MAX_CPU).filter(|one| all.is_set(*one));
        two.take(AT_ONCE).for_each(|one| processors.set(one));
        sched_setaffinity(None, &processors).unwrap();
        let slow: Vec<String> = (0..=3 * AT_ONCE).map(|one| format!("slow{one}")).collect();
        let names = slow.iter().map(String::as_str).chain(["cam"]);
        let streams: String = names.map(|name| stream(name, "")).collect();
        let ffmpeg = BrokenFfmpeg::new("sleep 1; false");
        let daemon = Daemon::start(&(ffmpeg.config("") + &streams));
        let feed = |name: &str| daemon.producer(&["pattern", name, "--size", "320x180"]);
        let _camera = feed("cam");
        let before = daemon.wait_until_playable("cam");
        let _cameras: Vec<_> = slow.iter().map(|name| feed(name)).collect();
        wait_for("others stand in line", Duration::from_secs(10), || {
            let starting = daemon.log().matches("encoder started stream=slow").count();
            (starting == AT_ONCE).then_some(())
        });
        signal_encoder(&before, Signal::KILL);
        healed(&daemon, "cam", &before, Instant::now());
        let started = || daemon.log().matches("encoder started stream=slow").count();
        assert!(started() < slow.len(), "{}", daemon.log());
        for name in &slow {
            let now = daemon.wait_until_playable(name);
            assert_eq!((now.encoder.restarts, now.ticks.missed), (0, 0), "{name}");
        }
        let log = daemon.log();
        let mut starts: Vec<SystemTime> = log
            .lines()
            .filter(|line| line.contains("encoder started stream=slow"))
            .map(|line| humantime::parse_rfc3339(line.split(' ').next().unwrap()).unwrap())
            .collect();
        starts.sort();
        assert_eq!(starts.len(), slow.len(), "{log}");
        for together in starts.windows(AT_ONCE + 1) {
            let apart = together[AT_ONCE].duration_since(together[0]).unwrap();
            assert!(
                apart >= Duration::from_millis(700),
                "{AT_ONCE} were to start at once, each for a second: {starts:?}"
            );
        }
    }

    fn stream(name: &str, rendition: &str) -> String {
        format!(
            "[streams.{name}]\nframerate = 25\nsegment = \"1s\"\npart = \"200ms\"\nwindow = \"120s\"\n\
             [[streams.{name}.renditions]]\nname = \"small\"\nsize = \"320x180\"\nbitrate = \"300k\"\npreset = \"ultrafast\"\n{rendition}\n"
        )
    }

    fn signal_encoder(stream: &StreamStatus, signal: Signal) {
        let pid = stream.encoder.pid.expect("the encoder runs");
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits until another encoder has published a part; says how long it took since `hurt`.
    fn healed(daemon: &Daemon, name: &str, before: &StreamStatus, hurt: Instant) -> Duration {
        wait_for("another encoder runs", Duration::from_secs(15), || {
            let pid = daemon.stream(name).encoder.pid?;
            (Some(pid) != before.encoder.pid).then_some(())
        });
        // Every part adds to the window; nothing leaves it during the test.
        let bytes = daemon.stream(name).window.bytes;
        wait_for("it has published a part", Duration::from_secs(15), || {
            (daemon.stream(name).window.bytes > bytes).then_some(())
        });
        hurt.elapsed()
    }

    /// What ingest took at each tick.
    fn logged(daemon: &Daemon, name: &str) -> HashMap<u64, Row> {
        let rows = tick_log::read(&daemon.place.tick_logs(), name).into_iter();
        rows.map(|row| (row.tick, row)).collect()
    }

    /// Every published picture, in order. Nothing is missing, and nothing breaks.
    fn published(daemon: &Daemon, name: &str, rendition: &str) -> Vec<Shown> {
        let folder = daemon.place.live().join(name).join(rendition);
        let text = std::fs::read_to_string(folder.join("media.m3u8")).unwrap();
        let playlist = hls::media(&text).unwrap();
        for segment in &playlist.segments {
            assert!(!segment.gap && !segment.discontinuity, "{name}: {text}");
            assert_eq!(segment.map, playlist.segments[0].map, "{name}: {text}");
        }
        media::decode_published(&folder, &playlist)
    }

    /// Each published picture shows the frame that its tick took, in order, for one tick, without a gap or a discontinuity.
    fn published_as_logged(daemon: &Daemon, name: &str) {
        let log = logged(daemon, name);
        let (first, last) = (*log.keys().min().unwrap(), *log.keys().max().unwrap());
        let shown = published(daemon, name, "small");
        assert_eq!(shown[0].time, first, "{name}: the first tick");
        assert!(shown.last().unwrap().time >= last, "{name}: the last");
        for picture in &shown {
            // A stop completes the last segment with the last picture.
            let tick = picture.time.min(last);
            let bars = picture.bars.as_ref();
            let decoded = bars.map(|bars| u64::from(bars.frame_number));
            assert_eq!(decoded, log[&tick].frame, "{name}: tick {tick}");
        }
        let mut steps = shown.windows(2).map(|pair| pair[1].time - pair[0].time);
        assert!(steps.all(|step| step == 1), "{name}: a picture a tick");
    }

    #[test]
    fn an_encoder_killed_or_stopped_loses_no_frame_and_breaks_nothing() {
        let _machine = alone();
        let streams = STREAMS.map(|(name, options)| stream(name, options));
        let mut daemon = Daemon::start(&streams.concat());
        let mut cameras: Vec<_> = STREAMS
            .iter()
            .map(|(name, _)| daemon.producer(&["pattern", name, "--size", "320x180"]))
            .collect();
        for (name, _) in STREAMS {
            daemon.wait_until_playable(name);
        }
        let mut took = Vec::new();
        for kill in 0..6 {
            for (name, _) in STREAMS {
                let before = daemon.stream(name);
                let hurt = Instant::now();
                // The last one is only stopped, and has to be found out.
                let signal = if kill < 5 { Signal::KILL } else { Signal::STOP };
                signal_encoder(&before, signal);
                took.push((name, signal, healed(&daemon, name, &before, hurt)));
            }
        }
        eprintln!("new parts after {took:?}");
        for camera in &mut cameras {
            camera.signal(Signal::TERM);
        }
        for (name, _) in STREAMS {
            let stream = daemon.stream(name);
            assert_eq!(
                (
                    stream.encoder.restarts,
                    stream.encoder.replaced,
                    stream.ticks.missed
                ),
                (6, 0, 0),
                "{name}: {stream:?}"
            );
        }
        daemon.stop();
        for (name, _) in STREAMS {
            published_as_logged(&daemon, name);
        }
    }

    /// A process that never sleeps.
    struct Busy(std::process::Child);

    impl Busy {
        fn start() -> Self {
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do :; done"]);
            Self(command.spawn().unwrap())
        }
    }

    impl Drop for Busy {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// `RINGGEAR_SOAK_SECONDS` says for how long; 15 without it.
    #[test]
    #[ignore = "the whole matrix takes minutes: make faults"]
    fn an_encoder_that_waits_for_a_busy_machine_is_not_taken_for_dead() {
        let _machine = alone();
        let table = stream("cam", "").replace("window =", "encoder_timeout = \"100ms\"\nwindow =");
        let daemon = Daemon::start(&(table + "[streams.cam.audio]\nsource = \"producer\"\n"));
        let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
        let before = daemon.wait_until_playable("cam");
        let processors = std::thread::available_parallelism().unwrap().get();
        let busy: Vec<Busy> = (0..3 * processors).map(|_| Busy::start()).collect();
        let seconds = asked_for("RINGGEAR_SOAK_SECONDS", 15);
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until {
            pause();
        }
        let after = daemon.stream("cam");
        drop(busy);
        eprintln!("{:?}", after.encoder);
        assert_eq!(after.encoder.restarts, 0, "{}", daemon.log());
        let sound = after.audio.as_ref().unwrap();
        assert_eq!(sound.encoder_restarts, 0, "{}", daemon.log());
        assert!(
            after.window.last_segment > before.window.last_segment,
            "it goes on: {after:?}"
        );
        // If it was given fewer pictures, it gets all of them again, by encoders that end well.
        let now = wait_for("the full rate", Duration::from_secs(120), || {
            let stream = daemon.stream("cam");
            let full = stream.encoder.reduced_to_per_second.is_none();
            (full && stream.encoder.too_slow.is_none()).then_some(stream)
        });
        assert_eq!(now.encoder.restarts, 0, "{}", daemon.log());
        let text = daemon.get("/cam/small/media.m3u8").text();
        let playlist = hls::media(&text).unwrap();
        assert!(
            playlist
                .segments
                .iter()
                .all(|segment| !segment.discontinuity),
            "{text}"
        );
    }

    #[test]
    fn while_an_encoder_keeps_failing_its_slate_is_shown_until_it_comes_back_by_itself() {
        let _machine = alone();
        let ffmpeg = BrokenFfmpeg::new("[ -e BROKEN ]");
        let config = ffmpeg.config("failures = 4\nretry_every = \"2s\"");
        let large = "[[streams.cam.renditions]]\nname = \"large\"\nsize = \"640x360\"\nbitrate = \"600k\"\npreset = \"ultrafast\"\n[streams.cam.audio]\nsource = \"producer\"\n";
        let mut daemon = Daemon::start(&(config + &stream("cam", "") + large));
        let camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
        let before = daemon.wait_until_playable("cam");
        wait_for("the slate", Duration::from_secs(15), || {
            daemon.log().contains("slate encoded").then_some(())
        });
        let checker = Checker::over_http(&daemon, "cam");
        ffmpeg.break_it();
        signal_encoder(&daemon.stream("cam"), Signal::KILL);
        let failed = daemon.wait_for_state("cam", StreamState::Failed, Duration::from_secs(15));
        let detail = failed.detail.clone().unwrap();
        assert!(
            detail.contains("the device is lost") && detail.contains("every 2s"),
            "{detail}"
        );
        assert_eq!(failed.encoder.failures, 4, "{failed:?}");
        assert!(failed.encoder.next_try.is_some(), "{failed:?}");
        assert_eq!(failed.encoder.last_error, ["[error] the device is lost"]);
        assert!(failed.window.segments >= before.window.segments);
        // Across a try that comes to nothing.
        wait_for("the slate goes on", Duration::from_secs(15), || {
            let now = daemon.stream("cam");
            assert_eq!(now.state, StreamState::Failed, "{now:?}");
            let goes_on = now.window.last_segment >= failed.window.last_segment.map(|at| at + 3);
            (goes_on && now.encoder.failures > 4).then_some(())
        });
        ffmpeg.let_it_hang();
        let before = daemon.stream("cam");
        wait_for(
            "it goes on, hung tries or not",
            Duration::from_secs(30),
            || {
                let now = daemon.stream("cam");
                // The one on its way when it began may have ended by itself.
                (now.encoder.failures >= before.encoder.failures + 2).then_some(())
            },
        );
        let hung = daemon.stream("cam");
        assert!(
            hung.window.last_segment > before.window.last_segment.map(|at| at + 3),
            "{hung:?}"
        );
        ffmpeg.mend_it();
        let back = daemon.wait_for_state("cam", StreamState::Live, Duration::from_secs(15));
        assert_eq!(back.detail, None);
        let healed = wait_for("new segments", Duration::from_secs(15), || {
            let now = daemon.stream("cam");
            let healthy = now.encoder.failures == 0 && now.encoder.next_try.is_none();
            let goes_on = now.window.last_segment > back.window.last_segment.map(|at| at + 1);
            (healthy && goes_on).then_some(now)
        });
        let report = checker.finish();
        camera.signal(Signal::TERM);
        daemon.stop();
        // Until it counts as failed, the pictures are kept for its restart, and nothing new comes (rule 5).
        report.assert_clean_but(&[5]);
        assert_eq!(healed.ticks.missed, 0, "{healed:?}");
        for rendition in ["small", "large"] {
            shown_as_logged_but_for_slates(&daemon, rendition, healed.encoder.slate);
        }
    }

    /// So many ticks in a row show a slate, and all others the frame that was logged for them.
    fn shown_as_logged_but_for_slates(daemon: &Daemon, rendition: &str, slates: u64) {
        let log = logged(daemon, "cam");
        let last = *log.keys().max().unwrap();
        let shown = published(daemon, "cam", rendition);
        let mut under_slates = 0;
        let mut turns = 0;
        for pair in shown.windows(2) {
            let lasts = pair[1].time - pair[0].time;
            match &pair[0].bars {
                Some(bars) => {
                    assert_eq!(lasts, 1, "tick {}", pair[0].time);
                    let frame = Some(u64::from(bars.frame_number));
                    assert_eq!(frame, log[&pair[0].time.min(last)].frame);
                }
                None => {
                    assert!(lasts <= 5, "a slate's sample is a part at most");
                    assert!(pair[0].brightness < 50, "{:?}", pair[0]);
                    under_slates += lasts;
                }
            }
            turns += u32::from(pair[0].bars.is_some() != pair[1].bars.is_some());
        }
        assert_eq!((under_slates, turns), (slates, 2));
        assert!(slates >= 75, "{slates} ticks");
    }

    #[test]
    fn an_encoder_that_cant_be_used_or_keeps_failing_is_replaced_by_the_fallback() {
        let _machine = alone();
        // Two fail when they are tried, the third when it has to encode.
        let ffmpeg = BrokenFfmpeg::new("case \"$*\" in *libx265*) true ;; *) false ;; esac");
        let streams = [
            ("cam", "codec = \"h264_nvenc\""),
            ("yard", "codec = \"h264_vaapi\""),
            ("late", "codec = \"libx265\""),
        ];
        let tables = streams.map(|(name, codec)| {
            stream(name, &format!("{codec}\nfallback = \"libx264\""))
                .replace("preset = \"ultrafast\"\n", "")
        });
        let daemon = Daemon::start(&(ffmpeg.config("") + &tables.concat()));
        let cameras =
            streams.map(|(name, _)| daemon.producer(&["pattern", name, "--size", "320x180"]));
        for (name, codec) in streams {
            let stream = daemon.wait_until_playable(name);
            let rendition = &stream.renditions[0];
            assert_eq!(rendition.codec, "libx264", "{name}");
            let codecs = rendition.codecs.as_ref().unwrap();
            assert!(codecs.starts_with("avc1."), "{name}: {codecs}");
            let why = rendition.fallback.as_ref().expect("a reason");
            let codec = codec.split('"').nth(1).unwrap();
            assert!(
                why.starts_with(&format!("libx264 encodes small in place of {codec}: ")),
                "{name}: {why}"
            );
            assert_eq!(stream.detail.as_ref(), Some(why), "{name}");
            assert!(daemon.log().contains(why), "{name}: {why}");
        }
        drop(cameras);
    }
}
