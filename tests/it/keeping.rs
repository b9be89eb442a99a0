//! What is kept of a live stream: recordings that outlive encoder and daemon, clips cut out of them and out of the window, and pictures
//! of past moments.

mod large {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use ringgear_producer::pattern::{Bars, decode_luma};
    use rustix::process::{Pid, Signal, kill_process};

    use crate::harness::daemon::Daemon;
    use crate::harness::hls;
    use crate::harness::http::{self, Answer};
    use crate::harness::place::{Place, Who};
    use crate::harness::process::run;
    use crate::harness::streams::small_stream;
    use crate::harness::{beside_others, dash, media, wait_for};
    use crate::sound::tone;

    const SOON: Duration = Duration::from_secs(60);
    const RATE: u64 = 25;

    fn recorded_segments(daemon: &Daemon) -> u64 {
        daemon
            .stream("cam")
            .record
            .expect("it is recorded")
            .segments
    }

    fn wait_for_recorded(daemon: &Daemon, more: u64) {
        let before = wait_for("something is recorded", SOON, || {
            Some(recorded_segments(daemon)).filter(|segments| *segments > 0)
        });
        wait_for("more is recorded", SOON, || {
            (recorded_segments(daemon) >= before + more).then_some(())
        });
    }

    /// The recordings' names, oldest first.
    fn recordings(daemon: &Daemon) -> Vec<String> {
        let text = daemon.get("/cam/recordings/index.json").text();
        let listed: serde_json::Value = serde_json::from_str(&text).unwrap();
        let listed = listed["recordings"].as_array().unwrap().iter().rev();
        listed
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The frame that each tick shows in the recordings, as a viewer gets them; none where it can't be read, as on the slate.
    fn shown(daemon: &Daemon) -> BTreeMap<u64, Option<u32>> {
        let mut shown = BTreeMap::new();
        for name in recordings(daemon) {
            let at = format!("/cam/recordings/{name}");
            let text = daemon.get(&format!("{at}/index.m3u8")).text();
            assert!(text.contains("small/media.m3u8"), "{text}");
            let mpd = daemon.get(&format!("{at}/manifest.mpd")).text();
            assert!(
                dash::read(&mpd).is_ok() && mpd.contains("type=\"static\""),
                "{mpd}"
            );
            let text = daemon.get(&format!("{at}/small/media.m3u8")).text();
            let playlist = hls::media(&text).unwrap();
            assert!(!playlist.has_playlist_type, "{text}");
            let dir = tempfile::tempdir().unwrap();
            let maps = playlist
                .segments
                .iter()
                .filter_map(|segment| segment.map.clone());
            for name in playlist
                .segments
                .iter()
                .map(|segment| segment.uri.clone())
                .chain(maps)
            {
                let answer = daemon.get(&format!("{at}/small/{name}"));
                assert_eq!(answer.status, 200, "{name}: {}", answer.text());
                std::fs::write(dir.path().join(name), answer.body).unwrap();
            }
            for picture in media::decode_published(dir.path(), &playlist) {
                let frame = picture.bars.map(|bars| bars.frame_number);
                assert_eq!(shown.insert(picture.time, frame), None, "each tick once");
            }
        }
        shown
    }

    /// The frames of a file's pictures in order.
    fn frames(file: &Path) -> Vec<Option<u32>> {
        let mut frames = Vec::new();
        media::decode(file, "gray", 320 * 180, |_, luma| {
            let bars: Option<Bars> = decode_luma(luma, 320, 180, 320);
            frames.push(bars.map(|bars| bars.frame_number));
        });
        frames
    }

    /// Start, duration and kind of each stream of a file, as ffprobe tells them, and of the file.
    fn probed(file: &Path) -> serde_json::Value {
        let out = run(
            Command::new("ffprobe")
                .args(["-v", "error", "-of", "json", "-show_entries"])
                .arg("format=duration,start_time:stream=codec_type,start_time,duration")
                .arg(file),
            SOON,
        );
        assert_eq!(out.stderr, "", "{out:?}");
        serde_json::from_str(&out.stdout).unwrap()
    }

    fn seconds(value: &serde_json::Value) -> f64 {
        value
            .as_str()
            .unwrap_or_else(|| panic!("{value}"))
            .parse()
            .unwrap()
    }

    /// The answer for `path` once there is one: a machine that has much to do takes its time.
    fn wait_for_answer(daemon: &Daemon, path: &str) -> Answer {
        wait_for(path, Duration::from_secs(60), || {
            let answer = http::get(daemon.place.port, path).ok()?;
            (answer.status == 200).then_some(answer)
        })
    }

    /// When tick `tick` begins, in seconds since the epoch.
    fn time_of(tick: u64) -> String {
        format!("{}.{:02}", tick / RATE, tick % RATE * 100 / RATE)
    }

    /// Saves `answer`'s clip, checks its head, and says with which tick it begins.
    fn saved(answer: &Answer, to: &Path) -> u64 {
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some("video/mp4"));
        let length: usize = answer.header("content-length").unwrap().parse().unwrap();
        assert_eq!(length, answer.body.len());
        std::fs::write(to, &answer.body).unwrap();
        let from = humantime::parse_rfc3339(answer.header("clip-from").unwrap()).unwrap();
        let from = from.duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::try_from(from.as_millis()).unwrap() * RATE / 1000
    }

    #[test]
    fn a_stream_is_kept_over_the_death_of_its_encoder_and_of_the_daemon_and_cut_exactly() {
        let _machine = beside_others();
        let place = Place::new();
        let sound = tone(&place, 60);
        let config = small_stream("cam", "backfill = \"60s\"")
            + &format!(
                "[streams.cam.audio]\nsource = {sound:?}\n[streams.cam.record]\nkeep = \"1h\"\n"
            );
        let mut daemon = Daemon::start_in(place, &config, &[]);
        let early = daemon.get("/cam/clip.mp4?last=10s");
        assert_eq!(early.status, 503, "{}", early.text());
        let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
        wait_for_recorded(&daemon, 2);
        let pid = daemon.stream("cam").encoder.pid.expect("it runs");
        kill_process(
            Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(),
            Signal::KILL,
        )
        .unwrap();
        wait_for_recorded(&daemon, 3);
        daemon.kill();
        daemon.restart();
        wait_for_recorded(&daemon, 4);

        let shown = shown(&daemon);
        let ticks: Vec<u64> = shown.keys().copied().collect();
        assert_eq!(
            ticks[ticks.len() - 1] - ticks[0] + 1,
            ticks.len() as u64,
            "no hole"
        );
        let numbers: Vec<u32> = shown.values().flatten().copied().collect();
        assert!(numbers.is_sorted() && numbers.len() > 125, "{numbers:?}");
        let expected = |tick: u64, count: usize| -> Vec<Option<u32>> {
            (tick..)
                .take(count)
                .map(|tick| shown.get(&tick).copied().flatten())
                .collect()
        };

        // Out of the recording, exact to a segment, with its sound.
        let dir = tempfile::tempdir().unwrap();
        let clip = dir.path().join("clip.mp4");
        let first = ticks[0].next_multiple_of(RATE);
        let (from, to) = (time_of(first + 10), time_of(first + 2 * RATE + 5));
        let begun = Instant::now();
        let answer = daemon.get(&format!("/cam/clip.mp4?from={from}&to={to}"));
        eprintln!("a clip of three seconds took {:?}", begun.elapsed());
        assert_eq!(saved(&answer, &clip), first);
        let decoded = frames(&clip);
        assert_eq!(decoded, expected(first, 75));
        let probe = probed(&clip);
        assert_eq!(seconds(&probe["format"]["start_time"]), 0.0, "{probe}");
        let duration = seconds(&probe["format"]["duration"]);
        assert!((2.97..3.03).contains(&duration), "{probe}");
        let streams = probe["streams"].as_array().unwrap();
        let kinds: Vec<_> = streams
            .iter()
            .map(|one| one["codec_type"].as_str())
            .collect();
        assert_eq!(kinds, [Some("video"), Some("audio")], "{probe}");
        let sound = run(
            Command::new("ffmpeg")
                .args(["-v", "error", "-i"])
                .arg(&clip)
                .args(["-vn", "-f", "null", "-"]),
            SOON,
        );
        assert_eq!((sound.code, sound.stderr.as_str()), (Some(0), ""));

        // The command gives the same file.
        let by_hand = dir.path().join("by-hand.mp4");
        let url = daemon.url("");
        let mut command = daemon.place.command(Who::Camera);
        let told = run(
            command
                .args([
                    "clip", "cam", "--from", &from, "--to", &to, "--url", &url, "-o", "-",
                ])
                .arg("--rendition=small"),
            SOON,
        );
        assert_eq!(told.code, Some(0), "{}", told.stderr);
        assert!(told.stderr.starts_with("from 20"), "{}", told.stderr);
        let mut command = Command::new(daemon.place.program());
        command.args([
            "clip", "cam", "--from", &from, "--to", &to, "--url", &url, "-o",
        ]);
        let told = run(command.arg(&by_hand), SOON);
        assert_eq!(told.code, Some(0), "{}", told.stderr);
        assert_eq!(std::fs::read(&by_hand).unwrap(), answer.body);

        // Up to what is being published now.
        let newest = dir.path().join("newest.mp4");
        let answer = wait_for_answer(&daemon, "/cam/clip.mp4?last=10s");
        let first_of_newest = saved(&answer, &newest);
        let decoded = frames(&newest);
        assert!(decoded.len() > 25, "{}", decoded.len());
        let known = ticks[ticks.len() - 1] + 1;
        let both = usize::try_from(known.saturating_sub(first_of_newest)).unwrap();
        let both = both.min(decoded.len());
        assert_eq!(decoded[..both], expected(first_of_newest, both));
        assert!(decoded.iter().flatten().is_sorted());

        // A moment in the recording, and one in the window.
        for tick in [first + RATE + 7, known - 3] {
            let path = format!("/cam/snapshot.jpg?at={}", time_of(tick));
            let answer = wait_for_answer(&daemon, &path);
            let picture = dir.path().join("then.jpg");
            std::fs::write(&picture, &answer.body).unwrap();
            assert_eq!(frames(&picture), expected(tick, 1), "tick {tick}");
        }
        let path = format!("/cam/snapshot.jpg?width=160&at={}", time_of(first));
        let small = wait_for_answer(&daemon, &path);
        assert!(small.body.starts_with(b"\xff\xd8"));

        what_can_t_be_had_is_told(&daemon, first);
        daemon.stop();
    }

    #[test]
    fn what_leaves_the_window_while_the_disk_hangs_is_told_by_log_and_status() {
        let _machine = beside_others();
        let config =
            small_stream("cam", "window = \"6s\"") + "[streams.cam.record]\nkeep = \"1h\"\n";
        let daemon = Daemon::start(&config);
        let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
        wait_for_recorded(&daemon, 2);
        let hanging = daemon.place.faults().join("record.cam");
        std::fs::write(&hanging, "hang").unwrap();
        // Nobody asks for the status meanwhile.
        wait_for("the log says that it hangs", SOON, || {
            daemon.log().contains("does not answer").then_some(())
        });
        let at = daemon.stream("cam");
        let record = at.record.unwrap();
        assert!(record.error.unwrap().contains("does not answer"));
        assert_eq!(record.missed_seconds, 0.0);
        // It hangs until all of that has left the window, with what it retains for slow players.
        let last = at.window.last_segment.unwrap();
        wait_for("the window has moved on", SOON, || {
            (daemon.stream("cam").window.first_segment > last + 15).then_some(())
        });
        std::fs::remove_file(&hanging).unwrap();
        let record = wait_for("what is missing is counted", SOON, || {
            let record = daemon.stream("cam").record.unwrap();
            (record.missed_seconds > 0.0 && record.error.is_none()).then_some(record)
        });
        assert!(record.missed_seconds < 600.0, "{record:?}");
        let log = daemon.log();
        for line in [
            "the disk of the recordings answers again",
            "a stretch was not recorded",
        ] {
            assert!(log.contains(line), "{line}: {log}");
        }
    }

    fn what_can_t_be_had_is_told(daemon: &Daemon, first: u64) {
        let (from, to) = (time_of(first), time_of(first + RATE));
        for (path, status, told) in [
            ("clip.mp4".to_owned(), 400, "from is missing"),
            (format!("clip.mp4?from={from}&to={from}"), 400, "not after"),
            (
                format!("clip.mp4?from={from}&to=2099-01-01T00:00:00Z"),
                400,
                "in the future",
            ),
            (format!("clip.mp4?from=0&to={to}"), 400, "in pieces"),
            (
                "clip.mp4?from=1000&to=2000".to_owned(),
                404,
                "the oldest is of",
            ),
            (
                format!("clip.mp4?from={from}&to={to}&rendition=huge"),
                404,
                "no rendition 'huge'",
            ),
            (
                "snapshot.jpg?at=yesterday".to_owned(),
                400,
                "which is no time",
            ),
            ("snapshot.jpg?at=1000".to_owned(), 404, "the oldest is of"),
            (
                "snapshot.jpg?at=2099-01-01T00:00:00Z".to_owned(),
                400,
                "in the future",
            ),
            (
                "recordings/20200101t000000z/index.m3u8".to_owned(),
                404,
                "no recording",
            ),
        ] {
            let answer = daemon.get(&format!("/cam/{path}"));
            let text = answer.text();
            assert!(
                answer.status == status && text.contains(told),
                "{path}: {} {text}",
                answer.status
            );
        }
        let mut command = daemon.place.command(Who::Camera);
        let url = daemon.url("");
        let told = run(
            command.args([
                "clip",
                "cam",
                "--from=1000",
                "--to=2000",
                "--url",
                &url,
                "-o",
                "none.mp4",
            ]),
            SOON,
        );
        assert_eq!(told.code, Some(1));
        assert!(
            told.stderr
                .starts_with("ringgear: there is nothing between"),
            "{}",
            told.stderr
        );
    }
}
