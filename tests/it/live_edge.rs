//! Players at the live edge. How near to it they come is printed. It has to be so near that no player without low latency could be there; in `make soak`, where
//! `RINGGEAR_SOAK_SECONDS` says for how long they play (60 without it), so near as is the goal on a machine with nothing else to do.

mod alone {
    use std::time::Duration;

    use crate::harness::daemon::Daemon;
    use crate::harness::players::{LiveStream, hold_the_edge, players_at_the_edge};
    use crate::harness::{alone, asked_for};

    const MAX_STALL: f64 = 0.5;
    /// Of the time for which they play, what they have to find their place in.
    const SETTLE: u64 = 3;

    #[test]
    fn hls_js_shaka_and_dash_js_play_part_by_part_at_the_live_edge_without_a_stall() {
        play_part_by_part(200, 1, 25);
    }

    #[test]
    #[ignore = "the same with longer parts: make soak"]
    fn they_do_with_parts_and_segments_of_the_default_lengths() {
        play_part_by_part(333, 2, 30);
    }

    /// With parts of so many milliseconds, segments of so many seconds.
    fn play_part_by_part(part: u64, segment: u64, framerate: u32) {
        let _machine = alone();
        let measured = asked_for("RINGGEAR_SOAK_SECONDS", 60) - SETTLE;
        let daemon = Daemon::start(&format!(
            "[streams.cam]\nframerate = {framerate}\nsegment = \"{segment}s\"\npart = \"{part}ms\"\nwindow = \"30s\"\n\
             [[streams.cam.renditions]]\nname = \"small\"\nsize = \"320x180\"\nbitrate = \"300k\"\npreset = \"ultrafast\"\n"
        ));
        let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
        let url = daemon.url("/cam");
        let status = daemon.url("/api/v1/streams/cam");
        let stream = LiveStream {
            url: &url,
            status: &status,
            part: Duration::from_millis(part),
            segment: Duration::from_secs(segment),
        };
        // Without parts, players stay three segments behind, and what they show is older still.
        let without_low_latency = (3 * segment) as f64;
        let oldest = match (std::env::var_os("RINGGEAR_SOAK_SECONDS"), part) {
            (None, _) => without_low_latency,
            (Some(_), ..=200) => 1.2,
            (Some(_), _) => 2.0,
        };
        let parts = measured * 1000 / part;
        let segments = measured / segment;
        let runs = players_at_the_edge(stream);
        let [settle, time] = [SETTLE, measured].map(Duration::from_secs);
        let seen = hold_the_edge(stream, &runs, settle, time);
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
                true => (player.parts, parts),
                false => (player.open_segments, segments),
            };
            assert!(10 * by_parts >= 9 * of, "not part by part: {player:#?}");
            assert!(
                player.segments - player.open_segments <= segments / 20,
                "{player:#?}"
            );
            assert!(player.p95.is_some_and(|p95| p95 < oldest), "{player:#?}");
        }
    }
}
