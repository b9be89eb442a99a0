//! Every tick exactly once, with exactly the picture that ingest chose for it (rule 23).

mod alone {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use ringgear::status::{StreamStatus, StreamsStatus};
    use ringgear::tick::Framerate;

    use crate::harness::daemon::Daemon;
    use crate::harness::tick_log::{self, Kind, Row};
    use crate::harness::{alone, hls, media, wait_for};

    /// Name, framerate as the config has it, and the same as a producer's extra arguments.
    const STREAMS: [(&str, &str, &[&str]); 5] = [
        ("at30", "30", &[]),
        ("at25", "25", &[]),
        ("at5994", "59.94", &[]),
        ("at15", "15", &[]),
        ("jitter", "30", &["--jitter", "5ms"]),
    ];

    #[test]
    fn every_tick_is_published_once_with_the_frame_that_ingest_took() {
        let _machine = alone();
        let mut streams = String::new();
        for (name, framerate, _) in STREAMS {
            streams.push_str(&format!(
                "[streams.{name}]\nframerate = {framerate}\nsegment = \"2s\"\nwindow = \"120s\"\nstale_after = \"1h\"\n\
                 [[streams.{name}.renditions]]\nname = \"small\"\nsize = \"320x180\"\nbitrate = \"300k\"\npreset = \"ultrafast\"\n",
            ));
        }
        let mut daemon = Daemon::start(&streams);
        let mut producers: Vec<_> = STREAMS
            .iter()
            .map(|(name, _, extra)| {
                let mut arguments = vec!["pattern", name, "--size", "320x180", "--for", "20s"];
                arguments.push("--tell-commits");
                arguments.extend_from_slice(extra);
                let producer = daemon.producer(&arguments);
                // Nobody stands in line for an encoder's start: what waits there for long is let go.
                wait_for("its first segment", Duration::from_secs(15), || {
                    (daemon.stream(name).window.segments > 0).then_some(())
                });
                producer
            })
            .collect();
        for producer in &mut producers {
            assert_eq!(producer.wait(Duration::from_secs(60)).code(), Some(0));
        }
        // Ticks go on, and a status may be read in the middle of one.
        let answers: Vec<StreamsStatus> = (0..50)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(3));
                daemon.status()
            })
            .collect();
        daemon.stop();

        for ((name, framerate, _), producer) in STREAMS.iter().zip(&producers) {
            let log = tick_log::read(&daemon.place.tick_logs(), name);
            let status = between_ticks(name, &log, &answers);
            counters_agree(name, &log, status);
            let framerate: Framerate = framerate.parse().unwrap();
            published_as_logged(&daemon, status, framerate, &log);
            let commits = tick_log::commits(producer);
            nothing_repeats_and_nothing_drops_without_need(name, &log, &commits);
        }
    }

    /// The last answer in which all ticks up to its newest are counted, and none beyond it.
    fn between_ticks<'a>(
        name: &str,
        log: &[Row],
        answers: &'a [StreamsStatus],
    ) -> &'a StreamStatus {
        let streams = answers.iter().rev().flat_map(|answer| &answer.streams);
        let whole = |status: &&StreamStatus| {
            status.name == name && status.ticks.total == status.ticks.last - log[0].tick + 1
        };
        streams.clone().find(whole).unwrap_or_else(|| {
            let ticks: Vec<_> = streams
                .filter(|status| status.name == name)
                .map(|status| &status.ticks)
                .collect();
            panic!("{name}: since tick {}: {ticks:?}", log[0].tick)
        })
    }

    fn counters_agree(name: &str, log: &[Row], status: &StreamStatus) {
        let ticks = &status.ticks;
        let until: Vec<&Row> = log.iter().filter(|row| row.tick <= ticks.last).collect();
        let count = |kind| {
            let rows = until.iter().filter(|row| row.kind == kind).count();
            u64::try_from(rows).unwrap()
        };
        assert_eq!(
            (ticks.fresh, ticks.repeated, ticks.slate),
            (
                count(Kind::Fresh),
                count(Kind::Repeated),
                count(Kind::Slate)
            ),
            "{name}: fresh, repeated and slate in the API and in the log"
        );
        assert_eq!(
            ticks.total,
            ticks.fresh + ticks.repeated + ticks.slate,
            "{name}: {ticks:?}"
        );
        assert_eq!(ticks.missed, 0, "{name}: {ticks:?}");
        let frames = &status.frames;
        assert_eq!(frames.used, ticks.fresh, "{name}: {frames:?}");
        assert_eq!(
            frames.received,
            frames.used + frames.superseded + frames.late,
            "{name}: every frame is accounted for: {frames:?}"
        );
    }

    fn published_as_logged(
        daemon: &Daemon,
        status: &StreamStatus,
        framerate: Framerate,
        log: &[Row],
    ) {
        let name = &status.name;
        for pair in log.windows(2) {
            assert_eq!(
                pair[0].tick + 1,
                pair[1].tick,
                "{name}: the log has every tick once"
            );
        }
        let folder = daemon.place.live().join(name).join("small");
        let text = std::fs::read_to_string(folder.join("media.m3u8")).unwrap();
        let playlist = hls::media(&text).unwrap();
        assert!(
            playlist.segments.iter().all(|segment| !segment.gap),
            "{name}: {text}"
        );
        let shown = media::decode_published(&folder, &playlist);
        let den = u64::from(framerate.den());
        for (at, (picture, row)) in shown.iter().zip(log).enumerate() {
            assert_eq!(
                picture.time,
                row.tick * den,
                "{name}: decode time of the {at}th picture"
            );
        }
        assert!(
            shown.len() >= log.len(),
            "{name}: {} pictures, {} ticks",
            shown.len(),
            log.len()
        );
        let (published, tail) = shown.split_at(log.len());
        let decoded = |picture: &media::Shown| {
            picture
                .bars
                .as_ref()
                .map(|bars| u64::from(bars.frame_number))
        };
        // For want of room a tick shows the picture before, and the daemon counts it.
        let (mut before, mut replaced) = (None, 0);
        for (picture, row) in published.iter().zip(log) {
            let shown = decoded(picture);
            if shown != row.frame {
                replaced += 1;
                let counted = status.encoder.replaced;
                assert!(
                    shown == before && replaced <= counted,
                    "{name}: tick {} shows {shown:?} after {before:?}, it took {row:?}; {replaced} of {counted} replaced",
                    row.tick
                );
            }
            before = shown;
        }
        assert!(
            replaced * 20 <= log.len() as u64,
            "{name}: {replaced} of {} pictures replaced",
            log.len()
        );
        // A stop fills the last segment up to its edge with the last picture, so that a restart begins at one.
        let last = log.last().unwrap();
        for (tick, picture) in (last.tick + 1..).zip(tail) {
            assert_eq!(
                picture.time,
                tick * den,
                "{name}: decode time of tick {tick}, after the last"
            );
            assert_eq!(
                decoded(picture),
                last.frame,
                "{name}: the picture of tick {tick}, after the last"
            );
        }
        let per_segment = u64::from(framerate.ticks_in(Duration::from_secs(2)).get());
        let end = shown.last().unwrap().time / den + 1;
        assert_eq!(
            end % per_segment,
            0,
            "{name}: the last segment ends at its edge"
        );
        let length = u64::try_from(tail.len()).unwrap();
        assert!(
            length < per_segment,
            "{name}: {length} ticks after the last"
        );
    }

    /// A tick takes the oldest frame that waits, and passes over frames for the newest only where more than one newer one
    /// waits. So what a machine that stands still does to a camera's frames costs no more than it must, and jitter costs nothing.
    fn nothing_repeats_and_nothing_drops_without_need(
        name: &str,
        log: &[Row],
        commits: &BTreeMap<u64, i64>,
    ) {
        let first = log.iter().position(|row| row.kind == Kind::Fresh).unwrap();
        let last = log.iter().rposition(|row| row.kind == Kind::Fresh).unwrap();
        let shown = &log[first..=last];
        let fresh = shown.iter().filter(|row| row.kind == Kind::Fresh);
        for (before, now) in fresh.clone().zip(fresh.skip(1)) {
            let by = now.frame.unwrap() - before.frame.unwrap();
            assert!(
                by != 0 && by != 2,
                "{name}: {before:?}, then {now:?}: a frame was passed over that could have waited"
            );
        }
        for row in shown.iter().filter(|row| row.kind == Kind::Repeated) {
            let next = row.frame.unwrap() + 1;
            let committed = commits[&next];
            assert!(
                committed > row.looked,
                "{name}: {row:?} shows the frame before, but frame {next} was there at {committed}"
            );
        }
    }
}
