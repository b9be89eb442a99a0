//! Renditions that differ in more than their size: in framerate, in codec, in what their pictures go through.

mod large {
    use std::collections::HashMap;
    use std::io::{Seek as _, Write as _};
    use std::time::Duration;

    use ringgear_producer::pattern::fill;
    use ringgear_producer::{FrameFormat, PixelFormat};
    use rustix::process::{Pid, Signal, kill_process};

    use crate::harness::checker::Checker;
    use crate::harness::daemon::Daemon;
    use crate::harness::players::{player, watch_in_browser};
    use crate::harness::tick_log::Row;
    use crate::harness::{beside_others, hls, media, tick_log, wait_for};

    const HALF: &str = r#"
        [streams.cam]
        framerate = 29.97
        segment = "1s"
        part = "200ms"
        window = "120s"
        [[streams.cam.renditions]]
        name = "full"
        size = "320x180"
        bitrate = "300k"
        preset = "ultrafast"
        [[streams.cam.renditions]]
        name = "half"
        size = "320x180"
        bitrate = "200k"
        preset = "ultrafast"
        framerate = 14.985
        output_args = ["-level", "3.1"]
    "#;

    #[test]
    fn a_rendition_of_half_the_framerate_has_every_second_picture_and_loses_none_when_the_encoder_dies()
     {
        let _machine = beside_others();
        let mut daemon = Daemon::start(HALF);
        let mut camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
        daemon.wait_until_playable("cam");
        let checker = Checker::over_http(&daemon, "cam");
        for kill in 1..=3 {
            let before = daemon.stream("cam");
            let pid = before.encoder.pid.expect("the encoder runs");
            let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            kill_process(pid, Signal::KILL).unwrap();
            wait_for("another encoder's segment", Duration::from_secs(15), || {
                let now = daemon.stream("cam");
                let goes_on = now.window.last_segment > before.window.last_segment.map(|at| at + 1);
                (now.encoder.restarts == kill && goes_on).then_some(())
            });
        }
        let variants = hls::multivariant(&daemon.get("/cam/index.m3u8").text()).unwrap();
        let rates: Vec<_> = variants.iter().map(|variant| variant.frame_rate).collect();
        assert_eq!(rates, [Some(29.97), Some(14.985)]);
        let codecs = variants[1].codecs.clone().unwrap();
        assert!(codecs.ends_with("1f"), "level 3.1: {codecs}");
        let mpd = daemon.get("/cam/manifest.mpd").text();
        assert!(
            mpd.contains("frameRate=\"30000/1001\"") && mpd.contains("frameRate=\"30000/2002\""),
            "{mpd}"
        );
        let stream = daemon.stream("cam");
        assert_eq!(
            (stream.encoder.replaced, stream.ticks.missed),
            (0, 0),
            "{stream:?}"
        );
        checker.finish().assert_clean();
        camera.signal(Signal::TERM);
        camera.wait(Duration::from_secs(5));
        daemon.stop();

        let log = tick_log::read(&daemon.place.tick_logs(), "cam");
        let log: HashMap<u64, Row> = log.into_iter().map(|row| (row.tick, row)).collect();
        let listed = ["full", "half"].map(|rendition| shown_as_logged(&daemon, rendition, &log));
        assert_eq!(
            listed[0], listed[1],
            "the same segments, with the same lengths"
        );
    }

    /// Each picture of the rendition shows the frame that its tick took, and every one of its ticks is there. Its segments, and their lengths.
    fn shown_as_logged(
        daemon: &Daemon,
        rendition: &str,
        log: &HashMap<u64, Row>,
    ) -> Vec<(u64, String)> {
        const DEN: u64 = 1001;
        let folder = daemon.place.live().join("cam").join(rendition);
        let text = std::fs::read_to_string(folder.join("media.m3u8")).unwrap();
        let playlist = hls::media(&text).unwrap();
        let broken = |listed: &hls::Listed| listed.gap || listed.discontinuity;
        assert!(!playlist.segments.iter().any(broken), "{text}");
        let shown = media::decode_published(&folder, &playlist);
        let (first, last) = (*log.keys().min().unwrap(), *log.keys().max().unwrap());
        assert_eq!(shown[0].time, first * DEN, "{rendition}");
        let every = if rendition == "half" { 2 } else { 1 };
        for (at, picture) in shown.iter().enumerate() {
            let tick = picture.time / DEN;
            assert!(
                at == 0 || tick.is_multiple_of(every),
                "{rendition}: tick {tick}"
            );
            if let Some(next) = shown.get(at + 1) {
                let ticks = (next.time - picture.time) / DEN;
                assert!(
                    ticks == every || at == 0 && ticks < every,
                    "{rendition}: {ticks} at {tick}"
                );
            }
            let frame = picture
                .bars
                .as_ref()
                .map(|bars| u64::from(bars.frame_number));
            // A stop completes the last segment with the last picture.
            assert_eq!(
                frame,
                log[&tick.min(last)].frame,
                "{rendition}: tick {tick}"
            );
        }
        let lengths = playlist.segments.iter();
        lengths
            .map(|listed| (listed.number, format!("{:.4}", listed.seconds)))
            .collect()
    }

    #[test]
    fn a_restarted_daemon_goes_on_with_a_rendition_of_half_the_framerate() {
        let _machine = beside_others();
        let mut daemon = Daemon::start(HALF);
        let _camera = daemon.producer(&["pattern", "cam", "--size", "320x180"]);
        let before = daemon.wait_until_playable("cam");
        daemon.kill();
        daemon.restart();
        wait_for("three more segments", Duration::from_secs(30), || {
            let now = daemon.stream("cam");
            (now.window.last_segment > before.window.last_segment.map(|at| at + 3)).then_some(())
        });
        for rendition in ["full", "half"] {
            let text = daemon.get(&format!("/cam/{rendition}/media.m3u8")).text();
            let playlist = hls::media(&text).unwrap();
            let first = &playlist.segments[0];
            for listed in &playlist.segments {
                assert!(!listed.gap && !listed.discontinuity, "{rendition}: {text}");
                assert_eq!(listed.map, first.map, "{rendition}: {text}");
            }
        }
    }

    /// Name, codec, what its CODECS begin with, and more keys.
    const CODECS: [(&str, &str, &str, &str); 4] = [
        (
            "h264",
            "libx264",
            "avc1.",
            "preset = \"ultrafast\"\nfilter = \"transpose=clock\"\nsize = \"92x130\"",
        ),
        (
            "hevc",
            "libx265",
            "hvc1.1.",
            "preset = \"ultrafast\"\noptions = { x265-params = \"aq-mode=1\" }",
        ),
        ("vp9", "libvpx-vp9", "vp09.00.", ""),
        ("av1", "libaom-av1", "av01.0.", ""),
    ];

    #[test]
    fn deep_frames_of_an_odd_size_are_padded_turned_and_encoded_by_four_codecs() {
        const RED: [u8; 3] = [255, 0, 0];
        const BLUE: [u8; 3] = [0, 0, 255];
        let _machine = beside_others();
        let mut table = String::from(
            "[streams.cam]\nframerate = 10\nsegment = \"1s\"\nwindow = \"30s\"\nstale_after = \"1m\"\n",
        );
        for (name, codec, _, more) in CODECS {
            table += &format!(
                "[[streams.cam.renditions]]\nname = \"{name}\"\ncodec = \"{codec}\"\nbitrate = \"200k\"\n{more}\n"
            );
        }
        let mut daemon = Daemon::start(&table);
        let format = FrameFormat::packed(PixelFormat::Yuv422p10le, 129, 91).unwrap();
        let mut frame = vec![0; format.bytes()];
        fill(&format, &mut frame, 0..64, 0..91, RED);
        fill(&format, &mut frame, 64..129, 0..91, BLUE);
        let mut frames = tempfile::tempfile().unwrap();
        for _ in 0..20 {
            frames.write_all(&frame).unwrap();
        }
        frames.rewind().unwrap();
        let push = ["push", "cam", "--size", "129x91", "--format", "yuv422p10"];
        let mut push = daemon.producer_with(&push, frames.into());
        daemon.wait_until_playable("cam");
        assert_eq!(push.wait(Duration::from_secs(15)).code(), Some(0));
        assert!(daemon.log().contains("padded"), "{}", daemon.log());
        let variants = hls::multivariant(&daemon.get("/cam/index.m3u8").text()).unwrap();
        for ((name, _, start, _), variant) in CODECS.iter().zip(&variants) {
            let codecs = variant.codecs.clone().unwrap();
            assert!(codecs.starts_with(start), "{name}: {codecs}");
        }
        daemon.stop();
        for (name, ..) in CODECS {
            let folder = daemon.place.live().join("cam").join(name);
            let text = std::fs::read_to_string(folder.join("media.m3u8")).unwrap();
            let file = daemon.place.live().join(format!("{name}.mp4"));
            media::join(&folder, &hls::media(&text).unwrap(), &file);
            // Turned, what was on the left is above.
            let (width, height, second) = match name {
                "h264" => (92, 130, (46, 110)),
                _ => (130, 92, (110, 46)),
            };
            let check = |at: usize, rgb: &[u8]| {
                // An encoder begins with coarse pictures where it has to hold a bitrate.
                if at < 10 {
                    return;
                }
                for ((x, y), wanted) in [((20, 20), RED), (second, BLUE)] {
                    let seen = &rgb[(y * width + x) * 3..][..3];
                    let near = seen.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) <= 8);
                    assert!(near, "{name}, picture {at}: {seen:?} at {x},{y}");
                }
            };
            let pictures = media::decode(&file, "rgb24", width * height * 3, check);
            assert!(pictures >= 20, "{name}: {pictures} pictures");
        }
    }

    #[test]
    #[ignore = "the whole matrix takes minutes: make faults"]
    fn chromium_plays_vp9_and_av1() {
        let _machine = beside_others();
        let stream = |name: &str, codec: &str| {
            format!(
                "[streams.{name}]\nframerate = 25\nsegment = \"1s\"\npart = \"200ms\"\nwindow = \"12s\"\n\
                 [[streams.{name}.renditions]]\nname = \"small\"\nsize = \"320x180\"\nbitrate = \"300k\"\ncodec = \"{codec}\"\n"
            )
        };
        let daemon = Daemon::start(&(stream("vp9", "libvpx-vp9") + &stream("av1", "libaom-av1")));
        let _cameras =
            ["vp9", "av1"].map(|name| daemon.producer(&["pattern", name, "--size", "320x180"]));
        for name in ["vp9", "av1"] {
            daemon.wait_until_playable(name);
        }
        let runs = [
            player("hls.js", &daemon.url("/vp9/index.m3u8"), 25),
            player("shaka", &daemon.url("/av1/manifest.mpd"), 25),
        ];
        watch_in_browser(&runs, 2);
    }
}
