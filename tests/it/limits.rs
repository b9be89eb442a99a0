//! What the machine gives the daemon runs out: descriptors and memory. What does not fit is refused with the reason, and
//! the rest goes on.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use ringgear::status::{StreamState, StreamStatus};

use crate::harness::checker::Checker;
use crate::harness::daemon::Daemon;
use crate::harness::held::{Held, cpu_seconds, limit_descriptors};
use crate::harness::place::Place;
use crate::harness::streams::small_stream;
use crate::harness::{beside_others, hls, http, pause, wait_for};

fn stream(name: &str) -> String {
    small_stream(name, "window = \"12s\"")
}

#[test]
fn the_kernel_finds_an_encoder_before_the_daemon_when_memory_runs_out() {
    let _machine = beside_others();
    let daemon = Daemon::start(&stream("cam"));
    let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    let adj = |pid: u32| -> i32 {
        let text = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        text.trim().parse().unwrap()
    };
    let encoder = daemon.wait_until_playable("cam").encoder.pid.unwrap();
    assert_eq!(adj(encoder), (adj(daemon.pid()) + 500).min(1000));
}

#[test]
fn a_stream_that_descriptors_do_not_suffice_for_is_refused_and_the_others_run() {
    let _machine = beside_others();
    let mut place = Place::new();
    // 64 for the house, 32 for the past, 80 for viewers, 8 for clients, 28 for each stream.
    place.limit_descriptors(228);
    let config = format!(
        "[limits]\nconnections = 8\nconnections_per_user = 8\nsessions_per_user = 8\n{}{}",
        stream("cam"),
        stream("other")
    );
    let mut daemon = Daemon::start_in(place, &config, &[]);
    let refused = daemon.wait_for_state("other", StreamState::Failed, Duration::from_secs(5));
    let detail = refused.detail.unwrap();
    assert!(
        detail.contains("needs 28 descriptors") && detail.contains("to 240 (LimitNOFILE="),
        "{detail}"
    );
    let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
    daemon.wait_until_playable("cam");
    let other = daemon.producer(&["pattern", "other", "--size", "320x180"]);
    other.wait_for_line("needs 28 descriptors", Duration::from_secs(5));
    assert_eq!(daemon.stream("other").session, None);
    daemon.stop();
}

mod large {
    use super::*;

    #[test]
    fn a_window_that_does_not_fit_lets_its_oldest_segments_go_and_spares_the_others() {
        const LIMIT: u64 = 2 << 20;
        let _machine = beside_others();
        let large = small_stream("large", "window = \"6s\"")
            .replace("bitrate = \"300k\"", "crf = 1")
            .replace("320x180", "640x360");
        let small = small_stream("small", "window = \"6s\"");
        let mut daemon = Daemon::start(&format!(
            "[limits]\nwindow_memory = \"2MiB\"\n{large}{small}"
        ));
        let _cameras = [
            daemon.producer(&["pattern", "large", "--size", "640x360"]),
            daemon.producer(&["pattern", "small", "--size", "320x180"]),
        ];
        // What their starts take of the machine is no part of what is checked.
        for name in ["large", "small"] {
            daemon.wait_until_playable(name);
        }
        daemon.wait_for_slates(&["large", "small"]);
        let checker = Checker::over_http(&daemon, "small");
        let told = wait_for("too little memory", Duration::from_secs(60), || {
            daemon.stream("large").detail
        });
        assert!(
            told.contains("the 2 MiB for all windows; raise [limits] window_memory"),
            "{told}"
        );
        // It goes on within them.
        let before = daemon.stream("large").window.last_segment;
        wait_for("four more segments", Duration::from_secs(30), || {
            // Both of one moment: between two, one gives up what the other takes. They are told by name.
            let streams = daemon.status().streams;
            let [large, small] = <[StreamStatus; 2]>::try_from(streams).unwrap();
            let held = large.window.bytes + small.window.bytes;
            // A window comes into its share at once; the other makes room for it at its next look.
            assert!(
                held <= LIMIT + (128 << 10),
                "{held} bytes: {large:?} {small:?}"
            );
            assert_eq!((large.state, small.detail), (StreamState::Live, None));
            (large.window.last_segment > before.map(|at| at + 3)).then_some(())
        });
        let text = daemon.get("/large/small/media.m3u8").text();
        let playlist = hls::media(&text).unwrap();
        assert!(
            playlist.segments.iter().all(|segment| !segment.gap),
            "{text}"
        );
        assert!(daemon.log().contains("window has too little memory"));
        checker.finish().assert_clean();
        daemon.stop();
    }

    #[test]
    fn without_descriptors_the_streams_go_on_and_the_doors_open_again_by_themselves() {
        let _machine = beside_others();
        let mut daemon = Daemon::start(&stream("cam"));
        let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
        let before = daemon.wait_until_playable("cam");
        let limit = Held::by(&daemon).descriptors + 4;
        limit_descriptors(&daemon, limit);
        let address = format!("127.0.0.1:{}", daemon.place.port);
        let viewers: Vec<_> = (0..40)
            .map(|_| TcpStream::connect(&address).unwrap())
            .collect();
        let late = daemon.producer(&["pattern", "cam", "--size", "320x180", "--take-over"]);
        let (cpu, since) = (cpu_seconds(&daemon), Instant::now());
        while since.elapsed() < Duration::from_secs(3) {
            pause();
        }
        let load = (cpu_seconds(&daemon) - cpu) / since.elapsed().as_secs_f64();
        eprintln!("{:.1} % of a core while nobody can connect", load * 100.0);
        assert!(load < 0.5, "it spins: {load} of a core");
        drop(late);
        drop(viewers);
        wait_for("the origin answers again", Duration::from_secs(5), || {
            let answer = http::get(daemon.place.port, "/healthz").ok()?;
            (answer.status == 200).then_some(())
        });
        limit_descriptors(&daemon, 4096);
        let after = wait_for("the stream goes on", Duration::from_secs(10), || {
            let now = daemon.stream("cam");
            let more = now.window.last_segment > before.window.last_segment.map(|last| last + 4);
            (more && now.state == StreamState::Live && now.detail.is_none()).then_some(now)
        });
        assert_eq!((after.ticks.missed, after.restarts), (0, 0));
        assert_eq!(after.encoder.pid, before.encoder.pid);
        let told = |text: &str| {
            daemon
                .log()
                .lines()
                .filter(|line| line.contains(text))
                .count()
        };
        assert!(told("viewers can't connect") <= 1, "{}", daemon.log());
        assert!(told("clients can't connect") <= 1, "{}", daemon.log());
        daemon.stop();
    }
}
