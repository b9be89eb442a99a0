//! The live window, watched by the checker while it rotates (rules 1-7, 21-23, 25-30, 32; over HTTP 24 too).

mod large {
    use std::time::{Duration, Instant};

    use crate::harness::checker::Checker;
    use crate::harness::daemon::Daemon;
    use crate::harness::{beside_others, pause, wait_for};

    const STREAM: &str = r#"
        [streams.cam]
        framerate = 25
        segment = "1s"
        part = "200ms"
        window = "6s"
        [[streams.cam.renditions]]
        name = "high"
        size = "320x180"
        bitrate = "300k"
        preset = "ultrafast"
        [[streams.cam.renditions]]
        name = "low"
        size = "160x90"
        bitrate = "100k"
        preset = "ultrafast"
    "#;
    /// Three windows, and the time that rule 2 gives to what has left the first.
    const WATCHED: Duration = Duration::from_secs(32);

    #[test]
    fn the_window_rotates_by_its_rules_in_the_folder_and_over_http() {
        let _machine = beside_others();
        let daemon = Daemon::start(STREAM);
        let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
        wait_for("the stream is listed", Duration::from_secs(15), || {
            (daemon.stream("cam").window.segments > 0).then_some(())
        });
        daemon.wait_for_slates(&["cam"]);
        let http = Checker::over_http(&daemon, "cam");
        let folder = Checker::of_folder(&daemon, "cam");
        let until = Instant::now() + WATCHED;
        while Instant::now() < until {
            pause();
        }
        for (from, report) in [("http", http.finish()), ("folder", folder.finish())] {
            eprintln!(
                "{from}: {} rounds, {} URIs listed, {} expired",
                report.rounds, report.listed, report.expired
            );
            report.assert_clean();
            assert_eq!(report.outages, 0, "{from}");
            assert!(
                report.listed >= 60,
                "{from}: {} URIs were ever listed",
                report.listed
            );
            assert!(
                report.expired >= 24,
                "{from}: {} URIs have expired",
                report.expired
            );
            growth_has_stopped(&report.sizes);
        }
    }

    /// The last third of the time needs no more room than the second did.
    fn growth_has_stopped(sizes: &[u64]) {
        let third = sizes.len() / 3;
        if third == 0 {
            return;
        }
        let largest = |sizes: &[u64]| sizes.iter().copied().max().unwrap_or(0);
        let (second, last) = (
            largest(&sizes[third..2 * third]),
            largest(&sizes[2 * third..]),
        );
        assert!(
            last <= second + second / 10,
            "the folder grew from {second} to {last} bytes"
        );
    }
}
