//! The players that people use, on Ringgear's origin, on its pages, and on its folder behind nginx.

mod alone {
    use std::process::Stdio;
    use std::time::Duration;

    use serde_json::json;

    use crate::harness::daemon::Daemon;
    use crate::harness::nginx::Nginx;
    use crate::harness::place::{Place, Who};
    use crate::harness::players::{
        page, play_with_gstreamer, player, probe, read_mpd_with_gstreamer, watch_in_browser,
    };
    use crate::harness::process::Process;
    use crate::harness::reference::Reference;
    use crate::harness::{alone, wait_for};

    const STREAM: &str = r#"
        [streams.cam]
        framerate = 25
        segment = "1s"
        part = "200ms"
        window = "12s"
        [[streams.cam.renditions]]
        name = "360p"
        size = "640x360"
        bitrate = "800k"
        preset = "ultrafast"
        [[streams.cam.renditions]]
        name = "180p"
        size = "320x180"
        bitrate = "300k"
        preset = "ultrafast"
    "#;
    const SOUND: &str = r#"
        [streams.cam.audio]
        source = "sine=frequency=440:sample_rate=44100"
        input_args = ["-re", "-f", "lavfi"]
        [[streams.cam.audio.renditions]]
        name = "aac"
        [[streams.cam.audio.renditions]]
        name = "opus"
        codec = "libopus"
        bitrate = "64k"
    "#;
    const PATTERN: [&str; 4] = ["pattern", "cam", "--size", "640x360"];

    #[test]
    fn hls_js_dash_js_and_shaka_play_the_folder_behind_nginx() {
        let _machine = alone();
        // With sound, in two codecs, from a source that is live.
        let daemon = Daemon::start(&format!("{STREAM}{SOUND}"));
        let _camera = daemon.producer(&PATTERN);
        daemon.wait_until_playable("cam");
        let nginx = Nginx::start(&daemon.place.live());
        // On the origin they play in `live_edge`, and in the whole fault matrix.
        let runs = [
            player("hls.js", &nginx.url("/cam/index.m3u8"), 25),
            player("dash.js", &nginx.url("/cam/manifest.mpd"), 25),
            player("shaka", &nginx.url("/cam/manifest.mpd"), 25),
        ];
        let runs = runs.map(|mut run| {
            run["sound"] = json!(true);
            run
        });
        watch_in_browser(&runs, 3);
    }

    #[test]
    fn the_demos_two_cameras_play_on_their_pages() {
        let _machine = alone();
        let place = Place::new();
        let demo = Process::start(
            "ringgear demo",
            place
                .command(Who::Daemon)
                .args(["demo", "--for", "100s"])
                .stdin(Stdio::null()),
        );
        let line = demo.wait_for_line("http://", Duration::from_secs(20));
        let from = line.find("http://").unwrap();
        let url = line[from..]
            .split_whitespace()
            .next()
            .unwrap()
            .trim_end_matches('/');
        let port = url.rsplit(':').next().unwrap().parse().unwrap();
        let streams = wait_for("both cameras are live", Duration::from_secs(30), || {
            let answer = crate::harness::http::get(port, "/api/v1/streams").ok()?;
            let status: ringgear::status::StreamsStatus =
                serde_json::from_slice(&answer.body).ok()?;
            let live = |stream: &&ringgear::status::StreamStatus| {
                stream.state == ringgear::status::StreamState::Live && stream.window.segments >= 3
            };
            (status.streams.iter().filter(live).count() == 2).then_some(status.streams)
        });
        let runs: Vec<_> = streams
            .iter()
            .map(|stream| {
                let rate: ringgear::tick::Framerate = stream.framerate.parse().unwrap();
                page(&format!("{url}/{}/", stream.name), rate.num() / rate.den())
            })
            .collect();
        watch_in_browser(&runs, 1);
    }

    #[test]
    fn gstreamer_and_ffprobe_read_both_manifests_without_a_warning() {
        let _machine = alone();
        let daemon = Daemon::start(STREAM);
        let _camera = daemon.producer(&PATTERN);
        wait_for("six segments are listed", Duration::from_secs(30), || {
            (daemon.stream("cam").window.segments >= 6).then_some(())
        });
        probe(&daemon.url("/cam/index.m3u8"));
        // FFmpeg 5.1 reads a stream's first segment, which is shorter than the others, twice if the MPD loses it meanwhile: it is
        // tried while the window still grows.
        probe(&daemon.url("/cam/manifest.mpd"));
        play_with_gstreamer(&daemon.url("/cam/index.m3u8"), "hlsdemux2", 125);
        read_mpd_with_gstreamer(&daemon.url("/cam/manifest.mpd"));
    }

    /// Tries the tests' own players, pages, bars and nginx on a stream that is no work of Ringgear's.
    #[test]
    #[ignore = "shows that the harness works, not the daemon: run it when a player is updated"]
    fn the_players_play_what_ffmpeg_publishes() {
        let _machine = alone();
        let place = Place::new();
        let folder = place.live();
        let _reference = Reference::start(&folder);
        wait_for(
            "FFmpeg has published six segments",
            Duration::from_secs(30),
            || {
                folder
                    .join("chunk-stream0-00006.m4s")
                    .exists()
                    .then_some(())
            },
        );
        let nginx = Nginx::start(&folder);
        for manifest in ["/master.m3u8", "/manifest.mpd"] {
            probe(&nginx.url(manifest));
        }
        // Not its DASH: GStreamer asks for a segment that FFmpeg has yet to write, and reads nginx's error page as media.
        play_with_gstreamer(&nginx.url("/master.m3u8"), "hlsdemux2", 50);
        let runs = [
            player("hls.js", &nginx.url("/master.m3u8"), 25),
            // FFmpeg suggests one segment, at which dash.js asks for what is yet to be written, and gives up.
            json!({"name": "dash.js", "player": "dash.js", "url": nginx.url("/manifest.mpd"), "framerate": 25, "delay": 4}),
            player("shaka", &nginx.url("/manifest.mpd"), 25),
        ];
        watch_in_browser(&runs, 2);
    }
}
