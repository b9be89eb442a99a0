//! What status and metrics say of the time that frames take.

use std::time::Duration;

use crate::harness::daemon::Daemon;
use crate::harness::place::Who;
use crate::harness::streams::small_stream;
use crate::harness::{beside_others, wait_for};

#[test]
fn status_and_metrics_show_how_long_frames_take_on_their_way() {
    let _machine = beside_others();
    for pace in ["tick", "arrival"] {
        let daemon = Daemon::start(&small_stream("cam", &format!("pace = \"{pace}\"")));
        let _camera =
            daemon.producer(&["pattern", "cam", "--size", "320x180", "--framerate", "25"]);
        wait_for("ten parts", Duration::from_secs(20), || {
            (daemon.stream("cam").latency.commit_to_part.count >= 10).then_some(())
        });
        let stream = daemon.stream("cam");
        let latency = stream.latency;
        // A part's first frame waits for four more; how late the machine makes it is no matter here.
        let parts = latency.commit_to_part.p50_seconds.unwrap();
        assert!(parts >= 0.1, "{parts}");
        assert!(latency.tick_lateness.count >= 40, "{latency:?}");
        if pace == "arrival" {
            // What is taken as it arrives is given to the encoder before its deadline.
            let early = latency.tick_lateness.buckets[0].count;
            assert!(early > latency.tick_lateness.count / 2, "{latency:?}");
        }
        // Pictures that waited for the encoder to start are not counted.
        assert!(latency.encoder_delay.count >= 20, "{latency:?}");
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
    }
}
