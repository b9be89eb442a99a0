//! Every tick exactly once, with exactly the picture that ingest chose for it (DESIGN 3.1, 3.2; rule 23).

mod alone {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use ringgear::tick::Framerate;

    use crate::harness::daemon::Daemon;
    use crate::harness::tick_log::{self, Kind, Row};
    use crate::harness::{alone, hls, media};

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
                "[streams.{name}]\nframerate = {framerate}\nsegment = \"2s\"\nwindow = \"120s\"\nstale_after = \"1s\"\n\
                 [[streams.{name}.renditions]]\nname = \"small\"\nsize = \"320x180\"\nbitrate = \"300k\"\npreset = \"ultrafast\"\n",
            ));
        }
        let mut daemon = Daemon::start(&streams);
        let mut producers: Vec<_> = STREAMS
            .iter()
            .map(|(name, _, extra)| {
                let mut arguments = vec!["pattern", name, "--size", "320x180", "--for", "30s"];
                arguments.extend_from_slice(extra);
                daemon.producer(&arguments)
            })
            .collect();
        for producer in &mut producers {
            assert_eq!(producer.wait(Duration::from_secs(60)).code(), Some(0));
        }
        let statuses: BTreeMap<_, _> = daemon
            .status()
            .streams
            .into_iter()
            .map(|stream| (stream.name.clone(), stream))
            .collect();
        daemon.stop();

        for (name, framerate, extra) in STREAMS {
            let log = tick_log::read(&daemon.place.tick_logs(), name);
            let status = &statuses[name];
            counters_agree(name, &log, status);
            let framerate: Framerate = framerate.parse().unwrap();
            published_as_logged(&daemon, name, framerate, &log);
            if !extra.is_empty() {
                nothing_repeats_and_nothing_drops(name, framerate, &log);
            }
        }
    }

    fn counters_agree(name: &str, log: &[Row], status: &ringgear::status::StreamStatus) {
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

    fn published_as_logged(daemon: &Daemon, name: &str, framerate: Framerate, log: &[Row]) {
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
        for (picture, row) in published.iter().zip(log) {
            assert_eq!(
                decoded(picture),
                row.frame,
                "{name}: the picture of tick {}, {:?}",
                row.tick,
                row.kind
            );
        }
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

    /// DESIGN 3.2: one frame of slack keeps jitter from beating into drops and repeats. Where the machine kept the producer or ingest
    /// waiting for longer than the jitter, that much is allowed.
    fn nothing_repeats_and_nothing_drops(name: &str, framerate: Framerate, log: &[Row]) {
        let second = usize::try_from(framerate.num().div_ceil(framerate.den())).unwrap();
        let first = log.iter().position(|row| row.kind == Kind::Fresh).unwrap();
        let last = log.iter().rposition(|row| row.kind == Kind::Fresh).unwrap();
        let steady = &log[first + second..=last];
        let held_up = held_up(framerate, steady);
        // A frame that comes late is missed up to two ticks before it is shown.
        let undisturbed = |at: usize| {
            let near = at.saturating_sub(3)..(at + 4).min(steady.len());
            !held_up[near].contains(&true)
        };
        let mut judged = 0;
        for (at, pair) in steady.windows(2).enumerate() {
            if !undisturbed(at) {
                continue;
            }
            judged += 1;
            assert_eq!(pair[1].kind, Kind::Fresh, "{name}: tick {}", pair[1].tick);
            let (before, now) = (pair[0].frame.unwrap(), pair[1].frame.unwrap());
            assert_eq!(before + 1, now, "{name}: frames at tick {}", pair[1].tick);
        }
        assert!(
            judged > 2 * second,
            "{name}: the machine kept the producer or the daemon waiting too often to tell: {judged} of {} ticks",
            steady.len()
        );
    }

    /// Which rows were made, or show a frame that was captured, over a millisecond later than the clock and the jitter explain.
    fn held_up(framerate: Framerate, rows: &[Row]) -> Vec<bool> {
        const SLACK: i64 = 1_000_000;
        const JITTER: i64 = 5_000_000;
        let period = i64::try_from(framerate.duration_of(1).as_nanos()).unwrap();
        // Each time without the part that grows with the number.
        let phase = |time: i64, number: u64| time - i64::try_from(number).unwrap() * period;
        let (base_tick, base_frame) = (rows[0].tick, rows[0].frame.unwrap());
        let phases: Vec<(i64, i64)> = rows
            .iter()
            .map(|row| {
                let frame = row.frame.unwrap() - base_frame;
                (
                    phase(row.captured, frame),
                    phase(row.taken, row.tick - base_tick),
                )
            })
            .collect();
        // The earliest near it tells what the clocks meant: they are slewed in the meantime.
        (0..rows.len())
            .map(|at| {
                let near = &phases[at.saturating_sub(60)..(at + 60).min(rows.len())];
                let captured = near.iter().map(|phase| phase.0).min().unwrap();
                let taken = near.iter().map(|phase| phase.1).min().unwrap();
                phases[at].0 > captured + JITTER + SLACK || phases[at].1 > taken + SLACK
            })
            .collect()
    }
}
