//! A panic in one stream's code ends and starts again that stream alone. The panics are real, in the
//! real program: `src/faults.rs` raises them where a file asks for one. Builds without debug assertions need the feature
//! `faults` for that.

use std::time::{Duration, Instant};

use ringgear::status::{StreamState, StreamStatus};

use crate::harness::checker::Checker;
use crate::harness::daemon::Daemon;
use crate::harness::streams::small_stream;
use crate::harness::{beside_others, wait_for};

fn streams() -> String {
    ["cam", "other"]
        .map(|name| small_stream(name, "window = \"12s\""))
        .concat()
}

fn ask(daemon: &Daemon, fault: &str, text: &str) {
    std::fs::write(daemon.place.faults().join(fault), text).unwrap();
}

/// Waits until a panic that was asked for has come.
#[track_caller]
fn wait_until_raised(daemon: &Daemon, fault: &str) {
    let asked = daemon.place.faults().join(fault);
    wait_for(&format!("{fault} panics"), Duration::from_secs(5), || {
        (!asked.exists()).then_some(())
    });
}

/// Waits until the stream publishes frames of its producer after `before`.
#[track_caller]
fn wait_until_back(daemon: &Daemon, name: &str, before: &StreamStatus) -> StreamStatus {
    wait_for(
        &format!("{name} publishes fresh frames again"),
        Duration::from_secs(10),
        || {
            let now = daemon.stream(name);
            let fresh = now.ticks.fresh > before.ticks.fresh + 25;
            let published = now.window.last_segment > before.window.last_segment.map(|n| n + 2);
            (now.state == StreamState::Live && now.detail.is_none() && fresh && published)
                .then_some(now)
        },
    )
}

mod large {
    use super::*;

    #[test]
    fn a_panic_anywhere_in_a_stream_starts_that_stream_again_alone() {
        let _machine = beside_others();
        let mut daemon = Daemon::start(&streams());
        let _cam = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
        let _other = daemon.producer(&["pattern", "other", "--size", "320x180"]);
        daemon.wait_until_playable("cam");
        daemon.wait_until_playable("other");
        let cam = Checker::over_http(&daemon, "cam");
        let other = Checker::over_http(&daemon, "other");
        let other_before = daemon.stream("other");
        // The panic's task, and whether it takes the whole stream with it.
        for (task, whole) in [
            ("stream", true),
            ("ingest", true),
            ("disk", false),
            ("encoder", false),
        ] {
            let before = daemon.stream("cam");
            let fault = format!("{task}.cam");
            let asked = Instant::now();
            ask(&daemon, &fault, "");
            wait_until_raised(&daemon, &fault);
            let after = wait_until_back(&daemon, "cam", &before);
            eprintln!("{task}: fresh segments again after {:?}", asked.elapsed());
            assert_eq!(after.restarts, before.restarts + u64::from(whole), "{task}");
            assert!(
                daemon
                    .log()
                    .contains(&format!("a test asked for a fault in task '{task}'")),
                "{task}: {}",
                daemon.log()
            );
        }
        let other_after = daemon.stream("other");
        assert_eq!(other_after.restarts, 0);
        assert_eq!(other_after.encoder.pid, other_before.encoder.pid);
        assert_eq!(
            other_after.session.map(|session| session.id),
            other_before.session.map(|session| session.id)
        );
        assert_eq!(other_after.ticks.missed, 0);
        // Whoever watches the stream sees a window whose numbers and times go on, without a discontinuity or a gap.
        let cam = cam.finish();
        cam.assert_clean_but(&[5]);
        other.finish().assert_clean_but(&[]);
        let playlist = daemon.get("/cam/small/media.m3u8").text();
        let breaks = ["#EXT-X-DISCONTINUITY", "#EXT-X-GAP"];
        assert!(
            !playlist.lines().any(|line| breaks.contains(&line)),
            "{playlist}"
        );
        daemon.stop();
    }

    #[test]
    #[ignore = "the whole matrix takes minutes: make faults"]
    fn a_stream_that_panics_in_a_loop_is_failed_backs_off_and_comes_back() {
        let _machine = beside_others();
        let mut daemon = Daemon::start(&streams());
        let _cam = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
        let _other = daemon.producer(&["pattern", "other", "--size", "320x180"]);
        daemon.wait_until_playable("cam");
        daemon.wait_until_playable("other");
        ask(&daemon, "stream.cam", "always");
        let failed = daemon.wait_for_state("cam", StreamState::Failed, Duration::from_secs(5));
        let detail = failed.detail.unwrap();
        assert!(
            detail.contains("its task 'stream' panicked: a test asked for a fault"),
            "{detail}"
        );
        wait_for("it was tried again", Duration::from_secs(10), || {
            (daemon.stream("cam").restarts >= 4).then_some(())
        });
        // Rests of 0, 250, 500, 1000 and 2000 ms: six restarts would take nearly four seconds.
        let (restarts, looked) = (daemon.stream("cam").restarts, Instant::now());
        while looked.elapsed() < Duration::from_secs(2) {
            assert_eq!(daemon.get("/healthz").status, 200);
            crate::harness::pause();
        }
        let more = daemon.stream("cam").restarts - restarts;
        assert!(more <= 2, "{more} restarts in two seconds after {restarts}");
        // What was published stays where it was, and the other stream knows nothing of it.
        assert_eq!(daemon.get("/cam/small/media.m3u8").status, 200);
        let other = daemon.stream("other");
        assert_eq!((other.restarts, other.ticks.missed), (0, 0));
        assert_eq!(other.state, StreamState::Live);
        let before = daemon.stream("cam");
        std::fs::remove_file(daemon.place.faults().join("stream.cam")).unwrap();
        wait_until_back(&daemon, "cam", &before);
        daemon.stop();
    }
}
