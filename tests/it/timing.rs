//! What status and metrics say of the time that frames take.

use std::time::Duration;

use crate::harness::daemon::Daemon;
use crate::harness::place::Who;
use crate::harness::streams::small_stream;
use crate::harness::{beside_others, tick_log, wait_for};

#[test]
fn status_and_metrics_show_how_long_frames_take_on_their_way() {
    let _machine = beside_others();
    for pace in ["tick", "arrival"] {
        let mut daemon = Daemon::start(&small_stream("cam", &format!("pace = \"{pace}\"")));
        // Twice as fast as the stream: wherever its frames lie, one is there by the middle of each interval.
        let _camera =
            daemon.producer(&["pattern", "cam", "--size", "320x180", "--framerate", "50"]);
        // Pictures that waited for the encoder to start are counted as late, and not as delayed by it.
        wait_for("all is counted", Duration::from_secs(20), || {
            let latency = daemon.stream("cam").latency;
            let counted = latency.commit_to_part.count >= 10
                && latency.tick_lateness.count >= 40
                && latency.encoder_delay.count >= 20;
            counted.then_some(())
        });
        if pace == "arrival" {
            wait_for_early_ticks(&daemon);
        }
        let stream = daemon.stream("cam");
        let latency = stream.latency;
        // A part's first frame waits for four more; how late the machine makes it is no matter here.
        let parts = latency.commit_to_part.p50_seconds.unwrap();
        assert!(parts >= 0.1, "{parts}");
        let metrics = daemon.get("/metrics").text();
        let value = |name: &str| -> f64 {
            let line = metrics
                .lines()
                .find(|line| line.starts_with(&format!("{name} ")));
            let line = line.unwrap_or_else(|| panic!("{name} is not in\n{metrics}"));
            line.rsplit_once(' ').unwrap().1.parse().unwrap()
        };
        for (name, least) in [
            (
                "ringgear_commit_to_part_seconds_count{stream=\"cam\"}",
                latency.commit_to_part.count,
            ),
            (
                "ringgear_commit_to_part_seconds_bucket{stream=\"cam\",le=\"+Inf\"}",
                latency.commit_to_part.count,
            ),
            (
                "ringgear_tick_lateness_seconds_count{stream=\"cam\"}",
                latency.tick_lateness.count,
            ),
            (
                "ringgear_encoder_delay_seconds_count{stream=\"cam\"}",
                latency.encoder_delay.count,
            ),
            (
                "ringgear_ticks_total{stream=\"cam\",kind=\"fresh\"}",
                stream.ticks.fresh,
            ),
            ("ringgear_stream_state{stream=\"cam\",state=\"live\"}", 1),
        ] {
            assert!(
                value(name) >= least as f64,
                "{name}: {} of {least}",
                value(name)
            );
        }
        let table = daemon
            .place
            .command(Who::Camera)
            .arg("status")
            .output()
            .unwrap();
        let table = String::from_utf8(table.stdout).unwrap();
        assert!(
            table.contains("cam: tick late ") && table.contains(", commit to part "),
            "{table}"
        );
        let ahead = daemon.published_time_ahead();
        daemon.stop();
        let ticks = tick_log::read(&daemon.place.tick_logs(), "cam");
        let early: Vec<_> = ticks
            .iter()
            .filter(|row| row.made + ahead.end() < deadline(row.tick))
            .collect();
        assert_eq!(!early.is_empty(), pace == "arrival", "{pace}: {early:?}");
    }
}

/// Of a tick of 40 ms, in nanoseconds of the published time.
fn deadline(tick: u64) -> i64 {
    i64::try_from(tick * 40_000_000).unwrap()
}

/// What is taken as it arrives is given to the encoder before its deadline: most of fifty ticks in turn, once the machine lets that be.
fn wait_for_early_ticks(daemon: &Daemon) {
    let lateness = || daemon.stream("cam").latency.tick_lateness;
    let mut before = lateness();
    let patience = Duration::from_secs(20);
    wait_for("most of fifty ticks are early", patience, || {
        let now = lateness();
        let ticks = now.count - before.count;
        if ticks < 50 {
            return None;
        }
        let early = now.buckets[0].count - before.buckets[0].count;
        before = now;
        (early > ticks / 2).then_some(())
    });
}
