//! Players at the live edge. How near to it they come is printed, and judged by `make bench-latency-players`: here it only has to be so
//! near that no player without low latency could be there. `RINGGEAR_SOAK_SECONDS` says for how long; 60 without it.

mod alone {
    use std::time::Duration;

    use crate::harness::daemon::Daemon;
    use crate::harness::players::{LiveStream, hold_the_edge, players_at_the_edge};
    use crate::harness::streams::small_stream;
    use crate::harness::{alone, asked_for, wait_for};

    /// Without parts, players stay three segments of a second behind, and what they show is older still.
    const WITHOUT_LOW_LATENCY: f64 = 3.0;
    const MAX_STALL: f64 = 0.5;

    #[test]
    fn hls_js_shaka_and_dash_js_play_part_by_part_at_the_live_edge_without_a_stall() {
        let _machine = alone();
        let measured = asked_for("RINGGEAR_SOAK_SECONDS", 60);
        let daemon = Daemon::start(&small_stream("cam", "window = \"30s\""));
        let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
        wait_for("four segments are listed", Duration::from_secs(30), || {
            (daemon.stream("cam").window.segments >= 4).then_some(())
        });
        let url = daemon.url("/cam");
        let stream = LiveStream {
            url: &url,
            part: Duration::from_millis(200),
            segment: Duration::from_secs(1),
        };
        let runs = players_at_the_edge(stream);
        let seen = hold_the_edge(stream, &runs, Duration::from_secs(measured));
        for player in &seen {
            eprintln!("{player}");
        }
        for player in &seen {
            assert!(player.errors.is_empty(), "{player:#?}");
            // Where the machine itself stands still for a moment, so do the players: of this gap, that much was its doing.
            let stall = player.longest_gap - player.held_up;
            assert!(stall <= MAX_STALL, "it stalled: {player:#?}");
            assert!((player.speed - 1.0).abs() < 0.1, "{player:#?}");
            assert!(player.read > 2 * measured, "{player:#?}");
            // HLS fetches nothing but parts, DASH each segment while it is being written.
            let (by_parts, of) = match player.name.ends_with("HLS") || player.name == "hls.js" {
                true => (player.parts, measured * 5),
                false => (player.open_segments, measured),
            };
            assert!(10 * by_parts >= 9 * of, "not part by part: {player:#?}");
            assert!(
                player.segments - player.open_segments <= measured / 20,
                "{player:#?}"
            );
            assert!(
                player.p95.is_some_and(|p95| p95 < WITHOUT_LOW_LATENCY),
                "{player:#?}"
            );
        }
    }
}
